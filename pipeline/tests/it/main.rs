//! Guarantees of the whole pipeline, on real Kafka, TimescaleDB and Redis.

mod common;
mod hostile;
mod look;
mod registry_down;
mod store;
mod validate;
