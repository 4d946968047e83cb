//! Tapeline's stages: pure transformations, the one loop that runs them, and their sinks.
//! Knows no Kafka and no clock.

pub mod book;
pub mod cache;
pub mod candle;
pub mod decode;
pub mod failpoint;
pub mod flow;
pub mod influx;
pub mod messages;
pub mod only;
pub mod republish;
pub mod sinks;
pub mod store;
pub mod tls;
pub mod validate;
