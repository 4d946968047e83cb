//! Bithumb spot, the public WebSocket of its first interface (`pubwss.bithumb.com`).
//! Documents: <https://apidocs.bithumb.com/reference/빗썸-거래소-정보-수신>.
//!
//! ```json
//! {"status":"0000","resmsg":"Filter Registered Successfully"}
//! {"type":"transaction","content":{"list":[{"buySellGb":"2","contPrice":"3.908","contQty":"12365.191","contAmt":"48323.166","contDtm":"2021-06-02 08:43:34.555058","updn":"dn","symbol":"BTC_KRW"}]}}
//! {"type":"ticker","content":{"symbol":"BTC_KRW","tickType":"24H","date":"20210602","time":"084334","openPrice":"2302","closePrice":"2317","lowPrice":"2272","highPrice":"2344","value":"2831.5","volume":"1.25","prevClosePrice":"2326","chgRate":"0.65","chgAmt":"15"}}
//! {"type":"orderbooksnapshot","content":{"symbol":"BTC_KRW","datetime":"1622591014555058","asks":[["2318","1.5"]],"bids":[["2317","0.25"]]}}
//! ```
//!
//! Days and times are Korean (UTC+9) without saying so. `buySellGb` is the taker's side: 1 sold, 2 bought. Trades have no
//! id: what they are makes one. Nothing tells that a message was lost; each book message is a whole book.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use serde_json::value::RawValue;
use tapeline_schemas::{Kind, Level, Micros, Side, Ticker, Trade};

use super::books::{LocalBook, TopPace, Update};
use super::civil::korean;
use super::json::{Text, level, malformed, money, optional, parse, part};
use super::subscription::{Subscription, feeds};
use super::trade_order::Ordinals;
use super::{
    Budget, Confirmation, ConnectionPlan, Connector, DecodeError, Instrument, Keepalive, Output,
    Settings, SymbolTable, UnknownSymbol,
};

/// The venue's name.
pub const VENUE: &str = "BITHUMB";

/// What a good answer says.
const OK: &str = "0000";

/// Symbols of one connection and type.
pub(super) const SYMBOLS_PER_CONNECTION: usize = 100;

/// A table of symbols for each currency that others are priced in.
const TABLES: [(&str, &str); 2] =
    [("/public/ticker/ALL_BTC", "BTC"), ("/public/ticker/ALL_KRW", "KRW")];

/// A connection has one filter, so each type has connections of its own.
const CHANNELS: [(Kind, &str); 3] =
    [(Kind::Trade, "transaction"), (Kind::Ticker, "ticker"), (Kind::Book, "orderbooksnapshot")];

/// The connector.
#[derive(Debug)]
pub struct Bithumb {
    settings: Settings,
    pace: TopPace,
    subscription: Subscription,
    books: Vec<LocalBook>,
    ordinals: Vec<Ordinals>,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow)]
    message: Option<Cow<'a, str>>,
    /// Figures by currency, and `date`.
    data: Option<HashMap<String, IgnoredAny>>,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    status: Option<Cow<'a, str>>,
    #[serde(borrow)]
    resmsg: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Transactions<'a> {
    #[serde(borrow)]
    list: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Transaction<'a> {
    #[serde(borrow)]
    symbol: Cow<'a, str>,
    #[serde(borrow)]
    buy_sell_gb: Cow<'a, str>,
    #[serde(borrow)]
    cont_price: Cow<'a, str>,
    #[serde(borrow)]
    cont_qty: Cow<'a, str>,
    #[serde(borrow)]
    cont_dtm: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTicker<'a> {
    #[serde(borrow)]
    symbol: Cow<'a, str>,
    #[serde(borrow)]
    date: Cow<'a, str>,
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow)]
    close_price: Option<Cow<'a, str>>,
    #[serde(borrow)]
    volume: Option<Cow<'a, str>>,
    #[serde(borrow)]
    value: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Snapshot<'a> {
    #[serde(borrow)]
    symbol: Cow<'a, str>,
    /// Microseconds, as a text or a number.
    #[serde(borrow)]
    datetime: &'a RawValue,
    #[serde(borrow)]
    asks: Vec<[Text<'a>; 2]>,
    #[serde(borrow)]
    bids: Vec<[Text<'a>; 2]>,
}

fn levels(pairs: &[[Text<'_>; 2]]) -> Result<Vec<Level>, DecodeError> {
    pairs.iter().map(|[price, amount]| level(&price.0, &amount.0)).collect()
}

fn unsubscribed(native: &str) -> DecodeError {
    DecodeError::Unknown(format!("symbol {native}"))
}

fn trade(
    symbol: &str,
    ordinals: &mut Ordinals,
    raw: &Transaction<'_>,
    at: Micros,
    out: &mut Output,
) -> Result<(), DecodeError> {
    let parts = raw.cont_dtm.split_once(' ');
    let (date, time) = parts.ok_or_else(|| malformed(&format!("time `{}`", raw.cont_dtm)))?;
    let (venue_time, price, amount) =
        (korean(date, time)?, money(&raw.cont_price)?, money(&raw.cont_qty)?);
    let (side, letter) = match raw.buy_sell_gb.as_ref() {
        "1" => (Side::Sell, 's'),
        "2" => (Side::Buy, 'b'),
        other => return Err(DecodeError::Malformed(format!("buySellGb `{other}`"))),
    };
    let likeness = format!("{}-{price}-{amount}-{letter}", venue_time.0);
    let ordinal = ordinals.next(venue_time, &likeness);
    out.trade(&Trade {
        exchange: Cow::Borrowed(VENUE),
        symbol: Cow::Borrowed(symbol),
        trade_id: Cow::Owned(format!("{likeness}-{ordinal}")),
        price,
        amount,
        side,
        kind: None,
        taker_or_maker: None,
        sequence: None,
        venue_time,
        receive_time: at,
    });
    Ok(())
}

impl Bithumb {
    /// A connector with these settings.
    pub fn new(settings: Settings) -> Bithumb {
        let pace = TopPace::new(&settings);
        let (books, ordinals) = (Vec::new(), Vec::new());
        Bithumb { settings, pace, subscription: Subscription::default(), books, ordinals }
    }

    fn wanted(&self) -> impl Iterator<Item = (Kind, &'static str)> {
        let channels = &self.settings.channels;
        CHANNELS.into_iter().filter(move |(kind, _)| channels.contains(kind))
    }

    /// One bad trade does not hide the others of its message.
    fn trades(&mut self, data: &RawValue, at: Micros, out: &mut Output) -> Result<(), DecodeError> {
        let raw: Transactions<'_> = part(data)?;
        let mut first_error = Ok(());
        for row in raw.list {
            let done = part(row).and_then(|raw: Transaction<'_>| {
                let found = self.subscription.by_native(&raw.symbol);
                let (index, symbol) = found.ok_or_else(|| unsubscribed(&raw.symbol))?;
                let ordinals = self.ordinals.get_mut(index);
                let ordinals = ordinals.ok_or_else(|| unsubscribed(&raw.symbol))?;
                trade(symbol, ordinals, &raw, at, out)
            });
            if first_error.is_ok() {
                first_error = done;
            }
        }
        first_error
    }

    fn ticker(&self, data: &RawValue, at: Micros, out: &mut Output) -> Result<(), DecodeError> {
        let raw: RawTicker<'_> = part(data)?;
        let found = self.subscription.by_native(&raw.symbol);
        let (_, symbol) = found.ok_or_else(|| unsubscribed(&raw.symbol))?;
        out.ticker(&Ticker {
            exchange: Cow::Borrowed(VENUE),
            symbol: Cow::Borrowed(symbol),
            event_id: None,
            last: optional(raw.close_price.as_deref())?,
            bid: None,
            bid_volume: None,
            ask: None,
            ask_volume: None,
            volume_24h: optional(raw.volume.as_deref())?,
            quote_volume_24h: optional(raw.value.as_deref())?,
            // The venue's change is against the close of the day before, not of 24 hours ago.
            price_change_24h: None,
            price_change_percent_24h: None,
            venue_time: korean(&raw.date, &raw.time)?,
            receive_time: at,
        });
        Ok(())
    }

    fn book(&mut self, data: &RawValue, at: Micros, out: &mut Output) -> Result<(), DecodeError> {
        let raw: Snapshot<'_> = part(data)?;
        let index = self.subscription.by_native(&raw.symbol).map(|(index, _)| index);
        let book = index.and_then(|index| self.books.get_mut(index));
        let book = book.ok_or_else(|| unsubscribed(&raw.symbol))?;
        let micros: i64 =
            raw.datetime.get().trim_matches('"').parse().map_err(|error| malformed(&error))?;
        let (bids, asks) = (levels(&raw.bids)?, levels(&raw.asks)?);
        let mut snapshot = Update::unnumbered(Micros(micros), at, bids, asks);
        snapshot.event_id = Some(micros.to_string());
        book.replace(snapshot, self.pace, out);
        Ok(())
    }
}

impl Connector for Bithumb {
    fn venue(&self) -> &'static str {
        VENUE
    }

    fn symbols_requests(&self) -> Vec<String> {
        TABLES.map(|(path, _)| path.to_owned()).to_vec()
    }

    fn decode_symbols(
        &self,
        request: &str,
        body: &[u8],
        table: &mut SymbolTable,
    ) -> Result<(), DecodeError> {
        let answer: Answer<'_> = parse(body)?;
        let quote = TABLES.iter().find(|(path, _)| *path == request).map(|(_, quote)| *quote);
        let (Some(data), Some(quote), OK) = (answer.data, quote, answer.status.as_ref()) else {
            let message = answer.message.unwrap_or_default();
            return Err(DecodeError::Venue(format!("{} {message}", answer.status)));
        };
        for base in data.into_keys().filter(|key| key != "date") {
            table.insert(Instrument::spot(&base, quote, &format!("{base}_{quote}")));
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
                let codes: Vec<&str> = symbols.iter().map(|s| s.native.as_str()).collect();
                let mut request = json!({"type": channel, "symbols": codes});
                if kind == Kind::Ticker {
                    request["tickTypes"] = json!(["24H"]);
                }
                plans.push(ConnectionPlan {
                    path: "/pub/ws".to_owned(),
                    subscribe: vec![request.to_string()],
                    feeds: feeds(&[kind], symbols),
                    confirmation: Confirmation::FirstFrame,
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
        let envelope: Envelope<'_> = parse(frame)?;
        if let Some(status) = envelope.status {
            let message = envelope.resmsg.unwrap_or_default();
            return if status == OK {
                Ok(())
            } else {
                Err(DecodeError::Venue(format!("{status} {message}")))
            };
        }
        let (Some(kind), Some(content)) = (envelope.kind, envelope.content) else {
            return Err(DecodeError::Unknown("neither type and content nor a status".to_owned()));
        };
        match kind.as_ref() {
            "transaction" => self.trades(content, received_at, out),
            "ticker" => self.ticker(content, received_at, out),
            "orderbooksnapshot" => self.book(content, received_at, out),
            other => Err(DecodeError::Unknown(format!("type {other}"))),
        }
    }

    fn flush_tops(&mut self, connection: usize, now: Micros, all: bool, out: &mut Output) {
        LocalBook::flush(&mut self.books, connection, now, all, self.pace, out);
    }

    fn state_book(&self, symbol: &str, now: Micros, out: &mut Output) {
        LocalBook::restate(&self.books, symbol, now, out);
    }

    fn keepalive(&self) -> Keepalive {
        Keepalive {
            ping_every: Duration::from_secs(20),
            silence: Duration::from_secs(90),
            text: None,
            pace: None,
        }
    }

    fn budget(&self) -> Budget {
        Budget { burst: 10, refill: Duration::from_millis(100) }
    }
}
