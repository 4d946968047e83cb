//! All stages at once, a process each, and a generator that keeps what is under way bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sqlx::PgConnection;
use tapeline::kafka::GroupLag;
use tapeline_schemas::Kind;

use super::site::Site;
use super::stage::StageProcess;
use crate::market::{Faults, Feed, Settings};
use crate::produce::{BulkProducer, Outlet, Pace, RawTopics};

/// The stages, in the order of the data.
const STAGES: [&str; 4] = ["validate", "store", "cache", "candles"];
/// Kinds that are produced.
pub(crate) const KINDS: [Kind; 3] = [Kind::Trade, Kind::Ticker, Kind::Book];
/// Records that the slowest stage may be behind the generator.
const MOST_BEHIND: u64 = 400_000;
/// Records before the clock starts.
pub(crate) const WARM_UP: u64 = 20_000;
/// Between two looks at the stages.
const LOOK: Duration = Duration::from_millis(40);
/// How long the stages may stand still.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks at whether more may be sent.
const GATE: Duration = Duration::from_micros(500);

/// All stages on a site.
pub(crate) struct Line {
    /// A process each.
    pub(crate) stages: Vec<StageProcess>,
    database: PgConnection,
    cache: Arc<GroupLag>,
    /// The checked topics of [`KINDS`].
    checked: Vec<String>,
}

impl Line {
    /// Starts every stage.
    pub(crate) async fn start(site: &Site) -> Result<Line> {
        let mut stages = Vec::new();
        for name in STAGES {
            stages.push(StageProcess::start(site, name, 0).await?);
        }
        let database = site.database().await?;
        let context = &site.context;
        let cached = context.sink_topics([Kind::Ticker, Kind::Book])?;
        let cache = GroupLag::new(&site.config.kafka, &context.group("cache"), &cached)?;
        let checked = context.sink_topics(KINDS)?.into_iter().map(|topic| topic.name).collect();
        Ok(Line { stages, database, cache: Arc::new(cache), checked })
    }

    /// Of `sent` records of each kind: how many the slowest stage has not taken.
    async fn behind(&mut self, sent: [u64; 3]) -> Result<u64> {
        let all: u64 = sent.iter().sum();
        let mut behind = 0;
        for stage in &mut self.stages {
            let expected = match stage.name {
                "validate" => all,
                "candles" => sent[0],
                // These two write: what counts is what is durable.
                _ => {
                    stage.check()?;
                    continue;
                }
            };
            let name = stage.name;
            behind = behind.max(expected.saturating_sub(stage.records(name).await?));
        }
        let stored: i64 = sqlx::query_scalar(
            "select coalesce(sum(next_offset), 0)::bigint from tapeline_fence where topic = any($1)",
        )
        .bind(&self.checked)
        .fetch_one(&mut self.database)
        .await?;
        Ok(behind.max(all.saturating_sub(stored as u64)))
    }

    /// Of records that were all checked: whether the cache has taken every one.
    async fn cache_is_done(&self) -> Result<bool> {
        let cache = Arc::clone(&self.cache);
        Ok(tokio::task::spawn_blocking(move || cache.records()).await?? == 0)
    }

    /// Waits until every stage has taken all of `sent`.
    pub(crate) async fn finish(&mut self, sent: [u64; 3]) -> Result<()> {
        let (mut moved, mut before) = (Instant::now(), u64::MAX);
        loop {
            let behind = self.behind(sent).await?;
            if behind == 0 && (sent[1] + sent[2] == 0 || self.cache_is_done().await?) {
                return Ok(());
            }
            if behind < before {
                (moved, before) = (Instant::now(), behind);
            }
            ensure!(moved.elapsed() < PATIENCE, "the slowest stage stands still, {behind} behind");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Sends records up to number `until`, at `rate` a second (0: as fast as the stages take them),
    /// and waits until every stage has taken them.
    pub(crate) async fn run(
        &mut self,
        generator: &mut Generator,
        until: u64,
        rate: u64,
    ) -> Result<()> {
        let gate = Arc::new(Gate::default());
        let sending = generator.start(until, rate, Arc::clone(&gate))?;
        while !sending.is_finished() {
            let sent = gate.sent();
            let behind = self.behind(sent).await;
            // The generator must not wait for ever where a stage has ended.
            let behind = behind.inspect_err(|_| gate.closed.store(true, Ordering::Relaxed))?;
            let taken = sent.iter().sum::<u64>().saturating_sub(behind);
            gate.open_to.store(taken + MOST_BEHIND, Ordering::Relaxed);
            tokio::time::sleep(LOOK).await;
        }
        generator.give_back(sending.await??);
        self.finish(gate.sent()).await
    }

    /// Stops every stage.
    pub(crate) async fn stop(self) -> Result<()> {
        for stage in self.stages {
            stage.stop().await?;
        }
        Ok(())
    }
}

/// How far the generator may go, and how far it is.
#[derive(Default)]
pub(crate) struct Gate {
    open_to: AtomicU64,
    closed: AtomicBool,
    sent: [AtomicU64; 3],
}

impl Gate {
    /// Records of each kind that were sent so far.
    pub(crate) fn sent(&self) -> [u64; 3] {
        [0, 1, 2].map(|kind: usize| self.sent[kind].load(Ordering::Relaxed))
    }

    /// Lets everything through.
    pub(crate) fn open(&self) {
        self.open_to.store(u64::MAX, Ordering::Relaxed);
    }
}

/// A feed and its way into the raw topics.
pub(crate) struct Generator {
    outlet: Option<Outlet>,
}

impl Generator {
    /// Of a market, as fast as it goes.
    pub(crate) fn new(site: &Site, settings: &Settings, faults: Faults) -> Result<Generator> {
        let topics = RawTopics::new(&site.context)?;
        let feed = Feed::new(settings, faults, topics.ids);
        let producer = BulkProducer::new(&site.config.kafka)?;
        Ok(Generator { outlet: Some(Outlet::new(feed, producer, topics)) })
    }

    /// Sends on a thread of its own, up to record `until` of all.
    pub(crate) fn start(
        &mut self,
        until: u64,
        rate: u64,
        gate: Arc<Gate>,
    ) -> Result<tokio::task::JoinHandle<Result<Outlet>>> {
        let mut outlet = self.outlet.take().context("the generator is under way")?;
        let counts = outlet.counts();
        for (sent, count) in gate.sent.iter().zip(counts) {
            sent.store(count, Ordering::Relaxed);
        }
        let first: u64 = counts.iter().sum();
        Ok(tokio::task::spawn_blocking(move || {
            let pace = Pace::new(rate);
            for number in first..until {
                while number >= gate.open_to.load(Ordering::Relaxed) {
                    ensure!(!gate.closed.load(Ordering::Relaxed), "a stage has ended");
                    std::thread::sleep(GATE);
                }
                pace.wait(number - first);
                let kind = outlet.send_next(|_| {})?;
                gate.sent[kind as usize].fetch_add(1, Ordering::Relaxed);
            }
            outlet.producer.finish()?;
            Ok(outlet)
        }))
    }

    /// Takes back what [`Generator::start`] lent to its thread.
    pub(crate) fn give_back(&mut self, outlet: Outlet) {
        self.outlet = Some(outlet);
    }
}
