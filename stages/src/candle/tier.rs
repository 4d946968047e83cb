//! The two tiers of candles: minutes from trades, longer ones from minutes.

use std::borrow::Cow;
use std::collections::BTreeMap;

use hashbrown::HashSet;
use tapeline_schemas::{Candle, CandleSource, Flag, Kind, Micros, Record, Timeframe, Trade};

use super::fold::{Bar, RANGE, Version};
use crate::decode::reason;
use crate::flow::{In, Reject};

/// How far ahead of its receive time a trade may be and still open a window. A window further
/// ahead would hold back the commit until the venue's time gets there (invariant 8); such a
/// trade makes its window dirty instead.
const AHEAD_MICROS: i64 = Timeframe::D1.micros();

/// Times that windows are computed for: the years 1 to 9999, as far as PostgreSQL and people go.
const TIMES: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;

/// What an operator builds its windows from.
pub trait Tier: Send + 'static {
    /// Kind of its input.
    const KIND: Kind;
    /// Timeframes that it builds.
    const FRAMES: &'static [Timeframe];
    /// Whether it tells the tier above how far it is.
    const ANNOUNCES: bool;
    /// What an open window holds.
    type Content: Content;

    /// Reads an event in our own schema; `None` where the tier does not take it.
    fn read<'a>(
        payload: &'a [u8],
        input: &In<'_>,
        lateness_micros: i64,
    ) -> Result<Option<Entry<'a, <Self::Content as Content>::Piece>>, Reject>;
}

/// One event, placed.
#[derive(Debug)]
pub struct Entry<'a, P> {
    /// Its venue.
    pub venue: Cow<'a, str>,
    /// Its symbol.
    pub symbol: Cow<'a, str>,
    /// The moment that says which windows it belongs to.
    pub time: Micros,
    /// How far it moves its venue's watermark.
    pub moves: Option<Micros>,
    /// Whether it may open a window.
    pub opens: bool,
    /// What it adds.
    pub piece: P,
}

/// What an open window holds.
pub trait Content: Default + Send {
    /// What an event adds.
    type Piece;
    /// The effect of adding a piece.
    type Change;

    /// What adding `piece` would do; `None` where it is a duplicate. Changes nothing, so that an
    /// event that one of several windows refuses leaves no trace in the others.
    fn consider(&self, piece: &Self::Piece) -> Result<Option<Self::Change>, Reject>;

    /// Adds a piece.
    fn put(&mut self, change: Self::Change);

    /// The figures, and whether every piece of them is final; none of an empty window.
    fn bar(&self) -> Option<(Bar, bool)>;
}

/// One-minute candles from trades.
#[derive(Debug)]
pub struct Minutes;

/// Identity of a trade within a symbol's window: time and id, as in the store's unique key, so
/// that stream and database count the same trades (invariant 7).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TradeKey(Micros, Id);

/// A trade id. Nearly every venue counts, and numbers need no memory of their own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Id {
    Number(u64),
    Text(Box<str>),
}

impl Id {
    fn of(text: &str) -> Id {
        // `007` and `+7` are not `7`.
        let canonical = text == "0" || matches!(text.as_bytes().first(), Some(b'1'..=b'9'));
        match text.parse() {
            Ok(number) if canonical => Id::Number(number),
            _ => Id::Text(text.into()),
        }
    }
}

/// An open minute.
#[derive(Debug, Default)]
pub struct Trades {
    bar: Option<Bar>,
    /// What has been counted: a duplicate may slip through a restart of `validate` (invariant 4).
    keys: HashSet<TradeKey>,
}

impl Content for Trades {
    type Piece = (TradeKey, Bar);
    type Change = (TradeKey, Bar);

    fn consider(&self, piece: &Self::Piece) -> Result<Option<Self::Change>, Reject> {
        let (key, bar) = piece;
        if self.keys.contains(key) {
            return Ok(None);
        }
        let bar = self.bar.as_ref().map_or(Ok(*bar), |sum| sum.merge(bar))?;
        Ok(Some((key.clone(), bar)))
    }

    fn put(&mut self, (key, bar): Self::Change) {
        self.keys.insert(key);
        self.bar = Some(bar);
    }

    fn bar(&self) -> Option<(Bar, bool)> {
        self.bar.map(|bar| (bar, true))
    }
}

impl Tier for Minutes {
    const KIND: Kind = Kind::Trade;
    const FRAMES: &'static [Timeframe] = &[Timeframe::M1];
    const ANNOUNCES: bool = true;
    type Content = Trades;

    fn read<'a>(
        payload: &'a [u8],
        input: &In<'_>,
        lateness_micros: i64,
    ) -> Result<Option<Entry<'a, (TradeKey, Bar)>>, Reject> {
        let trade = Trade::decode(payload).map_err(|error| Reject::new(reason::DECODE, error))?;
        in_range(trade.venue_time)?;
        in_range(trade.receive_time)?;
        // Neither a venue's clock that runs ahead nor a late receipt proves that what came before
        // is complete; what is flagged as ahead proves nothing at all.
        let moves = (!input.flags.has(Flag::Future))
            .then(|| trade.venue_time.min(trade.receive_time).plus(-lateness_micros));
        let bar = Bar::of_trade(&trade, input.origin);
        let key = TradeKey(trade.venue_time, Id::of(&trade.trade_id));
        Ok(Some(Entry {
            venue: trade.exchange,
            symbol: trade.symbol,
            time: trade.venue_time,
            moves,
            opens: trade.venue_time.since(trade.receive_time) <= AHEAD_MICROS,
            piece: (key, bar),
        }))
    }
}

/// Longer candles from one-minute candles.
#[derive(Debug)]
pub struct Longer;

/// A one-minute candle in a longer window.
#[derive(Debug, Clone, Copy)]
pub struct Minute {
    version: Version,
    bar: Bar,
}

/// An open longer window: the newest version of each of its minutes.
#[derive(Debug, Default)]
pub struct MinuteBars(BTreeMap<Micros, Minute>);

impl Content for MinuteBars {
    type Piece = Minute;
    type Change = Minute;

    fn consider(&self, piece: &Minute) -> Result<Option<Minute>, Reject> {
        let start = piece.bar.first.time;
        if self.0.get(&start).is_some_and(|known| known.version >= piece.version) {
            return Ok(None);
        }
        // A sum that does not fit is this minute's fault, not that of the window's end.
        let others = self.0.iter().filter(|(minute, _)| **minute != start);
        let bars = others.map(|(_, minute)| minute.bar).chain([piece.bar]);
        Bar::sum(bars).map(|_| Some(*piece))
    }

    fn put(&mut self, minute: Minute) {
        self.0.insert(minute.bar.first.time, minute);
    }

    fn bar(&self) -> Option<(Bar, bool)> {
        let bar = Bar::sum(self.0.values().map(|minute| minute.bar)).ok().flatten()?;
        Some((bar, self.0.values().all(|minute| minute.version.is_final)))
    }
}

impl Tier for Longer {
    const KIND: Kind = Kind::Candle;
    const FRAMES: &'static [Timeframe] = &Timeframe::LONGER;
    const ANNOUNCES: bool = false;
    type Content = MinuteBars;

    fn read<'a>(
        payload: &'a [u8],
        _: &In<'_>,
        _: i64,
    ) -> Result<Option<Entry<'a, Minute>>, Reject> {
        let candle = Candle::decode(payload).map_err(|error| Reject::new(reason::DECODE, error))?;
        let own = candle.source == CandleSource::Tapeline;
        if !own || candle.timeframe != Timeframe::M1.name() {
            return Ok(None);
        }
        in_range(candle.open_time)?;
        if Timeframe::M1.start(candle.open_time) != candle.open_time {
            return Err(Reject::new(RANGE, "open time is not the start of a minute"));
        }
        let version = Version { is_final: candle.is_final, revision: candle.revision };
        let piece = Minute { version, bar: Bar::of_candle(&candle) };
        // Its minute is closed, but those of other symbols may still follow: only what the
        // tier below announces moves the watermark.
        Ok(Some(Entry {
            venue: candle.exchange,
            symbol: candle.symbol,
            time: candle.open_time,
            moves: None,
            opens: true,
            piece,
        }))
    }
}

pub(super) fn in_range(time: Micros) -> Result<(), Reject> {
    if TIMES.contains(&time.0) {
        return Ok(());
    }
    Err(Reject::new(RANGE, format!("time {} is outside the years 1 to 9999", time.0)))
}
