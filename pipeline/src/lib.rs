//! .
pub mod playback;
pub mod venue;
