//! Rows as Arrow columns, and back.

use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use arrow_array::builder::{
    BooleanBuilder, Date32Builder, Decimal128Builder, Int16Builder, Int32Builder, Int64Builder,
    ListBuilder, StringBuilder, TimestampMicrosecondBuilder,
};
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, SchemaRef};

use super::columns::{Column, ColumnType};
use super::numeric::{self, PRECISION, SCALE};
use super::text::{EPOCH_DAYS, EPOCH_MICROS, JSONB_VERSION, put_uuid, uuid_bytes};

/// The object id of type `text`, for arrays of it.
const TEXT_OID: u32 = 25;

/// A number that its column's decimals cannot hold: the file is made again with it as text.
#[derive(Debug, thiserror::Error)]
#[error("column {0} holds a number of more than 38 digits or 18 decimals")]
pub(super) struct DoesNotFit(pub(super) String);

enum Builder {
    Text(StringBuilder),
    Boolean(BooleanBuilder),
    Smallint(Int16Builder),
    Integer(Int32Builder),
    Bigint(Int64Builder),
    Timestamp(TimestampMicrosecondBuilder),
    Date(Date32Builder),
    Decimal(Decimal128Builder),
    NumericText(StringBuilder),
    Json(StringBuilder),
    Uuid(StringBuilder),
    Texts(ListBuilder<StringBuilder>),
}

impl Builder {
    fn new(kind: ColumnType) -> Result<Builder> {
        Ok(match kind {
            ColumnType::Text => Builder::Text(StringBuilder::new()),
            ColumnType::Boolean => Builder::Boolean(BooleanBuilder::new()),
            ColumnType::Smallint => Builder::Smallint(Int16Builder::new()),
            ColumnType::Integer => Builder::Integer(Int32Builder::new()),
            ColumnType::Bigint => Builder::Bigint(Int64Builder::new()),
            ColumnType::Timestamp => {
                Builder::Timestamp(TimestampMicrosecondBuilder::new().with_timezone("UTC"))
            }
            ColumnType::Date => Builder::Date(Date32Builder::new()),
            ColumnType::Decimal => Builder::Decimal(
                Decimal128Builder::new().with_precision_and_scale(PRECISION, SCALE)?,
            ),
            ColumnType::NumericText => Builder::NumericText(StringBuilder::new()),
            ColumnType::Json => Builder::Json(StringBuilder::new()),
            ColumnType::Uuid => Builder::Uuid(StringBuilder::new()),
            ColumnType::Texts => Builder::Texts(
                ListBuilder::new(StringBuilder::new())
                    .with_field(Field::new_list_field(DataType::Utf8, false)),
            ),
        })
    }

    fn append_null(&mut self) {
        match self {
            Builder::Text(b) | Builder::NumericText(b) | Builder::Json(b) | Builder::Uuid(b) => {
                b.append_null()
            }
            Builder::Boolean(b) => b.append_null(),
            Builder::Smallint(b) => b.append_null(),
            Builder::Integer(b) => b.append_null(),
            Builder::Bigint(b) => b.append_null(),
            Builder::Timestamp(b) => b.append_null(),
            Builder::Date(b) => b.append_null(),
            Builder::Decimal(b) => b.append_null(),
            Builder::Texts(b) => b.append_null(),
        }
    }

    fn append(&mut self, name: &str, field: &[u8]) -> Result<()> {
        match self {
            Builder::Text(b) => b.append_value(std::str::from_utf8(field)?),
            Builder::Boolean(b) => b.append_value(fixed::<1>(name, field)?[0] != 0),
            Builder::Smallint(b) => b.append_value(i16::from_be_bytes(fixed(name, field)?)),
            Builder::Integer(b) => b.append_value(i32::from_be_bytes(fixed(name, field)?)),
            Builder::Bigint(b) => b.append_value(i64::from_be_bytes(fixed(name, field)?)),
            Builder::Timestamp(b) => {
                let micros = i64::from_be_bytes(fixed(name, field)?);
                let Some(micros) = micros.checked_add(EPOCH_MICROS) else {
                    bail!("column {name} holds an infinite time");
                };
                ensure!(micros != i64::MIN + EPOCH_MICROS, "column {name} holds an infinite time");
                b.append_value(micros);
            }
            Builder::Date(b) => {
                let days = i32::from_be_bytes(fixed(name, field)?);
                let Some(days) = days.checked_add(EPOCH_DAYS) else {
                    bail!("column {name} holds an infinite date");
                };
                b.append_value(days);
            }
            Builder::Decimal(b) => match numeric::mantissa(field) {
                Some(mantissa) => b.append_value(mantissa),
                None => return Err(DoesNotFit(name.to_owned()).into()),
            },
            Builder::NumericText(b) => match numeric::text(field) {
                Some(text) => b.append_value(text),
                None => bail!("column {name} holds no numeric"),
            },
            Builder::Json(b) => match field.split_first() {
                Some((&JSONB_VERSION, text)) => b.append_value(std::str::from_utf8(text)?),
                _ => bail!("column {name} holds a jsonb of an unknown version"),
            },
            Builder::Uuid(b) => {
                let mut text = Vec::with_capacity(36);
                put_uuid(fixed(name, field)?, &mut text);
                b.append_value(std::str::from_utf8(&text)?);
            }
            Builder::Texts(b) => {
                texts(name, field)?.into_iter().for_each(|text| b.values().append_value(text));
                b.append(true);
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Builder::Text(b) | Builder::NumericText(b) | Builder::Json(b) | Builder::Uuid(b) => {
                Arc::new(b.finish())
            }
            Builder::Boolean(b) => Arc::new(b.finish()),
            Builder::Smallint(b) => Arc::new(b.finish()),
            Builder::Integer(b) => Arc::new(b.finish()),
            Builder::Bigint(b) => Arc::new(b.finish()),
            Builder::Timestamp(b) => Arc::new(b.finish()),
            Builder::Date(b) => Arc::new(b.finish()),
            Builder::Decimal(b) => Arc::new(b.finish()),
            Builder::Texts(b) => Arc::new(b.finish()),
        }
    }
}

/// A field of a fixed length; `name` is for the error.
pub(super) fn fixed<const N: usize>(name: &str, field: &[u8]) -> Result<[u8; N]> {
    match field.try_into() {
        Ok(bytes) => Ok(bytes),
        Err(_) => bail!("column {name}: {} bytes where {N} belong", field.len()),
    }
}

/// A one-dimensional `text[]`: dimensions, nulls, type, then length and first index, then texts.
pub(super) fn texts<'a>(name: &str, field: &'a [u8]) -> Result<Vec<&'a str>> {
    let number = |at: usize| field.get(at..at + 4).and_then(|bytes| fixed::<4>(name, bytes).ok());
    let (Some(dimensions), Some(length)) =
        (number(0).map(u32::from_be_bytes), number(12).map(u32::from_be_bytes).or(Some(0)))
    else {
        bail!("column {name} holds no array");
    };
    ensure!(dimensions <= 1, "column {name} holds an array of {dimensions} dimensions");
    let (mut at, count) = (20, if dimensions == 0 { 0 } else { length });
    let mut texts = Vec::new();
    for _ in 0..count {
        let length =
            number(at).map(i32::from_be_bytes).and_then(|length| usize::try_from(length).ok());
        let text = length.and_then(|length| field.get(at + 4..at + 4 + length));
        let Some(text) = text else {
            bail!("column {name} holds an array with nulls, or a broken one")
        };
        texts.push(std::str::from_utf8(text)?);
        at += 4 + text.len();
    }
    Ok(texts)
}

/// Gathers rows.
pub(super) struct BatchBuilder {
    schema: SchemaRef,
    builders: Vec<Builder>,
    rows: usize,
}

impl BatchBuilder {
    pub(super) fn new(columns: &[Column], schema: SchemaRef) -> Result<BatchBuilder> {
        let builders =
            columns.iter().map(|column| Builder::new(column.kind)).collect::<Result<_>>()?;
        Ok(BatchBuilder { schema, builders, rows: 0 })
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    pub(super) fn push<'a>(
        &mut self,
        columns: &[Column],
        fields: impl Iterator<Item = Option<&'a [u8]>>,
    ) -> Result<()> {
        for ((builder, column), field) in self.builders.iter_mut().zip(columns).zip(fields) {
            match field {
                Some(field) => builder.append(&column.name, field)?,
                None => builder.append_null(),
            }
        }
        self.rows += 1;
        Ok(())
    }

    pub(super) fn finish(&mut self) -> Result<RecordBatch> {
        self.rows = 0;
        let arrays = self.builders.iter_mut().map(Builder::finish).collect();
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), arrays)?)
    }
}

/// Appends a row as a tuple of a binary COPY; `ends` gets where each field's bytes end, for
/// telling the fields apart again, and begins with where the first one's length begins.
pub(super) fn put_row(
    columns: &[Column],
    batch: &RecordBatch,
    row: usize,
    out: &mut Vec<u8>,
    fields: &mut Vec<Option<(usize, usize)>>,
) -> Result<()> {
    fields.clear();
    out.extend_from_slice(&(columns.len() as i16).to_be_bytes());
    for (column, array) in columns.iter().zip(batch.columns()) {
        if array.is_null(row) {
            out.extend_from_slice(&(-1_i32).to_be_bytes());
            fields.push(None);
            continue;
        }
        let start = out.len() + 4;
        put_field(column, array, row, out)?;
        fields.push(Some((start, out.len())));
    }
    Ok(())
}

fn put_field(column: &Column, array: &ArrayRef, row: usize, out: &mut Vec<u8>) -> Result<()> {
    match column.kind {
        ColumnType::Text => put_bytes(array.as_string::<i32>().value(row).as_bytes(), out),
        ColumnType::Boolean => put_bytes(&[u8::from(array.as_boolean().value(row))], out),
        ColumnType::Smallint => {
            put_bytes(&array.as_primitive::<Int16Type>().value(row).to_be_bytes(), out)
        }
        ColumnType::Integer => {
            put_bytes(&array.as_primitive::<Int32Type>().value(row).to_be_bytes(), out)
        }
        ColumnType::Bigint => {
            put_bytes(&array.as_primitive::<Int64Type>().value(row).to_be_bytes(), out)
        }
        ColumnType::Timestamp => {
            let micros = array.as_primitive::<TimestampMicrosecondType>().value(row);
            put_bytes(&micros.wrapping_sub(EPOCH_MICROS).to_be_bytes(), out);
        }
        ColumnType::Date => {
            let days = array.as_primitive::<Date32Type>().value(row);
            put_bytes(&days.wrapping_sub(EPOCH_DAYS).to_be_bytes(), out);
        }
        ColumnType::Decimal => {
            numeric::put_mantissa(array.as_primitive::<Decimal128Type>().value(row), out);
        }
        ColumnType::NumericText => {
            let text = array.as_string::<i32>().value(row);
            ensure!(numeric::put_text(text, out), "column {}: {text:?} is no number", column.name);
        }
        ColumnType::Json => {
            let text = array.as_string::<i32>().value(row);
            out.extend_from_slice(&(text.len() as u32 + 1).to_be_bytes());
            out.push(JSONB_VERSION);
            out.extend_from_slice(text.as_bytes());
        }
        ColumnType::Uuid => {
            let text = array.as_string::<i32>().value(row);
            match uuid_bytes(text) {
                Some(bytes) => put_bytes(&bytes, out),
                None => bail!("column {}: {text:?} is no UUID", column.name),
            }
        }
        ColumnType::Texts => put_texts(&array.as_list::<i32>().value(row), out),
    }
    Ok(())
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn put_texts(texts: &ArrayRef, out: &mut Vec<u8>) {
    let texts = texts.as_string::<i32>();
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    let dimensions = u32::from(!texts.is_empty());
    for number in [dimensions, 0, TEXT_OID] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    if dimensions > 0 {
        out.extend_from_slice(&(texts.len() as u32).to_be_bytes());
        out.extend_from_slice(&1_u32.to_be_bytes());
    }
    for index in 0..texts.len() {
        put_bytes(texts.value(index).as_bytes(), out);
    }
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}
