//! Redis filled again from the database (R2): the values that `cache` would show, with the same keys, fields, lifetimes
//! and the same rule of what replaces what (invariant 6), so that it may run beside the stage.
//!
//! What the database holds may be older than what Redis has shown before it lost it. So the store is waited for, until its
//! fences have passed the log's ends as of the start. Of candles the log also says where their records stand.

mod fences;
mod living;
mod places;
mod report;
mod rows;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sqlx::PgConnection;
use tapeline_schemas::{Kind, Micros};
use tapeline_stages::flow::{Contract, Topic, TopicPartition};
use tapeline_stages::sinks::TopicIdentity;
use tapeline_stages::sinks::redis::{Rebuilder, Rebuilt, RedisSettings};

use self::living::Living;
use self::places::{Candles, Place};
pub use self::report::{KindReport, NotRebuilt, Report};
use self::rows::{Wanted, newest};
use crate::config::Config;
use crate::kafka::describe_all;
use crate::migrate;
use crate::venue::driver::{Clock as _, SystemClock};
use crate::wiring::CACHED_KINDS;

/// What to rebuild.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Only these symbols, `BTC-USD` or `KRAKEN:BTC-USD`; all where none is named.
    pub symbols: Vec<String>,
    /// Ask Redis what it would take, and write nothing.
    pub dry_run: bool,
    /// How long the store is given to come to the log's end.
    pub wait: Duration,
}

struct Rebuild<'r> {
    config: &'r Config,
    request: &'r Request,
    /// Topics of the kinds that the cache takes, and behind them that of anomalies.
    topics: Vec<Topic>,
    identities: Vec<TopicIdentity>,
    rebuilder: Rebuilder,
}

/// Rebuilds the values of the pipeline of `config`.
pub async fn run(config: &Config, request: &Request) -> Result<Report> {
    let (topics, identities) = topics(config).await?;
    let settings =
        RedisSettings::new(config.redis.client()?, &config.pipeline.id, identities.clone());
    let rebuilder = Rebuilder::new(settings);
    let mut rebuild = Rebuild { config, request, topics, identities, rebuilder };
    let mut database = rebuild.snapshot().await?;
    migrate::check(&mut database).await?;
    let mut kinds = Vec::new();
    for kind in CACHED_KINDS {
        let report = rebuild.kind(&mut database, kind).await;
        kinds.push(report.with_context(|| format!("values of {}", kind.name()))?);
    }
    Ok(Report::new(request.dry_run, kinds))
}

/// What the values and their flags are read from, and which incarnations of it are there.
async fn topics(config: &Config) -> Result<(Vec<Topic>, Vec<TopicIdentity>)> {
    config.kafka.check()?;
    let states = describe_all(&config.kafka).await?;
    let mut topics = Vec::new();
    let mut identities = Vec::new();
    for kind in CACHED_KINDS.into_iter().chain([Kind::Anomaly]) {
        let spec = kind.spec();
        let name = spec.topic(&config.kafka.topic_prefix);
        let state = states.get(&name).with_context(|| format!("topic {name} is unknown"))?;
        let contract = if spec.raw { Contract::Checked } else { Contract::Plain };
        identities.push(TopicIdentity { name: name.clone(), id: state.id.clone() });
        topics.push(Topic { name, kind, contract, partitions: state.partitions });
    }
    Ok((topics, identities))
}

impl Rebuild<'_> {
    /// A snapshot of the database that holds all that Redis may have shown, with its flags.
    async fn snapshot(&self) -> Result<PgConnection> {
        let (values, anomalies) = self.topics.split_at(CACHED_KINDS.len());
        let until = Instant::now() + self.request.wait;
        drop(fences::passed(self.config, values, &self.identities, until).await?);
        // Asked for only now: the anomaly of an event may come into the log a moment behind it.
        fences::passed(self.config, anomalies, &self.identities, until).await
    }

    async fn kind(&mut self, database: &mut PgConnection, kind: Kind) -> Result<KindReport> {
        let mut report = KindReport::new(kind);
        let number = self.topics.iter().position(|topic| topic.kind == kind);
        let number = number.context("a topic of the cache")?;
        let lifetime = Duration::from_secs(u64::from(report.lifetime_s));
        let (topic, identity) = (&self.topics[number], &self.identities[number]);
        let pipeline = &self.config.pipeline.id;
        let living = Living::read(database, pipeline, topic, identity, lifetime).await?;
        let Some(since) = living.since() else { return Ok(report) };
        let raw_topic = kind.spec().raw_topic(&self.config.kafka.topic_prefix);
        let wanted = Wanted { kind, since, symbols: &self.request.symbols, raw_topic: &raw_topic };
        match kind {
            Kind::Candle => self.candles(database, &wanted, number, &mut report).await?,
            _ => self.events(database, &wanted, number, &living, &mut report).await?,
        }
        report.add(self.write().await?);
        Ok(report)
    }

    /// Rows that say where their records stand.
    async fn events(
        &mut self,
        database: &mut PgConnection,
        wanted: &Wanted<'_>,
        number: usize,
        living: &Living,
        report: &mut KindReport,
    ) -> Result<()> {
        newest(database, wanted, async |event| {
            let place = event.origin.context("a row without an origin")?;
            let Some(left) = living.left(place, event.time, Instant::now()) else {
                report.expired += 1;
                return Ok(());
            };
            self.take(wanted.kind, number, place, &event.payload, left, report).await
        })
        .await
    }

    async fn candles(
        &mut self,
        database: &mut PgConnection,
        wanted: &Wanted<'_>,
        number: usize,
        report: &mut KindReport,
    ) -> Result<()> {
        let mut candles = Candles::default();
        newest(database, wanted, async |event| {
            candles.add(event);
            Ok(())
        })
        .await?;
        let placed = candles.placed(self.config, &self.topics[number]).await?;
        let now = SystemClock::default().receive_time(None).unwrap_or_default();
        for (event, place) in placed {
            match place {
                Place::At { partition, offset, appended } => {
                    match left(report.lifetime_s, appended, now) {
                        Some(left) => {
                            let place = (partition, offset);
                            self.take(wanted.kind, number, place, &event.payload, left, report)
                                .await?;
                        }
                        None => report.expired += 1,
                    }
                }
                Place::Nowhere => report.expired += 1,
                Place::Overtaken => report.overtaken += 1,
            }
        }
        Ok(())
    }

    async fn take(
        &mut self,
        kind: Kind,
        number: usize,
        (partition, origin): (i32, i64),
        payload: &[u8],
        left: Duration,
        report: &mut KindReport,
    ) -> Result<()> {
        let at = TopicPartition { topic: u16::try_from(number)?, partition };
        self.rebuilder.take(kind, at, origin, payload, left).map_err(anyhow::Error::msg)?;
        if self.rebuilder.is_full() {
            report.add(self.write().await?);
        }
        Ok(())
    }

    async fn write(&mut self) -> Result<Rebuilt> {
        self.rebuilder.write(self.request.dry_run).await.map_err(anyhow::Error::msg)
    }
}

/// What is left of the time of a value whose record was appended then.
fn left(lifetime_s: u32, appended: Micros, now: Micros) -> Option<Duration> {
    let lifetime = i64::from(lifetime_s) * 1_000_000;
    // A broker whose clock is ahead lengthens no life.
    let left = lifetime - now.since(appended).max(0);
    u64::try_from(left).ok().filter(|left| *left > 0).map(Duration::from_micros)
}
