//! PostgreSQL's settings against the machine and against what the pipeline promises.
//!
//! Rules: PostgreSQL documentation, "Resource Consumption" and "Write Ahead Log"; TimescaleDB
//! documentation, "timescaledb-tune" for the shares of memory.

use std::collections::HashMap;

use anyhow::Result;
use serde_json::json;

use super::Patient;
use super::memory;
use super::report::{Finding, Severity, Target, size};

const KIB: i64 = 1 << 10;
const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;

/// A setting in bytes, a number, or the text it is.
struct Settings {
    values: HashMap<String, Value>,
    /// Names of the database and of the role, as statements write them.
    database: String,
    role: String,
}

struct Value {
    text: String,
    unit: Option<String>,
    /// Where it comes from: `default`, `configuration file`, `database`, `user`, …
    source: String,
}

impl Settings {
    fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|value| value.text.as_str())
    }

    /// Advises `value` for the whole server; `note` says why that is not safe. A value of the database or the role
    /// comes before the server's, and somebody wanted it: the advice is to take it away, which is not safe.
    fn advise(&self, finding: &mut Finding, name: &str, value: &str, note: &str) {
        let Settings { values, database, role } = self;
        let line = match values.get(name).map(|value| value.source.as_str()) {
            Some("database") => format!("alter database {database} reset {name};"),
            Some("user") => format!("alter role {role} reset {name};"),
            Some("database user") => {
                format!("alter role {role} in database {database} reset {name};")
            }
            _ => {
                let line = format!("alter system set {name} = {value};{note}");
                return finding.advise(Target::Postgresql, line, note.is_empty());
            }
        };
        finding.advise(Target::Postgresql, line, false);
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.text(name)?.parse::<f64>().ok().map(|value| value as i64)
    }

    fn bytes(&self, name: &str) -> Option<i64> {
        let unit = match self.values.get(name)?.unit.as_deref()? {
            "B" => 1,
            "kB" => KIB,
            "8kB" => 8 * KIB,
            "MB" => MIB,
            _ => return None,
        };
        Some(self.number(name)? * unit)
    }
}

pub(super) async fn examine(patient: &mut Patient<'_>) -> Result<()> {
    let rows: Vec<(String, Option<String>, Option<String>, String)> =
        sqlx::query_as("select name, setting, unit, source from pg_settings")
            .fetch_all(&mut patient.database)
            .await?;
    let values = rows
        .into_iter()
        .filter_map(|(name, text, unit, source)| Some((name, Value { text: text?, unit, source })))
        .collect();
    let (database, role): (String, String) =
        sqlx::query_as("select quote_ident(current_database()), quote_ident(current_user)")
            .fetch_one(&mut patient.database)
            .await?;
    let settings = Settings { values, database, role };
    safety(patient, &settings);
    planner(patient, &settings);
    match patient.scope.machine.or_else(|| memory::of_database(patient.config)) {
        Some(machine) => sizes(patient, &settings, machine),
        None => patient.report.unseen(
            "settings against the machine",
            "the database is on another machine: say --memory-gib and --cores",
        ),
    }
    workers(patient, &settings);
    Ok(())
}

/// What would lose data that was called durable.
fn safety(patient: &mut Patient<'_>, settings: &Settings) {
    for (name, severity, why) in [
        ("fsync", Severity::Critical, "a crash of the machine destroys the database"),
        ("full_page_writes", Severity::Critical, "a crash may leave half-written pages"),
        (
            "synchronous_commit",
            Severity::Warning,
            "a crash takes back what was committed: rows and fence stay together, and the log has them, but a client that was told so is wrong",
        ),
        (
            "autovacuum",
            Severity::Warning,
            "nothing removes dead rows or keeps statistics; in the end writing stops",
        ),
    ] {
        match settings.text(name) {
            Some("off") => {
                let finding = patient.report.find(name, severity, format!("off: {why}"));
                settings.advise(finding, name, "'on'", "");
            }
            value => {
                patient.report.find(name, Severity::Ok, value.unwrap_or("unknown").to_owned());
            }
        }
    }
    if settings.text("data_checksums") == Some("off") {
        let finding = patient.report.find(
            "data_checksums",
            Severity::Advice,
            "off: a page that the disk spoils is not noticed".to_owned(),
        );
        finding.advise(Target::Command, "pg_checksums --enable, with the server stopped", false);
    }
}

/// What makes plans worse.
fn planner(patient: &mut Patient<'_>, settings: &Settings) {
    let found = [
        (
            "jit",
            settings.text("jit") == Some("on"),
            "on: compiling costs more than short queries over chunks take",
            "'off'",
        ),
        (
            "random_page_cost",
            settings.text("random_page_cost").and_then(|cost| cost.parse().ok()).unwrap_or(1.1)
                > 2.0_f64,
            "that of a spinning disk: indexes are not used where they would help",
            "1.1",
        ),
        (
            "track_io_timing",
            settings.text("track_io_timing") == Some("off"),
            "off: plans do not say how long they waited for the disk",
            "'on'",
        ),
        (
            "wal_compression",
            settings.text("wal_compression") == Some("off"),
            "off: full pages make most of the log",
            "'on'",
        ),
    ];
    for (name, applies, why, better) in found {
        if applies {
            let finding = patient.report.find(name, Severity::Advice, why.to_owned());
            settings.advise(finding, name, better, "");
        }
    }
}

/// What has to fit the machine.
fn sizes(patient: &mut Patient<'_>, settings: &Settings, machine: memory::Machine) {
    let mib = |bytes: i64| format!("'{}MB'", bytes / MIB);
    let connections = settings.number("max_connections").unwrap_or(100).max(1);
    // (name, least, most, what to set, why that is not safe)
    let memory = machine.memory;
    let rules = [
        ("shared_buffers", memory / 8, memory / 2, memory / 4, " -- then restart"),
        ("effective_cache_size", memory / 3, memory, memory / 4 * 3, ""),
        (
            "maintenance_work_mem",
            (memory / 64).min(GIB),
            memory / 8,
            (memory / 16).min(2 * GIB),
            "",
        ),
        (
            "work_mem",
            4 * MIB,
            (memory / 4 / (connections / 4).max(1)).max(16 * MIB),
            (memory / 4 / connections).max(8 * MIB),
            "",
        ),
        ("max_wal_size", 4 * GIB, i64::MAX, 8 * GIB, " -- where the disk has the room"),
    ];
    let mut wrong = 0;
    for (name, least, most, better, note) in rules {
        let Some(value) = settings.bytes(name) else { continue };
        if (least..=most).contains(&value) {
            continue;
        }
        wrong += 1;
        let relation = if value < least { "small" } else { "large" };
        let message = format!("{} is {relation} for a machine of {}", size(value), size(memory));
        let finding = patient.report.find(name, Severity::Advice, message);
        finding.with_figures(json!({"bytes": value, "memory": memory}));
        settings.advise(finding, name, &mib(better), note);
    }
    if settings.number("checkpoint_timeout").is_some_and(|seconds| seconds < 600) {
        let message = "checkpoints come often, and each writes full pages anew";
        let finding =
            patient.report.find("checkpoint_timeout", Severity::Advice, message.to_owned());
        settings.advise(finding, "checkpoint_timeout", "'15min'", "");
        wrong += 1;
    }
    if wrong == 0 {
        let message =
            format!("memory and log fit a machine of {} and {} cores", size(memory), machine.cores);
        patient.report.find("sizes", Severity::Ok, message);
    }
}

/// Workers for chunks' jobs, parallel plans and the scheduler come from one pool.
fn workers(patient: &mut Patient<'_>, settings: &Settings) {
    let (Some(all), Some(ours)) = (
        settings.number("max_worker_processes"),
        settings.number("timescaledb.max_background_workers"),
    ) else {
        return;
    };
    let parallel = settings.number("max_parallel_workers").unwrap_or(8);
    let wanted = 3 + ours + parallel;
    if all < wanted {
        let message = format!(
            "{all} worker processes are fewer than timescaledb's {ours}, {parallel} parallel ones and 3"
        );
        let finding = patient.report.find("max_worker_processes", Severity::Advice, message);
        finding.advise(
            Target::Postgresql,
            format!("alter system set max_worker_processes = {wanted}; -- then restart"),
            false,
        );
    }
}
