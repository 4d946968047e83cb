//! Guarantees of the whole pipeline, on real Kafka, TimescaleDB and Redis.

mod candles;
mod common;
mod hostile;
mod instruments;
mod judgement;
mod look;
mod python;
#[path = "../shared/recorded.rs"]
mod recorded;
mod registry_down;
mod replayed;
mod store;
mod tape;
mod validate;
mod venue_candles;
