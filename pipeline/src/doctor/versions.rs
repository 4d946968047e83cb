//! Versions, extensions, edition, migrations.

use anyhow::Result;
use serde_json::json;

use super::Patient;
use super::report::{Severity, Target};
use crate::migrate;

/// Major versions of PostgreSQL that the pipeline is made for.
const LEAST_MAJOR: i32 = 14;
const MAJOR: i32 = 10_000;

pub(super) async fn examine(patient: &mut Patient<'_>) -> Result<()> {
    let (number, version): (i32, String) = sqlx::query_as(
        "select current_setting('server_version_num')::integer, current_setting('server_version')",
    )
    .fetch_one(&mut patient.database)
    .await?;
    let severity = if number / MAJOR < LEAST_MAJOR { Severity::Warning } else { Severity::Ok };
    let message = format!("{version}; the pipeline is made for {LEAST_MAJOR} and later");
    patient.report.find("postgresql", severity, message).with_figures(json!({"version": version}));
    extensions(patient).await?;
    migrations(patient).await
}

async fn extensions(patient: &mut Patient<'_>) -> Result<()> {
    let found: Vec<(String, Option<String>, Option<String>)> = sqlx::query_as(
        "select name::text, installed_version, default_version from pg_available_extensions
         where name in ('timescaledb', 'pg_stat_statements') order by name desc",
    )
    .fetch_all(&mut patient.database)
    .await?;
    let edition = if patient.community { "Community" } else { "Apache" };
    for name in ["timescaledb", "pg_stat_statements"] {
        let installed = found.iter().find(|(found, ..)| found == name);
        let report = &mut patient.report;
        match installed {
            Some((_, Some(installed), newest)) => {
                let old = newest.as_ref().is_some_and(|newest| newest != installed);
                let severity = if old { Severity::Advice } else { Severity::Ok };
                let more = if name == "timescaledb" {
                    format!(", {edition} edition")
                } else {
                    String::new()
                };
                let newer = newest
                    .as_ref()
                    .filter(|_| old)
                    .map(|newest| format!(", {newest} is on the machine"));
                let message = format!("{name} {installed}{more}{}", newer.unwrap_or_default());
                let finding = report.find("extension", severity, message);
                if old {
                    finding.advise(
                        Target::Command,
                        format!(
                            "alter extension {name} update; -- as the first statement of a session"
                        ),
                        false,
                    );
                }
            }
            _ => {
                let severity =
                    if name == "timescaledb" { Severity::Critical } else { Severity::Advice };
                let finding =
                    report.find("extension", severity, format!("{name} is not in this database"));
                finding.advise(Target::Postgresql, format!("create extension {name};"), false);
            }
        }
    }
    if !patient.community {
        let message = "chunks are not compressed and there are no continuous aggregates: that needs the Community edition";
        patient.report.find("edition", Severity::Ok, message.to_owned());
    }
    Ok(())
}

async fn migrations(patient: &mut Patient<'_>) -> Result<()> {
    match migrate::check(&mut patient.database).await {
        Ok(()) => {
            patient.report.find("migrations", Severity::Ok, "all are applied".to_owned());
        }
        Err(error) => {
            let finding =
                patient.report.find("migrations", Severity::Critical, format!("{error:#}"));
            finding.advise(Target::Command, "tapeline migrate up", false);
        }
    }
    Ok(())
}
