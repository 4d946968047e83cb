//! The connectors and their venues.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::text;

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
    /// Raw frames that are kept.
    pub record: RecordConfig,
}

/// Raw frames, kept as they came so that a decoder's bug can be repaired.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecordConfig {
    /// Whether they are kept.
    pub enabled: bool,
    /// Directory of the files; it is made where it is not there.
    pub dir: String,
    /// Compressed MiB of one file.
    pub file_mb: u64,
    /// Compressed MiB of all files of a venue; the oldest go first.
    pub max_mb: u64,
    /// Hours after which a file goes.
    pub keep_hours: u64,
}

impl Default for RecordConfig {
    fn default() -> RecordConfig {
        RecordConfig {
            enabled: true,
            dir: "recordings".into(),
            file_mb: 64,
            max_mb: 10_240,
            keep_hours: 72,
        }
    }
}

impl Default for ConnectConfig {
    fn default() -> ConnectConfig {
        ConnectConfig {
            venues: BTreeMap::new(),
            book_depth: 25,
            book_interval_ms: 1_000,
            complete_interval_ms: 1_000,
            record: RecordConfig::default(),
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
