//! Kraken's past: trades back to the pair's first, oldest first.
//! Documents: <https://docs.kraken.com/api-reference/market-data/get-recent-trades>.
//!
//! `GET /0/public/Trades?pair=XBTUSD&since=1618678142557534999&count=1000` gives the trades after that nanosecond:
//! `{"error":[],"result":{"XXBTZUSD":[["30243.40000","0.34507674",1688669597.8277369,"b","m","",61044952]],"last":"1688669597827736900"}}`.
//! The feed gives no number and microseconds; so the number is not taken and the time is cut to microseconds.
//! `/0/public/OHLC` has a mean price where the kind `venue_candle` has a quote volume, and is not read.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use tapeline_schemas::{Kind, Micros};

use super::trade::read;
use crate::venue::DecodeError;
use crate::venue::history::{Ask, History, Next, Offer, Page, owned, within};
use crate::venue::json::{parse, part};
use crate::venue::trade_order::Ordinals;

/// What is to be had.
pub(super) const OFFERS: &[Offer] =
    &[Offer { kind: Kind::Trade, numbered: false, history: || Box::new(Trades::default()) }];

/// Most rows of an answer.
const LIMIT: usize = 1_000;

#[derive(Default)]
struct Trades {
    ordinals: Ordinals,
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(default)]
    error: Vec<String>,
    #[serde(borrow, default)]
    result: HashMap<String, &'a RawValue>,
}

fn since(ask: &Ask, nanos: &str) -> String {
    // REST writes `XBTUSD` what the feed calls `XBT/USD`.
    let pair = ask.native.replace('/', "");
    format!("/0/public/Trades?pair={pair}&since={nanos}&count={LIMIT}")
}

/// A text or a number, as written.
fn plain(raw: &RawValue) -> &str {
    raw.get().trim_matches('"')
}

impl History for Trades {
    fn first(&mut self, ask: &Ask) -> String {
        // One nanosecond before, so that all equal trades of the first microsecond are counted.
        let nanos = i128::from(ask.from.0) * 1_000 - 1;
        since(ask, &nanos.to_string())
    }

    fn decode(&mut self, ask: &Ask, body: &[u8], at: Micros) -> Result<Page, DecodeError> {
        let answer: Answer<'_> = parse(body)?;
        if !answer.error.is_empty() {
            return Err(DecodeError::Venue(answer.error.join(", ")));
        }
        let missing = || DecodeError::Malformed("an answer without trades and `last`".to_owned());
        let last = answer.result.get("last").map(|raw| plain(raw)).ok_or_else(missing)?;
        let rows = answer.result.iter().find(|(key, _)| *key != "last").ok_or_else(missing)?;
        let rows: Vec<Vec<&RawValue>> = part(rows.1)?;
        let mut trades = Vec::with_capacity(rows.len());
        for row in &rows {
            let row: Vec<&str> = row.iter().map(|raw| plain(raw)).collect();
            trades.push(owned(read(&ask.symbol, &mut self.ordinals, &row, at)?));
        }
        let more = rows.len() >= LIMIT && trades.last().is_some_and(|t| t.venue_time <= ask.to);
        let next = if more { Next::Page(since(ask, last)) } else { Next::Done };
        // Oldest first and on to now: nothing says that it is all but a trade behind what was asked for.
        let through = trades.last().map(|trade| trade.venue_time);
        Ok(Page { events: within(ask, trades), next, through })
    }
}
