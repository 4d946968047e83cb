//! How long to wait before trying again, and how often to ask at all.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::venue::Budget;

/// Longest first wait.
const BASE: Duration = Duration::from_millis(250);
/// Longest wait.
const CAP: Duration = Duration::from_secs(30);

/// A wait before the attempt after `failures` failures: capped exponential with full jitter, so that
/// many clients that lost a venue together do not come back together.
pub(super) fn wait(failures: u32) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let most = BASE.saturating_mul(1_u32 << (failures - 1).min(16)).min(CAP);
    let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX).max(1);
    // The seed of a hash map is all the randomness that jitter needs.
    Duration::from_micros(RandomState::new().hash_one(failures) % micros)
}

/// A venue's request budget: tokens that come back one by one.
#[derive(Debug)]
pub(super) struct Tokens(Mutex<Bucket>);

#[derive(Debug)]
struct Bucket {
    budget: Budget,
    /// When the bucket would be full again; each request moves it.
    full_at: Instant,
}

impl Bucket {
    /// How long a bucket takes to fill: that much may be taken in advance.
    fn capacity(&self) -> Duration {
        self.budget.refill.saturating_mul(self.budget.burst)
    }

    /// Takes a token; the answer says how long to wait for it.
    fn take(&mut self, now: Instant) -> Duration {
        self.full_at = self.full_at.max(now) + self.budget.refill;
        self.full_at.saturating_duration_since(now).saturating_sub(self.capacity())
    }

    fn pause(&mut self, now: Instant, pause: Duration) {
        self.full_at = self.full_at.max(now + self.capacity() + pause);
    }
}

impl Tokens {
    pub(super) fn new(budget: Budget) -> Tokens {
        Tokens(Mutex::new(Bucket { budget, full_at: Instant::now() }))
    }

    /// Waits for a token. Who comes first is served first.
    pub(super) async fn take(&self) {
        let wait = self.lock().take(Instant::now());
        tokio::time::sleep(wait).await;
    }

    /// The venue said that it was asked too often: nobody asks again before `pause` is over.
    pub(super) fn pause(&self, pause: Duration) {
        self.lock().pause(Instant::now(), pause);
    }

    fn lock(&self) -> MutexGuard<'_, Bucket> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_a_cap_and_start_at_none() {
        assert_eq!(wait(0), Duration::ZERO);
        for failures in 1..200 {
            assert!(wait(failures) < CAP);
        }
        assert!((0..50).all(|_| wait(1) < BASE));
    }

    #[test]
    fn a_burst_is_free_and_the_rest_waits_for_its_token() {
        let (refill, now) = (Duration::from_secs(2), Instant::now());
        let mut bucket = Bucket { budget: Budget { burst: 3, refill }, full_at: now };
        let waits: Vec<Duration> = (0..5).map(|_| bucket.take(now)).collect();
        assert_eq!(waits, [Duration::ZERO, Duration::ZERO, Duration::ZERO, refill, 2 * refill]);
        assert_eq!(bucket.take(now + Duration::from_secs(60)), Duration::ZERO);
        let minute = Duration::from_secs(60);
        bucket.pause(now, minute);
        assert_eq!(bucket.take(now), minute + refill);
    }
}
