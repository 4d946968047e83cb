//! `produce`: the market's records into the raw topics, at a rate or as fast as possible.

mod bulk;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tapeline::config::Config;
use tapeline::wiring::Context;
use tapeline_schemas::{Kind, Micros, partition_for};
use tokio_util::sync::CancellationToken;

pub(crate) use self::bulk::BulkProducer;
use crate::cpu;
use crate::market::{Faults, Feed, FeedRecord, Mix, Settings};

/// What to produce.
#[derive(Debug, clap::Args)]
pub(crate) struct ProduceArgs {
    /// Number of records.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Number of symbols.
    #[arg(long, default_value_t = 200)]
    symbols: u32,
    /// Exponent of Zipf's law for the activity of symbols; 0 makes all equally active.
    #[arg(long, default_value_t = 1.0)]
    skew: f64,
    /// Weights of kinds, as in trade=80,ticker=15,book=5.
    #[arg(long, default_value = "trade=1")]
    mix: Mix,
    /// Levels a side of a book.
    #[arg(long, default_value_t = 10)]
    depth: usize,
    /// Records a second; as fast as possible where it is 0.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// The same seed gives the same records.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Share of records sent again (0.001 is one of a thousand).
    #[arg(long, default_value_t = 0.0)]
    duplicates: f64,
    /// Share of events whose venue time is late.
    #[arg(long, default_value_t = 0.0)]
    late: f64,
    /// Share of events with a venue time before that of the event before.
    #[arg(long, default_value_t = 0.0)]
    out_of_order: f64,
    /// Share of records that can only go to quarantine.
    #[arg(long, default_value_t = 0.0)]
    malformed: f64,
    /// Time of the first event, Unix seconds.
    #[arg(long, default_value_t = 1_700_000_000)]
    start: i64,
    /// Events a second of the market's own time.
    #[arg(long, default_value_t = 5_000)]
    pace: u32,
}

/// The raw topics and what their records begin with.
#[derive(Debug, Clone)]
pub(crate) struct RawTopics {
    /// Names and numbers of partitions of the topics of trades, tickers and books.
    topics: [(String, i32); 3],
    /// Schema ids in the same order.
    pub(crate) ids: [u32; 3],
}

impl RawTopics {
    /// Those of a pipeline.
    pub(crate) fn new(context: &Context) -> Result<RawTopics> {
        let raw = context.raw_topics()?;
        let kinds = [Kind::Trade, Kind::Ticker, Kind::Book];
        let topic = |kind: Kind| {
            let topic = raw.iter().find(|topic| topic.kind == kind);
            let topic = topic.with_context(|| format!("{} has no raw topic", kind.name()))?;
            let id = context.schema_ids.get(&kind).copied();
            Ok(((topic.name.clone(), topic.partitions), id.context("no schema id")?))
        };
        let [a, b, c] = kinds.map(topic).map(|found: Result<_>| found);
        let (a, b, c) = (a?, b?, c?);
        Ok(RawTopics { topics: [a.0, b.0, c.0], ids: [a.1, b.1, c.1] })
    }

    /// Name of a kind's topic.
    pub(crate) fn name(&self, kind: Kind) -> &str {
        &self.topics[kind as usize].0
    }

    /// Number of partitions of a kind's topic.
    pub(crate) fn partitions(&self, kind: Kind) -> i32 {
        self.topics[kind as usize].1
    }
}

/// A feed on its way to Kafka: knows each key's partition.
pub(crate) struct Outlet {
    pub(crate) feed: Feed,
    pub(crate) producer: BulkProducer,
    topics: RawTopics,
    keys: Vec<String>,
    partitions: [Vec<i32>; 3],
    counts: [u64; 3],
}

impl Outlet {
    /// Sends the records of `feed` into `topics`.
    pub(crate) fn new(feed: Feed, producer: BulkProducer, topics: RawTopics) -> Outlet {
        let keys = feed.keys();
        let partitions = [Kind::Trade, Kind::Ticker, Kind::Book].map(|kind| {
            let count = topics.partitions(kind);
            keys.iter().map(|key| partition_for(key.as_bytes(), count)).collect()
        });
        Outlet { feed, producer, topics, keys, partitions, counts: [0; 3] }
    }

    /// Sends the next record, after `told` was told which it is.
    #[inline]
    pub(crate) fn send_next(&mut self, told: impl FnOnce(Sent)) -> Result<Kind> {
        let FeedRecord { kind, symbol, time, value } = self.feed.next();
        let partition = self.partitions[kind as usize][symbol];
        told(Sent { kind, partition, symbol, time });
        let key = self.keys[symbol].as_bytes();
        self.producer.send(self.topics.name(kind), partition, key, value, None)?;
        self.counts[kind as usize] += 1;
        Ok(kind)
    }

    /// Records that were handed over: trades, tickers and books.
    pub(crate) fn counts(&self) -> [u64; 3] {
        self.counts
    }
}

/// A record that is handed over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Its partition.
    pub(crate) partition: i32,
    /// Index of its symbol.
    pub(crate) symbol: usize,
    /// Its venue time.
    pub(crate) time: Micros,
}

/// Tells how many records are due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    began: Instant,
    rate: u64,
}

/// Between two looks at the clock where a rate is kept.
const TICK: Duration = Duration::from_micros(500);

impl Pace {
    /// `rate` records a second from now on; all at once where it is 0.
    pub(crate) fn new(rate: u64) -> Pace {
        Pace { began: Instant::now(), rate }
    }

    /// `rate` records a second since `began`.
    pub(crate) fn since(began: Instant, rate: u64) -> Pace {
        Pace { began, rate }
    }

    /// Sleeps until record `number` is due.
    #[inline]
    pub(crate) fn wait(&self, number: u64) {
        if self.rate > 0 {
            let due = self.due(number);
            while Instant::now() < due {
                std::thread::sleep(TICK);
            }
        }
    }

    /// When record `number` is due.
    pub(crate) fn due(&self, number: u64) -> Instant {
        self.began
            + Duration::from_nanos(
                (u128::from(number) * 1_000_000_000 / u128::from(self.rate.max(1))) as u64,
            )
    }
}

impl ProduceArgs {
    fn settings(&self) -> Result<Settings> {
        let start = self.start.checked_mul(1_000_000).context("--start is out of range")?;
        Ok(Settings {
            seed: self.seed,
            symbols: self.symbols,
            skew: self.skew,
            mix: self.mix,
            depth: self.depth,
            start: Micros(start),
            pace: self.pace,
        })
    }

    fn faults(&self) -> Faults {
        Faults {
            duplicates: self.duplicates,
            late: self.late,
            out_of_order: self.out_of_order,
            malformed: self.malformed,
        }
    }
}

/// Runs the command.
pub(crate) async fn run(config: Config, args: ProduceArgs) -> Result<()> {
    let context = Context::new(config, &CancellationToken::new()).await?;
    let topics = RawTopics::new(&context)?;
    let feed = Feed::new(&args.settings()?, args.faults(), topics.ids);
    let producer = BulkProducer::new(&context.config.kafka)?;
    let mut outlet = Outlet::new(feed, producer, topics);
    // A thread of its own: handing over blocks where the queue is full.
    let outcome = tokio::task::spawn_blocking(move || -> Result<_> {
        let (pace, before) = (Pace::new(args.rate), cpu::of_process()?);
        for number in 0..args.events {
            pace.wait(number);
            outlet.send_next(|_| {})?;
        }
        outlet.producer.finish()?;
        let on_processor = cpu::of_process()? - before;
        Ok((outlet.feed.counts(), pace.began.elapsed(), on_processor))
    });
    let (counts, took, on_processor) = outcome.await??;
    let [trades, tickers, books] = counts.events;
    println!(
        "{} records ({trades} trades, {tickers} tickers, {books} books; {} repeated, {} late, {} out of order, {} malformed), {:.0} a second, {:.0} a second of one core",
        counts.records,
        counts.duplicates,
        counts.late,
        counts.out_of_order,
        counts.malformed,
        counts.records as f64 / took.as_secs_f64(),
        counts.records as f64 / on_processor.as_secs_f64()
    );
    Ok(())
}
