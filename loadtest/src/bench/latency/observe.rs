//! What can be seen from outside, and when.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};
use sqlx::{Connection as _, PgConnection};
use tapeline_schemas::{Candle, Kind, Record as _, Timeframe, partition_for, wire};
use tokio::task::JoinHandle;

use super::super::site::Site;
use super::{Latencies, Schedule, lock};

/// Between two looks at rows and at values: with the question's own time this is the error, and always upwards.
const LOOK: Duration = Duration::from_millis(2);
const LOOK_AT_VALUES: Duration = Duration::from_millis(1);
/// Symbols whose tickers are looked at, spread over busy and quiet ones.
const PROBED: usize = 16;

/// What every observer has.
#[derive(Clone)]
pub(super) struct Watch {
    /// The start that times are counted from.
    pub(super) began: Instant,
    /// When records were due.
    pub(super) schedule: Arc<Schedule>,
    /// Everything that was sent has been taken: one more look, then the end.
    pub(super) done: Arc<AtomicBool>,
}

impl Watch {
    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    fn ends(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
}

/// Sees rows: the fence moves in the transaction of the rows, so a session that sees it at an offset
/// sees the rows below. `checked` are the checked topics by kind.
pub(super) async fn rows(
    url: String,
    watch: Watch,
    checked: Vec<String>,
    mut latencies: Latencies,
) -> Result<Latencies> {
    let mut database = PgConnection::connect(&url).await?;
    let mut seen: Vec<Vec<usize>> =
        watch.schedule.offsets.iter().map(|partitions| vec![0; partitions.len()]).collect();
    loop {
        let last = watch.ends();
        let fences: Vec<(String, i32, i64)> = sqlx::query_as(
            "select topic, partition, held_origin + 1 from tapeline_fence \
             where topic = any($1) and held_origin is not null",
        )
        .bind(&checked)
        .fetch_all(&mut database)
        .await?;
        let now = watch.now();
        for (topic, partition, next) in fences {
            let Some(kind) = checked.iter().position(|name| *name == topic) else { continue };
            let seen = &mut seen[kind][partition as usize];
            let due = lock(&watch.schedule.offsets[kind][partition as usize]);
            for due in &due[*seen..next as usize] {
                latencies.saw(*due, now);
            }
            *seen = next as usize;
        }
        if last {
            return Ok(latencies);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Sees values: asks for the origin of the tickers of some symbols. An origin shows its own ticker
/// and those before it, which it has replaced.
pub(super) async fn values(
    url: String,
    watch: Watch,
    keys: Vec<String>,
    mut latencies: Latencies,
) -> Result<Latencies> {
    let client = redis::Client::open(url.as_str())?;
    let mut cache = client.get_multiplexed_async_connection().await?;
    let (prefix, _) = Kind::Ticker.spec().redis.context("tickers are not cached")?;
    let every = (keys.len() / PROBED).max(1);
    let symbols: Vec<usize> = (0..keys.len()).step_by(every).collect();
    let mut ask = redis::pipe();
    for symbol in &symbols {
        ask.hget(format!("{prefix}:{}", keys[*symbol]), "origin");
    }
    let mut seen = vec![0_usize; keys.len()];
    loop {
        let last = watch.ends();
        let origins: Vec<Option<i64>> = ask.query_async(&mut cache).await?;
        let now = watch.now();
        for (symbol, origin) in symbols.iter().zip(origins) {
            let Some(origin) = origin else { continue };
            let seen = &mut seen[*symbol];
            let due = lock(&watch.schedule.tickers[*symbol]);
            while let Some((offset, due)) = due.get(*seen)
                && *offset <= origin
            {
                latencies.saw(*due, now);
                *seen += 1;
            }
        }
        if last {
            return Ok(latencies);
        }
        tokio::time::sleep(LOOK_AT_VALUES).await;
    }
}

/// Sees candles: reads their topic. A candle is due with the trade that moved the watermark past its end.
pub(super) fn candles(
    site: &Site,
    watch: Watch,
    mut latencies: Latencies,
) -> Result<JoinHandle<Result<Latencies>>> {
    let topic = site.context.sink_topics([Kind::Candle])?.remove(0);
    let trades = watch.schedule.minutes.len() as i32;
    let consumer: BaseConsumer =
        site.config.kafka.consumer(None).create().context("kafka consumer")?;
    let mut list = TopicPartitionList::new();
    for partition in 0..topic.partitions {
        list.add_partition_offset(&topic.name, partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    Ok(tokio::task::spawn_blocking(move || {
        let mut minutes: Vec<VecDeque<_>> = vec![VecDeque::new(); trades as usize];
        let mut taken = vec![0_usize; trades as usize];
        while !watch.ends() {
            let Some(message) = consumer.poll(LOOK * 20) else { continue };
            let message = message?;
            let now = watch.now();
            // The operator's own notes have no value.
            let Some(value) = message.payload() else { continue };
            let (_, payload) = wire::split(value)?;
            let candle = Candle::decode(payload)?;
            if candle.timeframe != Timeframe::M1.name() || candle.revision > 0 {
                continue;
            }
            let partition = partition_for(message.key().unwrap_or_default(), trades) as usize;
            {
                let told = lock(&watch.schedule.minutes[partition]);
                minutes[partition].extend(&told[taken[partition]..]);
                taken[partition] = told.len();
            }
            // The first record whose watermark is at the end of the window or behind it.
            let closing =
                minutes[partition].iter().find(|(closed, _)| *closed >= candle.close_time);
            let (_, due) = closing.context("a candle came before its minute was over")?;
            latencies.saw(*due, now);
        }
        Ok(latencies)
    }))
}
