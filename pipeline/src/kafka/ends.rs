//! Ends of partitions, for whoever must read to them before it acts.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use tapeline_stages::flow::{Topic, TopicPartition};
use tapeline_stages::sinks::redis::LogEnds;

use super::KafkaSettings;

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
}

impl LogEnds for LogEndReader {
    async fn end(&mut self, at: TopicPartition) -> Result<i64, String> {
        let reader = self.clone();
        let asked = tokio::task::spawn_blocking(move || reader.watermarks(at)).await;
        let (_, end) = asked.map_err(|e| e.to_string())?.map_err(|e| format!("{e:#}"))?;
        Ok(end)
    }
}
