//! Guarantees of the whole pipeline, on real Kafka, TimescaleDB and Redis.

mod audit;
mod candles;
mod common;
mod hostile;
mod judgement;
mod look;
mod python;
mod registry_down;
mod replayed;
mod retention;
mod store;
mod tape;
mod validate;
