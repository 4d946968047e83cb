//! What the group coordinator gives and takes, carried out of librdkafka's callback.
//!
//! librdkafka waits for `incremental_assign` and `incremental_unassign` as long as the consumer
//! is polled, so both are called later, once the lanes have said where to start or have drained.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rdkafka::bindings::rd_kafka_resp_err_t;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::{ClientContext, Statistics, TopicPartitionList};

/// A change of the assignment.
#[derive(Debug)]
pub(super) enum Change {
    Assign(TopicPartitionList),
    Revoke(TopicPartitionList),
}

/// Collects changes for the consumer's thread.
#[derive(Default)]
pub(super) struct Rebalances {
    changes: Mutex<Vec<Change>>,
    closing: AtomicBool,
    group: String,
    /// Of a consumer without a group: how far partitions whose queue is empty were fetched.
    fetched: Option<Mutex<Vec<Fetched>>>,
}

/// Topic, partition and the next offset to be fetched.
pub(super) type Fetched = (String, i32, i64);

impl Rebalances {
    pub(super) fn new(group: &str, in_group: bool) -> Rebalances {
        let fetched = (!in_group).then(Mutex::default);
        Rebalances { group: group.to_owned(), fetched, ..Rebalances::default() }
    }

    /// How far partitions whose queue is empty were fetched, where that became known since the
    /// last call.
    pub(super) fn take_fetched(&self) -> Vec<Fetched> {
        let Some(fetched) = &self.fetched else { return Vec::new() };
        std::mem::take(&mut *fetched.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Name of the consumer group.
    pub(super) fn group(&self) -> &str {
        &self.group
    }

    /// Changes since the last call.
    pub(super) fn take(&self) -> Vec<Change> {
        std::mem::take(&mut *self.changes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From here on changes are obeyed at once: nobody is left to drain.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }
}

impl ClientContext for Rebalances {
    fn stats(&self, statistics: Statistics) {
        if let Some(fetched) = &self.fetched {
            let partitions = statistics.topics.iter().flat_map(|(name, topic)| {
                topic.partitions.values().map(move |partition| (name, partition))
            });
            *fetched.lock().unwrap_or_else(PoisonError::into_inner) = partitions
                .filter(|(_, partition)| partition.partition >= 0 && partition.fetchq_cnt == 0)
                .map(|(name, partition)| (name.clone(), partition.partition, partition.next_offset))
                .collect();
            return;
        }
        for (topic, partitions) in &statistics.topics {
            for (number, partition) in &partitions.partitions {
                if *number >= 0 && partition.consumer_lag >= 0 {
                    metrics::gauge!(
                        "tapeline_consumer_lag_records", "group" => self.group.clone(),
                        "topic" => topic.clone(), "partition" => number.to_string()
                    )
                    .set(partition.consumer_lag as f64);
                }
            }
        }
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: rd_kafka_resp_err_t,
        list: &mut TopicPartitionList,
    ) {
        let assign = code == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::Acquire) {
            let obeyed = if assign {
                consumer.incremental_assign(&TopicPartitionList::new())
            } else {
                consumer.incremental_unassign(list)
            };
            if let Err(error) = obeyed {
                tracing::debug!(%error, "rebalance while closing");
            }
            return;
        }
        let change =
            if assign { Change::Assign(list.clone()) } else { Change::Revoke(list.clone()) };
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).push(change);
    }
}
