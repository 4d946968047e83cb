//! Books as the venues write them for who begins in the middle.

use std::collections::BTreeMap;

use tapeline_schemas::Money;

use super::Book;
use crate::playback::filter::Protocol;
use crate::playback::recording::Payload;

/// Levels a side that OKX's checksum covers.
const OKX_CHECKSUM: usize = 25;

fn best_bids(book: &Book) -> impl Iterator<Item = &str> {
    book.bids.values().rev().map(AsRef::as_ref)
}

fn list<'a>(rows: impl Iterator<Item = &'a str>) -> String {
    format!("[{}]", rows.collect::<Vec<_>>().join(","))
}

fn values(side: &BTreeMap<Money, Box<str>>) -> impl Iterator<Item = &str> {
    side.values().map(AsRef::as_ref)
}

/// The answer to Binance's request for a book.
pub(super) fn depth(book: &Book, limit: usize) -> String {
    let (bids, asks) = (list(best_bids(book).take(limit)), list(values(&book.asks).take(limit)));
    let last = book.mark.last.unwrap_or_default();
    format!(r#"{{"lastUpdateId":{last},"bids":{bids},"asks":{asks}}}"#)
}

pub(super) fn snapshot(protocol: Protocol, channel: &str, book: &Book) -> Option<Payload> {
    let (bids, asks) = (list(best_bids(book)), list(values(&book.asks)));
    let mark = &book.mark;
    let name = channel.split_once(' ').map_or(channel, |(_, name)| name);
    let text = match protocol {
        // Its books come by request alone.
        Protocol::Binance => return None,
        Protocol::Bithumb => return mark.frame.clone(),
        Protocol::Upbit => return mark.frame.as_ref().map(as_snapshot),
        Protocol::Coinbase => {
            format!(r#"{{"type":"snapshot","product_id":"{name}","asks":{asks},"bids":{bids}}}"#)
        }
        Protocol::Deribit => {
            let instrument = channel.split_once('.').map_or(channel, |(_, name)| name);
            format!(
                r#"{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"{}","data":{{"type":"snapshot","timestamp":{},"instrument_name":"{instrument}","change_id":{},"bids":{bids},"asks":{asks}}}}}}}"#,
                mark.label, mark.stamp, mark.last?
            )
        }
        Protocol::Kraken => {
            let kind = channel.split(' ').next().unwrap_or_default();
            format!(r#"[{},{{"as":{asks},"bs":{bids}}},"{kind}","{name}"]"#, mark.label)
        }
        Protocol::Okx => {
            let checksum = if mark.checksum { okx_checksum(book) } else { 0 };
            let sequence = mark.last.map(|last| format!(r#","seqId":{last},"prevSeqId":-1"#));
            format!(
                r#"{{"arg":{},"action":"snapshot","data":[{{"asks":{asks},"bids":{bids},"ts":{},"checksum":{checksum}{}}}]}}"#,
                mark.label,
                mark.stamp,
                sequence.unwrap_or_default()
            )
        }
    };
    Some(Payload::Text(text))
}

/// Upbit says of a message whether it is the first one.
fn as_snapshot(frame: &Payload) -> Payload {
    let text = String::from_utf8_lossy(frame.as_bytes());
    let text = text.replacen(r#""st":"REALTIME""#, r#""st":"SNAPSHOT""#, 1);
    match frame {
        Payload::Text(_) => Payload::Text(text),
        Payload::Binary(_) => Payload::Binary(text.into_bytes().into()),
    }
}

/// `price:amount` of the best bid, of the best ask, of the second bid and so on, joined by colons; signed.
fn okx_checksum(book: &Book) -> i32 {
    let pair = |row: &str| {
        let mut fields = row.split('"').skip(1).step_by(2);
        Some(format!("{}:{}", fields.next()?, fields.next()?))
    };
    let bids: Vec<String> = best_bids(book).take(OKX_CHECKSUM).filter_map(pair).collect();
    let asks: Vec<String> = values(&book.asks).take(OKX_CHECKSUM).filter_map(pair).collect();
    let turns = (0..OKX_CHECKSUM).flat_map(|at| [bids.get(at), asks.get(at)]).flatten();
    let text = turns.map(String::as_str).collect::<Vec<_>>().join(":");
    crc32fast::hash(text.as_bytes()).cast_signed()
}
