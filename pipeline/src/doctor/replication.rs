//! Replicas, slots, and the archive of the write-ahead log.

use anyhow::Result;
use serde_json::json;

use super::Patient;
use super::report::{Severity, Target, size};

/// Log that a slot nobody reads may keep.
const KEPT_BYTES: i64 = 1 << 30;

pub(super) async fn examine(patient: &mut Patient<'_>) -> Result<()> {
    let replica: bool =
        sqlx::query_scalar("select pg_is_in_recovery()").fetch_one(&mut patient.database).await?;
    if replica {
        return behind(patient).await;
    }
    replicas(patient).await?;
    slots(patient).await?;
    archiver(patient).await
}

/// This is a replica: how old is what it shows?
async fn behind(patient: &mut Patient<'_>) -> Result<()> {
    let seconds: Option<f64> = sqlx::query_scalar(
        "select case when pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() then 0
             else extract(epoch from now() - pg_last_xact_replay_timestamp()) end::float8",
    )
    .fetch_one(&mut patient.database)
    .await?;
    report_lag(patient, "this replica", seconds);
    Ok(())
}

async fn replicas(patient: &mut Patient<'_>) -> Result<()> {
    let rows: Vec<(String, Option<String>, Option<f64>)> = sqlx::query_as(
        "select coalesce(nullif(application_name, ''), pid::text), state, extract(epoch from replay_lag)::float8
         from pg_stat_replication order by 1",
    )
    .fetch_all(&mut patient.database)
    .await?;
    if rows.is_empty() {
        patient.report.find("replication", Severity::Ok, "there are no replicas".to_owned());
    }
    for (name, state, seconds) in rows {
        if state.is_none() {
            patient.report.unseen("replication lag", "this role is not in pg_read_all_stats");
            return Ok(());
        }
        report_lag(patient, &name, Some(seconds.unwrap_or(0.0)));
    }
    Ok(())
}

fn report_lag(patient: &mut Patient<'_>, name: &str, seconds: Option<f64>) {
    let Some(seconds) = seconds else {
        patient.report.unseen("replication lag", "nothing was replayed yet");
        return;
    };
    let late = seconds > patient.limits.replication_seconds;
    let severity = if late { Severity::Warning } else { Severity::Ok };
    let message = format!("{name} is {seconds:.1} s behind");
    let figures = json!({"replica": name, "seconds": seconds});
    patient.report.find("replication", severity, message).with_figures(figures);
}

/// A slot that nobody reads keeps the log until the disk is full.
async fn slots(patient: &mut Patient<'_>) -> Result<()> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "select slot_name::text, coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint
         from pg_replication_slots where not active",
    )
    .fetch_all(&mut patient.database)
    .await?;
    for (name, bytes) in rows {
        let severity = if bytes > KEPT_BYTES { Severity::Critical } else { Severity::Warning };
        let message = format!("nobody reads slot {name}, which keeps {} of log", size(bytes));
        let finding = patient.report.find("replication slots", severity, message);
        finding.with_figures(json!({"slot": name, "bytes": bytes}));
        finding.advise(
            Target::Command,
            format!("start its replica, or select pg_drop_replication_slot('{name}');"),
            false,
        );
    }
    Ok(())
}

async fn archiver(patient: &mut Patient<'_>) -> Result<()> {
    let (mode, failed, why, age): (String, i64, bool, Option<f64>) = sqlx::query_as(
        "select current_setting('archive_mode'), failed_count,
             coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false),
             extract(epoch from now() - last_archived_time)::float8
         from pg_stat_archiver",
    )
    .fetch_one(&mut patient.database)
    .await?;
    if mode == "off" {
        let message = "off: backups cannot be brought to a moment (`tapeline backup` needs it)";
        patient.report.find("archive_mode", Severity::Advice, message.to_owned());
        return Ok(());
    }
    let severity = if why { Severity::Critical } else { Severity::Ok };
    let message = match (why, age) {
        (true, _) => format!(
            "archiving the log fails, {failed} times so far: the log grows until the disk is full"
        ),
        (false, Some(age)) => format!("the last piece of the log was archived {age:.0} s ago"),
        (false, None) => "nothing had to be archived yet".to_owned(),
    };
    let finding = patient.report.find("archive_mode", severity, message);
    finding.with_figures(json!({"failed": failed, "last_archived_seconds": age}));
    if why {
        finding.advise(
            Target::Command,
            "read the server's log for what archive_command says",
            false,
        );
    }
    Ok(())
}
