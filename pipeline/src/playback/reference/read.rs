//! What frames say of books, venue by venue.

use serde::Deserialize;
use serde_json::value::RawValue;
use tapeline_schemas::Money;

use super::{Change, Mark, Row};
use crate::playback::filter::{Protocol, Topic};
use crate::playback::recording::Payload;

/// Where Binance gives books.
const BINANCE_DEPTH: &str = "/api/v3/depth?";
/// Levels of an answer that was asked for without a limit.
const BINANCE_LIMIT: usize = 100;

type Rows<'a> = Vec<Vec<&'a RawValue>>;

pub(super) fn change(protocol: Protocol, frame: &Payload) -> Option<Change> {
    let bytes = frame.as_bytes();
    match protocol {
        Protocol::Binance => binance(bytes),
        Protocol::Coinbase => coinbase(protocol, bytes),
        Protocol::Deribit => deribit(bytes),
        Protocol::Kraken => kraken(bytes),
        Protocol::Okx => okx(bytes),
        Protocol::Bithumb => message(protocol, frame, "orderbooksnapshot "),
        Protocol::Upbit => message(protocol, frame, "orderbook "),
    }
}

/// The text of a value: that of a string without its quotes.
fn text(raw: &RawValue) -> &str {
    let text = raw.get();
    text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text)
}

fn money(raw: &RawValue) -> Option<Money> {
    Money::parse(text(raw).as_bytes()).ok()
}

/// Levels of price and amount, written with the first `fields` of each; one without an amount is taken away.
fn rows(raw: &Rows<'_>, fields: usize) -> Vec<Row> {
    let row = |level: &Vec<&RawValue>| {
        let [price, amount, ..] = level.as_slice() else { return None };
        let kept: Vec<&str> = level.iter().take(fields).map(|raw| raw.get()).collect();
        let text = (money(amount)? != Money::ZERO).then(|| format!("[{}]", kept.join(",")).into());
        Some(Row { price: money(price)?, text })
    };
    raw.iter().filter_map(row).collect()
}

#[derive(Deserialize)]
struct BinanceFrame<'a> {
    #[serde(borrow)]
    stream: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct BinanceDelta<'a> {
    u: i64,
    #[serde(borrow)]
    b: Rows<'a>,
    #[serde(borrow)]
    a: Rows<'a>,
}

fn binance(bytes: &[u8]) -> Option<Change> {
    let frame: BinanceFrame<'_> = serde_json::from_slice(bytes).ok()?;
    let (symbol, channel) = frame.stream.split_once('@')?;
    if !channel.starts_with("depth") {
        return None;
    }
    let delta: BinanceDelta<'_> = serde_json::from_str(frame.data.get()).ok()?;
    Some(Change {
        book: symbol.to_owned(),
        whole: false,
        bids: rows(&delta.b, 2),
        asks: rows(&delta.a, 2),
        mark: Mark { last: Some(delta.u), ..Mark::default() },
    })
}

/// The symbol and the number of levels of a request for a book.
pub(super) fn asked(protocol: Protocol, path: &str) -> Option<(String, usize)> {
    if protocol != Protocol::Binance {
        return None;
    }
    let query = path.strip_prefix(BINANCE_DEPTH)?;
    let value = |key: &str| query.split('&').find_map(|part| part.strip_prefix(key));
    let limit = value("limit=").and_then(|limit| limit.parse().ok());
    Some((value("symbol=")?.to_ascii_lowercase(), limit.unwrap_or(BINANCE_LIMIT)))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BinanceDepth<'a> {
    last_update_id: i64,
    #[serde(borrow)]
    bids: Rows<'a>,
    #[serde(borrow)]
    asks: Rows<'a>,
}

pub(super) fn opening(protocol: Protocol, path: &str, body: &str) -> Option<Change> {
    let (symbol, _) = asked(protocol, path)?;
    let depth: BinanceDepth<'_> = serde_json::from_str(body).ok()?;
    Some(Change {
        book: symbol,
        whole: true,
        bids: rows(&depth.bids, 2),
        asks: rows(&depth.asks, 2),
        mark: Mark { last: Some(depth.last_update_id), ..Mark::default() },
    })
}

#[derive(Deserialize)]
struct CoinbaseFrame<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(borrow, default)]
    bids: Rows<'a>,
    #[serde(borrow, default)]
    asks: Rows<'a>,
    #[serde(borrow, default)]
    changes: Rows<'a>,
    #[serde(borrow)]
    time: Option<&'a RawValue>,
}

fn coinbase(protocol: Protocol, bytes: &[u8]) -> Option<Change> {
    let frame: CoinbaseFrame<'_> = serde_json::from_slice(bytes).ok()?;
    let Topic::Channels(channels) = protocol.topic(bytes) else { return None };
    let book = channels.into_iter().next()?;
    let stamp = frame.time.map(RawValue::get).unwrap_or_default().to_owned();
    let mark = Mark { stamp, ..Mark::default() };
    match frame.kind {
        "snapshot" => {
            let (bids, asks) = (rows(&frame.bids, 2), rows(&frame.asks, 2));
            Some(Change { book, whole: true, bids, asks, mark })
        }
        "l2update" => {
            let side = |wanted: &str| {
                let of_side = frame
                    .changes
                    .iter()
                    .filter(|change| change.first().is_some_and(|side| text(side) == wanted));
                let levels = of_side.filter_map(|change| change.get(1..).map(<[_]>::to_vec));
                rows(&levels.collect(), 2)
            };
            Some(Change { book, whole: false, bids: side("buy"), asks: side("sell"), mark })
        }
        _ => None,
    }
}

#[derive(Deserialize)]
struct DeribitFrame<'a> {
    #[serde(borrow)]
    params: DeribitParams<'a>,
}

#[derive(Deserialize)]
struct DeribitParams<'a> {
    #[serde(borrow)]
    channel: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct DeribitBook<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    change_id: i64,
    #[serde(borrow)]
    timestamp: &'a RawValue,
    #[serde(borrow)]
    bids: Rows<'a>,
    #[serde(borrow)]
    asks: Rows<'a>,
}

/// Levels of what happened, price and amount; in a snapshot each is new.
fn deribit_rows(raw: &Rows<'_>) -> Vec<Row> {
    let row = |level: &Vec<&RawValue>| {
        let [deed, price, amount] = level.as_slice() else { return None };
        let kept = text(deed) != "delete";
        let text = kept.then(|| format!("[\"new\",{},{}]", price.get(), amount.get()).into());
        Some(Row { price: money(price)?, text })
    };
    raw.iter().filter_map(row).collect()
}

fn deribit(bytes: &[u8]) -> Option<Change> {
    let frame: DeribitFrame<'_> = serde_json::from_slice(bytes).ok()?;
    let channel = frame.params.channel;
    if !channel.starts_with("book.") {
        return None;
    }
    let book: DeribitBook<'_> = serde_json::from_str(frame.params.data.get()).ok()?;
    Some(Change {
        book: channel.rsplit_once('.').map_or(channel, |(name, _)| name).to_owned(),
        whole: book.kind == "snapshot",
        bids: deribit_rows(&book.bids),
        asks: deribit_rows(&book.asks),
        mark: Mark {
            last: Some(book.change_id),
            stamp: book.timestamp.get().to_owned(),
            label: channel.to_owned(),
            ..Mark::default()
        },
    })
}

#[derive(Deserialize)]
struct KrakenSides<'a> {
    #[serde(borrow, default, rename = "as")]
    all_asks: Option<Rows<'a>>,
    #[serde(borrow, default, rename = "bs")]
    all_bids: Option<Rows<'a>>,
    #[serde(borrow, default)]
    a: Rows<'a>,
    #[serde(borrow, default)]
    b: Rows<'a>,
}

fn kraken(bytes: &[u8]) -> Option<Change> {
    let parts: Vec<&RawValue> = serde_json::from_slice(bytes).ok()?;
    let [number, sides @ .., channel, pair] = parts.as_slice() else { return None };
    let (channel, pair) = (text(channel), text(pair));
    if !channel.starts_with("book-") {
        return None;
    }
    let pair: String = serde_json::from_str(&format!("\"{pair}\"")).ok()?;
    let mut change = Change { book: format!("{channel} {pair}"), ..Change::default() };
    number.get().clone_into(&mut change.mark.label);
    change.mark.checksum = true;
    for raw in sides {
        let sides: KrakenSides<'_> = serde_json::from_str(raw.get()).ok()?;
        change.whole |= sides.all_asks.is_some() || sides.all_bids.is_some();
        let (all_asks, all_bids) =
            (sides.all_asks.unwrap_or_default(), sides.all_bids.unwrap_or_default());
        change.asks.extend(rows(&all_asks, 3).into_iter().chain(rows(&sides.a, 3)));
        change.bids.extend(rows(&all_bids, 3).into_iter().chain(rows(&sides.b, 3)));
    }
    Some(change)
}

#[derive(Deserialize)]
struct OkxFrame<'a> {
    #[serde(borrow)]
    arg: &'a RawValue,
    action: &'a str,
    #[serde(borrow)]
    data: Vec<OkxBook<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OkxBook<'a> {
    #[serde(borrow)]
    bids: Rows<'a>,
    #[serde(borrow)]
    asks: Rows<'a>,
    #[serde(borrow)]
    ts: &'a RawValue,
    checksum: Option<i64>,
    seq_id: Option<i64>,
}

fn okx(bytes: &[u8]) -> Option<Change> {
    let frame: OkxFrame<'_> = serde_json::from_slice(bytes).ok()?;
    let Topic::Channels(channels) = Protocol::Okx.topic(bytes) else { return None };
    let [book] = frame.data.as_slice() else { return None };
    Some(Change {
        book: channels.into_iter().next()?,
        whole: frame.action == "snapshot",
        bids: rows(&book.bids, 4),
        asks: rows(&book.asks, 4),
        mark: Mark {
            last: book.seq_id,
            stamp: book.ts.get().to_owned(),
            label: frame.arg.get().to_owned(),
            checksum: book.checksum.is_some_and(|sent| sent != 0 || book.seq_id.is_none()),
            frame: None,
        },
    })
}

/// A venue whose every message is a whole book of one market.
fn message(protocol: Protocol, frame: &Payload, channel: &str) -> Option<Change> {
    let Topic::Channels(channels) = protocol.topic(frame.as_bytes()) else { return None };
    let book = channels.into_iter().next().filter(|book| book.starts_with(channel))?;
    let mark = Mark { frame: Some(frame.clone()), ..Mark::default() };
    Some(Change { book, whole: true, mark, ..Change::default() })
}
