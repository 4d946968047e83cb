//! Candles: minutes from trades, longer ones from minutes, and their revision.
//!
//! One operator does both tiers. [`Candles<Minutes>`] reads checked trades and writes one-minute
//! candles with the control records that order them; [`Candles<Longer>`] reads those and writes
//! the longer ones. What comes too late for either becomes a [`Dirty`] record, and the
//! [`Reviser`] computes that candle again from what is stored (invariant 7).

mod compare;
mod dirty;
mod fold;
mod holes;
mod judge;
mod loss;
mod note;
mod operator;
mod outbox;
mod reviser;
mod stored;
mod tier;
mod window;

pub use compare::{Comparer, DIFFERS, FinalCandles, Tell, Windows};
pub use dirty::Dirty;
pub use fold::{Bar, Place, RANGE, Version};
pub use judge::{Judged, judge_day};
pub use loss::Lost;
pub use note::taken_before;
pub use operator::{Candles, HOLD_MICROS, Settings};
pub use outbox::{OutboxError, Outgoing, Publish, publish_outbox};
pub use reviser::{Dirties, DirtyStage, Reviser, revise, revise_window};
pub use stored::{ReviseError, WindowOf, recompute};
pub use tier::{Content, Entry, Longer, Minutes, Tier};
