//! Deribit's tickers, and the figures of options in them.

use std::borrow::Cow;

use serde_json::value::RawValue;
use tapeline_schemas::{Micros, Money, OptionData, Ticker};

use super::VENUE;
use super::raw::RawTicker;
use crate::venue::DecodeError;
use crate::venue::json::number;
use crate::venue::subscription::Subscribed;

fn optional(raw: Option<&RawValue>) -> Result<Option<Money>, DecodeError> {
    raw.map(number).transpose()
}

/// An empty side is written as 0.
fn price(raw: Option<&RawValue>) -> Result<Option<Money>, DecodeError> {
    Ok(optional(raw)?.filter(|price| price.is_positive()))
}

/// The best prices and what was traded.
pub(super) fn ticker<'s>(
    of: &'s Subscribed,
    raw: &RawTicker<'_>,
    at: Micros,
) -> Result<Ticker<'s>, DecodeError> {
    let stats = raw.stats.as_ref();
    Ok(Ticker {
        exchange: Cow::Borrowed(VENUE),
        symbol: Cow::Borrowed(&of.symbol),
        event_id: None,
        last: price(raw.last_price)?,
        bid: price(raw.best_bid_price)?,
        bid_volume: optional(raw.best_bid_amount)?,
        ask: price(raw.best_ask_price)?,
        ask_volume: optional(raw.best_ask_amount)?,
        volume_24h: optional(stats.and_then(|stats| stats.volume))?,
        quote_volume_24h: None,
        price_change_24h: None,
        price_change_percent_24h: optional(stats.and_then(|stats| stats.price_change))?,
        venue_time: Micros::from_millis(raw.timestamp),
        receive_time: at,
    })
}

/// The figures of an option; none of anything else.
pub(super) fn option<'s>(
    of: &'s Subscribed,
    raw: &RawTicker<'_>,
    at: Micros,
) -> Result<Option<OptionData<'s>>, DecodeError> {
    let instrument = &of.instrument;
    let (Some(terms), Some(expiry)) = (&instrument.option, instrument.expiry) else {
        return Ok(None);
    };
    let greeks = raw.greeks.as_ref();
    Ok(Some(OptionData {
        exchange: Cow::Borrowed(VENUE),
        symbol: Cow::Borrowed(&of.symbol),
        event_id: None,
        underlying: Cow::Borrowed(&terms.underlying),
        strike: terms.strike,
        expiry,
        option_type: terms.option_type,
        mark_price: optional(raw.mark_price)?,
        underlying_price: optional(raw.underlying_price)?,
        index_price: optional(raw.index_price)?,
        iv: optional(raw.mark_iv)?,
        bid_iv: optional(raw.bid_iv)?,
        ask_iv: optional(raw.ask_iv)?,
        delta: optional(greeks.and_then(|greeks| greeks.delta))?,
        gamma: optional(greeks.and_then(|greeks| greeks.gamma))?,
        theta: optional(greeks.and_then(|greeks| greeks.theta))?,
        vega: optional(greeks.and_then(|greeks| greeks.vega))?,
        rho: optional(greeks.and_then(|greeks| greeks.rho))?,
        interest_rate: optional(raw.interest_rate)?,
        open_interest: optional(raw.open_interest)?,
        venue_time: Micros::from_millis(raw.timestamp),
        receive_time: at,
    }))
}
