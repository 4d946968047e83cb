//! Guarantees of the whole pipeline, on real Kafka, TimescaleDB and Redis.

mod account;
mod archive;
mod audit;
mod candles;
mod common;
mod compare;
mod database;
mod groups;
mod hostile;
mod influx;
mod instruments;
mod judgement;
mod lag;
mod look;
mod python;
mod quarantine;
#[path = "../shared/recorded.rs"]
mod recorded;
mod registry_down;
mod replay;
mod replayed;
mod retention;
mod roles;
mod store;
mod tape;
mod tls;
mod validate;
mod venue_candles;
