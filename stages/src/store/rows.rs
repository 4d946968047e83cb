//! One function a table: an event as a tuple, columns in the order of the table's `Spec`.

use std::fmt::Write;

use tapeline_schemas::{Anomaly, Book, Candle, Gap, Level, Micros, OptionData, Ticker, Trade};

use super::table::Table;
use super::tuple::{Tuple, postgres_micros};
use crate::flow::Reject;

/// Where a row is from: its raw partition and offset.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// Time of the event, and the number of its symbol.
pub(super) type Written = Result<(Micros, u32), Reject>;

/// What a time that PostgreSQL cannot hold is refused as.
const RANGE: &str = "range";

pub(super) fn moment(time: Micros) -> Result<i64, Reject> {
    postgres_micros(time)
        .ok_or_else(|| Reject::new(RANGE, format!("time {} is out of range", time.0)))
}

/// A number that rows of one symbol share. Two symbols may share it too: it only orders rows.
#[inline]
pub(super) fn group(exchange: &str, symbol: &str) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(exchange.as_bytes());
    hasher.update(symbol.as_bytes());
    hasher.finalize()
}

pub(super) fn begin<'b>(table: Table, out: &'b mut Vec<u8>) -> Tuple<'b> {
    Tuple::begin(out, table.spec().columns.len())
}

#[inline]
pub(super) fn trade(event: &Trade<'_>, origin: Origin, out: &mut Vec<u8>) -> Written {
    let (time, receive_time) = (moment(event.venue_time)?, moment(event.receive_time)?);
    let mut tuple = begin(Table::Trades, out);
    tuple.bigint(time);
    tuple.text(&event.exchange);
    tuple.text(&event.symbol);
    tuple.text(&event.trade_id);
    tuple.money(event.price);
    tuple.money(event.amount);
    tuple.text(event.side.name());
    tuple.text_or_null(event.kind.as_deref());
    tuple.text_or_null(event.taker_or_maker.as_deref());
    tuple.bigint_or_null(event.sequence);
    tuple.bigint(receive_time);
    put_origin(&mut tuple, origin);
    Ok((event.venue_time, group(&event.exchange, &event.symbol)))
}

pub(super) fn ticker(event: &Ticker<'_>, origin: Origin, out: &mut Vec<u8>) -> Written {
    let (time, receive_time) = (moment(event.venue_time)?, moment(event.receive_time)?);
    let mut tuple = begin(Table::Ticker, out);
    tuple.bigint(time);
    tuple.text(&event.exchange);
    tuple.text(&event.symbol);
    put_event_id(&mut tuple, event.event_id.as_deref(), origin);
    for value in [
        event.last,
        event.bid,
        event.ask,
        event.bid_volume,
        event.ask_volume,
        event.volume_24h,
        event.quote_volume_24h,
        event.price_change_24h,
        event.price_change_percent_24h,
    ] {
        tuple.money_or_null(value);
    }
    tuple.bigint(receive_time);
    put_origin(&mut tuple, origin);
    Ok((event.venue_time, group(&event.exchange, &event.symbol)))
}

pub(super) fn orderbook(event: &Book<'_>, origin: Origin, out: &mut Vec<u8>) -> Written {
    let (time, receive_time) = (moment(event.venue_time)?, moment(event.receive_time)?);
    let mut tuple = begin(Table::Orderbook, out);
    tuple.bigint(time);
    tuple.text(&event.exchange);
    tuple.text(&event.symbol);
    put_event_id(&mut tuple, event.event_id.as_deref(), origin);
    tuple.jsonb(|json| put_levels(&event.bids, json));
    tuple.jsonb(|json| put_levels(&event.asks, json));
    tuple.bigint(event.venue_time.0.div_euclid(1_000));
    tuple.bigint_or_null(event.sequence);
    tuple.bigint(receive_time);
    put_origin(&mut tuple, origin);
    Ok((event.venue_time, group(&event.exchange, &event.symbol)))
}

/// `[["price","amount"],…]`: numbers as text, so that no reader makes floats of them.
pub(crate) fn put_levels(levels: &[Level], json: &mut dyn Write) -> std::fmt::Result {
    json.write_char('[')?;
    for (index, level) in levels.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        write!(json, "{comma}[\"{}\",\"{}\"]", level.price, level.amount)?;
    }
    json.write_char(']')
}

/// Candles of ours have no origin: they come from many raw records.
pub(super) fn candle(event: &Candle<'_>, origin: Option<Origin>, out: &mut Vec<u8>) -> Written {
    let (time, close_time) = (moment(event.open_time)?, moment(event.close_time)?);
    let receive_time = moment(event.receive_time)?;
    let mut tuple = begin(Table::Ohlcv, out);
    tuple.bigint(time);
    tuple.text(&event.exchange);
    tuple.text(&event.symbol);
    tuple.text(&event.timeframe);
    tuple.text(event.source.name());
    for value in [event.open, event.high, event.low, event.close, event.volume] {
        tuple.money(value);
    }
    tuple.wide(event.quote_volume);
    tuple.bigint(event.trades_count);
    tuple.boolean(event.is_final);
    tuple.integer(event.revision);
    tuple.bigint(close_time);
    tuple.bigint(receive_time);
    match origin {
        Some(origin) => put_origin(&mut tuple, origin),
        None => (0..2).for_each(|_| tuple.null()),
    }
    Ok((event.open_time, group(&event.exchange, &event.symbol)))
}

pub(super) fn option(event: &OptionData<'_>, origin: Origin, out: &mut Vec<u8>) -> Written {
    let (time, receive_time) = (moment(event.venue_time)?, moment(event.receive_time)?);
    let expiry = moment(event.expiry)?;
    let mut tuple = begin(Table::OptionData, out);
    tuple.bigint(time);
    tuple.text(&event.exchange);
    tuple.text(&event.symbol);
    put_event_id(&mut tuple, event.event_id.as_deref(), origin);
    tuple.text(&event.underlying);
    tuple.money(event.strike);
    tuple.bigint(expiry);
    tuple.text(event.option_type.name());
    for value in [
        event.iv,
        event.delta,
        event.gamma,
        event.theta,
        event.vega,
        event.rho,
        event.bid_iv,
        event.ask_iv,
        event.mark_price,
        event.underlying_price,
        event.index_price,
        event.interest_rate,
        event.open_interest,
    ] {
        tuple.money_or_null(value);
    }
    tuple.bigint(receive_time);
    put_origin(&mut tuple, origin);
    Ok((event.venue_time, group(&event.exchange, &event.symbol)))
}

pub(super) fn anomaly(event: &Anomaly<'_>, out: &mut Vec<u8>) -> Written {
    let (time, receive_time) = (moment(event.venue_time)?, moment(event.receive_time)?);
    let mut tuple = begin(Table::Anomalies, out);
    tuple.bigint(time);
    tuple.text(&event.origin_topic);
    put_origin(
        &mut tuple,
        Origin { partition: event.origin_partition, offset: event.origin_offset },
    );
    tuple.text(&event.exchange);
    tuple.text(&event.symbol);
    tuple.text(&event.kind);
    tuple.texts(event.flags.iter().map(|flag| flag.as_ref()));
    tuple.text(&event.detail);
    tuple.bigint(receive_time);
    Ok((event.venue_time, group(&event.exchange, &event.symbol)))
}

pub(super) fn gap(event: &Gap<'_>, out: &mut Vec<u8>) -> Written {
    let from_time = moment(event.from_time)?;
    let to_time = event.to_time.map(moment).transpose()?;
    let mut tuple = begin(Table::Gaps, out);
    tuple.text(&event.exchange);
    tuple.text(&event.symbol);
    tuple.text(&event.channel);
    tuple.bigint(from_time);
    tuple.bigint_or_null(to_time);
    tuple.text(event.state.name());
    tuple.text(&event.cause);
    tuple.text_or_null(event.filled_by.as_deref());
    tuple.text(&event.origin_topic);
    put_origin(
        &mut tuple,
        Origin { partition: event.origin_partition, offset: event.origin_offset },
    );
    Ok((event.from_time, group(&event.exchange, &event.symbol)))
}

#[inline]
pub(super) fn put_origin(tuple: &mut Tuple<'_>, origin: Origin) {
    tuple.integer(origin.partition);
    tuple.bigint(origin.offset);
}

/// The name of an event that its venue does not name.
struct OwnId(Origin);

impl std::fmt::Display for OwnId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.0.partition, self.0.offset)
    }
}

fn put_event_id(tuple: &mut Tuple<'_>, id: Option<&str>, origin: Origin) {
    match id {
        Some(id) => tuple.text(id),
        None => tuple.formatted(format_args!("{}", OwnId(origin))),
    }
}

/// The venue's identity out of a stored one, of an event from this place.
pub(crate) fn venue_id(stored: String, partition: i32, offset: i64) -> Option<String> {
    (stored != OwnId(Origin { partition, offset }).to_string()).then_some(stored)
}
