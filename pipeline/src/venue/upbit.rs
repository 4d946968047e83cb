//! Upbit spot, `SIMPLE` format, binary frames.
//! Documents: <https://docs.upbit.com/kr/reference/websocket-guide>.
//!
//! ```json
//! {"ty":"trade","cd":"KRW-BTC","tms":1618678262712,"ttms":1618678262000,"tp":127.0,"tv":46.48838371,"ab":"BID","sid":1618678262000003,"st":"REALTIME"}
//! {"ty":"orderbook","cd":"KRW-BTC","tms":1618678262640,"tas":25.5,"tbs":14.25,"obu":[{"ap":127.0,"bp":126.0,"as":280.5,"bs":688.25}]}
//! {"ty":"ticker","cd":"KRW-BTC","tp":127.0,"atv24h":12.5,"atp24h":1587.5,"tms":1618678262640}
//! ```
//!
//! Every `orderbook` message is a whole book of the venue's best levels; there is neither a
//! sequence nor a checksum, so each snapshot bounds the error of the one before. Numbers may be
//! written with an exponent (`6E-8`) and are taken digit for digit.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tapeline_schemas::{Kind, Level, Micros, Money, Side, Ticker, Trade};

use super::books::{LocalBook, TopPace, Update};
use super::json::{checked_level, number, parse};
use super::subscription::{Subscription, feeds};
use super::{
    Budget, Confirmation, ConnectionPlan, Connector, DecodeError, Instrument, Keepalive, Output,
    Settings, SymbolTable, UnknownSymbol,
};

mod history;

/// The venue's name.
pub const VENUE: &str = "UPBIT";

/// What it gives of the past.
pub(super) const HISTORY: &[super::history::Offer] = history::OFFERS;

/// Markets of one connection.
pub(super) const SYMBOLS_PER_CONNECTION: usize = 100;

const CHANNELS: [(Kind, &str); 3] =
    [(Kind::Trade, "trade"), (Kind::Ticker, "ticker"), (Kind::Book, "orderbook")];

/// The connector.
#[derive(Debug)]
pub struct Upbit {
    settings: Settings,
    pace: TopPace,
    subscription: Subscription,
    books: Vec<LocalBook>,
}

#[derive(Deserialize)]
struct Market {
    market: String,
    english_name: Option<String>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    ty: Option<Cow<'a, str>>,
    #[serde(borrow)]
    cd: Option<Cow<'a, str>>,
    #[serde(borrow)]
    status: Option<Cow<'a, str>>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RawTrade<'a> {
    ttms: i64,
    #[serde(borrow)]
    tp: &'a RawValue,
    #[serde(borrow)]
    tv: &'a RawValue,
    #[serde(borrow)]
    ab: Cow<'a, str>,
    sid: i64,
}

#[derive(Deserialize)]
struct RawTicker<'a> {
    tms: i64,
    #[serde(borrow)]
    tp: &'a RawValue,
    #[serde(borrow)]
    atv24h: Option<&'a RawValue>,
    #[serde(borrow)]
    atp24h: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RawBook<'a> {
    tms: i64,
    #[serde(borrow)]
    obu: Vec<RawUnit<'a>>,
}

#[derive(Deserialize)]
struct RawUnit<'a> {
    #[serde(borrow)]
    ap: &'a RawValue,
    #[serde(borrow)]
    bp: &'a RawValue,
    #[serde(borrow, rename = "as")]
    ask_size: &'a RawValue,
    #[serde(borrow)]
    bs: &'a RawValue,
}

/// Levels of one side; those without an amount or price fill up a side that is shorter than the other.
fn levels<'a>(
    units: &[RawUnit<'a>],
    side: impl Fn(&RawUnit<'a>) -> (&'a RawValue, &'a RawValue),
) -> Result<Vec<Level>, DecodeError> {
    let mut out = Vec::with_capacity(units.len());
    for unit in units {
        let (price, amount) = side(unit);
        let level = Level { price: number(price)?, amount: number(amount)? };
        if level.amount != Money::ZERO {
            out.push(checked_level(level)?);
        }
    }
    Ok(out)
}

impl Upbit {
    /// A connector with these settings.
    pub fn new(settings: Settings) -> Upbit {
        let pace = TopPace::new(&settings);
        Upbit { settings, pace, subscription: Subscription::default(), books: Vec::new() }
    }

    fn wanted(&self) -> impl Iterator<Item = (Kind, &'static str)> {
        let channels = &self.settings.channels;
        CHANNELS.into_iter().filter(move |(kind, _)| channels.contains(kind))
    }

    fn book(
        &mut self,
        index: usize,
        frame: &[u8],
        at: Micros,
        out: &mut Output,
    ) -> Result<(), DecodeError> {
        let raw: RawBook<'_> = parse(frame)?;
        let Some(book) = self.books.get_mut(index) else {
            return Err(DecodeError::Unknown("book that nobody subscribed to".to_owned()));
        };
        let snapshot = Update {
            first_sequence: None,
            sequence: None,
            checksum: None,
            event_id: Some(raw.tms.to_string()),
            venue_time: Micros::from_millis(raw.tms),
            receive_time: at,
            bids: levels(&raw.obu, |unit| (unit.bp, unit.bs))?,
            asks: levels(&raw.obu, |unit| (unit.ap, unit.ask_size))?,
        };
        book.replace(snapshot, self.pace, out);
        Ok(())
    }
}

/// A trade, of the feed or of the past: its number, time, price and amount, and the taker's side in the venue's word.
fn traded<'a>(
    symbol: &'a str,
    id: i64,
    venue_time: Micros,
    (price, amount): (&RawValue, &RawValue),
    side: &str,
    at: Micros,
) -> Result<Trade<'a>, DecodeError> {
    Ok(Trade {
        exchange: Cow::Borrowed(VENUE),
        symbol: Cow::Borrowed(symbol),
        trade_id: Cow::Owned(id.to_string()),
        price: number(price)?,
        amount: number(amount)?,
        side: match side {
            "ASK" => Side::Sell,
            "BID" => Side::Buy,
            other => return Err(DecodeError::Malformed(format!("side `{other}`"))),
        },
        kind: None,
        taker_or_maker: None,
        sequence: Some(id),
        venue_time,
        receive_time: at,
    })
}

fn trade(symbol: &str, frame: &[u8], at: Micros, out: &mut Output) -> Result<(), DecodeError> {
    let raw: RawTrade<'_> = parse(frame)?;
    let time = Micros::from_millis(raw.ttms);
    out.trade(&traded(symbol, raw.sid, time, (raw.tp, raw.tv), &raw.ab, at)?);
    Ok(())
}

fn ticker(symbol: &str, frame: &[u8], at: Micros, out: &mut Output) -> Result<(), DecodeError> {
    let raw: RawTicker<'_> = parse(frame)?;
    out.ticker(&Ticker {
        exchange: Cow::Borrowed(VENUE),
        symbol: Cow::Borrowed(symbol),
        event_id: None,
        last: Some(number(raw.tp)?),
        bid: None,
        bid_volume: None,
        ask: None,
        ask_volume: None,
        volume_24h: raw.atv24h.map(number).transpose()?,
        quote_volume_24h: raw.atp24h.map(number).transpose()?,
        // Upbit's change counts from midnight UTC, not from 24 hours ago.
        price_change_24h: None,
        price_change_percent_24h: None,
        venue_time: Micros::from_millis(raw.tms),
        receive_time: at,
    });
    Ok(())
}

impl Connector for Upbit {
    fn venue(&self) -> &'static str {
        VENUE
    }

    fn symbols_requests(&self) -> Vec<String> {
        vec!["/v1/market/all".to_owned()]
    }

    fn decode_symbols(
        &self,
        _request: &str,
        body: &[u8],
        table: &mut SymbolTable,
    ) -> Result<(), DecodeError> {
        let markets: Vec<Market> = parse(body)?;
        for market in markets {
            if let Some((quote, base)) = market.market.split_once('-') {
                let spot = Instrument::spot(base, quote, &market.market);
                table.insert(Instrument { name: market.english_name, ..spot });
            }
        }
        Ok(())
    }

    fn configure(&mut self, table: &SymbolTable) -> Result<(), UnknownSymbol> {
        self.subscription = Subscription::new(VENUE, &self.settings, table)?;
        if self.settings.channels.contains(&Kind::Book) {
            let symbols = self.subscription.symbols();
            self.books = LocalBook::spread(VENUE, symbols, SYMBOLS_PER_CONNECTION, 0);
        }
        Ok(())
    }

    fn connections(&self) -> Vec<ConnectionPlan> {
        let kinds: Vec<Kind> = self.wanted().map(|(kind, _)| kind).collect();
        let chunks = self.subscription.symbols().chunks(SYMBOLS_PER_CONNECTION);
        chunks
            .map(|symbols| {
                let codes: Vec<&str> = symbols.iter().map(|s| s.native.as_str()).collect();
                let mut request = vec![json!({"ticket": "tapeline"})];
                for (kind, channel) in self.wanted() {
                    // A trade from before the subscription is one that was counted before.
                    let realtime = kind == Kind::Trade;
                    request.push(
                        json!({"type": channel, "codes": codes, "is_only_realtime": realtime}),
                    );
                }
                request.push(json!({"format": "SIMPLE"}));
                ConnectionPlan {
                    path: "/websocket/v1".to_owned(),
                    subscribe: vec![serde_json::Value::Array(request).to_string()],
                    feeds: feeds(&kinds, symbols),
                    confirmation: Confirmation::FirstFrame,
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
        if let Some(error) = envelope.error {
            return Err(DecodeError::Venue(error.get().to_owned()));
        }
        // The answer to a ping in words.
        if envelope.status.as_deref() == Some("UP") {
            return Ok(());
        }
        let (Some(kind), Some(code)) = (envelope.ty, envelope.cd) else {
            return Err(DecodeError::Unknown("neither type and code nor an error".to_owned()));
        };
        let Some((index, symbol)) = self.subscription.by_native(&code) else {
            return Err(DecodeError::Unknown(format!("market {code}")));
        };
        match kind.as_ref() {
            "trade" => trade(symbol, frame, received_at, out),
            "ticker" => ticker(symbol, frame, received_at, out),
            "orderbook" => self.book(index, frame, received_at, out),
            other => Err(DecodeError::Unknown(format!("type {other}"))),
        }
    }

    fn flush_tops(&mut self, connection: usize, now: Micros, all: bool, out: &mut Output) {
        LocalBook::flush(&mut self.books, connection, now, all, self.pace, out);
    }

    fn state_book(&self, symbol: &str, now: Micros, out: &mut Output) {
        LocalBook::restate(&self.books, symbol, now, out);
    }

    /// Upbit closes a connection after two minutes of silence.
    fn keepalive(&self) -> Keepalive {
        Keepalive {
            ping_every: Duration::from_secs(30),
            silence: Duration::from_secs(90),
            text: None,
            // Five messages a second, a hundred a minute.
            pace: Some(Budget { burst: 1, refill: Duration::from_millis(650) }),
        }
    }

    fn budget(&self) -> Budget {
        Budget { burst: 10, refill: Duration::from_secs(1) }
    }
}
