//! `latency`: at a fixed rate, from the moment a record was due to the moment that its row, its
//! value or its candle can be seen from outside.
//!
//! Coordinated omission is accounted for: the clock of a record starts when it was *due*, not when
//! the generator came to send it, and every record counts, also those that come after a stall.

mod observe;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use tapeline_schemas::{Kind, Micros, Timeframe};

use super::line::{KINDS, Line};
use super::results::Results;
use super::site::Site;
use super::{Bench, Sizes};
use crate::market::{Faults, Feed, Mix, Settings};
use crate::produce::{BulkProducer, Outlet, Pace, RawTopics, Sent};

/// Records a second.
const RATE: u64 = 20_000;
/// Events a second of the market's own time, which passes twice as fast as ours, and when it begins: a minute of it
/// ends in every round, the quick one's too.
const MARKET_PACE: u32 = 10_000;
const MARKET_START: Micros = Micros(1_700_000_022_000_000);
/// Sent before the clock starts, so that no stage's joining its group is measured.
const FIRST: u64 = 20_000;
/// Of each topic. A produce request holds one partition, and the broker shares two cores with everything else.
const PARTITIONS: i32 = 1;
/// Before the first round is counted.
const WARM_UP: Duration = Duration::from_secs(5);
/// The longest latency told apart.
const LONGEST: Duration = Duration::from_secs(120);
/// Percentiles of the table.
const PERCENTILES: [(&str, f64); 3] = [("p50", 50.0), ("p99", 99.0), ("p999", 99.9)];
/// Percentiles of the plot.
const CURVE: [f64; 14] =
    [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.8, 99.9, 99.95, 99.99];
/// How long the last records may take to be seen.
const PATIENCE: Duration = Duration::from_secs(60);

/// When records were due, in microseconds since the start, as the generator tells the observers.
#[derive(Default)]
struct Schedule {
    /// By raw offset: a raw partition holds what the generator sent and nothing else.
    offsets: [Vec<Mutex<Vec<u32>>>; 3],
    /// Tickers of each symbol: raw offset and due time.
    tickers: Vec<Mutex<Vec<(i64, u32)>>>,
    /// By partition of trades: ends of minutes, and when the record was due that closes them.
    minutes: Vec<Mutex<Vec<(Micros, u32)>>>,
}

/// Latencies of one thing, a histogram a round.
struct Latencies {
    rounds: Vec<Histogram<u64>>,
    round_micros: u64,
    warm_up_micros: u64,
}

impl Latencies {
    fn new(rounds: usize, round: Duration) -> Result<Latencies> {
        let most = LONGEST.as_micros() as u64;
        let histogram = || Histogram::new_with_bounds(1, most, 3);
        let rounds = (0..rounds).map(|_| histogram()).collect::<Result<Vec<_>, _>>()?;
        Ok(Latencies {
            rounds,
            round_micros: round.as_micros() as u64,
            warm_up_micros: WARM_UP.as_micros() as u64,
        })
    }

    /// What was due at `due` was seen at `seen`, both in microseconds since the start.
    fn saw(&mut self, due: u32, seen: u64) {
        let Some(after) = u64::from(due).checked_sub(self.warm_up_micros) else { return };
        if let Some(round) = self.rounds.get_mut((after / self.round_micros) as usize) {
            round.saturating_record(seen.saturating_sub(u64::from(due)).max(1));
        }
    }

    fn report(&self, name: &str, results: &mut Results) -> Result<()> {
        let all_were_seen = self.rounds.iter().all(|round| !round.is_empty());
        ensure!(all_were_seen, "a round without any {name}");
        let millis = |micros: u64| micros as f64 / 1_000.0;
        for (label, percentile) in PERCENTILES {
            let rounds = self.rounds.iter().map(|h| millis(h.value_at_percentile(percentile)));
            results.keep(&format!("latency.{name}_{label}"), "ms", rounds.collect());
        }
        let counted: u64 = self.rounds.iter().map(Histogram::len).sum();
        results.add(&format!("latency_samples.{name}"), "samples", counted as f64);
        let mut all = self.rounds[0].clone();
        for round in &self.rounds[1..] {
            all.add(round)?;
        }
        let curve = CURVE.map(|p| (p, millis(all.value_at_percentile(p)))).to_vec();
        results.curves.insert(name.to_owned(), curve);
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs it.
pub(crate) async fn run(bench: &Bench, sizes: &Sizes, results: &mut Results) -> Result<()> {
    let site = Site::new("latency", |config| config.kafka.partitions = Some(PARTITIONS)).await?;
    let outcome = measure(&site, sizes, results).await;
    site.remove().await?;
    outcome?;
    for name in ["row", "redis", "candle"] {
        let at = |label: &str| results.median(&format!("latency.{name}_{label}"));
        if let (Some(p50), Some(p99), Some(p999)) = (at("p50"), at("p99"), at("p999")) {
            bench.say(&format!("latency: {name} p50 {p50:.1}, p99 {p99:.1}, p99.9 {p999:.1} ms"));
        }
    }
    Ok(())
}

async fn measure(site: &Site, sizes: &Sizes, results: &mut Results) -> Result<()> {
    let mut line = Line::start(site).await?;
    let settings =
        Settings { mix: Mix::MIXED, pace: MARKET_PACE, start: MARKET_START, ..Settings::default() };
    let topics = RawTopics::new(&site.context)?;
    let feed = Feed::new(&settings, Faults::default(), topics.ids);
    let keys = feed.keys();
    let lists = |count: i32| (0..count).map(|_| Mutex::default()).collect();
    let schedule = Arc::new(Schedule {
        offsets: KINDS.map(|kind| lists(topics.partitions(kind))),
        tickers: keys.iter().map(|_| Mutex::default()).collect(),
        minutes: (0..topics.partitions(Kind::Trade)).map(|_| Mutex::default()).collect(),
    });
    let mut outlet = Outlet::new(feed, BulkProducer::prompt(&site.config.kafka)?, topics);
    let lateness = Duration::from_millis(site.config.candles.allowed_lateness_ms);
    let first = Arc::clone(&schedule);
    let sending = tokio::task::spawn_blocking(move || {
        for _ in 0..FIRST {
            outlet.send_next(|sent| first.tell(sent, 0, lateness))?;
        }
        outlet.producer.finish().map(|()| outlet)
    });
    let outlet = sending.await??;
    line.finish(outlet.counts()).await?;
    let done = Arc::new(AtomicBool::new(false));
    let (began, rounds, round) = (Instant::now(), sizes.latency_rounds, sizes.latency_time);
    let watch = observe::Watch { began, schedule: Arc::clone(&schedule), done: Arc::clone(&done) };
    let empty = || Latencies::new(rounds, round);
    let rows =
        tokio::spawn(observe::rows(site.database_url(), watch.clone(), checked(site)?, empty()?));
    let values =
        tokio::spawn(observe::values(site.config.redis.url.clone(), watch.clone(), keys, empty()?));
    let candles = observe::candles(site, watch, empty()?)?;
    let seconds = (WARM_UP + round * rounds as u32).as_secs();
    let sending = tokio::task::spawn_blocking(move || {
        send(outlet, &schedule, began, RATE * seconds, lateness)
    });
    let sent = sending.await??;
    line.finish(sent).await?;
    done.store(true, Ordering::Release);
    let patience = async |watching| tokio::time::timeout(PATIENCE, watching).await;
    patience(rows).await???.report("row", results)?;
    patience(values).await???.report("redis", results)?;
    patience(candles).await???.report("candle", results)?;
    line.stop().await
}

/// The checked topics, by kind.
fn checked(site: &Site) -> Result<Vec<String>> {
    let topics = site.context.sink_topics(KINDS)?;
    Ok(topics.into_iter().map(|topic| topic.name).collect())
}

fn send(
    mut outlet: Outlet,
    schedule: &Schedule,
    began: Instant,
    records: u64,
    lateness: Duration,
) -> Result<[u64; 3]> {
    let pace = Pace::since(began, RATE);
    for number in 0..records {
        pace.wait(number);
        let due = (pace.due(number) - began).as_micros() as u32;
        // Told before it is sent: nobody may see it earlier.
        outlet.send_next(|sent| schedule.tell(sent, due, lateness))?;
    }
    outlet.producer.finish()?;
    Ok(outlet.counts())
}

impl Schedule {
    fn tell(&self, sent: Sent, due: u32, lateness: Duration) {
        let partition = sent.partition as usize;
        let offset = {
            let mut offsets = lock(&self.offsets[sent.kind as usize][partition]);
            offsets.push(due);
            offsets.len() as i64 - 1
        };
        if sent.kind == Kind::Ticker {
            lock(&self.tickers[sent.symbol]).push((offset, due));
        }
        if sent.kind == Kind::Trade {
            let watermark = sent.time.plus(-(lateness.as_micros() as i64));
            let closed = Timeframe::M1.start(watermark);
            let mut minutes = lock(&self.minutes[partition]);
            if minutes.last().is_none_or(|(last, _)| *last < closed) {
                minutes.push((closed, due));
            }
        }
    }
}
