//! Records as they come from the log: many in one piece of memory.

use tapeline_schemas::{Kind, Micros};

/// A partition of one of the topics a stage reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// Index into the stage's list of [`Topic`]s.
    pub topic: u16,
    /// Number of the partition.
    pub partition: i32,
}

/// What a topic's records promise about their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contract {
    /// Raw records: every offset counts, also one that Kafka skipped.
    Raw,
    /// Checked records: each carries its origin, without hole (invariant 3).
    Checked,
    /// Records of the pipeline itself, which carry no origin.
    Plain,
}

/// A topic that a stage reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Kind of its events.
    pub kind: Kind,
    /// What its records promise.
    pub contract: Contract,
    /// Number of its partitions.
    pub partitions: i32,
}

/// A part of a piece of memory that holds many records.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Slice {
    start: u32,
    end: u32,
}

impl Slice {
    #[inline]
    pub(crate) fn append(bytes: &mut Vec<u8>, content: &[u8]) -> Slice {
        let start = bytes.len() as u32;
        bytes.extend_from_slice(content);
        Slice { start, end: bytes.len() as u32 }
    }

    #[inline]
    pub(crate) fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end as usize]
    }
}

/// Writes headers into a piece of memory.
#[derive(Debug)]
pub struct HeaderSlices<'b>(&'b mut Vec<u8>);

impl HeaderSlices<'_> {
    #[inline]
    pub(crate) fn write(bytes: &mut Vec<u8>, fill: impl FnOnce(&mut HeaderSlices<'_>)) -> Slice {
        let start = bytes.len() as u32;
        fill(&mut HeaderSlices(bytes));
        Slice { start, end: bytes.len() as u32 }
    }

    /// Appends a header: name length, name, value length plus one (0: no value), value.
    #[inline]
    pub fn push(&mut self, name: &str, value: Option<&[u8]>) {
        let bytes = &mut *self.0;
        bytes.extend_from_slice(&(name.len() as u32).to_le_bytes());
        bytes.extend_from_slice(name.as_bytes());
        let length = value.map_or(0, |v| v.len() as u32 + 1);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(value.unwrap_or_default());
    }

    /// Appends a header with a whole number, in decimal text.
    #[inline]
    pub fn push_number(&mut self, name: &str, value: i64) {
        let mut digits = [0_u8; 20];
        let mut at = digits.len();
        let mut rest = value.unsigned_abs();
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if value < 0 {
            at -= 1;
            digits[at] = b'-';
        }
        self.push(name, Some(&digits[at..]));
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: i64,
    time: Micros,
    key: Option<Slice>,
    value: Option<Slice>,
    headers: Slice,
}

/// Successive records of one partition.
#[derive(Debug)]
pub struct Chunk {
    at: TopicPartition,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// One record, borrowed from its chunk.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Where it is from.
    pub at: TopicPartition,
    /// Its offset.
    pub offset: i64,
    /// When the broker appended it.
    pub time: Micros,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: Headers<'a>,
}

/// Headers of a record.
#[derive(Debug, Clone, Copy, Default)]
pub struct Headers<'a>(&'a [u8]);

impl Chunk {
    /// An empty chunk for records of `at`.
    pub fn new(at: TopicPartition) -> Chunk {
        Chunk { at, bytes: Vec::new(), entries: Vec::new() }
    }

    /// Appends a copy of a record.
    pub fn push<'h>(
        &mut self,
        offset: i64,
        time: Micros,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (&'h str, Option<&'h [u8]>)>,
    ) {
        let key = key.map(|bytes| Slice::append(&mut self.bytes, bytes));
        let value = value.map(|bytes| Slice::append(&mut self.bytes, bytes));
        let headers = HeaderSlices::write(&mut self.bytes, |out| {
            headers.for_each(|(name, value)| out.push(name, value));
        });
        self.entries.push(Entry { offset, time, key, value, headers });
    }

    /// Where its records are from.
    pub fn at(&self) -> TopicPartition {
        self.at
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds no record.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes that it holds.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// The record at `index`, which must be less than [`Chunk::len`].
    #[inline]
    pub fn record(&self, index: usize) -> Record<'_> {
        let entry = &self.entries[index];
        let bytes = |slice: Slice| slice.of(&self.bytes);
        Record {
            at: self.at,
            offset: entry.offset,
            time: entry.time,
            key: entry.key.map(bytes),
            value: entry.value.map(bytes),
            headers: Headers(bytes(entry.headers)),
        }
    }
}

impl<'a> Headers<'a> {
    pub(crate) const fn of(bytes: &'a [u8]) -> Headers<'a> {
        Headers(bytes)
    }

    /// Names and values in order.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> {
        self.raw().map(|(name, value)| (std::str::from_utf8(name).unwrap_or_default(), value))
    }

    /// The same, names as bytes.
    #[inline]
    pub(crate) fn raw(self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let name = take(&mut rest)?;
            let (length, tail) = rest.split_first_chunk::<4>()?;
            let length = u32::from_le_bytes(*length) as usize;
            rest = tail;
            let value = if length == 0 {
                None
            } else {
                let (value, tail) = rest.split_at_checked(length - 1)?;
                rest = tail;
                Some(value)
            };
            Some((name, value))
        })
    }

    /// The value of the last header named `name`, if it is text.
    #[inline]
    pub fn text(self, name: &str) -> Option<&'a str> {
        let mut found = None;
        for (key, value) in self.raw() {
            if key == name.as_bytes() {
                found = value;
            }
        }
        std::str::from_utf8(found?).ok()
    }

    /// The value of the last header named `name` as a whole number.
    #[inline]
    pub fn number(self, name: &str) -> Option<i64> {
        self.text(name)?.parse().ok()
    }

    /// The headers as a chunk keeps them, to be kept elsewhere.
    #[inline]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// Headers from bytes that [`Headers::as_bytes`] gave.
    pub fn from_bytes(bytes: &'a [u8]) -> Headers<'a> {
        Headers(bytes)
    }

    /// Whether there is no header.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, tail) = rest.split_first_chunk::<4>()?;
    let (taken, tail) = tail.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    *rest = tail;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_out_of_its_chunk_as_it_went_in() {
        let at = TopicPartition { topic: 1, partition: 2 };
        let mut chunk = Chunk::new(at);
        let headers: [(&str, Option<&[u8]>); 3] =
            [("a", Some(b"1")), ("b", None), ("a", Some(b"2"))];
        chunk.push(7, Micros(9), Some(b"key"), None, headers.into_iter());
        chunk.push(8, Micros(10), None, Some(b""), std::iter::empty());
        let first = chunk.record(0);
        assert_eq!(
            (first.offset, first.time, first.key, first.value),
            (7, Micros(9), Some(&b"key"[..]), None)
        );
        assert!(first.headers.iter().eq(headers));
        assert_eq!((first.headers.number("a"), first.headers.text("b")), (Some(2), None));
        let mut bytes = Vec::new();
        let written = HeaderSlices::write(&mut bytes, |out| {
            for number in [0, -1, i64::MIN, i64::MAX] {
                out.push_number("n", number);
            }
        });
        let texts = ["0", "-1", "-9223372036854775808", "9223372036854775807"];
        let numbers = Headers::of(written.of(&bytes));
        assert!(numbers.iter().map(|(_, value)| value).eq(texts.map(|text| Some(text.as_bytes()))));
        let second = chunk.record(1);
        assert_eq!(
            (second.key, second.value, second.headers.is_empty()),
            (None, Some(&b""[..]), true)
        );
    }
}
