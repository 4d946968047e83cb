//! OKX's messages as they are written.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::venue::json::Text;

/// The answer to a request for instruments.
#[derive(Deserialize)]
pub(super) struct Answer<'a> {
    #[serde(borrow)]
    pub(super) code: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) msg: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) data: Option<Vec<Listed<'a>>>,
}

/// One instrument. What does not apply to its kind is an empty text.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listed<'a> {
    #[serde(borrow)]
    pub(super) inst_id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) settle_ccy: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) list_time: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) exp_time: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) tick_sz: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) lot_sz: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) min_sz: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) ct_val: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) state: Option<Cow<'a, str>>,
}

/// Any message: an event, or data of a channel.
#[derive(Deserialize)]
pub(super) struct Push<'a> {
    #[serde(borrow)]
    pub(super) event: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) code: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) msg: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) arg: Option<Arg<'a>>,
    #[serde(borrow)]
    pub(super) action: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) data: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Arg<'a> {
    #[serde(borrow)]
    pub(super) channel: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) inst_id: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawTrade<'a> {
    #[serde(borrow)]
    pub(super) trade_id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) px: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) sz: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) side: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) ts: Cow<'a, str>,
    /// Trades that were put together; not in 2022.
    #[serde(borrow)]
    pub(super) count: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawTicker<'a> {
    #[serde(borrow)]
    pub(super) inst_type: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) last: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) ask_px: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) ask_sz: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) bid_px: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) bid_sz: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) open24h: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "volCcy24h")]
    pub(super) vol_ccy24h: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) vol24h: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) ts: Cow<'a, str>,
}

/// Levels are price, amount, something obsolete, number of orders.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawBook<'a> {
    #[serde(borrow)]
    pub(super) asks: Vec<Vec<Text<'a>>>,
    #[serde(borrow)]
    pub(super) bids: Vec<Vec<Text<'a>>>,
    #[serde(borrow)]
    pub(super) ts: Cow<'a, str>,
    pub(super) checksum: Option<i64>,
    pub(super) seq_id: Option<i64>,
    pub(super) prev_seq_id: Option<i64>,
}
