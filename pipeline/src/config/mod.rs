//! Configuration: one file (TOML, JSON or YAML) under the environment (`TAPELINE__SECTION__KEY`).
//!
//! Every default is in this file. Unknown keys and values out of range are refused, with the
//! place and what is allowed; secrets are never printed.

mod error;
mod life;
mod load;
mod redact;
mod text;
mod url;
mod validate;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use error::ConfigError;
pub use life::{ArchiveConfig, LifecycleConfig, Periods};
pub use redact::redacted;
pub use url::with_path;

/// Everything that can be set.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The broker.
    pub kafka: KafkaConfig,
    /// The schema registry.
    pub registry: RegistryConfig,
    /// TimescaleDB.
    pub database: DatabaseConfig,
    /// Redis.
    pub redis: RedisConfig,
    /// This pipeline among others on the same services.
    pub pipeline: PipelineConfig,
    /// Metrics and health.
    pub http: HttpConfig,
    /// Logs.
    pub log: LogConfig,
    /// The stage `validate`.
    pub validate: ValidateConfig,
    /// The stage `store`.
    pub store: StoreConfig,
    /// The stage `cache`.
    pub cache: CacheConfig,
    /// The stage `candles`.
    pub candles: CandlesConfig,
    /// The connectors.
    pub connect: ConnectConfig,
    /// The consumer groups of the stages.
    pub group: GroupConfig,
    /// Secrets that are kept in the database.
    pub secrets: SecretsConfig,
    /// The archive.
    pub archive: ArchiveConfig,
    /// When what is old goes where.
    pub lifecycle: LifecycleConfig,
}

/// The broker.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {
    /// Brokers, `host:port`, separated by commas.
    pub brokers: String,
    /// What the names of all topics begin with.
    pub topic_prefix: String,
    /// Partitions of topics that are created; each kind's own number where not set.
    pub partitions: Option<i32>,
    /// Replicas of topics that are created.
    pub replication: i32,
    /// Settings for librdkafka, for every client. In the environment, `_` stands for a dot:
    /// `TAPELINE__KAFKA__PROPERTIES__SECURITY_PROTOCOL`.
    #[serde(deserialize_with = "text::map")]
    pub properties: BTreeMap<String, String>,
    /// The same, for consumers alone.
    #[serde(deserialize_with = "text::map")]
    pub consumer_properties: BTreeMap<String, String>,
    /// The same, for producers alone.
    #[serde(deserialize_with = "text::map")]
    pub producer_properties: BTreeMap<String, String>,
}

impl Default for KafkaConfig {
    fn default() -> KafkaConfig {
        KafkaConfig {
            brokers: "127.0.0.1:9092".into(),
            topic_prefix: "md.".into(),
            partitions: None,
            replication: 1,
            properties: BTreeMap::new(),
            consumer_properties: BTreeMap::new(),
            producer_properties: BTreeMap::new(),
        }
    }
}

/// The schema registry.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryConfig {
    /// Its URL, `http://host:port`. Stages need one; `tapeline registry` offers one.
    #[serde(deserialize_with = "text::optional")]
    pub url: Option<String>,
    /// How long an answer may take, in milliseconds.
    pub timeout_ms: u64,
}

impl Default for RegistryConfig {
    fn default() -> RegistryConfig {
        RegistryConfig { url: None, timeout_ms: 5_000 }
    }
}

/// TimescaleDB.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseConfig {
    /// Its URL. `TIMESCALE_DSN`, or `TIMESCALE_HOST`, `_PORT`, `_DB`, `_USER` and `_PASSWORD`, are understood too.
    pub url: String,
    /// Another one for commands that only read, a replica's say; `url` where not set.
    #[serde(deserialize_with = "text::optional")]
    pub read_url: Option<String>,
    /// Connections for everything but the store's own.
    pub pool_size: u32,
    /// Age at which chunks are compressed; on TimescaleDB's Community edition only.
    pub compress_after_days: u32,
    /// Time between two refreshes of continuous aggregates; on the Community edition only.
    pub aggregate_refresh_minutes: u32,
    /// What the index on recent candles holds at least; twice that before it is built anew.
    pub recent_days: u32,
    /// Whether trades are indexed by symbol alone and by venue alone too, at 43 % of the rate of storing them.
    pub market_data_indexes: bool,
}

impl DatabaseConfig {
    /// Where commands that only read ask.
    pub fn read_url(&self) -> &str {
        self.read_url.as_deref().unwrap_or(&self.url)
    }
}

impl Default for DatabaseConfig {
    fn default() -> DatabaseConfig {
        let url = "postgres://tapeline@127.0.0.1:5432/tapeline".into();
        DatabaseConfig {
            url,
            read_url: None,
            pool_size: 4,
            compress_after_days: 7,
            aggregate_refresh_minutes: 30,
            recent_days: 30,
            market_data_indexes: false,
        }
    }
}

/// Secrets that are kept in the database.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecretsConfig {
    /// File with the keys, base64 of 32 bytes a line, the newest first; only its owner may read
    /// it. `TAPELINE_SECRETS_KEY` holds them where no file is named.
    #[serde(deserialize_with = "text::optional")]
    pub key_file: Option<String>,
}

/// Redis.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedisConfig {
    /// Its URL. `REDIS_URL` is understood too.
    pub url: String,
}

impl Default for RedisConfig {
    fn default() -> RedisConfig {
        RedisConfig { url: "redis://127.0.0.1:6379/0".into() }
    }
}

/// This pipeline among others on the same services.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PipelineConfig {
    /// Its name: what its consumer groups begin with, and whose fences are its own.
    pub id: String,
}

impl Default for PipelineConfig {
    fn default() -> PipelineConfig {
        PipelineConfig { id: "main".into() }
    }
}

/// Metrics and health.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// Address to listen on, `host:port`, or `none`.
    #[serde(deserialize_with = "text::optional")]
    pub listen: Option<String>,
}

impl Default for HttpConfig {
    fn default() -> HttpConfig {
        HttpConfig { listen: Some("127.0.0.1:9100".into()) }
    }
}

/// Logs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// A level, or directives (`info,tapeline::store=debug`).
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig { level: "info".into(), format: LogFormat::Auto }
    }
}

/// How lines of the log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Human,
    /// A JSON object a line.
    Json,
}

/// The stage `validate`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ValidateConfig {
    /// Venue times further ahead of the receive time are flagged `future`.
    pub max_ahead_ms: u64,
    /// Venue times further behind the receive time are flagged `late`.
    pub max_behind_ms: u64,
    /// Venue times further ahead of the receive time than this are quarantined.
    pub reject_ahead_ms: u64,
    /// Prices further from the rolling median, in deviations, are flagged.
    pub price_jump_deviations: u32,
    /// Identities remembered for each symbol, to tell duplicates.
    pub memory_per_symbol: usize,
}

impl Default for ValidateConfig {
    fn default() -> ValidateConfig {
        ValidateConfig {
            max_ahead_ms: 5_000,
            max_behind_ms: 60_000,
            reject_ahead_ms: 86_400_000,
            price_jump_deviations: 12,
            memory_per_symbol: 4_096,
        }
    }
}

/// The stage `store`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// Connections that copy at the same time.
    pub connections: usize,
    /// Rows a batch.
    pub batch_rows: usize,
    /// Bytes a batch.
    pub batch_bytes: usize,
    /// How long a batch waits to fill.
    pub linger_ms: u64,
    /// How long a frozen predecessor is waited for before its backend is terminated.
    pub takeover_ms: u64,
}

impl Default for StoreConfig {
    fn default() -> StoreConfig {
        StoreConfig {
            connections: 2,
            batch_rows: 20_000,
            batch_bytes: 16 * 1024 * 1024,
            linger_ms: 10,
            takeover_ms: 10_000,
        }
    }
}

/// The stage `cache`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheConfig {
    /// How long a batch waits to fill.
    pub linger_ms: u64,
    /// Events a batch.
    pub batch_events: usize,
}

impl Default for CacheConfig {
    fn default() -> CacheConfig {
        CacheConfig { linger_ms: 2, batch_events: 5_000 }
    }
}

/// The stage `candles`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CandlesConfig {
    /// How far the watermark stays behind the newest event.
    pub allowed_lateness_ms: u64,
    /// How long a batch waits to fill.
    pub linger_ms: u64,
}

impl Default for CandlesConfig {
    fn default() -> CandlesConfig {
        CandlesConfig { allowed_lateness_ms: 2_000, linger_ms: 20 }
    }
}

/// The connectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectConfig {
    /// The venues by name (`KRAKEN`; small letters do too).
    pub venues: BTreeMap<String, VenueConfig>,
    /// Levels a side of published snapshots.
    pub book_depth: usize,
    /// How often a snapshot of each book is published.
    pub book_interval_ms: u64,
    /// How often a venue is declared complete through a time.
    pub complete_interval_ms: u64,
}

impl Default for ConnectConfig {
    fn default() -> ConnectConfig {
        ConnectConfig {
            venues: BTreeMap::new(),
            book_depth: 25,
            book_interval_ms: 1_000,
            complete_interval_ms: 1_000,
        }
    }
}

/// One venue.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VenueConfig {
    /// Symbols to subscribe, `BASE-QUOTE`; in the environment separated by commas.
    #[serde(deserialize_with = "text::list")]
    pub symbols: Vec<String>,
    /// Kinds of events to subscribe (`trade`, `ticker`, `book`, `option`, `venue_candle`).
    #[serde(deserialize_with = "text::list")]
    pub channels: Vec<String>,
    /// WebSocket address, where it is not the venue's own.
    #[serde(deserialize_with = "text::optional")]
    pub ws_url: Option<String>,
    /// HTTP address, where it is not the venue's own.
    #[serde(deserialize_with = "text::optional")]
    pub rest_url: Option<String>,
    /// Whether it is connected to.
    pub enabled: bool,
}

impl Default for VenueConfig {
    fn default() -> VenueConfig {
        VenueConfig {
            symbols: Vec::new(),
            channels: vec!["trade".into(), "ticker".into(), "book".into()],
            ws_url: None,
            rest_url: None,
            enabled: true,
        }
    }
}

/// The consumer groups of the stages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GroupConfig {
    /// Makes a member a static one, so that a restart does not rebalance. Unique a process.
    #[serde(deserialize_with = "text::optional")]
    pub instance_id: Option<String>,
    /// How members agree.
    pub protocol: GroupProtocol,
    /// How long a silent member keeps its partitions.
    pub session_timeout_ms: u64,
}

impl Default for GroupConfig {
    fn default() -> GroupConfig {
        let protocol = GroupProtocol::Classic;
        GroupConfig { instance_id: None, protocol, session_timeout_ms: 10_000 }
    }
}

/// How members of a group agree on who reads what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupProtocol {
    /// By a leader among them; every broker knows it.
    #[default]
    Classic,
    /// By the broker (KIP-848).
    Consumer,
}

impl GroupProtocol {
    /// The value of librdkafka's `group.protocol`.
    pub fn name(self) -> &'static str {
        match self {
            GroupProtocol::Classic => "classic",
            GroupProtocol::Consumer => "consumer",
        }
    }
}

#[cfg(test)]
mod tests;
