//! Connectors, driver and playback against recordings (`TAPELINE_RECORDINGS`, by default beside the
//! workspace) and against a simulated venue.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "venues/common.rs"]
mod common;
#[path = "venues/life.rs"]
mod life;
#[path = "venues/pure.rs"]
mod pure;
#[path = "venues/rules.rs"]
mod rules;
#[path = "venues/simulated.rs"]
mod simulated;
#[path = "venues/sockets.rs"]
mod sockets;
