//! Whether the database has all that Redis may have shown: the store's fences against the log's ends.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use sqlx::PgConnection;
use tapeline_stages::flow::{Topic, TopicPartition};
use tapeline_stages::sinks::TopicIdentity;

use crate::config::Config;
use crate::database::reader;
use crate::kafka::LogEndReader;

/// Time between two looks.
const POLL: Duration = Duration::from_millis(300);

const FENCES: &str = "select topic, partition, topic_id, coalesce(next_offset, 0)
    from tapeline_fence where pipeline = $1 and topic = any($2)";

/// A snapshot of the database with all in it that `topics` hold now. The store is given time `until` then to come to it.
pub(super) async fn passed(
    config: &Config,
    topics: &[Topic],
    identities: &[TopicIdentity],
    until: Instant,
) -> Result<PgConnection> {
    let ends = ends(config, topics).await?;
    loop {
        let mut database = reader(&config.database).await?;
        let behind = behind(&mut database, config, identities, &ends).await?;
        let Some(behind) = behind else { return Ok(database) };
        if Instant::now() >= until {
            bail!(
                "the store has not taken all of the log, and what it lacks may have been shown already: {behind}. \
                 Start it, or let it catch up (`tapeline lag --stage store`), and ask again"
            );
        }
        drop(database); // a snapshot does not move on
        tokio::time::sleep(POLL).await;
    }
}

/// Offsets after the last record of each partition that has one: what retention took whole was shown too long ago.
async fn ends(config: &Config, topics: &[Topic]) -> Result<HashMap<(String, i32), i64>> {
    let reader = LogEndReader::new(&config.kafka, topics.to_vec())?;
    let topics = topics.to_vec();
    tokio::task::spawn_blocking(move || {
        let mut ends = HashMap::new();
        for (number, topic) in topics.into_iter().enumerate() {
            for partition in 0..topic.partitions {
                let at = TopicPartition { topic: u16::try_from(number)?, partition };
                let (low, end) = reader.watermarks(at)?;
                if low < end {
                    ends.insert((topic.name.clone(), partition), end);
                }
            }
        }
        Ok(ends)
    })
    .await?
}

/// The first partition found of which the store lacks something.
async fn behind(
    database: &mut PgConnection,
    config: &Config,
    identities: &[TopicIdentity],
    ends: &HashMap<(String, i32), i64>,
) -> Result<Option<String>> {
    let names: Vec<&str> = identities.iter().map(|topic| topic.name.as_str()).collect();
    let rows: Vec<(String, i32, String, i64)> = sqlx::query_as(FENCES)
        .bind(&config.pipeline.id)
        .bind(names)
        .fetch_all(database)
        .await
        .context("the store's fences")?;
    let mut fences = HashMap::new();
    for (topic, partition, id, next) in rows {
        let now = identities.iter().find(|known| known.name == topic).map(|known| &known.id);
        if now != Some(&id) {
            bail!(
                "topic {topic} was recreated: what is stored is of the one before, id {id}, and its places mean \
                 nothing in the one that is there now"
            );
        }
        fences.insert((topic, partition), next);
    }
    let mut places: Vec<_> = ends.iter().collect();
    places.sort();
    let behind = places.into_iter().find_map(|(place, &end)| {
        let next = fences.get(place).copied().unwrap_or(0);
        let (topic, partition) = place;
        (next < end).then(|| format!("{topic} [{partition}] is stored to {next} of {end}"))
    });
    Ok(behind)
}
