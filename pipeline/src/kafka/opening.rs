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
    turn: Mutex<UnderWay>,
}

/// First messages that were handed over and are not known to be delivered.
#[derive(Default)]
struct UnderWay {
    places: Vec<(String, i32)>,
    /// How many deliveries of the producer had failed when the first of them was handed over.
    failures: u64,
}

/// The right to send to a partition that is not open: one at a time has it.
pub(super) struct Turn<'o> {
    openings: &'o Openings,
    under_way: MutexGuard<'o, UnderWay>,
}

impl Openings {
    /// Nothing where the broker knows the producer already.
    pub(super) async fn turn(&self, topic: &str, partition: i32) -> Option<Turn<'_>> {
        if self.is_open(topic, partition) {
            return None;
        }
        let under_way = self.turn.lock().await;
        // Another message may have opened it meanwhile.
        (!self.is_open(topic, partition)).then_some(Turn { openings: self, under_way })
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

impl Turn<'_> {
    /// Whether the first message to the partition is under way: no other may follow it yet.
    pub(super) fn has_to_wait(&self, topic: &str, partition: i32) -> bool {
        self.under_way.places.iter().any(|(t, p)| (t.as_str(), *p) == (topic, partition))
    }

    /// The first message was handed over, when so many deliveries of the producer had failed.
    pub(super) fn sent(mut self, topic: &str, partition: i32, failures: u64) {
        if self.under_way.places.is_empty() {
            self.under_way.failures = failures;
        }
        self.under_way.places.push((topic.to_owned(), partition));
    }

    /// Nothing is under way any more, and so many deliveries have failed by now: where none has since,
    /// every first message was delivered, else the next one to each partition is its first again.
    pub(super) fn settle(&mut self, failures: u64) {
        let delivered = failures == self.under_way.failures;
        for (topic, partition) in std::mem::take(&mut self.under_way.places) {
            if delivered {
                self.openings.note(&topic, partition, Instant::now());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_partition_is_open_once_its_first_message_was_delivered() {
        let openings = Openings::default();
        let first = openings.turn("t", 0).await.expect("nothing was sent");
        assert!(!first.has_to_wait("t", 0), "it is the first");
        first.sent("t", 0, 7);
        let mut second = openings.turn("t", 0).await.expect("the first was not delivered");
        assert!(second.has_to_wait("t", 0) && !second.has_to_wait("t", 1));
        second.settle(7);
        drop(second);
        assert!(openings.turn("t", 0).await.is_none());
        assert!(openings.turn("t", 1).await.is_some(), "each partition by itself");
        assert!(openings.turn("u", 0).await.is_some(), "each topic by itself");
    }

    #[tokio::test]
    async fn a_partition_whose_first_message_may_have_failed_is_not_open() {
        let openings = Openings::default();
        openings.turn("t", 0).await.expect("nothing was sent").sent("t", 0, 7);
        openings.turn("t", 1).await.expect("nothing was sent").sent("t", 1, 8);
        let mut turn = openings.turn("t", 0).await.expect("the first was not delivered");
        turn.settle(8);
        assert!(!turn.has_to_wait("t", 0), "the next one is the first again");
        drop(turn);
        assert!(openings.turn("t", 0).await.is_some() && openings.turn("t", 1).await.is_some());
    }

    #[tokio::test]
    async fn a_partition_that_was_silent_for_long_is_opened_again() {
        let openings = Openings::default();
        let Some(long_ago) = Instant::now().checked_sub(OPEN_FOR + NOTED_EVERY) else { return };
        openings.note("t", 0, long_ago);
        assert!(openings.turn("t", 0).await.is_some());
    }
}
