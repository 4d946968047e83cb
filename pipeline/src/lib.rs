//! The pipeline: everything that knows Kafka, WebSockets and the environment.

pub mod archive;
pub mod audit;
pub mod backup;
pub mod cli;
pub mod config;
pub mod connect;
pub mod database;
pub mod demo;
pub mod doctor;
pub mod instruments;
pub mod kafka;
pub mod lag;
pub mod lifecycle;
pub mod migrate;
pub mod playback;
pub mod quarantine;
pub mod registry;
pub mod registry_client;
pub mod replay;
pub mod schedule;
pub mod schemas;
pub mod secrets;
pub mod settings;
pub mod telemetry;
pub mod venue;
pub mod wiring;
