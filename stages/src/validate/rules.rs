//! Rules that need no memory: what breaks them goes to quarantine (invariant 4).

use tapeline_schemas::{
    Book, BookAction, Candle, CandleSource, Control, Level, Micros, Money, OptionData, Ticker,
    Timeframe, Trade, Wide, partition_for,
};

use super::Settings;
use crate::flow::{Record, Reject};

/// Version of the rules; to be raised with every change of what they say. With the settings it is
/// in every checked record's headers and in the ledger ([`super::Settings::rules`]).
pub const RULES_VERSION: &str = "3";

/// Longest exchange, symbol or id in bytes.
const MAX_TEXT_BYTES: usize = 100;
/// Times before 1990 and after 2200 are no times of a market.
pub(super) const TIME_RANGE: std::ops::Range<Micros> =
    Micros(631_152_000_000_000)..Micros(7_258_118_400_000_000);
/// The years 1 to 9999: a control record may say "from the beginning", but no more than that.
const CONTROL_RANGE: std::ops::RangeInclusive<i64> =
    -62_135_596_800_000_000..=253_402_300_799_999_999;

/// The key is `EXCHANGE:SYMBOL`, and the record lies in the partition murmur2 gives it.
pub(super) fn routing(
    record: &Record<'_>,
    exchange: &str,
    symbol: &str,
    partitions: i32,
) -> Result<(), Reject> {
    let Some(key) = record.key else {
        return Err(Reject::new("routing", format!("no key, expected {exchange}:{symbol}")));
    };
    let matches = key.len() == exchange.len() + 1 + symbol.len()
        && key.starts_with(exchange.as_bytes())
        && key[exchange.len()] == b':'
        && key.ends_with(symbol.as_bytes());
    if !matches {
        return Err(Reject::new(
            "routing",
            format!("key {:?}, expected {exchange}:{symbol}", String::from_utf8_lossy(key)),
        ));
    }
    let expected = partition_for(key, partitions);
    if record.at.partition != expected {
        return Err(Reject::new(
            "routing",
            format!(
                "in partition {}, murmur2 of its key gives {expected}: set the producer's partitioner to murmur2",
                record.at.partition
            ),
        ));
    }
    Ok(())
}

pub(super) fn range(what: &str, value: impl std::fmt::Display, expected: &str) -> Reject {
    Reject::new("range", format!("{what} is {value}, expected {expected}"))
}

pub(super) fn text(what: &str, value: &str) -> Result<(), Reject> {
    if value.is_empty() || value.len() > MAX_TEXT_BYTES {
        return Err(range(what, format!("{} bytes long", value.len()), "1 to 100 bytes"));
    }
    if value.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
        return Err(range(what, format!("{value:?}"), "no control characters"));
    }
    Ok(())
}

pub(super) fn names(exchange: &str, symbol: &str) -> Result<(), Reject> {
    text("exchange", exchange)?;
    text("symbol", symbol)?;
    if exchange.bytes().any(|byte| byte == b':' || byte.is_ascii_lowercase()) {
        return Err(range("exchange", format!("{exchange:?}"), "upper case without a colon"));
    }
    if !symbol.contains('-') {
        return Err(range("symbol", format!("{symbol:?}"), "BASE-QUOTE"));
    }
    Ok(())
}

fn of_a_market(what: &str, time: Micros) -> Result<(), Reject> {
    if !TIME_RANGE.contains(&time) {
        return Err(range(what, time.0, "microseconds of the years 1990 to 2199"));
    }
    Ok(())
}

pub(super) fn times(venue: Micros, receive: Micros, settings: &Settings) -> Result<(), Reject> {
    of_a_market("venue_time", venue)?;
    of_a_market("receive_time", receive)?;
    if venue.since(receive) > settings.reject_ahead.as_micros() as i64 {
        return Err(range(
            "venue_time",
            format!("{} µs ahead of receive_time", venue.since(receive)),
            &format!("at most {} ms (validate.reject_ahead_ms)", settings.reject_ahead.as_millis()),
        ));
    }
    Ok(())
}

pub(super) fn positive(what: &str, value: Money) -> Result<(), Reject> {
    if value.is_positive() { Ok(()) } else { Err(range(what, value, "more than 0")) }
}

pub(super) fn not_negative(what: &str, value: Option<Money>) -> Result<(), Reject> {
    match value {
        Some(value) if value < Money::ZERO => Err(range(what, value, "0 or more")),
        _ => Ok(()),
    }
}

pub(super) fn trade(trade: &Trade<'_>, settings: &Settings) -> Result<(), Reject> {
    names(&trade.exchange, &trade.symbol)?;
    text("trade_id", &trade.trade_id)?;
    for (what, value) in [("type", &trade.kind), ("taker_or_maker", &trade.taker_or_maker)] {
        value.as_deref().map_or(Ok(()), |value| text(what, value))?;
    }
    positive("price", trade.price)?;
    positive("amount", trade.amount)?;
    times(trade.venue_time, trade.receive_time, settings)
}

/// Whatever follows from it must fit the tables of gaps and candles.
pub(super) fn control(control: &Control) -> Result<(), Reject> {
    let time = |what: &str, time: Micros| match CONTROL_RANGE.contains(&time.0) {
        true => Ok(()),
        false => Err(range(what, time.0, "microseconds of the years 1 to 9999")),
    };
    match control {
        Control::Complete { venue, through } => {
            text("venue", venue)?;
            time("through", *through)
        }
        Control::Gap(gap) => {
            text("venue", &gap.venue)?;
            text("symbol", &gap.symbol)?;
            text("channel", &gap.channel)?;
            text("cause", &gap.cause)?;
            gap.filled_by.as_deref().map_or(Ok(()), |by| text("filled_by", by))?;
            time("from", gap.from)?;
            gap.to.map_or(Ok(()), |to| time("to", to))
        }
    }
}

pub(super) fn ticker(ticker: &Ticker<'_>, settings: &Settings) -> Result<(), Reject> {
    names(&ticker.exchange, &ticker.symbol)?;
    if let Some(id) = &ticker.event_id {
        text("event_id", id)?;
    }
    for (what, value) in [("last", ticker.last), ("bid", ticker.bid), ("ask", ticker.ask)] {
        if let Some(value) = value {
            positive(what, value)?;
        }
    }
    not_negative("bid_volume", ticker.bid_volume)?;
    not_negative("ask_volume", ticker.ask_volume)?;
    not_negative("volume_24h", ticker.volume_24h)?;
    not_negative("quote_volume_24h", ticker.quote_volume_24h)?;
    times(ticker.venue_time, ticker.receive_time, settings)
}

pub(super) fn book(book: &Book<'_>, settings: &Settings) -> Result<(), Reject> {
    names(&book.exchange, &book.symbol)?;
    if let Some(id) = &book.event_id {
        text("event_id", id)?;
    }
    let delta = book.action == BookAction::Delta;
    levels("bids", &book.bids, delta, |better, worse| better > worse)?;
    levels("asks", &book.asks, delta, |better, worse| better < worse)?;
    times(book.venue_time, book.receive_time, settings)
}

pub(super) fn option(option: &OptionData<'_>, settings: &Settings) -> Result<(), Reject> {
    names(&option.exchange, &option.symbol)?;
    text("underlying", &option.underlying)?;
    if let Some(id) = &option.event_id {
        text("event_id", id)?;
    }
    positive("strike", option.strike)?;
    of_a_market("expiry", option.expiry)?;
    for (what, value) in [
        ("mark_price", option.mark_price),
        ("underlying_price", option.underlying_price),
        ("index_price", option.index_price),
        ("iv", option.iv),
        ("bid_iv", option.bid_iv),
        ("ask_iv", option.ask_iv),
        ("open_interest", option.open_interest),
    ] {
        not_negative(what, value)?;
    }
    times(option.venue_time, option.receive_time, settings)
}

/// A candle of a venue; one that says to be ours would take the place of one that is.
pub(super) fn venue_candle(candle: &Candle<'_>) -> Result<(), Reject> {
    names(&candle.exchange, &candle.symbol)?;
    if candle.source != CandleSource::Venue {
        return Err(range("source", candle.source.name(), "venue"));
    }
    let frame: Timeframe =
        candle.timeframe.parse().map_err(|error: String| Reject::new("range", error))?;
    of_a_market("open_time", candle.open_time)?;
    of_a_market("receive_time", candle.receive_time)?;
    let (open, close) = (candle.open_time, candle.close_time);
    if frame.start(open) != open || frame.end(open) != close {
        let window = format!("{} to {}", open.0, close.0);
        return Err(range("window", window, &format!("a whole window of {frame}")));
    }
    for (what, value) in
        [("open", candle.open), ("high", candle.high), ("low", candle.low), ("close", candle.close)]
    {
        positive(what, value)?;
        if value < candle.low || value > candle.high {
            return Err(range(what, value, &format!("{} to {}", candle.low, candle.high)));
        }
    }
    not_negative("volume", Some(candle.volume))?;
    if candle.quote_volume.mantissa() < Wide::ZERO.mantissa() {
        return Err(range("quote_volume", candle.quote_volume, "0 or more"));
    }
    if candle.trades_count < 0 || candle.revision < 0 {
        let counts = format!("{} and {}", candle.trades_count, candle.revision);
        return Err(range("trades_count and revision", counts, "0 or more"));
    }
    Ok(())
}

fn levels(
    what: &str,
    levels: &[Level],
    delta: bool,
    in_order: impl Fn(Money, Money) -> bool,
) -> Result<(), Reject> {
    for level in levels {
        positive(what, level.price)?;
        let wrong = if delta { level.amount < Money::ZERO } else { !level.amount.is_positive() };
        if wrong {
            return Err(range(
                what,
                format!("amount {} at {}", level.amount, level.price),
                "amounts above 0",
            ));
        }
    }
    // A delta sets levels in any order; a whole book is sorted and names no price twice.
    match levels.windows(2).find(|pair| !delta && !in_order(pair[0].price, pair[1].price)) {
        None => Ok(()),
        Some(pair) => Err(range(
            what,
            format!("{} followed by {}", pair[0].price, pair[1].price),
            "best price first, no price twice",
        )),
    }
}
