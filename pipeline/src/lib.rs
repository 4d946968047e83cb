//! .

pub mod config;
pub mod registry;
pub mod registry_client;
pub mod telemetry;
