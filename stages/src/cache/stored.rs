//! Stored rows as the events that they were made of (R2): so that what `cache` takes out of the log can come out of
//! the database too. Numbers travel as text, so that no digit is lost on the way (invariant 10).

use sqlx::Row as _;
use sqlx::postgres::PgRow;
use tapeline_schemas::{
    Book, BookAction, Candle, CandleSource, Kind, Level, Micros, Money, Ticker, Wide, encode,
};

use crate::store::rows::venue_id;

/// Why a row is no event.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// The row has other columns than [`columns`] asks for.
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    /// What it says cannot be read.
    #[error("{0}")]
    Unsound(String),
}

/// An event out of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Venue, upper case.
    pub exchange: String,
    /// `BASE-QUOTE`.
    pub symbol: String,
    /// Of a candle.
    pub timeframe: Option<String>,
    /// What orders it: its time by the venue, the start of a candle's window.
    pub time: Micros,
    /// Raw partition and offset of its record; a candle of ours has none, for it comes from many records.
    pub origin: Option<(i32, i64)>,
    /// The event in our own schema, as its record has it.
    pub payload: Vec<u8>,
}

const TICKER: &str = "exchange, symbol, (extract(epoch from time) * 1000000)::bigint,
    (extract(epoch from receive_time) * 1000000)::bigint, origin_partition, origin, event_id,
    last_price::text, bid_price::text, bid_volume::text, ask_price::text, ask_volume::text,
    volume_24h::text, quote_volume_24h::text, price_change_24h::text,
    price_change_percent_24h::text";

const BOOK: &str = "exchange, symbol, (extract(epoch from time) * 1000000)::bigint,
    (extract(epoch from receive_time) * 1000000)::bigint, origin_partition, origin, event_id,
    bids::text, asks::text, sequence";

const CANDLE: &str = "exchange, symbol, (extract(epoch from time) * 1000000)::bigint,
    (extract(epoch from receive_time) * 1000000)::bigint,
    (extract(epoch from close_time) * 1000000)::bigint, timeframe, open::text, high::text,
    low::text, close::text, volume::text, quote_volume::text, trades_count, final, revision";

/// What [`event`] has to be given of a row; none for a kind that the cache does not take.
pub const fn columns(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Ticker => Some(TICKER),
        Kind::Book => Some(BOOK),
        Kind::Candle => Some(CANDLE),
        _ => None,
    }
}

/// The event of a row with [`columns`].
pub fn event(kind: Kind, row: &PgRow) -> Result<StoredEvent, StoredError> {
    match kind {
        Kind::Ticker => ticker(row),
        Kind::Book => book(row),
        Kind::Candle => candle(row),
        other => Err(StoredError::Unsound(format!("the cache takes no {}", other.name()))),
    }
}

fn ticker(row: &PgRow) -> Result<StoredEvent, StoredError> {
    let (exchange, symbol): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let (time, receive_time) = (Micros(row.try_get(2)?), Micros(row.try_get(3)?));
    let (partition, offset) = (row.try_get(4)?, row.try_get(5)?);
    let payload = encode(&Ticker {
        exchange: exchange.as_str().into(),
        symbol: symbol.as_str().into(),
        event_id: venue_id(row.try_get(6)?, partition, offset).map(Into::into),
        last: money_or_none(row, 7)?,
        bid: money_or_none(row, 8)?,
        bid_volume: money_or_none(row, 9)?,
        ask: money_or_none(row, 10)?,
        ask_volume: money_or_none(row, 11)?,
        volume_24h: money_or_none(row, 12)?,
        quote_volume_24h: money_or_none(row, 13)?,
        price_change_24h: money_or_none(row, 14)?,
        price_change_percent_24h: money_or_none(row, 15)?,
        venue_time: time,
        receive_time,
    });
    let origin = Some((partition, offset));
    Ok(StoredEvent { exchange, symbol, timeframe: None, time, origin, payload })
}

/// First sequence and checksum are not stored; Redis shows neither.
fn book(row: &PgRow) -> Result<StoredEvent, StoredError> {
    let (exchange, symbol): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let (time, receive_time) = (Micros(row.try_get(2)?), Micros(row.try_get(3)?));
    let (partition, offset) = (row.try_get(4)?, row.try_get(5)?);
    let payload = encode(&Book {
        exchange: exchange.as_str().into(),
        symbol: symbol.as_str().into(),
        action: BookAction::Top,
        event_id: venue_id(row.try_get(6)?, partition, offset).map(Into::into),
        bids: levels(row.try_get(7)?)?,
        asks: levels(row.try_get(8)?)?,
        first_sequence: None,
        sequence: row.try_get(9)?,
        checksum: None,
        venue_time: time,
        receive_time,
    });
    let origin = Some((partition, offset));
    Ok(StoredEvent { exchange, symbol, timeframe: None, time, origin, payload })
}

fn candle(row: &PgRow) -> Result<StoredEvent, StoredError> {
    let (exchange, symbol): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let (time, timeframe): (_, String) = (Micros(row.try_get(2)?), row.try_get(5)?);
    let quote_volume: &str = row.try_get(11)?;
    let payload = encode(&Candle {
        exchange: exchange.as_str().into(),
        symbol: symbol.as_str().into(),
        timeframe: timeframe.as_str().into(),
        source: CandleSource::Tapeline,
        open_time: time,
        close_time: Micros(row.try_get(4)?),
        open: money(row.try_get(6)?)?,
        high: money(row.try_get(7)?)?,
        low: money(row.try_get(8)?)?,
        close: money(row.try_get(9)?)?,
        volume: money(row.try_get(10)?)?,
        quote_volume: Wide::parse(quote_volume)
            .ok_or_else(|| unsound(quote_volume, "quote volume beyond its digits"))?,
        trades_count: row.try_get(12)?,
        is_final: row.try_get(13)?,
        revision: row.try_get(14)?,
        receive_time: Micros(row.try_get(3)?),
    });
    let timeframe = Some(timeframe);
    Ok(StoredEvent { exchange, symbol, timeframe, time, origin: None, payload })
}

fn unsound(text: &str, why: impl std::fmt::Display) -> StoredError {
    StoredError::Unsound(format!("{text}: {why}"))
}

fn money(text: &str) -> Result<Money, StoredError> {
    Money::parse(text.as_bytes()).map_err(|error| unsound(text, error))
}

fn money_or_none(row: &PgRow, index: usize) -> Result<Option<Money>, StoredError> {
    row.try_get::<Option<&str>, _>(index)?.map(money).transpose()
}

/// What `put_levels` wrote.
fn levels(json: &str) -> Result<Vec<Level>, StoredError> {
    let pairs: Vec<(String, String)> =
        serde_json::from_str(json).map_err(|error| unsound(json, error))?;
    let level = |(price, amount): (String, String)| {
        Ok(Level { price: money(&price)?, amount: money(&amount)? })
    };
    pairs.into_iter().map(level).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::rows::put_levels;

    #[test]
    fn levels_come_back_from_the_database_as_they_went_in() {
        let level = |price: &str, amount: &str| Level {
            price: price.parse().expect("a price"),
            amount: amount.parse().expect("an amount"),
        };
        let written = vec![level("10.5", "0.000000000000000001"), level("10", "3")];
        let mut json = String::new();
        put_levels(&written, &mut json).expect("memory");
        assert_eq!(levels(&json).expect("read"), written);
        // As jsonb gives it back.
        assert_eq!(levels(&json.replace(',', ", ")).expect("read"), written);
        assert_eq!(levels("[]").expect("read"), Vec::new());
        assert!(levels("[[10.5, 1]]").is_err(), "a float has lost digits already");
    }

    #[test]
    fn an_event_without_an_identity_of_its_venue_has_none_again() {
        assert_eq!(venue_id("3-17".to_owned(), 3, 17), None);
        assert_eq!(venue_id("3-17".to_owned(), 3, 18).as_deref(), Some("3-17"));
        assert_eq!(venue_id("u42".to_owned(), 3, 17).as_deref(), Some("u42"));
    }
}
