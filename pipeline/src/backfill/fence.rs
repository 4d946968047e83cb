//! How far the store has come: what it has not taken yet is not missing.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sqlx::PgConnection;
use tapeline_schemas::partition_for;
use tapeline_stages::flow::{Topic, TopicPartition};
use tokio::time::Instant;

use super::{POLL, Span};
use crate::kafka::LogEndReader;
use crate::wiring::Context;

/// How long the store is given to come to the log's end.
const PATIENCE: Duration = Duration::from_secs(60);

const HELD: &str = "select held_origin from tapeline_fence
    where pipeline = $1 and topic = $2 and partition = $3";

/// Compares the log with the store's fences.
pub(super) struct Fence {
    pipeline: String,
    prefix: String,
    raw: Vec<Topic>,
    ends: LogEndReader,
}

impl Fence {
    pub(super) fn new(context: &Context) -> Result<Fence> {
        let (config, raw) = (&context.config, context.raw_topics()?);
        let ends = LogEndReader::new(&config.kafka, raw.clone())?;
        let prefix = config.kafka.topic_prefix.clone();
        Ok(Fence { pipeline: config.pipeline.id.clone(), prefix, raw, ends })
    }

    /// Whether the store takes in time all that the raw partition of a feed holds now.
    pub(super) async fn passed(&self, database: &mut PgConnection, span: &Span) -> Result<bool> {
        let number = self.raw.iter().position(|topic| topic.kind == span.kind);
        let number = number.with_context(|| format!("{} has no raw topic", span.kind.name()))?;
        let partition = partition_for(span.key().as_bytes(), self.raw[number].partitions);
        let at = TopicPartition { topic: u16::try_from(number)?, partition };
        let ends = self.ends.clone();
        let (_, end) = tokio::task::spawn_blocking(move || ends.watermarks(at)).await??;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let held: Option<Option<i64>> = sqlx::query_scalar(HELD)
                .bind(&self.pipeline)
                .bind(span.kind.spec().topic(&self.prefix))
                .bind(partition)
                .fetch_optional(&mut *database)
                .await
                .context("the store's fence")?;
            // Of a raw partition without a record nothing is held.
            if held.flatten().unwrap_or(-1) >= end - 1 {
                return Ok(true);
            }
            if Instant::now() > deadline {
                return Ok(false);
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
