//! .

pub mod registry;
