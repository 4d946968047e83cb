//! The pipeline: everything that knows Kafka, WebSockets and the environment.

pub mod kafka;
