//! What readers ask, one alone and 32 at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hdrhistogram::Histogram;
use sqlx::PgConnection;

use super::figures::{Figures, Target};
use super::load::{DAY_MICROS, Shape};
use super::place::{Place, connect};
use crate::market::{Market, VENUE, Weighted};
use crate::random::Random;

/// Readers at once.
const READERS: u64 = 32;
/// Questions of each kind that one reader asks alone; a quarter of them warms up.
const ALONE: (u64, u64) = (400, 100);
/// How long all ask, and the pause from one question of a reader to its next one.
const TOGETHER: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(8));
const PAUSE: Duration = Duration::from_secs(1);
/// Times that PostgreSQL plans a statement anew before it keeps a plan for any values, and once more: sessions of a
/// pool are long past them. <https://www.postgresql.org/docs/15/sql-prepare.html>
const PLANNED_ANEW: u32 = 6;
const HOUR_MICROS: i64 = 3_600_000_000;

/// A kind of question.
#[derive(Debug, Clone, Copy)]
struct Question {
    alone: [&'static str; 2],
    together: [&'static str; 2],
    limit_ms: f64,
    statement: &'static str,
    /// Length of its range; none for the newest.
    range: Option<i64>,
}

const QUESTIONS: [Question; 3] = [
    Question {
        alone: ["a symbol's day of candles, p50", "a symbol's day of candles, p99"],
        together: [
            "a symbol's day of candles, 32 readers, p50",
            "a symbol's day of candles, 32 readers, p99",
        ],
        limit_ms: 20.0,
        statement: "select time, open, high, low, close, volume from market_data_ohlcv
            where exchange = $1 and symbol = $2 and timeframe = '1m' and source = 'tapeline'
            and time >= timestamptz 'epoch' + $3 * interval '1 microsecond'
            and time < timestamptz 'epoch' + $4 * interval '1 microsecond' order by time",
        range: Some(DAY_MICROS),
    },
    Question {
        alone: ["last 100 trades, p50", "last 100 trades, p99"],
        together: ["last 100 trades, 32 readers, p50", "last 100 trades, 32 readers, p99"],
        limit_ms: 5.0,
        statement: "select * from market_data_trades
            where exchange = $1 and symbol = $2 order by time desc limit 100",
        range: None,
    },
    Question {
        alone: ["an hour of a symbol's trades, p50", "an hour of a symbol's trades, p99"],
        together: [
            "an hour of a symbol's trades, 32 readers, p50",
            "an hour of a symbol's trades, 32 readers, p99",
        ],
        limit_ms: 100.0,
        statement: "select * from market_data_trades
            where exchange = $1 and symbol = $2
            and time >= timestamptz 'epoch' + $3 * interval '1 microsecond'
            and time < timestamptz 'epoch' + $4 * interval '1 microsecond' order by time",
        range: Some(HOUR_MICROS),
    },
];

/// What is asked about: symbols as often as they trade, any day, any hour.
struct Asked {
    symbols: Vec<String>,
    activity: Weighted,
    days: u64,
}

/// Asks alone, then together.
pub(super) async fn run(
    place: &Place,
    shape: &Shape,
    quick: bool,
    figures: &mut Figures,
) -> Result<()> {
    let settings = shape.market(0);
    let market = Market::new(&settings);
    let asked = Arc::new(Asked {
        symbols: market
            .keys()
            .map(|key| key.split_once(':').map_or(key, |(_, symbol)| symbol).to_owned())
            .collect(),
        activity: Weighted::zipf(settings.symbols, settings.skew),
        days: shape.days,
    });
    let mut database = place.database().await?;
    let mut random = Random::new(7);
    let count = if quick { ALONE.1 } else { ALONE.0 };
    for question in &QUESTIONS {
        let mut seen = histogram()?;
        for number in 0..count {
            let began = Instant::now();
            ask(&mut database, question, &asked, &mut random).await?;
            if number >= count / 4 {
                seen.record(began.elapsed().as_micros() as u64)?;
            }
        }
        report(figures, question.alone, &seen, question.limit_ms);
    }
    together(place, &asked, if quick { TOGETHER.1 } else { TOGETHER.0 }, figures).await
}

fn histogram() -> Result<Histogram<u64>> {
    Histogram::new(3).context("histogram")
}

fn report(
    figures: &mut Figures,
    [half, most]: [&'static str; 2],
    seen: &Histogram<u64>,
    limit: f64,
) {
    let ms = |quantile: f64| seen.value_at_quantile(quantile) as f64 / 1_000.0;
    figures.add(half, ms(0.5), "ms", Some(Target::Below(limit)));
    figures.add(most, ms(0.99), "ms", Some(Target::Below(limit)));
}

async fn ask(
    database: &mut PgConnection,
    question: &Question,
    asked: &Asked,
    random: &mut Random,
) -> Result<()> {
    let symbol = &asked.symbols[asked.activity.draw(random)];
    let mut query = sqlx::query(question.statement).bind(VENUE).bind(symbol);
    if let Some(range) = question.range {
        let start = Shape::start(random.below(asked.days));
        let from = start + random.below((DAY_MICROS / range) as u64) as i64 * range;
        query = query.bind(from).bind(from + range);
    }
    let rows = query.fetch_all(database).await?;
    ensure!(question.range.is_some() || !rows.is_empty(), "{symbol} has no trades");
    Ok(())
}

/// Every reader asks at its times, whether the answer before came late or not: a question's clock
/// runs from when it was due. Each is a thread with a runtime of its own, as 32 programs would be:
/// nobody waits here for another one's rows to be read, nor for a third thread to hand on an answer.
async fn together(
    place: &Place,
    asked: &Arc<Asked>,
    length: Duration,
    figures: &mut Figures,
) -> Result<()> {
    let mut readers = tokio::task::JoinSet::new();
    for reader in 0..READERS {
        let (url, asked) = (place.url.clone(), Arc::clone(asked));
        readers.spawn_blocking(move || {
            let own = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            own.block_on(read(reader, &url, &asked, length))
        });
    }
    let mut all = [histogram()?, histogram()?, histogram()?];
    let mut longest = Duration::ZERO;
    while let Some(reader) = readers.join_next().await {
        let (seen, took) = reader??;
        all.iter_mut().zip(&seen).try_for_each(|(all, seen)| all.add(seen))?;
        longest = longest.max(took);
    }
    let count: u64 = all.iter().map(Histogram::len).sum();
    figures.add("questions of 32 readers", count as f64 / longest.as_secs_f64(), "a second", None);
    for (question, seen) in QUESTIONS.iter().zip(&all) {
        report(figures, question.together, seen, question.limit_ms);
    }
    Ok(())
}

/// What one reader saw of each kind of question, and how long it asked.
async fn read(
    reader: u64,
    url: &str,
    asked: &Asked,
    length: Duration,
) -> Result<([Histogram<u64>; 3], Duration)> {
    let mut database = connect(url).await?;
    let mut random = Random::new(100 + reader);
    let mut seen = [histogram()?, histogram()?, histogram()?];
    for question in &QUESTIONS {
        for _ in 0..PLANNED_ANEW {
            ask(&mut database, question, asked, &mut random).await?;
        }
    }
    let began = Instant::now();
    let mut due = began + PAUSE.mul_f64(reader as f64 / READERS as f64);
    while due < began + length {
        // the thread's own: the runtime's clock has steps of a millisecond
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let which = random.below(QUESTIONS.len() as u64) as usize;
        ask(&mut database, &QUESTIONS[which], asked, &mut random).await?;
        seen[which].record(due.elapsed().as_micros() as u64)?;
        due += PAUSE;
    }
    Ok((seen, began.elapsed()))
}
