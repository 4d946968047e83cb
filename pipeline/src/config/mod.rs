//! Configuration: one file (TOML, JSON or YAML) under the environment (`TAPELINE__SECTION__KEY`).
//!
//! Every default is in this module's files. Unknown keys and values out of range are refused, with the
//! place and what is allowed; secrets are never printed.

mod backup;
mod connect;
mod error;
mod influx;
mod life;
mod load;
mod redact;
mod services;
mod stages;
mod text;
mod url;
mod validate;

use serde::{Deserialize, Serialize};

pub use backup::{BackupConfig, BackupSchedule, RepositoryConfig};
pub use connect::{ConnectConfig, RecordConfig, VenueConfig};
pub use error::ConfigError;
pub use influx::InfluxConfig;
pub use life::{ArchiveConfig, LifecycleConfig, Periods};
pub use redact::redacted;
pub use services::{
    DatabaseConfig, HttpConfig, KafkaConfig, LogConfig, LogFormat, PipelineConfig, RedisConfig,
    RegistryConfig, SecretsConfig,
};
pub use stages::{
    CacheConfig, CandlesConfig, GroupConfig, GroupProtocol, StoreConfig, ValidateConfig,
};
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
    /// The stage `influx`.
    pub influx: InfluxConfig,
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
    /// Backups.
    pub backup: BackupConfig,
}

#[cfg(test)]
mod tests;
