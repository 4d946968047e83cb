//! `scale`: a database that is far away, and 1, 2 and 4 stores on the same topic.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use sqlx::postgres::PgArguments;
use sqlx::{PgConnection, Postgres};
use tapeline::config::GroupProtocol;
use tapeline_schemas::Kind;

use super::fill::{Into, fill};
use super::results::Results;
use super::site::{Site, eventually};
use super::stage::StageProcess;
use super::{Bench, Sizes};
use crate::market::{Faults, Settings};
use crate::proxy::Weather;

/// Each way between store and database: every round trip takes twice that.
const DELAY: Duration = Duration::from_millis(25);
/// Small batches make round trips, not the shared processor, what a store waits for.
const BATCH_ROWS: usize = 1_000;
/// Processes of the store.
const INSTANCES: [usize; 3] = [1, 2, 4];
/// How long the instances may take to share the partitions.
const PATIENCE: Duration = Duration::from_secs(90);

/// Runs it.
pub(crate) async fn run(bench: &Bench, sizes: &Sizes, results: &mut Results) -> Result<()> {
    let (proxy, site) = Site::behind_a_proxy("scale", |config| {
        config.store.connections = 1;
        config.store.batch_rows = BATCH_ROWS;
        // The classic protocol's assignor may give a store that joins the partitions of quiet topics alone.
        config.group.protocol = GroupProtocol::Consumer;
    })
    .await?;
    proxy.set(Weather { latency: DELAY, ..Weather::default() });
    let outcome = rounds(bench, sizes, &site, results).await;
    site.remove().await?;
    outcome
}

async fn rounds(bench: &Bench, sizes: &Sizes, site: &Site, results: &mut Results) -> Result<()> {
    // Every partition has to last: no skew.
    let settings = Settings { symbols: 600, skew: 0.0, ..Settings::default() };
    let records = sizes.scale_records;
    let filled = tokio::task::block_in_place(|| {
        fill(site, &settings, Faults::default(), records, &Into::Checked)
    })?;
    for round in 0..sizes.scale_rounds {
        for instances in INSTANCES {
            let rate = measure(site, instances, filled.shortest, sizes).await?;
            results.add(&format!("scale_{instances}"), "rows/s", rate);
            bench.say(&format!("round {}: {instances} stores {rate:.0} rows/s", round + 1));
        }
    }
    Ok(())
}

async fn measure(site: &Site, instances: usize, shortest: i64, sizes: &Sizes) -> Result<f64> {
    site.empty().await?;
    let topic = site.context.sink_topics([Kind::Trade])?.remove(0).name;
    let mut database = site.database().await?;
    // All at once: a group that is joined by one after another shares out its partitions as often.
    let mut stores = (0..instances)
        .map(|number| StageProcess::spawn(site, "store", number))
        .collect::<Result<Vec<_>>>()?;
    // One connection each: as many owners as stores.
    let writing = "select count(distinct owner_pid) from tapeline_fence \
                   where topic = $1 and next_offset is not null";
    eventually("every store has partitions and writes", PATIENCE, async || {
        for store in &mut stores {
            store.check()?;
        }
        let owners = number(&mut database, sqlx::query_scalar(writing).bind(&topic)).await?;
        Ok((owners == instances as i64).then_some(()))
    })
    .await?;
    let stored = "select sum(next_offset)::bigint from tapeline_fence where topic = $1";
    let first = number(&mut database, sqlx::query_scalar(stored).bind(&topic)).await?;
    let began = Instant::now();
    tokio::time::sleep(sizes.scale_time).await;
    let last = number(&mut database, sqlx::query_scalar(stored).bind(&topic)).await?;
    let rate = (last - first) as f64 / began.elapsed().as_secs_f64();
    // A store whose partitions are at their ends waits for nothing and shows nothing.
    let busy = "select count(distinct owner_pid) from tapeline_fence \
                where topic = $1 and coalesce(next_offset, 0) < $2";
    let busy = sqlx::query_scalar(busy).bind(&topic).bind(shortest);
    let busy = number(&mut database, busy).await?;
    ensure!(busy == instances as i64, "the topic is too short for {instances} stores");
    try_join_all(stores.into_iter().map(StageProcess::stop)).await?;
    Ok(rate)
}

type Question<'q> = sqlx::query::QueryScalar<'q, Postgres, i64, PgArguments>;

async fn number(database: &mut PgConnection, question: Question<'_>) -> Result<i64> {
    Ok(question.fetch_one(database).await?)
}
