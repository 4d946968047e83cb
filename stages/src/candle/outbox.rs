//! Emits the revised candles that wait in the outbox.

use std::future::Future;

use sqlx::{Connection, PgConnection};

/// Rows that are published in one go (invariant 8).
const ROWS: i64 = 500;

/// A revised candle on its way to the candle topic. Its partition follows from its key, as
/// everywhere.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct Outgoing {
    /// Place in the order of emitting.
    pub id: i64,
    /// `VENUE:SYMBOL`.
    pub key: String,
    /// The candle in Avro, without wire header.
    pub value: Vec<u8>,
}

/// Writes to the candle topic.
pub trait Publish: Send {
    /// Publishes in order; `Ok` once all of them are delivered. Publishing the same again is
    /// harmless: who reads candles takes higher versions only.
    fn publish(&mut self, candles: &[Outgoing]) -> impl Future<Output = Result<(), String>> + Send;
}

/// Why the outbox was not emptied.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The database cannot be asked.
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    /// Kafka did not take the candles; they stay in the outbox.
    #[error("{0}")]
    Publish(String),
}

/// Publishes the oldest rows, then deletes them; says how many. None also where another publisher
/// is at work: one at a time, so that candles leave in the order in which they were written.
pub async fn publish_outbox<P: Publish>(
    conn: &mut PgConnection,
    publisher: &mut P,
) -> Result<usize, OutboxError> {
    let mut work = conn.begin().await?;
    let published = publish_oldest(&mut work, publisher).await;
    match &published {
        // At once: a dropped transaction would hold the lock until the connection's next query.
        Ok(0) | Err(_) => work.rollback().await?,
        Ok(_) => work.commit().await?,
    }
    published
}

async fn publish_oldest<P: Publish>(
    work: &mut PgConnection,
    publisher: &mut P,
) -> Result<usize, OutboxError> {
    let free: bool = sqlx::query_scalar(
        "select pg_try_advisory_xact_lock('tapeline_candle_outbox'::regclass::bigint)",
    )
    .fetch_one(&mut *work)
    .await?;
    if !free {
        return Ok(0);
    }
    let candles: Vec<Outgoing> =
        sqlx::query_as("select id, key, value from tapeline_candle_outbox order by id limit $1")
            .bind(ROWS)
            .fetch_all(&mut *work)
            .await?;
    if candles.is_empty() {
        return Ok(0);
    }
    publisher.publish(&candles).await.map_err(OutboxError::Publish)?;
    // Ids are given out before commits: one below the last may still appear, so no range here.
    let ids: Vec<i64> = candles.iter().map(|candle| candle.id).collect();
    sqlx::query("delete from tapeline_candle_outbox where id = any($1)")
        .bind(&ids)
        .execute(work)
        .await?;
    Ok(candles.len())
}
