//! Binance spot, combined streams.
//! Documents: <https://github.com/binance/binance-spot-api-docs/blob/master/web-socket-streams.md>.
//!
//! ```json
//! {"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1633998523963,"s":"BTCUSDT","a":12,"p":"57000.10","q":"0.5","f":1,"l":2,"T":1633998523960,"m":false,"M":true}}
//! {"stream":"btcusdt@bookTicker","data":{"u":400,"s":"BTCUSDT","b":"57000.00","B":"1.5","a":"57000.10","A":"2"}}
//! {"stream":"btcusdt@kline_1m","data":{"e":"kline","E":1633998523963,"s":"BTCUSDT","k":{"t":1633998480000,"T":1633998539999,"s":"BTCUSDT","i":"1m","f":1,"L":9,"o":"57000.00","c":"57000.10","h":"57000.20","l":"56999.90","v":"3.5","n":9,"x":false,"q":"199500.7","V":"2","Q":"114000.4","B":"0"}}}
//! {"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1633998512068,"s":"BTCUSDT","U":401,"u":403,"b":[["57000.00","1"]],"a":[]}}
//! ```
//!
//! Snapshot: `GET /api/v3/depth?symbol=BTCUSDT&limit=1000` gives
//! `{"lastUpdateId":400,"bids":[["57000.00","1.5"]],"asks":[["57000.10","2"]]}`.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::json;
use serde_json::value::RawValue;
use tapeline_schemas::{Kind, Level, Micros, Ticker};

use self::events::{aggregate, window};
use self::raw::{AggTrade, BookTicker, Depth, DepthUpdate, Envelope, ExchangeInfo, KlineEvent};
use super::books::{LocalBook, TopPace, Update};
use super::json::{Text, figure, level, money, parse, part};
use super::sequenced::SequencedBook;
use super::subscription::{Subscription, feeds};
use super::trade_order::TradeChain;
use super::{
    Budget, Confirmation, ConnectionPlan, Connector, DecodeError, Instrument, Keepalive, Output,
    Settings, SnapshotOutcome, SymbolTable, UnknownSymbol,
};

mod events;
mod history;
mod raw;

/// The venue's name.
pub const VENUE: &str = "BINANCE";

/// What it gives of the past.
pub(super) const HISTORY: &[super::history::Offer] = history::OFFERS;

/// Binance allows 1024 streams a connection; four a symbol also have to fit into one URL.
pub(super) const SYMBOLS_PER_CONNECTION: usize = 100;

const CHANNELS: [(Kind, &str); 4] = [
    (Kind::Book, "depth@100ms"),
    (Kind::Ticker, "bookTicker"),
    (Kind::VenueCandle, "kline_1m"),
    (Kind::Trade, "aggTrade"),
];

/// The connector.
#[derive(Debug)]
pub struct Binance {
    settings: Settings,
    pace: TopPace,
    subscription: Subscription,
    books: Vec<SequencedBook>,
    chains: Vec<TradeChain>,
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
        let (books, chains) = (Vec::new(), Vec::new());
        Binance { settings, pace, subscription: Subscription::default(), books, chains }
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

    fn trade(&mut self, data: &RawValue, at: Micros, out: &mut Output) -> Result<(), DecodeError> {
        let raw: AggTrade<'_> = part(data)?;
        let (index, symbol) =
            self.subscription.by_native(&raw.s).ok_or_else(|| unsubscribed(&raw.s))?;
        let trade = aggregate(symbol, &raw, at)?;
        if let Some(chain) = self.chains.get_mut(index) {
            chain.follow(symbol, raw.a, raw.a, at, out);
        }
        out.trade(&trade);
        Ok(())
    }

    fn candle(&self, data: &RawValue, at: Micros, out: &mut Output) -> Result<(), DecodeError> {
        let event: KlineEvent<'_> = part(data)?;
        out.candle(&window(self.symbol(&event.s)?, &event.k, at)?);
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

    /// A resubscription was accepted. A book is whole again with its snapshot, not with this.
    fn confirmed(&self, id: usize, at: Micros, out: &mut Output) {
        let Some(number) = id.checked_sub(1) else { return };
        let (index, (kind, _)) = (number / CHANNELS.len(), CHANNELS[number % CHANNELS.len()]);
        if let Some(subscribed) = self.subscription.get(index).filter(|_| kind != Kind::Book) {
            out.whole(kind, &subscribed.symbol, at);
        }
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

    fn symbols_requests(&self) -> Vec<String> {
        vec!["/api/v3/exchangeInfo".to_owned()]
    }

    fn decode_symbols(
        &self,
        _request: &str,
        body: &[u8],
        table: &mut SymbolTable,
    ) -> Result<(), DecodeError> {
        let info: ExchangeInfo<'_> = parse(body)?;
        for listed in &info.symbols {
            let filter = |name| listed.filters.iter().find(|filter| filter.filter_type == name);
            let lots = filter("LOT_SIZE");
            table.insert(Instrument {
                tick_size: filter("PRICE_FILTER").and_then(|f| figure(f.tick_size.as_deref())),
                lot_size: lots.and_then(|filter| figure(filter.step_size.as_deref())),
                min_size: lots.and_then(|filter| figure(filter.min_qty.as_deref())),
                status: listed.status.as_deref().map(str::to_owned),
                ..Instrument::spot(&listed.base_asset, &listed.quote_asset, &listed.symbol)
            });
        }
        Ok(())
    }

    fn configure(&mut self, table: &SymbolTable) -> Result<(), UnknownSymbol> {
        self.subscription = Subscription::new(VENUE, &self.settings, table)?;
        self.chains = self.subscription.symbols().iter().map(|_| TradeChain::default()).collect();
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
            CHANNELS.into_iter().filter(|(kind, _)| self.wants(*kind)).collect();
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
        if let Some(id) = envelope.id {
            self.confirmed(id, received_at, out);
            return Ok(());
        }
        let (Some(stream), Some(data)) = (envelope.stream, envelope.data) else {
            return Err(DecodeError::Unknown("neither a stream's data nor an error".to_owned()));
        };
        match stream.split_once('@').map(|(_, channel)| channel) {
            Some("aggTrade") => self.trade(data, received_at, out),
            Some("bookTicker") => self.ticker(data, received_at, out),
            Some(channel) if channel.starts_with("kline_") => self.candle(data, received_at, out),
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

    fn state_book(&self, symbol: &str, now: Micros, out: &mut Output) {
        let index = self.subscription.by_symbol(symbol).map(|(index, _)| index);
        if let Some(book) = index.and_then(|index| self.books.get(index)) {
            book.book.state(now, out);
        }
    }

    fn restart(&mut self, kind: Kind, symbol: &str, _at: Micros, out: &mut Output) {
        let Some((index, native)) = self.subscription.by_symbol(symbol) else { return };
        let Some(channel) = CHANNELS.iter().position(|(k, _)| *k == kind) else { return };
        let stream = format!("{}@{}", native.to_ascii_lowercase(), CHANNELS[channel].1);
        let id = 1 + index * CHANNELS.len() + channel;
        let request = |method: &str, id: usize| {
            json!({"method": method, "params": [stream], "id": id}).to_string()
        };
        let texts = vec![request("UNSUBSCRIBE", 0), request("SUBSCRIBE", id)];
        out.resubscribe(index / SYMBOLS_PER_CONNECTION, texts);
        if let Some(book) = self.books.get_mut(index).filter(|_| kind == Kind::Book) {
            book.closed();
            out.resynced(symbol);
            out.request_snapshot(symbol);
        }
    }

    fn keepalive(&self) -> Keepalive {
        Keepalive {
            ping_every: Duration::from_secs(20),
            silence: Duration::from_secs(60),
            text: None,
            // Five messages a second, among which a ping and a pong may be.
            pace: Some(Budget { burst: 1, refill: Duration::from_millis(400) }),
        }
    }

    /// Half of the 6000 a minute that the venue allows an address.
    fn budget(&self) -> Budget {
        Budget { burst: 1_000, refill: Duration::from_millis(20) }
    }

    /// By <https://developers.binance.com/docs/binance-spot-api-docs/rest-api/market-data-endpoints>.
    fn weight(&self, request: &str) -> u32 {
        let (path, query) = request.split_once('?').unwrap_or((request, ""));
        let limit = query.split('&').find_map(|part| part.strip_prefix("limit=")?.parse().ok());
        match path {
            "/api/v3/depth" => match limit.unwrap_or(100_u32) {
                0..=100 => 5,
                101..=500 => 25,
                501..=1_000 => 50,
                _ => 250,
            },
            "/api/v3/exchangeInfo" => 20,
            "/api/v3/historicalTrades" => 25,
            "/api/v3/aggTrades" => 4,
            "/api/v3/klines" => 2,
            _ => 1,
        }
    }
}
