//! Raw to checked: the one walk through the topics, which also shows the other checks what they
//! need of them.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use tapeline_schemas::{Kind, headers};
use tapeline_stages::candle::taken_before;
use tapeline_stages::flow::{Contract, Record, Topic, TopicPartition};

use super::cache::Cached;
use super::cut::{self, Cut};
use super::ledger::Sums;
use super::marks::{MARKED, Marks, Quarantined};
use super::report::Check;
use super::unsettled::Unsettled;
use super::{Auditor, Subject};
use crate::kafka::{OffsetRange, committed, dirty_topic, read_ranges};
use crate::schemas::Schemas;

/// Where groups stood before the snapshot, by topic and partition; 0 where they never committed.
#[derive(Debug, Default)]
pub(super) struct Positions {
    /// Records that `candles` has taken of trades, its longer tier of candles, and its reviser of
    /// dirty windows: what they made of them is in the topics.
    candles: BTreeMap<(String, i32), i64>,
    /// Records whose values the cache has shown.
    cache: BTreeMap<(String, i32), i64>,
}

impl Positions {
    pub(super) async fn read(auditor: &Auditor) -> Result<Positions> {
        let kafka = auditor.config.kafka.clone();
        let pipeline = auditor.config.pipeline.id.clone();
        let dirty = dirty_topic(&kafka.topic_prefix);
        let topics: Vec<Topic> =
            auditor.subjects.iter().map(|subject| subject.topic.clone()).collect();
        tokio::task::spawn_blocking(move || {
            let group = |stage: &str| format!("{pipeline}-{stage}");
            let read = |stage: &str, topic: &str, partitions| -> Result<Vec<_>> {
                let found = committed(&kafka, &group(stage), topic, partitions)?;
                let taken = |found: Option<(i64, String)>| {
                    found.map_or(0, |(offset, note)| taken_before(offset, &note))
                };
                let places = (0..).map(|partition| (topic.to_owned(), partition));
                Ok(places.zip(found.into_iter().map(taken)).collect())
            };
            let mut positions = Positions::default();
            for topic in &topics {
                if topic.kind.spec().redis.is_some() {
                    positions.cache.extend(read("cache", &topic.name, topic.partitions)?);
                }
                let stage = match topic.kind {
                    Kind::Trade => "candles",
                    Kind::Candle => "candles-longer",
                    _ => continue,
                };
                positions.candles.extend(read(stage, &topic.name, topic.partitions)?);
                if topic.kind == Kind::Candle {
                    positions.candles.extend(read("candles-reviser", &dirty, topic.partitions)?);
                }
            }
            Ok(positions)
        })
        .await?
    }
}

/// What the walk found in a partition.
#[derive(Debug, Clone, Default)]
pub(super) struct PartitionWalk {
    /// Origins before the first one that the checked topic still has.
    pub(super) retained_away: i64,
    /// Records that stand for an origin a second time.
    pub(super) repeated: i64,
    first: Option<i64>,
    held: Option<i64>,
    wrong: bool,
}

/// What the walk found.
pub(super) struct Walked {
    pub(super) raw_to_checked: Check,
    pub(super) partitions: BTreeMap<(String, i32), PartitionWalk>,
    pub(super) marks: Marks,
    pub(super) unsettled: Unsettled,
    pub(super) cached: Option<Cached>,
}

struct Walker<'w> {
    cut: &'w Cut,
    positions: &'w Positions,
    sums: &'w BTreeMap<(String, i32), Sums>,
    schemas: Schemas,
    found: Walked,
}

/// Walks through the topics.
pub(super) async fn walk(
    auditor: &Auditor,
    cut: Cut,
    positions: Positions,
    sums: BTreeMap<(String, i32), Sums>,
    cached: Option<Cached>,
) -> Result<(Cut, Walked)> {
    let prefix = auditor.config.kafka.topic_prefix.clone();
    let candles = auditor.subjects.iter().find(|subject| subject.kind == Kind::Candle);
    let candles = candles.context("candles are a kind")?.topic.clone();
    let dirty = Topic { name: dirty_topic(&prefix), ..candles.clone() };
    let quarantine = Topic { name: Kind::Quarantine.spec().topic(&prefix), ..candles };
    let others = vec![dirty.clone(), quarantine.clone()];
    let marks = cut::marks(&auditor.config.kafka, others).await?;
    let (kafka, subjects) = (auditor.config.kafka.clone(), auditor.subjects.clone());
    let wants_candles = auditor.wants(Kind::Candle);
    let schemas = Schemas::new(auditor.registry.clone());
    let ranges = move |topic: &Topic, from: &dyn Fn(i32) -> i64| {
        let range = |partition| {
            let (low, end) = marks[&(topic.name.clone(), partition)];
            OffsetRange { partition, from: from(partition).clamp(low, end), to: end }
        };
        (0..topic.partitions).map(range).collect::<Vec<_>>()
    };
    tokio::task::spawn_blocking(move || {
        let found = Walked {
            raw_to_checked: Check::new("raw_to_checked"),
            partitions: BTreeMap::new(),
            marks: Marks::default(),
            unsettled: Unsettled::default(),
            cached,
        };
        let mut walker = Walker { cut: &cut, positions: &positions, sums: &sums, schemas, found };
        let all = ranges(&quarantine, &|_| 0);
        let mut quarantined = Quarantined::new(&all);
        read_ranges(&kafka, &quarantine.name, 0, &all, &mut |record| {
            quarantined.take(record);
            Ok(())
        })?;
        walker.found.marks.quarantined = quarantined;
        if wants_candles {
            let place = |partition| (dirty.name.clone(), partition);
            let from = |partition| positions.candles.get(&place(partition)).copied().unwrap_or(0);
            let unsettled = &mut walker.found.unsettled;
            read_ranges(&kafka, &dirty.name, 0, &ranges(&dirty, &from), &mut |record| {
                unsettled.take_dirty(record)
            })?;
        }
        for subject in &subjects {
            let ranges = walker.ranges(subject, wants_candles);
            read_ranges(&kafka, &subject.topic.name, 0, &ranges, &mut |record| {
                walker.take(subject, wants_candles, record)
            })?;
            walker.end(subject);
        }
        let found = walker.found;
        Ok((cut, found))
    })
    .await?
}

impl Walker<'_> {
    /// Offset from which on a partition's candles may not be settled yet.
    fn unsettled_from(&self, topic: &str, partition: i32) -> i64 {
        let taken = self.positions.candles.get(&(topic.to_owned(), partition));
        let stored = self.cut.fence(topic, partition).map_or(0, |fence| fence.next_offset);
        taken.copied().unwrap_or(0).min(stored)
    }

    /// What has to be read of a topic.
    fn ranges(&self, subject: &Subject, wants_candles: bool) -> Vec<OffsetRange> {
        let topic = &subject.topic;
        let for_candles = wants_candles && matches!(subject.kind, Kind::Trade | Kind::Candle);
        let for_cache = subject.wanted && subject.kind.spec().redis.is_some();
        let range = |partition| {
            let (low, end) = self.cut.marks(&topic.name, partition);
            let mut range = OffsetRange { partition, from: end, to: low };
            let mut widen = |from: i64, to: i64| {
                range.from = range.from.min(from.max(low));
                range.to = range.to.max(to.min(end));
            };
            if subject.wanted && topic.contract == Contract::Checked {
                let cut = self.cut.fence(&topic.name, partition);
                widen(low, cut.map_or(low, |fence| fence.next_offset));
            }
            if for_candles {
                widen(self.unsettled_from(&topic.name, partition), end);
            }
            if for_cache && topic.contract == Contract::Checked {
                widen(low, end);
            } else if for_cache {
                let cached = self.found.cached.as_ref();
                widen(cached.map_or(end, |cached| cached.oldest(subject.kind, partition)), end);
            }
            range
        };
        (0..topic.partitions).map(range).collect()
    }

    fn take(&mut self, subject: &Subject, wants_candles: bool, record: &Record<'_>) -> Result<()> {
        let (topic, partition) = (&subject.topic, record.at.partition);
        let is_checked = topic.contract == Contract::Checked;
        let fence = self.cut.fence(&topic.name, partition);
        let is_below = fence.is_some_and(|fence| record.offset < fence.next_offset);
        if subject.wanted && is_checked && is_below {
            self.cover(subject, record);
        }
        if subject.wanted
            && let Some(cached) = &mut self.found.cached
        {
            let place = (topic.name.clone(), partition);
            let shown = self.positions.cache.get(&place).copied().unwrap_or(0);
            cached.take(topic, record, record.offset < shown, &self.schemas)?;
        }
        if wants_candles && record.offset >= self.unsettled_from(&topic.name, partition) {
            self.found.unsettled.take(subject.kind, record, &self.schemas)?;
        }
        Ok(())
    }

    /// Invariant 3: held + 1 counts, lower is a repetition, higher a hole.
    fn cover(&mut self, subject: &Subject, record: &Record<'_>) {
        let TopicPartition { partition, .. } = record.at;
        let place = (subject.topic.name.clone(), partition);
        let name = &subject.topic.name;
        let walk = self.found.partitions.entry(place.clone()).or_default();
        let check = &mut self.found.raw_to_checked;
        if walk.wrong {
            return; // the first offence of a partition makes nonsense of the rest
        }
        let Some(origin) = record.headers.number(headers::ORIGIN) else {
            walk.wrong = true;
            let offset = record.offset;
            check.wrong(|| format!("{name} [{partition}] offset {offset} has no origin"));
            return;
        };
        let first = record.headers.number(headers::ORIGIN_FIRST).unwrap_or(origin);
        match walk.held {
            None => {
                walk.first = Some(first);
                let (low, _) = self.cut.marks(name, partition);
                let raw =
                    subject.raw.as_ref().map_or(0, |(raw, _)| self.cut.marks(raw, partition).0);
                walk.retained_away = first;
                // The beginning of the checked topic is the beginning of what was there to check.
                if first > 0 && low == 0 && record.offset == 0 && raw < first {
                    walk.wrong = true;
                    check.wrong(|| {
                        format!("raw offsets {raw} to {} of {name} [{partition}] have no checked record", first - 1)
                    });
                }
            }
            Some(held) if origin <= held => {
                walk.repeated += 1;
                check.count("repeated", 1);
                return;
            }
            Some(held) if first != held + 1 => {
                walk.wrong = true;
                check.wrong(|| {
                    format!(
                        "raw offsets {} to {} of {name} [{partition}] have no checked record",
                        held + 1,
                        first - 1
                    )
                });
                return;
            }
            Some(_) => {}
        }
        walk.held = Some(origin);
        check.examined += origin - first + 1;
        let from = self.sums.get(&place).and_then(|sums| sums.from_offset);
        let outcome = record.headers.text(headers::OUTCOME);
        let marked = outcome.and_then(|outcome| MARKED.iter().position(|of| *of == outcome));
        if let Some(outcome) = marked {
            let raw = subject.raw.as_ref().map_or(name.as_str(), |(raw, _)| raw);
            let counts = from.is_some_and(|from| from <= record.offset);
            self.found.marks.take(&place, raw, outcome, (first, origin), record, counts);
        }
    }

    /// Holds the end of each partition against its fence.
    fn end(&mut self, subject: &Subject) {
        if !subject.wanted || subject.topic.contract != Contract::Checked {
            return;
        }
        let name = &subject.topic.name;
        for partition in 0..subject.topic.partitions {
            let Some(fence) = self.cut.fence(name, partition) else { continue };
            let walk = self.found.partitions.entry((name.clone(), partition)).or_default();
            let check = &mut self.found.raw_to_checked;
            let held = fence.held_origin;
            match walk.held {
                _ if walk.wrong => {}
                None => walk.retained_away = held + 1,
                Some(last) if last != held => check.wrong(|| {
                    format!("{name} [{partition}]: the checked topic holds raw offset {last} at the cut, the fence {held}")
                }),
                Some(_) => {}
            }
            check.count("retained_away", walk.retained_away);
            if let Some(cached) = &mut self.found.cached {
                cached.retained(subject.kind, partition, walk.first.unwrap_or(held + 1));
            }
        }
    }
}
