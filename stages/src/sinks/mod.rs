//! Where batches become durable.

pub mod influx;
pub mod redis;
pub mod timescale;

/// A topic as sinks know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicIdentity {
    /// Its name.
    pub name: String,
    /// Kafka's id of it. A topic that was deleted and made again has another one.
    pub id: String,
}
