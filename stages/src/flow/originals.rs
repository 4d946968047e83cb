//! Copies of the records behind a batch's rows, so that a row only a sink refuses goes to
//! quarantine as it was.

use tapeline_schemas::Micros;

use super::{Headers, Record, Reject, Rejected, TopicPartition};

/// Where a record's copy is kept: key, value, headers, one behind the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Original {
    pub(crate) at: TopicPartition,
    offset: i64,
    appended: Micros,
    start: u32,
    key: Option<u32>,
    value: Option<u32>,
    headers: u32,
}

impl Original {
    /// What tells the record from every other.
    pub(crate) fn place(&self) -> (TopicPartition, i64) {
        (self.at, self.offset)
    }
}

/// The bytes of all copies.
#[derive(Debug, Default)]
pub(crate) struct Originals(Vec<u8>);

impl Originals {
    /// Copies a record.
    #[inline]
    pub(crate) fn keep(&mut self, record: &Record<'_>) -> Original {
        let start = self.0.len() as u32;
        let headers = record.headers.as_bytes();
        for part in [record.key.unwrap_or_default(), record.value.unwrap_or_default(), headers] {
            self.0.extend_from_slice(part);
        }
        Original {
            at: record.at,
            offset: record.offset,
            appended: record.time,
            start,
            key: record.key.map(|key| key.len() as u32),
            value: record.value.map(|value| value.len() as u32),
            headers: headers.len() as u32,
        }
    }

    /// The whole record, for quarantine.
    pub(crate) fn rejected(&self, original: &Original, reject: Reject) -> Rejected {
        let mut rest = &self.0[original.start as usize..];
        let mut take = |length: u32| {
            let (taken, tail) = rest.split_at(length as usize);
            rest = tail;
            taken
        };
        let key = original.key.map(&mut take);
        let value = original.value.map(&mut take);
        let headers = Headers::from_bytes(take(original.headers));
        let Original { at, offset, appended: time, .. } = *original;
        Rejected::copy(&Record { at, offset, time, key, value, headers }, reject)
    }

    /// Memory they take.
    pub(crate) fn byte_len(&self) -> usize {
        self.0.len()
    }

    /// Forgets them; the memory is kept.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
