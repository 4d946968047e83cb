//! The Confluent wire format: magic byte 0, a 4-byte big-endian schema id, then Avro.
//!
//! Source: Confluent Schema Registry documentation, "Wire format".

use thiserror::Error;

/// Bytes before the Avro payload.
pub const HEADER_BYTES: usize = 5;

/// Why a value is not in the wire format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum WireError {
    /// Shorter than its header.
    #[error("{0} bytes, shorter than the 5 of the wire format's header")]
    Short(usize),
    /// The first byte is not 0.
    #[error("magic byte {0:#04x}, expected 0x00")]
    Magic(u8),
}

/// Splits a value into its schema id and its Avro payload.
#[inline]
pub fn split(value: &[u8]) -> Result<(u32, &[u8]), WireError> {
    match value {
        [0, a, b, c, d, payload @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), payload)),
        [magic, _, _, _, _, ..] => Err(WireError::Magic(*magic)),
        _ => Err(WireError::Short(value.len())),
    }
}

/// Appends the header for `schema_id`.
#[inline]
pub fn put_header(schema_id: u32, out: &mut Vec<u8>) {
    out.push(0);
    out.extend_from_slice(&schema_id.to_be_bytes());
}
