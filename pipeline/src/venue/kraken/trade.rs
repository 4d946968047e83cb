//! Kraken's trades. They carry no id, so what they are makes one.

use std::borrow::Cow;

use tapeline_schemas::{Micros, Side, Trade};

use super::VENUE;
use crate::venue::json::{Text, money, seconds};
use crate::venue::trade_order::Ordinals;
use crate::venue::{DecodeError, Output};

/// Reads one trade: price, amount, time, side, order type and something unspecified.
pub(super) fn trade(
    symbol: &str,
    ordinals: &mut Ordinals,
    row: &[Text<'_>],
    at: Micros,
    out: &mut Output,
) -> Result<(), DecodeError> {
    let [price, amount, time, side, kind, ..] = row else {
        return Err(DecodeError::Malformed("trade of fewer than five fields".to_owned()));
    };
    let (price, amount, time) = (money(&price.0)?, money(&amount.0)?, seconds(&time.0)?);
    let (side, side_code) = match side.0.as_ref() {
        "b" => (Side::Buy, 'b'),
        "s" => (Side::Sell, 's'),
        other => return Err(DecodeError::Malformed(format!("side `{other}`"))),
    };
    let (kind, kind_code) = match kind.0.as_ref() {
        "l" => ("limit", 'l'),
        "m" => ("market", 'm'),
        other => return Err(DecodeError::Malformed(format!("order type `{other}`"))),
    };
    let likeness = format!("{}-{price}-{amount}-{side_code}-{kind_code}", time.0);
    let ordinal = ordinals.next(time, &likeness);
    out.trade(&Trade {
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
    });
    Ok(())
}
