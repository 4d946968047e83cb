//! Guarantees of the whole pipeline, on real Kafka, TimescaleDB and Redis.

mod account;
mod candles;
mod common;
mod database;
mod hostile;
mod judgement;
mod look;
mod python;
mod registry_down;
mod replayed;
mod roles;
mod store;
mod tape;
mod validate;
