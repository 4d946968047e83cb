//! Last values, one a Redis key.

use std::fmt::Write;

use hashbrown::HashMap;
use tapeline_schemas::{Kind, Micros};

use crate::flow::{Output, TopicPartition};

/// What makes one value newer than another, and where it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) at: TopicPartition,
    pub(crate) origin: i64,
    pub(crate) venue_time: Micros,
    pub(crate) receive_time: Micros,
}

impl Stamp {
    /// Invariant 6: of higher origin, and its venue time is not earlier.
    pub(crate) fn replaces(&self, held: &Stamp) -> bool {
        self.origin > held.origin && self.venue_time >= held.venue_time
    }
}

/// The newest event of a key, in our own schema.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    pub(crate) key: Box<str>,
    pub(crate) kind: Kind,
    pub(crate) stamp: Stamp,
    pub(crate) payload: Vec<u8>,
}

/// The newest event of each key. A key that is there costs no allocation to replace.
#[derive(Debug, Default)]
pub struct LastValues {
    by_key: HashMap<Box<str>, usize>,
    values: Vec<Value>,
    scratch: String,
    payload_bytes: usize,
}

impl LastValues {
    pub(crate) fn values(&self) -> &[Value] {
        &self.values
    }

    /// Takes an event if it is newer than what its key holds; the index of the value then.
    pub(crate) fn offer(
        &mut self,
        key: &str,
        kind: Kind,
        stamp: Stamp,
        payload: &[u8],
    ) -> Option<usize> {
        let Some(&index) = self.by_key.get(key) else {
            let index = self.values.len();
            self.by_key.insert(key.into(), index);
            self.values.push(Value { key: key.into(), kind, stamp, payload: payload.to_vec() });
            self.payload_bytes += payload.len();
            return Some(index);
        };
        let value = &mut self.values[index];
        if !stamp.replaces(&value.stamp) {
            return None;
        }
        self.payload_bytes = self.payload_bytes - value.payload.len() + payload.len();
        value.stamp = stamp;
        value.payload.clear();
        value.payload.extend_from_slice(payload);
        Some(index)
    }

    /// As [`LastValues::offer`], under the key that Redis has it under: `prefix:part:part…`.
    pub(super) fn offer_parts(&mut self, parts: &[&str], kind: Kind, stamp: Stamp, payload: &[u8]) {
        let prefix = kind.spec().redis.map_or(kind.name(), |(prefix, _)| prefix);
        let mut key = std::mem::take(&mut self.scratch);
        key.clear();
        key.push_str(prefix);
        for part in parts {
            // Writing to memory cannot fail.
            let _ = write!(key, ":{part}");
        }
        self.offer(&key, kind, stamp, payload);
        self.scratch = key;
    }
}

impl Output for LastValues {
    fn len(&self) -> usize {
        self.values.len()
    }

    fn byte_len(&self) -> usize {
        self.payload_bytes + self.values.len() * std::mem::size_of::<Value>()
    }
}
