//! What venues give of the past by REST: pure parts, a file a venue, which say what to ask for and read the answers.
//!
//! An event read here is the event its WebSocket gave or would have given: the same identity, time and digits. Asking,
//! paging, publishing and closing holes is written once, in `crate::backfill`.

use std::borrow::Cow;

use tapeline_schemas::{Candle, Kind, Micros, Timeframe, Trade};

use super::DecodeError;

/// What is asked of one symbol's past: events with a venue time from `from` to `to`, both inclusive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// `BASE-QUOTE`.
    pub symbol: String,
    /// The venue's name of it.
    pub native: String,
    /// First moment.
    pub from: Micros,
    /// Last moment.
    pub to: Micros,
    /// Now, by the clock of the one who asks.
    pub now: Micros,
    /// Number of the first event known behind `to`, where the venue numbers them: a place to page back from.
    pub after: Option<i64>,
}

/// One event of the past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Past {
    /// A trade.
    Trade(Trade<'static>),
    /// A candle that the venue made and has closed.
    Candle(Candle<'static>),
}

impl Past {
    /// Its place among events that are numbered one by one: a trade's sequence, a candle's minute.
    pub fn number(&self) -> Option<i64> {
        match self {
            Past::Trade(trade) => trade.sequence,
            Past::Candle(candle) => Some(candle.open_time.0.div_euclid(Timeframe::M1.micros())),
        }
    }

    /// When it happened; of a candle, when it began.
    pub fn time(&self) -> Micros {
        match self {
            Past::Trade(trade) => trade.venue_time,
            Past::Candle(candle) => candle.open_time,
        }
    }
}

/// What follows a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Path and query of the next request.
    Page(String),
    /// Everything that was asked for has come.
    Done,
    /// The venue keeps no more; the reason, for people.
    Exhausted(&'static str),
}

/// An answer, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its events within what was asked for, in the venue's order.
    pub events: Vec<Past>,
    /// What follows.
    pub next: Next,
    /// Up to when this answer shows the venue's past to be whole. Only where events have no numbers: there an answer that
    /// ends too early looks like any other.
    pub through: Option<Micros>,
}

/// The past of one kind, as a venue gives it. One is made for each question, so that it may remember pages.
pub trait History: Send {
    /// Path and query of the first request.
    fn first(&mut self, ask: &Ask) -> String;

    /// Reads the answer to the newest request, received at `at`.
    fn decode(&mut self, ask: &Ask, body: &[u8], at: Micros) -> Result<Page, DecodeError>;
}

/// That a venue gives the past of a kind.
#[derive(Debug)]
pub struct Offer {
    /// The kind.
    pub kind: Kind,
    /// Whether [`Past::number`] leaves out no number, so that a missing one is a missing event.
    pub numbered: bool,
    /// Asks for it.
    pub history: fn() -> Box<dyn History>,
}

/// A trade that borrows nothing.
pub(super) fn owned(trade: Trade<'_>) -> Trade<'static> {
    let own = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
    Trade {
        exchange: own(trade.exchange),
        symbol: own(trade.symbol),
        trade_id: own(trade.trade_id),
        price: trade.price,
        amount: trade.amount,
        side: trade.side,
        kind: trade.kind.map(own),
        taker_or_maker: trade.taker_or_maker.map(own),
        sequence: trade.sequence,
        venue_time: trade.venue_time,
        receive_time: trade.receive_time,
    }
}

/// Milliseconds since the epoch.
pub(super) fn millis(at: Micros) -> i64 {
    at.0.div_euclid(1_000)
}

/// The trades within what was asked for.
pub(super) fn within(ask: &Ask, trades: Vec<Trade<'static>>) -> Vec<Past> {
    let asked = ask.from..=ask.to;
    trades.into_iter().filter(|t| asked.contains(&t.venue_time)).map(Past::Trade).collect()
}
