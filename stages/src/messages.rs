//! Outgoing messages, gathered in one piece of memory until they are sent.

use tapeline_schemas::{Control, Kind};

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

/// One message, borrowed from its list.
#[derive(Debug, Clone, Copy)]
pub struct MessageRef<'a> {
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

/// One message of its own, for stages that make few.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it goes.
    pub topic: OutTopic,
    /// Its partition.
    pub partition: i32,
    /// Its key.
    pub key: Vec<u8>,
    /// Set where the value is a bare Avro payload: the sink puts the wire header of this kind before it.
    pub schema: Option<Kind>,
    /// Its value; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Message {
    /// A control record: no value, everything in headers.
    pub fn control(topic: OutTopic, partition: i32, key: Vec<u8>, control: &Control) -> Message {
        let headers = control.to_headers();
        let headers = headers
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into_bytes()))
            .collect();
        Message { topic, partition, key, schema: None, value: None, headers }
    }
}

/// The key of everything that belongs to one symbol of one venue: `VENUE:SYMBOL`.
pub fn symbol_key(venue: &str, symbol: &str) -> Vec<u8> {
    format!("{venue}:{symbol}").into_bytes()
}

impl MessageRef<'_> {
    /// A copy of its own; `None` where it is sent to the partition of its key.
    pub fn to_message(&self) -> Option<Message> {
        let headers = self.headers.iter();
        Some(Message {
            topic: self.topic,
            partition: self.partition?,
            key: self.key.to_vec(),
            schema: self.schema,
            value: self.value.map(<[u8]>::to_vec),
            headers: headers
                .map(|(name, value)| (name.to_owned(), value.unwrap_or_default().to_vec()))
                .collect(),
        })
    }
}

impl Messages {
    /// Appends a message.
    pub fn push(&mut self, message: &Message) {
        let Message { topic, partition, key, schema, value, headers } = message;
        self.push_parts(*topic, Some(*partition), key, *schema, value.as_deref(), |out| {
            headers.iter().for_each(|(name, value)| out.push(name, Some(value)));
        });
    }

    /// Appends a copy of a message; `headers` writes its headers.
    #[inline]
    pub fn push_parts(
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
    pub fn iter(&self) -> impl Iterator<Item = MessageRef<'_>> {
        self.entries.iter().map(|entry| MessageRef {
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

    fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }
}
