//! Binance spot, combined streams.
//!
//! ```json
//! {"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1633998523963,"s":"BTCUSDT","a":12,"p":"57000.10","q":"0.5","f":1,"l":2,"T":1633998523960,"m":false,"M":true}}
//! {"stream":"btcusdt@bookTicker","data":{"u":400,"s":"BTCUSDT","b":"57000.00","B":"1.5","a":"57000.10","A":"2"}}
//! {"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1633998512068,"s":"BTCUSDT","U":401,"u":403,"b":[["57000.00","1"]],"a":[]}}
//! ```
//!
//! Snapshot: `GET /api/v3/depth?symbol=BTCUSDT&limit=1000` gives
//! `{"lastUpdateId":400,"bids":[["57000.00","1.5"]],"asks":[["57000.10","2"]]}`.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use tapeline_schemas::{Kind, Level, Micros, Side, Ticker, Trade};

use super::books::{LocalBook, TopPace, Update};
use super::json::{Text, level, money, parse, part};
use super::sequenced::SequencedBook;
use super::subscription::{Subscription, feeds};
use super::{
    Budget, Confirmation, ConnectionPlan, Connector, DecodeError, Keepalive, Output, Settings,
    SnapshotOutcome, SymbolTable, UnknownSymbol,
};

/// The venue's name.
pub const VENUE: &str = "BINANCE";

/// Binance allows 1024 streams a connection; three a symbol also have to fit into one URL.
const SYMBOLS_PER_CONNECTION: usize = 100;

/// The connector.
#[derive(Debug)]
pub struct Binance {
    settings: Settings,
    pace: TopPace,
    subscription: Subscription,
    books: Vec<SequencedBook>,
}

#[derive(Deserialize)]
struct ExchangeInfo<'a> {
    #[serde(borrow)]
    symbols: Vec<Listed<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed<'a> {
    #[serde(borrow)]
    symbol: Cow<'a, str>,
    #[serde(borrow)]
    base_asset: Cow<'a, str>,
    #[serde(borrow)]
    quote_asset: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    stream: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    msg: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct AggTrade<'a> {
    #[serde(borrow)]
    s: Cow<'a, str>,
    a: i64,
    #[serde(borrow)]
    p: Cow<'a, str>,
    #[serde(borrow)]
    q: Cow<'a, str>,
    #[serde(rename = "T")]
    time: i64,
    m: bool,
}

#[derive(Deserialize)]
struct BookTicker<'a> {
    u: i64,
    #[serde(borrow)]
    s: Cow<'a, str>,
    #[serde(borrow)]
    b: Cow<'a, str>,
    #[serde(borrow, rename = "B")]
    bid_amount: Cow<'a, str>,
    #[serde(borrow)]
    a: Cow<'a, str>,
    #[serde(borrow, rename = "A")]
    ask_amount: Cow<'a, str>,
}

#[derive(Deserialize)]
struct DepthUpdate<'a> {
    #[serde(rename = "E")]
    time: i64,
    #[serde(borrow)]
    s: Cow<'a, str>,
    #[serde(rename = "U")]
    first: i64,
    #[serde(rename = "u")]
    last: i64,
    #[serde(borrow)]
    b: Vec<[Text<'a>; 2]>,
    #[serde(borrow)]
    a: Vec<[Text<'a>; 2]>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Depth<'a> {
    last_update_id: i64,
    #[serde(borrow)]
    bids: Vec<[Text<'a>; 2]>,
    #[serde(borrow)]
    asks: Vec<[Text<'a>; 2]>,
}

fn levels(pairs: &[[Text<'_>; 2]]) -> Result<Vec<Level>, DecodeError> {
    pairs.iter().map(|[price, amount]| level(&price.0, &amount.0)).collect()
}

fn unsubscribed(native: &str) -> DecodeError {
    DecodeError::Unknown(format!("symbol {native}"))
}

impl Binance {
    /// A connector with these settings.
    pub fn new(settings: Settings) -> Binance {
        let pace = TopPace::new(&settings);
        Binance { settings, pace, subscription: Subscription::default(), books: Vec::new() }
    }

    fn wants(&self, kind: Kind) -> bool {
        self.settings.channels.contains(&kind)
    }

    fn symbol(&self, native: &str) -> Result<&str, DecodeError> {
        self.subscription
            .by_native(native)
            .map(|(_, symbol)| symbol)
            .ok_or_else(|| unsubscribed(native))
    }

    fn trade(&self, data: &RawValue, at: Micros, out: &mut Output) -> Result<(), DecodeError> {
        let raw: AggTrade<'_> = part(data)?;
        out.trade(&Trade {
            exchange: Cow::Borrowed(VENUE),
            symbol: Cow::Borrowed(self.symbol(&raw.s)?),
            trade_id: Cow::Owned(raw.a.to_string()),
            price: money(&raw.p)?,
            amount: money(&raw.q)?,
            // `m`: the buyer's order was waiting in the book, so the seller took it.
            side: if raw.m { Side::Sell } else { Side::Buy },
            kind: None,
            taker_or_maker: None,
            sequence: Some(raw.a),
            venue_time: Micros::from_millis(raw.time),
            receive_time: at,
        });
        Ok(())
    }

    fn ticker(&self, data: &RawValue, at: Micros, out: &mut Output) -> Result<(), DecodeError> {
        let raw: BookTicker<'_> = part(data)?;
        out.ticker(&Ticker {
            exchange: Cow::Borrowed(VENUE),
            symbol: Cow::Borrowed(self.symbol(&raw.s)?),
            event_id: Some(Cow::Owned(raw.u.to_string())),
            last: None,
            bid: Some(money(&raw.b)?),
            bid_volume: Some(money(&raw.bid_amount)?),
            ask: Some(money(&raw.a)?),
            ask_volume: Some(money(&raw.ask_amount)?),
            volume_24h: None,
            quote_volume_24h: None,
            price_change_24h: None,
            price_change_percent_24h: None,
            venue_time: at,
            receive_time: at,
        });
        Ok(())
    }

    fn depth(&mut self, data: &RawValue, at: Micros, out: &mut Output) -> Result<(), DecodeError> {
        let raw: DepthUpdate<'_> = part(data)?;
        let index = self.subscription.by_native(&raw.s).map(|(index, _)| index);
        let book = index.and_then(|i| self.books.get_mut(i)).ok_or_else(|| unsubscribed(&raw.s))?;
        if raw.first > raw.last {
            return Err(DecodeError::Malformed(format!("U {} above u {}", raw.first, raw.last)));
        }
        let delta = Update {
            first_sequence: Some(raw.first),
            sequence: Some(raw.last),
            checksum: None,
            event_id: Some(raw.last.to_string()),
            venue_time: Micros::from_millis(raw.time),
            receive_time: at,
            bids: levels(&raw.b)?,
            asks: levels(&raw.a)?,
        };
        out.stats().received(Kind::Book);
        book.delta(delta, self.pace, out);
        Ok(())
    }
}

impl Connector for Binance {
    fn venue(&self) -> &'static str {
        VENUE
    }

    fn symbols_request(&self) -> &'static str {
        "/api/v3/exchangeInfo"
    }

    fn decode_symbols(&self, body: &[u8]) -> Result<SymbolTable, DecodeError> {
        let info: ExchangeInfo<'_> = parse(body)?;
        let mut table = SymbolTable::new();
        for listed in &info.symbols {
            table.insert(&listed.base_asset, &listed.quote_asset, &listed.symbol);
        }
        Ok(table)
    }

    fn configure(&mut self, table: &SymbolTable) -> Result<(), UnknownSymbol> {
        self.subscription = Subscription::new(VENUE, &self.settings, table)?;
        if self.wants(Kind::Book) {
            let symbols = self.subscription.symbols().iter().enumerate();
            self.books = symbols
                .map(|(index, s)| LocalBook::new(VENUE, &s.symbol, index / SYMBOLS_PER_CONNECTION))
                .map(SequencedBook::new)
                .collect();
        }
        Ok(())
    }

    fn connections(&self) -> Vec<ConnectionPlan> {
        let channels: Vec<(Kind, &str)> =
            [(Kind::Book, "depth@100ms"), (Kind::Ticker, "bookTicker"), (Kind::Trade, "aggTrade")]
                .into_iter()
                .filter(|(kind, _)| self.wants(*kind))
                .collect();
        let kinds: Vec<Kind> = channels.iter().map(|(kind, _)| *kind).collect();
        let chunks = self.subscription.symbols().chunks(SYMBOLS_PER_CONNECTION);
        chunks
            .map(|symbols| {
                let streams: Vec<String> = channels
                    .iter()
                    .flat_map(|(_, channel)| {
                        let name = move |native: &str| {
                            format!("{}@{channel}", native.to_ascii_lowercase())
                        };
                        symbols.iter().map(move |s| name(&s.native))
                    })
                    .collect();
                ConnectionPlan {
                    path: format!("/stream?streams={}", streams.join("/")),
                    subscribe: Vec::new(),
                    feeds: feeds(&kinds, symbols),
                    confirmation: Confirmation::FirstFrame,
                }
            })
            .collect()
    }

    fn opened(&mut self, connection: usize, out: &mut Output) {
        for book in self.books.iter().filter(|book| book.book.connection == connection) {
            out.request_snapshot(&book.book.symbol);
        }
    }

    fn closed(&mut self, connection: usize) {
        for book in self.books.iter_mut().filter(|book| book.book.connection == connection) {
            book.closed();
        }
    }

    fn decode(
        &mut self,
        _connection: usize,
        frame: &[u8],
        received_at: Micros,
        out: &mut Output,
    ) -> Result<(), DecodeError> {
        let envelope: Envelope<'_> = parse(frame)?;
        if let Some(error) = envelope.error.or(envelope.msg) {
            return Err(DecodeError::Venue(error.get().to_owned()));
        }
        let (Some(stream), Some(data)) = (envelope.stream, envelope.data) else {
            return Err(DecodeError::Unknown("neither a stream's data nor an error".to_owned()));
        };
        match stream.split_once('@').map(|(_, channel)| channel) {
            Some("aggTrade") => self.trade(data, received_at, out),
            Some("bookTicker") => self.ticker(data, received_at, out),
            Some(channel) if channel.starts_with("depth") => self.depth(data, received_at, out),
            _ => Err(DecodeError::Unknown(format!("stream {stream}"))),
        }
    }

    fn snapshot_request(&self, symbol: &str) -> Option<String> {
        let (_, native) = self.subscription.by_symbol(symbol)?;
        Some(format!("/api/v3/depth?symbol={native}&limit={}", self.settings.book_depth))
    }

    fn decode_snapshot(
        &mut self,
        symbol: &str,
        body: &[u8],
        received_at: Micros,
        out: &mut Output,
    ) -> Result<SnapshotOutcome, DecodeError> {
        let raw: Depth<'_> = parse(body)?;
        let index = self.subscription.by_symbol(symbol).map(|(index, _)| index);
        let book = index.and_then(|i| self.books.get_mut(i)).ok_or_else(|| unsubscribed(symbol))?;
        let snapshot = Update {
            first_sequence: None,
            sequence: Some(raw.last_update_id),
            checksum: None,
            // A delta may end at the same number, but is another event.
            event_id: Some(format!("snapshot-{}", raw.last_update_id)),
            venue_time: received_at,
            receive_time: received_at,
            bids: levels(&raw.bids)?,
            asks: levels(&raw.asks)?,
        };
        out.stats().received(Kind::Book);
        Ok(book.snapshot(snapshot, self.pace, out))
    }

    fn flush_tops(&mut self, connection: usize, now: Micros, all: bool, out: &mut Output) {
        for book in self.books.iter_mut().filter(|book| book.book.connection == connection) {
            book.book.show(now, all, self.pace, out);
        }
    }

    fn settled(&self) -> bool {
        !self.books.iter().any(SequencedBook::waiting)
    }

    fn keepalive(&self) -> Keepalive {
        Keepalive { ping_every: Duration::from_secs(20), silence: Duration::from_secs(60) }
    }

    /// A depth request of 1000 levels weighs 50 of the 6000 a minute that Binance allows today.
    fn budget(&self) -> Budget {
        Budget { burst: 20, refill: Duration::from_secs(1) }
    }
}
