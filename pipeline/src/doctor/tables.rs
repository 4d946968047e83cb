//! Chunks, sizes, compression, indexes, dead rows; what the lifecycle should have done.

use anyhow::Result;
use serde_json::json;

use super::Patient;
use super::report::{Severity, Target, size};
use crate::lifecycle::{self, Action};

const DAY_MICROS: i64 = 86_400_000_000;
/// Share of dead rows that vacuum should have taken.
const DEAD: f64 = 0.2;
/// Age of a database's oldest transaction at which its numbers get scarce, and at which they run out.
const OLD_TRANSACTIONS: (i64, i64) = (500_000_000, 1_500_000_000);

pub(super) async fn examine(patient: &mut Patient<'_>) -> Result<()> {
    chunks(patient).await?;
    if patient.community {
        compression(patient).await?;
    }
    idle_indexes(patient).await?;
    dead_rows(patient).await?;
    transactions(patient).await?;
    overdue(patient).await
}

/// Every hypertable, with the sizes of its chunks.
async fn chunks(patient: &mut Patient<'_>) -> Result<()> {
    let rows: Vec<(String, i64, i64, i64, i64, i64)> = sqlx::query_as(
        "select h.hypertable_name::text, count(c.chunk_name),
             count(c.chunk_name) filter (where c.is_compressed),
             coalesce(sum(pg_table_size(c.relation)), 0)::bigint,
             coalesce(sum(pg_indexes_size(c.relation)), 0)::bigint,
             coalesce(max(pg_total_relation_size(c.relation)), 0)
         from timescaledb_information.hypertables h
         left join lateral (
             select chunk_name, is_compressed, format('%I.%I', chunk_schema, chunk_name)::regclass as relation
             from timescaledb_information.chunks c
             where c.hypertable_schema = h.hypertable_schema and c.hypertable_name = h.hypertable_name) c on true
         where h.hypertable_schema = current_schema() group by 1 order by 1",
    )
    .fetch_all(&mut patient.database)
    .await?;
    let machine = patient.scope.machine.or_else(|| super::memory::of_database(patient.config));
    for (table, chunks, compressed, bytes, index_bytes, largest) in rows {
        let too_many = chunks > patient.limits.chunks;
        // the newest chunks' indexes should stay in memory: a quarter of it is TimescaleDB's rule
        let too_large = machine.is_some_and(|machine| largest > machine.memory / 4);
        let severity = if too_many || too_large { Severity::Warning } else { Severity::Ok };
        let compressed_text =
            if patient.community { format!(", {compressed} compressed") } else { String::new() };
        let message = format!(
            "{table}: {chunks} chunks{compressed_text}, rows {}, indexes {}, largest chunk {}",
            size(bytes),
            size(index_bytes),
            size(largest)
        );
        let finding = patient.report.find("chunks", severity, message);
        finding.with_figures(json!({
            "table": table, "chunks": chunks, "compressed": compressed,
            "bytes": bytes, "index_bytes": index_bytes, "largest_chunk_bytes": largest,
        }));
        if too_many || too_large {
            let (change, days) = if too_many { ("longer", 7) } else { ("shorter", 1) };
            finding.advise(
                Target::Postgresql,
                format!("select set_chunk_time_interval('{table}', interval '{days} days'); -- {change} ones from now on"),
                false,
            );
        }
    }
    Ok(())
}

async fn compression(patient: &mut Patient<'_>) -> Result<()> {
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "select h.hypertable_name::text, s.before_compression_total_bytes::bigint, s.after_compression_total_bytes::bigint
         from timescaledb_information.hypertables h
         cross join lateral hypertable_compression_stats(format('%I.%I', h.hypertable_schema, h.hypertable_name)::regclass) s
         where h.compression_enabled and h.hypertable_schema = current_schema()
             and s.after_compression_total_bytes > 0 order by 1",
    )
    .fetch_all(&mut patient.database)
    .await?;
    for (table, before, after) in rows {
        let ratio = before as f64 / after as f64;
        let severity =
            if ratio < patient.limits.compression { Severity::Warning } else { Severity::Ok };
        let message = format!("{table}: {ratio:.1} times, {} became {}", size(before), size(after));
        let figures = json!({"table": table, "ratio": ratio, "before": before, "after": after});
        patient.report.find("compression", severity, message).with_figures(figures);
    }
    Ok(())
}

/// Indexes that cost every write and that nobody reads. Unique ones do their work without being read.
async fn idle_indexes(patient: &mut Patient<'_>) -> Result<()> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "select ht.table_name::text, ci.hypertable_index_name::text, sum(pg_relation_size(s.indexrelid))::bigint
         from pg_stat_all_indexes s
         join pg_index i using (indexrelid)
         join _timescaledb_catalog.chunk c on c.schema_name = s.schemaname and c.table_name = s.relname
         join _timescaledb_catalog.chunk_index ci on ci.chunk_id = c.id and ci.index_name = s.indexrelname
         join _timescaledb_catalog.hypertable ht on ht.id = c.hypertable_id
         where not i.indisunique
         group by 1, 2 having sum(s.idx_scan) = 0 and sum(pg_relation_size(s.indexrelid)) >= $1
         order by 3 desc",
    )
    .bind(patient.limits.idle_index_bytes)
    .fetch_all(&mut patient.database)
    .await?;
    let since: Option<String> = sqlx::query_scalar(
        "select coalesce(stats_reset, pg_postmaster_start_time())::date::text
         from pg_stat_database where datname = current_database()",
    )
    .fetch_one(&mut patient.database)
    .await?;
    if rows.is_empty() {
        patient.report.find("index use", Severity::Ok, "no large index lies idle".to_owned());
    }
    for (table, index, bytes) in rows {
        let message = format!(
            "{index} on {table} takes {} and was not read once since {}",
            size(bytes),
            since.as_deref().unwrap_or("the start")
        );
        let finding = patient.report.find("index use", Severity::Advice, message);
        finding.with_figures(json!({"table": table, "index": index, "bytes": bytes}));
        finding.advise(
            Target::Command,
            format!("drop index {index}; -- if that is long enough; `tapeline migrate check` will name it"),
            false,
        );
    }
    Ok(())
}

async fn dead_rows(patient: &mut Patient<'_>) -> Result<()> {
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "select format('%I.%I', schemaname, relname), n_live_tup, n_dead_tup from pg_stat_user_tables
         where n_dead_tup > $1 and n_dead_tup > $2 * (n_live_tup + n_dead_tup) order by n_dead_tup desc limit 5",
    )
    .bind(patient.limits.dead_rows)
    .bind(DEAD)
    .fetch_all(&mut patient.database)
    .await?;
    for (table, live, dead) in rows {
        let message = format!("{table}: {dead} dead rows beside {live}");
        let finding = patient.report.find("dead rows", Severity::Warning, message);
        finding.advise(Target::Postgresql, format!("vacuum (analyze) {table};"), false);
    }
    Ok(())
}

async fn transactions(patient: &mut Patient<'_>) -> Result<()> {
    let age: i64 = sqlx::query_scalar(
        "select age(datfrozenxid)::bigint from pg_database where datname = current_database()",
    )
    .fetch_one(&mut patient.database)
    .await?;
    let severity = match age {
        age if age > OLD_TRANSACTIONS.1 => Severity::Critical,
        age if age > OLD_TRANSACTIONS.0 => Severity::Warning,
        _ => Severity::Ok,
    };
    let message = format!("the oldest is {age} transactions old; at 2 billion writing stops");
    let finding = patient.report.find("transaction numbers", severity, message);
    if severity > Severity::Ok {
        finding.advise(Target::Postgresql, "vacuum freeze;", false);
    }
    Ok(())
}

/// What `tapeline lifecycle` should have done by now.
async fn overdue(patient: &mut Patient<'_>) -> Result<()> {
    let steps = lifecycle::plan(&mut patient.database, &patient.config.lifecycle).await?;
    let now: i64 = sqlx::query_scalar("select (extract(epoch from now()) * 1000000)::bigint")
        .fetch_one(&mut patient.database)
        .await?;
    let mut found = false;
    for action in [Action::Compact, Action::Compress, Action::Drop] {
        let late = steps.iter().filter(|step| step.action == action).filter_map(|step| {
            let periods = patient.config.lifecycle.periods(&step.kind);
            let days = match action {
                Action::Compact => periods.compact_after_days,
                Action::Compress => periods.compress_after_days,
                _ => periods.drop_after_days,
            };
            let waiting = (now - step.to) / DAY_MICROS - i64::from(days);
            (waiting >= patient.limits.lifecycle_days).then_some((step, waiting))
        });
        let late: Vec<_> = late.collect();
        let Some(longest) = late.iter().map(|(_, waiting)| *waiting).max() else { continue };
        found = true;
        let chunks: usize = late.iter().map(|(step, _)| step.chunks.len()).sum();
        let (severity, what) = match action {
            Action::Compact => (Severity::Advice, "compacted"),
            Action::Compress => (Severity::Warning, "compressed"),
            _ => (Severity::Warning, "archived and dropped"),
        };
        let message = format!("{chunks} chunks should have been {what}, for up to {longest} days");
        let finding = patient.report.find("archive lag", severity, message);
        finding.with_figures(json!({"action": action, "chunks": chunks, "days": longest}));
        if patient.config.archive.url.is_none() && action == Action::Drop {
            finding.advise(
                Target::Command,
                "set archive.url: nothing is dropped without an archive",
                false,
            );
        }
        finding.advise(Target::Command, "tapeline lifecycle run", false);
    }
    if !found {
        patient.report.find("archive lag", Severity::Ok, "nothing is overdue".to_owned());
    }
    Ok(())
}
