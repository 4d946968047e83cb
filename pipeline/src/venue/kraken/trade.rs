//! Kraken's trades. They carry no id, so what they are makes one.

use std::borrow::Cow;

use tapeline_schemas::{Micros, Side, Trade};

use super::VENUE;
use crate::venue::json::{money, seconds};
use crate::venue::trade_order::Ordinals;
use crate::venue::{DecodeError, Output};

/// Reads one trade: price, amount, time, side, order type and something unspecified.
pub(super) fn read<'a>(
    symbol: &'a str,
    ordinals: &mut Ordinals,
    row: &[impl AsRef<str>],
    at: Micros,
) -> Result<Trade<'a>, DecodeError> {
    let [price, amount, time, side, kind, ..] = row else {
        return Err(DecodeError::Malformed("trade of fewer than five fields".to_owned()));
    };
    let (price, amount) = (money(price.as_ref())?, money(amount.as_ref())?);
    let time = seconds(time.as_ref())?;
    let (side, side_code) = match side.as_ref() {
        "b" => (Side::Buy, 'b'),
        "s" => (Side::Sell, 's'),
        other => return Err(DecodeError::Malformed(format!("side `{other}`"))),
    };
    let (kind, kind_code) = match kind.as_ref() {
        "l" => ("limit", 'l'),
        "m" => ("market", 'm'),
        other => return Err(DecodeError::Malformed(format!("order type `{other}`"))),
    };
    let likeness = format!("{}-{price}-{amount}-{side_code}-{kind_code}", time.0);
    let ordinal = ordinals.next(time, &likeness);
    Ok(Trade {
        exchange: Cow::Borrowed(VENUE),
        symbol: Cow::Borrowed(symbol),
        trade_id: Cow::Owned(format!("{likeness}-{ordinal}")),
        price,
        amount,
        side,
        kind: Some(Cow::Borrowed(kind)),
        taker_or_maker: None,
        sequence: None,
        venue_time: time,
        receive_time: at,
    })
}

/// Publishes a trade of the feed.
pub(super) fn trade(
    symbol: &str,
    ordinals: &mut Ordinals,
    row: &[impl AsRef<str>],
    at: Micros,
    out: &mut Output,
) -> Result<(), DecodeError> {
    out.trade(&read(symbol, ordinals, row, at)?);
    Ok(())
}
