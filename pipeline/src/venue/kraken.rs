//! Kraken spot, WebSocket version 1 (the protocol of the recordings).
//! Documents: <https://docs.kraken.com/websockets/>.
//!
//! ```json
//! [465,[["56218.3","0.15","1618678142.557535","s","l",""]],"trade","XBT/CHF"]
//! [468,{"a":["56220.1",1,"1.5"],"b":["56218.3",0,"0.2"],"c":["56218.3","0.1"],"v":["10.5","20.25"],"o":["56000.0","55000.0"]},"ticker","XBT/CHF"]
//! [464,{"as":[["56220.10000","1.50000000","1618678132.136201"]],"bs":[["56218.30000","0.20000000","1618678132.1"]]},"book-1000","XBT/CHF"]
//! [464,{"a":[["56220.10000","0.00000000","1618678133.365913"]]},{"b":[["56218.30000","0.30000000","1618678133.365913","r"]],"c":"2583817756"},"book-1000","XBT/CHF"]
//! ```
//!
//! `c` is the CRC32 of the ten best levels after the update, verified on every one.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tapeline_schemas::{Kind, Micros, Ticker};

use self::book::{Sides, apply_snapshot, apply_update};
use self::trade::trade;
use super::books::{LocalBook, TopPace};
use super::instrument::step;
use super::json::{Text, figure, number, parse, part};
use super::subscription::{Subscription, anew, feeds};
use super::trade_order::Ordinals;
use super::{
    Budget, Confirmation, ConnectionPlan, Connector, DecodeError, Instrument, Keepalive, Output,
    Settings, SymbolTable, UnknownSymbol,
};

mod book;
mod history;
mod trade;

/// The venue's name.
pub const VENUE: &str = "KRAKEN";

/// What it gives of the past.
pub(super) const HISTORY: &[super::history::Offer] = history::OFFERS;

/// Pairs of one connection and channel.
pub(super) const SYMBOLS_PER_CONNECTION: usize = 50;

/// A channel has connections of its own, so that no trade waits behind a thousand book levels.
const CHANNELS: [(Kind, &str); 3] =
    [(Kind::Trade, "trade"), (Kind::Ticker, "ticker"), (Kind::Book, "book")];

/// The connector.
#[derive(Debug)]
pub struct Kraken {
    settings: Settings,
    pace: TopPace,
    subscription: Subscription,
    books: Vec<LocalBook>,
    ordinals: Vec<Ordinals>,
}

#[derive(Deserialize)]
struct Pairs {
    #[serde(default)]
    error: Vec<String>,
    result: Option<HashMap<String, Pair>>,
}

#[derive(Deserialize)]
struct Pair {
    wsname: Option<String>,
    pair_decimals: Option<u32>,
    lot_decimals: Option<u32>,
    ordermin: Option<String>,
    tick_size: Option<String>,
    status: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    status: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pair: Option<Cow<'a, str>>,
    #[serde(borrow)]
    error_message: Option<Cow<'a, str>>,
    #[serde(borrow)]
    subscription: Option<Channel<'a>>,
}

#[derive(Deserialize)]
struct Channel<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

#[derive(Deserialize)]
struct RawTicker<'a> {
    #[serde(borrow)]
    a: Vec<&'a RawValue>,
    #[serde(borrow)]
    b: Vec<&'a RawValue>,
    #[serde(borrow)]
    c: Vec<&'a RawValue>,
    #[serde(borrow)]
    v: Vec<&'a RawValue>,
    #[serde(borrow)]
    o: Vec<&'a RawValue>,
}

/// Kraken's currency codes that the rest of the world writes otherwise.
fn currency(code: &str) -> &str {
    match code {
        "XBT" => "BTC",
        "XDG" => "DOGE",
        other => other,
    }
}

fn nth<'a>(figures: &[&'a RawValue], index: usize) -> Result<&'a RawValue, DecodeError> {
    figures
        .get(index)
        .copied()
        .ok_or_else(|| DecodeError::Malformed(format!("ticker figure without place {index}")))
}

fn request(settings: &Settings, event: &str, channel: &str, pairs: &[&str]) -> String {
    let subscription = if channel == "book" {
        json!({"name": channel, "depth": settings.book_depth})
    } else {
        json!({"name": channel})
    };
    json!({"event": event, "pair": pairs, "subscription": subscription}).to_string()
}

impl Kraken {
    /// A connector with these settings.
    pub fn new(settings: Settings) -> Kraken {
        let pace = TopPace::new(&settings);
        let subscription = Subscription::default();
        Kraken { settings, pace, subscription, books: Vec::new(), ordinals: Vec::new() }
    }

    fn wanted(&self) -> impl Iterator<Item = (Kind, &'static str)> {
        let channels = &self.settings.channels;
        CHANNELS.into_iter().filter(move |(kind, _)| channels.contains(kind))
    }

    fn event(&self, frame: &[u8], at: Micros, out: &mut Output) -> Result<(), DecodeError> {
        let event: Event<'_> = parse(frame)?;
        match (event.event.as_ref(), event.status.as_deref()) {
            ("heartbeat" | "systemStatus" | "pong", _)
            | ("subscriptionStatus", Some("unsubscribed")) => Ok(()),
            ("subscriptionStatus", Some("subscribed")) => {
                let pair = event.pair.unwrap_or_default();
                let name = event.subscription.map(|s| s.name).unwrap_or_default();
                let kind = CHANNELS.iter().find(|(_, channel)| *channel == name).map(|(k, _)| *k);
                // A book is whole again with its snapshot, not with the confirmation.
                if let Some(kind) = kind.filter(|kind| *kind != Kind::Book)
                    && let Some((_, symbol)) = self.subscription.by_native(&pair)
                {
                    out.whole(kind, symbol, at);
                }
                Ok(())
            }
            ("subscriptionStatus" | "error", _) => Err(DecodeError::Venue(format!(
                "{} {}",
                event.pair.unwrap_or_default(),
                event.error_message.unwrap_or_default()
            ))),
            (other, _) => Err(DecodeError::Unknown(format!("event {other}"))),
        }
    }

    /// One bad trade does not hide the others of its message.
    fn trades(
        &mut self,
        index: usize,
        data: &RawValue,
        at: Micros,
        out: &mut Output,
    ) -> Result<(), DecodeError> {
        let rows: Vec<Vec<Text<'_>>> = part(data)?;
        let (Some(subscribed), Some(ordinals)) =
            (self.subscription.symbols().get(index), self.ordinals.get_mut(index))
        else {
            return Err(DecodeError::Unknown("trade that nobody subscribed to".to_owned()));
        };
        let mut first_error = Ok(());
        for row in &rows {
            let done = trade(&subscribed.symbol, ordinals, row, at, out);
            if first_error.is_ok() {
                first_error = done;
            }
        }
        first_error
    }

    fn ticker(
        &self,
        symbol: &str,
        data: &RawValue,
        at: Micros,
        out: &mut Output,
    ) -> Result<(), DecodeError> {
        let raw: RawTicker<'_> = part(data)?;
        let last = number(nth(&raw.c, 0)?)?;
        let opened = number(nth(&raw.o, 1)?)?;
        out.ticker(&Ticker {
            exchange: Cow::Borrowed(VENUE),
            symbol: Cow::Borrowed(symbol),
            event_id: None,
            last: Some(last),
            bid: Some(number(nth(&raw.b, 0)?)?),
            bid_volume: Some(number(nth(&raw.b, 2)?)?),
            ask: Some(number(nth(&raw.a, 0)?)?),
            ask_volume: Some(number(nth(&raw.a, 2)?)?),
            volume_24h: Some(number(nth(&raw.v, 1)?)?),
            quote_volume_24h: None,
            price_change_24h: last.checked_sub(opened),
            price_change_percent_24h: None,
            venue_time: at,
            receive_time: at,
        });
        Ok(())
    }

    fn book(
        &mut self,
        index: usize,
        parts: &[&RawValue],
        at: Micros,
        out: &mut Output,
    ) -> Result<(), DecodeError> {
        let parts: Vec<Sides<'_>> = parts.iter().map(|raw| part(raw)).collect::<Result<_, _>>()?;
        let subscribed = self.subscription.symbols().get(index);
        let (Some(book), Some(subscribed)) = (self.books.get_mut(index), subscribed) else {
            return Err(DecodeError::Unknown("book that nobody subscribed to".to_owned()));
        };
        out.stats().received(Kind::Book);
        let texts = || {
            ["unsubscribe", "subscribe"]
                .map(|event| request(&self.settings, event, "book", &[&subscribed.native]))
        };
        let snapshot = parts.iter().any(|p| p.all_asks.is_some() || p.all_bids.is_some());
        if !snapshot && !book.whole() {
            book.stale(at, || texts().to_vec(), out);
            return Ok(());
        }
        let outcome = if snapshot {
            apply_snapshot(book, &parts, at, out)
        } else {
            apply_update(book, &parts, at, self.settings.book_depth, out)
        };
        match outcome {
            Ok(true) => {
                book.show(at, snapshot, self.pace, out);
                Ok(())
            }
            // What cannot be read or verified leaves the book unknown: that pair alone starts anew.
            wrong => {
                book.resubscribe("checksum", at, texts().to_vec(), out);
                wrong.map(|_| ())
            }
        }
    }
}

impl Connector for Kraken {
    fn venue(&self) -> &'static str {
        VENUE
    }

    fn symbols_requests(&self) -> Vec<String> {
        vec!["/0/public/AssetPairs".to_owned()]
    }

    fn decode_symbols(
        &self,
        _request: &str,
        body: &[u8],
        table: &mut SymbolTable,
    ) -> Result<(), DecodeError> {
        let pairs: Pairs = parse(body)?;
        let Some(result) = pairs.result else {
            return Err(DecodeError::Venue(pairs.error.join(", ")));
        };
        // Pairs without a WebSocket name (dark pools) cannot be subscribed to.
        for pair in result.into_values() {
            let Some((native, (base, quote))) =
                pair.wsname.as_deref().and_then(|name| Some((name, name.split_once('/')?)))
            else {
                continue;
            };
            table.insert(Instrument {
                tick_size: figure(pair.tick_size.as_deref()).or_else(|| step(pair.pair_decimals?)),
                lot_size: pair.lot_decimals.and_then(step),
                min_size: figure(pair.ordermin.as_deref()),
                status: pair.status,
                ..Instrument::spot(currency(base), currency(quote), native)
            });
        }
        Ok(())
    }

    fn configure(&mut self, table: &SymbolTable) -> Result<(), UnknownSymbol> {
        self.subscription = Subscription::new(VENUE, &self.settings, table)?;
        let symbols = self.subscription.symbols();
        self.ordinals = symbols.iter().map(|_| Ordinals::default()).collect();
        let chunks = symbols.len().div_ceil(SYMBOLS_PER_CONNECTION);
        let channel = self.wanted().position(|(kind, _)| kind == Kind::Book);
        if let Some(channel) = channel {
            let first = channel * chunks;
            self.books = LocalBook::spread(VENUE, symbols, SYMBOLS_PER_CONNECTION, first);
        }
        Ok(())
    }

    fn connections(&self) -> Vec<ConnectionPlan> {
        let mut plans = Vec::new();
        for (kind, channel) in self.wanted() {
            for symbols in self.subscription.symbols().chunks(SYMBOLS_PER_CONNECTION) {
                let pairs: Vec<&str> = symbols.iter().map(|s| s.native.as_str()).collect();
                plans.push(ConnectionPlan {
                    path: "/".to_owned(),
                    subscribe: vec![request(&self.settings, "subscribe", channel, &pairs)],
                    feeds: feeds(&[kind], symbols),
                    confirmation: Confirmation::Message,
                });
            }
        }
        plans
    }

    fn closed(&mut self, connection: usize) {
        LocalBook::lose(&mut self.books, connection);
    }

    fn decode(
        &mut self,
        _connection: usize,
        frame: &[u8],
        received_at: Micros,
        out: &mut Output,
    ) -> Result<(), DecodeError> {
        if frame.trim_ascii_start().starts_with(b"{") {
            return self.event(frame, received_at, out);
        }
        let parts: Vec<&RawValue> = parse(frame)?;
        let [_channel_id, data @ .., channel, pair] = parts.as_slice() else {
            return Err(DecodeError::Unknown("list of fewer than three".to_owned()));
        };
        let (channel, pair): (Cow<'_, str>, Cow<'_, str>) = (part(channel)?, part(pair)?);
        let Some((index, symbol)) = self.subscription.by_native(&pair) else {
            return Err(DecodeError::Unknown(format!("pair {pair}")));
        };
        match (channel.as_ref(), data) {
            ("trade", [data]) => self.trades(index, data, received_at, out),
            ("ticker", [data]) => self.ticker(symbol, data, received_at, out),
            (book, [_, ..]) if book.starts_with("book-") => {
                self.book(index, data, received_at, out)
            }
            (other, _) => Err(DecodeError::Unknown(format!("channel {other}"))),
        }
    }

    fn flush_tops(&mut self, connection: usize, now: Micros, all: bool, out: &mut Output) {
        LocalBook::flush(&mut self.books, connection, now, all, self.pace, out);
    }

    fn state_book(&self, symbol: &str, now: Micros, out: &mut Output) {
        LocalBook::restate(&self.books, symbol, now, out);
    }

    fn restart(&mut self, kind: Kind, symbol: &str, at: Micros, out: &mut Output) {
        let Some((_, native)) = self.subscription.by_symbol(symbol) else { return };
        let Some((_, channel)) = self.wanted().find(|(k, _)| *k == kind) else { return };
        let texts = ["unsubscribe", "subscribe"];
        let texts = texts.map(|event| request(&self.settings, event, channel, &[native]));
        let plans = self.connections();
        anew(&plans, &mut self.books, (kind, symbol), at, texts.to_vec(), out);
    }

    /// A quiet connection carries a heartbeat every second.
    fn keepalive(&self) -> Keepalive {
        Keepalive {
            ping_every: Duration::from_secs(10),
            silence: Duration::from_secs(30),
            text: None,
            pace: None,
        }
    }

    fn budget(&self) -> Budget {
        Budget { burst: 10, refill: Duration::from_secs(3) }
    }
}
