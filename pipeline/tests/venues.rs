//! Connectors, driver and playback against recordings (`TAPELINE_RECORDINGS`, by default beside the
//! workspace) and against a simulated venue.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "venues/budget.rs"]
mod budget;
#[path = "venues/common.rs"]
mod common;
#[path = "venues/compressed.rs"]
mod compressed;
#[path = "venues/faulty.rs"]
mod faulty;
#[path = "venues/figures.rs"]
mod figures;
#[path = "venues/going_on.rs"]
mod going_on;
#[path = "venues/history.rs"]
mod history;
#[path = "venues/hostile.rs"]
mod hostile;
#[path = "venues/kept.rs"]
mod kept;
#[path = "venues/life.rs"]
mod life;
#[path = "venues/pure.rs"]
mod pure;
#[path = "shared/recorded.rs"]
mod recorded;
#[path = "venues/rules.rs"]
mod rules;
#[path = "venues/rules_derivatives.rs"]
mod rules_derivatives;
#[path = "venues/rules_spot.rs"]
mod rules_spot;
#[path = "venues/simulated.rs"]
mod simulated;
#[path = "venues/sockets.rs"]
mod sockets;
#[path = "venues/stage.rs"]
mod stage;
#[path = "venues/symbols.rs"]
mod symbols;
#[path = "venues/twins.rs"]
mod twins;
#[path = "venues/unseen.rs"]
mod unseen;
#[path = "venues/ways.rs"]
mod ways;
