//! Binance's messages as they are written.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::venue::json::Text;

#[derive(Deserialize)]
pub(super) struct ExchangeInfo<'a> {
    #[serde(borrow)]
    pub(super) symbols: Vec<Listed<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed<'a> {
    #[serde(borrow)]
    pub(super) symbol: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) base_asset: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) quote_asset: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) status: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) filters: Vec<Filter<'a>>,
}

/// Filters of other types have none of these.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Filter<'a> {
    #[serde(borrow)]
    pub(super) filter_type: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) tick_size: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) step_size: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) min_qty: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow)]
    pub(super) stream: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) data: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) error: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) msg: Option<&'a RawValue>,
    /// Of the request that this answers.
    pub(super) id: Option<usize>,
}

#[derive(Deserialize)]
pub(super) struct AggTrade<'a> {
    /// Not in answers to a request for the past.
    #[serde(borrow, default)]
    pub(super) s: Cow<'a, str>,
    pub(super) a: i64,
    #[serde(borrow)]
    pub(super) p: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) q: Cow<'a, str>,
    #[serde(rename = "T")]
    pub(super) time: i64,
    pub(super) m: bool,
}

#[derive(Deserialize)]
pub(super) struct BookTicker<'a> {
    pub(super) u: i64,
    #[serde(borrow)]
    pub(super) s: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) b: Cow<'a, str>,
    #[serde(borrow, rename = "B")]
    pub(super) bid_amount: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) a: Cow<'a, str>,
    #[serde(borrow, rename = "A")]
    pub(super) ask_amount: Cow<'a, str>,
}

#[derive(Deserialize)]
pub(super) struct DepthUpdate<'a> {
    #[serde(rename = "E")]
    pub(super) time: i64,
    #[serde(borrow)]
    pub(super) s: Cow<'a, str>,
    #[serde(rename = "U")]
    pub(super) first: i64,
    #[serde(rename = "u")]
    pub(super) last: i64,
    #[serde(borrow)]
    pub(super) b: Vec<[Text<'a>; 2]>,
    #[serde(borrow)]
    pub(super) a: Vec<[Text<'a>; 2]>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Depth<'a> {
    pub(super) last_update_id: i64,
    #[serde(borrow)]
    pub(super) bids: Vec<[Text<'a>; 2]>,
    #[serde(borrow)]
    pub(super) asks: Vec<[Text<'a>; 2]>,
}

#[derive(Deserialize)]
pub(super) struct KlineEvent<'a> {
    #[serde(borrow)]
    pub(super) s: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) k: Kline<'a>,
}

#[derive(Deserialize)]
pub(super) struct Kline<'a> {
    pub(super) t: i64,
    #[serde(borrow)]
    pub(super) i: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) o: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) h: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) l: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) c: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) v: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) q: Cow<'a, str>,
    pub(super) n: i32,
    pub(super) x: bool,
}
