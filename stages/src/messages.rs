//! Outgoing messages, gathered in one piece of memory until they are sent.

use tapeline_schemas::Kind;

use crate::flow::{HeaderSlices, Headers, Output, Slice};

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutTopic {
    /// The topic of this kind (the checked one, where there is a raw one).
    Of(Kind),
    /// Windows whose candles must be computed again.
    CandleDirty,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    topic: OutTopic,
    partition: Option<i32>,
    schema: Option<Kind>,
    key: Slice,
    value: Option<Slice>,
    headers: Slice,
}

/// Messages in the order they are to be sent.
#[derive(Debug, Default)]
pub struct Messages {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// One message, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Where it goes.
    pub topic: OutTopic,
    /// Its partition; none: by its key.
    pub partition: Option<i32>,
    /// Set where the value is a bare Avro payload: the sink puts the wire header of this kind before it.
    pub schema: Option<Kind>,
    /// Its key.
    pub key: &'a [u8],
    /// Its value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: Headers<'a>,
}

impl Messages {
    /// Appends a copy of a message; `headers` writes its headers.
    #[inline]
    pub fn push(
        &mut self,
        topic: OutTopic,
        partition: Option<i32>,
        key: &[u8],
        schema: Option<Kind>,
        value: Option<&[u8]>,
        headers: impl FnOnce(&mut HeaderSlices<'_>),
    ) {
        let key = Slice::append(&mut self.bytes, key);
        let value = value.map(|value| Slice::append(&mut self.bytes, value));
        let headers = HeaderSlices::write(&mut self.bytes, headers);
        self.entries.push(Entry { topic, partition, schema, key, value, headers });
    }

    /// The messages in order.
    pub fn iter(&self) -> impl Iterator<Item = Message<'_>> {
        self.entries.iter().map(|entry| Message {
            topic: entry.topic,
            partition: entry.partition,
            schema: entry.schema,
            key: entry.key.of(&self.bytes),
            value: entry.value.map(|value| value.of(&self.bytes)),
            headers: Headers::of(entry.headers.of(&self.bytes)),
        })
    }
}

impl Output for Messages {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn byte_len(&self) -> usize {
        self.bytes.len() + self.entries.len() * size_of::<Entry>()
    }
}
