//! The cut: the fences as of one snapshot, and what the topics held around them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use sqlx::{PgConnection, Row};
use tapeline_stages::flow::{Topic, TopicPartition};

use super::report::CutReport;
use super::{Auditor, Scope};
use crate::kafka::{KafkaSettings, LogEndReader};

/// A fence.
#[derive(Debug, Clone)]
pub(super) struct Fence {
    pub(super) topic_id: String,
    /// Next offset to read; 0 before the first batch.
    pub(super) next_offset: i64,
    /// Last origin taken; -1 before the first.
    pub(super) held_origin: i64,
}

/// Oldest offset and the one after the newest.
pub(super) type Marks = (i64, i64);

/// The cut.
pub(super) struct Cut {
    report: CutReport,
    /// Fences by topic and partition.
    fences: BTreeMap<(String, i32), Fence>,
    /// Marks of every topic, raw ones included.
    marks: BTreeMap<(String, i32), Marks>,
    /// Days since the epoch, from inclusive to exclusive.
    pub(super) days: (Option<i64>, Option<i64>),
}

/// Reads the fences in the snapshot of `database`, which lasts until the connection ends.
pub(super) async fn take(
    database: &mut PgConnection,
    auditor: &Auditor,
    scope: &Scope,
) -> Result<Cut> {
    let row = sqlx::query(
        "select now()::text as taken_at, floor(extract(epoch from $1::timestamptz) / 86400)::bigint \
         as from_day, ceil(extract(epoch from $2::timestamptz) / 86400)::bigint as to_day",
    )
    .bind(&scope.from)
    .bind(&scope.to)
    .fetch_one(&mut *database)
    .await
    .context("--from and --to are times such as 2021-04-17 or 2021-04-17T12:00:00Z")?;
    let days: (Option<i64>, Option<i64>) = (row.try_get("from_day")?, row.try_get("to_day")?);
    let pipeline = auditor.config.pipeline.id.clone();
    let rows = sqlx::query(
        "select topic, partition, topic_id, coalesce(next_offset, 0) as next_offset, \
         coalesce(held_origin, -1) as held_origin from tapeline_fence where pipeline = $1",
    )
    .bind(&pipeline)
    .fetch_all(database)
    .await?;
    let mut fences = BTreeMap::new();
    for fence in rows {
        let place = (fence.try_get("topic")?, fence.try_get("partition")?);
        fences.insert(
            place,
            Fence {
                topic_id: fence.try_get("topic_id")?,
                next_offset: fence.try_get("next_offset")?,
                held_origin: fence.try_get("held_origin")?,
            },
        );
    }
    let day = |day: Option<i64>| day.map(super::counts::day_name);
    let taken_at = row.try_get("taken_at")?;
    let report = CutReport { taken_at, pipeline, from: day(days.0), to: day(days.1) };
    Ok(Cut { report, fences, marks: BTreeMap::new(), days })
}

impl Cut {
    /// The same with the marks of every topic, asked for after the snapshot.
    pub(super) async fn with_marks(mut self, auditor: &Auditor) -> Result<Cut> {
        let mut topics = Vec::new();
        for subject in &auditor.subjects {
            topics.push(subject.topic.clone());
            let raw = subject.raw.iter();
            topics
                .extend(raw.map(|(name, _)| Topic { name: name.clone(), ..subject.topic.clone() }));
        }
        self.marks = marks(&auditor.config.kafka, topics).await?;
        Ok(self)
    }

    pub(super) fn fence(&self, topic: &str, partition: i32) -> Option<&Fence> {
        self.fences.get(&(topic.to_owned(), partition))
    }

    pub(super) fn marks(&self, topic: &str, partition: i32) -> Marks {
        self.marks.get(&(topic.to_owned(), partition)).copied().unwrap_or_default()
    }

    pub(super) fn into_report(self) -> CutReport {
        self.report
    }
}

/// Marks of all partitions of `topics`.
pub(super) async fn marks(
    kafka: &KafkaSettings,
    topics: Vec<Topic>,
) -> Result<BTreeMap<(String, i32), Marks>> {
    let reader = LogEndReader::new(kafka, topics.clone())?;
    tokio::task::spawn_blocking(move || {
        let mut all = BTreeMap::new();
        for (number, topic) in topics.iter().enumerate() {
            for partition in 0..topic.partitions {
                let at = TopicPartition { topic: number as u16, partition };
                all.insert((topic.name.clone(), partition), reader.watermarks(at)?);
            }
        }
        Ok(all)
    })
    .await?
}
