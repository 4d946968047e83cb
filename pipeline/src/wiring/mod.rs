//! The whole pipeline, a line per stage.

pub(crate) mod candles;
mod context;
mod host;
mod incarnation;
mod influx;

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::future::BoxFuture;
use tapeline_schemas::Kind;
use tapeline_stages::cache::Cache;
use tapeline_stages::flow::{Limits, Topic};
use tapeline_stages::sinks::TopicIdentity;
use tapeline_stages::sinks::redis::{RedisSettings, RedisSink};
use tapeline_stages::sinks::timescale::{TimescaleSettings, TimescaleSink};
use tapeline_stages::store::Store;
use tapeline_stages::validate::{self, Validate};
use tokio_util::sync::CancellationToken;

pub use self::context::Context;
use self::host::host;
pub(crate) use self::host::host_as;
use crate::config::Config;
use crate::kafka::{AssignFrom, Bulk, CheckedTail, LogEndReader, MessageSink};

/// A stage that can be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum StageName {
    /// Raw records to checked records.
    Validate,
    /// Checked records into TimescaleDB.
    Store,
    /// Last values into Redis.
    Cache,
    /// Trades into candles, and their revision.
    Candles,
    /// Market data into InfluxDB, a second target beside the database.
    Influx,
}

impl StageName {
    /// The stages of a whole pipeline; the others are started by name.
    pub const WHOLE: [StageName; 4] =
        [StageName::Validate, StageName::Store, StageName::Cache, StageName::Candles];

    /// The name in groups, metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            StageName::Validate => "validate",
            StageName::Store => "store",
            StageName::Cache => "cache",
            StageName::Candles => "candles",
            StageName::Influx => "influx",
        }
    }
}

/// One consumer group of a stage.
#[derive(Debug, Clone)]
pub struct StageGroup {
    /// The stage.
    pub stage: StageName,
    /// Its part, as metrics and the group's name have it ([`Context::group`]).
    pub name: &'static str,
    /// What it reads.
    pub topics: Vec<Topic>,
}

impl Context {
    /// Every consumer group of the pipeline; `influx` only where it is configured.
    pub fn groups(&self) -> Result<Vec<StageGroup>> {
        let group = |stage, name, topics| StageGroup { stage, name, topics };
        let mut groups = vec![
            group(StageName::Validate, "validate", self.raw_topics()?),
            group(StageName::Candles, "candles", self.sink_topics([Kind::Trade])?),
            group(StageName::Candles, "candles-longer", self.sink_topics([Kind::Candle])?),
            group(StageName::Candles, "candles-reviser", vec![self.dirty_topic()?]),
            group(
                StageName::Candles,
                "candles-compare",
                self.sink_topics([Kind::Candle, Kind::VenueCandle])?,
            ),
            group(StageName::Store, "store", self.sink_topics(STORED_KINDS)?),
            group(StageName::Cache, "cache", self.sink_topics(CACHED_KINDS)?),
        ];
        if self.config.influx.url.is_some() {
            let topics = self.sink_topics(influx::KINDS)?;
            groups.push(group(StageName::Influx, "influx", topics));
        }
        Ok(groups)
    }
}

/// Runs a stage until `shutdown`, or until it must not go on. A future behind a pointer: it is compiled once, here, and
/// not again in each program that runs a stage.
pub fn run_stage(
    stage: StageName,
    context: &Context,
    shutdown: CancellationToken,
) -> BoxFuture<'_, Result<()>> {
    Box::pin(async move {
        match stage {
            StageName::Validate => run_validate(context, shutdown).await,
            StageName::Store => run_store(context, shutdown).await,
            StageName::Cache => run_cache(context, shutdown).await,
            StageName::Candles => candles::run(context, shutdown).await,
            StageName::Influx => influx::run(context, shutdown).await,
        }
        .with_context(|| format!("stage {}", stage.name()))
    })
}

async fn run_validate(context: &Context, shutdown: CancellationToken) -> Result<()> {
    let config = &context.config;
    let topics = context.raw_topics()?;
    let settings = validate_settings(config);
    let lanes = (0..VALIDATE_LANES)
        .map(|_| {
            let tail = CheckedTail::new(config.kafka.clone(), topics.clone());
            let sink = MessageSink::new(
                "validate",
                Bulk::new(&config.kafka.bulk_producer())?,
                context.prefix(),
                context.schema_ids.clone(),
                AssignFrom::CheckedTail(tail),
            );
            Ok((Validate::new(topics.clone(), settings.clone()), sink))
        })
        .collect::<Result<Vec<_>>>()?;
    host(context, "validate", topics, validate_limits(config), lanes, shutdown).await
}

pub(crate) fn validate_settings(config: &Config) -> validate::Settings {
    validate::Settings {
        max_ahead: Duration::from_millis(config.validate.max_ahead_ms),
        max_behind: Duration::from_millis(config.validate.max_behind_ms),
        reject_ahead: Duration::from_millis(config.validate.reject_ahead_ms),
        price_jump_deviations: config.validate.price_jump_deviations,
        memory_per_symbol: config.validate.memory_per_symbol,
    }
}

pub(crate) fn validate_limits(config: &Config) -> Limits {
    Limits {
        batch_positions: 5_000,
        batch_bytes: 4 * 1024 * 1024,
        linger: Duration::from_millis(config.validate.linger_ms),
    }
}

/// Kinds that the store takes.
pub const STORED_KINDS: [Kind; 13] = [
    Kind::Trade,
    Kind::Ticker,
    Kind::Book,
    Kind::Candle,
    Kind::Anomaly,
    Kind::Gap,
    Kind::Flow,
    Kind::Prediction,
    Kind::Portfolio,
    Kind::Position,
    Kind::Order,
    Kind::Option,
    Kind::VenueCandle,
];

async fn run_store(context: &Context, shutdown: CancellationToken) -> Result<()> {
    let config = &context.config;
    let mut database = crate::migrate::connect(&config.database.url).await?;
    crate::migrate::check(&mut database).await?;
    let topics = context.sink_topics(STORED_KINDS)?;
    let identities = identities(context, &topics);
    let lanes = (0..config.store.connections)
        .map(|_| {
            let mut settings = TimescaleSettings::new(
                &config.database.url,
                &config.pipeline.id,
                identities.clone(),
            );
            settings.takeover = Duration::from_millis(config.store.takeover_ms);
            let sink = TimescaleSink::new(settings).map_err(anyhow::Error::msg)?;
            Ok((Store::new(), sink))
        })
        .collect::<Result<Vec<_>>>()?;
    host(context, "store", topics, store_limits(config), lanes, shutdown).await
}

pub(crate) fn store_limits(config: &Config) -> Limits {
    Limits {
        batch_positions: config.store.batch_rows,
        batch_bytes: config.store.batch_bytes,
        linger: Duration::from_millis(config.store.linger_ms),
    }
}

fn identities(context: &Context, topics: &[Topic]) -> Vec<TopicIdentity> {
    topics
        .iter()
        .map(|topic| TopicIdentity {
            name: topic.name.clone(),
            id: context.topic_id(&topic.name).unwrap_or_default().to_owned(),
        })
        .collect()
}

/// Kinds that the cache takes.
pub const CACHED_KINDS: [Kind; 3] = [Kind::Ticker, Kind::Book, Kind::Candle];

async fn run_cache(context: &Context, shutdown: CancellationToken) -> Result<()> {
    let config = &context.config;
    let topics = context.sink_topics(CACHED_KINDS)?;
    let settings = RedisSettings::new(
        config.redis.client()?,
        &config.pipeline.id,
        identities(context, &topics),
    );
    let ends = LogEndReader::new(&config.kafka, topics.clone())?;
    let sink = RedisSink::new(settings, ends);
    let limits = Limits {
        batch_positions: config.cache.batch_events,
        batch_bytes: 4 * 1024 * 1024,
        linger: Duration::from_millis(config.cache.linger_ms),
    };
    host(context, "cache", topics, limits, vec![(Cache::new(), sink)], shutdown).await
}

/// Lanes of `validate`: deciding is cheap, one keeps a core busy.
const VALIDATE_LANES: usize = 1;
