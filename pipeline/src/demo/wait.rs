//! Waiting for the end: the tape has been read, and everything of it is durable.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use sqlx::{Connection, PgConnection};
use tokio_util::sync::CancellationToken;

use crate::audit;
use crate::kafka::GroupLag;
use crate::venue::{StatsReport, VenueStats};
use crate::wiring::{Context, STORED_KINDS};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(250);
/// Time between two lines of progress where no terminal shows them.
const LINE: Duration = Duration::from_secs(2);
/// How long the stages may take after the tape has ended.
const PATIENCE: Duration = Duration::from_secs(180);

/// Shows what has been published so far; ends only with an error.
pub(super) async fn show_progress(
    context: &Context,
    stats: &BTreeMap<String, Arc<VenueStats>>,
) -> Result<BTreeMap<String, StatsReport>> {
    let terminal = std::io::stderr().is_terminal();
    let mut database = PgConnection::connect(&context.config.database.url).await?;
    loop {
        tokio::time::sleep(if terminal { LOOK } else { LINE }).await;
        let published: Vec<_> = stats
            .iter()
            .map(|(venue, stats)| {
                let report = stats.report();
                let sum: u64 = report.kinds().iter().map(|(_, counts)| counts.published).sum();
                format!("{venue} {sum}")
            })
            .collect();
        let stored: i64 =
            sqlx::query_scalar("select coalesce(sum(stored), 0)::bigint from tapeline_ledger")
                .fetch_one(&mut database)
                .await?;
        let line = format!("published: {}; stored rows: {stored}", published.join(", "));
        if terminal {
            eprint!("\r\x1b[K{line}");
        } else {
            eprintln!("{line}");
        }
    }
}

/// Waits until every stage has taken everything and everything is durable.
pub(super) async fn until_durable(context: &Context, stop: &CancellationToken) -> Result<()> {
    let mut database = PgConnection::connect(&context.config.database.url).await?;
    let groups = groups(context)?;
    let deadline = Instant::now() + PATIENCE;
    let mut quiet = 0;
    eprintln!();
    loop {
        let open = open_work(context, &groups, &mut database).await?;
        quiet = if open.is_none() { quiet + 1 } else { 0 };
        // Twice: a candle may have been on its way between two topics.
        if quiet == 2 {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("not everything is durable after {PATIENCE:?}: {}", open.unwrap_or_default());
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => bail!("stopped before everything was durable"),
        }
    }
}

/// Every consumer group with its position.
type Groups = Vec<(&'static str, Arc<GroupLag>)>;

fn groups(context: &Context) -> Result<Groups> {
    let groups = context.groups()?.into_iter();
    groups
        .map(|group| {
            let name = context.group(group.name);
            let lag = GroupLag::new(&context.config.kafka, &name, &group.topics)?;
            Ok((group.name, Arc::new(lag)))
        })
        .collect()
}

/// The first stage that is not done yet, with what it lacks.
async fn open_work(
    context: &Context,
    groups: &Groups,
    database: &mut PgConnection,
) -> Result<Option<String>> {
    let stored = context.sink_topics(STORED_KINDS)?;
    for (stage, group) in groups {
        let group = Arc::clone(group);
        let lag = tokio::task::spawn_blocking(move || group.records()).await??;
        if lag > 0 {
            return Ok(Some(format!("{stage} has {lag} records before it")));
        }
    }
    let outbox: i64 = sqlx::query_scalar("select count(*) from tapeline_candle_outbox")
        .fetch_one(&mut *database)
        .await?;
    if outbox > 0 {
        return Ok(Some(format!("{outbox} revised candles wait in the outbox")));
    }
    let pipeline = &context.config.pipeline.id;
    let audit = audit::accounted(database, &context.config.kafka, pipeline, &stored).await?;
    Ok((!audit.ok()).then(|| audit.wrong.first().cloned().unwrap_or_default()))
}
