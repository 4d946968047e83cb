//! The simulated venue's past, as Binance's REST interface gives it: trades of the whole tape, those that its stream
//! lost too, and candles made of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::tape::{PastTrade, amount, price};
use super::{App, recorded_json};
use crate::playback::filter::Protocol;

const MINUTE: i64 = 60_000;
/// Most rows of an answer, and how many it has where nobody says.
const LIMITS: (usize, usize) = (1_000, 500);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PastQuery {
    symbol: String,
    from_id: Option<u64>,
    start_time: Option<i64>,
    end_time: Option<i64>,
    limit: Option<usize>,
}

impl PastQuery {
    fn times(&self) -> std::ops::RangeInclusive<i64> {
        self.start_time.unwrap_or(i64::MIN)..=self.end_time.unwrap_or(i64::MAX)
    }
}

/// The answer with the first `rows` of a symbol; in the venue's words, where it does not list that.
fn answer(
    app: &App,
    query: &PastQuery,
    rows: impl FnOnce(&mut dyn Iterator<Item = &PastTrade>) -> Vec<Value>,
) -> Response {
    let Some(symbol) = app.tape.natives.iter().position(|native| *native == query.symbol) else {
        return (StatusCode::BAD_REQUEST, Protocol::Binance.not_found()).into_response();
    };
    let mut rows = rows(&mut app.tape.past.iter().filter(|trade| trade.symbol == symbol));
    rows.truncate(query.limit.unwrap_or(LIMITS.1).min(LIMITS.0));
    let at = app.tape.events.last().map(|event| event.time).unwrap_or_default();
    recorded_json(at, Value::Array(rows).to_string())
}

pub(super) async fn trades(
    State(app): State<Arc<App>>,
    Query(query): Query<PastQuery>,
) -> Response {
    let asked = |trade: &&PastTrade| match query.from_id {
        Some(id) => trade.id >= id,
        None => query.times().contains(&trade.millis),
    };
    let row = |trade: &PastTrade| {
        json!({
            "a": trade.id, "p": price(trade.ticks), "q": amount(trade.lots), "f": trade.id,
            "l": trade.id, "T": trade.millis, "m": trade.maker, "M": true,
        })
    };
    answer(&app, &query, |trades| trades.filter(asked).map(row).collect())
}

pub(super) async fn candles(
    State(app): State<Arc<App>>,
    Query(query): Query<PastQuery>,
) -> Response {
    answer(&app, &query, |trades| {
        let mut minutes: BTreeMap<i64, Vec<&PastTrade>> = BTreeMap::new();
        for trade in trades {
            minutes.entry(trade.millis.div_euclid(MINUTE) * MINUTE).or_default().push(trade);
        }
        let asked = query.times();
        minutes.iter().filter(|(open, _)| asked.contains(*open)).map(candle).collect()
    })
}

/// A minute that has trades; every one of the tape does.
fn candle((open, trades): (&i64, &Vec<&PastTrade>)) -> Value {
    let ticks = || trades.iter().map(|trade| trade.ticks);
    let edge = |trade: Option<&&PastTrade>| price(trade.map(|t| t.ticks).unwrap_or_default());
    let lots: u64 = trades.iter().map(|trade| trade.lots).sum();
    // Ticks of 0.01 times lots of 0.0001.
    let quote: u64 = trades.iter().map(|trade| trade.ticks * trade.lots).sum();
    json!([
        open,
        edge(trades.first()),
        price(ticks().max().unwrap_or_default()),
        price(ticks().min().unwrap_or_default()),
        edge(trades.last()),
        amount(lots),
        open + MINUTE - 1,
        format!("{}.{:06}", quote / 1_000_000, quote % 1_000_000),
        trades.len(),
        "0",
        "0",
        "0"
    ])
}
