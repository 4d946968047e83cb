//! What every producer does besides its own way of reporting: choosing partitions, opening them
//! and waiting for the end.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rdkafka::bindings::{rd_kafka_flush, rd_kafka_resp_err_t};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tapeline_schemas::partition_for;

use super::admin::ADMIN_TIMEOUT;
use super::opening::Openings;

/// How long a full queue is waited for between two attempts.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(1);
/// Longest a thread waits in one flush, also when nobody wants its end any more.
const FLUSH: Duration = Duration::from_millis(500);

/// A producer and what it knows of the topics it writes to.
pub(super) struct Writer<C: ProducerContext + 'static> {
    producer: ThreadedProducer<C>,
    openings: Openings,
    /// Numbers of partitions, as they were at the first message by key.
    partitions: RwLock<HashMap<String, i32>>,
    /// Held by one who waits until nothing is under way: among others' messages that would never be.
    gate: tokio::sync::RwLock<()>,
}

/// What a producer's context knows.
pub(super) trait Failing: ProducerContext {
    /// How many deliveries have failed so far; a context may count no further than the first.
    fn failures(&self) -> u64;
}

impl<C: Failing + 'static> Writer<C> {
    pub(super) fn new(producer: ThreadedProducer<C>) -> Writer<C> {
        let (openings, partitions, gate) = Default::default();
        Writer { producer, openings, partitions, gate }
    }

    pub(super) fn context(&self) -> &C {
        self.producer.context()
    }

    /// Hands a message over, to its partition or to that of its key. Waits for the delivery of the first message
    /// to the partition, and while the queue is full, as long as `check` says that it is worth it.
    pub(super) async fn send(
        self: &Arc<Self>,
        mut record: BaseRecord<'_, [u8], [u8], C::DeliveryOpaque>,
        check: impl Fn() -> Result<(), String>,
    ) -> Result<(), String> {
        let (topic, key) = (record.topic, record.key.unwrap_or_default());
        let partition = self.partition(topic, key, record.partition).await?;
        record.partition = Some(partition);
        let mut turn = self.openings.turn(topic, partition).await;
        if let Some(turn) = turn.as_mut().filter(|turn| turn.has_to_wait(topic, partition)) {
            self.flush().await?;
            check()?;
            turn.settle(self.context().failures());
        }
        let failures = self.context().failures();
        self.hand_over(record, check).await?;
        if let Some(turn) = turn {
            turn.sent(topic, partition, failures);
        }
        Ok(())
    }

    async fn hand_over(
        &self,
        mut record: BaseRecord<'_, [u8], [u8], C::DeliveryOpaque>,
        check: impl Fn() -> Result<(), String>,
    ) -> Result<(), String> {
        let topic = record.topic;
        let _passed = self.gate.read().await;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    metrics::counter!("tapeline_producer_queue_full_total").increment(1);
                    record = back;
                    tokio::time::sleep(QUEUE_FULL_PAUSE).await;
                    check()?;
                }
                Err((error, _)) => return Err(format!("{topic}: {error}")),
            }
        }
    }

    /// `wanted`, or the partition of `key` as every Kafka client chooses it.
    async fn partition(
        self: &Arc<Self>,
        topic: &str,
        key: &[u8],
        wanted: Option<i32>,
    ) -> Result<i32, String> {
        if let Some(wanted) = wanted {
            return Ok(wanted);
        }
        let known = |this: &Self| {
            let partitions = this.partitions.read().unwrap_or_else(PoisonError::into_inner);
            partitions.get(topic).copied()
        };
        if let Some(partitions) = known(self) {
            return Ok(partition_for(key, partitions));
        }
        let (this, name) = (Arc::clone(self), topic.to_owned());
        let asked = tokio::task::spawn_blocking(move || this.ask_partitions(&name)).await;
        let partitions = asked.map_err(|error| error.to_string())??;
        let mut all = self.partitions.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(topic.to_owned(), partitions);
        Ok(partition_for(key, partitions))
    }

    fn ask_partitions(&self, topic: &str) -> Result<i32, String> {
        let metadata = self.producer.client().fetch_metadata(Some(topic), ADMIN_TIMEOUT);
        let metadata = metadata.map_err(|error| format!("partitions of {topic}: {error}"))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let partitions = found.map_or(0, |found| found.partitions().len());
        i32::try_from(partitions)
            .ok()
            .filter(|partitions| *partitions > 0)
            .ok_or_else(|| format!("topic {topic} is not there: it has no partitions"))
    }

    /// Sends what lingers, and waits until no message is under way any more; nobody else's is taken meanwhile.
    pub(super) async fn flush(self: &Arc<Self>) -> Result<(), String> {
        let _closed = self.gate.write().await;
        while self.producer.in_flight_count() > 0 {
            let this = Arc::clone(self);
            let flush = tokio::task::spawn_blocking(move || flush(&this.producer, FLUSH));
            if flush.await.map_err(|error| error.to_string())?? {
                break;
            }
        }
        Ok(())
    }
}

/// Sends what lingers and blocks for at most `limit`: whether no message is under way any more, those
/// whose failure is still to be reported included.
///
/// # Errors
/// Of librdkafka's, in its words.
///
/// The wrapper's own flush asks without waiting, which ends before librdkafka's threads see that
/// they are asked: a long linger would still be waited for.
pub fn flush<C: ProducerContext + 'static>(
    producer: &ThreadedProducer<C>,
    limit: Duration,
) -> Result<bool, String> {
    let client = producer.client().native_ptr();
    let millis = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the producer is borrowed, so its handle lives; reports of deliveries are served by
    // the producer's own thread.
    match unsafe { rd_kafka_flush(client, millis) } {
        rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(true),
        rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__TIMED_OUT => Ok(false),
        error => Err(format!("flush: {}", RDKafkaErrorCode::from(error))),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use tapeline_schemas::Kind;
    use tapeline_stages::flow::{Contract, Topic};

    use crate::kafka::{Bulk, Delivery, KafkaSettings, Producer, scan};

    const REFUSALS: [RDKafkaRespErr; 2] =
        [RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION; 2];

    /// A cluster that refuses the first messages of a producer, and every message in a request of
    /// its own, several of which would be under way.
    fn refusing(topic: &str) -> (MockCluster<'static, DefaultProducerContext>, KafkaSettings) {
        let cluster = MockCluster::new(1).expect("cluster");
        cluster.create_topic(topic, 1, 1).expect("topic");
        cluster.request_errors(RDKafkaApiKey::Produce, &REFUSALS);
        let mut settings =
            KafkaSettings { brokers: cluster.bootstrap_servers(), ..KafkaSettings::default() };
        settings.producer_properties.insert("batch.num.messages".to_owned(), "1".to_owned());
        (cluster, settings)
    }

    async fn read(settings: &KafkaSettings, topic: &'static str) -> Vec<Vec<u8>> {
        let settings = settings.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut read = Vec::new();
            let topic = Topic {
                name: topic.to_owned(),
                kind: Kind::Trade,
                contract: Contract::Raw,
                partitions: 1,
            };
            scan(&settings, &topic, |message| {
                use rdkafka::Message as _;
                read.push(message.payload().unwrap_or_default().to_vec());
            })
            .expect("read");
            read
        });
        read.await.expect("read")
    }

    const ALL: [&[u8]; 4] = [b"0", b"1", b"2", b"3"];

    #[tokio::test]
    async fn first_messages_that_are_refused_are_sent_again_and_in_order_invariants_1_and_3() {
        let (_cluster, settings) = refusing("bulk");
        let bulk = Bulk::new(&settings.stream_producer()).expect("producer");
        for value in ALL {
            bulk.send("bulk", Some(0), b"key", Some(value), None).await.expect("sent");
        }
        bulk.delivered().await.expect("delivered");
        assert_eq!(read(&settings, "bulk").await, ALL);
    }

    #[tokio::test]
    async fn first_messages_by_key_that_are_refused_are_sent_again_invariant_4() {
        let (_cluster, settings) = refusing("reported");
        let producer = Producer::new(&settings).expect("producer");
        let delivery = Delivery::new();
        for value in ALL {
            let sent = producer.send("reported", None, b"key", Some(value), None, &delivery);
            sent.await.expect("sent");
        }
        delivery.wait().await.expect("delivered");
        assert_eq!(read(&settings, "reported").await, ALL);
    }
}
