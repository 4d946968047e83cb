//! The schemas topic: its creation, its reader on a thread of its own, and its writer.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::RegistryOptions;
use super::errors::ApiError;
use super::records::Record;
use super::state::State;
use crate::kafka::{EndIsNoError, ends};

const PARTITION: i32 = 0;
const KAFKA_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// How long the reader hears nothing before it looks whether there is something to hear.
const SILENCE: Duration = Duration::from_secs(10);

/// The state, shared between the topic's reader and the API.
pub(super) type SharedState = Arc<RwLock<State>>;

/// The state to look at. A thread that died while it wrote is answered elsewhere: the service
/// stops when its reader does.
pub(super) fn look(state: &SharedState) -> RwLockReadGuard<'_, State> {
    state.read().unwrap_or_else(PoisonError::into_inner)
}

fn client_config(options: &RegistryOptions) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &options.brokers);
    config.set("client.id", "tapeline-registry");
    for (name, value) in &options.properties {
        config.set(name, value);
    }
    config
}

/// Creates the topic where it is missing, and refuses one that would lose schemas.
pub(super) async fn prepare_topic(options: &RegistryOptions) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        client_config(options).create().context("the kafka properties are not accepted")?;
    let wait = AdminOptions::new()
        .request_timeout(Some(KAFKA_TIMEOUT))
        .operation_timeout(Some(KAFKA_TIMEOUT));
    let topic = options.topic.as_str();
    let wanted = NewTopic::new(topic, 1, TopicReplication::Fixed(options.replication))
        .set("cleanup.policy", "compact");
    let created = admin.create_topics([&wanted], &wait).await.with_context(|| {
        format!("cannot reach kafka at {}; check kafka.brokers and that it runs", options.brokers)
    })?;
    match created.into_iter().next() {
        Some(Ok(_)) => {
            tracing::info!(topic, "created the schemas topic");
            return Ok(());
        }
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {}
        Some(Err((_, code))) => bail!("the schemas topic {topic} cannot be created: {code}"),
        None => bail!("kafka gave no answer on creating the schemas topic {topic}"),
    }
    let described = admin
        .describe_configs([&ResourceSpecifier::Topic(topic)], &wait)
        .await
        .with_context(|| format!("the settings of topic {topic} cannot be read"))?;
    let policy = described
        .iter()
        .flatten()
        .find_map(|resource| resource.get("cleanup.policy")?.value.clone())
        .unwrap_or_default();
    ensure!(
        policy == "compact",
        "topic {topic} has cleanup.policy={policy}, which loses schemas; set it to compact"
    );
    Ok(())
}

/// First offset and end of the topic, which must have one partition. Blocks.
fn extent(consumer: &BaseConsumer<EndIsNoError>, topic: &str) -> anyhow::Result<(i64, i64)> {
    let extent = ends(consumer, topic, PARTITION)?;
    let metadata = consumer
        .fetch_metadata(Some(topic), KAFKA_TIMEOUT)
        .with_context(|| format!("the metadata of topic {topic} cannot be read"))?;
    let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    ensure!(
        partitions <= 1,
        "topic {topic} has {partitions} partitions; schemas need a topic of exactly one"
    );
    Ok(extent)
}

fn assign(consumer: &BaseConsumer<EndIsNoError>, topic: &str, from: i64) -> anyhow::Result<()> {
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, PARTITION, Offset::Offset(from))?;
    Ok(consumer.assign(&assignment)?)
}

/// The reader of the topic, before it starts.
pub(super) struct Reader {
    consumer: BaseConsumer<EndIsNoError>,
    options: RegistryOptions,
    topic: String,
    state: SharedState,
    /// Offset after the last record taken; none until the topic's end was seen once.
    progress: watch::Sender<Option<i64>>,
    next: i64,
    end_at_start: i64,
    at_end: bool,
}

impl Reader {
    /// A reader at the topic's start. Blocking.
    pub(super) fn open(options: &RegistryOptions, state: SharedState) -> anyhow::Result<Reader> {
        let consumer = Reader::consumer(options)?;
        let topic = options.topic.clone();
        let (first, end_at_start) = extent(&consumer, &topic)?;
        assign(&consumer, &topic, first)?;
        let (progress, _) = watch::channel(None);
        let options = options.clone();
        let (next, at_end) = (first, false);
        Ok(Reader { consumer, options, topic, state, progress, next, end_at_start, at_end })
    }

    fn consumer(options: &RegistryOptions) -> anyhow::Result<BaseConsumer<EndIsNoError>> {
        client_config(options)
            // Assigning needs a name; nothing is committed and no group is joined.
            .set("group.id", format!("tapeline-registry-{}", options.topic))
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("check.crcs", "true")
            .set("fetch.wait.max.ms", "20")
            // A topic that was cut or recreated under us must not be read as if it were the old.
            .set("auto.offset.reset", "error")
            .create_with_context(EndIsNoError)
            .context("the kafka properties are not accepted")
    }

    /// librdkafka may lose its way to the log for good once the broker was missing from the
    /// metadata for a moment. A reader that stands still before the end begins anew where it is.
    fn look_again(&mut self) -> anyhow::Result<()> {
        let end = self.consumer.fetch_watermarks(&self.topic, PARTITION, KAFKA_TIMEOUT);
        if end.is_ok_and(|(_, end)| end <= self.next) {
            return Ok(());
        }
        tracing::warn!(topic = self.topic, next = self.next, "reading the schemas topic anew");
        let consumer = Reader::consumer(&self.options)?;
        assign(&consumer, &self.topic, self.next)?;
        self.consumer = consumer;
        Ok(())
    }

    /// Tells how far the reader has come.
    pub(super) fn progress(&self) -> watch::Receiver<Option<i64>> {
        self.progress.subscribe()
    }

    /// Reads until `stop`. An error means that the state can no longer be trusted.
    pub(super) fn run(mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        let mut heard = Instant::now();
        while !stop.is_cancelled() {
            let polled = self.consumer.poll(POLL_TIMEOUT).map(|polled| {
                polled.map(|message| {
                    take(&self.state, &message);
                    message.offset()
                })
            });
            if polled.is_some() {
                heard = Instant::now();
            } else if heard.elapsed() >= SILENCE {
                self.look_again()?;
                heard = Instant::now();
            }
            match polled {
                None => {}
                Some(Ok(offset)) => {
                    self.next = offset + 1;
                    self.tell();
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    // Compaction or markers may have left nothing before the end.
                    self.next = self.next.max(self.end_at_start);
                    self.at_end = true;
                    self.tell();
                }
                Some(Err(error)) => match error.rdkafka_error_code() {
                    Some(
                        code @ (RDKafkaErrorCode::AutoOffsetReset
                        | RDKafkaErrorCode::OffsetOutOfRange
                        | RDKafkaErrorCode::Fatal),
                    ) => bail!(
                        "topic {} was cut or recreated while it was read ({code}); start again",
                        self.topic
                    ),
                    _ => tracing::warn!(%error, topic = self.topic, "reading the schemas topic"),
                },
            }
        }
        Ok(())
    }

    fn tell(&self) {
        if self.at_end {
            self.progress.send_replace(Some(self.next));
        }
    }
}

fn take(state: &SharedState, message: &BorrowedMessage<'_>) {
    let offset = message.offset();
    let record = match Record::read(message.key(), message.payload()) {
        Ok(record) => record,
        Err(error) => {
            tracing::warn!(offset, %error, "passed over a record of the schemas topic");
            return;
        }
    };
    let mut state = state.write().unwrap_or_else(PoisonError::into_inner);
    if let Err(error) = state.apply(record, message.key().unwrap_or_default()) {
        tracing::error!(offset, %error, "passed over a record of the schemas topic");
    }
    metrics::counter!("tapeline_registry_records_total").increment(1);
    metrics::gauge!("tapeline_registry_schemas").set(state.schemas() as f64);
}

/// The writer of the topic. One write at a time: the caller holds the turn.
pub(super) struct Log {
    producer: FutureProducer,
    topic: String,
    progress: watch::Receiver<Option<i64>>,
}

impl Log {
    /// A writer whose writes count once `progress` has passed them.
    pub(super) fn open(
        options: &RegistryOptions,
        progress: watch::Receiver<Option<i64>>,
    ) -> anyhow::Result<Log> {
        let producer = client_config(options)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", "0")
            .set("message.timeout.ms", KAFKA_TIMEOUT.as_millis().to_string())
            .create()
            .context("the kafka properties are not accepted")?;
        Ok(Log { producer, topic: options.topic.clone(), progress })
    }

    /// Waits until everything in the topic by now was read, another registry's records included.
    pub(super) async fn catch_up(&self) -> Result<(), ApiError> {
        let (producer, topic) = (self.producer.clone(), self.topic.clone());
        let extent = tokio::task::spawn_blocking(move || {
            producer.client().fetch_watermarks(&topic, PARTITION, KAFKA_TIMEOUT)
        })
        .await;
        match extent {
            Ok(Ok((_, end))) => self.wait_for(end).await,
            Ok(Err(error)) => Err(ApiError::Store(error.to_string())),
            Err(error) => Err(ApiError::Store(error.to_string())),
        }
    }

    /// Writes a record (`None` is a tombstone) and waits until our own reader has taken it.
    pub(super) async fn append(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), ApiError> {
        let mut record = FutureRecord::to(&self.topic).partition(PARTITION).key(key);
        record.payload = value;
        let delivery = self.producer.send(record, KAFKA_TIMEOUT).await;
        let delivery = delivery.map_err(|(error, _)| ApiError::Store(error.to_string()))?;
        metrics::counter!("tapeline_registry_writes_total").increment(1);
        self.wait_for(delivery.offset + 1).await
    }

    async fn wait_for(&self, offset: i64) -> Result<(), ApiError> {
        let mut progress = self.progress.clone();
        let passed = progress.wait_for(|next| next.is_some_and(|next| next >= offset));
        match timeout(KAFKA_TIMEOUT, passed).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ApiError::Store("its reader has stopped".into())),
            Err(_) => Err(ApiError::Timeout),
        }
    }
}
