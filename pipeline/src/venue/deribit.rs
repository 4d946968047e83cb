//! Deribit, JSON-RPC over WebSocket, API v2: options, futures, perpetuals, spot.
//! Documents: <https://docs.deribit.com/subscriptions/orderbook/bookinstrument_nameinterval>,
//! <https://docs.deribit.com/articles/notifications>.
//!
//! ```json
//! {"jsonrpc":"2.0","id":1,"result":["book.BTC-25DEC26-100000-C.100ms","ticker.BTC-25DEC26-100000-C.100ms"]}
//! {"jsonrpc":"2.0","method":"subscription","params":{"channel":"book.BTC-25DEC26-100000-C.100ms","data":{"type":"snapshot","timestamp":1626993723632,"instrument_name":"BTC-25DEC26-100000-C","change_id":100,"bids":[["new",0.0015,4714.0]],"asks":[["new",0.0025,873.0]]}}}
//! {"jsonrpc":"2.0","method":"subscription","params":{"channel":"book.BTC-25DEC26-100000-C.100ms","data":{"type":"change","timestamp":1626993724318,"prev_change_id":100,"instrument_name":"BTC-25DEC26-100000-C","change_id":105,"bids":[],"asks":[["delete",0.0025,0.0]]}}}
//! {"jsonrpc":"2.0","method":"subscription","params":{"channel":"trades.BTC-25DEC26-100000-C.100ms","data":[{"trade_seq":12,"trade_id":"48079269","timestamp":1626993724318,"tick_direction":2,"price":0.0015,"mark_price":0.0016,"iv":58.5,"instrument_name":"BTC-25DEC26-100000-C","index_price":32201.67,"direction":"sell","amount":10.0}]}}
//! {"jsonrpc":"2.0","method":"subscription","params":{"channel":"ticker.BTC-25DEC26-100000-C.100ms","data":{"underlying_price":32185.65,"underlying_index":"BTC-25DEC26","timestamp":1626993722929,"stats":{"volume":193.4,"price_change":-28.5714,"low":0.002,"high":0.0035},"state":"open","open_interest":572.5,"mark_price":0.00222014,"mark_iv":116.77,"last_price":0.0025,"interest_rate":0.0,"instrument_name":"BTC-25DEC26-100000-C","index_price":32201.67,"greeks":{"vega":3.30195,"theta":-26.09543,"rho":-0.22411,"gamma":0.00001,"delta":-0.03218},"bid_iv":114.55,"best_bid_price":0.002,"best_bid_amount":91.6,"best_ask_price":0.0025,"best_ask_amount":13.7,"ask_iv":119.4}}}
//! ```
//!
//! `prev_change_id` is the `change_id` before, verified on every change; `trade_seq` counts an instrument's trades one by
//! one. The ticker of an option gives a ticker and the option's figures. The interval `raw` of the recordings wants a
//! signed connection today; the others are written alike.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use serde_json::value::RawValue;
use tapeline_schemas::{Kind, Micros, Side, Trade};

use self::book::Outcome;
use self::raw::{Answer, Message, Params, RawBook, RawTicker, RawTrade};
use self::symbols::{CURRENCIES, currency_of, instrument};
use super::books::{LocalBook, TopPace};
use super::json::{Text, number, parse, part};
use super::subscription::{Subscribed, Subscription, anew, feeds};
use super::trade_order::TradeChain;
use super::{
    Budget, Confirmation, ConnectionPlan, Connector, DecodeError, Keepalive, Market, Output,
    Settings, SymbolTable, UnknownSymbol,
};

mod book;
mod history;
mod raw;
mod symbols;
mod ticker;

/// The venue's name.
pub const VENUE: &str = "DERIBIT";

/// What it gives of the past.
pub(super) const HISTORY: &[super::history::Offer] = history::OFFERS;

/// A connection may have 500 channels; up to three an instrument.
pub(super) const SYMBOLS_PER_CONNECTION: usize = 150;

/// Time between two messages of a channel.
const INTERVAL: &str = "100ms";

/// A request that only wants an answer.
const TEST: &str = r#"{"jsonrpc":"2.0","id":2,"method":"public/test","params":{}}"#;

/// The connector.
#[derive(Debug)]
pub struct Deribit {
    settings: Settings,
    pace: TopPace,
    subscription: Subscription,
    books: Vec<LocalBook>,
    chains: Vec<TradeChain>,
}

fn request(method: &str, channels: &[String]) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": {"channels": channels}})
        .to_string()
}

/// The kinds that a channel of this name gives.
fn kinds_of(channel: &str) -> &'static [Kind] {
    match channel {
        "book" => &[Kind::Book],
        "trades" => &[Kind::Trade],
        "ticker" => &[Kind::Ticker, Kind::Option],
        _ => &[],
    }
}

/// A trade, of the feed or of the past.
fn traded<'a>(
    symbol: &'a str,
    raw: &'a RawTrade<'_>,
    at: Micros,
) -> Result<Trade<'a>, DecodeError> {
    Ok(Trade {
        exchange: Cow::Borrowed(VENUE),
        symbol: Cow::Borrowed(symbol),
        trade_id: Cow::Borrowed(raw.trade_id.as_ref()),
        price: number(raw.price)?,
        amount: number(raw.amount)?,
        side: match raw.direction.as_ref() {
            "buy" => Side::Buy,
            "sell" => Side::Sell,
            other => return Err(DecodeError::Malformed(format!("direction `{other}`"))),
        },
        kind: None,
        taker_or_maker: None,
        sequence: Some(raw.trade_seq),
        venue_time: Micros::from_millis(raw.timestamp),
        receive_time: at,
    })
}

fn trade(
    symbol: &str,
    chain: &mut TradeChain,
    raw: &RawTrade<'_>,
    at: Micros,
    out: &mut Output,
) -> Result<(), DecodeError> {
    let trade = traded(symbol, raw, at)?;
    chain.follow(symbol, raw.trade_seq, raw.trade_seq, at, out);
    out.trade(&trade);
    Ok(())
}

impl Deribit {
    /// A connector with these settings.
    pub fn new(settings: Settings) -> Deribit {
        let pace = TopPace::new(&settings);
        let (books, chains) = (Vec::new(), Vec::new());
        Deribit { settings, pace, subscription: Subscription::default(), books, chains }
    }

    fn wants(&self, kind: Kind) -> bool {
        self.settings.channels.contains(&kind)
    }

    /// The channels of an instrument, with what they give.
    fn channels(&self, of: &Subscribed) -> Vec<String> {
        let option = of.instrument.market == Market::Option;
        let wanted = |kind: &Kind| self.wants(*kind) && (*kind != Kind::Option || option);
        let channels = ["trades", "ticker", "book"].into_iter();
        channels
            .filter(|channel| kinds_of(channel).iter().any(wanted))
            .map(|channel| format!("{channel}.{}.{INTERVAL}", of.native))
            .collect()
    }

    /// The answer to a subscription lists its channels; other answers list nothing.
    fn confirmed(&self, result: &RawValue, at: Micros, out: &mut Output) {
        let channels: Vec<Text<'_>> = part(result).unwrap_or_default();
        for channel in &channels {
            let mut words = channel.0.splitn(2, '.');
            let (Some(name), Some(rest)) = (words.next(), words.next()) else { continue };
            let native = rest.rsplit_once('.').map_or(rest, |(native, _)| native);
            let Some((_, symbol)) = self.subscription.by_native(native) else { continue };
            // A book is whole again with its snapshot, not with the confirmation.
            for kind in kinds_of(name).iter().filter(|kind| **kind != Kind::Book) {
                out.whole(*kind, symbol, at);
            }
        }
    }

    /// One bad trade does not hide the others of its message.
    fn trades(&mut self, data: &RawValue, at: Micros, out: &mut Output) -> Result<(), DecodeError> {
        let rows: Vec<&RawValue> = part(data)?;
        let mut first_error = Ok(());
        for row in rows {
            let done = part(row).and_then(|raw: RawTrade<'_>| {
                let unknown =
                    || DecodeError::Unknown(format!("instrument {}", raw.instrument_name));
                let found = self.subscription.by_native(&raw.instrument_name);
                let (index, symbol) = found.ok_or_else(unknown)?;
                let chain = self.chains.get_mut(index).ok_or_else(unknown)?;
                trade(symbol, chain, &raw, at, out)
            });
            if first_error.is_ok() {
                first_error = done;
            }
        }
        first_error
    }

    fn ticker(&self, data: &RawValue, at: Micros, out: &mut Output) -> Result<(), DecodeError> {
        let raw: RawTicker<'_> = part(data)?;
        let index = self.subscription.by_native(&raw.instrument_name).map(|(index, _)| index);
        let Some(subscribed) = index.and_then(|index| self.subscription.get(index)) else {
            return Err(DecodeError::Unknown(format!("instrument {}", raw.instrument_name)));
        };
        let ticker = ticker::ticker(subscribed, &raw, at)?;
        let option = ticker::option(subscribed, &raw, at)?;
        if self.wants(Kind::Ticker) {
            out.ticker(&ticker);
        }
        if let Some(option) = option.filter(|_| self.wants(Kind::Option)) {
            out.option(&option);
        }
        Ok(())
    }

    fn book(
        &mut self,
        native: &str,
        data: &RawValue,
        at: Micros,
        out: &mut Output,
    ) -> Result<(), DecodeError> {
        let index = self.subscription.by_native(native).map(|(index, _)| index);
        let Some(book) = index.and_then(|index| self.books.get_mut(index)) else {
            return Err(DecodeError::Unknown(format!("book of {native}")));
        };
        out.stats().received(Kind::Book);
        let texts = || {
            let channels = [format!("book.{native}.{INTERVAL}")];
            ["public/unsubscribe", "public/subscribe"].map(|m| request(m, &channels))
        };
        let applied = part(data).and_then(|raw: RawBook<'_>| book::apply(book, &raw, at, out));
        let failed = match applied {
            Ok(Outcome::Applied { snapshot }) => {
                book.show(at, snapshot, self.pace, out);
                return Ok(());
            }
            Ok(Outcome::Stale) => {
                book.stale(at, || texts().to_vec(), out);
                return Ok(());
            }
            Ok(Outcome::Repeated) => {
                out.stats().updates_stale.add(1);
                return Ok(());
            }
            Ok(Outcome::WrongSequence) => Ok(()),
            Err(error) => Err(error),
        };
        book.resubscribe("sequence", at, texts().to_vec(), out);
        failed
    }

    fn notified(
        &mut self,
        channel: &str,
        data: &RawValue,
        at: Micros,
        out: &mut Output,
    ) -> Result<(), DecodeError> {
        let (name, rest) = channel.split_once('.').unwrap_or((channel, ""));
        match name {
            "trades" => self.trades(data, at, out),
            "ticker" => self.ticker(data, at, out),
            "book" => {
                let native = rest.split_once('.').map_or(rest, |(native, _)| native);
                self.book(native, data, at, out)
            }
            _ => Err(DecodeError::Unknown(format!("channel {channel}"))),
        }
    }
}

impl Connector for Deribit {
    fn venue(&self) -> &'static str {
        VENUE
    }

    fn symbols_requests(&self) -> Vec<String> {
        let symbols = self.settings.symbols.iter().map(|symbol| symbol.to_ascii_uppercase());
        let mut wanted: BTreeSet<&str> = symbols.map(|symbol| currency_of(&symbol)).collect();
        if wanted.is_empty() {
            wanted.extend(CURRENCIES);
        }
        let path = |currency: &str| {
            format!("/api/v2/public/get_instruments?currency={currency}&expired=false")
        };
        wanted.into_iter().map(path).collect()
    }

    fn decode_symbols(
        &self,
        _request: &str,
        body: &[u8],
        table: &mut SymbolTable,
    ) -> Result<(), DecodeError> {
        let answer: Answer<'_> = parse(body)?;
        let Some(result) = answer.result else {
            let error = answer.error.map(RawValue::get).unwrap_or_default();
            return Err(DecodeError::Venue(error.to_owned()));
        };
        result.iter().filter_map(instrument).for_each(|instrument| table.insert(instrument));
        Ok(())
    }

    fn configure(&mut self, table: &SymbolTable) -> Result<(), UnknownSymbol> {
        self.subscription = Subscription::new(VENUE, &self.settings, table)?;
        let symbols = self.subscription.symbols();
        self.chains = symbols.iter().map(|_| TradeChain::default()).collect();
        if self.wants(Kind::Book) {
            self.books = LocalBook::spread(VENUE, symbols, SYMBOLS_PER_CONNECTION, 0);
        }
        Ok(())
    }

    fn connections(&self) -> Vec<ConnectionPlan> {
        let chunks = self.subscription.symbols().chunks(SYMBOLS_PER_CONNECTION);
        chunks
            .map(|symbols| {
                let channels: Vec<String> =
                    symbols.iter().flat_map(|subscribed| self.channels(subscribed)).collect();
                let kinds = [Kind::Trade, Kind::Ticker, Kind::Book];
                let kinds = kinds.into_iter().filter(|kind| self.wants(*kind));
                let mut all = feeds(&kinds.collect::<Vec<_>>(), symbols);
                if self.wants(Kind::Option) {
                    let options = symbols.iter().filter(|s| s.instrument.option.is_some());
                    all.extend(options.map(|s| (Kind::Option, s.symbol.clone())));
                }
                ConnectionPlan {
                    path: "/ws/api/v2".to_owned(),
                    subscribe: vec![request("public/subscribe", &channels)],
                    feeds: all,
                    confirmation: Confirmation::Message,
                }
            })
            .collect()
    }

    fn closed(&mut self, connection: usize) {
        LocalBook::lose(&mut self.books, connection);
    }

    fn decode(
        &mut self,
        connection: usize,
        frame: &[u8],
        received_at: Micros,
        out: &mut Output,
    ) -> Result<(), DecodeError> {
        let message: Message<'_> = parse(frame)?;
        if let Some(error) = message.error {
            return Err(DecodeError::Venue(error.get().to_owned()));
        }
        if let Some(result) = message.result {
            self.confirmed(result, received_at, out);
            return Ok(());
        }
        match (message.method.as_deref(), message.params) {
            (
                Some("subscription"),
                Some(Params { channel: Some(channel), data: Some(data), .. }),
            ) => self.notified(&channel, data, received_at, out),
            // Who does not answer a test is disconnected.
            (Some("heartbeat"), Some(Params { kind: Some(kind), .. })) => {
                if kind == "test_request" {
                    out.reply(connection, TEST);
                }
                Ok(())
            }
            (method, _) => {
                Err(DecodeError::Unknown(format!("method {}", method.unwrap_or("missing"))))
            }
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
        let name = match kind {
            Kind::Book => "book",
            Kind::Trade => "trades",
            _ => "ticker",
        };
        let channels = [format!("{name}.{native}.{INTERVAL}")];
        let texts = ["public/unsubscribe", "public/subscribe"].map(|m| request(m, &channels));
        let plans = self.connections();
        anew(&plans, &mut self.books, (kind, symbol), at, texts.to_vec(), out);
    }

    fn keepalive(&self) -> Keepalive {
        Keepalive {
            ping_every: Duration::from_secs(20),
            silence: Duration::from_secs(60),
            text: Some(TEST),
            // Ten subscriptions or their ends at once, then 3.3 a second.
            pace: Some(Budget { burst: 8, refill: Duration::from_millis(350) }),
        }
    }

    /// Public requests cost 500 of 50,000 credits, 10,000 of which come back a second; a tenth of that.
    fn budget(&self) -> Budget {
        Budget { burst: 100, refill: Duration::from_millis(500) }
    }

    /// The list of instruments is given five times at once, then once in ten seconds:
    /// <https://docs.deribit.com/articles/rate-limits>.
    fn weight(&self, request: &str) -> u32 {
        if request.starts_with("/api/v2/public/get_instruments") { 20 } else { 1 }
    }
}
