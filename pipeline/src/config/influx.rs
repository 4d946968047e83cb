//! The stage `influx`.

use serde::{Deserialize, Serialize};

use super::text;

/// The stage `influx`.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InfluxConfig {
    /// Where InfluxDB is, `http://host:port`, without user and password. The stage needs it.
    #[serde(deserialize_with = "text::optional")]
    pub url: Option<String>,
    /// 1: a database, and a user and password where it asks for them. 2: an organisation, a bucket and a token.
    pub version: u8,
    /// Version 1: the database, which must exist.
    #[serde(deserialize_with = "text::optional")]
    pub database: Option<String>,
    /// Version 1: the user.
    #[serde(deserialize_with = "text::optional")]
    pub user: Option<String>,
    /// Version 1: the user's password.
    #[serde(deserialize_with = "text::optional")]
    pub password: Option<String>,
    /// Version 2: the organisation.
    #[serde(deserialize_with = "text::optional")]
    pub org: Option<String>,
    /// Version 2: the bucket, which must exist.
    #[serde(deserialize_with = "text::optional")]
    pub bucket: Option<String>,
    /// Version 2: a token that may write to the bucket.
    #[serde(deserialize_with = "text::optional")]
    pub token: Option<String>,
    /// With `https://`: file with the certificates of the CAs to trust; the system's where not set.
    #[serde(deserialize_with = "text::optional")]
    pub ca_file: Option<String>,
    /// Lines a batch, which is one request where the server takes it.
    pub batch_lines: usize,
    /// Bytes a batch, records included.
    pub batch_bytes: usize,
    /// How long a batch waits to fill.
    pub linger_ms: u64,
    /// How long an answer may take.
    pub timeout_ms: u64,
}

impl Default for InfluxConfig {
    fn default() -> InfluxConfig {
        InfluxConfig {
            url: None,
            version: 1,
            database: None,
            user: None,
            password: None,
            org: None,
            bucket: None,
            token: None,
            ca_file: None,
            batch_lines: 5_000,
            batch_bytes: 4 * 1024 * 1024,
            linger_ms: 100,
            timeout_ms: 30_000,
        }
    }
}
