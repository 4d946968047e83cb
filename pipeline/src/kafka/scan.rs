//! Reading whole topics and groups' positions, for reports.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};
use tapeline_schemas::Micros;
use tapeline_stages::flow::Topic;

use super::KafkaSettings;
use super::ends::{ends, first_since};

const ASK: Duration = Duration::from_secs(10);
const READ: Duration = Duration::from_secs(30);

/// Shows every record that `topic` holds now to `visit`, in order within each partition. Blocks.
pub fn scan(
    settings: &KafkaSettings,
    topic: &Topic,
    visit: impl FnMut(&BorrowedMessage<'_>),
) -> Result<()> {
    scan_since(settings, topic, Micros(0), visit)
}

/// The same, from the first record that was appended at `since` or later.
pub fn scan_since(
    settings: &KafkaSettings,
    topic: &Topic,
    since: Micros,
    mut visit: impl FnMut(&BorrowedMessage<'_>),
) -> Result<()> {
    let consumer: BaseConsumer = settings.consumer(None).create().context("kafka consumer")?;
    // All partitions at once: each new assignment costs the consumer a wait of its own.
    let mut list = TopicPartitionList::new();
    let mut unread = HashMap::new();
    let firsts = firsts(&consumer, topic, since)?;
    for partition in 0..topic.partitions {
        let (low, high) = ends(&consumer, &topic.name, partition)?;
        let first = firsts.get(&partition).map_or(low, |first| low.max(*first));
        if first < high {
            list.add_partition_offset(&topic.name, partition, Offset::Offset(first))?;
            unread.insert(partition, high);
        }
    }
    consumer.assign(&list)?;
    while !unread.is_empty() {
        let message = consumer.poll(READ);
        let message = message.with_context(|| format!("{} cannot be read", topic.name))??;
        let Some(&end) = unread.get(&message.partition()) else { continue };
        if message.offset() < end {
            visit(&message);
        }
        if message.offset() + 1 >= end {
            unread.remove(&message.partition());
        }
    }
    Ok(())
}

/// The first offset of each partition that is not older than `since`; none for all of them.
fn firsts(consumer: &BaseConsumer, topic: &Topic, since: Micros) -> Result<HashMap<i32, i64>> {
    if since.0 <= 0 {
        return Ok(HashMap::new());
    }
    let found = first_since(consumer, &topic.name, 0..topic.partitions, since.0 / 1_000)?;
    Ok(found.into_iter().map(|(partition, first)| (partition, first.unwrap_or(i64::MAX))).collect())
}

/// How far a group is behind its topics.
pub struct GroupLag {
    consumer: BaseConsumer,
    partitions: TopicPartitionList,
}

impl GroupLag {
    /// For `group` over `topics`.
    pub fn new(settings: &KafkaSettings, group: &str, topics: &[Topic]) -> Result<GroupLag> {
        let consumer = settings.consumer(Some(group)).create().context("kafka consumer")?;
        let mut partitions = TopicPartitionList::new();
        for topic in topics {
            partitions.add_partition_range(&topic.name, 0, topic.partitions - 1);
        }
        Ok(GroupLag { consumer, partitions })
    }

    /// Records that the group has not committed yet. Blocks.
    pub fn records(&self) -> Result<i64> {
        let committed = self.consumer.committed_offsets(self.partitions.clone(), ASK);
        let mut lag = 0;
        for element in committed.context("committed offsets")?.elements() {
            let (topic, partition) = (element.topic(), element.partition());
            let (low, high) = ends(&self.consumer, topic, partition)?;
            lag += match element.offset() {
                Offset::Offset(offset) => high - offset,
                _ => high - low,
            };
        }
        Ok(lag)
    }
}
