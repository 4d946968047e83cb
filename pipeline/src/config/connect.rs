//! The connectors and their venues.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::text;

/// The connectors.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConnectConfig {
    /// The venues by name (`KRAKEN`; small letters do too).
    pub venues: BTreeMap<String, VenueConfig>,
    /// Name of this process among several that have the same symbols; empty where it is alone. No two may
    /// have the same.
    pub instance: String,
    /// Time after which another of them takes over tickers and books from one that is gone.
    pub lease_ms: u64,
    /// Proxy for everything that goes to venues: `http://` or `socks5://`, `[user:password@]host:port`.
    #[serde(deserialize_with = "text::optional")]
    pub proxy: Option<String>,
    /// File with certificates (PEM) that are trusted beside the well-known ones.
    #[serde(deserialize_with = "text::optional")]
    pub ca_file: Option<String>,
    /// Whether a venue that can may compress what it sends (permessage-deflate).
    pub compression: bool,
    /// Levels a side of published snapshots.
    pub book_depth: usize,
    /// How often a snapshot of each book is published.
    pub book_interval_ms: u64,
    /// How often a venue is declared complete through a time.
    pub complete_interval_ms: u64,
    /// Age at which a connection is replaced by a new one that overlaps it, in seconds; 0 never. Venues cut
    /// connections of a day.
    pub max_connection_age_s: u64,
    /// Shortest silence after which a symbol's feed, if its own pace is livelier, is subscribed to anew, in
    /// milliseconds of receive time; 0 never.
    pub stale_after_ms: u64,
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
            instance: String::new(),
            lease_ms: 3_000,
            proxy: None,
            ca_file: None,
            compression: true,
            book_depth: 25,
            book_interval_ms: 1_000,
            complete_interval_ms: 1_000,
            max_connection_age_s: 23 * 3_600,
            stale_after_ms: 60_000,
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
    /// As `connect.max_connection_age_s`, for this venue.
    pub max_connection_age_s: Option<u64>,
    /// As `connect.stale_after_ms`, for this venue.
    pub stale_after_ms: Option<u64>,
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
            max_connection_age_s: None,
            stale_after_ms: None,
            enabled: true,
        }
    }
}
