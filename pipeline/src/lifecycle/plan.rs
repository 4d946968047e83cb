//! What is due.

use anyhow::Result;
use serde::Serialize;
use sqlx::PgConnection;

use super::compact::loose_indexes;
use crate::archive::archived_kinds;
use crate::config::{LifecycleConfig, Periods};

/// What to do with a range of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Build its chunks' indexes anew: as rows came, their pages were left half empty.
    Compact,
    /// Compress its chunks (Community edition).
    Compress,
    /// Archive it, and keep it.
    Archive,
    /// Archive it where it is not, then drop it.
    Drop,
}

/// A range of a hypertable that something is due for: that of one or more chunks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Kind of events.
    pub kind: String,
    /// Table.
    pub table: String,
    /// What is due.
    pub action: Action,
    /// Start of the range, microseconds since the epoch.
    pub from: i64,
    /// Its end, exclusive.
    pub to: i64,
    /// Chunks of the range that this is due for.
    pub chunks: Vec<String>,
}

/// Everything due as of the database's clock, oldest first.
pub async fn plan(database: &mut PgConnection, config: &LifecycleConfig) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let community = is_community(database).await?;
    for (kind, table) in archived_kinds() {
        let periods = config.periods(kind.name());
        steps.extend(plan_table(database, kind.name(), table, periods, community).await?);
    }
    Ok(steps)
}

async fn is_community(database: &mut PgConnection) -> Result<bool> {
    let license: Option<String> =
        sqlx::query_scalar("select current_setting('timescaledb.license', true)")
            .fetch_one(&mut *database)
            .await?;
    Ok(license.as_deref() == Some("timescale"))
}

/// A range of time that one or more chunks of a table cover, and what it is old enough for.
#[derive(sqlx::FromRow)]
struct Range {
    from_micros: i64,
    to_micros: i64,
    chunks: Vec<String>,
    /// Those that are not compressed.
    plain: Vec<String>,
    /// Of these, those with an index to build anew.
    loose: Vec<String>,
    drop_due: bool,
    archive_due: bool,
    compress_due: bool,
    compact_due: bool,
}

async fn plan_table(
    database: &mut PgConnection,
    kind: &str,
    table: &str,
    periods: &Periods,
    community: bool,
) -> Result<Vec<Step>> {
    let due = |days: u32| format!("ranges.to_time <= now() - interval '{days} days'");
    let statement = format!(
        "with chunks as (
             select format('%I.%I', chunk_schema, chunk_name) as name, range_start, range_end, is_compressed
             from timescaledb_information.chunks
             where hypertable_schema = current_schema() and hypertable_name = $1),
         ranges as (
             select (extract(epoch from range_start) * 1000000)::bigint as from_micros,
                 (extract(epoch from range_end) * 1000000)::bigint as to_micros, range_end as to_time,
                 array_agg(name order by name) as chunks,
                 array_agg(name order by name) filter (where not is_compressed) as plain,
                 array_agg(name order by name) filter (where not is_compressed and exists (select from {loose})) as loose
             from chunks
             group by range_start, range_end)
         select from_micros, to_micros, chunks, coalesce(plain, '{{}}') as plain, coalesce(loose, '{{}}') as loose,
             {drop} as drop_due, {archive} as archive_due, {compress} as compress_due, {compact} as compact_due
         from ranges order by from_micros",
        drop = due(periods.drop_after_days),
        archive = due(periods.archive_after_days),
        compress = due(periods.compress_after_days),
        compact = due(periods.compact_after_days),
        loose = loose_indexes("name"),
    );
    let ranges: Vec<Range> =
        sqlx::query_as(&statement).bind(table).fetch_all(&mut *database).await?;
    let mut steps = Vec::new();
    for range in ranges {
        let (from, to) = (range.from_micros, range.to_micros);
        let (action, chunks) = match () {
            () if range.drop_due => (Action::Drop, range.chunks),
            () if range.archive_due => (Action::Archive, range.chunks),
            () if range.compress_due && community && !range.plain.is_empty() => {
                (Action::Compress, range.plain)
            }
            () if range.compact_due && !range.loose.is_empty() => (Action::Compact, range.loose),
            () => continue,
        };
        steps.push(Step {
            kind: kind.to_owned(),
            table: table.to_owned(),
            action,
            from,
            to,
            chunks,
        });
    }
    Ok(steps)
}
