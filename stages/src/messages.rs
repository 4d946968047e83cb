//! Messages that a stage makes, before the Kafka sink gives them their wire header.

use tapeline_schemas::{Control, Kind};

use crate::flow::Output;

/// Topics that stages write, by role; the sink knows their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutTopic {
    /// The checked topic of a kind.
    Checked(Kind),
    /// What is odd about events.
    Anomaly,
    /// Holes in feeds.
    Gap,
    /// Records that could not be taken.
    Quarantine,
    /// Candles of every timeframe, with the control records that order them.
    Candle,
    /// Windows to be computed again.
    CandleDirty,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where it goes.
    pub topic: OutTopic,
    /// Into which partition.
    pub partition: i32,
    /// Its key.
    pub key: Vec<u8>,
    /// The sink puts the wire header of this kind's schema before the value; none: as it is.
    pub schema: Option<Kind>,
    /// Its value, without wire header; none is an empty value.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<(&'static str, Vec<u8>)>,
}

/// Bytes counted for a message besides its own.
const MESSAGE_BYTES: usize = 64;

impl Message {
    /// A control record: no value, everything in headers.
    pub fn control(topic: OutTopic, partition: i32, key: Vec<u8>, control: &Control) -> Message {
        let headers = control.to_headers();
        let headers = headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
        Message { topic, partition, key, schema: None, value: None, headers }
    }

    fn byte_len(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        MESSAGE_BYTES + self.key.len() + self.value.as_ref().map_or(0, Vec::len) + headers
    }
}

/// Messages in the order in which they are written.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Messages {
    list: Vec<Message>,
    bytes: usize,
}

impl Messages {
    /// Adds a message behind the others.
    pub fn push(&mut self, message: Message) {
        self.bytes += message.byte_len();
        self.list.push(message);
    }

    /// The messages in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Message> {
        self.list.iter()
    }
}

impl<'m> IntoIterator for &'m Messages {
    type Item = &'m Message;
    type IntoIter = std::slice::Iter<'m, Message>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Output for Messages {
    fn len(&self) -> usize {
        self.list.len()
    }

    fn byte_len(&self) -> usize {
        self.bytes
    }
}

/// The key of everything that belongs to one symbol of one venue: `VENUE:SYMBOL`.
pub fn symbol_key(venue: &str, symbol: &str) -> Vec<u8> {
    format!("{venue}:{symbol}").into_bytes()
}
