//! Everything that knows Kafka: configuration, topics, the consumer's thread, the producer and
//! the sinks and sources made of them.

mod admin;
mod bulk;
mod consumer;
mod ends;
mod fixed;
mod headers;
mod lane;
mod opening;
mod producer;
mod publisher;
mod read;
mod rebalance;
mod recreated;
mod republish;
mod scan;
mod settings;
mod sink;
mod source;
mod tail;
mod writer;

pub use admin::{
    Admin, TopicState, create_raw_topic, create_topics, delete_topics, describe_all, dirty_topic,
};
pub use bulk::Bulk;
pub use consumer::{ConsumerHandle, ConsumerOptions, Membership, start_consumer};
pub(crate) use ends::first_since;
pub use ends::{LogEndReader, ends};
pub use fixed::{Fixed, Progress, Range};
pub use headers::{header_list, header_text};
pub use producer::{Delivery, Producer};
pub use publisher::RawPublisher;
pub(crate) use read::EndIsNoError;
pub use read::{OffsetRange, commit_note, committed, read_ranges};
pub use republish::{Republisher, Written};
pub use scan::{GroupLag, scan, scan_since};
pub use settings::KafkaSettings;
pub use sink::{AssignFrom, MessageSink, Quarantine, SchemaIds};
pub use source::KafkaSource;
pub use tail::{CheckedTail, last_covered, last_gaps};
pub use writer::flush;
