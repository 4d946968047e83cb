//! The rows' way out of the table and back: export, archive, drop, restore.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::figures::{Figures, Target};
use super::load::{DAY_MICROS, Shape};
use super::place::Place;
use super::say;

/// Name of the figure that says whether the table is what it was.
pub(super) const IDENTICAL: &str = "rows that differ after archive, drop, restore";
/// Trades that are taken through all of it at least; whole days.
const ROWS: u64 = 12_000_000;
/// Parts of the table that an archive takes at most.
const TENTH: f64 = 10.0;

pub(super) async fn run(place: &Place, shape: &Shape, figures: &mut Figures) -> Result<()> {
    let (days, rows) = days(shape);
    let first = "2026-01-01".to_owned();
    let mut database = place.database().await?;
    let (last, after): (String, String) =
        sqlx::query_as("select (date '2026-01-01' + $1 - 1)::text, (date '2026-01-01' + $1)::text")
            .bind(days as i32)
            .fetch_one(&mut database)
            .await?;
    export(place, figures, (&first, &after), rows)?;
    let before = digest(&mut database, days).await?;
    ensure!(before.0 as u64 == rows, "{} rows are in the first {days} days", before.0);

    let archive = ["archive", "create", "--kind", "trade", "--date", &first, "--to-date", &last];
    let rate = timed(place, &archive, rows, keep_all())?;
    figures.add("archive", rate, "rows/s", Some(Target::AtLeast(500_000.0)));
    sizes(place, &mut database, days, figures).await?;

    let due = drop_until(&mut database, &after).await?;
    let rate = timed(place, &["lifecycle", "run"], rows, due)?;
    figures.add("compare with the archive and drop", rate, "rows/s", None);
    let left = digest(&mut database, days).await?;
    ensure!(left.0 == 0, "{} rows were not dropped", left.0);

    let restore = ["restore", "--kind", "trade", "--date", &first, "--to-date", &last];
    let rate = timed(place, &restore, rows, keep_all())?;
    figures.add("restore", rate, "rows/s", Some(Target::AtLeast(300_000.0)));
    let after = digest(&mut database, days).await?;
    let differ =
        if after == before { 0.0 } else { (before.0 - after.0).unsigned_abs().max(1) as f64 };
    figures.add(IDENTICAL, differ, "", Some(Target::Below(1.0)));
    Ok(())
}

/// The first days that hold enough trades.
fn days(shape: &Shape) -> (u64, u64) {
    let mut rows = 0;
    for day in 0..shape.days {
        rows += shape.of_day(day);
        if rows >= ROWS {
            return (day + 1, rows);
        }
    }
    (shape.days, rows)
}

/// No kind is old enough for anything.
pub(super) fn keep_all() -> Value {
    json!({"periods": {"compact_after_days": 36_500, "compress_after_days": 36_500, "archive_after_days": 36_500, "drop_after_days": 36_500}})
}

/// Trades of days before `day` are to be dropped.
async fn drop_until(database: &mut PgConnection, day: &str) -> Result<Value> {
    let age: i32 = sqlx::query_scalar("select (now() at time zone 'UTC')::date - $1::text::date")
        .bind(day)
        .fetch_one(database)
        .await?;
    ensure!(age >= 1, "the clock of the database says that {day} is not over");
    let mut rules = keep_all();
    rules["kinds"]["trade"] = rules["periods"].clone();
    for period in ["compress_after_days", "archive_after_days", "drop_after_days"] {
        rules["kinds"]["trade"][period] = age.into();
    }
    Ok(rules)
}

/// What lifecycle does in the night after each day.
pub(super) fn compact(place: &Place, shape: &Shape, figures: &mut Figures) -> Result<()> {
    let mut rules = keep_all();
    rules["periods"]["compact_after_days"] = 1.into();
    let rate = timed(place, &["lifecycle", "run"], shape.rows, rules)?;
    figures.add("indexes built anew", rate, "rows/s", None);
    Ok(())
}

/// Rows a second of a command.
fn timed(place: &Place, arguments: &[&str], rows: u64, rules: Value) -> Result<f64> {
    say(&format!("tapeline {}", arguments.join(" ")));
    let began = Instant::now();
    place.tapeline(arguments, rules)?;
    Ok(rows as f64 / began.elapsed().as_secs_f64())
}

fn export(place: &Place, figures: &mut Figures, (from, to): (&str, &str), rows: u64) -> Result<()> {
    let file = place.folder.join("export.csv");
    let out = file.to_str().context("a folder whose name is text")?;
    let common = ["query", "--kind", "trade", "--from", from, "--to", to, "--out", out];
    for (name, more, target) in [
        ("export as CSV", &["--unordered"][..], Some(Target::AtLeast(1_000_000.0))),
        ("export as CSV, ordered by time", &[], None),
    ] {
        let rate = timed(place, &[&common[..], more].concat(), rows, keep_all())?;
        let found = lines(&file)?;
        ensure!(found == rows + 1, "{found} lines were written for {rows} rows");
        figures.add(name, rate, "rows/s", target);
        std::fs::remove_file(&file)?;
    }
    Ok(())
}

fn lines(file: &std::path::Path) -> Result<u64> {
    let mut reader = std::io::BufReader::with_capacity(1 << 20, std::fs::File::open(file)?);
    let mut count = 0;
    loop {
        let block = std::io::BufRead::fill_buf(&mut reader)?;
        if block.is_empty() {
            return Ok(count);
        }
        count += block.iter().filter(|byte| **byte == b'\n').count() as u64;
        let length = block.len();
        std::io::BufRead::consume(&mut reader, length);
    }
}

/// Size of the archive beside that of the chunks it was made from.
async fn sizes(
    place: &Place,
    database: &mut PgConnection,
    days: u64,
    figures: &mut Figures,
) -> Result<()> {
    let listed: Vec<Value> =
        serde_json::from_str(&place.tapeline(&["archive", "list", "--json"], keep_all())?)?;
    let parquet: u64 = listed.iter().filter_map(|day| day["bytes"].as_u64()).sum();
    let rows: u64 = listed.iter().filter_map(|day| day["rows"].as_u64()).sum();
    let table: i64 = sqlx::query_scalar(
        "select sum(total_bytes)::bigint from chunks_detailed_size('market_data_trades') s
         join timescaledb_information.chunks c using (chunk_schema, chunk_name)
         where c.range_end <= timestamptz 'epoch' + $1 * interval '1 microsecond'",
    )
    .bind(Shape::start(0) + days as i64 * DAY_MICROS)
    .fetch_one(database)
    .await?;
    figures.add("Parquet", parquet as f64 / rows as f64, "bytes/row", None);
    let ratio = table as f64 / parquet as f64;
    figures.add("table with index to Parquet", ratio, "times", Some(Target::AtLeast(TENTH)));
    Ok(())
}

/// Number of rows of the first days, and a sum over all their columns that knows no order; made by
/// the database, and so by none of the code that is measured.
async fn digest(database: &mut PgConnection, days: u64) -> Result<(i64, String)> {
    Ok(sqlx::query_as(
        "select count(*), coalesce(sum(hash_record_extended(t, 0)::numeric), 0)::text
         from market_data_trades t where time < timestamptz 'epoch' + $1 * interval '1 microsecond'",
    )
    .bind(Shape::start(0) + days as i64 * DAY_MICROS)
    .fetch_one(database)
    .await?)
}
