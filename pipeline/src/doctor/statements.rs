//! Slow statements, by pg_stat_statements.

use anyhow::Result;
use serde_json::json;

use super::Patient;
use super::report::{Severity, Target};

/// Statements that are named at most, and how much of each is shown.
const SHOWN: usize = 5;
const SHOWN_CHARACTERS: usize = 140;

pub(super) async fn examine(patient: &mut Patient<'_>) -> Result<()> {
    let there: bool = sqlx::query_scalar("select to_regclass('pg_stat_statements') is not null")
        .fetch_one(&mut patient.database)
        .await?;
    if !there {
        patient.report.unseen("slow statements", "the extension pg_stat_statements is not there");
        return Ok(());
    }
    let rows: Vec<(Option<String>, i64, f64, f64)> = sqlx::query_as(
        r"select query, calls, mean_exec_time, total_exec_time from pg_stat_statements
          where dbid = (select oid from pg_database where datname = current_database())
              and calls >= $1 and mean_exec_time > $2
              and (query ~* '^\s*(select|with|insert|update|delete)' or query = '<insufficient privilege>')
          order by total_exec_time desc limit $3",
    )
    .bind(patient.limits.slow_calls)
    .bind(patient.limits.slow_ms)
    .bind(SHOWN as i64)
    .fetch_all(&mut patient.database)
    .await?;
    if rows.iter().any(|(query, ..)| query.as_deref() == Some("<insufficient privilege>")) {
        patient.report.unseen("text of slow statements", "this role is not in pg_read_all_stats");
    }
    if rows.is_empty() {
        let message =
            format!("no statement takes more than {} ms in the mean", patient.limits.slow_ms);
        patient.report.find("slow statements", Severity::Ok, message);
    }
    for (query, calls, mean, total) in rows {
        let text = query.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        let shown: String = text.chars().take(SHOWN_CHARACTERS).collect();
        let message = format!("{mean:.0} ms in the mean of {calls} calls: {shown}");
        let finding = patient.report.find("slow statements", Severity::Warning, message);
        finding.with_figures(
            json!({"query": text, "calls": calls, "mean_ms": mean, "total_ms": total}),
        );
        finding.advise(
            Target::Command,
            "explain (analyze, buffers) it: does it name a time range and a symbol?",
            false,
        );
    }
    Ok(())
}
