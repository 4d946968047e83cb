//! Coinbase Exchange (the recordings call it Coinbase Pro), WebSocket feed.
//! Documents: <https://docs.cdp.coinbase.com/exchange/websocket-feed/channels>,
//! <https://docs.cdp.coinbase.com/exchange/reference/exchangerestapi_getproducts>.
//!
//! ```json
//! {"type":"match","trade_id":280232,"maker_order_id":"a","taker_order_id":"b","side":"sell","size":"985","price":"0.5","product_id":"BTC-USD","sequence":17,"time":"2021-04-17T16:43:37.089723Z"}
//! {"type":"ticker","sequence":17,"product_id":"BTC-USD","price":"0.5","open_24h":"0.4","volume_24h":"94.25","best_bid":"0.4","best_ask":"0.6","side":"buy","time":"2021-04-17T16:43:37.089723Z","trade_id":280232,"last_size":"985"}
//! {"type":"snapshot","product_id":"BTC-USD","asks":[["0.6","12.5"]],"bids":[["0.4","3"]]}
//! {"type":"l2update","product_id":"BTC-USD","changes":[["sell","0.6","0.0"]],"time":"2021-04-17T16:43:38.000000Z"}
//! ```
//!
//! `side` of a match is the maker's, of a ticker the taker's. `trade_id` counts a product's trades one by one, so a
//! missed one is noticed; `ticker` speaks of the same trades and makes none. Books have neither sequence nor checksum:
//! the venue promises to deliver every `level2` message, and a book that stays crossed starts anew.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::json;
use serde_json::value::RawValue;
use tapeline_schemas::{BookAction, Kind, Level, Micros, Side, Ticker, Trade};
use tapeline_stages::book::BookSide;

use self::raw::{Envelope, L2Update, Match, Product, RawTicker, Snapshot, Subscriptions};
use super::books::{LocalBook, TopPace, Update};
use super::civil::utc;
use super::json::{Text, figure, level, money, optional, parse};
use super::subscription::{Subscription, anew, feeds};
use super::trade_order::TradeChain;
use super::{
    Budget, Confirmation, ConnectionPlan, Connector, DecodeError, Instrument, Keepalive, Output,
    Settings, SymbolTable, UnknownSymbol,
};

mod history;
mod raw;

/// The venue's name.
pub const VENUE: &str = "COINBASE";

/// What it gives of the past.
pub(super) const HISTORY: &[super::history::Offer] = history::OFFERS;

/// Products of one connection.
pub(super) const SYMBOLS_PER_CONNECTION: usize = 50;

const CHANNELS: [(Kind, &str); 3] =
    [(Kind::Trade, "matches"), (Kind::Ticker, "ticker"), (Kind::Book, BOOKS)];

/// `level2` itself wants a signed request today; batches of 50 ms do not, and are written alike.
const BOOKS: &str = "level2_batch";

/// The connector.
#[derive(Debug)]
pub struct Coinbase {
    settings: Settings,
    pace: TopPace,
    subscription: Subscription,
    books: Vec<LocalBook>,
    chains: Vec<TradeChain>,
}

fn levels(pairs: &[[Text<'_>; 2]]) -> Result<Vec<Level>, DecodeError> {
    pairs.iter().map(|[price, amount]| level(&price.0, &amount.0)).collect()
}

/// The venue's time, where it gives one.
fn time(text: Option<&str>, at: Micros) -> Result<Micros, DecodeError> {
    text.map_or(Ok(at), utc)
}

fn request(kind: &str, channels: &[&str], products: &[&str]) -> String {
    json!({"type": kind, "product_ids": products, "channels": channels}).to_string()
}

/// A trade, of the feed or of the past.
fn matched<'a>(symbol: &'a str, raw: &Match<'_>, at: Micros) -> Result<Trade<'a>, DecodeError> {
    Ok(Trade {
        exchange: Cow::Borrowed(VENUE),
        symbol: Cow::Borrowed(symbol),
        trade_id: Cow::Owned(raw.trade_id.to_string()),
        price: money(&raw.price)?,
        amount: money(&raw.size)?,
        // The maker's side: who took it stood on the other one.
        side: match raw.side.as_ref() {
            "buy" => Side::Sell,
            "sell" => Side::Buy,
            other => return Err(DecodeError::Malformed(format!("side `{other}`"))),
        },
        kind: None,
        taker_or_maker: None,
        sequence: Some(raw.trade_id),
        venue_time: utc(&raw.time)?,
        receive_time: at,
    })
}

fn trade(
    symbol: &str,
    chain: &mut TradeChain,
    frame: &[u8],
    at: Micros,
    out: &mut Output,
) -> Result<(), DecodeError> {
    let raw: Match<'_> = parse(frame)?;
    let trade = matched(symbol, &raw, at)?;
    chain.follow(symbol, raw.trade_id, raw.trade_id, at, out);
    out.trade(&trade);
    Ok(())
}

fn ticker(symbol: &str, frame: &[u8], at: Micros, out: &mut Output) -> Result<(), DecodeError> {
    let raw: RawTicker<'_> = parse(frame)?;
    let last = optional(raw.price.as_deref())?;
    let opened = optional(raw.open_24h.as_deref())?;
    out.ticker(&Ticker {
        exchange: Cow::Borrowed(VENUE),
        symbol: Cow::Borrowed(symbol),
        event_id: Some(Cow::Owned(raw.sequence.to_string())),
        last: last.filter(|price| price.is_positive()),
        // An empty side is written as 0.
        bid: optional(raw.best_bid.as_deref())?.filter(|price| price.is_positive()),
        bid_volume: optional(raw.best_bid_size.as_deref())?,
        ask: optional(raw.best_ask.as_deref())?.filter(|price| price.is_positive()),
        ask_volume: optional(raw.best_ask_size.as_deref())?,
        volume_24h: optional(raw.volume_24h.as_deref())?,
        quote_volume_24h: None,
        price_change_24h: last.zip(opened).and_then(|(last, opened)| last.checked_sub(opened)),
        price_change_percent_24h: None,
        venue_time: time(raw.time.as_deref(), at)?,
        receive_time: at,
    });
    Ok(())
}

fn snapshot(frame: &[u8], at: Micros) -> Result<Update, DecodeError> {
    let raw: Snapshot<'_> = parse(frame)?;
    let venue_time = time(raw.time.as_deref(), at)?;
    Ok(Update::unnumbered(venue_time, at, levels(&raw.bids)?, levels(&raw.asks)?))
}

/// The last change of a price within one message counts.
fn delta(frame: &[u8], at: Micros) -> Result<Update, DecodeError> {
    let raw: L2Update<'_> = parse(frame)?;
    let mut update = Update::unnumbered(time(raw.time.as_deref(), at)?, at, Vec::new(), Vec::new());
    for [side, price, amount] in &raw.changes {
        let side = match side.0.as_ref() {
            "buy" => BookSide::Bid,
            "sell" => BookSide::Ask,
            other => return Err(DecodeError::Malformed(format!("side `{other}`"))),
        };
        let level = level(&price.0, &amount.0)?;
        match side {
            BookSide::Bid => update.bids.push(level),
            BookSide::Ask => update.asks.push(level),
        }
    }
    Ok(update)
}

impl Coinbase {
    /// A connector with these settings.
    pub fn new(settings: Settings) -> Coinbase {
        let pace = TopPace::new(&settings);
        let (books, chains) = (Vec::new(), Vec::new());
        Coinbase { settings, pace, subscription: Subscription::default(), books, chains }
    }

    fn wanted(&self) -> impl Iterator<Item = (Kind, &'static str)> {
        let channels = &self.settings.channels;
        CHANNELS.into_iter().filter(move |(kind, _)| channels.contains(kind))
    }

    fn confirmed(&self, frame: &[u8], at: Micros, out: &mut Output) -> Result<(), DecodeError> {
        let raw: Subscriptions<'_> = parse(frame)?;
        for channel in &raw.channels {
            // A book is whole again with its snapshot, not with the confirmation.
            let kind = CHANNELS.iter().find(|(_, name)| *name == channel.name).map(|(k, _)| *k);
            let Some(kind) = kind.filter(|kind| *kind != Kind::Book) else { continue };
            for product in &channel.product_ids {
                if let Some((_, symbol)) = self.subscription.by_native(&product.0) {
                    out.whole(kind, symbol, at);
                }
            }
        }
        Ok(())
    }

    fn book(
        &mut self,
        index: usize,
        action: BookAction,
        frame: &[u8],
        at: Micros,
        out: &mut Output,
    ) -> Result<(), DecodeError> {
        let native = self.subscription.get(index).map(|subscribed| subscribed.native.as_str());
        let (Some(book), Some(native)) = (self.books.get_mut(index), native) else {
            return Err(DecodeError::Unknown("book that nobody subscribed to".to_owned()));
        };
        out.stats().received(Kind::Book);
        let texts = || ["unsubscribe", "subscribe"].map(|kind| request(kind, &[BOOKS], &[native]));
        let whole = action == BookAction::Snapshot;
        if !whole && !book.whole() {
            book.stale(at, || texts().to_vec(), out);
            return Ok(());
        }
        let update = match if whole { snapshot(frame, at) } else { delta(frame, at) } {
            Ok(update) => update,
            Err(error) => {
                // Whatever it said is missing from the book now.
                book.resubscribe("sequence", at, texts().to_vec(), out);
                return Err(error);
            }
        };
        if whole {
            book.levels.apply_snapshot(&update.bids, &update.asks);
        } else {
            book.levels.apply_delta(&update.bids, &update.asks);
        }
        if book.stays_crossed(at) {
            book.resubscribe("crossed", at, texts().to_vec(), out);
            return Ok(());
        }
        book.verified(action, update, out);
        book.show(at, whole, self.pace, out);
        Ok(())
    }
}

impl Connector for Coinbase {
    fn venue(&self) -> &'static str {
        VENUE
    }

    fn symbols_requests(&self) -> Vec<String> {
        vec!["/products".to_owned()]
    }

    fn decode_symbols(
        &self,
        _request: &str,
        body: &[u8],
        table: &mut SymbolTable,
    ) -> Result<(), DecodeError> {
        let products: Vec<Product> = parse(body)?;
        for product in products {
            table.insert(Instrument {
                name: product.display_name,
                tick_size: figure(product.quote_increment.as_deref()),
                lot_size: figure(product.base_increment.as_deref()),
                min_size: figure(product.base_min_size.as_deref()),
                status: product.status,
                ..Instrument::spot(&product.base_currency, &product.quote_currency, &product.id)
            });
        }
        Ok(())
    }

    fn configure(&mut self, table: &SymbolTable) -> Result<(), UnknownSymbol> {
        self.subscription = Subscription::new(VENUE, &self.settings, table)?;
        let symbols = self.subscription.symbols();
        self.chains = symbols.iter().map(|_| TradeChain::default()).collect();
        if self.settings.channels.contains(&Kind::Book) {
            self.books = LocalBook::spread(VENUE, symbols, SYMBOLS_PER_CONNECTION, 0);
        }
        Ok(())
    }

    fn connections(&self) -> Vec<ConnectionPlan> {
        let (kinds, channels): (Vec<Kind>, Vec<&str>) = self.wanted().unzip();
        let chunks = self.subscription.symbols().chunks(SYMBOLS_PER_CONNECTION);
        chunks
            .map(|symbols| {
                let products: Vec<&str> = symbols.iter().map(|s| s.native.as_str()).collect();
                ConnectionPlan {
                    path: "/".to_owned(),
                    subscribe: vec![request("subscribe", &channels, &products)],
                    feeds: feeds(&kinds, symbols),
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
        _connection: usize,
        frame: &[u8],
        received_at: Micros,
        out: &mut Output,
    ) -> Result<(), DecodeError> {
        let envelope: Envelope<'_> = parse(frame)?;
        match envelope.kind.as_ref() {
            "subscriptions" => return self.confirmed(frame, received_at, out),
            "error" => {
                let [message, reason] = [envelope.message, envelope.reason]
                    .map(|raw| raw.map(RawValue::get).unwrap_or_default());
                return Err(DecodeError::Venue(format!("{message} {reason}")));
            }
            _ => {}
        }
        let code = envelope.product_id.unwrap_or_default();
        let Some((index, symbol)) = self.subscription.by_native(&code) else {
            return Err(DecodeError::Unknown(format!("{} of product {code}", envelope.kind)));
        };
        match envelope.kind.as_ref() {
            "match" | "last_match" => match self.chains.get_mut(index) {
                Some(chain) => trade(symbol, chain, frame, received_at, out),
                None => Err(DecodeError::Unknown(format!("trade of {symbol}"))),
            },
            "ticker" => ticker(symbol, frame, received_at, out),
            "snapshot" => self.book(index, BookAction::Snapshot, frame, received_at, out),
            "l2update" => self.book(index, BookAction::Delta, frame, received_at, out),
            other => Err(DecodeError::Unknown(format!("type {other}"))),
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
        let texts = ["unsubscribe", "subscribe"].map(|op| request(op, &[channel], &[native]));
        let plans = self.connections();
        anew(&plans, &mut self.books, (kind, symbol), at, texts.to_vec(), out);
    }

    fn keepalive(&self) -> Keepalive {
        Keepalive {
            ping_every: Duration::from_secs(20),
            silence: Duration::from_secs(60),
            text: None,
            pace: None,
        }
    }

    /// Ten public requests a second, and eight subscriptions.
    fn budget(&self) -> Budget {
        Budget { burst: 8, refill: Duration::from_millis(125) }
    }
}
