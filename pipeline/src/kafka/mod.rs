//! Everything that knows Kafka: configuration, topics, the consumer's thread, the producer and
//! the sinks and sources made of them.

mod admin;
mod bulk;
mod consumer;
mod ends;
mod headers;
mod lane;
mod producer;
mod publisher;
mod rebalance;
mod scan;
mod settings;
mod sink;
mod source;
mod tail;

pub use admin::{Admin, TopicState, create_topics, delete_topics, dirty_topic, topic_names};
pub use bulk::Bulk;
pub use consumer::{ConsumerHandle, ConsumerOptions, start_consumer};
pub use ends::LogEndReader;
pub use producer::{Delivery, Producer};
pub use publisher::RawPublisher;
pub use scan::{GroupLag, scan};
pub use settings::KafkaSettings;
pub use sink::{AssignFrom, MessageSink, Quarantine, SchemaIds};
pub use source::KafkaSource;
pub use tail::{CheckedTail, last_covered};
