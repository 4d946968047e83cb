//! Sinks into Kafka: a stage's messages, and quarantine.

use std::borrow::Cow;
use std::collections::HashMap;

use rdkafka::message::{Header, OwnedHeaders};
use tapeline_schemas::{Kind, OriginalHeader, encode, wire};
use tapeline_stages::failpoint;
use tapeline_stages::flow::{
    QuarantineSink, Rejected, Resume, Sink, SinkError, Span, Start, Topic, TopicPartition,
};
use tapeline_stages::messages::{MessageRef, Messages, OutTopic};

use super::admin::dirty_topic;
use super::bulk::Bulk;
use super::producer::{Delivery, Producer, owned_headers};
use super::tail::CheckedTail;

/// Where a stage that writes to Kafka starts.
pub enum AssignFrom {
    /// Behind the last origin that the checked topic holds (`validate`, invariant 3).
    CheckedTail(CheckedTail),
    /// Where the group committed (`candles`).
    Committed,
}

/// Ids of our own schemas, by kind.
pub type SchemaIds = HashMap<Kind, u32>;

/// Writes a stage's messages. A failed delivery is fatal: what came after it may already be in
/// the log, so only a new start, from the log's tail, is right.
pub struct MessageSink {
    /// Name of the stage, in failpoints.
    stage: &'static str,
    producer: Bulk,
    prefix: String,
    schema_ids: SchemaIds,
    assign: AssignFrom,
    names: hashbrown::HashMap<OutTopic, String>,
    scratch: Vec<u8>,
}

impl MessageSink {
    /// A sink of `stage` into the topics behind `prefix`.
    pub fn new(
        stage: &'static str,
        producer: Bulk,
        prefix: &str,
        schema_ids: SchemaIds,
        assign: AssignFrom,
    ) -> MessageSink {
        MessageSink {
            stage,
            producer,
            prefix: prefix.to_owned(),
            schema_ids,
            assign,
            names: hashbrown::HashMap::new(),
            scratch: Vec::new(),
        }
    }

    /// Sends what is for `topic` to the topic named `name` instead.
    pub fn with_topic(mut self, topic: OutTopic, name: &str) -> MessageSink {
        self.names.insert(topic, name.to_owned());
        self
    }

    async fn send_all(
        &mut self,
        messages: impl Iterator<Item = MessageRef<'_>>,
    ) -> Result<(), SinkError> {
        for message in messages {
            let name = self.names.entry(message.topic).or_insert_with(|| match message.topic {
                OutTopic::Of(kind) => kind.spec().topic(&self.prefix),
                OutTopic::CandleDirty => dirty_topic(&self.prefix),
            });
            let value = match (message.schema, message.value) {
                (Some(kind), Some(payload)) => {
                    frame(&self.schema_ids, kind, payload, &mut self.scratch)?;
                    Some(self.scratch.as_slice())
                }
                (_, value) => value,
            };
            let headers = owned_headers(message.headers);
            self.producer
                .send(name, message.partition, message.key, value, headers)
                .await
                .map_err(SinkError::Fatal)?;
        }
        failpoint::hit_in(self.stage, "after_produce");
        self.producer
            .delivered()
            .await
            .map_err(|reason| SinkError::Fatal(format!("delivery failed: {reason}")))
    }
}

fn frame(
    ids: &SchemaIds,
    kind: Kind,
    payload: &[u8],
    scratch: &mut Vec<u8>,
) -> Result<(), SinkError> {
    let id = ids.get(&kind);
    let id = id.ok_or_else(|| SinkError::Fatal(format!("no schema id for {}", kind.name())))?;
    scratch.clear();
    wire::put_header(*id, scratch);
    scratch.extend_from_slice(payload);
    Ok(())
}

impl Sink<Messages> for MessageSink {
    /// What speaks of a record (anomalies, gaps) goes first: once the checked record is in the
    /// log, a restart will not make them again.
    async fn write(&mut self, out: &Messages, _: &mut [Span]) -> Result<(), SinkError> {
        failpoint::hit_in(self.stage, "before_produce");
        self.send_all(out.iter().filter(|message| message.partition.is_none())).await?;
        failpoint::hit_in(self.stage, "mid_produce");
        self.send_all(out.iter().filter(|message| message.partition.is_some())).await?;
        failpoint::hit_in(self.stage, "after_delivery");
        Ok(())
    }

    fn remove_rows(&self, _: &mut Messages, _: &[usize]) {
        // Kafka refuses no single message of a stage: `write` never answers `Reject`.
    }

    async fn assign(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Resume>, SinkError> {
        match &self.assign {
            AssignFrom::CheckedTail(tail) => {
                let tail = tail.clone();
                let partitions = partitions.to_vec();
                tokio::task::spawn_blocking(move || tail.read(&partitions))
                    .await
                    .map_err(|error| SinkError::Fatal(error.to_string()))?
            }
            AssignFrom::Committed => Ok(partitions
                .iter()
                .map(|&at| Resume { at, start: Start::Committed, held_origin: None })
                .collect()),
        }
    }

    async fn revoke(&mut self, _: &[TopicPartition]) {}
}

/// Keeps rejected records in the quarantine topic, with headers that Kafka Connect's tools read.
pub struct Quarantine {
    producer: Producer,
    topic: String,
    stage: &'static str,
    sources: Vec<Topic>,
    schema_ids: SchemaIds,
}

impl Quarantine {
    /// Quarantine of `stage`, which reads `sources`.
    pub fn new(
        producer: Producer,
        prefix: &str,
        stage: &'static str,
        sources: Vec<Topic>,
        schema_ids: SchemaIds,
    ) -> Quarantine {
        let topic = Kind::Quarantine.spec().topic(prefix);
        Quarantine { producer, topic, stage, sources, schema_ids }
    }

    fn event<'r>(&'r self, rejected: &'r Rejected) -> tapeline_schemas::Quarantine<'r> {
        tapeline_schemas::Quarantine {
            origin_topic: Cow::Borrowed(&self.sources[rejected.at.topic as usize].name),
            origin_partition: rejected.at.partition,
            origin_offset: rejected.offset,
            origin_time: rejected.time,
            stage: Cow::Borrowed(self.stage),
            reason: Cow::Borrowed(rejected.reject.reason),
            detail: Cow::Borrowed(&rejected.reject.detail),
            key: rejected.key.as_deref().map(Cow::Borrowed),
            value: rejected.value.as_deref().map(Cow::Borrowed),
            headers: rejected
                .headers
                .iter()
                .map(|(name, value)| OriginalHeader {
                    name: Cow::Borrowed(name),
                    value: value.as_deref().map(Cow::Borrowed),
                })
                .collect(),
        }
    }
}

/// Headers as of Kafka Connect's dead letter queue (KIP-298).
fn connect_headers(event: &tapeline_schemas::Quarantine<'_>) -> OwnedHeaders {
    let (partition, offset) = (event.origin_partition.to_string(), event.origin_offset.to_string());
    [
        ("__connect.errors.topic", event.origin_topic.as_ref()),
        ("__connect.errors.partition", partition.as_str()),
        ("__connect.errors.offset", offset.as_str()),
        ("__connect.errors.connector.name", "tapeline"),
        ("__connect.errors.stage", event.stage.as_ref()),
        ("__connect.errors.exception.class.name", event.reason.as_ref()),
        ("__connect.errors.exception.message", event.detail.as_ref()),
    ]
    .into_iter()
    .fold(OwnedHeaders::new(), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(value) })
    })
}

impl QuarantineSink for Quarantine {
    async fn write(&mut self, rejected: &[Rejected]) -> Result<(), SinkError> {
        let delivery = Delivery::new();
        let mut value = Vec::new();
        for rejected in rejected {
            let event = self.event(rejected);
            frame(&self.schema_ids, Kind::Quarantine, &encode(&event), &mut value)?;
            let key = format!(
                "{}/{}/{}",
                event.origin_topic, event.origin_partition, event.origin_offset
            );
            let headers = Some(connect_headers(&event));
            self.producer
                .send(&self.topic, None, key.as_bytes(), Some(&value), headers, &delivery)
                .await
                .map_err(SinkError::Retry)?;
        }
        delivery.wait().await.map_err(SinkError::Retry)
    }
}
