//! How long to wait before trying again, and how often to ask at all.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::sync::Mutex;
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
pub(super) struct Tokens {
    budget: Budget,
    /// When the bucket would be full again; each request moves it.
    full_at: Mutex<Instant>,
}

impl Tokens {
    pub(super) fn new(budget: Budget) -> Tokens {
        Tokens { budget, full_at: Mutex::new(Instant::now()) }
    }

    /// Waits for a token. Who comes first is served first.
    pub(super) async fn take(&self) {
        let mut full_at = self.full_at.lock().await;
        let now = Instant::now();
        let debt = full_at.saturating_duration_since(now) + self.budget.refill;
        let free = self.budget.refill.saturating_mul(self.budget.burst);
        *full_at = now + debt;
        let wait = debt.saturating_sub(free);
        drop(full_at);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// The venue said that it was asked too often: nobody asks again before `pause` is over.
    pub(super) async fn pause(&self, pause: Duration) {
        let free = self.budget.refill.saturating_mul(self.budget.burst);
        let mut full_at = self.full_at.lock().await;
        *full_at = (*full_at).max(Instant::now() + free + pause);
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

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_free_and_the_rest_waits_for_its_token() {
        let refill = Duration::from_secs(2);
        let tokens = Tokens::new(Budget { burst: 3, refill });
        let start = Instant::now();
        for _ in 0..3 {
            tokens.take().await;
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        tokens.take().await;
        tokens.take().await;
        assert!(start.elapsed() >= 2 * refill - Duration::from_millis(5));
        tokens.pause(Duration::from_secs(60)).await;
        let paused = Instant::now();
        tokens.take().await;
        assert!(paused.elapsed() >= Duration::from_secs(60));
    }
}
