//! Records written with another schema than ours, read through `apache-avro`.

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::{RecordSchema, UnionSchema};
use apache_avro::types::Value;
use apache_avro::{Decimal, Schema};

use super::{CodecError, Record};

/// Bytes of the widest decimal that any of our schemas declares (precision 76).
const WIDEST_DECIMAL_BYTES: usize = 32;

/// Turns records of one writer schema into events.
#[derive(Debug)]
pub struct Resolver {
    writer: Schema,
    reader: Schema,
}

fn resolution(error: impl std::fmt::Display) -> CodecError {
    CodecError::Resolution(error.to_string())
}

impl Resolver {
    /// A resolver from `writer` to the schema of `T`; an error if no record of it can be read.
    pub fn new<'a, T: Record<'a>>(writer: &str) -> Result<Resolver, CodecError> {
        let writer = Schema::parse_str(writer).map_err(resolution)?;
        let reader = Schema::parse_str(T::SCHEMA).map_err(resolution)?;
        check_scales(&writer, &reader, "")?;
        Ok(Resolver { writer, reader })
    }

    /// Reads one record.
    pub fn read<T: Record<'static>>(&self, mut bytes: &[u8]) -> Result<T, CodecError> {
        let value = GenericDatumReader::builder(&self.writer)
            .build()
            .and_then(|datum| datum.read_value(&mut bytes))
            .map_err(resolution)?;
        if !bytes.is_empty() {
            return Err(CodecError::Trailing(bytes.len()));
        }
        let value = widen_decimals(value)?.resolve(&self.reader).map_err(resolution)?;
        T::from_value(value)
    }
}

/// `apache-avro` compares neither scale nor precision of decimals: a writer's
/// `decimal(18,8)` would be read as 10⁻¹⁸ units. The specification demands equal scales.
fn check_scales(writer: &Schema, reader: &Schema, path: &str) -> Result<(), CodecError> {
    match (writer, reader) {
        (Schema::Decimal(theirs), Schema::Decimal(ours)) if theirs.scale != ours.scale => {
            Err(CodecError::Resolution(format!(
                "decimal{path} has scale {}, expected {}",
                theirs.scale, ours.scale
            )))
        }
        (Schema::Bytes | Schema::Fixed(_), Schema::Decimal(_)) => {
            Err(CodecError::Resolution(format!("bytes{path} without the decimal logical type")))
        }
        (Schema::Union(union), other) | (other, Schema::Union(union)) => {
            check_branches(union, other, matches!(writer, Schema::Union(_)), path)
        }
        (Schema::Array(theirs), Schema::Array(ours)) => {
            check_scales(&theirs.items, &ours.items, path)
        }
        (Schema::Record(theirs), Schema::Record(ours)) => check_fields(theirs, ours, path),
        _ => Ok(()),
    }
}

fn check_branches(
    union: &UnionSchema,
    other: &Schema,
    writer_is_union: bool,
    path: &str,
) -> Result<(), CodecError> {
    union.variants().iter().try_for_each(|branch| {
        if writer_is_union {
            check_scales(branch, other, path)
        } else {
            check_scales(other, branch, path)
        }
    })
}

fn check_fields(
    writer: &RecordSchema,
    reader: &RecordSchema,
    path: &str,
) -> Result<(), CodecError> {
    for ours in &reader.fields {
        if let Some(theirs) = writer.fields.iter().find(|field| field.name == ours.name) {
            check_scales(&theirs.schema, &ours.schema, &format!("{path} {}", ours.name))?;
        }
    }
    Ok(())
}

/// `apache-avro` refuses to resolve a decimal whose bytes are fewer than its precision
/// may need (it compares the wrong way round), so every decimal is sign-extended first.
fn widen_decimals(value: Value) -> Result<Value, CodecError> {
    Ok(match value {
        Value::Decimal(decimal) => {
            let bytes = Vec::<u8>::try_from(&decimal).map_err(resolution)?;
            let wide = super::primitives::widen::<WIDEST_DECIMAL_BYTES>(&bytes)?;
            Value::Decimal(Decimal::from(wide))
        }
        Value::Union(branch, inner) => Value::Union(branch, Box::new(widen_decimals(*inner)?)),
        Value::Array(items) => {
            Value::Array(items.into_iter().map(widen_decimals).collect::<Result<_, _>>()?)
        }
        Value::Record(fields) => Value::Record(
            fields
                .into_iter()
                .map(|(name, field)| Ok((name, widen_decimals(field)?)))
                .collect::<Result<_, CodecError>>()?,
        ),
        other => other,
    })
}
