//! How far each stage is behind its topics, in records and in time.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};
use serde::Serialize;
use sqlx::Connection as _;
use tapeline_schemas::Micros;
use tapeline_stages::flow::Topic;

use crate::config::{Config, GroupProtocol};
use crate::kafka::{KafkaSettings, ends};
use crate::migrate;
use crate::wiring::{Context, StageGroup, StageName};

/// How long a question to the cluster may take.
const ASK: Duration = Duration::from_secs(10);
/// How long the first unread records of all partitions may take; what is later is left unsaid.
const READ: Duration = Duration::from_secs(10);

/// One partition's lag.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartitionLag {
    /// Topic that is read.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Next offset to read: the fence of `store`, the group's commit of the others. None: never
    /// committed, the stage begins at the oldest record.
    pub committed: Option<i64>,
    /// Oldest offset that the log holds.
    pub log_start: i64,
    /// Offset after the newest.
    pub log_end: i64,
    /// Records that are to be read.
    pub records: i64,
    /// Records that retention took before they were read.
    pub lost: i64,
    /// Age of the oldest record to be read, by the broker's time of it; 0 where there is none.
    /// None: it could not be read in time.
    pub seconds: Option<f64>,
}

/// One consumer group's lag.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupLag {
    /// Its name in metrics (`candles` has three).
    pub stage: String,
    /// The consumer group.
    pub group: String,
    /// Members now. None: not known, a group of the new protocol does not say.
    pub members: Option<usize>,
    /// Records of all partitions.
    pub records: i64,
    /// Largest age of all partitions.
    pub seconds: Option<f64>,
    /// Partitions that were never committed.
    pub never_committed: usize,
    /// Every partition.
    pub partitions: Vec<PartitionLag>,
}

/// Lag of the groups of `stages`, all where none is named, as of `now`.
pub async fn lag(context: &Context, stages: &[StageName], now: Micros) -> Result<Vec<GroupLag>> {
    let mut lags = Vec::new();
    for group in context.groups()? {
        if !stages.is_empty() && !stages.contains(&group.stage) {
            continue;
        }
        let fences = match group.stage {
            StageName::Store => Some(fences(context, &group.topics).await?),
            _ => None,
        };
        let (config, name) = (context.config.clone(), context.group(group.name));
        lags.push(
            tokio::task::spawn_blocking(move || group_lag(&config, group, name, fences, now))
                .await??,
        );
    }
    Ok(lags)
}

type Positions = HashMap<(String, i32), i64>;

/// Where the store stands: its fences, if they were made for the topics there are now.
async fn fences(context: &Context, topics: &[Topic]) -> Result<Positions> {
    let mut database = migrate::connect(&context.config.database.url).await?;
    let sql = "select topic, partition, topic_id, next_offset from tapeline_fence \
        where pipeline = $1 and next_offset is not null";
    let rows: Vec<(String, i32, String, i64)> = sqlx::query_as(sql)
        .bind(&context.config.pipeline.id)
        .fetch_all(&mut database)
        .await
        .context("fences of the store")?;
    database.close().await?;
    let is_ours = |name: &str, id: &str| {
        topics.iter().any(|topic| topic.name == name) && context.topic_id(name) == Some(id)
    };
    let rows = rows.into_iter().filter(|(topic, _, id, _)| is_ours(topic, id));
    Ok(rows.map(|(topic, partition, _, next)| ((topic, partition), next)).collect())
}

fn group_lag(
    config: &Config,
    stage: StageGroup,
    group: String,
    fences: Option<Positions>,
    now: Micros,
) -> Result<GroupLag> {
    let consumer: BaseConsumer = config.kafka.consumer(Some(&group)).create()?;
    let committed = match fences {
        Some(fences) => fences,
        None => committed(&consumer, &stage.topics)?,
    };
    let mut partitions = Vec::new();
    for topic in &stage.topics {
        for partition in 0..topic.partitions {
            let (log_start, log_end) = ends(&consumer, &topic.name, partition)?;
            let committed = committed.get(&(topic.name.clone(), partition)).copied();
            let next = committed.unwrap_or(log_start);
            partitions.push(PartitionLag {
                topic: topic.name.clone(),
                partition,
                committed,
                log_start,
                log_end,
                records: (log_end - next.max(log_start)).max(0),
                lost: (log_start - next).max(0),
                seconds: Some(0.0),
            });
        }
    }
    ages(&config.kafka, &mut partitions, now)?;
    let members = match config.group.protocol {
        GroupProtocol::Classic => Some(members(&consumer, &group)?),
        GroupProtocol::Consumer => None,
    };
    let oldest = |a: Option<f64>, b: Option<f64>| Some(a?.max(b?));
    Ok(GroupLag {
        stage: stage.name.to_owned(),
        group,
        members,
        records: partitions.iter().map(|p| p.records).sum(),
        seconds: partitions.iter().map(|p| p.seconds).fold(Some(0.0), oldest),
        never_committed: partitions.iter().filter(|p| p.committed.is_none()).count(),
        partitions,
    })
}

fn committed(consumer: &BaseConsumer, topics: &[Topic]) -> Result<Positions> {
    let mut list = TopicPartitionList::new();
    for topic in topics {
        list.add_partition_range(&topic.name, 0, topic.partitions - 1);
    }
    let committed = consumer.committed_offsets(list, ASK).context("committed offsets")?;
    let mut positions = HashMap::new();
    for element in committed.elements() {
        if let Offset::Offset(offset) = element.offset() {
            positions.insert((element.topic().to_owned(), element.partition()), offset);
        }
    }
    Ok(positions)
}

fn members(consumer: &BaseConsumer, group: &str) -> Result<usize> {
    let groups = consumer.fetch_group_list(Some(group), ASK).context("members of the group")?;
    Ok(groups.groups().iter().map(|group| group.members().len()).sum())
}

/// Reads the first unread record of each partition that has one.
fn ages(kafka: &KafkaSettings, partitions: &mut [PartitionLag], now: Micros) -> Result<()> {
    let mut list = TopicPartitionList::new();
    let mut wanted = HashMap::new();
    for (index, lag) in partitions.iter_mut().enumerate().filter(|(_, lag)| lag.records > 0) {
        let first = lag.log_end - lag.records;
        list.add_partition_offset(&lag.topic, lag.partition, Offset::Offset(first))?;
        wanted.insert((lag.topic.clone(), lag.partition), index);
        lag.seconds = None;
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let mut config = kafka.consumer(None);
    // One record of each is enough.
    config.set("queued.min.messages", "1").set("fetch.message.max.bytes", "65536");
    let consumer: BaseConsumer = config.create()?;
    consumer.assign(&list)?;
    let deadline = Instant::now() + READ;
    while !wanted.is_empty() && Instant::now() < deadline {
        let left = deadline.saturating_duration_since(Instant::now());
        let Some(Ok(message)) = consumer.poll(left) else { continue };
        let place = (message.topic().to_owned(), message.partition());
        if let Some(index) = wanted.remove(&place) {
            let millis = message.timestamp().to_millis().unwrap_or_default();
            let age = now.since(Micros::from_millis(millis)).max(0);
            partitions[index].seconds = Some(age as f64 / 1e6);
            let mut read = TopicPartitionList::new();
            read.add_partition(&place.0, place.1);
            consumer.pause(&read)?;
        }
    }
    Ok(())
}
