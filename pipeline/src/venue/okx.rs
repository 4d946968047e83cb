//! OKX, public WebSocket v5: spot, perpetuals, futures and options.
//! Documents: <https://www.okx.com/docs-v5/en/#order-book-trading-market-data-ws-order-book-channel>,
//! <https://www.okx.com/docs-v5/en/#public-data-rest-api-get-instruments>.
//!
//! ```json
//! {"event":"subscribe","arg":{"channel":"trades","instId":"BTC-USDT"}}
//! {"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","tradeId":"7849","px":"30218.8","sz":"1","side":"buy","ts":"1652459199958"}]}
//! {"arg":{"channel":"tickers","instId":"BTC-USDT"},"data":[{"instType":"SPOT","instId":"BTC-USDT","last":"30227.6","lastSz":"0.5","askPx":"30230.3","askSz":"1.9","bidPx":"30230.2","bidSz":"0.4","open24h":"29700.4","volCcy24h":"525907477.7","vol24h":"17605.6","ts":"1652459235637"}]}
//! {"arg":{"channel":"books","instId":"BTC-USDT"},"action":"snapshot","data":[{"asks":[["8476.98","415","0","13"]],"bids":[["8476.97","256","0","12"]],"ts":"1597026383085","checksum":-855196043,"prevSeqId":-1,"seqId":123456}]}
//! {"arg":{"channel":"books","instId":"BTC-USDT"},"action":"update","data":[{"asks":[["8476.98","0","0","0"]],"bids":[],"ts":"1597026383085","checksum":-855196043,"prevSeqId":123456,"seqId":123457}]}
//! ```
//!
//! `checksum` is the CRC32 of the 25 best levels, verified wherever it is given: the venue announced that it will always
//! send 0 from June 2026 on. `prevSeqId` is the `seqId` before, verified where they are given (not in 2022).

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use serde_json::value::RawValue;
use tapeline_schemas::{Kind, Micros, Side, Ticker, Trade};

use self::book::Outcome;
use self::raw::{Answer, Push, RawBook, RawTicker, RawTrade};
use self::symbols::instrument;
use super::books::{LocalBook, TopPace};
use super::civil::is_expiry;
use super::json::{malformed, millis, money, optional, parse, part};
use super::subscription::{Subscription, anew, feeds};
use super::trade_order::TradeChain;
use super::{
    Budget, Confirmation, ConnectionPlan, Connector, DecodeError, Keepalive, Market, Output,
    Settings, SymbolTable, UnknownSymbol,
};

mod book;
mod history;
mod raw;
mod symbols;

/// The venue's name.
pub const VENUE: &str = "OKX";

/// What it gives of the past.
pub(super) const HISTORY: &[super::history::Offer] = history::OFFERS;

/// Instruments of one connection; a request to subscribe may have 64 KiB.
pub(super) const SYMBOLS_PER_CONNECTION: usize = 100;

const CHANNELS: [(Kind, &str); 3] =
    [(Kind::Trade, "trades"), (Kind::Ticker, "tickers"), (Kind::Book, BOOKS)];
const BOOKS: &str = "books";

const INSTRUMENTS: &str = "/api/v5/public/instruments?instType=";

/// The connector.
#[derive(Debug)]
pub struct Okx {
    settings: Settings,
    pace: TopPace,
    subscription: Subscription,
    books: Vec<LocalBook>,
    chains: Vec<TradeChain>,
}

fn request(op: &str, channels: &[&str], codes: &[&str]) -> String {
    let both = channels.iter().flat_map(|c| codes.iter().map(move |code| (*c, *code)));
    let args: Vec<_> =
        both.map(|(channel, code)| json!({"channel": channel, "instId": code})).collect();
    json!({"op": op, "args": args}).to_string()
}

/// The table that lists `symbol`.
fn table_of(symbol: &str) -> String {
    match Market::of_symbol(symbol) {
        Market::Spot => format!("{INSTRUMENTS}SPOT"),
        Market::Perpetual => format!("{INSTRUMENTS}SWAP"),
        Market::Future => format!("{INSTRUMENTS}FUTURES"),
        Market::Option => {
            let parts: Vec<&str> = symbol.split('-').take_while(|part| !is_expiry(part)).collect();
            let (base, quote) = (parts.first().copied().unwrap_or_default(), parts.get(1).copied());
            format!("{INSTRUMENTS}OPTION&uly={base}-{}", quote.unwrap_or("USD"))
        }
    }
}

/// A trade, of the feed or of the past.
fn traded<'a>(symbol: &'a str, raw: &RawTrade<'_>, at: Micros) -> Result<Trade<'a>, DecodeError> {
    let id: i64 = raw.trade_id.parse().map_err(|error| malformed(&error))?;
    Ok(Trade {
        exchange: Cow::Borrowed(VENUE),
        symbol: Cow::Borrowed(symbol),
        trade_id: Cow::Owned(id.to_string()),
        price: money(&raw.px)?,
        amount: money(&raw.sz)?,
        side: match raw.side.as_ref() {
            "buy" => Side::Buy,
            "sell" => Side::Sell,
            other => return Err(DecodeError::Malformed(format!("side `{other}`"))),
        },
        kind: None,
        taker_or_maker: None,
        sequence: Some(id),
        venue_time: millis(&raw.ts)?,
        receive_time: at,
    })
}

impl Okx {
    /// A connector with these settings.
    pub fn new(settings: Settings) -> Okx {
        let pace = TopPace::new(&settings);
        let (books, chains) = (Vec::new(), Vec::new());
        Okx { settings, pace, subscription: Subscription::default(), books, chains }
    }

    fn wanted(&self) -> impl Iterator<Item = (Kind, &'static str)> {
        let channels = &self.settings.channels;
        CHANNELS.into_iter().filter(move |(kind, _)| channels.contains(kind))
    }

    fn event(
        &self,
        event: &str,
        push: &Push<'_>,
        at: Micros,
        out: &mut Output,
    ) -> Result<(), DecodeError> {
        match (event, &push.arg) {
            ("subscribe", Some(arg)) => {
                let kind = CHANNELS.iter().find(|(_, name)| *name == arg.channel).map(|(k, _)| *k);
                // A book is whole again with its snapshot, not with the confirmation.
                if let Some(kind) = kind.filter(|kind| *kind != Kind::Book)
                    && let Some((_, symbol)) = self.subscription.by_native(&arg.inst_id)
                {
                    out.whole(kind, symbol, at);
                }
                Ok(())
            }
            ("unsubscribe" | "channel-conn-count", _) => Ok(()),
            ("error" | "notice" | "channel-conn-count-error", _) => {
                let text =
                    |raw: Option<&RawValue>| raw.map(RawValue::get).unwrap_or_default().to_owned();
                Err(DecodeError::Venue(format!("{} {}", text(push.code), text(push.msg))))
            }
            (other, _) => Err(DecodeError::Unknown(format!("event {other}"))),
        }
    }

    fn trade(
        &mut self,
        index: usize,
        row: &RawValue,
        at: Micros,
        out: &mut Output,
    ) -> Result<(), DecodeError> {
        let raw: RawTrade<'_> = part(row)?;
        let (Some(subscribed), Some(chain)) =
            (self.subscription.get(index), self.chains.get_mut(index))
        else {
            return Err(DecodeError::Unknown("trade that nobody subscribed to".to_owned()));
        };
        let trade = traded(&subscribed.symbol, &raw, at)?;
        let id = trade.sequence.unwrap_or_default();
        // Of several trades put together the id is the last one's.
        let count = raw.count.as_deref().and_then(|count| count.parse().ok()).unwrap_or(1_i64);
        let first = id.saturating_sub(count.max(1) - 1);
        chain.follow(&subscribed.symbol, first, id, at, out);
        out.trade(&trade);
        Ok(())
    }

    fn ticker(
        &self,
        index: usize,
        row: &RawValue,
        at: Micros,
        out: &mut Output,
    ) -> Result<(), DecodeError> {
        let raw: RawTicker<'_> = part(row)?;
        let subscribed = self.subscription.get(index);
        let symbol = subscribed.map(|subscribed| subscribed.symbol.as_str()).unwrap_or_default();
        let last = optional(raw.last.as_deref())?;
        let opened = optional(raw.open24h.as_deref())?;
        let (vol, vol_ccy) =
            (optional(raw.vol24h.as_deref())?, optional(raw.vol_ccy24h.as_deref())?);
        // Of derivatives `vol24h` counts contracts and `volCcy24h` is in the base currency.
        let spot = matches!(raw.inst_type.as_ref(), "SPOT" | "MARGIN");
        out.ticker(&Ticker {
            exchange: Cow::Borrowed(VENUE),
            symbol: Cow::Borrowed(symbol),
            event_id: None,
            last,
            bid: optional(raw.bid_px.as_deref())?.filter(|price| price.is_positive()),
            bid_volume: optional(raw.bid_sz.as_deref())?,
            ask: optional(raw.ask_px.as_deref())?.filter(|price| price.is_positive()),
            ask_volume: optional(raw.ask_sz.as_deref())?,
            volume_24h: if spot { vol } else { vol_ccy },
            quote_volume_24h: vol_ccy.filter(|_| spot),
            price_change_24h: last.zip(opened).and_then(|(last, opened)| last.checked_sub(opened)),
            price_change_percent_24h: None,
            venue_time: millis(&raw.ts)?,
            receive_time: at,
        });
        Ok(())
    }

    fn book(
        &mut self,
        index: usize,
        snapshot: bool,
        row: &RawValue,
        at: Micros,
        out: &mut Output,
    ) -> Result<(), DecodeError> {
        let native = self.subscription.get(index).map(|subscribed| subscribed.native.as_str());
        let (Some(book), Some(native)) = (self.books.get_mut(index), native) else {
            return Err(DecodeError::Unknown("book that nobody subscribed to".to_owned()));
        };
        let texts = || ["unsubscribe", "subscribe"].map(|op| request(op, &[BOOKS], &[native]));
        if !snapshot && !book.whole() {
            out.stats().received(Kind::Book);
            book.stale(at, || texts().to_vec(), out);
            return Ok(());
        }
        let applied =
            part(row).and_then(|raw: RawBook<'_>| book::apply(book, &raw, snapshot, at, out));
        let (cause, failed) = match applied {
            Ok(Outcome::Applied) => {
                book.show(at, snapshot, self.pace, out);
                return Ok(());
            }
            Ok(Outcome::Nothing) => return Ok(()),
            Ok(Outcome::WrongSequence) => ("sequence", Ok(())),
            Ok(Outcome::WrongChecksum) => ("checksum", Ok(())),
            // Whatever it said is missing from the book now.
            Err(error) => ("sequence", Err(error)),
        };
        book.resubscribe(cause, at, texts().to_vec(), out);
        failed
    }
}

impl Connector for Okx {
    fn venue(&self) -> &'static str {
        VENUE
    }

    /// Options are listed for one underlying at a time.
    fn symbols_requests(&self) -> Vec<String> {
        let symbols = &self.settings.symbols;
        if symbols.is_empty() {
            let kinds = ["SPOT", "SWAP", "FUTURES", "OPTION&uly=BTC-USD", "OPTION&uly=ETH-USD"];
            return kinds.map(|kind| format!("{INSTRUMENTS}{kind}")).to_vec();
        }
        let upper = symbols.iter().map(|symbol| symbol.to_ascii_uppercase());
        let tables: BTreeSet<String> = upper.map(|symbol| table_of(&symbol)).collect();
        tables.into_iter().collect()
    }

    fn decode_symbols(
        &self,
        _request: &str,
        body: &[u8],
        table: &mut SymbolTable,
    ) -> Result<(), DecodeError> {
        let answer: Answer<'_> = parse(body)?;
        let ("0", Some(data)) = (answer.code.as_ref(), answer.data) else {
            let message = answer.msg.unwrap_or_default();
            return Err(DecodeError::Venue(format!("{} {message}", answer.code)));
        };
        data.iter().filter_map(instrument).for_each(|instrument| table.insert(instrument));
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
                let codes: Vec<&str> = symbols.iter().map(|s| s.native.as_str()).collect();
                ConnectionPlan {
                    path: "/ws/v5/public".to_owned(),
                    subscribe: vec![request("subscribe", &channels, &codes)],
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
        if frame == b"pong" {
            return Ok(());
        }
        let push: Push<'_> = parse(frame)?;
        if let Some(event) = &push.event {
            return self.event(event, &push, received_at, out);
        }
        let (Some(arg), Some(data)) = (push.arg, push.data) else {
            return Err(DecodeError::Unknown("neither an event nor a channel's data".to_owned()));
        };
        let Some((index, _)) = self.subscription.by_native(&arg.inst_id) else {
            return Err(DecodeError::Unknown(format!("instrument {}", arg.inst_id)));
        };
        let snapshot = push.action.as_deref() == Some("snapshot");
        // One bad row does not hide the others of its message.
        let mut first_error = Ok(());
        for row in data {
            let done = match arg.channel.as_ref() {
                "trades" => self.trade(index, row, received_at, out),
                "tickers" => self.ticker(index, row, received_at, out),
                "books" => self.book(index, snapshot, row, received_at, out),
                other => Err(DecodeError::Unknown(format!("channel {other}"))),
            };
            if first_error.is_ok() {
                first_error = done;
            }
        }
        first_error
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

    /// The venue closes a connection that has been quiet for 30 seconds, and wants its pings in words.
    fn keepalive(&self) -> Keepalive {
        Keepalive {
            ping_every: Duration::from_secs(20),
            silence: Duration::from_secs(50),
            text: Some("ping"),
            // 480 subscriptions and their ends an hour.
            pace: Some(Budget { burst: 240, refill: Duration::from_secs(15) }),
        }
    }

    /// Twenty requests in two seconds; three subscriptions a second.
    fn budget(&self) -> Budget {
        Budget { burst: 3, refill: Duration::from_millis(334) }
    }
}
