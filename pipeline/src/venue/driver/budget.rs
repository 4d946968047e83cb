//! How often a venue may be asked: one budget for all that share a Redis, a local one without it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::Script;
use tokio::time::Instant;
use tracing::warn;

use super::backoff;
use super::shared::Shared;
use crate::venue::Budget;

/// Longest time that one refusal of a venue keeps everybody from asking: Binance's longest ban.
const MAX_PAUSE: Duration = Duration::from_secs(3 * 86_400);

/// The local budget: the moment at which it would be full again.
#[derive(Debug)]
struct Bucket {
    full_at: Instant,
    capacity: Duration,
}

impl Bucket {
    /// How long to wait before `want` may be taken.
    fn wait(&self, want: Duration, now: Instant) -> Duration {
        let after = self.full_at.max(now) + want;
        after.saturating_duration_since(now).saturating_sub(self.capacity)
    }

    fn take(&mut self, want: Duration, now: Instant) {
        self.full_at = self.full_at.max(now) + want;
    }

    fn pause(&mut self, pause: Duration, now: Instant) {
        self.full_at = self.full_at.max(now + self.capacity + pause);
    }
}

/// A venue's budget of requests (R1). Everybody who asks the venue, of any process, takes from
/// `rate_limit:{exchange}:{endpoint}` in Redis; where that does not answer, from a budget of their own.
#[derive(Debug)]
pub struct RequestBudget {
    venue: String,
    key: String,
    budget: Budget,
    local: Mutex<Bucket>,
    shared: Option<Shared>,
    script: Script,
    /// Who comes first is served first.
    turn: tokio::sync::Mutex<()>,
}

impl RequestBudget {
    /// The budget of `venue` as served at `base`, the address of its REST interface: venues limit what comes to
    /// an address, and a playback of a venue is no load on the venue.
    pub fn new(venue: &str, base: &str, budget: Budget, shared: Option<Shared>) -> RequestBudget {
        let endpoint = base.split_once("://").map_or(base, |(_, rest)| rest).trim_end_matches('/');
        // What stands before an `@` may be a password.
        let endpoint = endpoint.rsplit_once('@').map_or(endpoint, |(_, host)| host);
        let capacity = budget.refill.saturating_mul(budget.burst.max(1));
        RequestBudget {
            venue: venue.to_owned(),
            key: format!("rate_limit:{venue}:{endpoint}"),
            budget,
            local: Mutex::new(Bucket { full_at: Instant::now(), capacity }),
            shared,
            script: Script::new(include_str!("budget.lua")),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// Waits until a request of this weight may be sent. One heavier than the whole budget takes all of it.
    pub async fn take(&self, weight: u32) {
        let weight = weight.clamp(1, self.budget.burst.max(1));
        let want = self.budget.refill.saturating_mul(weight);
        let _turn = self.turn.lock().await;
        loop {
            let mut wait = self.local().wait(want, Instant::now());
            if wait.is_zero() {
                wait = self.ask(micros(want)).await;
            }
            if wait.is_zero() {
                self.local().take(want, Instant::now());
                return;
            }
            // Those who wait together do not ask together.
            let jitter = backoff::jitter(wait / 8 + Duration::from_millis(10));
            tokio::time::sleep(wait.saturating_add(jitter)).await;
        }
    }

    /// The venue said that it was asked too often: nobody asks again before `pause` is over.
    pub async fn pause(&self, pause: Duration) {
        let pause = pause.clamp(Duration::from_millis(1), MAX_PAUSE);
        warn!(venue = self.venue, seconds = pause.as_secs(), "asked too often, waiting");
        self.local().pause(pause, Instant::now());
        self.ask(-micros(pause)).await;
    }

    /// What the shared budget answers; without one, that there is nothing to wait for.
    async fn ask(&self, want: i64) -> Duration {
        let Some(shared) = &self.shared else { return Duration::ZERO };
        let mut call = self.script.key(&self.key);
        call.arg(want).arg(micros(self.local().capacity));
        let wait: Option<u64> = shared.call(&call).await;
        wait.map_or(Duration::ZERO, Duration::from_micros)
    }

    fn local(&self) -> MutexGuard<'_, Bucket> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_the_rest_waits_for_its_weight_and_a_pause_stops_everything() {
        let (second, now) = (Duration::from_secs(1), Instant::now());
        let mut bucket = Bucket { full_at: now, capacity: 3 * second };
        assert_eq!(bucket.wait(3 * second, now), Duration::ZERO);
        bucket.take(3 * second, now);
        assert_eq!(bucket.wait(second, now), second);
        assert_eq!(bucket.wait(3 * second, now + second), 2 * second);
        assert_eq!(bucket.wait(3 * second, now + 3 * second), Duration::ZERO);
        bucket.pause(60 * second, now);
        assert_eq!(bucket.wait(second, now), 61 * second);
    }
}
