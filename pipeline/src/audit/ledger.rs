//! Checked to stored: the ledger's ranges cover a partition from its beginning to its fence, each
//! offset and origin once, and each row's outcomes add up to its range.

use std::collections::BTreeMap;

use anyhow::Result;
use futures_util::TryStreamExt as _;
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use tapeline_schemas::Kind;
use tapeline_stages::flow::{Contract, Topic};
use tapeline_stages::store::Table;

use super::cut::{self, Cut, Fence, Marks};
use super::report::{Check, PartitionReport};
use super::{Auditor, Subject};
use crate::kafka::KafkaSettings;

/// What raw offsets can become, as the ledger's columns.
const OUTCOMES: [&str; 8] =
    ["stored", "duplicate", "conflict", "not_stored", "quarantined", "control", "skipped", "lost"];
const STORED: usize = 0;
/// Outcomes that validate's markers say too, in the order of [`super::marks::MARKED`].
const MARKED: [usize; 4] = [4, 5, 6, 7];

/// One row of the ledger.
#[derive(Debug, Clone)]
struct Range {
    first_offset: i64,
    last_offset: i64,
    first_origin: i64,
    last_origin: i64,
    counts: [i64; OUTCOMES.len()],
    /// Rows added, of all days.
    added: i64,
    topic_id: String,
}

/// What one partition's rows add up to.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sums {
    /// Whether the topic has markers of validate.
    pub(super) is_checked: bool,
    /// First offset of the rows that lie within what the checked topic still has.
    pub(super) from_offset: Option<i64>,
    /// Numbers of [`super::marks::MARKED`] outcomes in these rows.
    pub(super) marked: [i64; MARKED.len()],
}

/// The check, with what the next ones need.
pub(super) struct Judgement {
    pub(super) check: Check,
    pub(super) partitions: Vec<PartitionReport>,
    pub(super) sums: BTreeMap<(String, i32), Sums>,
}

/// Holds rows against each other, in the order of their offsets.
struct Walk {
    kind: Kind,
    /// Oldest offset that the topic, and oldest that its raw topic, still has.
    lows: (i64, i64),
    next_offset: i64,
    next_origin: i64,
    begun: bool,
    accounted: i64,
    before: i64,
    lost: i64,
}

impl Walk {
    fn new(kind: Kind, lows: (i64, i64)) -> Walk {
        let (next_offset, next_origin) = (0, 0);
        Walk {
            kind,
            lows,
            next_offset,
            next_origin,
            begun: false,
            accounted: 0,
            before: 0,
            lost: 0,
        }
    }

    /// Takes the next row; an error is what is wrong with it.
    fn take(&mut self, range: &Range) -> Result<(), String> {
        let words = if self.kind.spec().raw { "raw offsets" } else { "origins" };
        if !self.begun {
            self.begun = true;
            // What was retained away before the pipeline began was never promised.
            let cut = (1..=self.lows.0).contains(&range.first_offset);
            if cut {
                self.next_offset = range.first_offset;
            }
            let begins_later = range.first_origin > 0 && (range.first_origin <= self.lows.1 || cut);
            if begins_later {
                self.before = range.first_origin;
                self.next_origin = range.first_origin;
            }
        }
        if range.first_origin > self.next_origin {
            let (next, last) = (self.next_origin, range.first_origin - 1);
            return Err(format!("{words} {next} to {last} are in no batch"));
        }
        if range.first_origin < self.next_origin {
            return Err(format!("{words} from {} on are in two batches", range.first_origin));
        }
        if range.first_offset > self.next_offset {
            let (next, last) = (self.next_offset, range.first_offset - 1);
            return Err(format!("offsets {next} to {last} are in no batch"));
        }
        if range.first_offset < self.next_offset {
            return Err(format!("offsets from {} on are in two batches", range.first_offset));
        }
        let origins = range.last_origin - range.first_origin + 1;
        let outcomes = range.counts.iter().sum::<i64>();
        if outcomes != origins {
            return Err(format!(
                "the batch of {words} {} to {} has {outcomes} outcomes",
                range.first_origin, range.last_origin
            ));
        }
        let stored = range.counts[STORED];
        // Rows that replace another are stored and add none.
        let replaces = Table::of(self.kind).is_some_and(Table::replaces);
        if range.added > stored || (range.added < stored && !replaces) {
            return Err(format!(
                "the batch of {words} {} to {} stored {stored} and added {} rows by day",
                range.first_origin, range.last_origin, range.added
            ));
        }
        self.accounted += origins;
        self.lost += range.counts[OUTCOMES.len() - 1];
        (self.next_offset, self.next_origin) = (range.last_offset + 1, range.last_origin + 1);
        Ok(())
    }

    /// Holds the end against the fence.
    fn end(&self, fence: &Fence) -> Result<(), String> {
        let (offset, origin) = (fence.next_offset, fence.held_origin);
        if self.next_offset != offset {
            return Err(format!(
                "the ledger ends before offset {}, the fence stands at {offset}",
                self.next_offset
            ));
        }
        if self.begun && self.next_origin != origin + 1 {
            return Err(format!(
                "the ledger ends with origin {}, the fence holds {origin}",
                self.next_origin - 1
            ));
        }
        Ok(())
    }
}

fn query(pipeline: &str, topic: &str, partition: i32) -> (String, (String, String, i32)) {
    let sql = format!(
        "select first_offset, last_offset, first_origin, last_origin, topic_id, {}, \
         (select coalesce(sum(value::bigint), 0)::bigint from jsonb_each_text(by_day)) as added \
         from tapeline_ledger where pipeline = $1 and topic = $2 and partition = $3 \
         order by first_offset, id",
        OUTCOMES.join(", ")
    );
    (sql, (pipeline.to_owned(), topic.to_owned(), partition))
}

fn read(row: &PgRow) -> Result<Range, sqlx::Error> {
    let mut counts = [0; OUTCOMES.len()];
    for (count, name) in counts.iter_mut().zip(OUTCOMES) {
        *count = row.try_get(name)?;
    }
    Ok(Range {
        first_offset: row.try_get("first_offset")?,
        last_offset: row.try_get("last_offset")?,
        first_origin: row.try_get("first_origin")?,
        last_origin: row.try_get("last_origin")?,
        counts,
        added: row.try_get("added")?,
        topic_id: row.try_get("topic_id")?,
    })
}

/// Shows a partition's rows to `take` until it finds one wrong.
async fn walk(
    database: &mut PgConnection,
    pipeline: &str,
    (topic, partition): (&str, i32),
    mut take: impl FnMut(&Range) -> Result<(), String>,
) -> Result<Result<(), String>> {
    let (sql, (pipeline, topic, partition)) = query(pipeline, topic, partition);
    let query = sqlx::query(&sql).bind(pipeline).bind(topic).bind(partition);
    let mut rows = query.fetch(database);
    while let Some(row) = rows.try_next().await? {
        if let Err(wrong) = take(&read(&row)?) {
            return Ok(Err(wrong));
        }
    }
    Ok(Ok(()))
}

/// The check over every partition in scope.
pub(super) async fn judge(
    database: &mut PgConnection,
    auditor: &Auditor,
    cut: &Cut,
) -> Result<Judgement> {
    let mut judgement = Judgement {
        check: Check::new("checked_to_stored"),
        partitions: Vec::new(),
        sums: BTreeMap::new(),
    };
    for subject in auditor.wanted() {
        for partition in 0..subject.topic.partitions {
            judge_partition(database, auditor, cut, (subject, partition), &mut judgement).await?;
        }
    }
    Ok(judgement)
}

async fn judge_partition(
    database: &mut PgConnection,
    auditor: &Auditor,
    cut: &Cut,
    (subject, partition): (&Subject, i32),
    judgement: &mut Judgement,
) -> Result<()> {
    let name = &subject.topic.name;
    let marks = cut.marks(name, partition);
    let source = subject.raw.as_ref().map_or(name, |(raw, _)| raw);
    let raw = cut.marks(source, partition);
    let mut state = Walk::new(subject.kind, (marks.0, raw.0));
    let is_checked = subject.topic.contract == Contract::Checked;
    let mut sums = Sums { is_checked, ..Sums::default() };
    let fence = cut.fence(name, partition);
    let pipeline = &auditor.config.pipeline.id;
    let walked = walk(database, pipeline, (name, partition), |range| {
        let fence_id = fence.map(|fence| fence.topic_id.as_str());
        if fence_id != Some(&range.topic_id) {
            return Err(format!("a batch is of topic id {}, the fence is not", range.topic_id));
        }
        state.take(range)?;
        if range.first_offset >= marks.0 {
            sums.from_offset.get_or_insert(range.first_offset);
            for (sum, outcome) in sums.marked.iter_mut().zip(MARKED) {
                *sum += range.counts[outcome];
            }
        }
        Ok(())
    })
    .await?;
    let ended = walked.and_then(|()| match fence {
        None => Ok(()),
        Some(fence) if fence.topic_id != subject.topic_id => Err(format!(
            "the fence is of topic id {}, the topic's is {}: it was recreated",
            fence.topic_id, subject.topic_id
        )),
        Some(fence) => state.end(fence),
    });
    if let Err(wrong) = ended {
        judgement.check.wrong(|| format!("{name} [{partition}]: {wrong}"));
    }
    judgement.check.examined += state.accounted;
    judgement.check.count("accepted_as_lost", state.lost);
    judgement.sums.insert((name.clone(), partition), sums);
    judgement.partitions.push(PartitionReport {
        topic: name.clone(),
        partition,
        next_offset: fence.map_or(0, |fence| fence.next_offset),
        held_origin: fence.map_or(-1, |fence| fence.held_origin),
        accounted: state.accounted,
        lost: state.lost,
        retained_away: state.before,
        behind: behind(raw, state.next_origin),
        ..PartitionReport::default()
    });
    Ok(())
}

/// Offsets above the cut that the source still has.
fn behind((low, end): Marks, next_origin: i64) -> i64 {
    (end - next_origin.max(low)).max(0)
}

/// What the ledger alone says of the raw topics, up to their ends.
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

/// Holds the ledger of `pipeline` against the ends of the raw topics behind the checked `topics`:
/// the one part of the audit that is cheap enough to wait by.
pub async fn accounted(
    connection: &mut PgConnection,
    kafka: &KafkaSettings,
    pipeline: &str,
    topics: &[Topic],
) -> Result<Audit> {
    let mut audit = Audit::default();
    for topic in topics.iter().filter(|topic| topic.contract == Contract::Checked) {
        let raw = topic.kind.spec().raw_topic(&kafka.topic_prefix);
        let raw = Topic { name: raw, contract: Contract::Raw, ..topic.clone() };
        let marks = cut::marks(kafka, vec![topic.clone(), raw.clone()]).await?;
        let marks = |name: &str, partition| {
            marks.get(&(name.to_owned(), partition)).copied().unwrap_or_default()
        };
        for partition in 0..topic.partitions {
            let (low, end) = marks(&raw.name, partition);
            let mut state = Walk::new(topic.kind, (marks(&topic.name, partition).0, low));
            let walked = walk(connection, pipeline, (&topic.name, partition), |range| {
                for (name, count) in OUTCOMES.iter().zip(range.counts) {
                    *audit.outcomes.entry((*name).to_owned()).or_default() += count;
                }
                state.take(range)
            });
            let wrong = walked.await?.err().or_else(|| {
                let (next, last) = (state.next_origin, end - 1);
                (next < end).then(|| format!("raw offsets {next} to {last} are in no batch"))
            });
            audit.wrong.extend(wrong.map(|wrong| format!("{} [{partition}]: {wrong}", topic.name)));
            audit.raw_offsets += end;
            audit.accounted += state.accounted + state.before;
        }
    }
    Ok(audit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: i64, last: i64, stored: i64, quarantined: i64) -> Range {
        Range {
            first_offset: first,
            last_offset: last,
            first_origin: first,
            last_origin: last,
            counts: [stored, 0, 0, 0, quarantined, 0, 0, 0],
            added: stored,
            topic_id: String::new(),
        }
    }

    fn judged(ranges: &[Range]) -> (i64, Option<String>) {
        let mut walk = Walk::new(Kind::Trade, (0, 0));
        let fence = Fence { topic_id: String::new(), next_offset: 10, held_origin: 9 };
        let taken = ranges.iter().try_for_each(|range| walk.take(range));
        (walk.accounted, taken.and_then(|()| walk.end(&fence)).err())
    }

    #[test]
    fn a_hole_an_overlap_and_a_wrong_sum_are_each_named() {
        assert_eq!(judged(&[range(0, 4, 4, 1), range(5, 9, 5, 0)]), (10, None));
        let added = Range { added: 4, ..range(0, 9, 5, 5) };
        let repeats = Range { first_offset: 6, ..range(5, 9, 5, 0) };
        for (ranges, wrong) in [
            (vec![range(0, 4, 5, 0), range(6, 9, 4, 0)], "raw offsets 5 to 5 are in no batch"),
            (
                vec![range(0, 4, 5, 0), range(4, 9, 6, 0)],
                "raw offsets from 4 on are in two batches",
            ),
            (vec![range(0, 4, 5, 0), repeats], "offsets 5 to 5 are in no batch"),
            (vec![range(0, 9, 9, 0)], "the batch of raw offsets 0 to 9 has 9 outcomes"),
            (vec![added], "the batch of raw offsets 0 to 9 stored 5 and added 4 rows by day"),
            (vec![range(0, 4, 5, 0)], "the ledger ends before offset 5, the fence stands at 10"),
            (vec![range(3, 9, 7, 0)], "raw offsets 0 to 2 are in no batch"),
        ] {
            assert_eq!(judged(&ranges).1.as_deref(), Some(wrong));
        }
    }

    #[test]
    fn what_retention_took_before_the_beginning_is_no_hole() {
        let mut walk = Walk::new(Kind::Trade, (0, 3));
        let first = Range { first_offset: 0, last_offset: 6, ..range(3, 9, 7, 0) };
        assert_eq!(walk.take(&first), Ok(()));
        assert_eq!((walk.accounted, walk.before), (7, 3));
    }
}
