//! Ends of partitions, for whoever must read to them before it acts.

use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use tapeline_stages::flow::{Topic, TopicPartition};

use super::KafkaSettings;

const ASK: Duration = Duration::from_secs(10);

/// Asks for the ends of partitions.
pub struct LogEndReader {
    consumer: BaseConsumer,
    topics: Vec<Topic>,
}

impl LogEndReader {
    /// For partitions of `topics`.
    pub fn new(settings: &KafkaSettings, topics: Vec<Topic>) -> Result<LogEndReader> {
        let consumer = settings.consumer(None).create().context("kafka consumer")?;
        Ok(LogEndReader { consumer, topics })
    }

    /// Oldest offset and the one after the newest. Blocks.
    pub fn watermarks(&self, at: TopicPartition) -> Result<(i64, i64)> {
        let name = &self.topics[at.topic as usize].name;
        self.consumer
            .fetch_watermarks(name, at.partition, ASK)
            .with_context(|| format!("ends of {name} [{}]", at.partition))
    }
}
