//! The last records of partitions: where `validate` goes on, and what a connector last covered.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers as _};
use rdkafka::{Message, Offset, TopicPartitionList};
use tapeline_schemas::{Control, Kind, Micros, headers};
use tapeline_stages::flow::{Resume, SinkError, Start, Topic, TopicPartition};

use super::KafkaSettings;

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
        let mut origins = HashMap::new();
        read_each(&consumer, &list, |message| {
            let place = (message.topic().to_owned(), message.partition());
            let Some(at) = wanted.remove(&place) else { return Ok(()) };
            let origin = origin(message).ok_or_else(|| {
                SinkError::Fatal(format!(
                    "{} [{}] offset {}: no {} header; only `validate` may write to a checked topic",
                    place.0,
                    place.1,
                    message.offset(),
                    headers::ORIGIN
                ))
            })?;
            let start = Start::At(origin + 1);
            resumes.push(Resume { at, start, held_origin: Some(origin) });
            origins.insert(at, (origin, Told::by(message)));
            Ok(())
        })?;
        self.check_raw(&consumer, &origins)?;
        Ok(resumes)
    }

    /// Refuses raw topics that are not those which the checked records were made from: a topic that
    /// was deleted and created again has offsets of its own, and going on behind the last origin
    /// would skip its first records. What retention took cannot be compared.
    fn check_raw(
        &self,
        consumer: &BaseConsumer,
        origins: &HashMap<TopicPartition, (i64, Told)>,
    ) -> Result<(), SinkError> {
        let mut list = TopicPartitionList::new();
        let mut wanted = HashMap::new();
        for (&at, (origin, told)) in origins {
            let name = &self.raw[at.topic as usize].name;
            let (low, high) = consumer.fetch_watermarks(name, at.partition, ASK).map_err(retry)?;
            if *origin >= high {
                return Err(self.recreated(at, *origin, &format!("ends at {high}")));
            }
            if *origin >= low && told.of_a_record {
                list.add_partition_offset(name, at.partition, Offset::Offset(*origin))
                    .map_err(retry)?;
                wanted.insert((name.clone(), at.partition), at);
            }
        }
        read_each(consumer, &list, |message| {
            let place = (message.topic().to_owned(), message.partition());
            let Some(at) = wanted.remove(&place) else { return Ok(()) };
            match origins.get(&at) {
                Some((origin, told)) if !told.agrees_with(*origin, message) => {
                    Err(self.recreated(at, *origin, "holds another record there"))
                }
                _ => Ok(()),
            }
        })
    }

    fn recreated(&self, at: TopicPartition, origin: i64, what: &str) -> SinkError {
        let (raw, checked) = (&self.raw[at.topic as usize].name, self.checked_name(at));
        SinkError::Fatal(format!(
            "topic {raw} was recreated or cut short: {checked} [{}] goes up to its offset {origin}, and it {what}. \
             Nothing was skipped or checked. Delete {checked} as well, run `tapeline topics create`, and give this \
             pipeline another name (pipeline.id), so that every stage begins anew",
            at.partition
        ))
    }
}

/// What a checked record says of its raw one.
struct Told {
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    is_marker: bool,
    /// What a control record announces: its key alone is that of many.
    through: Option<String>,
    /// Not where Kafka skipped offsets or retention took them.
    of_a_record: bool,
}

impl Told {
    fn by(message: &BorrowedMessage<'_>) -> Told {
        let outcome = header(message, headers::OUTCOME);
        let gone = [headers::outcome::SKIPPED, headers::outcome::LOST];
        Told {
            key: message.key().unwrap_or_default().to_vec(),
            value: message.payload().map(<[u8]>::to_vec),
            is_marker: outcome.is_some(),
            through: header(message, headers::THROUGH)
                .filter(|_| outcome == Some(headers::outcome::CONTROL))
                .map(str::to_owned),
            of_a_record: !outcome.is_some_and(|outcome| gone.contains(&outcome)),
        }
    }

    /// Keys and values are passed on unchanged; a marker has its record's key.
    fn agrees_with(&self, origin: i64, raw: &BorrowedMessage<'_>) -> bool {
        raw.offset() == origin
            && raw.key().unwrap_or_default() == self.key
            && (self.is_marker || raw.payload() == self.value.as_deref())
            && (self.through.is_none() || header(raw, headers::THROUGH) == self.through.as_deref())
    }
}

/// Shows the first record of each partition in `list` at its offset. Blocks.
fn read_each(
    consumer: &BaseConsumer,
    list: &TopicPartitionList,
    mut visit: impl FnMut(&BorrowedMessage<'_>) -> Result<(), SinkError>,
) -> Result<(), SinkError> {
    let mut wanted: HashSet<_> =
        list.elements().iter().map(|e| (e.topic().to_owned(), e.partition())).collect();
    consumer.assign(list).map_err(retry)?;
    let deadline = Instant::now() + READ;
    while !wanted.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(retry("not read in time"));
        }
        let Some(message) = consumer.poll(left) else { continue };
        let message = message.map_err(retry)?;
        if wanted.remove(&(message.topic().to_owned(), message.partition())) {
            visit(&message)?;
        }
    }
    Ok(())
}

/// Records looked through at the end of a partition. Every connector announces what is complete
/// once a second and the last record of many is such an announcement.
const TAIL_RECORDS: i64 = 20_000;

/// Up to where `venue` announced each of `kinds` complete; a kind that it never did is left out.
/// Announcements go to every partition, so one is enough to look at. Blocks.
pub fn last_covered(
    settings: &KafkaSettings,
    venue: &str,
    kinds: &[Kind],
) -> Result<BTreeMap<Kind, Micros>> {
    let consumer: BaseConsumer = settings.consumer(None).create().context("kafka consumer")?;
    let mut covered = BTreeMap::new();
    for &kind in kinds {
        let topic = kind.spec().raw_topic(&settings.topic_prefix);
        let (low, high) = consumer.fetch_watermarks(&topic, 0, ASK).context("ends")?;
        let first = low.max(high - TAIL_RECORDS);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic, 0, Offset::Offset(first))?;
        consumer.assign(&list)?;
        let mut next = first;
        while next < high {
            let message =
                consumer.poll(READ).context("the tail of a raw topic cannot be read")??;
            next = message.offset() + 1;
            if let Some(Control::Complete { venue: of, through }) = control(&message)
                && of == venue
            {
                covered.insert(kind, through);
            }
        }
    }
    Ok(covered)
}

fn control(message: &impl Message) -> Option<Control> {
    let headers = message.headers()?;
    let get = |name: &str| {
        let header = headers.iter().filter(|header| header.key == name).last()?;
        std::str::from_utf8(header.value?).ok()
    };
    Control::from_headers(get).ok()
}

fn header<'m>(message: &'m BorrowedMessage<'_>, name: &str) -> Option<&'m str> {
    let found = message.headers()?.iter().filter(|header| header.key == name).last()?;
    std::str::from_utf8(found.value?).ok()
}

fn origin(message: &BorrowedMessage<'_>) -> Option<i64> {
    header(message, headers::ORIGIN)?.parse().ok()
}
