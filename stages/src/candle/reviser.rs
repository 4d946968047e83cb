//! The reviser: computes dirty windows again from what is stored.
//!
//! Candle, revision and the message to emit are written in one transaction (an outbox), so that
//! what the log says about a candle is never more nor less than what the table holds.

use std::collections::HashMap;

use sqlx::{Connection, PgConnection, PgPool};
use tapeline_schemas::{Kind, Timeframe, encode};

use super::dirty::Dirty;
use super::fold::{Bar, Version};
use super::loss::Lost;
use super::stored::{
    ReviseError, Stamp, WindowOf, has_hole, has_passed, is_filled, lock_candle, lost_windows,
    recompute, windows,
};
use crate::failpoint;
use crate::flow::{
    In, Outcome, Output, Refusal, Reject, Resume, Sink, SinkError, Span, Stage, Start,
    TopicPartition,
};
use crate::messages::symbol_key;
use crate::store::Table;

/// The version under which `computed` is to be written; `None` where the stored candle says it
/// already. `whole`: no hole is open over the window and every part of it is final.
///
/// A final candle that is stored stays final.
pub fn revise(stored: Option<&(Bar, Version)>, computed: &Bar, whole: bool) -> Option<Version> {
    let Some((bar, version)) = stored else {
        return Some(Version { is_final: whole, revision: 1 });
    };
    let is_final = version.is_final || whole;
    if bar.same_figures(computed) && is_final == version.is_final {
        return None;
    }
    Some(Version { is_final, revision: version.revision.saturating_add(1) })
}

/// Dirty records of a batch.
#[derive(Debug, Default)]
pub struct Dirties(Vec<Task>);

/// What one of them asks for.
#[derive(Debug, Clone)]
enum Task {
    Windows(Dirty),
    Lost(Lost),
}

/// Memory a dirty record takes, roughly.
const DIRTY_BYTES: usize = 256;

impl Output for Dirties {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn byte_len(&self) -> usize {
        self.0.len() * DIRTY_BYTES
    }
}

impl Dirties {
    /// The records, without those that a later one of the same windows makes needless: a filled
    /// hole brings one for each of its trades.
    fn condensed(&self) -> Vec<Task> {
        let mut places: HashMap<Dirty, usize> = HashMap::new();
        let mut list: Vec<Task> = Vec::new();
        for task in &self.0 {
            if let Task::Windows(dirty) = task {
                let next = list.len();
                let place = *places.entry(Dirty { offset: 0, ..dirty.clone() }).or_insert(next);
                if let Some(Task::Windows(known)) = list.get_mut(place) {
                    known.offset = known.offset.max(dirty.offset);
                    continue;
                }
            }
            list.push(task.clone());
        }
        list
    }
}

/// Reads dirty records.
#[derive(Debug, Default)]
pub struct DirtyStage;

impl Stage for DirtyStage {
    type Out = Dirties;

    fn apply(&mut self, input: &In<'_>, out: &mut Dirties) -> Result<Outcome, Refusal> {
        let value = input.record.value.ok_or_else(|| Reject::new("dirty", "an empty value"))?;
        out.0.push(match Lost::read(value) {
            Some(lost) => Task::Lost(lost),
            None => Task::Windows(Dirty::read(value)?),
        });
        Ok(Outcome::Taken)
    }

    fn learn(&mut self, _: Kind, _: u32, _: Option<&str>) {}
}

/// Computes the windows of dirty records again. Doing so twice is harmless.
#[derive(Debug)]
pub struct Reviser {
    pool: PgPool,
    pipeline: String,
}

impl Reviser {
    /// A reviser beside the store of `pipeline`, whose fences it waits for.
    pub fn new(pool: PgPool, pipeline: impl Into<String>) -> Reviser {
        Reviser { pool, pipeline: pipeline.into() }
    }

    /// Computes the windows of one dirty record again; says how many candles it wrote.
    pub async fn revise(&self, dirty: &Dirty) -> Result<usize, ReviseError> {
        let frame = dirty.frame().map_err(|reject| ReviseError::Unsound(reject.detail))?;
        let mut conn = self.pool.acquire().await?;
        has_passed(&mut conn, &self.pipeline, (&dirty.topic, dirty.partition), dirty.offset)
            .await?;
        is_filled(&mut conn, dirty).await?;
        let mut written = 0;
        for start in windows(&mut conn, dirty, frame).await? {
            let (exchange, symbol) = (&dirty.exchange, &dirty.symbol);
            let window = WindowOf { exchange, symbol, frame, start };
            written += usize::from(revise_window(&mut conn, &self.pipeline, &window).await?);
        }
        Ok(written)
    }

    /// Computes every window again that a lost record may belong to, of those that the store took.
    async fn revise_lost(&self, lost: &Lost) -> Result<usize, ReviseError> {
        let frames = lost.frames().map_err(|reject| ReviseError::Unsound(reject.detail))?;
        let mut conn = self.pool.acquire().await?;
        has_passed(&mut conn, &self.pipeline, (&lost.topic, lost.partition), lost.last).await?;
        let mut written = 0;
        for frame in frames {
            for (exchange, symbol, start) in
                lost_windows(&mut conn, &self.pipeline, lost, frame).await?
            {
                let window = WindowOf { exchange: &exchange, symbol: &symbol, frame, start };
                written += usize::from(revise_window(&mut conn, &self.pipeline, &window).await?);
            }
        }
        Ok(written)
    }
}

impl Task {
    fn timeframes(&self) -> String {
        match self {
            Task::Windows(dirty) => dirty.timeframe.clone(),
            Task::Lost(lost) => lost.timeframes.join(","),
        }
    }
}

/// Computes one window again, in one transaction; says whether its candle changed. The message
/// about it waits in the outbox then.
pub async fn revise_window(
    conn: &mut PgConnection,
    pipeline: &str,
    window: &WindowOf<'_>,
) -> Result<bool, ReviseError> {
    failpoint::hit("candles-reviser.before_transaction");
    let mut work = conn.begin().await?;
    let written = revise_locked(&mut work, pipeline, window).await;
    match &written {
        // At once: a dropped transaction would hold its locks until the connection's next query.
        Ok(false) | Err(_) => work.rollback().await?,
        Ok(true) => {
            failpoint::hit("candles-reviser.before_commit");
            work.commit().await?;
        }
    }
    failpoint::hit("candles-reviser.after_transaction");
    written
}

/// Whether lifecycle has taken, and nobody restored, what the window is computed from. What came
/// after that is not all of it (invariant 7).
async fn is_removed(work: &mut PgConnection, window: &WindowOf<'_>) -> Result<bool, ReviseError> {
    let table = match window.frame {
        Timeframe::M1 => Table::Trades,
        _ => Table::Ohlcv,
    };
    let day = Timeframe::D1.start(window.start).0 / Timeframe::D1.micros();
    let sql = "select exists (select from tapeline_removals where table_name = $1 and reason = 'lifecycle'
            and day = date '1970-01-01' + $2::int)
        and not exists (select from tapeline_restores where table_name = $1 and day = date '1970-01-01' + $2::int)";
    Ok(sqlx::query_scalar(sql).bind(table.name()).bind(day).fetch_one(work).await?)
}

async fn revise_locked(
    work: &mut PgConnection,
    pipeline: &str,
    window: &WindowOf<'_>,
) -> Result<bool, ReviseError> {
    // One reviser at a time for a symbol, also while a partition changes hands.
    sqlx::query("select pg_advisory_xact_lock(hashtextextended($1, 0))")
        .bind(format!("tapeline candle {}:{}", window.exchange, window.symbol))
        .execute(&mut *work)
        .await?;
    if is_removed(work, window).await? {
        let (exchange, symbol, start) = (window.exchange, window.symbol, window.start);
        tracing::warn!(exchange, symbol, %start, "its rows are in the archive: the candle stays as it is");
        return Ok(false);
    }
    let Some((bar, all_final)) = recompute(work, window).await? else {
        return Ok(false);
    };
    let whole = all_final && !has_hole(work, window).await?;
    let stored = lock_candle(work, window).await?;
    let Some(version) = revise(stored.as_ref(), &bar, whole) else { return Ok(false) };
    if write_candle(work, window, &bar, version, stored.is_some()).await? == 0 {
        // The store wrote the row in this moment; the next attempt sees it.
        return Err(ReviseError::NotYet("the candle is being written".to_owned()));
    }
    if stored.is_none() {
        count_addition(work, pipeline, window).await?;
    }
    write_outbox(work, window, &bar, version).await?;
    Ok(true)
}

async fn write_candle(
    conn: &mut PgConnection,
    window: &WindowOf<'_>,
    bar: &Bar,
    version: Version,
    exists: bool,
) -> Result<u64, ReviseError> {
    let query = if exists {
        "update market_data_ohlcv set open = $6::numeric, high = $7::numeric, low = $8::numeric, \
         close = $9::numeric, volume = $10::numeric, quote_volume = $11::numeric, \
         trades_count = $12, final = $13, revision = $14, close_time = $5, receive_time = $15 \
         where exchange = $1 and symbol = $2 and timeframe = $3 and source = 'tapeline' and time = $4"
    } else {
        "insert into market_data_ohlcv (exchange, symbol, timeframe, source, time, close_time, \
         open, high, low, close, volume, quote_volume, trades_count, final, revision, receive_time) \
         values ($1, $2, $3, 'tapeline', $4, $5, $6::numeric, $7::numeric, $8::numeric, \
         $9::numeric, $10::numeric, $11::numeric, $12, $13, $14, $15) on conflict do nothing"
    };
    let money = [bar.open, bar.high, bar.low, bar.close, bar.volume].map(|m| m.to_string());
    let mut query = sqlx::query(query)
        .bind(window.exchange)
        .bind(window.symbol)
        .bind(window.frame.name())
        .bind(Stamp(window.start))
        .bind(Stamp(window.frame.end(window.start)));
    for value in money {
        query = query.bind(value);
    }
    let done = query
        .bind(bar.quote_volume.to_string())
        .bind(bar.trades_count)
        .bind(version.is_final)
        .bind(version.revision)
        .bind(Stamp(bar.receive_time))
        .execute(conn)
        .await?;
    Ok(done.rows_affected())
}

/// A row that no batch of the store has in its ledger.
async fn count_addition(
    conn: &mut PgConnection,
    pipeline: &str,
    window: &WindowOf<'_>,
) -> Result<(), ReviseError> {
    sqlx::query(
        "insert into tapeline_additions as a (pipeline, table_name, day, rows) \
         values ($1, 'market_data_ohlcv', ($2 at time zone 'UTC')::date, 1) \
         on conflict (pipeline, table_name, day) do update set rows = a.rows + 1",
    )
    .bind(pipeline)
    .bind(Stamp(window.start))
    .execute(conn)
    .await?;
    Ok(())
}

async fn write_outbox(
    conn: &mut PgConnection,
    window: &WindowOf<'_>,
    bar: &Bar,
    version: Version,
) -> Result<(), ReviseError> {
    let WindowOf { exchange, symbol, frame, start } = *window;
    let value = encode(&bar.to_candle(exchange, symbol, frame, start, version));
    sqlx::query(
        "insert into tapeline_candle_outbox \
         (exchange, symbol, timeframe, open_time, revision, key, value) \
         values ($1, $2, $3, $4, $5, convert_from($6, 'UTF8'), $7)",
    )
    .bind(exchange)
    .bind(symbol)
    .bind(frame.name())
    .bind(Stamp(start))
    .bind(version.revision)
    .bind(symbol_key(exchange, symbol))
    .bind(value)
    .execute(conn)
    .await?;
    Ok(())
}

impl Sink<Dirties> for Reviser {
    /// Does what can be done and asks for the rest again: doing it twice is harmless.
    async fn write(&mut self, out: &Dirties, _: &mut [Span]) -> Result<(), SinkError> {
        let mut waits = None;
        for task in out.condensed() {
            let done = match &task {
                Task::Windows(dirty) => self.revise(dirty).await,
                Task::Lost(lost) => self.revise_lost(lost).await,
            };
            match done {
                Ok(written) => {
                    metrics::counter!("tapeline_reviser_candles_total", "timeframe" => task.timeframes())
                        .increment(written as u64);
                }
                // What is wrong is said rather than what only waits.
                Err(error @ ReviseError::NotYet(_)) => {
                    waits.get_or_insert(error);
                }
                Err(error @ ReviseError::Database(_)) => waits = Some(error),
                Err(ReviseError::Unsound(detail)) => {
                    metrics::counter!("tapeline_reviser_failures_total").increment(1);
                    tracing::error!(
                        ?task,
                        detail,
                        "the stored trades do not add up to a candle; it stays as it is"
                    );
                }
            }
        }
        waits.map_or(Ok(()), |error| Err(error.into()))
    }

    fn remove_rows(&self, out: &mut Dirties, rows: &[usize]) {
        let mut row = 0..;
        out.0.retain(|_| row.next().is_some_and(|row| !rows.contains(&row)));
    }

    async fn assign(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Resume>, SinkError> {
        let resume = |&at| Resume { at, start: Start::Committed, held_origin: None };
        Ok(partitions.iter().map(resume).collect())
    }

    async fn revoke(&mut self, _: &[TopicPartition]) {}
}
