//! Records as any Kafka client can write them.

use anyhow::{Context as _, Result};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use tapeline_schemas::{Kind, partition_for, wire};

use super::rig::Rig;

/// A record of a client that knows nothing of us.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    pub(crate) kind: Kind,
    pub(crate) key: String,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

impl Raw {
    /// `payload` under the schema `id`.
    pub(crate) fn framed(kind: Kind, key: &str, id: u32, payload: &[u8]) -> Raw {
        let mut value = Vec::with_capacity(wire::HEADER_BYTES + payload.len());
        wire::put_header(id, &mut value);
        value.extend_from_slice(payload);
        Raw { kind, key: key.to_owned(), value: Some(value), headers: Vec::new() }
    }
}

/// Writes records in this order; returns once all are delivered.
pub(crate) async fn push(rig: &Rig, records: &[Raw]) -> Result<()> {
    let kafka = &rig.config.kafka;
    let producer: FutureProducer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("linger.ms", "1")
        .set("enable.idempotence", "true")
        // See `opening.rs` of the pipeline: the first records to a new topic would be lost.
        .set("max.in.flight", "1")
        .set("message.max.bytes", "8388608")
        .create()?;
    let partitions = kafka.partitions.context("partitions are set")?;
    let mut sent = Vec::with_capacity(records.len());
    for raw in records {
        let topic = raw.kind.spec().raw_topic(&kafka.topic_prefix);
        let partition = partition_for(raw.key.as_bytes(), partitions);
        let mut record =
            FutureRecord::<str, [u8]>::to(&topic).partition(partition).key(raw.key.as_str());
        record.payload = raw.value.as_deref();
        if !raw.headers.is_empty() {
            let headers = raw.headers.iter().fold(OwnedHeaders::new(), |owned, (key, value)| {
                owned.insert(Header { key, value: Some(value) })
            });
            record.headers = Some(headers);
        }
        sent.push(producer.send_result(record).map_err(|(error, _)| error)?);
    }
    for delivery in sent {
        delivery.await?.map_err(|(error, _)| error)?;
    }
    Ok(())
}
