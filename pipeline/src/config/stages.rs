//! The stages and their consumer groups.

use serde::{Deserialize, Serialize};

use super::text;

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
    /// How long a batch waits to fill. While one is written the next gathers anyway.
    pub linger_ms: u64,
}

impl Default for ValidateConfig {
    fn default() -> ValidateConfig {
        ValidateConfig {
            max_ahead_ms: 5_000,
            max_behind_ms: 60_000,
            reject_ahead_ms: 86_400_000,
            price_jump_deviations: 12,
            memory_per_symbol: 4_096,
            linger_ms: 0,
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
    /// How long a batch waits to fill. While one is written the next gathers anyway.
    pub linger_ms: u64,
    /// Events a batch.
    pub batch_events: usize,
}

impl Default for CacheConfig {
    fn default() -> CacheConfig {
        CacheConfig { linger_ms: 0, batch_events: 5_000 }
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
