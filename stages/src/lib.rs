//! Tapeline's stages: pure transformations, the one loop that runs them, and their sinks.
//! Knows no Kafka and no clock.

pub mod cache;
pub mod decode;
pub mod failpoint;
pub mod flow;
pub mod sinks;
pub mod store;
