//! Errors of librdkafka: which of them end a stage, and what is to be done.

use anyhow::{Context as _, Result};
use rdkafka::Offset;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{ASK, Worker};

impl Worker {
    /// What an error of librdkafka means: a stage ends only with those that will not pass.
    pub(super) fn judge(&self, error: KafkaError) -> Result<()> {
        let code = error.rdkafka_error_code();
        let lost = matches!(
            code,
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
        );
        if lost {
            anyhow::bail!(
                "the log no longer has what is to be read next: {}. Restore it, or start again with --accept-loss: what is gone is then counted as lost",
                self.lost_ranges()
            );
        }
        let twice = matches!(
            code,
            Some(RDKafkaErrorCode::FencedInstanceId | RDKafkaErrorCode::UnreleasedInstanceId)
        );
        if twice {
            anyhow::bail!(
                "{error}: another process has this group.instance_id, or one that died has it until its session ends. Give each process its own"
            );
        }
        match code {
            Some(
                RDKafkaErrorCode::Fatal
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed,
            ) => Err(error).context("consumer"),
            _ => {
                metrics::counter!("tapeline_consumer_errors_total").increment(1);
                tracing::warn!(%error, "kafka");
                Ok(())
            }
        }
    }

    /// Names every range between the position and what the log still has.
    fn lost_ranges(&self) -> String {
        let mut ranges = Vec::new();
        let positions = self.consumer.position().ok();
        for element in positions.iter().flat_map(|list| list.elements()) {
            let (topic, partition) = (element.topic(), element.partition());
            let marks = self.consumer.fetch_watermarks(topic, partition, ASK);
            if let (Offset::Offset(next), Ok((low, high))) = (element.offset(), marks)
                && !(low..=high).contains(&next)
            {
                ranges.push(format!(
                    "{topic} [{partition}] offset {next}, the log holds {low}..{high}"
                ));
            }
        }
        if ranges.is_empty() { "a partition just assigned".to_owned() } else { ranges.join("; ") }
    }
}
