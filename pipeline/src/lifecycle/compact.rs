//! Building the indexes of closed chunks anew.
//!
//! Each symbol's rows come in the order of time, between those of the others. So pages of an index by symbol and time
//! are split in the middle and never filled again: it is nearly twice as large as it has to be, and pages that follow
//! each other in it do not on the disk.

use anyhow::{Context as _, Result};
use sqlx::{Executor, PgConnection};
use tapeline_stages::failpoint;

/// The comment of an index that was built anew.
const MARK: &str = "built anew by lifecycle";
/// In a smaller one there is nothing to be won.
const LEAST_BYTES: u64 = 1 << 20;
/// How long it waits for transactions that are older, or that change the table, before it gives way.
const PATIENCE: &str = "60s";
/// SQLSTATE `lock_not_available`.
const GAVE_WAY: &str = "55P03";

/// Indexes to build anew of the chunk that an SQL expression names, as what follows `from`.
pub(super) fn loose_indexes(chunk: &str) -> String {
    format!(
        "pg_index i where i.indrelid = {chunk}::regclass and (not i.indisvalid
             or pg_relation_size(i.indexrelid) >= {LEAST_BYTES}
             and obj_description(i.indexrelid, 'pg_class') is distinct from '{MARK}')"
    )
}

/// Builds the chunk's indexes anew and adds how many to `compacted`. Nobody who reads or writes waits for it. False where
/// others kept it waiting: the rest is left to the next run, and so is what was begun.
pub(super) async fn compact(
    database: &mut PgConnection,
    chunk: &str,
    compacted: &mut u64,
) -> Result<bool> {
    database.execute(format!("set lock_timeout = '{PATIENCE}'").as_str()).await?;
    let done = compact_all(database, chunk, compacted).await;
    database.execute("reset lock_timeout").await?;
    match done {
        Err(error) if gave_way(&error) => {
            tracing::warn!(chunk, %error, "others keep it busy: its indexes are built anew another time");
            Ok(false)
        }
        done => {
            done.with_context(|| format!("cannot build the indexes of {chunk} anew"))?;
            Ok(true)
        }
    }
}

async fn compact_all(
    database: &mut PgConnection,
    chunk: &str,
    compacted: &mut u64,
) -> sqlx::Result<()> {
    drop_unfinished(database, chunk).await?;
    let loose = format!("select i.indexrelid::regclass::text from {}", loose_indexes("$1::text"));
    let indexes: Vec<String> =
        sqlx::query_scalar(&loose).bind(chunk).fetch_all(&mut *database).await?;
    for index in &indexes {
        database.execute(format!("reindex index concurrently {index}").as_str()).await?;
        failpoint::hit("lifecycle.before_mark");
        database.execute(format!("comment on index {index} is '{MARK}'").as_str()).await?;
        *compacted += 1;
    }
    Ok(())
}

fn gave_way(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == GAVE_WAY)
}

/// Drops what a build that was ended left behind.
/// <https://www.postgresql.org/docs/15/sql-reindex.html>, "Rebuilding Indexes Concurrently".
async fn drop_unfinished(database: &mut PgConnection, chunk: &str) -> sqlx::Result<()> {
    let left: Vec<String> = sqlx::query_scalar(
        r"select i.indexrelid::regclass::text from pg_index i join pg_class c on c.oid = i.indexrelid
          where i.indrelid = $1::text::regclass and not i.indisvalid and c.relname ~ '_cc(new|old)\d*$'",
    )
    .bind(chunk)
    .fetch_all(&mut *database)
    .await?;
    for index in left {
        database.execute(format!("drop index concurrently {index}").as_str()).await?;
    }
    Ok(())
}
