//! From publishing to the visible row: the broker's append time of the raw record against the
//! time of the transaction that holds its row, both by this machine's clock.

use std::collections::HashMap;

use anyhow::Result;
use rdkafka::Message;
use sqlx::{PgConnection, Row};
use tapeline_schemas::Kind;

use crate::kafka::scan;
use crate::wiring::Context;

/// Milliseconds at the median and at the 99th percentile.
#[derive(Debug, Clone, Copy, Default, serde::Serialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p99: f64,
}

/// Measures every stored event.
pub(super) async fn measure(context: &Context, database: &mut PgConnection) -> Result<Latency> {
    let appended = appended(context).await?;
    let rows = sqlx::query(
        "select topic, partition, first_origin, last_origin, \
         (extract(epoch from written_at) * 1000000)::bigint as written from tapeline_ledger \
         where pipeline = $1 and stored > 0",
    )
    .bind(&context.config.pipeline.id)
    .fetch_all(database)
    .await?;
    let mut micros = Vec::new();
    for row in rows {
        let (topic, partition): (String, i32) = (row.try_get("topic")?, row.try_get("partition")?);
        let Some(times) = appended.get(&(topic, partition)) else { continue };
        let (first, last): (i64, i64) = (row.try_get("first_origin")?, row.try_get("last_origin")?);
        let written: i64 = row.try_get("written")?;
        let events = times.iter().filter(|(offset, _)| (first..=last).contains(offset));
        micros.extend(events.map(|(_, millis)| written - millis * 1_000));
    }
    micros.sort_unstable();
    let quantile = |part: usize| match micros.len() {
        0 => 0.0,
        count => micros[(count - 1) * part / 100] as f64 / 1_000.0,
    };
    Ok(Latency { p50: quantile(50), p99: quantile(99) })
}

type AppendTimes = HashMap<(String, i32), Vec<(i64, i64)>>;

/// Append times of raw events, by checked topic and partition.
async fn appended(context: &Context) -> Result<AppendTimes> {
    let (kafka, topics) = (context.config.kafka.clone(), context.raw_topics()?);
    tokio::task::spawn_blocking(move || {
        let mut times = AppendTimes::new();
        for topic in &topics {
            let checked = Kind::spec(topic.kind).topic(&kafka.topic_prefix);
            scan(&kafka, topic, |message| {
                if message.payload().is_some()
                    && let Some(millis) = message.timestamp().to_millis()
                {
                    let place = (checked.clone(), message.partition());
                    times.entry(place).or_default().push((message.offset(), millis));
                }
            })?;
        }
        Ok(times)
    })
    .await?
}
