//! How long to wait before trying again.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Longest first wait.
const BASE: Duration = Duration::from_millis(250);
/// Longest wait.
const CAP: Duration = Duration::from_secs(30);

/// A wait before the attempt after `failures` failures: capped exponential with full jitter, so that
/// many clients that lost a venue together do not come back together.
pub(crate) fn wait(failures: u32) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let most = BASE.saturating_mul(1_u32 << (failures - 1).min(16)).min(CAP);
    jitter(most)
}

/// Any duration below `most`.
pub(super) fn jitter(most: Duration) -> Duration {
    let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX).max(1);
    Duration::from_micros(random() % micros)
}

/// Any number.
pub(super) fn random() -> u64 {
    // The seed of a hash map is all the randomness that is needed.
    RandomState::new().hash_one(())
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
}
