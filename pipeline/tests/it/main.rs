//! Guarantees of the whole pipeline, on real Kafka, TimescaleDB and Redis.

mod account;
mod archive;
mod audit;
mod backfill;
mod backup;
mod cached;
mod candles;
mod cluster;
mod common;
mod compare;
mod database;
mod doctor;
mod groups;
mod hostile;
mod influx;
mod instruments;
mod judgement;
mod lag;
mod look;
mod pooled;
mod python;
mod quarantine;
#[path = "../shared/recorded.rs"]
mod recorded;
mod registry_down;
mod replay;
mod replayed;
mod retention;
mod roles;
mod schedule;
mod store;
mod tape;
mod tls;
mod twins;
mod validate;
mod venue_candles;
