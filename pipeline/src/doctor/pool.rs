//! Connections: of the server, and in PgBouncer's pools.

use anyhow::{Context as _, Result};
use serde_json::json;
use sqlx::{Connection as _, Executor, PgConnection, Row};

use super::Patient;
use super::report::{Severity, Target};
use crate::config::with_path;

/// Shares of the server's connections that are in use.
const BUSY: (f64, f64) = (0.8, 0.95);
/// A client of PgBouncer may wait for this long, in seconds.
const WAIT_SECONDS: i64 = 1;

pub(super) async fn examine(patient: &mut Patient<'_>) -> Result<()> {
    let (used, most): (i64, i64) = sqlx::query_as(
        "select sum(numbackends)::bigint, current_setting('max_connections')::bigint from pg_stat_database",
    )
    .fetch_one(&mut patient.database)
    .await?;
    let share = used as f64 / most as f64;
    let severity = match share {
        share if share > BUSY.1 => Severity::Critical,
        share if share > BUSY.0 => Severity::Warning,
        _ => Severity::Ok,
    };
    let finding =
        patient.report.find("connections", severity, format!("{used} of {most} are in use"));
    finding.with_figures(json!({"used": used, "max": most}));
    if severity > Severity::Ok {
        finding.advise(
            Target::Command,
            "put PgBouncer in front, or lower database.pool_size",
            false,
        );
    }
    idle_transactions(patient).await?;
    match patient.scope.pgbouncer.clone() {
        Some(url) => pools(patient, &url).await,
        None => Ok(()),
    }
}

async fn idle_transactions(patient: &mut Patient<'_>) -> Result<()> {
    let limit = patient.limits.idle_seconds;
    let (idle, all): (i64, bool) = sqlx::query_as(
        "select count(*) filter (where state like 'idle in transaction%'
             and state_change < now() - $1 * interval '1 second'),
             pg_has_role(current_user, 'pg_read_all_stats', 'usage')
         from pg_stat_activity",
    )
    .bind(limit)
    .fetch_one(&mut patient.database)
    .await?;
    if !all {
        patient
            .report
            .unseen("transactions of other roles", "this role is not in pg_read_all_stats");
    }
    if idle > 0 {
        let message = format!(
            "{idle} transactions have been idle for more than {limit} s: vacuum can remove nothing younger"
        );
        let finding = patient.report.find("idle transactions", Severity::Warning, message);
        finding.advise(
            Target::Postgresql,
            format!("alter system set idle_in_transaction_session_timeout = '{limit}s'; -- ends such sessions"),
            false,
        );
    }
    Ok(())
}

/// `show pools` on PgBouncer's console, which knows only simple queries.
/// <https://www.pgbouncer.org/usage.html#show-pools>
async fn pools(patient: &mut Patient<'_>, url: &str) -> Result<()> {
    let url = with_path(url, "pgbouncer");
    let mut console = PgConnection::connect(&url).await.context("pgbouncer's console")?;
    for row in console.fetch_all("show pools").await.context("show pools")? {
        let database: String = row.try_get("database")?;
        if database == "pgbouncer" {
            continue;
        }
        let user: String = row.try_get("user")?;
        let number = |name: &str| -> i64 {
            let text = row.try_get_unchecked::<String, _>(name);
            text.ok().and_then(|text| text.parse().ok()).unwrap_or_default()
        };
        let (active, waiting, longest) =
            (number("cl_active"), number("cl_waiting"), number("maxwait"));
        let servers = number("sv_active") + number("sv_idle") + number("sv_used");
        let severity = if longest >= WAIT_SECONDS { Severity::Warning } else { Severity::Ok };
        let message = format!(
            "{database} as {user}: {active} clients served, {waiting} wait, the first for {longest} s; {servers} connections"
        );
        let finding = patient.report.find("pools", severity, message);
        finding.with_figures(json!({"database": database, "user": user, "active": active, "waiting": waiting, "max_wait_s": longest, "servers": servers}));
        if severity > Severity::Ok {
            finding.advise(Target::Command, "raise default_pool_size of PgBouncer", false);
        }
    }
    Ok(())
}
