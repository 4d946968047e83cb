//! The last records of partitions: where `validate` goes on, and what a connector last covered.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers as _;
use rdkafka::{Message, Offset, TopicPartitionList};
use tapeline_schemas::{Control, GapChange, Kind, Micros, headers, partition_for};
use tapeline_stages::flow::{Resume, SinkError, Start, Topic, TopicPartition};

use super::KafkaSettings;
use super::ends::ends;

/// How long a question to the cluster, and reading all tails, may take.
const ASK: Duration = Duration::from_secs(10);
const READ: Duration = Duration::from_secs(30);

/// Reads the last origin of each partition of the checked topics.
#[derive(Debug, Clone)]
pub struct CheckedTail {
    settings: KafkaSettings,
    /// Raw topics, by [`TopicPartition::topic`].
    raw: Vec<Topic>,
}

fn retry(error: impl std::fmt::Display) -> SinkError {
    SinkError::Retry(format!("tail of the checked topic: {error}"))
}

impl CheckedTail {
    /// For a stage that reads `raw`.
    pub fn new(settings: KafkaSettings, raw: Vec<Topic>) -> CheckedTail {
        CheckedTail { settings, raw }
    }

    fn checked_name(&self, at: TopicPartition) -> String {
        self.raw[at.topic as usize].kind.spec().topic(&self.settings.topic_prefix)
    }

    /// Where each of the raw `partitions` goes on. Blocks.
    pub fn read(&self, partitions: &[TopicPartition]) -> Result<Vec<Resume>, SinkError> {
        let consumer: BaseConsumer = self.settings.consumer(None).create().map_err(retry)?;
        let mut resumes = Vec::new();
        let mut wanted = HashMap::new();
        let mut list = TopicPartitionList::new();
        for &at in partitions {
            let name = self.checked_name(at);
            let (low, high) = consumer.fetch_watermarks(&name, at.partition, ASK).map_err(retry)?;
            if high == 0 {
                resumes.push(Resume { at, start: Start::Beginning, held_origin: None });
            } else if low == high {
                // Retention emptied it: the group's commit is the best there is.
                resumes.push(Resume { at, start: Start::Committed, held_origin: None });
            } else {
                list.add_partition_offset(&name, at.partition, Offset::Offset(high - 1))
                    .map_err(retry)?;
                wanted.insert((name, at.partition), at);
            }
        }
        consumer.assign(&list).map_err(retry)?;
        let deadline = Instant::now() + READ;
        while !wanted.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(retry("not read in time"));
            }
            let Some(message) = consumer.poll(left) else { continue };
            let message = message.map_err(retry)?;
            let place = (message.topic().to_owned(), message.partition());
            if let Some(at) = wanted.remove(&place) {
                let origin = origin(&message).ok_or_else(|| {
                    SinkError::Fatal(format!(
                        "{} [{}] offset {}: no {} header; only `validate` may write to a checked topic",
                        place.0, place.1, message.offset(), headers::ORIGIN
                    ))
                })?;
                let start = Start::At(origin + 1);
                resumes.push(Resume { at, start, held_origin: Some(origin) });
            }
        }
        Ok(resumes)
    }
}

/// Records looked through at the end of a partition. Every connector announces what is complete
/// once a second and the last record of many is such an announcement.
const TAIL_RECORDS: i64 = 20_000;

/// Up to where `writer` announced each of `kinds` of `venue` complete; a kind that it never did is left out. What
/// another writer announced says nothing of this one's symbols, except that all before it is unknown: where only
/// others announced anything, the oldest of it counts. Announcements go to every partition, so one is enough to look
/// at. Blocks.
pub fn last_covered(
    settings: &KafkaSettings,
    venue: &str,
    kinds: &[Kind],
    writer: &str,
) -> Result<BTreeMap<Kind, Micros>> {
    let consumer: BaseConsumer = settings.consumer(None).create().context("kafka consumer")?;
    let mut covered = BTreeMap::new();
    for &kind in kinds {
        let topic = kind.spec().raw_topic(&settings.topic_prefix);
        let (low, high) = ends(&consumer, &topic, 0)?;
        let first = low.max(high - TAIL_RECORDS);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic, 0, Offset::Offset(first))?;
        consumer.assign(&list)?;
        let (mut next, mut own, mut others) = (first, None, None);
        while next < high {
            let message =
                consumer.poll(READ).context("the tail of a raw topic cannot be read")??;
            next = message.offset() + 1;
            if let Some(Control::Complete { venue: of, through }) = control(&message)
                && of == venue
            {
                // One that was alone did not sign.
                if header(&message, headers::WRITER).is_none_or(|by| by == writer) {
                    own = Some(through);
                } else {
                    others.get_or_insert(through);
                }
            }
        }
        covered.extend(own.or(others).map(|through| (kind, through)));
    }
    Ok(covered)
}

/// What the tail of each partition that has one of the `symbols` of `venue` says of its holes, in order within each of the
/// raw `topics`: the store may not have told of them yet. What is further back while the store is that far behind, or away,
/// stays open until the next connector starts. Blocks.
pub fn last_gaps(
    settings: &KafkaSettings,
    venue: &str,
    topics: &[Topic],
    symbols: &[String],
) -> Result<Vec<GapChange>> {
    let consumer: BaseConsumer = settings.consumer(None).create().context("kafka consumer")?;
    let mut changes = Vec::new();
    for topic in topics {
        let mut unread = HashMap::new();
        let mut list = TopicPartitionList::new();
        for symbol in symbols {
            let key = format!("{venue}:{}", symbol.to_ascii_uppercase());
            let partition = partition_for(key.as_bytes(), topic.partitions);
            if unread.contains_key(&partition) {
                continue;
            }
            let (low, high) = ends(&consumer, &topic.name, partition)?;
            let first = low.max(high - TAIL_RECORDS);
            unread.insert(partition, high);
            if first < high {
                list.add_partition_offset(&topic.name, partition, Offset::Offset(first))?;
            }
        }
        unread.retain(|partition, _| list.find_partition(&topic.name, *partition).is_some());
        if !unread.is_empty() {
            consumer.assign(&list)?;
        }
        while !unread.is_empty() {
            let message =
                consumer.poll(READ).context("the tail of a raw topic cannot be read")??;
            if message.topic() != topic.name {
                continue;
            }
            if unread.get(&message.partition()).is_some_and(|end| message.offset() + 1 >= *end) {
                unread.remove(&message.partition());
            }
            if let Some(Control::Gap(gap)) = control(&message)
                && gap.venue == venue
            {
                changes.push(gap);
            }
        }
    }
    Ok(changes)
}

fn control(message: &impl Message) -> Option<Control> {
    Control::from_headers(|name| header(message, name)).ok()
}

fn origin(message: &impl Message) -> Option<i64> {
    header(message, headers::ORIGIN)?.parse().ok()
}

fn header<'m>(message: &'m impl Message, name: &str) -> Option<&'m str> {
    let found = message.headers()?.iter().filter(|header| header.key == name).last()?;
    std::str::from_utf8(found.value?).ok()
}
