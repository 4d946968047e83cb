//! Whether every raw offset is accounted for (invariants 1 to 3): each is, exactly once, stored,
//! a duplicate, a conflict, not stored by its kind, in quarantine, a control record or skipped.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Serialize;
use sqlx::{PgConnection, Row};
use tapeline_stages::flow::{Contract, Topic, TopicPartition};

use crate::kafka::{KafkaSettings, LogEndReader};

/// What the ledger says of one raw partition, held against the log.
#[derive(Debug)]
struct PartitionAudit {
    /// Raw offsets that the ledger accounts for, without hole or overlap.
    accounted: i64,
    /// The first thing wrong, if any.
    wrong: Option<String>,
}

/// The whole audit.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Audit {
    /// Raw offsets of all partitions.
    pub raw_offsets: i64,
    /// Those accounted for.
    pub accounted: i64,
    /// Numbers of each outcome.
    pub outcomes: BTreeMap<String, i64>,
    /// The first thing wrong in each partition.
    pub wrong: Vec<String>,
}

impl Audit {
    /// Whether every raw offset is accounted for.
    pub fn ok(&self) -> bool {
        self.wrong.is_empty() && self.raw_offsets == self.accounted
    }
}

const OUTCOMES: [&str; 7] =
    ["stored", "duplicate", "conflict", "not_stored", "quarantined", "control", "skipped"];

/// Holds the ledger of `pipeline` against the ends of the raw topics behind the checked `topics`.
pub async fn accounted(
    connection: &mut PgConnection,
    kafka: &KafkaSettings,
    pipeline: &str,
    topics: &[Topic],
) -> Result<Audit> {
    let checked: Vec<_> =
        topics.iter().filter(|topic| topic.contract == Contract::Checked).cloned().collect();
    let mut audit = Audit::default();
    for topic in &checked {
        let ends = raw_ends(kafka, topic).await?;
        for (partition, end) in ends.into_iter().enumerate() {
            let partition = partition as i32;
            let spans = spans(connection, pipeline, &topic.name, partition).await?;
            let found = audit_partition(&topic.name, partition, end, &spans);
            audit.raw_offsets += end;
            audit.accounted += found.accounted;
            audit.wrong.extend(found.wrong);
            for span in &spans {
                for (name, count) in OUTCOMES.iter().zip(span.counts) {
                    *audit.outcomes.entry((*name).to_owned()).or_default() += count;
                }
            }
        }
    }
    Ok(audit)
}

async fn raw_ends(kafka: &KafkaSettings, checked: &Topic) -> Result<Vec<i64>> {
    let raw = Topic {
        name: checked.kind.spec().raw_topic(&kafka.topic_prefix),
        contract: Contract::Raw,
        ..checked.clone()
    };
    let reader = LogEndReader::new(kafka, vec![raw.clone()])?;
    tokio::task::spawn_blocking(move || {
        (0..raw.partitions)
            .map(|partition| Ok(reader.watermarks(TopicPartition { topic: 0, partition })?.1))
            .collect()
    })
    .await?
}

/// One row of the ledger.
struct LedgerSpan {
    first_origin: i64,
    last_origin: i64,
    counts: [i64; OUTCOMES.len()],
}

async fn spans(
    connection: &mut PgConnection,
    pipeline: &str,
    topic: &str,
    partition: i32,
) -> Result<Vec<LedgerSpan>> {
    let sql = format!(
        "select first_origin, last_origin, {} from tapeline_ledger \
         where pipeline = $1 and topic = $2 and partition = $3 and last_origin >= first_origin \
         order by first_origin",
        OUTCOMES.join(", ")
    );
    let rows =
        sqlx::query(&sql).bind(pipeline).bind(topic).bind(partition).fetch_all(connection).await?;
    rows.iter()
        .map(|row| {
            let mut counts = [0; OUTCOMES.len()];
            for (count, name) in counts.iter_mut().zip(OUTCOMES) {
                *count = row.try_get(name)?;
            }
            Ok(LedgerSpan {
                first_origin: row.try_get("first_origin")?,
                last_origin: row.try_get("last_origin")?,
                counts,
            })
        })
        .collect()
}

fn audit_partition(topic: &str, partition: i32, end: i64, spans: &[LedgerSpan]) -> PartitionAudit {
    let mut audit = PartitionAudit { accounted: 0, wrong: None };
    let mut next = 0;
    for span in spans {
        let wrong = if span.first_origin > next {
            format!("raw offsets {next} to {} are in no batch", span.first_origin - 1)
        } else if span.first_origin < next {
            format!("raw offset {} is in two batches", span.first_origin)
        } else if span.counts.iter().sum::<i64>() != span.last_origin - span.first_origin + 1 {
            format!(
                "the batch of raw offsets {} to {} has {} outcomes",
                span.first_origin,
                span.last_origin,
                span.counts.iter().sum::<i64>()
            )
        } else {
            audit.accounted += span.last_origin - span.first_origin + 1;
            next = span.last_origin + 1;
            continue;
        };
        audit.wrong = Some(format!("{topic} [{partition}]: {wrong}"));
        return audit;
    }
    if next != end {
        audit.wrong = Some(format!(
            "{topic} [{partition}]: raw offsets {next} to {} are in no batch",
            end - 1
        ));
    }
    audit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(first_origin: i64, last_origin: i64, stored: i64, quarantined: i64) -> LedgerSpan {
        LedgerSpan { first_origin, last_origin, counts: [stored, 0, 0, 0, quarantined, 0, 0] }
    }

    #[test]
    fn a_hole_an_overlap_and_a_wrong_sum_are_each_named() {
        let whole = audit_partition("t", 0, 10, &[span(0, 4, 4, 1), span(5, 9, 5, 0)]);
        assert_eq!((whole.accounted, whole.wrong), (10, None));
        for (spans, wrong) in [
            (vec![span(0, 4, 5, 0), span(6, 9, 4, 0)], "t [0]: raw offsets 5 to 5 are in no batch"),
            (vec![span(0, 4, 5, 0), span(4, 9, 6, 0)], "t [0]: raw offset 4 is in two batches"),
            (vec![span(0, 9, 9, 0)], "t [0]: the batch of raw offsets 0 to 9 has 9 outcomes"),
            (vec![span(0, 4, 5, 0)], "t [0]: raw offsets 5 to 9 are in no batch"),
        ] {
            assert_eq!(audit_partition("t", 0, 10, &spans).wrong.as_deref(), Some(wrong));
        }
    }
}
