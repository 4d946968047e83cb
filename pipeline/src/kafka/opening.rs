//! The first message to a partition goes alone.
//!
//! librdkafka has several requests under way for a partition. Where the first that a producer ever
//! sends there is refused (the partition has no leader yet, or is about to get another) and the second
//! is not, a broker that knows nothing of the producer takes the second (KIP-360), and librdkafka
//! takes that for an answer to the first as well: its messages are gone and reported as delivered
//! (<https://github.com/confluentinc/confluent-kafka-go/issues/921>). Once a broker has taken one
//! message it refuses whatever does not follow it, and all is well; until then one is under way.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard};

/// A broker forgets a producer that was silent for `producer.id.expiration.ms`, by default a day.
const OPEN_FOR: Duration = Duration::from_secs(3_600);
/// How exactly the last use is known: not every message need write it down.
const NOTED_EVERY: Duration = Duration::from_secs(60);

/// The partitions of which a broker knows one producer.
#[derive(Default)]
pub(super) struct Openings {
    /// The last use of each partition, by topic.
    used: RwLock<HashMap<String, HashMap<i32, Instant>>>,
    turn: Mutex<()>,
}

/// The right to send the first message to a partition.
pub(super) struct Opening<'o> {
    openings: &'o Openings,
    topic: &'o str,
    partition: i32,
    _turn: MutexGuard<'o, ()>,
}

impl Openings {
    /// What has to be [`Opening::opened`] by a message's delivery before another is sent there;
    /// nothing where the broker knows the producer already.
    pub(super) async fn first<'o>(&'o self, topic: &'o str, partition: i32) -> Option<Opening<'o>> {
        if self.is_open(topic, partition) {
            return None;
        }
        let turn = self.turn.lock().await;
        // Another message may have opened it meanwhile.
        let opening = Opening { openings: self, topic, partition, _turn: turn };
        (!self.is_open(topic, partition)).then_some(opening)
    }

    fn is_open(&self, topic: &str, partition: i32) -> bool {
        let now = Instant::now();
        let last = {
            let used = self.used.read().unwrap_or_else(PoisonError::into_inner);
            used.get(topic).and_then(|partitions| partitions.get(&partition)).copied()
        };
        let Some(idle) = last.map(|last| now.duration_since(last)) else { return false };
        if idle > OPEN_FOR {
            return false;
        }
        if idle > NOTED_EVERY {
            self.note(topic, partition, now);
        }
        true
    }

    fn note(&self, topic: &str, partition: i32, now: Instant) {
        let mut used = self.used.write().unwrap_or_else(PoisonError::into_inner);
        used.entry(topic.to_owned()).or_default().insert(partition, now);
    }
}

impl Opening<'_> {
    /// The message was delivered.
    pub(super) fn opened(self) {
        self.openings.note(self.topic, self.partition, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_partition_is_open_once_its_first_message_was_delivered() {
        let openings = Openings::default();
        assert!(openings.first("t", 0).await.is_some());
        let opening = openings.first("t", 0).await.expect("the first was not delivered");
        opening.opened();
        assert!(openings.first("t", 0).await.is_none());
        assert!(openings.first("t", 1).await.is_some(), "each partition by itself");
        assert!(openings.first("u", 0).await.is_some(), "each topic by itself");
    }

    #[tokio::test]
    async fn a_partition_that_was_silent_for_long_is_opened_again() {
        let openings = Openings::default();
        let Some(long_ago) = Instant::now().checked_sub(OPEN_FOR + NOTED_EVERY) else { return };
        openings.note("t", 0, long_ago);
        assert!(openings.first("t", 0).await.is_some());
    }
}
