//! The data of the last day: holes, and shares of what was late, repeated or refused.

use anyhow::Result;
use serde_json::json;

use super::Patient;
use super::report::{Severity, Target, percent};

pub(super) async fn examine(patient: &mut Patient<'_>) -> Result<()> {
    gaps(patient).await?;
    shares(patient).await
}

async fn gaps(patient: &mut Patient<'_>) -> Result<()> {
    let (open, ended, seconds): (i64, i64, f64) = sqlx::query_as(
        "select count(*) filter (where state = 'opened' and from_time < now() - $1 * interval '1 second'),
             count(*) filter (where state = 'ended'),
             coalesce(extract(epoch from sum(to_time - from_time) filter (where state = 'ended')), 0)::float8
         from market_data_gaps",
    )
    .bind(patient.limits.gap_open_seconds)
    .fetch_one(&mut patient.database)
    .await?;
    let severity = if open > 0 || ended > 0 { Severity::Warning } else { Severity::Ok };
    let message = if open + ended == 0 {
        "no hole in any feed is open or unfilled".to_owned()
    } else {
        let first: String = sqlx::query_scalar(
            "select format('%s %s %s from %s', exchange, symbol, channel, from_time) from market_data_gaps
             where state <> 'filled' order by state desc, from_time limit 1",
        )
        .fetch_one(&mut patient.database)
        .await?;
        format!(
            "{open} holes are open, {ended} of {seconds:.0} s in all are unfilled; the first: {first}"
        )
    };
    let finding = patient.report.find("gaps", severity, message);
    finding.with_figures(json!({"open": open, "unfilled": ended, "unfilled_seconds": seconds}));
    if severity > Severity::Ok {
        finding.advise(
            Target::Command,
            "select * from market_data_gaps where state <> 'filled'",
            false,
        );
    }
    Ok(())
}

/// By what the ledger says of the last day that it speaks of.
async fn shares(patient: &mut Patient<'_>) -> Result<()> {
    let (records, duplicates, conflicts, quarantined): (i64, i64, i64, i64) = sqlx::query_as(
        "with last as (select max(written_at) - interval '1 day' as since from tapeline_ledger where pipeline = $1)
         select coalesce(sum(stored + duplicate + conflict + not_stored + quarantined), 0)::bigint,
             coalesce(sum(duplicate), 0)::bigint, coalesce(sum(conflict), 0)::bigint,
             coalesce(sum(quarantined), 0)::bigint
         from tapeline_ledger, last where pipeline = $1 and written_at >= last.since",
    )
    .bind(&patient.config.pipeline.id)
    .fetch_one(&mut patient.database)
    .await?;
    if records < patient.limits.records {
        patient.report.unseen(
            "shares of records",
            &format!(
                "the ledger has only {records} records of pipeline {}",
                patient.config.pipeline.id
            ),
        );
        return Ok(());
    }
    let late: i64 = sqlx::query_scalar(
        "select count(*) from market_data_anomalies where 'late' = any (flags)
         and receive_time >= (select max(receive_time) from market_data_anomalies) - interval '1 day'",
    )
    .fetch_one(&mut patient.database)
    .await?;
    for (name, count, limit) in [
        ("late", late, patient.limits.late),
        ("duplicates", duplicates, patient.limits.duplicates),
        ("quarantined", quarantined, patient.limits.quarantined),
        ("conflicts", conflicts, 0.0),
    ] {
        let share = count as f64 / records as f64;
        let severity = if share > limit { Severity::Warning } else { Severity::Ok };
        let message = format!("{count} of {records} records of the last day, {}", percent(share));
        let finding = patient.report.find(name, severity, message);
        finding.with_figures(json!({"count": count, "records": records, "share": share}));
        if severity > Severity::Ok {
            let line = match name {
                "quarantined" => "tapeline quarantine list",
                _ => "select * from market_data_anomalies order by time desc limit 100",
            };
            finding.advise(Target::Command, line, false);
        }
    }
    Ok(())
}
