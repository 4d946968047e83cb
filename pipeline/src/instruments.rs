//! The table of instruments (T12), filled from the venues' own tables of symbols.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Serialize;
use sqlx::types::Json;
use sqlx::{Connection, PgConnection};

use crate::venue::{Instrument, SymbolTable};

/// Rows of one statement.
const ROWS: usize = 2_000;
/// How long a connector's start may wait for the database; it works without it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A row as the database takes and gives it; numbers as text, so that no digit is lost.
#[derive(Debug, Clone, Serialize, serde::Deserialize)]
pub struct Row {
    /// Venue, upper case.
    pub exchange: String,
    /// As the pipeline writes it.
    pub symbol: String,
    /// As the venue writes it.
    pub code: String,
    /// For people.
    pub name: Option<String>,
    /// `spot`, `perpetual`, `future`, `option`, `stock` or `fund`.
    pub market: String,
    /// Not from venues.
    pub sector: Option<String>,
    /// First day of trading.
    pub listing_date: Option<String>,
    /// Currency that is traded.
    pub base: Option<String>,
    /// Currency of the price.
    pub quote: Option<String>,
    /// Currency of settlement.
    pub settlement: Option<String>,
    /// Of an option.
    pub strike_price: Option<String>,
    /// Of an option or future.
    pub expiry_date: Option<String>,
    /// Of an option.
    pub option_type: Option<String>,
    /// Smallest step of the price.
    pub tick_size: Option<String>,
    /// Smallest step of the amount.
    pub lot_size: Option<String>,
    /// Smallest amount of an order.
    pub min_size: Option<String>,
    /// What one contract stands for.
    pub contract_size: Option<String>,
    /// In the venue's words.
    pub status: Option<String>,
}

const COLUMNS: &str = "exchange, symbol, code, name, market, listing_date, base, quote, settlement, \
    strike_price, expiry_date, option_type, tick_size, lot_size, min_size, contract_size, status";

fn row(venue: &str, of: &Instrument) -> Row {
    let text = |number: Option<tapeline_schemas::Money>| number.map(|number| number.to_string());
    let moment = |time: Option<tapeline_schemas::Micros>| time.map(|time| utc(time.0));
    let option = of.option.as_ref();
    Row {
        exchange: venue.to_owned(),
        symbol: of.symbol.clone(),
        code: of.code.clone(),
        name: of.name.clone(),
        market: of.market.name().to_owned(),
        sector: None,
        listing_date: moment(of.listed),
        base: Some(of.base.clone()),
        quote: Some(of.quote.clone()),
        settlement: of.settlement.clone(),
        strike_price: option.map(|terms| terms.strike.to_string()),
        expiry_date: moment(of.expiry),
        option_type: option.map(|terms| terms.option_type.name().to_owned()),
        tick_size: text(of.tick_size),
        lot_size: text(of.lot_size),
        min_size: text(of.min_size),
        contract_size: text(of.contract_size),
        status: of.status.clone(),
    }
}

/// Microseconds since the epoch as PostgreSQL reads them, exactly.
pub(crate) fn utc(micros: i64) -> String {
    let day = micros.div_euclid(86_400_000_000);
    let rest = micros.rem_euclid(86_400_000_000);
    let (year, month, date) = crate::venue::civil::date(day);
    let seconds = rest / 1_000_000;
    format!(
        "{year:04}-{month:02}-{date:02} {:02}:{:02}:{:02}.{:06}+00",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60,
        rest % 1_000_000
    )
}

/// Keeps a venue's instruments; says how many rows are new or changed. What others know of them (a sector, a name
/// where the venue gives none) stays, and so do instruments that the venue no longer lists.
pub async fn store(url: &str, venue: &str, table: &SymbolTable) -> Result<u64> {
    let mut database = PgConnection::connect(url).await.context("database of the instruments")?;
    let rows: Vec<Row> = table.instruments().map(|instrument| row(venue, instrument)).collect();
    let sql = format!(
        "insert into instruments as i ({COLUMNS})
        select exchange, symbol, code, name, market,
            (listing_date::timestamptz at time zone 'UTC')::date, base, quote, settlement,
            strike_price::numeric, expiry_date::timestamptz, option_type, tick_size::numeric,
            lot_size::numeric, min_size::numeric, contract_size::numeric, status
        from jsonb_to_recordset($1) as r (exchange text, symbol text, code text, name text,
            market text, listing_date text, base text, quote text, settlement text,
            strike_price text, expiry_date text, option_type text, tick_size text, lot_size text,
            min_size text, contract_size text, status text)
        on conflict (exchange, symbol) do update set (code, name, market, listing_date, base, quote,
            settlement, strike_price, expiry_date, option_type, tick_size, lot_size, min_size,
            contract_size, status) = (excluded.code, coalesce(excluded.name, i.name),
            excluded.market, coalesce(excluded.listing_date, i.listing_date), excluded.base,
            excluded.quote, excluded.settlement, excluded.strike_price, excluded.expiry_date,
            excluded.option_type, excluded.tick_size, excluded.lot_size, excluded.min_size,
            excluded.contract_size, excluded.status)
        where (i.code, i.market, i.base, i.quote, i.settlement, i.strike_price, i.expiry_date,
            i.option_type, i.tick_size, i.lot_size, i.min_size, i.contract_size, i.status,
            coalesce(excluded.name, i.name), coalesce(excluded.listing_date, i.listing_date))
            is distinct from (excluded.code, excluded.market, excluded.base, excluded.quote,
            excluded.settlement, excluded.strike_price, excluded.expiry_date,
            excluded.option_type, excluded.tick_size, excluded.lot_size, excluded.min_size,
            excluded.contract_size, excluded.status, i.name, i.listing_date)"
    );
    let mut changed = 0;
    for part in rows.chunks(ROWS) {
        let done = sqlx::query(&sql).bind(Json(part)).execute(&mut database).await;
        changed += done.with_context(|| format!("instruments of {venue}"))?.rows_affected();
    }
    Ok(changed)
}

/// What is known, of one venue or all, with symbols or codes that contain `like`.
pub async fn list(
    database: &mut PgConnection,
    venue: Option<&str>,
    like: Option<&str>,
) -> Result<Vec<Row>> {
    let rows: Vec<(Json<Row>,)> = sqlx::query_as(
        "select to_jsonb(t) from (select exchange, symbol, code, name, market, sector,
            listing_date, base, quote, settlement, strike_price::text as strike_price,
            to_char(expiry_date at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') as expiry_date,
            option_type, tick_size::text as tick_size, lot_size::text as lot_size,
            min_size::text as min_size, contract_size::text as contract_size, status
        from instruments
        where ($1::text is null or exchange = upper($1))
            and ($2::text is null or position(upper($2) in upper(symbol)) > 0
                or position(upper($2) in upper(code)) > 0)
        order by exchange, symbol) t",
    )
    .bind(venue)
    .bind(like)
    .fetch_all(database)
    .await
    .context("instruments")?;
    Ok(rows.into_iter().map(|(Json(row),)| row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_to_the_microsecond() {
        assert_eq!(utc(1_798_185_600_000_001), "2026-12-25 08:00:00.000001+00");
        assert_eq!(utc(-1), "1969-12-31 23:59:59.999999+00");
    }
}
