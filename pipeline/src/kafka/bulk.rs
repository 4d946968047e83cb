//! A producer for many messages: what was sent is delivered, or the producer is broken for good.
//!
//! A report for each delivered message costs as much as sending it. Here librdkafka reports
//! failures only, and a flush that ends without one says that all messages were delivered.

use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use rdkafka::ClientContext;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::message::{DeliveryResult, OwnedHeaders};
use rdkafka::producer::{BaseRecord, ProducerContext};

use super::producer::is_no_news;
use super::writer::{Failing, Writer};

/// The first failure; nothing after it counts.
#[derive(Default)]
struct Failures(OnceLock<String>);

impl ClientContext for Failures {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        if !is_no_news(message) {
            DefaultClientContext.log(level, fac, message);
        }
    }
}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            use rdkafka::Message;
            metrics::counter!("tapeline_producer_failures_total").increment(1);
            let place = format!("{} [{}]", message.topic(), message.partition());
            self.0.get_or_init(|| format!("{place}: {error}"));
        }
    }
}

impl Failing for Failures {
    fn failures(&self) -> u64 {
        u64::from(self.0.get().is_some())
    }
}

/// A producer of one owner; clones share its fate.
#[derive(Clone)]
pub struct Bulk(Arc<Writer<Failures>>);

impl Bulk {
    /// Connects lazily. `config` is one of [`super::KafkaSettings`]' for bulk.
    pub fn new(config: &ClientConfig) -> Result<Bulk> {
        let producer = config.create_with_context(Failures::default());
        Ok(Bulk(Arc::new(Writer::new(producer.context("kafka producer")?))))
    }

    /// Says what was not delivered so far, without waiting for the rest.
    pub fn check(&self) -> Result<(), String> {
        self.0.context().0.get().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    /// Hands a message over; waits while the queue is full.
    pub async fn send(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: &[u8],
        value: Option<&[u8]>,
        headers: Option<OwnedHeaders>,
    ) -> Result<(), String> {
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).key(key);
        record.partition = partition;
        record.payload = value;
        record.headers = headers;
        self.0.send(record, || self.check()).await
    }

    /// Sends what lingers, and waits until every message was delivered, or says why one was not.
    pub async fn delivered(&self) -> Result<(), String> {
        self.0.flush().await?;
        self.check()
    }
}
