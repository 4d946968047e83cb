//! Deribit's messages as they are written. Numbers are taken as text, so that no digit is lost.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// The answer to a request for instruments.
#[derive(Deserialize)]
pub(super) struct Answer<'a> {
    #[serde(borrow)]
    pub(super) result: Option<Vec<Listed<'a>>>,
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct Listed<'a> {
    #[serde(borrow)]
    pub(super) instrument_name: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) base_currency: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) quote_currency: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) settlement_currency: Option<Cow<'a, str>>,
    pub(super) creation_timestamp: Option<i64>,
    pub(super) expiration_timestamp: Option<i64>,
    #[serde(borrow)]
    pub(super) tick_size: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) min_trade_amount: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) contract_size: Option<&'a RawValue>,
    pub(super) is_active: Option<bool>,
}

/// Any message: an answer, or a notification.
#[derive(Deserialize)]
pub(super) struct Message<'a> {
    #[serde(borrow)]
    pub(super) method: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) params: Option<Params<'a>>,
    #[serde(borrow)]
    pub(super) result: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct Params<'a> {
    #[serde(borrow)]
    pub(super) channel: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) data: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    pub(super) kind: Option<Cow<'a, str>>,
}

/// Levels are an action, price and amount.
#[derive(Deserialize)]
pub(super) struct RawBook<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Cow<'a, str>,
    pub(super) timestamp: i64,
    pub(super) change_id: i64,
    pub(super) prev_change_id: Option<i64>,
    #[serde(borrow)]
    pub(super) bids: Vec<RawLevel<'a>>,
    #[serde(borrow)]
    pub(super) asks: Vec<RawLevel<'a>>,
}

#[derive(Deserialize)]
pub(super) struct RawLevel<'a>(
    #[serde(borrow)] pub(super) Cow<'a, str>,
    #[serde(borrow)] pub(super) &'a RawValue,
    #[serde(borrow)] pub(super) &'a RawValue,
);

#[derive(Deserialize)]
pub(super) struct RawTrade<'a> {
    pub(super) trade_seq: i64,
    #[serde(borrow)]
    pub(super) trade_id: Cow<'a, str>,
    pub(super) timestamp: i64,
    #[serde(borrow)]
    pub(super) price: &'a RawValue,
    #[serde(borrow)]
    pub(super) amount: &'a RawValue,
    #[serde(borrow)]
    pub(super) instrument_name: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) direction: Cow<'a, str>,
}

#[derive(Deserialize)]
pub(super) struct RawTicker<'a> {
    #[serde(borrow)]
    pub(super) instrument_name: Cow<'a, str>,
    pub(super) timestamp: i64,
    #[serde(borrow)]
    pub(super) stats: Option<Stats<'a>>,
    #[serde(borrow)]
    pub(super) greeks: Option<Greeks<'a>>,
    #[serde(borrow)]
    pub(super) last_price: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) best_bid_price: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) best_bid_amount: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) best_ask_price: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) best_ask_amount: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) mark_price: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) mark_iv: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) bid_iv: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) ask_iv: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) underlying_price: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) index_price: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) interest_rate: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) open_interest: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct Stats<'a> {
    #[serde(borrow)]
    pub(super) volume: Option<&'a RawValue>,
    /// Per cent.
    #[serde(borrow)]
    pub(super) price_change: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct Greeks<'a> {
    #[serde(borrow)]
    pub(super) delta: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) gamma: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) theta: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) vega: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) rho: Option<&'a RawValue>,
}
