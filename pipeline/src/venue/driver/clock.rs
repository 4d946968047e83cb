//! Where receive times come from (invariant 11): the wall, or a playback's recording.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use tapeline_schemas::Micros;

/// What precedes the recorded receive time, in microseconds, in the ping that a playback sends before a frame.
pub const ANNOUNCEMENT: &[u8] = b"t=";

/// Header of a playback's REST answers with their recorded receive time in microseconds.
pub const RECORDED_AT: &str = "x-recorded-at";

/// A source of receive times.
pub trait Clock: Send + Sync + 'static {
    /// When what just arrived was received. `announced` is the newest time the other side announced,
    /// on this connection or with this answer; without a time there the answer may be none.
    fn receive_time(&self, announced: Option<Micros>) -> Option<Micros>;
}

/// The wall clock, never going back.
#[derive(Debug, Default)]
pub struct SystemClock {
    newest: AtomicI64,
}

impl Clock for SystemClock {
    // The one place of the venues where the wall clock is read.
    #[allow(clippy::disallowed_methods)]
    fn receive_time(&self, _announced: Option<Micros>) -> Option<Micros> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(since.as_micros()).unwrap_or(i64::MAX);
        Some(Micros(self.newest.fetch_max(now, Ordering::Relaxed).max(now)))
    }
}

/// The times of a recording, as its playback announces them.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlaybackClock;

impl Clock for PlaybackClock {
    fn receive_time(&self, announced: Option<Micros>) -> Option<Micros> {
        announced
    }
}

/// The time in a ping's payload, if it announces one.
pub(super) fn announced(ping: &[u8]) -> Option<Micros> {
    let digits = ping.strip_prefix(ANNOUNCEMENT)?;
    std::str::from_utf8(digits).ok()?.parse().ok().map(Micros)
}
