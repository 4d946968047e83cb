//! What the stream and the past have in common: a row as an event.

use std::borrow::Cow;

use tapeline_schemas::{Candle, CandleSource, Micros, Side, Timeframe, Trade, Wide};

use super::VENUE;
use super::raw::{AggTrade, Kline};
use crate::venue::DecodeError;
use crate::venue::json::money;

/// An aggregate trade, of the stream or of the past.
pub(super) fn aggregate<'a>(
    symbol: &'a str,
    raw: &AggTrade<'_>,
    at: Micros,
) -> Result<Trade<'a>, DecodeError> {
    Ok(Trade {
        exchange: Cow::Borrowed(VENUE),
        symbol: Cow::Borrowed(symbol),
        trade_id: Cow::Owned(raw.a.to_string()),
        price: money(&raw.p)?,
        amount: money(&raw.q)?,
        // `m`: the buyer's order was waiting in the book, so the seller took it.
        side: if raw.m { Side::Sell } else { Side::Buy },
        kind: None,
        taker_or_maker: None,
        sequence: Some(raw.a),
        venue_time: Micros::from_millis(raw.time),
        receive_time: at,
    })
}

/// The window so far; `n`, the number of its trades, only grows, so it tells which of two is newer.
pub(super) fn window(
    symbol: &str,
    raw: &Kline<'_>,
    at: Micros,
) -> Result<Candle<'static>, DecodeError> {
    let frame: Timeframe = raw.i.parse().map_err(DecodeError::Unknown)?;
    let open_time = Micros::from_millis(raw.t);
    if frame.start(open_time) != open_time || raw.n < 0 {
        return Err(DecodeError::Malformed(format!("{} trades from {}", raw.n, raw.t)));
    }
    let quote_volume = Wide::parse(&raw.q)
        .ok_or_else(|| DecodeError::Malformed(format!("quote volume `{}`", raw.q)))?;
    Ok(Candle {
        exchange: Cow::Borrowed(VENUE),
        symbol: Cow::Owned(symbol.to_owned()),
        timeframe: Cow::Borrowed(frame.name()),
        source: CandleSource::Venue,
        open_time,
        close_time: frame.end(open_time),
        open: money(&raw.o)?,
        high: money(&raw.h)?,
        low: money(&raw.l)?,
        close: money(&raw.c)?,
        volume: money(&raw.v)?,
        quote_volume,
        trades_count: i64::from(raw.n),
        is_final: raw.x,
        revision: raw.n,
        receive_time: at,
    })
}
