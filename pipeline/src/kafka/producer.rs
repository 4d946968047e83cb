//! The producer: idempotent, bounded, and every delivery accounted for.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use rdkafka::ClientContext;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, ProducerContext};
use tapeline_stages::flow::Headers;
use tokio::sync::Notify;

use super::KafkaSettings;
use super::writer::{Failing, Writer};

/// Deliveries of one batch that are still under way.
#[derive(Debug, Default)]
pub struct Delivery {
    pending: AtomicUsize,
    failed: Mutex<Option<String>>,
    broken: AtomicBool,
    done: Notify,
}

impl Delivery {
    /// A batch without messages yet.
    pub fn new() -> Arc<Delivery> {
        Arc::default()
    }

    fn check(&self) -> Result<(), String> {
        if !self.broken.load(Ordering::Acquire) {
            return Ok(());
        }
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.clone().map_or(Ok(()), Err)
    }

    /// Waits until every message sent with it was delivered, or says why one was not.
    pub async fn wait(&self) -> Result<(), String> {
        loop {
            let done = self.done.notified();
            if self.pending.load(Ordering::Acquire) == 0 {
                return self.check();
            }
            done.await;
        }
    }

    fn finish(&self, failure: Option<String>) {
        if let Some(failure) = failure {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
            self.broken.store(true, Ordering::Release);
        }
        if self.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            // One waiter at most: `notify_one` keeps its permit for a waiter that comes later.
            self.done.notify_one();
        }
    }
}

/// Takes librdkafka's reports of delivery.
#[derive(Default)]
struct Deliveries {
    failures: AtomicU64,
}

impl Failing for Deliveries {
    fn failures(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        if !is_no_news(message) {
            DefaultClientContext.log(level, fac, message);
        }
    }
}

/// Said at every start of something that is set on purpose.
pub(super) fn is_no_news(message: &str) -> bool {
    message.contains("enable.gapless.guarantee is experimental")
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Arc<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Arc<Delivery>) {
        let failure = match result {
            Ok(_) => None,
            Err((error, message)) => {
                use rdkafka::Message;
                metrics::counter!("tapeline_producer_failures_total").increment(1);
                self.failures.fetch_add(1, Ordering::AcqRel);
                Some(format!("{} [{}]: {error}", message.topic(), message.partition()))
            }
        };
        delivery.finish(failure);
    }
}

/// A producer that many tasks share.
#[derive(Clone)]
pub struct Producer(Arc<Writer<Deliveries>>);

impl Producer {
    /// Connects lazily.
    pub fn new(settings: &KafkaSettings) -> Result<Producer> {
        Producer::with(&settings.producer())
    }

    /// A producer that survives a delivery that failed for good, for messages whose order says
    /// nothing: with the gapless guarantee librdkafka refuses everything after such a failure,
    /// so that whoever waits and writes again would wait for ever.
    pub fn unordered(settings: &KafkaSettings) -> Result<Producer> {
        Producer::with(&settings.unordered_producer())
    }

    fn with(config: &ClientConfig) -> Result<Producer> {
        let producer =
            config.create_with_context(Deliveries::default()).context("kafka producer")?;
        Ok(Producer(Arc::new(Writer::new(producer))))
    }

    /// Hands a message over; waits while the queue is full. The outcome reaches `delivery`.
    pub async fn send(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: &[u8],
        value: Option<&[u8]>,
        headers: Option<OwnedHeaders>,
        delivery: &Arc<Delivery>,
    ) -> Result<(), String> {
        delivery.pending.fetch_add(1, Ordering::AcqRel);
        let mut record = BaseRecord::with_opaque_to(topic, Arc::clone(delivery)).key(key);
        record.partition = partition;
        record.payload = value;
        record.headers = headers;
        if let Err(reason) = self.0.send(record, || Ok(())).await {
            delivery.finish(Some(reason.clone()));
            return Err(reason);
        }
        Ok(())
    }
}

/// Headers as librdkafka wants them; none where there is none.
pub(super) fn owned_headers(headers: Headers<'_>) -> Option<OwnedHeaders> {
    if headers.is_empty() {
        return None;
    }
    Some(headers.iter().fold(OwnedHeaders::new_with_capacity(4), |owned, (key, value)| {
        owned.insert(Header { key, value })
    }))
}
