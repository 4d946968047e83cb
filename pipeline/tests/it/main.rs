//! Guarantees of the whole pipeline, on real Kafka, TimescaleDB and Redis.

mod audit;
mod candles;
mod common;
mod groups;
mod hostile;
mod judgement;
mod lag;
mod look;
mod python;
mod quarantine;
mod registry_down;
mod replay;
mod replayed;
mod retention;
mod store;
mod tape;
mod validate;
