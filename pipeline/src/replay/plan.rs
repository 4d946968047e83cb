//! What a replay reads: topics, and a range of offsets in each partition.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use rdkafka::consumer::BaseConsumer;
use serde::{Deserialize, Serialize};
use tapeline_schemas::{ALL_KINDS, Kind};
use tapeline_stages::flow::{Checkpoint, Contract, Topic, TopicPartition};
use tapeline_stages::sinks::TopicIdentity;

use super::{Place, Request, Target};
use crate::kafka::{Admin, KafkaSettings, Range, dirty_topic, ends, first_since};
use crate::wiring::STORED_KINDS;

/// One partition's part of a replay, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Topic.
    pub topic: String,
    /// Kafka's id of it: a recreated topic is noticed.
    pub topic_id: String,
    /// Partition.
    pub partition: i32,
    /// First offset.
    pub from: i64,
    /// Offset after the last one.
    pub to: i64,
    /// Next offset to read: everything before it is durable.
    pub next: i64,
    /// The stage's note.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Part {
    /// Number of offsets.
    pub fn count(&self) -> i64 {
        self.to - self.from
    }
}

/// Topics with the parts that are read of them.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) topics: Vec<Topic>,
    pub(super) parts: Vec<Part>,
}

impl Plan {
    pub(super) fn identities(&self) -> Vec<TopicIdentity> {
        let id = |topic: &Topic| self.parts.iter().find(|part| part.topic == topic.name);
        let identity = |topic: &Topic| TopicIdentity {
            name: topic.name.clone(),
            id: id(topic).map(|part| part.topic_id.clone()).unwrap_or_default(),
        };
        self.topics.iter().map(identity).collect()
    }

    fn place(&self, part: &Part) -> Option<TopicPartition> {
        let topic = self.topics.iter().position(|topic| topic.name == part.topic)?;
        Some(TopicPartition { topic: topic as u16, partition: part.partition })
    }

    /// As the consumer takes it: what is left of each part.
    pub(super) fn ranges(&self) -> Vec<Range> {
        let range = |part: &Part| {
            let at = self.place(part)?;
            let note = (!part.note.is_empty()).then(|| part.note.clone());
            Some(Range { at, from: part.next, to: part.to, note })
        };
        self.parts.iter().filter(|part| part.next < part.to).filter_map(range).collect()
    }

    /// Notes how far the parts have become durable.
    pub(super) fn advance(&mut self, durable: &BTreeMap<TopicPartition, Checkpoint>) {
        let places: Vec<_> = self.parts.iter().map(|part| self.place(part)).collect();
        for (part, at) in self.parts.iter_mut().zip(places) {
            if let Some(checkpoint) = at.and_then(|at| durable.get(&at)) {
                part.next = checkpoint.offset.clamp(part.from, part.to);
                part.note.clone_from(&checkpoint.note);
            }
        }
    }

    /// Every part was read to its end.
    pub(super) fn finish(&mut self) {
        self.parts.iter_mut().for_each(|part| part.next = part.to);
    }
}

/// The topic behind a kind's name or a full name, for this target. Which topics a target reads is
/// decided here: judgement is never repeated, but into a shadow (invariant 4).
fn topic(request: &Request, prefix: &str, wanted: &str) -> Result<Topic> {
    let reads_raw = request.revalidate || matches!(request.into, Target::Topic(_));
    let found = ALL_KINDS.iter().find_map(|spec| {
        let contract = if spec.raw { Contract::Checked } else { Contract::Plain };
        let is_named = wanted == spec.name;
        if spec.raw && (wanted == spec.raw_topic(prefix) || (is_named && reads_raw)) {
            return Some((spec, spec.raw_topic(prefix), Contract::Raw));
        }
        (is_named || wanted == spec.topic(prefix)).then(|| (spec, spec.topic(prefix), contract))
    });
    let Some((spec, name, contract)) = found else {
        let kinds: Vec<_> = ALL_KINDS.iter().map(|spec| spec.name).collect();
        bail!(
            "topic `{wanted}` is unknown: name a kind ({}) or one of the pipeline's topics ({prefix}trade, {prefix}trade.raw, …)",
            kinds.join(", ")
        );
    };
    match &request.into {
        Target::Store => ensure!(
            contract != Contract::Raw && STORED_KINDS.contains(&spec.kind),
            "{name} cannot be replayed into the store: name a checked topic of {}",
            STORED_KINDS.map(|kind| kind.spec().topic(prefix)).join(", ")
        ),
        Target::Shadow(_) => {
            ensure!(
                spec.raw,
                "{name} cannot be replayed into a shadow: name trade, ticker or book; candles, anomalies and gaps follow from them"
            );
            ensure!(
                request.revalidate == (contract == Contract::Raw),
                "{name}: a shadow reads checked topics, and raw ones with --revalidate alone"
            );
        }
        Target::Topic(target) => {
            ensure!(contract != Contract::Plain, "{name} has no raw records to publish again");
            ensure!(*target != name, "{name} cannot be replayed into itself");
        }
    }
    Ok(Topic { name, kind: spec.kind, contract, partitions: 0 })
}

/// The topics of a request as the cluster has them, and the range of each partition as of now.
/// Blocks.
pub(super) fn plan(request: &Request, settings: &KafkaSettings) -> Result<Plan> {
    let mut topics: Vec<Topic> = Vec::new();
    for wanted in &request.topics {
        let topic = topic(request, &settings.topic_prefix, wanted)?;
        if topics.iter().all(|known| known.name != topic.name) {
            topics.push(topic);
        }
    }
    ensure!(!topics.is_empty(), "no topic: name at least one with --topic");
    let plan = with_ranges(topics, request, settings)?;
    ensure!(
        plan.parts.iter().any(|part| part.count() > 0),
        "the range is empty: there is no record between {} and {} in {}",
        request.from,
        request.to,
        request.topics.join(", ")
    );
    Ok(plan)
}

/// The plan that saved parts are of; refuses topics that are not what they were. Blocks.
pub(super) fn again(parts: Vec<Part>, prefixes: &[&str], settings: &KafkaSettings) -> Result<Plan> {
    let mut topics: Vec<Topic> = Vec::new();
    for part in &parts {
        if topics.iter().all(|topic| topic.name != part.topic) {
            let topic = prefixes.iter().find_map(|prefix| known(&part.topic, prefix));
            let topic = topic.with_context(|| format!("topic {} is unknown", part.topic))?;
            topics.push(topic);
        }
    }
    let names: Vec<_> = topics.iter().map(|topic| topic.name.as_str()).collect();
    let states = Admin::new(settings)?.describe(&names)?;
    for topic in &mut topics {
        let state = states.get(&topic.name);
        let state = state.with_context(|| format!("topic {} does not exist", topic.name))?;
        topic.partitions = state.partitions;
        ensure!(
            parts.iter().all(|part| part.topic != topic.name || part.topic_id == state.id),
            "topic {} was recreated since the replay began: its offsets mean other records now. Begin a new replay",
            topic.name
        );
    }
    Ok(Plan { topics, parts })
}

fn known(name: &str, prefix: &str) -> Option<Topic> {
    let topic = |kind, contract| Topic { name: name.to_owned(), kind, contract, partitions: 0 };
    if name == dirty_topic(prefix) {
        return Some(topic(Kind::Candle, Contract::Plain));
    }
    ALL_KINDS.iter().find_map(|spec| match spec.raw {
        true if name == spec.raw_topic(prefix) => Some(topic(spec.kind, Contract::Raw)),
        true if name == spec.topic(prefix) => Some(topic(spec.kind, Contract::Checked)),
        false if name == spec.topic(prefix) => Some(topic(spec.kind, Contract::Plain)),
        _ => None,
    })
}

/// All that scratch topics of our own hold now. Blocks.
pub(super) fn whole(topics: Vec<Topic>, settings: &KafkaSettings) -> Result<Plan> {
    with_ranges(topics, &Request::new(&[], Target::Store), settings)
}

fn with_ranges(
    mut topics: Vec<Topic>,
    request: &Request,
    settings: &KafkaSettings,
) -> Result<Plan> {
    let names: Vec<_> = topics.iter().map(|topic| topic.name.as_str()).collect();
    let states = Admin::new(settings)?.describe(&names)?;
    let consumer: BaseConsumer = settings.consumer(None).create().context("kafka consumer")?;
    let mut parts = Vec::new();
    for topic in &mut topics {
        let state = states.get(&topic.name);
        let state = state.with_context(|| format!("topic {} does not exist", topic.name))?;
        topic.partitions = state.partitions;
        for &partition in &request.partitions {
            ensure!(
                (0..state.partitions).contains(&partition),
                "{} has no partition {partition}: it has 0 to {}",
                topic.name,
                state.partitions - 1
            );
        }
        for partition in 0..state.partitions {
            if request.partitions.is_empty() || request.partitions.contains(&partition) {
                let (from, to) = range(&consumer, &topic.name, partition, request)?;
                let (topic, topic_id) = (topic.name.clone(), state.id.clone());
                let note = String::new();
                parts.push(Part { topic, topic_id, partition, from, to, next: from, note });
            }
        }
    }
    Ok(Plan { topics, parts })
}

/// Records that a topic holds. Blocks.
pub(super) fn held(settings: &KafkaSettings, topic: &str, partitions: i32) -> Result<i64> {
    let consumer: BaseConsumer = settings.consumer(None).create().context("kafka consumer")?;
    (0..partitions).try_fold(0, |held, partition| {
        let (low, high) = ends(&consumer, topic, partition)?;
        Ok(held + high - low)
    })
}

fn range(
    consumer: &BaseConsumer,
    topic: &str,
    partition: i32,
    request: &Request,
) -> Result<(i64, i64)> {
    let (low, high) = ends(consumer, topic, partition)?;
    let offset = |place: Place| match place {
        Place::Beginning => Ok(low),
        Place::End => Ok(high),
        Place::BeforeEnd(count) => Ok(high.saturating_sub(count).max(low)),
        Place::At(offset) => {
            ensure!(
                (low..=high).contains(&offset),
                "{topic} [{partition}] offset {offset} is not in the log, which holds {low}..{high}; \
                 choose others, or partitions with --partition"
            );
            Ok(offset)
        }
        Place::Appended(millis) => appended(consumer, topic, partition, millis)
            .map(|offset| offset.map_or(high, |offset| offset.clamp(low, high))),
    };
    let (from, to) = (offset(request.from)?, offset(request.to)?);
    ensure!(
        from <= to,
        "{topic} [{partition}]: the range begins at offset {from} ({}) and ends before it, at {to} ({})",
        request.from,
        request.to
    );
    Ok((from, to))
}

/// First offset appended at `millis` or later; none where there is none.
fn appended(
    consumer: &BaseConsumer,
    topic: &str,
    partition: i32,
    millis: i64,
) -> Result<Option<i64>> {
    let found = first_since(consumer, topic, [partition], millis)?;
    Ok(found.first().and_then(|(_, offset)| *offset))
}
