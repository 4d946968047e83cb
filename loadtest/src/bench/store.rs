//! What the store is measured against: the database's own limit, and Kafka Connect, each in every
//! round and on the same rows.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tapeline_schemas::Kind;

use super::connect::{self, Connect, Insert};
use super::fill::{Filled, Into, Progress, fill};
use super::results::Results;
use super::site::Site;
use super::stage::StageProcess;
use super::{Bench, Sizes};
use crate::market::{Faults, Settings};

/// Share of the records that warm up caches, connections and just-in-time compilers; uncounted.
const WARM_UP: f64 = 0.25;
/// Between two looks at how far the rows are.
const LOOK: Duration = Duration::from_millis(15);
/// How long a program may make no progress.
const PATIENCE: Duration = Duration::from_secs(90);
/// Share of records sent again, too late for `validate` to remember.
const REPEATED: f64 = 0.5;

/// Runs `limit`, `store` and `kafka-connect`, as far as they are asked for, in alternating rounds.
pub(crate) async fn run(bench: &Bench, sizes: &Sizes, results: &mut Results) -> Result<()> {
    let market = Settings::default();
    let mut site = Site::new("store", |_| {}).await?;
    let repeated = Site::new("repeated", |_| {}).await?;
    let outcome = rounds(bench, sizes, &market, &mut site, &repeated, results).await;
    site.remove().await?;
    repeated.remove().await?;
    outcome
}

async fn rounds(
    bench: &Bench,
    sizes: &Sizes,
    market: &Settings,
    site: &mut Site,
    repeated: &Site,
    results: &mut Results,
) -> Result<()> {
    let count = sizes.store_records;
    let filled = tokio::task::block_in_place(|| {
        fill(site, market, Faults::default(), count, &Into::Checked)
    })?;
    let faults = Faults { duplicates: REPEATED, ..Faults::default() };
    let filled_repeated =
        tokio::task::block_in_place(|| fill(repeated, market, faults, count, &Into::Checked))?;
    let mut peers = Vec::new();
    if bench.wants("kafka-connect") {
        connect::install()?;
        let partitions = site.context.sink_topics([Kind::Trade])?[0].partitions;
        for &(insert, name) in &Insert::ALL[..sizes.inserts] {
            let topic = format!("{}{name}", site.config.kafka.topic_prefix);
            site.create_topic(&topic, partitions).await?;
            let into = Into::Json(topic.clone(), insert.times());
            let filled = tokio::task::block_in_place(|| {
                fill(site, market, Faults::default(), count, &into)
            })?;
            peers.push((insert, name, topic, filled));
        }
    }
    let file = site.dir.join("rows");
    for round in 0..sizes.store_rounds {
        if bench.wants("store") || round == 0 {
            let rate = store(site, &filled, round).await?;
            results.add("store", "rows/s", rate);
            bench.say(&format!("round {}: store {rate:.0} rows/s", round + 1));
        }
        if round == 0 {
            export(site, &file)?;
        }
        if bench.wants("limit") {
            let rate = limit(site, &file, filled.rows).await?;
            results.add("limit", "rows/s", rate);
            bench.say(&format!("round {}: limit {rate:.0} rows/s", round + 1));
        }
        if bench.wants("store") {
            let rate = store(repeated, &filled_repeated, round).await?;
            results.add("store_duplicates", "records/s", rate);
            bench.say(&format!("round {}: with half repeated {rate:.0} records/s", round + 1));
        }
        for (insert, name, topic, filled) in &peers {
            site.empty().await?;
            let progress = Progress::new(site, filled).await?;
            let worker = Connect::start(site, topic, *insert, round)?;
            let rate = measure(site, filled, progress, async || worker.check()).await;
            let rate = rate.with_context(|| worker.said())?;
            worker.stop()?;
            results.add(name, "rows/s", rate);
            bench.say(&format!("round {}: {name} {rate:.0} rows/s", round + 1));
        }
    }
    Ok(())
}

/// One `tapeline store` from an empty table to the end of the topic.
async fn store(site: &Site, filled: &Filled, round: usize) -> Result<f64> {
    site.empty().await?;
    let progress = Progress::new(site, filled).await?;
    let mut stage = StageProcess::spawn(site, "store", round)?;
    let rate = measure(site, filled, progress, async || stage.check()).await?;
    stage.stop().await?;
    Ok(rate)
}

/// Records a second from the end of the warm-up to the last row. All rows have to be there.
async fn measure(
    site: &Site,
    filled: &Filled,
    mut progress: Progress,
    mut check: impl AsyncFnMut() -> Result<()>,
) -> Result<f64> {
    let warm = (filled.rows as f64 * WARM_UP) as i64;
    let mut began: Option<(Instant, i64)> = None;
    let (mut moved, mut before) = (Instant::now(), 0);
    let rate = loop {
        let (visible, done) = progress.look().await?;
        let now = Instant::now();
        if visible > before {
            (moved, before) = (now, visible);
        }
        if began.is_none() && visible >= warm {
            began = Some((now, visible));
        }
        if done {
            let (began, first) = began.context("the rows were there before the first look")?;
            let seconds = (now - began).as_secs_f64();
            ensure!(visible > first, "too few records for a figure: more of them, please");
            break (visible - first) as f64 / seconds;
        }
        ensure!(now - moved < PATIENCE, "no new row within {PATIENCE:?}, {visible} are there");
        check().await?;
        tokio::time::sleep(LOOK).await;
    };
    let mut database = site.database().await?;
    let rows: i64 = sqlx::query_scalar("select count(*) from market_data_trades")
        .fetch_one(&mut database)
        .await?;
    ensure!(rows as u64 == filled.rows, "{rows} rows arrived of {}", filled.rows);
    Ok(rate)
}

/// The rows of the table in the order in which they were received.
fn export(site: &Site, file: &Path) -> Result<()> {
    psql(
        &site.database_url(),
        &format!(
            "\\copy (select * from market_data_trades order by receive_time) to '{}' with (format binary)",
            file.display()
        ),
    )
}

/// One session of psql that copies the rows into the empty table.
async fn limit(site: &Site, file: &Path, rows: u64) -> Result<f64> {
    site.empty().await?;
    let command =
        format!("\\copy market_data_trades from '{}' with (format binary)", file.display());
    let began = Instant::now();
    psql(&site.database_url(), &command)?;
    Ok(rows as f64 / began.elapsed().as_secs_f64())
}

fn psql(url: &str, command: &str) -> Result<()> {
    let done = Command::new("psql")
        .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", url, "-c", command])
        .output()
        .context("psql does not start")?;
    ensure!(done.status.success(), "psql: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}
