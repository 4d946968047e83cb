//! One function a measurement: an event as a line.
//!
//! What tells series apart are tags; figures are floats, so that the server can calculate with
//! them (ADR 10); ids and levels are text.

use tapeline_schemas::{Book, Candle, Micros, OptionData, Ticker, Trade};

use super::line::{Line, Place};
use crate::flow::Reject;
use crate::store::rows::put_levels;

/// Where an event is from: its raw partition and offset.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// Time of the event.
pub(super) type Written = Result<Micros, Reject>;

pub(super) fn trade(event: &Trade<'_>, origin: Origin, out: &mut String) -> Written {
    let place = Place::of(Some(&event.trade_id), origin.offset);
    let mut line = begin("trade", &event.exchange, &event.symbol, out)?;
    line.tag("side", event.side.name())?;
    line.lane(place);
    line.float("price", event.price);
    line.float("amount", event.amount);
    line.text("trade_id", &event.trade_id);
    line.text_if("type", event.kind.as_deref());
    line.text_if("taker_or_maker", event.taker_or_maker.as_deref());
    line.integer_if("sequence", event.sequence);
    end(line, origin, event.venue_time, event.receive_time, place)
}

pub(super) fn ticker(event: &Ticker<'_>, origin: Origin, out: &mut String) -> Written {
    let place = Place::of(event.event_id.as_deref(), origin.offset);
    let mut line = begin("ticker", &event.exchange, &event.symbol, out)?;
    line.lane(place);
    for (name, value) in [
        ("last", event.last),
        ("bid", event.bid),
        ("ask", event.ask),
        ("bid_volume", event.bid_volume),
        ("ask_volume", event.ask_volume),
        ("volume_24h", event.volume_24h),
        ("quote_volume_24h", event.quote_volume_24h),
        ("price_change_24h", event.price_change_24h),
        ("price_change_percent_24h", event.price_change_percent_24h),
    ] {
        line.float_if(name, value);
    }
    line.text_if("event_id", event.event_id.as_deref());
    end(line, origin, event.venue_time, event.receive_time, place)
}

pub(super) fn book(event: &Book<'_>, origin: Origin, out: &mut String) -> Written {
    let place = Place::of(event.event_id.as_deref(), origin.offset);
    let mut line = begin("book", &event.exchange, &event.symbol, out)?;
    line.lane(place);
    let (bid, ask) = (event.bids.first(), event.asks.first());
    line.float_if("bid", bid.map(|level| level.price));
    line.float_if("bid_amount", bid.map(|level| level.amount));
    line.float_if("ask", ask.map(|level| level.price));
    line.float_if("ask_amount", ask.map(|level| level.amount));
    for (name, levels) in [("bids", &event.bids), ("asks", &event.asks)] {
        let mut json = String::with_capacity(levels.len() * 32 + 2);
        // Writing to memory cannot fail.
        let _ = put_levels(levels, &mut json);
        line.text(name, &json);
    }
    line.integer_if("sequence", event.sequence);
    line.text_if("event_id", event.event_id.as_deref());
    end(line, origin, event.venue_time, event.receive_time, place)
}

/// A window has one point: a later revision replaces the one before.
pub(super) fn candle(event: &Candle<'_>, out: &mut String) -> Written {
    let mut line = begin("candle", &event.exchange, &event.symbol, out)?;
    line.tag("timeframe", &event.timeframe)?;
    line.tag("source", event.source.name())?;
    for (name, value) in [
        ("open", event.open),
        ("high", event.high),
        ("low", event.low),
        ("close", event.close),
        ("volume", event.volume),
    ] {
        line.float(name, value);
    }
    line.float("quote_volume", event.quote_volume);
    line.integer("trades_count", event.trades_count);
    line.boolean("final", event.is_final);
    line.integer("revision", event.revision.into());
    line.integer("close_time", event.close_time.0);
    line.integer("receive_time", event.receive_time.0);
    line.end(event.open_time, 0)?;
    Ok(event.open_time)
}

pub(super) fn option(event: &OptionData<'_>, origin: Origin, out: &mut String) -> Written {
    let place = Place::of(event.event_id.as_deref(), origin.offset);
    let mut line = begin("option", &event.exchange, &event.symbol, out)?;
    line.tag("underlying", &event.underlying)?;
    line.tag("option_type", event.option_type.name())?;
    line.lane(place);
    line.float("strike", event.strike);
    line.integer("expiry", event.expiry.0);
    for (name, value) in [
        ("iv", event.iv),
        ("delta", event.delta),
        ("gamma", event.gamma),
        ("theta", event.theta),
        ("vega", event.vega),
        ("rho", event.rho),
        ("bid_iv", event.bid_iv),
        ("ask_iv", event.ask_iv),
        ("mark_price", event.mark_price),
        ("underlying_price", event.underlying_price),
        ("index_price", event.index_price),
        ("interest_rate", event.interest_rate),
        ("open_interest", event.open_interest),
    ] {
        line.float_if(name, value);
    }
    line.text_if("event_id", event.event_id.as_deref());
    end(line, origin, event.venue_time, event.receive_time, place)
}

fn begin<'b>(
    measurement: &str,
    exchange: &str,
    symbol: &str,
    out: &'b mut String,
) -> Result<Line<'b>, Reject> {
    let mut line = Line::begin(measurement, out);
    line.tag("exchange", exchange)?;
    line.tag("symbol", symbol)?;
    Ok(line)
}

fn end(
    mut line: Line<'_>,
    origin: Origin,
    time: Micros,
    received: Micros,
    place: Place,
) -> Written {
    line.integer("receive_time", received.0);
    line.integer("partition", origin.partition.into());
    line.integer("origin", origin.offset);
    line.end(time, place.nanos)?;
    Ok(time)
}
