//! A producer for bulk: no report for each record, so that generating costs more than handing over.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Error, Result, anyhow, bail, ensure};
use rdkafka::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use tapeline::kafka::{KafkaSettings, flush};

/// How long a full queue is waited for between two attempts.
const QUEUE_FULL_PAUSE: Duration = Duration::from_micros(500);
/// How long the last records may take to be delivered.
const FLUSH: Duration = Duration::from_secs(120);

/// What makes batches large; a setting of the user's own goes before.
const BULK: [(&str, &str); 4] = [
    ("linger.ms", "50"),
    ("batch.size", "1000000"),
    ("batch.num.messages", "20000"),
    ("queue.buffering.max.messages", "200000"),
];

/// Keeps the first record that was not delivered.
#[derive(Default, Clone)]
struct Failures(Arc<Mutex<Option<String>>>);

impl ClientContext for Failures {}

impl ProducerContext for Failures {
    // With `delivery.report.only.error` an opaque of its own would leak with every record.
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            let place = format!("{} [{}]: {error}", message.topic(), message.partition());
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(place);
        }
    }
}

/// Idempotent and acknowledged by all replicas like the pipeline's own producer, in larger batches.
pub(crate) struct BulkProducer {
    producer: ThreadedProducer<Failures>,
    failures: Failures,
    /// Partitions that have a record, by topic, and whether it is delivered. As in the pipeline, the first goes
    /// alone: librdkafka may lose it where the topic is new.
    opened: RefCell<HashMap<String, HashMap<i32, bool>>>,
}

impl BulkProducer {
    /// Batches that linger: for throughput.
    pub(crate) fn new(settings: &KafkaSettings) -> Result<BulkProducer> {
        let mut config = settings.producer();
        for (key, value) in BULK {
            if !settings.producer_properties.contains_key(key) {
                config.set(key, value);
            }
        }
        config.set("delivery.report.only.error", "true");
        BulkProducer::with(&config)
    }

    /// The pipeline's own lingering: for latency.
    pub(crate) fn prompt(settings: &KafkaSettings) -> Result<BulkProducer> {
        BulkProducer::with(&settings.stream_producer())
    }

    fn with(config: &rdkafka::ClientConfig) -> Result<BulkProducer> {
        let failures = Failures::default();
        let producer = config.create_with_context(failures.clone()).context("kafka producer")?;
        Ok(BulkProducer { producer, failures, opened: RefCell::default() })
    }

    /// Hands a record over; blocks while the queue is full, and until the first record of its
    /// partition is delivered.
    pub(crate) fn send(
        &self,
        topic: &str,
        partition: i32,
        key: &[u8],
        value: &[u8],
        headers: Option<OwnedHeaders>,
    ) -> Result<()> {
        let opened = |partitions: &HashMap<i32, bool>| partitions.get(&partition).copied();
        let is_delivered = self.opened.borrow().get(topic).and_then(opened);
        if is_delivered == Some(false) {
            self.finish()?;
            let mut all = self.opened.borrow_mut();
            all.values_mut().flat_map(HashMap::values_mut).for_each(|delivered| *delivered = true);
        }
        let mut record = BaseRecord::to(topic).partition(partition).key(key).payload(value);
        record.headers = headers;
        loop {
            match self.producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    self.check()?;
                    record = back;
                    std::thread::sleep(QUEUE_FULL_PAUSE);
                }
                Err((error, _)) => return Err(anyhow!("{topic} [{partition}]: {error}")),
            }
        }
        if is_delivered.is_none() {
            self.opened.borrow_mut().entry(topic.to_owned()).or_default().insert(partition, false);
        }
        Ok(())
    }

    /// Says what was not delivered so far.
    pub(crate) fn check(&self) -> Result<()> {
        let failed = self.failures.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        failed.map_or(Ok(()), |failed| bail!("not delivered: {failed}"))
    }

    /// Waits until everything is delivered.
    pub(crate) fn finish(&self) -> Result<()> {
        let delivered = flush(&self.producer, FLUSH).map_err(Error::msg)?;
        ensure!(delivered, "the last records were not delivered within {FLUSH:?}");
        self.check()
    }
}
