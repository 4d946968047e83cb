//! Coinbase's messages as they are written.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::venue::json::Text;

#[derive(Deserialize)]
pub(super) struct Product {
    pub(super) id: String,
    pub(super) base_currency: String,
    pub(super) quote_currency: String,
    pub(super) quote_increment: Option<String>,
    pub(super) base_increment: Option<String>,
    pub(super) base_min_size: Option<String>,
    pub(super) display_name: Option<String>,
    pub(super) status: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow, rename = "type")]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) product_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) message: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) reason: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct Subscriptions<'a> {
    #[serde(borrow)]
    pub(super) channels: Vec<Channel<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Channel<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) product_ids: Vec<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Match<'a> {
    pub(super) trade_id: i64,
    #[serde(borrow)]
    pub(super) side: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) size: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) price: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) time: Cow<'a, str>,
}

#[derive(Deserialize)]
pub(super) struct RawTicker<'a> {
    pub(super) sequence: i64,
    #[serde(borrow)]
    pub(super) price: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) open_24h: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) volume_24h: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) best_bid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) best_bid_size: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) best_ask: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) best_ask_size: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) time: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub(super) struct Snapshot<'a> {
    #[serde(borrow)]
    pub(super) asks: Vec<[Text<'a>; 2]>,
    #[serde(borrow)]
    pub(super) bids: Vec<[Text<'a>; 2]>,
    #[serde(borrow)]
    pub(super) time: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub(super) struct L2Update<'a> {
    #[serde(borrow)]
    pub(super) changes: Vec<[Text<'a>; 3]>,
    #[serde(borrow)]
    pub(super) time: Option<Cow<'a, str>>,
}
