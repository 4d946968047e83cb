//! Filling the tables: whole days of the generator's market by COPY, with their candles.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use sqlx::{Executor, PgConnection};
use tapeline_schemas::{Book, Micros, Ticker, Timeframe, Trade};
use tapeline_stages::candle::{Bar, Version};
use tapeline_stages::store::{HEADER, TRAILER, Table, put_candle, put_trade};

use super::figures::Figures;
use super::place::Place;
use super::say;
use crate::market::{Market, Settings, Taker, VENUE};

/// Trades of a day at most, and days at least.
const DAY_ROWS: u64 = 4_000_000;
const LEAST_DAYS: u64 = 4;
/// 2026-01-01, and what a day has.
const START: i64 = 1_767_225_600_000_000;
pub(super) const DAY_MICROS: i64 = 86_400_000_000;
const DAY_SECONDS: u64 = 86_400;
/// Trades that the market gives for each of its steps, in the mean: sweeps take several at once.
const TRADES_A_STEP: f64 = 1.32;
/// Connections that load, each a day.
const LANES: u64 = 2;
const PIECE_BYTES: usize = 1 << 20;
/// Partitions of the topic that the trades would come from.
const PARTITIONS: usize = 12;

/// How the trades are spread.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) rows: u64,
    pub(super) days: u64,
}

impl Shape {
    pub(super) fn of(rows: u64) -> Shape {
        Shape { rows, days: rows.div_ceil(DAY_ROWS).max(LEAST_DAYS) }
    }

    /// Trades of a day.
    pub(super) fn of_day(&self, day: u64) -> u64 {
        self.rows * (day + 1) / self.days - self.rows * day / self.days
    }

    /// First moment of a day, in microseconds since the epoch.
    pub(super) fn start(day: u64) -> i64 {
        START + day as i64 * DAY_MICROS
    }

    /// Settings of a day's market: the same trades in every run.
    pub(super) fn market(&self, day: u64) -> Settings {
        // a little faster than the day is long, so that all fit
        let pace = self.of_day(day) as f64 / TRADES_A_STEP / DAY_SECONDS as f64 * 1.05;
        Settings {
            seed: 1 + day,
            start: Micros(Shape::start(day)),
            pace: pace.ceil() as u32,
            ..Settings::default()
        }
    }
}

/// Loads all days.
pub(super) async fn run(place: &Place, shape: &Shape, figures: &mut Figures) -> Result<()> {
    let began = Instant::now();
    let mut lanes = tokio::task::JoinSet::new();
    for lane in 0..LANES {
        let (mut database, shape) = (place.database().await?, shape.clone());
        lanes.spawn(async move {
            for day in (lane..shape.days).step_by(LANES as usize) {
                load_day(&mut database, &shape, day)
                    .await
                    .with_context(|| format!("loading day {day}"))?;
                say(&format!("day {} of {} is loaded", day + 1, shape.days));
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    while let Some(lane) = lanes.join_next().await {
        lane??;
    }
    figures.add("load", shape.rows as f64 / began.elapsed().as_secs_f64(), "rows/s", None);
    let mut database = place.database().await?;
    // what autovacuum does in the course of the day
    database.execute("vacuum (analyze) market_data_trades").await?;
    database.execute("vacuum (analyze) market_data_ohlcv").await?;
    let rows: i64 = sqlx::query_scalar("select count(*) from market_data_trades")
        .fetch_one(&mut database)
        .await?;
    ensure!(rows as u64 == shape.rows, "{rows} trades are there of {}", shape.rows);
    size(&mut database, shape, "trades with index, as they came", figures).await
}

/// Days that were loaded within minutes are on disk, as those of weeks would be: gigabytes that are still to be written
/// would be measured with every question.
pub(super) async fn settle(place: &Place, shape: &Shape, figures: &mut Figures) -> Result<()> {
    let flushed = tokio::process::Command::new("sync").status().await.context("sync")?;
    ensure!(flushed.success(), "sync: {flushed}");
    size(&mut place.database().await?, shape, "trades with index, compacted", figures).await
}

async fn size(
    database: &mut PgConnection,
    shape: &Shape,
    name: &'static str,
    figures: &mut Figures,
) -> Result<()> {
    let bytes: i64 = sqlx::query_scalar("select hypertable_size('market_data_trades')")
        .fetch_one(database)
        .await?;
    figures.add(name, bytes as f64 / shape.rows as f64, "bytes/row", None);
    Ok(())
}

/// Tuples of the day's trades, and the minutes they make.
struct Day {
    tuples: Vec<u8>,
    candles: Vec<u8>,
    rows: u64,
    /// The bar of the trade that was taken last.
    bar: Option<Bar>,
    failed: Option<String>,
}

impl Taker for Day {
    fn trade(&mut self, trade: Trade<'_>) {
        let origin = (self.rows / PARTITIONS as u64) as i64;
        let partition = (self.rows % PARTITIONS as u64) as i32;
        if let Err(reject) = put_trade(&trade, partition, origin, &mut self.tuples) {
            self.failed = Some(reject.detail);
        }
        self.rows += 1;
        self.bar = Some(Bar::of_trade(&trade, origin));
    }

    fn ticker(&mut self, _: Ticker<'_>) {}

    fn book(&mut self, _: &Book<'_>) {}
}

fn statement(table: Table) -> String {
    let columns: Vec<_> = table.columns().iter().map(|column| format!("\"{column}\"")).collect();
    format!("copy {} ({}) from stdin (format binary)", table.name(), columns.join(", "))
}

pub(super) async fn load_day(database: &mut PgConnection, shape: &Shape, day: u64) -> Result<()> {
    let rows = shape.of_day(day);
    let mut market = Market::new(&shape.market(day));
    let symbols: Vec<String> = market
        .keys()
        .map(|key| key.split_once(':').map_or(key, |(_, symbol)| symbol).to_owned())
        .collect();
    let mut open: Vec<Option<(Micros, Bar)>> = vec![None; symbols.len()];
    let mut made =
        Day { tuples: HEADER.to_vec(), candles: HEADER.to_vec(), rows: 0, bar: None, failed: None };
    let mut copy = database.copy_in_raw(&statement(Table::Trades)).await?;
    while made.rows < rows {
        let symbol = market.next(0, &mut made).symbol;
        let bar = made.bar.context("a market of trades alone")?;
        let start = Timeframe::M1.start(bar.last.time);
        match &mut open[symbol] {
            Some((minute, sum)) if *minute == start => *sum = merged(sum, &bar)?,
            slot => {
                if let Some((minute, sum)) = slot.replace((start, bar)) {
                    put_minute(&symbols[symbol], minute, &sum, &mut made.candles)?;
                }
            }
        }
        if made.tuples.len() >= PIECE_BYTES {
            copy.send(std::mem::take(&mut made.tuples)).await?;
            made.tuples.reserve(PIECE_BYTES + 1_024);
        }
    }
    ensure!(made.failed.is_none(), "{}", made.failed.unwrap_or_default());
    made.tuples.extend_from_slice(TRAILER);
    copy.send(made.tuples).await?;
    copy.finish().await?;
    for (symbol, slot) in symbols.iter().zip(open) {
        if let Some((minute, sum)) = slot {
            put_minute(symbol, minute, &sum, &mut made.candles)?;
        }
    }
    made.candles.extend_from_slice(TRAILER);
    let mut copy = database.copy_in_raw(&statement(Table::Ohlcv)).await?;
    copy.send(made.candles).await?;
    copy.finish().await?;
    Ok(())
}

fn merged(sum: &Bar, bar: &Bar) -> Result<Bar> {
    sum.merge(bar).map_err(|reject| anyhow::anyhow!(reject.detail))
}

fn put_minute(symbol: &str, minute: Micros, bar: &Bar, out: &mut Vec<u8>) -> Result<()> {
    let version = Version { is_final: true, revision: 0 };
    let candle = bar.to_candle(VENUE, symbol, Timeframe::M1, minute, version);
    put_candle(&candle, out).map_err(|reject| anyhow::anyhow!(reject.detail))
}
