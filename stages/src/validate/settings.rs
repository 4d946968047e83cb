//! What the stage is told, and how what it writes names that.

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::RULES_VERSION;

/// What is odd, and how much is remembered to know it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A venue time further ahead of the receive time is flagged `future`.
    pub max_ahead: Duration,
    /// A venue time further behind the receive time is flagged `late`.
    pub max_behind: Duration,
    /// A venue time further ahead of the receive time goes to quarantine.
    pub reject_ahead: Duration,
    /// A price more than this many median absolute deviations away is flagged.
    pub price_jump_deviations: u32,
    /// Identities remembered for each symbol and kind.
    pub memory_per_symbol: usize,
}

impl Settings {
    /// Which rules judge under these settings: their version and a hash of the settings, so that
    /// two members that judge differently say so in what they write.
    pub fn rules(&self) -> String {
        let Settings { max_ahead, max_behind, reject_ahead, .. } = self;
        let times = [max_ahead, max_behind, reject_ahead].map(|time| time.as_micros().to_string());
        let numbers = [u64::from(self.price_jump_deviations), self.memory_per_symbol as u64];
        let text = format!("{} {numbers:?}", times.join(" "));
        format!("{RULES_VERSION}.{:08x}", xxh3_64(text.as_bytes()) as u32)
    }
}
