//! Events and control records into the raw topics.

use std::collections::HashMap;

use rdkafka::message::{Header, OwnedHeaders};
use tapeline_schemas::{Control, Kind, headers, partition_for, wire};

use super::bulk::Bulk;
use super::sink::SchemaIds;

/// What the publisher knows of a raw topic.
#[derive(Debug, Clone)]
struct Raw {
    name: String,
    partitions: i32,
}

/// Publishes into the raw topics.
#[derive(Clone)]
pub struct RawPublisher {
    producer: Bulk,
    topics: HashMap<Kind, Raw>,
    schema_ids: SchemaIds,
    /// Who writes, on control records; empty where there is only one.
    writer: String,
}

impl RawPublisher {
    /// A publisher into raw topics with these numbers of partitions.
    pub fn new(
        producer: Bulk,
        prefix: &str,
        partitions: &HashMap<Kind, i32>,
        schema_ids: SchemaIds,
    ) -> RawPublisher {
        let topics = partitions
            .iter()
            .map(|(kind, &partitions)| {
                (*kind, Raw { name: kind.spec().raw_topic(prefix), partitions })
            })
            .collect();
        RawPublisher { producer, topics, schema_ids, writer: String::new() }
    }

    /// The same, signing control records as `writer`, one of several that write the same events.
    pub fn signed(mut self, writer: &str) -> RawPublisher {
        writer.clone_into(&mut self.writer);
        self
    }

    /// The raw topic of `kind`. Nothing follows a record that was not delivered: a connector
    /// that goes on would announce as complete what is not.
    fn topic(&self, kind: Kind) -> Result<&Raw, String> {
        self.producer.check()?;
        self.topics.get(&kind).ok_or_else(|| format!("{} has no raw topic", kind.name()))
    }

    /// Publishes one event, its payload without the wire header; waits while the queue is full.
    pub async fn event(&self, kind: Kind, key: &str, payload: &[u8]) -> Result<(), String> {
        let topic = self.topic(kind)?;
        let id = self.schema_ids.get(&kind);
        let id = id.ok_or_else(|| format!("no schema id for {}", kind.name()))?;
        let mut value = Vec::with_capacity(wire::HEADER_BYTES + payload.len());
        wire::put_header(*id, &mut value);
        value.extend_from_slice(payload);
        let partition = partition_for(key.as_bytes(), topic.partitions);
        self.producer.send(&topic.name, Some(partition), key.as_bytes(), Some(&value), None).await
    }

    /// Publishes a control record to the partition of `key`.
    pub async fn control(&self, kind: Kind, key: &str, control: &Control) -> Result<(), String> {
        let topic = self.topic(kind)?;
        let partition = partition_for(key.as_bytes(), topic.partitions);
        self.send_control(topic, partition, key, control).await
    }

    /// Publishes a control record to every partition.
    pub async fn broadcast(&self, kind: Kind, control: &Control) -> Result<(), String> {
        let topic = self.topic(kind)?;
        let key = match control {
            Control::Complete { venue, .. } => venue.clone(),
            Control::Gap(gap) => format!("{}:{}", gap.venue, gap.symbol),
        };
        for partition in 0..topic.partitions {
            self.send_control(topic, partition, &key, control).await?;
        }
        Ok(())
    }

    async fn send_control(
        &self,
        topic: &Raw,
        partition: i32,
        key: &str,
        control: &Control,
    ) -> Result<(), String> {
        let mut headers = control.to_headers();
        if !self.writer.is_empty() {
            headers.push((headers::WRITER, self.writer.clone()));
        }
        let headers = headers.iter().fold(OwnedHeaders::new(), |owned, (key, value)| {
            owned.insert(Header { key, value: Some(value.as_str()) })
        });
        self.producer.send(&topic.name, Some(partition), key.as_bytes(), None, Some(headers)).await
    }

    /// Waits until everything published so far was delivered, or says what was not.
    pub async fn delivered(&self) -> Result<(), String> {
        self.producer.delivered().await
    }
}
