//! Doing what is due. A kill at any point loses nothing: what was done is found done, the rest is done again.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use sqlx::{Executor, PgConnection};
use tapeline_stages::failpoint;

use super::compact::compact;
use super::plan::{Action, Step, plan, restored};
use crate::archive::{
    ArchivedTable, Day, Manifest, Restore, Store, Wanted, archived_kind, create, on_lanes, quoted,
    row_sum, verify,
};
use crate::config::LifecycleConfig;
use crate::migrate::connect;

/// Which advisory lock of PostgreSQL means "a lifecycle is at work"; any number that is only ours.
const LOCK: i64 = 0x7461_7065_6c69_6e65;
/// How often a range is tried whose chunks change while it is dropped.
const ATTEMPTS: u32 = 3;

/// What became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Indexes that were built anew.
    pub compacted: u64,
    /// Chunks that were compressed.
    pub compressed: u64,
    /// Days that are archived and still in their table, or were archived now.
    pub archived_days: u64,
    /// Rows that were dropped.
    pub dropped_rows: u64,
    /// Chunks that were dropped.
    pub dropped_chunks: u64,
}

/// Does everything that is due. An error ends it; what was done stays done.
pub async fn run(
    database: &mut PgConnection,
    store: &Store,
    pipeline: &str,
    config: &LifecycleConfig,
) -> Result<Report> {
    take_lock(database).await?;
    let mut report = Report::default();
    let mut undisturbed = true;
    let steps = plan(database, config).await?;
    for step in &steps {
        tracing::info!(kind = step.kind, from = %Day::of_micros(step.from), action = ?step.action, "due");
        match step.action {
            Action::Compact => {
                for chunk in &step.chunks {
                    // who is busy with one chunk is in the way of all: a transaction that stays open
                    undisturbed =
                        undisturbed && compact(database, chunk, &mut report.compacted).await?;
                }
            }
            Action::Compress => {
                for chunk in &step.chunks {
                    sqlx::query(
                        "select compress_chunk($1::text::regclass, if_not_compressed => true)",
                    )
                    .bind(chunk)
                    .execute(&mut *database)
                    .await
                    .with_context(|| format!("cannot compress {chunk}"))?;
                    report.compressed += 1;
                }
            }
            Action::Archive => {
                let table = ArchivedTable::load(database, &step.table).await?;
                let archived = archive_range(database, store, pipeline, &table, step).await?;
                report.archived_days += archived.len() as u64;
            }
            Action::Drop => {
                drop_range(database, store, pipeline, config, step, &mut report).await?
            }
        }
    }
    sqlx::query("select pg_advisory_unlock($1)").bind(LOCK).execute(&mut *database).await?;
    Ok(report)
}

/// One at a time on a database, until the connection ends.
async fn take_lock(database: &mut PgConnection) -> Result<()> {
    database.execute("set timezone = 'UTC'").await?;
    let free: bool = sqlx::query_scalar("select pg_try_advisory_lock($1)")
        .bind(LOCK)
        .fetch_one(&mut *database)
        .await?;
    ensure!(free, "another lifecycle is at work on this database");
    Ok(())
}

/// UTC days that a range has rows of.
async fn days_of(
    database: &mut PgConnection,
    table: &ArchivedTable,
    (from, to): (i64, i64),
) -> Result<Vec<Day>> {
    let mut days = Vec::new();
    let mut day = Day::of_micros(from);
    while day.start_micros() < to {
        let any: bool = sqlx::query_scalar(&format!(
            "select exists (select from {} where {time} >= '{day}'::timestamp and {time} < '{}'::timestamp)",
            quoted(&table.name),
            day.next(),
            time = quoted(&table.time),
        ))
        .fetch_one(&mut *database)
        .await?;
        if any {
            days.push(day);
        }
        day = day.next();
    }
    Ok(days)
}

async fn archive_range(
    database: &mut PgConnection,
    store: &Store,
    pipeline: &str,
    table: &ArchivedTable,
    step: &Step,
) -> Result<Vec<Manifest>> {
    let mut archived = Vec::new();
    for day in days_of(database, table, (step.from, step.to)).await? {
        archived.push(archive_day(database, store, pipeline, table, &step.kind, day).await?);
    }
    Ok(archived)
}

/// Archives the days of a kind that have rows, several at a time; returns each with its number of rows.
pub async fn archive_days(
    url: &str,
    store: &Store,
    pipeline: &str,
    kind: &str,
    (first, last): (Day, Day),
) -> Result<Vec<(Day, u64)>> {
    let mut database = connect(url).await?;
    take_lock(&mut database).await?;
    let (kind, table) = archived_kind(kind)?;
    let table = ArchivedTable::load(&mut database, table).await?;
    let range = (first.start_micros(), last.next().start_micros());
    let days = days_of(&mut database, &table, range).await?;
    let made = on_lanes(url, &days, async |database, &day| {
        let made = archive_day(database, store, pipeline, &table, kind.name(), day).await?;
        Ok((day, made.sum.rows))
    });
    let made = made.await?;
    ensure!(!made.is_empty(), "{} has no rows from {first} to {last}", table.name);
    Ok(made)
}

/// Archives a day so that its newest manifest has every row of it that ever was in the table.
async fn archive_day(
    database: &mut PgConnection,
    store: &Store,
    pipeline: &str,
    table: &ArchivedTable,
    kind: &str,
    day: Day,
) -> Result<Manifest> {
    let (older, newest) = generations(store, kind, day).await?;
    let manifest = match newest {
        None => create(database, store, kind, table, day, 0).await?,
        Some(newest) if row_sum(database, table, day).await? == newest.sum => {
            verify(store, &newest).await?;
            newest
        }
        // Rows came after the day was archived. Those that were dropped since come back first, so
        // that one manifest has them all.
        Some(newest) => {
            let all = Restore {
                kind: kind.to_owned(),
                table: table.name.clone(),
                days: (day, day),
                exchange: None,
                wanted: Wanted::default(),
            };
            crate::archive::restore_day(database, store, pipeline, table, &newest, &all).await?;
            let next = create(database, store, kind, table, day, newest.generation + 1).await?;
            newest.delete(store).await?;
            next
        }
    };
    for old in older {
        old.delete(store).await?;
    }
    Ok(manifest)
}

/// The manifests of a day: those that a newer one stands for, and the newest.
async fn generations(
    store: &Store,
    kind: &str,
    day: Day,
) -> Result<(Vec<Manifest>, Option<Manifest>)> {
    let mut all = Manifest::of_day(store, kind, day).await?;
    let newest = all.pop();
    Ok((all, newest))
}

async fn drop_range(
    database: &mut PgConnection,
    store: &Store,
    pipeline: &str,
    config: &LifecycleConfig,
    step: &Step,
    report: &mut Report,
) -> Result<()> {
    if was_restored(database, config, step).await? {
        tracing::info!(kind = step.kind, from = %Day::of_micros(step.from), "restored not long ago: it stays");
        return Ok(());
    }
    let table = ArchivedTable::load(database, &step.table).await?;
    for _ in 0..ATTEMPTS {
        let archived = archive_range(database, store, pipeline, &table, step).await?;
        report.archived_days += archived.len() as u64;
        failpoint::hit("lifecycle.before_drop");
        database.execute("begin").await?;
        match drop_archived(database, pipeline, &table, step, &archived).await {
            Ok(Some((rows, chunks))) => {
                failpoint::hit("lifecycle.before_commit");
                database.execute("commit").await?;
                failpoint::hit("lifecycle.after_commit");
                report.dropped_rows += rows;
                report.dropped_chunks += chunks;
                return Ok(());
            }
            Ok(None) => {
                database.execute("rollback").await?;
            }
            Err(error) => {
                // The first error says why.
                let _ = database.execute("rollback").await;
                return Err(error);
            }
        }
    }
    bail!(
        "{} of {}: rows keep coming while it is dropped; it stays, run again later",
        step.table,
        Day::of_micros(step.from)
    )
}

/// Whether it was since the plan was made.
async fn was_restored(
    database: &mut PgConnection,
    config: &LifecycleConfig,
    step: &Step,
) -> Result<bool> {
    let at =
        |parameter: &str| format!("timestamptz 'epoch' + {parameter} * interval '1 microsecond'");
    let statement = format!("select {}", restored(&at("$2"), &at("$3"), config));
    let asked = sqlx::query_scalar(&statement).bind(&step.table).bind(step.from).bind(step.to);
    Ok(asked.fetch_one(database).await?)
}

/// In a transaction: locks the chunks, compares their rows with the archive, accounts for them and
/// drops them. `None` where they are no longer what was archived, or no longer the same chunks.
async fn drop_archived(
    database: &mut PgConnection,
    pipeline: &str,
    table: &ArchivedTable,
    step: &Step,
    archived: &[Manifest],
) -> Result<Option<(u64, u64)>> {
    let lock = format!("lock table {} in share row exclusive mode", step.chunks.join(", "));
    database.execute(lock.as_str()).await?;
    let days = days_of(database, table, (step.from, step.to)).await?;
    if !days.iter().eq(archived.iter().map(|manifest| &manifest.day)) {
        return Ok(None);
    }
    let mut rows = 0;
    for manifest in archived {
        if row_sum(database, table, manifest.day).await? != manifest.sum {
            return Ok(None);
        }
        sqlx::query(
            "insert into tapeline_removals (pipeline, table_name, day, rows, reason, reference)
             values ($1, $2, $3::text::date, $4, 'lifecycle', $5)",
        )
        .bind(pipeline)
        .bind(&table.name)
        .bind(manifest.day.to_string())
        .bind(i64::try_from(manifest.sum.rows)?)
        .bind(Manifest::path(&manifest.kind, manifest.day, manifest.generation))
        .execute(&mut *database)
        .await?;
        rows += manifest.sum.rows;
    }
    let dropped: Vec<String> = sqlx::query_scalar(
        "select drop_chunks($1::text::regclass,
             older_than => timestamptz '1970-01-01 00:00:00+00' + $3 * interval '1 microsecond',
             newer_than => timestamptz '1970-01-01 00:00:00+00' + $2 * interval '1 microsecond')::text",
    )
    .bind(quoted(&table.name))
    .bind(step.from)
    .bind(step.to)
    .fetch_all(&mut *database)
    .await?;
    let named: BTreeSet<&str> = step.chunks.iter().map(String::as_str).collect();
    let gone: BTreeSet<&str> = dropped.iter().map(String::as_str).collect();
    Ok((named == gone).then_some((rows, dropped.len() as u64)))
}
