//! Tuples of PostgreSQL's binary COPY format.
//!
//! Source: PostgreSQL documentation, `COPY`, "Binary Format".

use std::fmt::{self, Write};

use tapeline_schemas::{Micros, Money, Wide};

use super::numeric::{put_money, put_wide};

/// What a binary COPY begins with: signature, flags, no extension.
pub const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What a binary COPY ends with.
pub const TRAILER: &[u8] = &(-1_i16).to_be_bytes();

/// Microseconds from 1970 to PostgreSQL's epoch, 2000-01-01.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
const NULL: [u8; 4] = (-1_i32).to_be_bytes();
/// The object id of type `text`, for arrays of it.
const TEXT_OID: u32 = 25;

/// The moments PostgreSQL knows: from 4713 BC to before 294277 AD, in its own count.
const MOMENTS: std::ops::Range<i64> = -211_813_488_000_000_000..9_223_371_331_200_000_000;

/// A moment in PostgreSQL's own count; `None` where it knows no such moment, or an infinity.
pub(crate) fn postgres_micros(time: Micros) -> Option<i64> {
    time.0.checked_sub(EPOCH_MICROS).filter(|micros| MOMENTS.contains(micros))
}

/// Writes the fields of one tuple, in the table's order.
pub(crate) struct Tuple<'b> {
    out: &'b mut Vec<u8>,
}

impl<'b> Tuple<'b> {
    /// Begins a tuple of `fields` fields.
    #[inline]
    pub(crate) fn begin(out: &'b mut Vec<u8>, fields: usize) -> Tuple<'b> {
        out.extend_from_slice(&(fields as i16).to_be_bytes());
        Tuple { out }
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        self.out.extend_from_slice(bytes);
    }

    #[inline]
    pub(crate) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    #[inline]
    pub(crate) fn text_or_null(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.text(text),
            None => self.null(),
        }
    }

    /// A text that is put together, without a text of its own.
    pub(crate) fn formatted(&mut self, text: fmt::Arguments<'_>) {
        let start = self.reserve_length();
        // Writing to memory cannot fail.
        let _ = Text(self.out).write_fmt(text);
        self.fill_length(start);
    }

    #[inline]
    pub(crate) fn null(&mut self) {
        self.out.extend_from_slice(&NULL);
    }

    #[inline]
    pub(crate) fn bigint(&mut self, number: i64) {
        self.bytes(&number.to_be_bytes());
    }

    #[inline]
    pub(crate) fn bigint_or_null(&mut self, number: Option<i64>) {
        match number {
            Some(number) => self.bigint(number),
            None => self.null(),
        }
    }

    pub(crate) fn uuid(&mut self, uuid: [u8; 16]) {
        self.bytes(&uuid);
    }

    #[inline]
    pub(crate) fn integer(&mut self, number: i32) {
        self.bytes(&number.to_be_bytes());
    }

    #[inline]
    pub(crate) fn boolean(&mut self, flag: bool) {
        self.bytes(&[u8::from(flag)]);
    }

    #[inline]
    pub(crate) fn money(&mut self, value: Money) {
        put_money(value, self.out);
    }

    #[inline]
    pub(crate) fn money_or_null(&mut self, value: Option<Money>) {
        match value {
            Some(value) => self.money(value),
            None => self.null(),
        }
    }

    pub(crate) fn wide(&mut self, value: Wide) {
        put_wide(value, self.out);
    }

    /// A `jsonb` that `write` writes as text.
    pub(crate) fn jsonb(&mut self, write: impl FnOnce(&mut dyn Write) -> fmt::Result) {
        let start = self.reserve_length();
        self.out.push(1); // version of the format
        // Writing to memory cannot fail.
        let _ = write(&mut Text(self.out));
        self.fill_length(start);
    }

    /// A one-dimensional `text[]`.
    pub(crate) fn texts<'t>(&mut self, texts: impl ExactSizeIterator<Item = &'t str>) {
        let start = self.reserve_length();
        let dimensions = u32::from(texts.len() > 0);
        for number in [dimensions, 0, TEXT_OID] {
            self.out.extend_from_slice(&number.to_be_bytes());
        }
        if dimensions > 0 {
            self.out.extend_from_slice(&(texts.len() as u32).to_be_bytes());
            self.out.extend_from_slice(&1_u32.to_be_bytes());
        }
        for text in texts {
            self.text(text);
        }
        self.fill_length(start);
    }

    fn reserve_length(&mut self) -> usize {
        self.out.extend_from_slice(&[0; 4]);
        self.out.len()
    }

    fn fill_length(&mut self, start: usize) {
        let length = (self.out.len() - start) as u32;
        self.out[start - 4..start].copy_from_slice(&length.to_be_bytes());
    }
}

/// Text written to the end of a buffer.
struct Text<'b>(&'b mut Vec<u8>);

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_moment_becomes_an_infinity_or_one_that_postgresql_does_not_know() {
        assert_eq!(postgres_micros(Micros(EPOCH_MICROS)), Some(0));
        let first = Micros(MOMENTS.start + EPOCH_MICROS);
        assert_eq!(postgres_micros(first), Some(MOMENTS.start));
        for time in [Micros(i64::MIN), first.plus(-1), Micros(i64::MIN + EPOCH_MICROS)] {
            assert_eq!(postgres_micros(time), None);
        }
        assert!(postgres_micros(Micros(i64::MAX)).is_some());
    }
}
