//! Where the services are and how this process shows itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::text;

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
    /// Its URL, `http://host:port` or `https://user:password@host:port`. Stages need one; `tapeline registry` offers one.
    #[serde(deserialize_with = "text::optional")]
    pub url: Option<String>,
    /// How long an answer may take, in milliseconds.
    pub timeout_ms: u64,
    /// With `https://`: file with the certificates of the CAs to trust; the system's where not set.
    #[serde(deserialize_with = "text::optional")]
    pub ca_file: Option<String>,
}

impl Default for RegistryConfig {
    fn default() -> RegistryConfig {
        RegistryConfig { url: None, timeout_ms: 5_000, ca_file: None }
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
    /// Its URL; `rediss://` for TLS. `REDIS_URL` is understood too.
    pub url: String,
    /// With TLS: file with the certificates of the CAs to trust; the system's where not set.
    #[serde(deserialize_with = "text::optional")]
    pub ca_file: Option<String>,
    /// With TLS: file with our own certificate, where Redis asks for one.
    #[serde(deserialize_with = "text::optional")]
    pub cert_file: Option<String>,
    /// Its key.
    #[serde(deserialize_with = "text::optional")]
    pub key_file: Option<String>,
}

impl Default for RedisConfig {
    fn default() -> RedisConfig {
        RedisConfig {
            url: "redis://127.0.0.1:6379/0".into(),
            ca_file: None,
            cert_file: None,
            key_file: None,
        }
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
