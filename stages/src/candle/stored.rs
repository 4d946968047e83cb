//! What the database holds about a window. Numbers travel as text, so that no digit is lost on
//! the way (invariant 10).

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgRow, PgTypeInfo, PgValueRef};
use sqlx::{Decode, Encode, PgConnection, Postgres, Row, Type};
use tapeline_schemas::{Micros, Money, Timeframe, Wide};

use super::dirty::Dirty;
use super::fold::{Bar, Place, Version};
use super::holes::CHANNEL;
use super::loss::Lost;
use crate::flow::SinkError;

/// 2000-01-01T00:00:00Z, from which PostgreSQL counts, in microseconds since the Unix epoch.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// A moment as `timestamptz`: PostgreSQL keeps microseconds too, so nothing is rounded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp(pub(super) Micros);

impl Type<Postgres> for Stamp {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("timestamptz")
    }
}

impl PgHasArrayType for Stamp {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("_timestamptz")
    }
}

impl Encode<'_, Postgres> for Stamp {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let micros = self.0.0.checked_sub(POSTGRES_EPOCH).ok_or("time out of range")?;
        Encode::<Postgres>::encode_by_ref(&micros, buffer)
    }
}

impl Decode<'_, Postgres> for Stamp {
    fn decode(value: PgValueRef<'_>) -> Result<Stamp, BoxDynError> {
        let micros = <i64 as Decode<Postgres>>::decode(value)?;
        let micros = micros.checked_add(POSTGRES_EPOCH).ok_or("time out of range")?;
        Ok(Stamp(Micros(micros)))
    }
}

/// Why a window cannot be computed from what is stored.
#[derive(Debug, thiserror::Error)]
pub enum ReviseError {
    /// What it needs is not stored yet.
    #[error("{0}")]
    NotYet(String),
    /// The database cannot be asked, or refused.
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    /// What is stored does not add up to a candle: a sum beyond its digits.
    #[error("{0}")]
    Unsound(String),
}

impl From<ReviseError> for SinkError {
    /// Whatever is wrong may pass; that the store is behind is not wrong.
    fn from(error: ReviseError) -> SinkError {
        match error {
            ReviseError::NotYet(reason) => SinkError::NotYet(reason),
            other => SinkError::Retry(other.to_string()),
        }
    }
}

/// A window of one symbol.
#[derive(Debug, Clone, Copy)]
pub struct WindowOf<'w> {
    /// Venue, upper case.
    pub exchange: &'w str,
    /// `BASE-QUOTE`.
    pub symbol: &'w str,
    /// Its timeframe.
    pub frame: Timeframe,
    /// Its start.
    pub start: Micros,
}

impl WindowOf<'_> {
    fn end(&self) -> Micros {
        self.frame.end(self.start)
    }
}

/// What a window's sources add up to, and whether each of them is final. `None`: no source.
///
/// Minutes come from trades, longer windows from the stored minutes: whoever waited for a minute
/// to be stored need not wait for its trades too. A minute that is revised later makes the longer
/// windows dirty again.
pub async fn recompute(
    conn: &mut PgConnection,
    window: &WindowOf<'_>,
) -> Result<Option<(Bar, bool)>, ReviseError> {
    let parts = match window.frame {
        Timeframe::M1 => trades(conn, window).await?,
        _ => minutes(conn, window).await?,
    };
    let all_final = parts.iter().all(|(_, is_final)| *is_final);
    let sum = Bar::sum(parts.into_iter().map(|(bar, _)| bar));
    let sum = sum.map_err(|reject| ReviseError::Unsound(reject.detail))?;
    Ok(sum.map(|bar| (bar, all_final)))
}

pub(super) const TRADE: &str =
    "price::text, amount::text, time, coalesce(sequence, 0), origin, receive_time";

async fn trades(
    conn: &mut PgConnection,
    window: &WindowOf<'_>,
) -> Result<Vec<(Bar, bool)>, ReviseError> {
    let query = format!(
        "select {TRADE} from market_data_trades \
         where exchange = $1 and symbol = $2 and time >= $3 and time < $4"
    );
    let rows = sqlx::query(&query)
        .bind(window.exchange)
        .bind(window.symbol)
        .bind(Stamp(window.start))
        .bind(Stamp(window.end()))
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| trade(row).map(|bar| (bar, true))).collect()
}

/// The bar of a stored trade.
pub(super) fn trade(row: &PgRow) -> Result<Bar, ReviseError> {
    let time = row.try_get::<Stamp, _>(2)?.0;
    let place = Place { time, sequence: row.try_get(3)?, origin: row.try_get(4)? };
    let received = row.try_get::<Stamp, _>(5)?.0;
    Ok(Bar::of(money(row, 0)?, money(row, 1)?, place, received))
}

pub(super) const FIGURES: &str = "open::text, high::text, low::text, close::text, volume::text, \
                       quote_volume::text, trades_count, receive_time, time, final, revision";

async fn minutes(
    conn: &mut PgConnection,
    window: &WindowOf<'_>,
) -> Result<Vec<(Bar, bool)>, ReviseError> {
    let query = format!(
        "select {FIGURES} from market_data_ohlcv where exchange = $1 and symbol = $2 \
         and timeframe = '1m' and source = 'tapeline' and time >= $3 and time < $4"
    );
    let rows = sqlx::query(&query)
        .bind(window.exchange)
        .bind(window.symbol)
        .bind(Stamp(window.start))
        .bind(Stamp(window.end()))
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| candle(row).map(|(bar, version)| (bar, version.is_final))).collect()
}

/// The stored candle of a window, locked against the store until the transaction ends.
pub(super) async fn lock_candle(
    conn: &mut PgConnection,
    window: &WindowOf<'_>,
) -> Result<Option<(Bar, Version)>, ReviseError> {
    let query = format!(
        "select {FIGURES} from market_data_ohlcv where exchange = $1 and symbol = $2 \
         and timeframe = $3 and source = 'tapeline' and time = $4 for update"
    );
    let row = sqlx::query(&query)
        .bind(window.exchange)
        .bind(window.symbol)
        .bind(window.frame.name())
        .bind(Stamp(window.start))
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(candle).transpose()
}

pub(super) fn candle(row: &PgRow) -> Result<(Bar, Version), ReviseError> {
    let quote_volume = Wide::parse(row.try_get(5)?)
        .ok_or_else(|| ReviseError::Unsound("quote volume beyond its digits".to_owned()))?;
    let time = row.try_get::<Stamp, _>(8)?.0;
    let place = Place { time, sequence: 0, origin: 0 };
    let bar = Bar {
        open: money(row, 0)?,
        high: money(row, 1)?,
        low: money(row, 2)?,
        close: money(row, 3)?,
        volume: money(row, 4)?,
        quote_volume,
        trades_count: row.try_get(6)?,
        receive_time: row.try_get::<Stamp, _>(7)?.0,
        first: place,
        last: place,
    };
    Ok((bar, Version { is_final: row.try_get(9)?, revision: row.try_get(10)? }))
}

fn money(row: &PgRow, index: usize) -> Result<Money, ReviseError> {
    let text: &str = row.try_get(index)?;
    Money::parse(text.as_bytes()).map_err(|error| ReviseError::Unsound(format!("{text}: {error}")))
}

/// Whether a hole that nothing has filled overlaps the window; the stream's rule, in SQL.
pub(super) async fn has_hole(
    conn: &mut PgConnection,
    window: &WindowOf<'_>,
) -> Result<bool, ReviseError> {
    let query = "select exists (select from market_data_gaps where exchange = $1 and symbol = $2 \
                 and channel = $3 and state <> 'filled' and from_time < $4 \
                 and (to_time is null or to_time > $5))";
    let found = sqlx::query_scalar(query)
        .bind(window.exchange)
        .bind(window.symbol)
        .bind(CHANNEL)
        .bind(Stamp(window.end()))
        .bind(Stamp(window.start))
        .fetch_one(conn)
        .await?;
    Ok(found)
}

/// Refuses with [`ReviseError::NotYet`] until the store has passed an offset.
pub(super) async fn has_passed(
    conn: &mut PgConnection,
    pipeline: &str,
    (topic, partition): (&str, i32),
    offset: i64,
) -> Result<(), ReviseError> {
    let fence: Option<Option<i64>> = sqlx::query_scalar(
        "select next_offset from tapeline_fence where pipeline = $1 and topic = $2 and partition = $3",
    )
    .bind(pipeline)
    .bind(topic)
    .bind(partition)
    .fetch_optional(conn)
    .await?;
    if fence.flatten().is_none_or(|next| next <= offset) {
        let reason = format!("the store has not passed {topic} [{partition}] offset {offset} yet");
        return Err(ReviseError::NotYet(reason));
    }
    Ok(())
}

/// The same until the store knows the hole that a dirty record calls filled.
pub(super) async fn is_filled(conn: &mut PgConnection, dirty: &Dirty) -> Result<(), ReviseError> {
    let Some(from) = dirty.filled_from else { return Ok(()) };
    let filled: bool = sqlx::query_scalar(
        "select exists (select from market_data_gaps where exchange = $1 and symbol = $2 \
         and channel = $3 and from_time = $4 and state = 'filled')",
    )
    .bind(&dirty.exchange)
    .bind(&dirty.symbol)
    .bind(CHANNEL)
    .bind(Stamp(Micros(from)))
    .fetch_one(conn)
    .await?;
    if filled {
        return Ok(());
    }
    let Dirty { exchange, symbol, .. } = dirty;
    let reason = format!("the store does not know the gap of {exchange}:{symbol} as filled yet");
    Err(ReviseError::NotYet(reason))
}

/// Starts of the windows of a dirty range that have sources.
pub(super) async fn windows(
    conn: &mut PgConnection,
    dirty: &Dirty,
    frame: Timeframe,
) -> Result<Vec<Micros>, ReviseError> {
    let (from, to) = dirty.range();
    if frame.end(from) == to {
        return Ok(vec![from]);
    }
    let source = match frame {
        Timeframe::M1 => "market_data_trades where true",
        _ => "market_data_ohlcv where timeframe = '1m' and source = 'tapeline'",
    };
    let query = format!(
        "select distinct date_bin($1::text::interval, time, 'epoch') as start from {source} \
         and exchange = $2 and symbol = $3 and time >= $4 and time < $5 order by start"
    );
    let starts: Vec<Stamp> = sqlx::query_scalar(&query)
        .bind(format!("{} microseconds", frame.micros()))
        .bind(&dirty.exchange)
        .bind(&dirty.symbol)
        .bind(Stamp(from))
        .bind(Stamp(to))
        .fetch_all(conn)
        .await?;
    Ok(starts.into_iter().map(|Stamp(start)| start).collect())
}

/// The windows that the store's batches over lost offsets put something into.
pub(super) async fn lost_windows(
    conn: &mut PgConnection,
    pipeline: &str,
    lost: &Lost,
    frame: Timeframe,
) -> Result<Vec<(String, String, Micros)>, ReviseError> {
    // Trades name their origin; of minutes only the time tells, and more windows do no harm.
    let source = match frame {
        Timeframe::M1 => {
            "market_data_trades as source on source.origin_partition = batch.partition \
             and source.origin between batch.first_origin and batch.last_origin"
        }
        _ => {
            "market_data_ohlcv as source on source.timeframe = '1m' and source.source = 'tapeline'"
        }
    };
    let query = format!(
        "select distinct exchange, symbol, date_bin($1::text::interval, time, 'epoch') as start \
         from tapeline_ledger as batch join {source} \
         and source.time between batch.min_event_time and batch.max_event_time \
         where batch.pipeline = $2 and batch.topic = $3 and batch.partition = $4 \
         and batch.last_offset >= $5 and batch.first_offset <= $6 order by start, exchange, symbol"
    );
    let rows = sqlx::query(&query)
        .bind(format!("{} microseconds", frame.micros()))
        .bind(pipeline)
        .bind(&lost.topic)
        .bind(lost.partition)
        .bind(lost.first)
        .bind(lost.last)
        .fetch_all(conn)
        .await?;
    let window =
        |row: &PgRow| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get::<Stamp, _>(2)?.0));
    rows.iter().map(window).collect()
}
