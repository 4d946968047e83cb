//! One implementation of [`Field`] for each Avro type that events use.

use std::borrow::Cow;

use apache_avro::Decimal as AvroDecimal;
use apache_avro::types::Value;
use ethnum::I256;

use super::{CodecError, Field};
use crate::{Micros, Money, Wide};

fn mismatch<T>(expected: &str, value: &Value) -> Result<T, CodecError> {
    Err(CodecError::Resolution(format!("expected {expected}, found {value:?}")))
}

#[inline]
pub(crate) fn put_long(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[inline]
pub(crate) fn take_long(input: &mut &[u8]) -> Result<i64, CodecError> {
    let mut value = 0_u64;
    for (index, &byte) in input.iter().enumerate() {
        if index == 9 && byte > 1 {
            return Err(CodecError::Integer);
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            *input = &input[index + 1..];
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err(CodecError::Truncated)
}

#[inline]
fn take_slice<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], CodecError> {
    let length = usize::try_from(take_long(input)?).map_err(|_| CodecError::Truncated)?;
    if length > input.len() {
        return Err(CodecError::Truncated);
    }
    let (taken, rest) = input.split_at(length);
    *input = rest;
    Ok(taken)
}

#[inline]
fn put_slice(bytes: &[u8], out: &mut Vec<u8>) {
    put_long(bytes.len() as i64, out);
    out.extend_from_slice(bytes);
}

impl<'a> Field<'a> for Cow<'a, str> {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        put_slice(self.as_bytes(), out);
    }

    #[inline]
    fn take(input: &mut &'a [u8]) -> Result<Self, CodecError> {
        std::str::from_utf8(take_slice(input)?).map(Cow::Borrowed).map_err(|_| CodecError::Utf8)
    }

    fn to_value(&self) -> Value {
        Value::String(self.to_string())
    }

    fn from_value(value: Value) -> Result<Self, CodecError> {
        match value {
            Value::String(text) => Ok(Cow::Owned(text)),
            other => mismatch("string", &other),
        }
    }
}

impl<'a> Field<'a> for Cow<'a, [u8]> {
    fn put(&self, out: &mut Vec<u8>) {
        put_slice(self, out);
    }

    fn take(input: &mut &'a [u8]) -> Result<Self, CodecError> {
        take_slice(input).map(Cow::Borrowed)
    }

    fn to_value(&self) -> Value {
        Value::Bytes(self.to_vec())
    }

    fn from_value(value: Value) -> Result<Self, CodecError> {
        match value {
            Value::Bytes(bytes) => Ok(Cow::Owned(bytes)),
            other => mismatch("bytes", &other),
        }
    }
}

impl<'a> Field<'a> for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn take(input: &mut &'a [u8]) -> Result<Self, CodecError> {
        let (&first, rest) = input.split_first().ok_or(CodecError::Truncated)?;
        *input = rest;
        match first {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CodecError::Integer),
        }
    }

    fn to_value(&self) -> Value {
        Value::Boolean(*self)
    }

    fn from_value(value: Value) -> Result<Self, CodecError> {
        match value {
            Value::Boolean(flag) => Ok(flag),
            other => mismatch("boolean", &other),
        }
    }
}

impl<'a> Field<'a> for i64 {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        put_long(*self, out);
    }

    #[inline]
    fn take(input: &mut &'a [u8]) -> Result<Self, CodecError> {
        take_long(input)
    }

    fn to_value(&self) -> Value {
        Value::Long(*self)
    }

    fn from_value(value: Value) -> Result<Self, CodecError> {
        match value {
            Value::Long(number) => Ok(number),
            other => mismatch("long", &other),
        }
    }
}

impl<'a> Field<'a> for i32 {
    fn put(&self, out: &mut Vec<u8>) {
        put_long(i64::from(*self), out);
    }

    fn take(input: &mut &'a [u8]) -> Result<Self, CodecError> {
        i32::try_from(take_long(input)?).map_err(|_| CodecError::Integer)
    }

    fn to_value(&self) -> Value {
        Value::Int(*self)
    }

    fn from_value(value: Value) -> Result<Self, CodecError> {
        match value {
            Value::Int(number) => Ok(number),
            other => mismatch("int", &other),
        }
    }
}

impl<'a> Field<'a> for Micros {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        put_long(self.0, out);
    }

    #[inline]
    fn take(input: &mut &'a [u8]) -> Result<Self, CodecError> {
        take_long(input).map(Micros)
    }

    fn to_value(&self) -> Value {
        Value::TimestampMicros(self.0)
    }

    fn from_value(value: Value) -> Result<Self, CodecError> {
        match value {
            Value::TimestampMicros(micros) => Ok(Micros(micros)),
            other => mismatch("timestamp-micros", &other),
        }
    }
}

/// A two's-complement big-endian number without redundant leading bytes.
fn minimal(bytes: &[u8]) -> &[u8] {
    let sign = if bytes[0] & 0x80 != 0 { 0xff } else { 0x00 };
    let redundant =
        bytes.windows(2).take_while(|pair| pair[0] == sign && (pair[1] ^ sign) & 0x80 == 0).count();
    &bytes[redundant..]
}

/// Sign-extends a two's-complement big-endian number to `N` bytes.
pub(super) fn widen<const N: usize>(bytes: &[u8]) -> Result<[u8; N], CodecError> {
    let sign = if bytes.first().is_some_and(|b| b & 0x80 != 0) { 0xff } else { 0x00 };
    let excess = bytes.len().saturating_sub(N);
    let (extra, kept) = bytes.split_at(excess);
    let fits = extra.iter().all(|&b| b == sign)
        && (extra.is_empty() || kept.first().is_some_and(|b| b & 0x80 == sign & 0x80));
    if !fits {
        return Err(CodecError::Decimal);
    }
    let mut wide = [sign; N];
    wide[N - kept.len()..].copy_from_slice(kept);
    Ok(wide)
}

fn decimal_bytes(value: Value) -> Result<Vec<u8>, CodecError> {
    match value {
        Value::Decimal(decimal) => {
            Vec::<u8>::try_from(&decimal).map_err(|e| CodecError::Resolution(e.to_string()))
        }
        other => mismatch("decimal", &other),
    }
}

impl<'a> Field<'a> for Money {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        put_slice(minimal(&self.mantissa().to_be_bytes()), out);
    }

    #[inline]
    fn take(input: &mut &'a [u8]) -> Result<Self, CodecError> {
        let mantissa = i128::from_be_bytes(widen(take_slice(input)?)?);
        Money::from_mantissa(mantissa).map_err(|_| CodecError::Decimal)
    }

    fn to_value(&self) -> Value {
        Value::Decimal(AvroDecimal::from(minimal(&self.mantissa().to_be_bytes())))
    }

    fn from_value(value: Value) -> Result<Self, CodecError> {
        let mantissa = i128::from_be_bytes(widen(&decimal_bytes(value)?)?);
        Money::from_mantissa(mantissa).map_err(|_| CodecError::Decimal)
    }
}

impl<'a> Field<'a> for Wide {
    fn put(&self, out: &mut Vec<u8>) {
        put_slice(minimal(&self.mantissa().to_be_bytes()), out);
    }

    fn take(input: &mut &'a [u8]) -> Result<Self, CodecError> {
        let mantissa = I256::from_be_bytes(widen(take_slice(input)?)?);
        Wide::from_mantissa(mantissa).ok_or(CodecError::Decimal)
    }

    fn to_value(&self) -> Value {
        Value::Decimal(AvroDecimal::from(minimal(&self.mantissa().to_be_bytes())))
    }

    fn from_value(value: Value) -> Result<Self, CodecError> {
        let mantissa = I256::from_be_bytes(widen(&decimal_bytes(value)?)?);
        Wide::from_mantissa(mantissa).ok_or(CodecError::Decimal)
    }
}

/// `["null", T]`
impl<'a, T: Field<'a>> Field<'a> for Option<T> {
    #[inline]
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            None => out.push(0),
            Some(inner) => {
                out.push(2);
                inner.put(out);
            }
        }
    }

    #[inline]
    fn take(input: &mut &'a [u8]) -> Result<Self, CodecError> {
        match take_long(input)? {
            0 => Ok(None),
            1 => T::take(input).map(Some),
            other => Err(CodecError::Branch(other)),
        }
    }

    fn to_value(&self) -> Value {
        match self {
            None => Value::Union(0, Box::new(Value::Null)),
            Some(inner) => Value::Union(1, Box::new(inner.to_value())),
        }
    }

    fn from_value(value: Value) -> Result<Self, CodecError> {
        match value {
            Value::Union(0, _) => Ok(None),
            Value::Union(1, inner) => T::from_value(*inner).map(Some),
            other => mismatch("union of null and one more", &other),
        }
    }
}

impl<'a, T: Field<'a>> Field<'a> for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        if !self.is_empty() {
            put_long(self.len() as i64, out);
            for item in self {
                item.put(out);
            }
        }
        out.push(0);
    }

    fn take(input: &mut &'a [u8]) -> Result<Self, CodecError> {
        let mut items = Vec::new();
        loop {
            let mut count = take_long(input)?;
            if count == 0 {
                return Ok(items);
            }
            if count < 0 {
                take_long(input)?; // the block's size in bytes, for readers that skip
                count = count.checked_neg().ok_or(CodecError::Integer)?;
            }
            // Every item takes at least a byte: an absurd count ends here, before it costs memory.
            if count as u64 > input.len() as u64 {
                return Err(CodecError::Truncated);
            }
            for _ in 0..count {
                items.push(T::take(input)?);
            }
        }
    }

    fn to_value(&self) -> Value {
        Value::Array(self.iter().map(Field::to_value).collect())
    }

    fn from_value(value: Value) -> Result<Self, CodecError> {
        match value {
            Value::Array(items) => items.into_iter().map(T::from_value).collect(),
            other => mismatch("array", &other),
        }
    }
}
