//! Rows of a binary COPY out of the database: cutting the stream, and telling rows apart.
//!
//! Source: PostgreSQL documentation, `COPY`, "Binary Format".

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::columns::{Column, ColumnType};
use super::numeric;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
const FIXED_HEADER: usize = SIGNATURE.len() + 8;

/// A field of a row: where its bytes are; nothing for null.
pub(super) type FieldRange = Option<(usize, usize)>;

/// Cuts a binary COPY into rows, whatever the pieces it arrives in.
#[derive(Debug, Default)]
pub(super) struct TupleReader {
    buffer: Vec<u8>,
    at: usize,
    begun: bool,
    ended: bool,
}

impl TupleReader {
    pub(super) fn feed(&mut self, piece: &[u8]) {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.extend_from_slice(piece);
    }

    /// The next whole row: its fields' places, to be read with [`TupleReader::bytes`].
    pub(super) fn next(&mut self, fields: &mut Vec<FieldRange>) -> Result<bool> {
        if !self.begun {
            let Some(header) = self.buffer.get(..FIXED_HEADER) else { return Ok(false) };
            ensure!(header.starts_with(SIGNATURE), "not a binary COPY");
            self.begun = true;
            self.at = FIXED_HEADER;
        }
        fields.clear();
        let mut at = self.at;
        let Some(count) = self.number::<2>(&mut at).map(i16::from_be_bytes) else {
            return Ok(false);
        };
        if count == -1 {
            self.ended = true;
            self.at = at;
            return Ok(false);
        }
        for _ in 0..count {
            let Some(length) = self.number::<4>(&mut at).map(i32::from_be_bytes) else {
                return Ok(false);
            };
            match usize::try_from(length) {
                Ok(length) if at + length > self.buffer.len() => return Ok(false),
                Ok(length) => {
                    fields.push(Some((at, at + length)));
                    at += length;
                }
                Err(_) => fields.push(None),
            }
        }
        self.at = at;
        Ok(true)
    }

    fn number<const N: usize>(&self, at: &mut usize) -> Option<[u8; N]> {
        let bytes = self.buffer.get(*at..*at + N)?;
        *at += N;
        bytes.try_into().ok()
    }

    pub(super) fn bytes(&self, (start, end): (usize, usize)) -> &[u8] {
        &self.buffer[start..end]
    }

    /// Refuses a stream that broke off.
    pub(super) fn finish(&self) -> Result<()> {
        if self.ended && self.at == self.buffer.len() {
            return Ok(());
        }
        bail!("the database's rows broke off")
    }
}

/// Number of rows and a sum over them that does not depend on their order: two sets of rows
/// with the same sum are the same rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RowSum {
    pub(crate) rows: u64,
    /// Sum of each row's 128-bit xxh3, in hexadecimal.
    #[serde(with = "hex")]
    pub(crate) checksum: u128,
}

impl RowSum {
    pub(super) fn add(&mut self, other: RowSum) {
        self.rows += other.rows;
        self.checksum = self.checksum.wrapping_add(other.checksum);
    }

    /// Adds a row. `scratch` only saves an allocation.
    pub(super) fn add_row<'a>(
        &mut self,
        columns: &[Column],
        fields: impl Iterator<Item = Option<&'a [u8]>>,
        scratch: &mut Vec<u8>,
    ) {
        scratch.clear();
        for (column, field) in columns.iter().zip(fields) {
            let Some(field) = field else {
                scratch.extend_from_slice(&u32::MAX.to_le_bytes());
                continue;
            };
            match column.kind {
                // 1.5 and 1.50 are one number
                ColumnType::Decimal | ColumnType::NumericText => {
                    let parts = numeric::identity(field);
                    let length = parts.iter().map(|part| part.len()).sum::<usize>() as u32;
                    scratch.extend_from_slice(&length.to_le_bytes());
                    parts.iter().for_each(|part| scratch.extend_from_slice(part));
                }
                _ => {
                    scratch.extend_from_slice(&(field.len() as u32).to_le_bytes());
                    scratch.extend_from_slice(field);
                }
            }
        }
        self.rows += 1;
        self.checksum = self.checksum.wrapping_add(xxh3_128(scratch));
    }
}

mod hex {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(sum: &u128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{sum:032x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u128, D::Error> {
        let text = String::deserialize(from)?;
        u128::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}
