//! Single records, written with all that they are made of, and where each went.

use anyhow::{Context, Result};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};

use super::KafkaSettings;

/// A record to write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Where to.
    pub topic: String,
    /// Its partition there.
    pub partition: i32,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; none is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Its headers in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Writes single records, few at a time: for commands, not for stages.
#[derive(Clone)]
pub struct Republisher(FutureProducer);

impl Republisher {
    /// Connects lazily.
    pub fn new(settings: &KafkaSettings) -> Result<Republisher> {
        Ok(Republisher(settings.unordered_producer().create().context("kafka producer")?))
    }

    /// Writes a record and returns its offset; an error says why it is not there.
    pub async fn write(&self, written: &Written) -> Result<i64> {
        let mut record =
            FutureRecord::<[u8], [u8]>::to(&written.topic).partition(written.partition);
        record.key = written.key.as_deref();
        record.payload = written.value.as_deref();
        if !written.headers.is_empty() {
            let capacity = written.headers.len();
            let headers = written
                .headers
                .iter()
                .fold(OwnedHeaders::new_with_capacity(capacity), |headers, (key, value)| {
                    headers.insert(Header { key, value: value.as_deref() })
                });
            record.headers = Some(headers);
        }
        let sent = self.0.send(record, rdkafka::util::Timeout::Never).await;
        let place = || format!("{} [{}]", written.topic, written.partition);
        Ok(sent.map_err(|(error, _)| error).with_context(place)?.offset)
    }
}
