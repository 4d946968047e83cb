//! librdkafka settings: what the pipeline needs for its guarantees, then the user's.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use rdkafka::ClientConfig;

pub use crate::config::KafkaConfig as KafkaSettings;

/// Settings that the guarantees rest on, with the invariant that would fall with them.
const PROTECTED: &[(&str, &str)] = &[
    ("acks", "1"),
    ("enable.idempotence", "1"),
    ("enable.gapless.guarantee", "3"),
    ("enable.auto.commit", "1"),
    ("enable.auto.offset.store", "1"),
    ("auto.offset.reset", "1"),
    ("partition.assignment.strategy", "1"),
    ("partitioner", "3"),
    ("check.crcs", "1"),
    ("delivery.report.only.error", "1"),
];

/// Pre-fetched messages a consumer may hold, in KiB (invariant 8). Only keys and values count; what
/// librdkafka keeps of each message is several times as much.
const PREFETCH_KIB: &str = "4096";
/// How long fetching rests when that much is held. The default, a second, is far longer than it
/// takes to use it up: every consumer that caught up would stand still most of the time.
const FETCH_REST_MS: &str = "5";
/// Messages a producer may hold, in KiB and in number (invariant 8).
const PRODUCER_QUEUE_KIB: &str = "65536";
const PRODUCER_QUEUE_MESSAGES: &str = "200000";
/// Longest pause between two attempts to connect, as Java's clients have it. With librdkafka's own 10 s every
/// client would stay away for that long after a broker that was gone for a few seconds is back.
const RECONNECT_MOST_MS: &str = "1000";
/// How long one attempt of an unordered producer lasts; whoever uses it tries again.
const UNORDERED_TIMEOUT_MS: &str = "30000";

/// Longer than a request takes: librdkafka lets an idempotent producer have one under way for each partition, and
/// its thread spins, at the broker's expense, while messages behind it have lingered long enough.
const LINGER_MS: &str = "5";
/// Requests under way on a connection, under both names that it has. With 1 the next one waits where librdkafka does not
/// spin for it; a broker answers the requests of a connection one after the other anyway.
const IN_FLIGHT: [&str; 2] = ["max.in.flight.requests.per.connection", "max.in.flight"];
/// Longer than it takes to queue a batch; its end is flushed.
const BATCH_LINGER_MS: &str = "100";
/// A partition's part of a batch should fit one request: the next would be waited for with a spinning thread.
const BATCH_REQUEST_BYTES: &str = "1000000";

impl KafkaSettings {
    /// Refuses settings that would break a guarantee.
    pub fn check(&self) -> Result<()> {
        let all = [&self.properties, &self.consumer_properties, &self.producer_properties];
        for (key, invariant) in PROTECTED {
            if all.iter().any(|properties| properties.contains_key(*key)) {
                bail!("kafka property `{key}` cannot be set: invariant {invariant} rests on it");
            }
        }
        Ok(())
    }

    /// For any client.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "tapeline")
            .set("reconnect.backoff.max.ms", RECONNECT_MOST_MS);
        apply(&mut config, &self.properties);
        config
    }

    /// For consumers; without a group where `group` is none.
    pub fn consumer(&self, group: Option<&str>) -> ClientConfig {
        let mut config = self.client();
        config
            .set("group.id", group.unwrap_or("tapeline-reader"))
            .set("queued.max.messages.kbytes", PREFETCH_KIB)
            .set("fetch.queue.backoff.ms", FETCH_REST_MS)
            .set("fetch.max.bytes", "2097152")
            .set("max.partition.fetch.bytes", "524288");
        if group.is_some() {
            // Lag is shown of groups; others would only log their statistics.
            config.set("statistics.interval.ms", "10000");
        }
        apply(&mut config, &self.consumer_properties);
        config
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("enable.partition.eof", "false")
            .set("check.crcs", "true");
        config
    }

    /// For a consumer of fixed ranges. Its statistics tell where a range ends with offsets that
    /// Kafka never delivers.
    pub fn fixed_consumer(&self) -> ClientConfig {
        let mut config = self.consumer(None);
        config.set("statistics.interval.ms", "1000");
        config
    }

    /// For producers.
    pub fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        config
            .set("compression.type", "lz4")
            .set("linger.ms", LINGER_MS)
            .set("batch.size", "524288")
            .set("queue.buffering.max.kbytes", PRODUCER_QUEUE_KIB)
            .set("queue.buffering.max.messages", PRODUCER_QUEUE_MESSAGES)
            .set("message.max.bytes", "8388608");
        apply(&mut config, &self.producer_properties);
        config
            .set("enable.idempotence", "true")
            .set("enable.gapless.guarantee", "true")
            .set("acks", "all")
            // Java's default partitioner; librdkafka's own default differs.
            .set("partitioner", "murmur2_random");
        config
    }

    /// For producers whose messages may come in any order, and again, but must not be given up
    /// because one of them failed.
    pub fn unordered_producer(&self) -> ClientConfig {
        let mut config = self.producer();
        config
            .set("enable.gapless.guarantee", "false")
            .set("message.timeout.ms", UNORDERED_TIMEOUT_MS);
        config
    }

    /// For a [`super::Bulk`] producer of batches: nothing is sent before all of a batch is
    /// queued or a request is full, and only failures are reported.
    pub fn bulk_producer(&self) -> ClientConfig {
        let mut config = self.producer();
        config
            .set("linger.ms", BATCH_LINGER_MS)
            .set("batch.size", BATCH_REQUEST_BYTES)
            .set("delivery.report.only.error", "true");
        config
    }

    /// For a [`super::Bulk`] producer of a stream: it does not wait for the end of a batch, and has one request
    /// under way where the user says nothing else.
    pub fn stream_producer(&self) -> ClientConfig {
        let mut config = self.producer();
        config.set("delivery.report.only.error", "true");
        if IN_FLIGHT.iter().all(|key| config.get(key).is_none()) {
            config.set(IN_FLIGHT[0], "1");
        }
        config
    }
}

fn apply(config: &mut ClientConfig, properties: &BTreeMap<String, String>) {
    for (key, value) in properties {
        config.set(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_has_one_request_under_way_unless_the_user_says_otherwise() {
        let mut settings = KafkaSettings::default();
        assert_eq!(settings.stream_producer().get(IN_FLIGHT[0]), Some("1"));
        settings.properties.insert(IN_FLIGHT[1].to_owned(), "5".to_owned());
        assert_eq!(settings.stream_producer().get(IN_FLIGHT[0]), None);
        assert_eq!(settings.stream_producer().get(IN_FLIGHT[1]), Some("5"));
    }

    #[test]
    fn a_setting_that_a_guarantee_rests_on_is_refused_by_name() {
        let mut settings = KafkaSettings {
            consumer_properties: BTreeMap::from([("fetch.min.bytes".to_owned(), "1".to_owned())]),
            ..KafkaSettings::default()
        };
        settings.check().expect("tuning is allowed");
        settings.producer_properties.insert("acks".to_owned(), "1".to_owned());
        let refused = settings.check().expect_err("acks");
        assert!(refused.to_string().contains("`acks`"), "{refused}");
    }
}
