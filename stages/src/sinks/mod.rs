//! Where batches become durable.

pub mod timescale;
