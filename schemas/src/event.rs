//! The events, one struct a schema in `schemas/avro/`, fields in the same order.

use std::borrow::Cow;

use crate::codec::{Record, record, symbols};
use crate::{Micros, Money, Wide};

symbols! {
    /// The side of the order that took liquidity.
    pub enum Side {
        /// The taker bought.
        Buy = "buy",
        /// The taker sold.
        Sell = "sell",
        /// The venue does not say.
        Unknown = "unknown",
    }
}

symbols! {
    /// What a book record does to the book.
    pub enum BookAction {
        /// Replaces the whole book.
        Snapshot = "snapshot",
        /// Sets the amounts of some levels; zero removes a level.
        Delta = "delta",
        /// The best levels of the verified book, for readers that keep no book of their own.
        Top = "top",
    }
}

symbols! {
    /// Who made a candle.
    pub enum CandleSource {
        /// Tapeline, from trades.
        Tapeline = "tapeline",
        /// The venue itself.
        Venue = "venue",
    }
}

symbols! {
    /// How far the life of a hole in a feed has come.
    pub enum GapState {
        /// Data may be missing from here on.
        Opened = "opened",
        /// The feed goes on; what lies between is missing.
        Ended = "ended",
        /// What was missing has been filled in.
        Filled = "filled",
    }
}

symbols! {
    /// What an option gives the right to.
    pub enum OptionType {
        /// To buy.
        Call = "call",
        /// To sell.
        Put = "put",
    }
}

record! {
    /// One trade.
    pub struct Trade {
        /// Venue, upper case: `KRAKEN`.
        pub exchange: Cow<'a, str>,
        /// `BASE-QUOTE`.
        pub symbol: Cow<'a, str>,
        /// What makes the trade itself at its venue, see `docs/venues.md`.
        pub trade_id: Cow<'a, str>,
        /// Price in the quote currency.
        pub price: Money,
        /// Amount in the base currency.
        pub amount: Money,
        /// The taker's side.
        pub side: Side,
        /// The taker's order type, where the venue says: `market`, `limit`.
        pub kind as "type": Option<Cow<'a, str>>,
        /// `taker` or `maker`, for own trades.
        pub taker_or_maker: Option<Cow<'a, str>>,
        /// The venue's own order among trades of the same time.
        pub sequence: Option<i64>,
        /// When it happened, by the venue's clock.
        pub venue_time: Micros,
        /// When the connector received it.
        pub receive_time: Micros,
    }
}

record! {
    /// Best prices and figures of the last 24 hours.
    pub struct Ticker {
        /// Venue, upper case.
        pub exchange: Cow<'a, str>,
        /// `BASE-QUOTE`.
        pub symbol: Cow<'a, str>,
        /// The venue's identity of this ticker; without one, the raw position is its identity.
        pub event_id: Option<Cow<'a, str>>,
        /// Price of the last trade.
        pub last: Option<Money>,
        /// Best bid.
        pub bid: Option<Money>,
        /// Amount at the best bid.
        pub bid_volume: Option<Money>,
        /// Best ask.
        pub ask: Option<Money>,
        /// Amount at the best ask.
        pub ask_volume: Option<Money>,
        /// Volume of 24 hours in the base currency.
        pub volume_24h: Option<Money>,
        /// Volume of 24 hours in the quote currency.
        pub quote_volume_24h: Option<Money>,
        /// Price now less price 24 hours ago.
        pub price_change_24h: Option<Money>,
        /// The same in per cent.
        pub price_change_percent_24h: Option<Money>,
        /// By the venue's clock; the receive time where the venue gives none.
        pub venue_time: Micros,
        /// When the connector received it.
        pub receive_time: Micros,
    }
}

record! {
    /// One price level of a book.
    pub struct Level: Copy {
        /// Price in the quote currency.
        pub price: Money,
        /// Amount in the base currency; zero in a delta removes the level.
        pub amount: Money,
    }
}

record! {
    /// An order book: a snapshot, a delta, or the best levels.
    pub struct Book {
        /// Venue, upper case.
        pub exchange: Cow<'a, str>,
        /// `BASE-QUOTE`.
        pub symbol: Cow<'a, str>,
        /// What the record does.
        pub action: BookAction,
        /// The venue's identity of this update; without one, the raw position is its identity.
        pub event_id: Option<Cow<'a, str>>,
        /// Buyers, best (highest) first.
        pub bids: Vec<Level>,
        /// Sellers, best (lowest) first.
        pub asks: Vec<Level>,
        /// First update of the venue's sequence that a delta holds.
        pub first_sequence: Option<i64>,
        /// Last update of the venue's sequence that the record holds.
        pub sequence: Option<i64>,
        /// The venue's checksum of the book after the record.
        pub checksum: Option<i64>,
        /// By the venue's clock; the receive time where the venue gives none.
        pub venue_time: Micros,
        /// When the connector received it.
        pub receive_time: Micros,
    }
}

record! {
    /// Open, high, low, close and volumes of a window.
    pub struct Candle {
        /// Venue, upper case.
        pub exchange: Cow<'a, str>,
        /// `BASE-QUOTE`.
        pub symbol: Cow<'a, str>,
        /// `1m`, `5m`, `15m`, `1h`, `4h` or `1d`.
        pub timeframe: Cow<'a, str>,
        /// Who made it.
        pub source: CandleSource,
        /// Start of the window.
        pub open_time: Micros,
        /// End of the window, exclusive.
        pub close_time: Micros,
        /// Price of the first trade.
        pub open: Money,
        /// Highest price.
        pub high: Money,
        /// Lowest price.
        pub low: Money,
        /// Price of the last trade.
        pub close: Money,
        /// Sum of amounts, in the base currency.
        pub volume: Money,
        /// Sum of price times amount, in the quote currency.
        pub quote_volume: Wide,
        /// Number of trades.
        pub trades_count: i64,
        /// Of ours: no hole of the feed is open over the window; an incomplete candle is not final.
        /// Of a venue's: the venue has closed it.
        pub is_final as "final": bool,
        /// Of ours: 0 for the first final candle, one more with every correction. Of a venue's: its number of
        /// trades, which only grows while the window is open.
        pub revision: i32,
        /// Newest receive time among its trades.
        pub receive_time: Micros,
    }
}

record! {
    /// Something odd about an event that was let through.
    pub struct Anomaly {
        /// Raw topic of the event.
        pub origin_topic: Cow<'a, str>,
        /// Its partition.
        pub origin_partition: i32,
        /// Its offset.
        pub origin_offset: i64,
        /// Venue, upper case.
        pub exchange: Cow<'a, str>,
        /// `BASE-QUOTE`.
        pub symbol: Cow<'a, str>,
        /// Kind of the event: `trade`, `ticker`, `book`, `option`, `venue_candle`.
        pub kind: Cow<'a, str>,
        /// What is odd, see [`crate::Flag`].
        pub flags: Vec<Cow<'a, str>>,
        /// The figures behind it, for people.
        pub detail: Cow<'a, str>,
        /// Of the event.
        pub venue_time: Micros,
        /// Of the event.
        pub receive_time: Micros,
    }
}

record! {
    /// A hole in a feed, at one point of its life.
    pub struct Gap {
        /// Venue, upper case.
        pub exchange: Cow<'a, str>,
        /// `BASE-QUOTE`.
        pub symbol: Cow<'a, str>,
        /// Kind of events that may be missing: `trade`, `ticker`, `book`, `option`, `venue_candle`.
        pub channel: Cow<'a, str>,
        /// What happened.
        pub state: GapState,
        /// Last moment known to be covered before the hole.
        pub from_time: Micros,
        /// Moment from which the feed is whole again.
        pub to_time: Option<Micros>,
        /// Why: `disconnect`, `sequence`, `checksum`, `crossed`, `stale`, `restart`, `overflow`.
        pub cause: Cow<'a, str>,
        /// What filled it.
        pub filled_by: Option<Cow<'a, str>>,
        /// Raw topic of the control record.
        pub origin_topic: Cow<'a, str>,
        /// Its partition.
        pub origin_partition: i32,
        /// Its offset.
        pub origin_offset: i64,
    }
}

record! {
    /// A header of a quarantined record.
    pub struct OriginalHeader {
        /// Its name.
        pub name: Cow<'a, str>,
        /// Its value.
        pub value: Option<Cow<'a, [u8]>>,
    }
}

record! {
    /// A record that could not be taken, kept whole with the reason.
    pub struct Quarantine {
        /// Topic it was read from.
        pub origin_topic: Cow<'a, str>,
        /// Its partition.
        pub origin_partition: i32,
        /// Its offset.
        pub origin_offset: i64,
        /// Broker's time of the record.
        pub origin_time: Micros,
        /// Stage that refused it.
        pub stage: Cow<'a, str>,
        /// Short name of the reason, for counting.
        pub reason: Cow<'a, str>,
        /// The error in full.
        pub detail: Cow<'a, str>,
        /// Original key.
        pub key: Option<Cow<'a, [u8]>>,
        /// Original value.
        pub value: Option<Cow<'a, [u8]>>,
        /// Original headers.
        pub headers: Vec<OriginalHeader<'a>>,
    }
}

record! {
    /// The figures of an option: implied volatilities, greeks, open interest.
    pub struct OptionData {
        /// Venue, upper case.
        pub exchange: Cow<'a, str>,
        /// `BASE-25DEC26-100000-C`; with the quote behind the base where it is neither that nor USD.
        pub symbol: Cow<'a, str>,
        /// The venue's identity of these figures; without one, the raw position is their identity.
        pub event_id: Option<Cow<'a, str>>,
        /// What the option is on: the part of the symbol before the expiry, `BTC`.
        pub underlying: Cow<'a, str>,
        /// Strike price.
        pub strike: Money,
        /// When it expires.
        pub expiry: Micros,
        /// Call or put.
        pub option_type: OptionType,
        /// The venue's price for margins, in the currency of the option's price.
        pub mark_price: Option<Money>,
        /// Price of what it is on at expiry (the future, or one made of others), in the quote currency.
        pub underlying_price: Option<Money>,
        /// Price of what it is on now, in the quote currency.
        pub index_price: Option<Money>,
        /// Implied volatility of the mark price, per cent a year.
        pub iv: Option<Money>,
        /// Implied volatility of the best bid, per cent a year; 0 where there is no bid.
        pub bid_iv: Option<Money>,
        /// Implied volatility of the best ask, per cent a year; 0 where there is no ask.
        pub ask_iv: Option<Money>,
        /// Change of the price with that of the underlying.
        pub delta: Option<Money>,
        /// Change of delta with the price of the underlying.
        pub gamma: Option<Money>,
        /// Change of the price a day.
        pub theta: Option<Money>,
        /// Change of the price with a point of volatility.
        pub vega: Option<Money>,
        /// Change of the price with a point of interest.
        pub rho: Option<Money>,
        /// Interest rate behind the figures.
        pub interest_rate: Option<Money>,
        /// Contracts that are open, in the venue's unit.
        pub open_interest: Option<Money>,
        /// By the venue's clock.
        pub venue_time: Micros,
        /// When the connector received it.
        pub receive_time: Micros,
    }
}

macro_rules! schemas {
    ($($name:ident = $file:literal,)+) => {
        $(impl<'a> Record<'a> for $name<'a> {
            const SCHEMA: &'static str = include_str!(concat!("../avro/", $file));
        })+
    };
}

schemas! {
    Trade = "trade.avsc",
    Ticker = "ticker.avsc",
    Book = "book.avsc",
    Candle = "candle.avsc",
    Anomaly = "anomaly.avsc",
    Gap = "gap.avsc",
    Quarantine = "quarantine.avsc",
    OptionData = "option.avsc",
}
