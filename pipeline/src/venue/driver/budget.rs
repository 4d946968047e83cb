//! How often a venue may be asked: one budget for all that share a Redis, a local one without it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::Script;
use tokio::time::Instant;
use tracing::warn;

use super::shared::Shared;
use crate::venue::Budget;

/// Longest time that one refusal of a venue keeps everybody from asking: Binance's longest ban.
const MAX_PAUSE: Duration = Duration::from_secs(3 * 86_400);

/// A budget as the moment at which it would be full again: who takes of it reserves a turn, and comes before all that ask
/// later.
#[derive(Debug)]
pub(super) struct Bucket {
    full_at: Instant,
    refill: Duration,
    capacity: Duration,
    paused_until: Instant,
    /// By how much pauses have moved all turns so far.
    moved: Duration,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(Budget { burst, refill }: Budget) -> Bucket {
        let (now, capacity) = (Instant::now(), refill.saturating_mul(burst.max(1)));
        Bucket { full_at: now, refill, capacity, paused_until: now, moved: Duration::ZERO }
    }

    /// Reserves a turn for something of this weight, not before `earliest`.
    pub(super) fn reserve(&mut self, weight: u32, earliest: Instant) -> Instant {
        self.full_at = self.full_at.max(earliest) + self.refill.saturating_mul(weight);
        self.full_at.checked_sub(self.capacity).map_or(earliest, |turn| turn.max(earliest))
    }

    /// Nobody has a turn before `pause` is over; of several at once the longest counts.
    fn pause(&mut self, pause: Duration, now: Instant) {
        let paused_until = self.paused_until.max(now);
        let by = (now + pause).saturating_duration_since(paused_until);
        self.paused_until = paused_until + by;
        self.moved += by;
        self.full_at = (self.full_at.max(now) + by).max(self.paused_until + self.capacity);
    }
}

/// What the shared budget answers.
#[derive(Debug, Clone, Copy)]
struct Turn {
    /// Until the turn.
    wait: Duration,
    /// By how much pauses have moved all turns so far.
    moved: Duration,
}

/// A venue's budget of requests (R1). Everybody who asks the venue, of any process, takes from
/// `rate_limit:{exchange}:{endpoint}` in Redis; where that does not answer, from a budget of their own. A turn is reserved
/// by asking, so that of all processes who asks first is served first, however heavy the request is.
#[derive(Debug)]
pub struct RequestBudget {
    venue: String,
    key: String,
    budget: Budget,
    local: Mutex<Bucket>,
    shared: Option<Shared>,
    script: Script,
    /// Of this process one holds a reservation at a time: what is asked for and given up again costs no more than that.
    turn: tokio::sync::Mutex<()>,
}

impl RequestBudget {
    /// The budget of `venue` as served at `base`, the address of its REST interface: venues limit what comes to
    /// an address, and a playback of a venue is no load on the venue.
    pub fn new(venue: &str, base: &str, budget: Budget, shared: Option<Shared>) -> RequestBudget {
        let endpoint = base.split_once("://").map_or(base, |(_, rest)| rest).trim_end_matches('/');
        // What stands before an `@` may be a password.
        let endpoint = endpoint.rsplit_once('@').map_or(endpoint, |(_, host)| host);
        RequestBudget {
            venue: venue.to_owned(),
            key: format!("rate_limit:{venue}:{endpoint}"),
            budget,
            local: Mutex::new(Bucket::new(budget)),
            shared,
            script: Script::new(include_str!("budget.lua")),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// Waits until a request of this weight may be sent. One heavier than the whole budget takes all of it. Who gives
    /// up waiting loses what it reserved: the budget is as if it had been used.
    pub async fn take(&self, weight: u32) {
        let weight = weight.clamp(1, self.budget.burst.max(1));
        let _turn = self.turn.lock().await;
        let shared = self.ask(micros(self.budget.refill.saturating_mul(weight))).await;
        let earliest = Instant::now() + shared.map_or(Duration::ZERO, |turn| turn.wait);
        let (reserved, own) = {
            let mut local = self.local();
            (local.reserve(weight, earliest), local.moved)
        };
        let mut turn = reserved;
        while Instant::now() < turn {
            tokio::time::sleep_until(turn).await;
            // A refusal that came meanwhile stops those who wait too.
            let now = if shared.is_some() { self.ask(0).await } else { None };
            let others = shared.zip(now).map(|(then, now)| now.moved.saturating_sub(then.moved));
            let by = self.local().moved.saturating_sub(own).max(others.unwrap_or_default());
            turn = reserved + by;
        }
    }

    /// The venue said that it was asked too often: nobody asks again before `pause` is over.
    pub async fn pause(&self, pause: Duration) {
        let pause = pause.clamp(Duration::from_millis(1), MAX_PAUSE);
        warn!(venue = self.venue, seconds = pause.as_secs(), "asked too often, waiting");
        self.local().pause(pause, Instant::now());
        self.ask(-micros(pause)).await;
    }

    /// What the shared budget answers; none without one. See `budget.lua` for what may be asked.
    async fn ask(&self, want: i64) -> Option<Turn> {
        let shared = self.shared.as_ref()?;
        let mut call = self.script.key(&self.key);
        call.arg(want).arg(micros(self.local().capacity));
        let (wait, moved) = shared.call(&call).await?;
        Some(Turn { wait: Duration::from_micros(wait), moved: Duration::from_micros(moved) })
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
    use crate::venue::{Settings, venue};

    const SECOND: Duration = Duration::from_secs(1);

    fn three() -> (Bucket, Instant) {
        let bucket = Bucket::new(Budget { burst: 3, refill: SECOND });
        let now = bucket.full_at;
        (bucket, now)
    }

    #[test]
    fn a_burst_is_free_and_who_comes_later_has_a_later_turn_however_light() {
        let (mut bucket, now) = three();
        assert_eq!(bucket.reserve(3, now), now);
        assert_eq!(bucket.reserve(3, now), now + 3 * SECOND);
        assert_eq!(bucket.reserve(1, now + SECOND), now + 4 * SECOND);
        // Full again, and no more than full.
        let later = now + 60 * SECOND;
        assert_eq!(bucket.reserve(3, later), later);
        assert_eq!(bucket.reserve(1, later), later + SECOND);
    }

    #[test]
    fn a_pause_moves_every_turn_and_of_several_the_longest_counts() {
        let (mut bucket, now) = three();
        assert_eq!(bucket.reserve(3, now), now);
        assert_eq!(bucket.reserve(1, now), now + SECOND);
        bucket.pause(60 * SECOND, now);
        bucket.pause(60 * SECOND, now);
        bucket.pause(10 * SECOND, now);
        assert_eq!(bucket.moved, 60 * SECOND, "who waits has the turn so much later");
        assert_eq!(bucket.reserve(1, now), now + 62 * SECOND);
        bucket.pause(61 * SECOND, now);
        assert_eq!(bucket.moved, 61 * SECOND);
    }

    #[test]
    fn after_a_pause_there_is_no_burst() {
        let (mut bucket, now) = three();
        bucket.pause(60 * SECOND, now);
        assert_eq!(bucket.reserve(1, now), now + 61 * SECOND);
    }

    #[test]
    fn no_venue_gets_more_messages_on_a_connection_than_it_documents() {
        // Binance counts a ping and a pong among its five.
        for (name, within, most) in [
            ("BINANCE", 1, 3),
            ("UPBIT", 1, 5),
            ("UPBIT", 60, 100),
            ("DERIBIT", 10, 43),
            ("OKX", 3_600, 480),
        ] {
            let connector = venue(name).map(|spec| (spec.connector)(Settings::new(vec![], vec![])));
            let pace = connector.and_then(|connector| connector.keepalive().pace);
            let mut bucket = Bucket::new(pace.expect(name));
            let start = bucket.full_at;
            let turns: Vec<Instant> = (0..1_000).map(|_| bucket.reserve(1, start)).collect();
            let is_kept = |some: &[Instant]| some[most] - some[0] >= within * SECOND;
            assert!(turns.windows(most + 1).all(is_kept), "{name} within {within} s");
        }
    }
}
