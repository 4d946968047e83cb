//! Guarantees of the whole pipeline, on real Kafka, TimescaleDB and Redis.

mod common;
mod store;
mod tape;
mod validate;
