//! Rows for people and other programs: CSV, JSON lines, Parquet.

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde_json::{Map, Value};
use tapeline_schemas::Money;

use super::columns::{Column, ColumnType, arrow_schema};
use super::day::Day;
use super::read::is_number;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Comma-separated, with the columns' names first (RFC 4180).
    Csv,
    /// A JSON object a line; numbers keep all their digits.
    Json,
    /// One Parquet file.
    Parquet,
}

/// Writes rows in one format.
pub(super) struct Exporter<W: Write + Send> {
    out: Out<W>,
    begun: bool,
}

enum Out<W: Write + Send> {
    Csv(W),
    Json(W),
    Parquet(Option<W>, Option<(Vec<Column>, Box<ArrowWriter<W>>)>),
}

impl<W: Write + Send> Exporter<W> {
    pub(super) fn new(format: Format, out: W) -> Exporter<W> {
        let out = match format {
            Format::Csv => Out::Csv(out),
            Format::Json => Out::Json(out),
            Format::Parquet => Out::Parquet(Some(out), None),
        };
        Exporter { out, begun: false }
    }

    /// Writes the rows that `keep` keeps.
    pub(super) fn write(
        &mut self,
        columns: &[Column],
        batch: &RecordBatch,
        keep: &[usize],
    ) -> Result<()> {
        if !std::mem::replace(&mut self.begun, true) {
            self.begin(columns)?;
        }
        match &mut self.out {
            Out::Csv(out) => keep.iter().try_for_each(|&row| csv_row(out, columns, batch, row)),
            Out::Json(out) => keep.iter().try_for_each(|&row| json_row(out, columns, batch, row)),
            Out::Parquet(_, Some((first, writer))) => {
                anyhow::ensure!(
                    first == columns,
                    "the days have different columns: write them to different files"
                );
                let mut at = 0;
                while at < keep.len() {
                    let run = keep[at..]
                        .iter()
                        .zip(keep[at]..)
                        .take_while(|(row, next)| *row == next)
                        .count();
                    writer.write(&batch.slice(keep[at], run))?;
                    at += run;
                }
                Ok(())
            }
            Out::Parquet(_, None) => Ok(()),
        }
    }

    fn begin(&mut self, columns: &[Column]) -> Result<()> {
        match &mut self.out {
            Out::Csv(out) => {
                let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
                writeln!(out, "{}", names.join(","))?;
            }
            Out::Json(_) => {}
            Out::Parquet(out, writer) => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .build();
                let out = out.take().context("already begun")?;
                let begun = ArrowWriter::try_new(
                    out,
                    Arc::clone(&arrow_schema(columns)),
                    Some(properties),
                )?;
                *writer = Some((columns.to_vec(), Box::new(begun)));
            }
        }
        Ok(())
    }

    /// Ends the file.
    pub(super) fn finish(self) -> Result<()> {
        match self.out {
            Out::Csv(mut out) | Out::Json(mut out) => Ok(out.flush()?),
            Out::Parquet(_, Some((_, writer))) => writer.close().map(drop).map_err(Into::into),
            Out::Parquet(..) => Ok(()),
        }
    }
}

fn csv_row(
    out: &mut impl Write,
    columns: &[Column],
    batch: &RecordBatch,
    row: usize,
) -> Result<()> {
    for (index, (column, array)) in columns.iter().zip(batch.columns()).enumerate() {
        if index > 0 {
            out.write_all(b",")?;
        }
        let Some(text) = text_of(column.kind, array, row) else { continue };
        if text.contains([',', '"', '\n', '\r']) {
            write!(out, "\"{}\"", text.replace('"', "\"\""))?;
        } else {
            out.write_all(text.as_bytes())?;
        }
    }
    Ok(out.write_all(b"\n")?)
}

fn json_row(
    out: &mut impl Write,
    columns: &[Column],
    batch: &RecordBatch,
    row: usize,
) -> Result<()> {
    let mut object = Map::new();
    for (column, array) in columns.iter().zip(batch.columns()) {
        let value = match text_of(column.kind, array, row) {
            None => Value::Null,
            Some(text) if column.kind == ColumnType::Boolean => Value::Bool(text == "true"),
            Some(text) if column.kind == ColumnType::Json => serde_json::from_str(&text)?,
            // money stays text: readers of JSON make floats of numbers (invariant 10)
            Some(text)
                if is_number(column.kind)
                    && !matches!(column.kind, ColumnType::Decimal | ColumnType::NumericText) =>
            {
                serde_json::from_str(&text)?
            }
            Some(text) => Value::String(text),
        };
        object.insert(column.name.clone(), value);
    }
    serde_json::to_writer(&mut *out, &object)?;
    Ok(out.write_all(b"\n")?)
}

/// A value as text; nothing for null.
pub(super) fn text_of(kind: ColumnType, array: &ArrayRef, row: usize) -> Option<String> {
    if array.is_null(row) {
        return None;
    }
    Some(match kind {
        ColumnType::Text | ColumnType::NumericText | ColumnType::Json => {
            array.as_string::<i32>().value(row).to_owned()
        }
        ColumnType::Boolean => array.as_boolean().value(row).to_string(),
        ColumnType::Smallint => array.as_primitive::<Int16Type>().value(row).to_string(),
        ColumnType::Integer => array.as_primitive::<Int32Type>().value(row).to_string(),
        ColumnType::Bigint => array.as_primitive::<Int64Type>().value(row).to_string(),
        ColumnType::Timestamp => {
            moment(array.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        ColumnType::Date => Day(array.as_primitive::<Date32Type>().value(row)).to_string(),
        ColumnType::Decimal => {
            let mantissa = array.as_primitive::<Decimal128Type>().value(row);
            Money::from_mantissa(mantissa)
                .map_or_else(|error| error.to_string(), |money| money.to_string())
        }
        ColumnType::Texts => {
            let texts = array.as_list::<i32>().value(row);
            let texts: Vec<_> =
                texts.as_string::<i32>().iter().flatten().map(str::to_owned).collect();
            texts.join(" ")
        }
    })
}

/// RFC 3339 with microseconds.
fn moment(micros: i64) -> String {
    let day = Day::of_micros(micros);
    let rest = micros - day.start_micros();
    let (seconds, fraction) = (rest / 1_000_000, rest % 1_000_000);
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{day}T{hours:02}:{minutes:02}:{seconds:02}.{fraction:06}Z")
}
