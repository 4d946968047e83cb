//! What the database holds of a range: so that only what is missing is published.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use sqlx::PgConnection;
use tapeline_schemas::{Kind, Money};

use super::Span;

/// A stored event, by what makes it itself within its symbol.
#[derive(Debug, Default)]
pub(super) struct Stored {
    /// Amount of each trade by its id; of each candle by the start of its window.
    pub(super) amounts: HashMap<String, Money>,
    /// Numbers, of events that have one.
    pub(super) numbers: Vec<i64>,
}

const CANDLES: &str = "select (extract(epoch from time) * 1000000)::bigint::text, volume::text,
        (extract(epoch from time) * 1000000)::bigint / 60000000
    from market_data_ohlcv
    where exchange = $1 and symbol = $2 and time >= $3::timestamptz and time <= $4::timestamptz
        and timeframe = '1m' and source = 'venue' and final";

const TRADES: &str = "select trade_id, amount::text, sequence
    from market_data_trades
    where exchange = $1 and symbol = $2 and time >= $3::timestamptz and time <= $4::timestamptz";

/// The stored events of a span.
pub(super) async fn events(database: &mut PgConnection, span: &Span) -> Result<Stored> {
    let sql = if span.kind == Kind::VenueCandle { CANDLES } else { TRADES };
    let rows: Vec<(String, String, Option<i64>)> = sqlx::query_as(sql)
        .bind(span.venue)
        .bind(&span.symbol)
        .bind(span.from.to_string())
        .bind(span.to.to_string())
        .fetch_all(database)
        .await
        .context("stored events")?;
    let mut stored = Stored::default();
    for (id, amount, number) in rows {
        let amount = Money::parse(amount.as_bytes()).with_context(|| format!("amount of {id}"))?;
        stored.amounts.insert(id, amount);
        stored.numbers.extend(number);
    }
    Ok(stored)
}

/// Numbers of the trades right before `span` and right behind it.
pub(super) async fn around(
    database: &mut PgConnection,
    span: &Span,
) -> Result<(Option<i64>, Option<i64>)> {
    if span.kind != Kind::Trade {
        return Ok((None, None));
    }
    let mut found = [None, None];
    let looks = [("< $3", "desc", span.from), ("> $3", "asc", span.to)];
    for (found, (which, order, at)) in found.iter_mut().zip(looks) {
        let sql = format!(
            "select sequence from market_data_trades
            where exchange = $1 and symbol = $2 and time {which}::timestamptz
                and sequence is not null
            order by time {order}, sequence {order} limit 1"
        );
        let row: Option<(i64,)> = sqlx::query_as(&sql)
            .bind(span.venue)
            .bind(&span.symbol)
            .bind(at.to_string())
            .fetch_optional(&mut *database)
            .await
            .context("trades around")?;
        *found = row.map(|(number,)| number);
    }
    let [before, behind] = found;
    Ok((before, behind))
}

/// Waits for its turn among all who fill holes of this feed; the turn ends with the connection.
pub(super) async fn turn(database: &mut PgConnection, span: &Span) -> Result<()> {
    let Span { venue, symbol, kind, .. } = span;
    sqlx::query("select pg_advisory_lock(hashtextextended($1, 0))")
        .bind(format!("tapeline backfill {venue}:{symbol}:{}", kind.name()))
        .execute(database)
        .await
        .context("turn among backfills")?;
    Ok(())
}

/// Ends every turn of this connection.
pub(super) async fn done(database: &mut PgConnection) -> Result<()> {
    sqlx::query("select pg_advisory_unlock_all()").execute(database).await.context("turns")?;
    Ok(())
}
