//! What the group coordinator gives and takes, carried out of librdkafka's callback.
//!
//! librdkafka waits for `incremental_assign` and `incremental_unassign` as long as the consumer
//! is polled, so both are called later, once the lanes have said where to start or have drained.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::bindings::rd_kafka_resp_err_t;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::statistics::Broker;
use rdkafka::{ClientConfig, ClientContext, Statistics, TopicPartitionList};

use super::consumer::{ConsumerOptions, Membership};
use super::recreated::{DEBUG_CONTEXT, Recreated};
use crate::config::GroupProtocol;

/// How long a member of the new protocol that is given nothing is believed to be still joining.
const SETTLED_MS: i64 = 5_000;

/// librdkafka's name of the connection to the group's coordinator.
const COORDINATOR: &str = "GroupCoordinator";
/// How long the coordinator may be out of reach while brokers are not. librdkafka may lose its way
/// to it for good once a broker has been missing from the metadata (librdkafka 5511).
const CUT_OFF: Duration = Duration::from_secs(60);

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
    protocol: GroupProtocol,
    owned: Mutex<HashSet<(String, i32)>>,
    /// The group is settled and has no partition for this member.
    none_to_own: AtomicBool,
    /// Since when brokers can be reached and the coordinator cannot.
    cut_off_since: Mutex<Option<Instant>>,
    /// Of a consumer without a group: how far partitions whose queue is empty were fetched.
    fetched: Option<Mutex<Vec<Fetched>>>,
    recreated: Recreated,
    /// What librdkafka says for debugging is wanted in the log.
    is_debugged: bool,
}

/// Topic, partition and the next offset to be fetched.
pub(super) type Fetched = (String, i32, i64);

impl Rebalances {
    pub(super) fn new(options: &ConsumerOptions) -> Rebalances {
        let in_group = matches!(options.membership, Membership::Group);
        Rebalances {
            group: options.group.clone(),
            protocol: options.protocol,
            fetched: (!in_group).then(Mutex::default),
            recreated: Recreated::new(&options.ids),
            is_debugged: options.config.get("debug").is_some(),
            ..Rebalances::default()
        }
    }

    /// `config` with what this has to hear of librdkafka.
    pub(super) fn listening(config: &ClientConfig) -> ClientConfig {
        let mut config = config.clone();
        let debug = match config.get("debug") {
            Some(wanted) => format!("{wanted},{DEBUG_CONTEXT}"),
            None => DEBUG_CONTEXT.to_owned(),
        };
        config.set("debug", debug).set_log_level(RDKafkaLogLevel::Debug);
        config
    }

    /// That a topic is not the one it was, once librdkafka knows; before anything of the new one
    /// is read.
    pub(super) fn recreated(&self) -> Option<&str> {
        self.recreated.found()
    }

    /// How far partitions whose queue is empty were fetched, where that became known since the
    /// last call.
    pub(super) fn take_fetched(&self) -> Vec<Fetched> {
        let Some(fetched) = &self.fetched else { return Vec::new() };
        std::mem::take(&mut *fetched.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Shows what is owned; the lag of what is not is its owner's to show.
    pub(super) fn show(&self, owned: HashSet<(String, i32)>) {
        metrics::gauge!("tapeline_consumer_partitions", "group" => self.group.clone())
            .set(owned.len() as f64);
        let mut before = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
        for (topic, partition) in before.difference(&owned) {
            self.show_lag(topic, *partition, 0);
        }
        *before = owned;
    }

    fn show_lag(&self, topic: &str, partition: i32, lag: i64) {
        metrics::gauge!(
            "tapeline_consumer_lag_records", "group" => self.group.clone(),
            "topic" => topic.to_owned(), "partition" => partition.to_string()
        )
        .set(lag as f64);
    }

    /// The group has no partition for this member.
    pub(super) fn none_to_own(&self) {
        self.none_to_own.store(true, Ordering::Release);
    }

    /// Whether the group is settled and has no partition for this member.
    pub(super) fn has_none_to_own(&self) -> bool {
        self.none_to_own.load(Ordering::Acquire)
    }

    /// Whether nothing but a new consumer will find the coordinator again.
    pub(super) fn is_cut_off(&self) -> bool {
        let since = self.cut_off_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() >= CUT_OFF)
    }

    /// Puts a change back that cannot be obeyed yet.
    pub(super) fn put_back(&self, change: Change) {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).insert(0, change);
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

/// Whether a group has no way to its coordinator although brokers answer: it looks for it, or believes to know it, and the
/// connection to it is not there.
fn is_cut_off<'b>(state: &str, brokers: impl Iterator<Item = &'b Broker> + Clone) -> bool {
    let up = |broker: &Broker| broker.state == "UP";
    // Its number may stand behind its name.
    let is_lost = |broker: &Broker| broker.name.starts_with(COORDINATOR) && !up(broker);
    (state != "up" || brokers.clone().any(is_lost))
        && brokers.clone().any(|broker| broker.source != "logical" && up(broker))
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        self.recreated.hear(message);
        if self.is_debugged || !matches!(level, RDKafkaLogLevel::Debug) {
            DefaultClientContext.log(level, fac, message);
        }
    }

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
        // A member without partitions is not told so by every protocol.
        if let Some(group) = &statistics.cgrp {
            let settled = match self.protocol {
                GroupProtocol::Classic => group.join_state == "steady",
                // Who was never given anything stays in the first state of joining.
                GroupProtocol::Consumer => {
                    ["init", "steady"].contains(&group.join_state.as_str())
                        && group.state == "up"
                        && group.stateage >= SETTLED_MS
                }
            };
            let none = settled && group.assignment_size == 0;
            self.none_to_own.store(none, Ordering::Release);
            let is_cut_off = is_cut_off(&group.state, statistics.brokers.values());
            let mut since = self.cut_off_since.lock().unwrap_or_else(PoisonError::into_inner);
            *since = is_cut_off.then(|| since.unwrap_or_else(Instant::now));
        }
        let owned = self.owned.lock().unwrap_or_else(PoisonError::into_inner);
        for (topic, partition) in owned.iter() {
            let topics = statistics.topics.get(topic);
            let lag = topics.and_then(|t| t.partitions.get(partition)).map(|p| p.consumer_lag);
            if let Some(lag) = lag.filter(|lag| *lag >= 0) {
                self.show_lag(topic, *partition, lag);
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
        self.none_to_own.store(false, Ordering::Release);
        let change =
            if assign { Change::Assign(list.clone()) } else { Change::Revoke(list.clone()) };
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).push(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broker(name: &str, source: &str, state: &str) -> Broker {
        let [name, source, state] = [name, source, state].map(str::to_owned);
        Broker { name, source, state, ..Broker::default() }
    }

    #[test]
    fn a_group_is_cut_off_where_its_coordinator_is_out_of_reach_and_brokers_are_not() {
        let case = |state: &str, coordinator: &str, other: &str| {
            let brokers = [
                broker("127.0.0.1:9092/1", "learned", other),
                broker("GroupCoordinator/1", "logical", coordinator),
            ];
            is_cut_off(state, brokers.iter())
        };
        assert!(!case("up", "UP", "UP"));
        assert!(case("query-coord", "UP", "UP"), "it looks for it");
        assert!(case("up", "TRY_CONNECT", "UP"), "it believes to know it");
        assert!(!case("wait-coord", "DOWN", "DOWN"), "nobody answers: that is no reason to end");
        assert!(!case("query-coord", "UP", "INIT"), "the coordinator's own is not another");
    }
}
