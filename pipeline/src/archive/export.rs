//! Rows for people and other programs: CSV, JSON lines, Parquet.

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::batch::BatchBuilder;
use super::columns::{Column, ColumnType, arrow_schema};
use super::text::{DayText, put_text};

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

/// Bytes that are gathered before they are written, and rows of a Parquet batch.
const GATHERED_BYTES: usize = 64 * 1024;
const BATCH_ROWS: usize = 8_192;

/// Writes rows in one format.
pub(super) struct Exporter<W: Write + Send> {
    out: Out<W>,
    begun: bool,
    lines: Lines,
}

enum Out<W: Write + Send> {
    Csv(W),
    Json(W),
    Parquet(Option<W>, Option<Box<ParquetOut<W>>>),
}

struct ParquetOut<W: Write + Send> {
    columns: Vec<Column>,
    builder: BatchBuilder,
    writer: ArrowWriter<W>,
}

impl<W: Write + Send> Exporter<W> {
    pub(super) fn new(format: Format, out: W) -> Exporter<W> {
        let out = match format {
            Format::Csv => Out::Csv(out),
            Format::Json => Out::Json(out),
            Format::Parquet => Out::Parquet(Some(out), None),
        };
        Exporter { out, begun: false, lines: Lines::default() }
    }

    /// Writes a row: the fields of a binary COPY.
    pub(super) fn push<'a>(
        &mut self,
        columns: &[Column],
        fields: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> Result<()> {
        if !self.begun {
            self.begin(columns)?;
        }
        match &mut self.out {
            Out::Csv(out) => {
                self.lines.csv(columns, fields)?;
                self.lines.write(GATHERED_BYTES, out)
            }
            Out::Json(out) => {
                self.lines.json(columns, fields)?;
                self.lines.write(GATHERED_BYTES, out)
            }
            Out::Parquet(_, Some(parquet)) => parquet.push(columns, fields),
            Out::Parquet(_, None) => Ok(()),
        }
    }

    /// Writes what comes before the first row; also where there is none.
    pub(super) fn begin(&mut self, columns: &[Column]) -> Result<()> {
        self.begun = true;
        match &mut self.out {
            Out::Csv(out) => {
                let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
                writeln!(out, "{}", names.join(","))?;
            }
            Out::Json(_) => {}
            Out::Parquet(out, parquet) => {
                let out = out.take().context("already begun")?;
                *parquet = Some(Box::new(ParquetOut::new(columns, out)?));
            }
        }
        Ok(())
    }

    /// Writes lines of the same format that were made elsewhere.
    pub(super) fn write_lines(&mut self, lines: &[u8]) -> Result<()> {
        match &mut self.out {
            Out::Csv(out) | Out::Json(out) => Ok(out.write_all(lines)?),
            Out::Parquet(..) => anyhow::bail!("Parquet has no lines"),
        }
    }

    /// Ends the file.
    pub(super) fn finish(mut self) -> Result<()> {
        match self.out {
            Out::Csv(mut out) | Out::Json(mut out) => {
                self.lines.write(0, &mut out)?;
                Ok(out.flush()?)
            }
            Out::Parquet(_, Some(parquet)) => parquet.finish(),
            Out::Parquet(..) => Ok(()),
        }
    }
}

impl<W: Write + Send> ParquetOut<W> {
    fn new(columns: &[Column], out: W) -> Result<ParquetOut<W>> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .build();
        let schema = arrow_schema(columns);
        Ok(ParquetOut {
            columns: columns.to_vec(),
            builder: BatchBuilder::new(columns, Arc::clone(&schema))?,
            writer: ArrowWriter::try_new(out, schema, Some(properties))?,
        })
    }

    fn push<'a>(
        &mut self,
        columns: &[Column],
        fields: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> Result<()> {
        ensure!(
            self.columns == columns,
            "the days have different columns: write them to different files"
        );
        self.builder.push(columns, fields)?;
        if self.builder.rows() >= BATCH_ROWS {
            self.writer.write(&self.builder.finish()?)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        if self.builder.rows() > 0 {
            self.writer.write(&self.builder.finish()?)?;
        }
        self.writer.close().map(drop).map_err(Into::into)
    }
}

/// Lines of text on their way out.
#[derive(Default)]
pub(super) struct Lines {
    bytes: Vec<u8>,
    scratch: Vec<u8>,
    day: DayText,
}

impl Lines {
    /// Adds a row as a line of CSV.
    pub(super) fn csv<'a>(
        &mut self,
        columns: &[Column],
        fields: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> Result<()> {
        for (index, (column, field)) in columns.iter().zip(fields).enumerate() {
            if index > 0 {
                self.bytes.push(b',');
            }
            let Some(field) = field else { continue };
            let start = self.bytes.len();
            put_text(column.kind, field, &mut self.day, &mut self.bytes)?;
            if may_need_quotes(column.kind) {
                self.quote(start);
            }
        }
        self.bytes.push(b'\n');
        Ok(())
    }

    /// Puts what was written from `start` on into quotes, where it has to be.
    fn quote(&mut self, start: usize) {
        let special = |byte: &u8| matches!(byte, b',' | b'"' | b'\n' | b'\r');
        if !self.bytes[start..].iter().any(special) {
            return;
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(&self.bytes[start..]);
        self.bytes.truncate(start);
        self.bytes.push(b'"');
        for &byte in &self.scratch {
            if byte == b'"' {
                self.bytes.push(b'"');
            }
            self.bytes.push(byte);
        }
        self.bytes.push(b'"');
    }

    /// Adds a row as a line of JSON. Money stays text: readers of JSON make floats of numbers
    /// (invariant 10).
    pub(super) fn json<'a>(
        &mut self,
        columns: &[Column],
        fields: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> Result<()> {
        for (index, (column, field)) in columns.iter().zip(fields).enumerate() {
            self.bytes.push(if index == 0 { b'{' } else { b',' });
            serde_json::to_writer(&mut self.bytes, &column.name)?;
            self.bytes.push(b':');
            match field {
                None => self.bytes.extend_from_slice(b"null"),
                Some(field) if is_json_as_it_is(column.kind) => {
                    put_text(column.kind, field, &mut self.day, &mut self.bytes)?;
                }
                Some(field) => {
                    self.scratch.clear();
                    put_text(column.kind, field, &mut self.day, &mut self.scratch)?;
                    let text = std::str::from_utf8(&self.scratch)?;
                    serde_json::to_writer(&mut self.bytes, text)?;
                }
            }
        }
        self.bytes.extend_from_slice(b"}\n");
        Ok(())
    }

    /// Writes the lines once they are `enough` bytes.
    pub(super) fn write(&mut self, enough: usize, out: &mut impl Write) -> Result<()> {
        if self.bytes.len() >= enough {
            out.write_all(&self.bytes)?;
            self.bytes.clear();
        }
        Ok(())
    }

    /// The lines once they are `enough` bytes.
    pub(super) fn take(&mut self, enough: usize) -> Option<Vec<u8>> {
        (self.bytes.len() >= enough.max(1)).then(|| std::mem::take(&mut self.bytes))
    }
}

fn may_need_quotes(kind: ColumnType) -> bool {
    matches!(kind, ColumnType::Text | ColumnType::Json | ColumnType::Texts)
}

fn is_json_as_it_is(kind: ColumnType) -> bool {
    matches!(
        kind,
        ColumnType::Boolean
            | ColumnType::Smallint
            | ColumnType::Integer
            | ColumnType::Bigint
            | ColumnType::Json
    )
}
