//! What is due.

use anyhow::Result;
use serde::Serialize;
use sqlx::PgConnection;

use super::compact::loose_indexes;
use crate::archive::archived_kinds;
use crate::config::{LifecycleConfig, Periods};
use crate::migrate::is_community;

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

/// Everything due as of the database's clock, kind by kind, oldest first.
pub async fn plan(database: &mut PgConnection, config: &LifecycleConfig) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let community = is_community(database).await?;
    let restored = restored("range_start", "range_end", config);
    for (kind, table) in archived_kinds() {
        let periods = config.periods(kind.name());
        for range in ranges(database, table, periods, &restored).await? {
            let (from, to) = (range.from_micros, range.to_micros);
            steps.extend(range.due(community).into_iter().map(|(action, chunks)| Step {
                kind: kind.name().to_owned(),
                table: table.to_owned(),
                action,
                from,
                to,
                chunks,
            }));
        }
    }
    Ok(steps)
}

/// Whether days between two moments of the table `$1` came back from the archive not long ago, in SQL.
pub(super) fn restored(from: &str, to: &str, config: &LifecycleConfig) -> String {
    format!(
        "exists (select from tapeline_restores where table_name = $1
             and day >= (({from}) at time zone 'UTC')::date
             and day <= (({to}) at time zone 'UTC' - interval '1 microsecond')::date
             and restored_at > now() - interval '{} days')",
        config.keep_restored_days
    )
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

impl Range {
    /// What to do with it, in this order, and with which chunks.
    fn due(self, community: bool) -> Vec<(Action, Vec<String>)> {
        if self.drop_due {
            return vec![(Action::Drop, self.chunks)];
        }
        let mut due = Vec::new();
        if self.compress_due && community && !self.plain.is_empty() {
            due.push((Action::Compress, self.plain));
        } else if self.compact_due && !self.loose.is_empty() {
            due.push((Action::Compact, self.loose));
        }
        if self.archive_due {
            due.push((Action::Archive, self.chunks));
        }
        due
    }
}

/// The ranges of a table, oldest first; what was restored not long ago (`restored`) is left in the table as it is.
async fn ranges(
    database: &mut PgConnection,
    table: &str,
    periods: &Periods,
    restored: &str,
) -> Result<Vec<Range>> {
    // only some tables are (`sql/community`)
    let compressible = "exists (select from timescaledb_information.hypertables
        where hypertable_schema = current_schema() and hypertable_name = $1 and compression_enabled)";
    let due = |days: u32| format!("ranges.to_time <= now() - interval '{days} days'");
    let statement = format!(
        "with chunks as (
             select format('%I.%I', chunk_schema, chunk_name) as name, range_start, range_end, is_compressed
             from timescaledb_information.chunks
             where hypertable_schema = current_schema() and hypertable_name = $1),
         ranges as (
             select (extract(epoch from range_start) * 1000000)::bigint as from_micros,
                 (extract(epoch from range_end) * 1000000)::bigint as to_micros, range_end as to_time,
                 {restored} as restored,
                 array_agg(name order by name) as chunks,
                 array_agg(name order by name) filter (where not is_compressed) as plain,
                 array_agg(name order by name) filter (where not is_compressed and exists (select from {loose})) as loose
             from chunks
             group by range_start, range_end)
         select from_micros, to_micros, chunks, coalesce(plain, '{{}}') as plain, coalesce(loose, '{{}}') as loose,
             {drop} and not restored as drop_due, {archive} and not restored as archive_due,
             {compress} and {compressible} as compress_due, {compact} as compact_due
         from ranges order by from_micros",
        drop = due(periods.drop_after_days),
        archive = due(periods.archive_after_days),
        compress = due(periods.compress_after_days),
        compact = due(periods.compact_after_days),
        loose = loose_indexes("name"),
    );
    Ok(sqlx::query_as(&statement).bind(table).fetch_all(database).await?)
}
