//! Making a shadow's rows the live ones, and removing a shadow.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tapeline_schemas::{Kind, Micros, Timeframe};
use tapeline_stages::candle::{WindowOf, revise_window};
use tapeline_stages::store::Table;

use super::differ::Shadow;
use super::dropped::PROMOTED;
use super::report::{self, DifferenceReport};
use super::{Entry, Target, book, dropped, plan, shadow};
use crate::difference::WHAT;
use crate::migrate;
use crate::wiring::Context;

/// What a promotion did to a day of a table.
#[derive(Debug, Default)]
struct Day {
    added: i64,
    /// Of those added, rows that are in the accounts already.
    counted: i64,
    removed: i64,
}

type Days = BTreeMap<String, Day>;

/// Makes the rows of a finished shadow the live ones of its range, in one transaction, and
/// computes the candles again that differ; says what still differs. Rows outside of the range stay.
pub async fn promote(context: &Context, name: &str) -> Result<DifferenceReport> {
    let mut database = migrate::connect(&context.config.database.url).await?;
    migrate::check(&mut database).await?;
    let live = context.config.pipeline.id.clone();
    let mut entry = report::finished(&mut database, context, name).await?;
    book::lock(&mut database, &live, name).await?;
    let described = report::describe(context, &entry)?;
    refuse_dropped(&mut database, context, &entry).await?;
    database.execute("set timezone = 'UTC'").await?;
    let mut work = database.begin().await?;
    for table in described.tables() {
        let days = match table {
            Table::Ohlcv => candles(&mut work, &live, &described).await?,
            _ => rows(&mut work, &described, table).await?,
        };
        account(&mut work, context, &described, table, &days).await?;
    }
    let left = report::compare(&mut work, &described).await?;
    "promoted".clone_into(&mut entry.state);
    book::save(&mut work, &live, &entry).await?;
    work.commit().await.context("promotion")?;
    Ok(left)
}

/// The days of a range may have been dropped since the shadow was made.
async fn refuse_dropped(
    database: &mut PgConnection,
    context: &Context,
    entry: &Entry,
) -> Result<()> {
    let (parts, kafka) = (entry.asked.clone(), context.config.kafka.clone());
    let plan =
        tokio::task::spawn_blocking(move || plan::again(parts, &[&kafka.topic_prefix], &kafka))
            .await??;
    dropped::refuse(database, context, &plan).await
}

async fn differing(work: &mut PgConnection, shadow: &Shadow<'_>, table: Table) -> Result<()> {
    let sql = format!(
        "drop table if exists differing; create temp table differing on commit drop as {}",
        shadow.differences(table)
    );
    work.execute(sql.as_str()).await.with_context(|| format!("comparing {}", table.name()))?;
    Ok(())
}

async fn rows(work: &mut PgConnection, shadow: &Shadow<'_>, table: Table) -> Result<Days> {
    differing(work, shadow, table).await?;
    let mut days = Days::new();
    for what in WHAT {
        let sql = shadow.repair(table, what);
        let touched: Vec<String> = sqlx::query_scalar(&sql)
            .persistent(false)
            .fetch_all(&mut *work)
            .await
            .with_context(|| format!("promoting {} ({what})", table.name()))?;
        for day in touched {
            let day = days.entry(day).or_default();
            day.added += i64::from(what == "missing");
            day.removed += i64::from(what == "extra");
        }
    }
    Ok(days)
}

/// Candles are computed again from the trades, which are right by now, by the reviser: their
/// revision goes up and readers of the log are told (invariant 7). One without trades goes.
async fn candles(work: &mut PgConnection, live: &str, shadow: &Shadow<'_>) -> Result<Days> {
    differing(work, shadow, Table::Ohlcv).await?;
    let mut days = Days::new();
    for frame in Timeframe::ALL {
        let windows: Vec<(String, String, i64, String, bool)> = sqlx::query_as(
            "select exchange, symbol, (extract(epoch from time) * 1000000)::bigint,
                time::date::text, what = 'missing' from differing where timeframe = $1 and what <> 'extra'
            order by 1, 2, 3",
        )
        .bind(frame.name())
        .fetch_all(&mut *work)
        .await?;
        for (exchange, symbol, start, day, missing) in &windows {
            let start = Micros(*start);
            let window = WindowOf { exchange, symbol, frame, start };
            let written = revise_window(&mut *work, live, &window)
                .await
                .with_context(|| format!("candle {frame} of {exchange}:{symbol}"))?;
            let day = days.entry(day.clone()).or_default();
            day.added += i64::from(written && *missing);
            day.counted = day.added;
        }
    }
    let gone: Vec<String> = sqlx::query_scalar(&shadow.repair(Table::Ohlcv, "extra"))
        .persistent(false)
        .fetch_all(work)
        .await?;
    gone.into_iter().for_each(|day| days.entry(day).or_default().removed += 1);
    Ok(days)
}

/// Keeps the accounts: what the ledgers add and the removals take must be what the table holds.
/// Rows that somebody took out or put in by hand are in no account, and are brought back or taken
/// away without one: a day is brought to balance, by no more rows than were added or removed.
async fn account(
    work: &mut PgConnection,
    context: &Context,
    shadow: &Shadow<'_>,
    table: Table,
    days: &Days,
) -> Result<()> {
    let Some(kind) = kind(table) else { return Ok(()) };
    let topic = kind.spec().topic(context.prefix());
    let live = &context.config.pipeline.id;
    let mut by_day = BTreeMap::new();
    for (day, Day { added, counted, removed }) in days {
        let off = off_balance(work, table, kind, day).await?;
        let change = off.clamp(-removed - counted, added - counted);
        if change > 0 {
            by_day.insert(day, change);
        } else if change < 0 {
            sqlx::query(
                "insert into tapeline_removals (pipeline, table_name, day, rows, reason, reference)
                values ($1, $2, $3::date, $4, $5, $6)",
            )
            .bind(live)
            .bind(table.name())
            .bind(day)
            .bind(-change)
            .bind(PROMOTED)
            .bind(format!("shadow {}", shadow.name))
            .execute(&mut *work)
            .await?;
        }
    }
    let Some(stored) = by_day.values().copied().reduce(|a, b| a + b) else { return Ok(()) };
    let ranges = shadow.ranges();
    let sql = format!(
        "with {ranges} insert into tapeline_ledger (pipeline, topic, topic_id, partition, first_offset,
            last_offset, first_origin, last_origin, stored, duplicate, conflict, not_stored, quarantined,
            control, skipped, repeated, by_day, rules)
        select $1, $2, $3, partition, first, last, first, last, $4, greatest(last - first + 1 - $4, 0),
            0, 0, 0, 0, 0, 0, $5::jsonb, '{PROMOTED}'
        from ranges where kind = $6 or $6 = 'anomaly' order by last - first desc limit 1"
    );
    sqlx::query(&sql)
        .persistent(false)
        .bind(format!("{live}/shadow/{}", shadow.name))
        .bind(&topic)
        .bind(context.topic_id(&topic).unwrap_or_default())
        .bind(stored)
        .bind(serde_json::to_string(&by_day)?)
        .bind(kind.name())
        .execute(work)
        .await
        .context("ledger of the promotion")?;
    Ok(())
}

/// Rows that a table holds of a day beyond what its accounts say, as the audit counts them.
async fn off_balance(work: &mut PgConnection, table: Table, kind: Kind, day: &str) -> Result<i64> {
    let sql = format!(
        "select (select count(*) from {live} where time >= $2::date and time < $2::date + 1)
            - (select coalesce(sum((by_day ->> $2)::bigint), 0)::bigint from tapeline_ledger
                where right(topic, length($1)) = $1)
            - (select coalesce(sum(rows), 0)::bigint from tapeline_additions
                where table_name = $3 and day = $2::date)
            + (select coalesce(sum(rows), 0)::bigint from tapeline_removals
                where table_name = $3 and day = $2::date)",
        live = table.name()
    );
    let off = sqlx::query_scalar(&sql).bind(kind.name()).bind(day).bind(table.name());
    Ok(off.fetch_one(work).await?)
}

fn kind(table: Table) -> Option<Kind> {
    let is = |kind: &Kind| kind.spec().table == Some(table.name());
    [Kind::Trade, Kind::Ticker, Kind::Book, Kind::Candle, Kind::Anomaly, Kind::Gap]
        .into_iter()
        .find(is)
}

/// Removes a shadow with all that belongs to it, or forgets another replay that is not running.
pub async fn remove(context: &Context, name: &str) -> Result<()> {
    let mut database = migrate::connect(&context.config.database.url).await?;
    let live = &context.config.pipeline.id;
    let entry = book::find(&mut database, live, name).await?;
    let entry = entry.with_context(|| format!("there is no replay named {name}"))?;
    book::lock(&mut database, live, name).await?;
    match &entry.settings.into {
        Target::Shadow(shadow) => {
            shadow::remove_tables(&mut database, shadow).await?;
            shadow::remove_topics(context, shadow).await?;
        }
        Target::Store | Target::Topic(_) => {
            ensure!(
                entry.state != "done",
                "replay {name} is done: its rows are live and its ledger belongs to them; nothing is dropped"
            );
            sqlx::query("delete from tapeline_fence where pipeline = $1")
                .bind(entry.pipeline(live))
                .execute(&mut database)
                .await?;
        }
    }
    book::remove(&mut database, live, name).await
}
