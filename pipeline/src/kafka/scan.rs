//! Reading whole topics and groups' positions, for reports.

use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};
use tapeline_stages::flow::Topic;

use super::KafkaSettings;

const ASK: Duration = Duration::from_secs(10);
const READ: Duration = Duration::from_secs(30);

/// Shows every record that `topic` holds now to `visit`, partition by partition. Blocks.
pub fn scan(
    settings: &KafkaSettings,
    topic: &Topic,
    mut visit: impl FnMut(&BorrowedMessage<'_>),
) -> Result<()> {
    let consumer: BaseConsumer = settings.consumer(None).create().context("kafka consumer")?;
    for partition in 0..topic.partitions {
        let (low, high) = consumer.fetch_watermarks(&topic.name, partition, ASK)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic.name, partition, Offset::Offset(low))?;
        consumer.assign(&list)?;
        let mut next = low;
        while next < high {
            let message = consumer.poll(READ);
            let message = message
                .with_context(|| format!("{} [{partition}] cannot be read", topic.name))??;
            next = message.offset() + 1;
            visit(&message);
        }
    }
    Ok(())
}

/// Records of `topics` that `group` has not committed yet. Blocks.
pub fn lag(settings: &KafkaSettings, group: &str, topics: &[Topic]) -> Result<i64> {
    let consumer: BaseConsumer =
        settings.consumer(Some(group)).create().context("kafka consumer")?;
    let mut list = TopicPartitionList::new();
    for topic in topics {
        list.add_partition_range(&topic.name, 0, topic.partitions - 1);
    }
    let committed = consumer.committed_offsets(list, ASK).context("committed offsets")?;
    let mut lag = 0;
    for element in committed.elements() {
        let (low, high) = consumer.fetch_watermarks(element.topic(), element.partition(), ASK)?;
        let position = match element.offset() {
            Offset::Offset(offset) => offset,
            _ => low,
        };
        lag += high - position;
    }
    Ok(lag)
}
