//! An event as the fields of a Redis hash, readable by people.

use tapeline_schemas::{Book, Candle, CodecError, Kind, Level, Record, Ticker};

use crate::cache::Value;
use crate::store::rows::put_levels;

/// Gives each field with its value. What a venue leaves out has no field.
pub(super) fn put(value: &Value, mut put: impl FnMut(&str, String)) -> Result<(), CodecError> {
    put("partition", value.stamp.at.partition.to_string());
    put("receive_time", value.stamp.receive_time.0.to_string());
    match value.kind {
        Kind::Ticker => ticker(&Ticker::decode(&value.payload)?, put),
        Kind::Book => book(&Book::decode(&value.payload)?, put),
        Kind::Candle => candle(&Candle::decode(&value.payload)?, put),
        Kind::Trade | Kind::Anomaly | Kind::Gap | Kind::Quarantine => {}
    }
    Ok(())
}

fn ticker(event: &Ticker<'_>, mut put: impl FnMut(&str, String)) {
    put("exchange", event.exchange.to_string());
    put("symbol", event.symbol.to_string());
    for (name, amount) in [
        ("last", event.last),
        ("bid", event.bid),
        ("bid_volume", event.bid_volume),
        ("ask", event.ask),
        ("ask_volume", event.ask_volume),
        ("volume_24h", event.volume_24h),
        ("quote_volume_24h", event.quote_volume_24h),
        ("price_change_24h", event.price_change_24h),
        ("price_change_percent_24h", event.price_change_percent_24h),
    ] {
        if let Some(amount) = amount {
            put(name, amount.to_string());
        }
    }
    if let Some(id) = &event.event_id {
        put("event_id", id.to_string());
    }
}

fn book(event: &Book<'_>, mut put: impl FnMut(&str, String)) {
    put("exchange", event.exchange.to_string());
    put("symbol", event.symbol.to_string());
    put("bids", levels(&event.bids));
    put("asks", levels(&event.asks));
    if let Some(sequence) = event.sequence {
        put("sequence", sequence.to_string());
    }
    if let Some(id) = &event.event_id {
        put("event_id", id.to_string());
    }
}

fn levels(levels: &[Level]) -> String {
    let mut text = String::with_capacity(levels.len() * 32 + 2);
    // Writing to memory cannot fail.
    let _ = put_levels(levels, &mut text);
    text
}

fn candle(event: &Candle<'_>, mut put: impl FnMut(&str, String)) {
    put("exchange", event.exchange.to_string());
    put("symbol", event.symbol.to_string());
    put("timeframe", event.timeframe.to_string());
    put("source", event.source.name().to_owned());
    for (name, amount) in [
        ("open", event.open),
        ("high", event.high),
        ("low", event.low),
        ("close", event.close),
        ("volume", event.volume),
    ] {
        put(name, amount.to_string());
    }
    put("quote_volume", event.quote_volume.to_string());
    put("trades_count", event.trades_count.to_string());
    put("final", event.is_final.to_string());
    put("revision", event.revision.to_string());
    put("close_time", event.close_time.0.to_string());
}
