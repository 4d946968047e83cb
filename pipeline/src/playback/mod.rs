//! Recordings and simulated venues behind real sockets on loopback.

pub mod recording;
