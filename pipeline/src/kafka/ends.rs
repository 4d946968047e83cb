//! Ends of partitions, for whoever must read to them before it acts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use tapeline_schemas::Micros;
use tapeline_stages::flow::{Topic, TopicPartition};
use tapeline_stages::sinks::redis::LogEnds;

use super::KafkaSettings;
use crate::venue::driver::{Clock as _, SystemClock};

/// How long one question to the cluster may take.
const ASK: Duration = Duration::from_secs(10);
/// How long one is repeated that fails: a broker that is cut off answers none in time, and then all.
const REPEATED: Duration = Duration::from_secs(30);
/// Pause before it is.
const AGAIN: Duration = Duration::from_millis(100);

/// Asks until there is an answer: a partition that was just created, or whose broker just went, has no leader for a
/// moment, and its next one may not know yet that it is (`NOT_LEADER_OR_FOLLOWER`).
pub(super) fn answered<T>(mut ask: impl FnMut() -> KafkaResult<T>) -> KafkaResult<T> {
    let deadline = Instant::now() + REPEATED;
    loop {
        match ask() {
            Err(_) if Instant::now() < deadline => std::thread::sleep(AGAIN),
            answer => return answer,
        }
    }
}

/// Oldest offset of a partition and the one after the newest. Blocks; an error is one of 30 s of asking.
pub fn ends<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partition: i32,
) -> Result<(i64, i64)> {
    answered(|| consumer.fetch_watermarks(topic, partition, ASK))
        .with_context(|| format!("ends of {topic} [{partition}]"))
}

/// The first offset of each partition of `topic` that was appended at `millis` (Unix time) or later; none where nothing
/// is that new. Blocks.
pub(crate) fn first_since(
    consumer: &BaseConsumer,
    topic: &str,
    partitions: impl IntoIterator<Item = i32>,
    millis: i64,
) -> Result<Vec<(i32, Option<i64>)>> {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition_offset(topic, partition, Offset::Offset(millis.max(0)))?;
    }
    let found = answered(|| {
        let found = consumer.offsets_for_times(list.clone(), ASK)?;
        // One that failed still has the time in place of its offset.
        found.elements().iter().try_for_each(|element| element.error())?;
        Ok(found)
    });
    let found = found.with_context(|| format!("offsets by time of {topic}"))?;
    let first = |offset| match offset {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    };
    Ok(found.elements().iter().map(|e| (e.partition(), first(e.offset()))).collect())
}

/// Asks for the ends of partitions.
#[derive(Clone)]
pub struct LogEndReader {
    consumer: Arc<BaseConsumer>,
    topics: Arc<Vec<Topic>>,
}

impl LogEndReader {
    /// For partitions of `topics`.
    pub fn new(settings: &KafkaSettings, topics: Vec<Topic>) -> Result<LogEndReader> {
        let consumer = settings.consumer(None).create().context("kafka consumer")?;
        Ok(LogEndReader { consumer: Arc::new(consumer), topics: Arc::new(topics) })
    }

    /// Oldest offset and the one after the newest. Blocks.
    pub fn watermarks(&self, at: TopicPartition) -> Result<(i64, i64)> {
        ends(&self.consumer, &self.topics[at.topic as usize].name, at.partition)
    }

    /// The first offset that was appended within the lifetime of its kind's values in Redis, as of `now` (Unix time).
    fn living(&self, at: TopicPartition, now: Micros) -> Result<i64> {
        let topic = &self.topics[at.topic as usize];
        let lifetime = topic.kind.spec().redis.map_or(0, |(_, seconds)| i64::from(seconds));
        let since = now.0 / 1_000 - lifetime * 1_000;
        let found = first_since(&self.consumer, &topic.name, [at.partition], since)?;
        match found.first() {
            Some((_, Some(offset))) => Ok(*offset),
            _ => self.watermarks(at).map(|(_, end)| end),
        }
    }

    async fn ask(
        &self,
        question: impl FnOnce(&LogEndReader) -> Result<i64> + Send + 'static,
    ) -> Result<i64, String> {
        let reader = self.clone();
        let asked = tokio::task::spawn_blocking(move || question(&reader)).await;
        asked.map_err(|error| error.to_string())?.map_err(|error| format!("{error:#}"))
    }
}

impl LogEnds for LogEndReader {
    async fn end(&mut self, at: TopicPartition) -> Result<i64, String> {
        self.ask(move |reader| reader.watermarks(at).map(|(_, end)| end)).await
    }

    async fn living(&mut self, at: TopicPartition) -> Result<i64, String> {
        let now = SystemClock::default().receive_time(None).unwrap_or_default();
        self.ask(move |reader| reader.living(at, now)).await
    }
}
