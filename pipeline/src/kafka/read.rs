//! Reading ranges of topics and the positions of groups, for whoever checks them afterwards.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientContext, Message, Offset, Timestamp, TopicPartitionList};
use tapeline_schemas::Micros;
use tapeline_stages::flow::{Chunk, Record, TopicPartition};

use super::KafkaSettings;
use super::ends::answered;
use super::headers::RawHeaders;

const ASK: Duration = Duration::from_secs(10);
const READ: Duration = Duration::from_secs(30);

/// The library logs every error of a client, and takes the end of a partition for one.
pub(crate) struct EndIsNoError;

impl ClientContext for EndIsNoError {
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            tracing::warn!(%error, reason, "kafka");
        }
    }
}

impl ConsumerContext for EndIsNoError {}

/// Offsets `from..to` of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetRange {
    /// The partition.
    pub partition: i32,
    /// First offset.
    pub from: i64,
    /// Offset after the last one.
    pub to: i64,
}

/// Shows the records of `ranges` to `visit`, in order within each partition; what retention has
/// taken meanwhile is left out. `number` is the topic's in [`TopicPartition`]. Blocks.
pub fn read_ranges(
    settings: &KafkaSettings,
    topic: &str,
    number: u16,
    ranges: &[OffsetRange],
    visit: &mut dyn FnMut(&Record<'_>) -> Result<()>,
) -> Result<()> {
    let mut config = settings.consumer(None);
    config.set("enable.partition.eof", "true").set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer<EndIsNoError> =
        config.create_with_context(EndIsNoError).context("kafka consumer")?;
    let mut list = TopicPartitionList::new();
    let mut ends = HashMap::new();
    for range in ranges.iter().filter(|range| range.from < range.to) {
        list.add_partition_offset(topic, range.partition, Offset::Offset(range.from))?;
        ends.insert(range.partition, range.to);
    }
    consumer.assign(&list)?;
    while !ends.is_empty() {
        let polled = consumer.poll(READ).with_context(|| format!("{topic} cannot be read"))?;
        let message = match polled {
            Ok(message) => message,
            // A range that ends with what Kafka does not deliver.
            Err(KafkaError::PartitionEOF(partition)) => {
                ends.remove(&partition);
                continue;
            }
            Err(error) => return Err(error).with_context(|| format!("{topic} cannot be read")),
        };
        let partition = message.partition();
        let Some(&end) = ends.get(&partition) else { continue };
        if message.offset() < end {
            let time = match message.timestamp() {
                Timestamp::CreateTime(millis) | Timestamp::LogAppendTime(millis) => {
                    Micros::from_millis(millis)
                }
                Timestamp::NotAvailable => Micros(0),
            };
            let mut chunk = Chunk::new(TopicPartition { topic: number, partition });
            let headers = RawHeaders::of(&message);
            chunk.push(message.offset(), time, message.key(), message.payload(), headers);
            visit(&chunk.record(0))?;
        }
        if message.offset() + 1 >= end {
            ends.remove(&partition);
        }
    }
    Ok(())
}

/// Where `group` committed in each partition of `topic`, with the note it left. Blocks.
pub fn committed(
    settings: &KafkaSettings,
    group: &str,
    topic: &str,
    partitions: i32,
) -> Result<Vec<Option<(i64, String)>>> {
    let consumer: BaseConsumer =
        settings.consumer(Some(group)).create().context("kafka consumer")?;
    let mut list = TopicPartitionList::new();
    list.add_partition_range(topic, 0, partitions - 1);
    let committed = answered(|| consumer.committed_offsets(list.clone(), ASK));
    let committed = committed.with_context(|| format!("committed offsets of {group}"))?;
    let mut found = vec![None; usize::try_from(partitions)?];
    for element in committed.elements() {
        if let Offset::Offset(offset) = element.offset() {
            let note = element.metadata().to_owned();
            found[usize::try_from(element.partition())?] = Some((offset, note));
        }
    }
    Ok(found)
}

/// Leaves `note` with a commit of `group`, which has no members, to partition 0 of `topic`. Blocks.
pub fn commit_note(settings: &KafkaSettings, group: &str, topic: &str, note: &str) -> Result<()> {
    let consumer: BaseConsumer =
        settings.consumer(Some(group)).create().context("kafka consumer")?;
    let mut list = TopicPartitionList::new();
    let mut element = list.add_partition(topic, 0);
    element.set_metadata(note);
    element.set_offset(Offset::Offset(0))?;
    consumer.commit(&list, CommitMode::Sync).with_context(|| format!("commit of group {group}"))
}
