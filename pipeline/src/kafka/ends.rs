//! Ends of partitions, for whoever must read to them before it acts.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use tapeline_schemas::Micros;
use tapeline_stages::flow::{Topic, TopicPartition};
use tapeline_stages::sinks::redis::LogEnds;

use super::KafkaSettings;
use crate::venue::driver::{Clock as _, SystemClock};

const ASK: Duration = Duration::from_secs(10);

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
        let name = &self.topics[at.topic as usize].name;
        self.consumer
            .fetch_watermarks(name, at.partition, ASK)
            .with_context(|| format!("ends of {name} [{}]", at.partition))
    }

    /// The first offset that was appended within the lifetime of its kind's values in Redis, as of `now` (Unix time).
    fn living(&self, at: TopicPartition, now: Micros) -> Result<i64> {
        let topic = &self.topics[at.topic as usize];
        let lifetime = topic.kind.spec().redis.map_or(0, |(_, seconds)| i64::from(seconds));
        let mut list = TopicPartitionList::new();
        let since = Offset::Offset((now.0 / 1_000 - lifetime * 1_000).max(0));
        list.add_partition_offset(&topic.name, at.partition, since)?;
        let found = self
            .consumer
            .offsets_for_times(list, ASK)
            .with_context(|| format!("offsets by time of {} [{}]", topic.name, at.partition))?;
        match found.elements().first().map(|element| element.offset()) {
            Some(Offset::Offset(offset)) => Ok(offset),
            // Nothing that new.
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
