//! Tapeline's contracts: event types, exact money, time, the Avro codecs, the
//! headers records carry and the table of kinds. Nothing here does I/O.

mod codec;
mod control;
mod event;
mod flags;
pub mod headers;
mod kinds;
mod money;
mod routing;
mod time;
mod wide;
pub mod wire;

pub use codec::{CodecError, Field, Record, Resolver, encode};
pub use control::{Control, ControlError, GapChange, GapState};
pub use event::{
    Anomaly, Book, BookAction, Candle, CandleSource, Gap, Level, OriginalHeader, Quarantine, Side,
    Ticker, Trade,
};
pub use flags::{Flag, Flags};
pub use kinds::{ALL_KINDS, Cleanup, Kind, KindSpec};
pub use money::{Money, MoneyError};
pub use routing::{murmur2, partition_for};
pub use time::{Micros, Timeframe, civil};
pub use wide::Wide;
