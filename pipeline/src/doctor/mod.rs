//! `tapeline doctor`: is everything that the pipeline stands on fit for it? (O2, O4)
//!
//! Each examination says what it found, how bad that is and what to do. What it may not see, for a
//! lack of rights or because something is not there, it says too; that alone is no finding.

mod apply;
mod cache;
mod history;
mod memory;
mod pool;
mod quality;
mod replication;
mod report;
mod settings;
mod statements;
mod tables;
mod versions;

use anyhow::{Context as _, Result};
use sqlx::{Executor, PgConnection};

use crate::config::Config;
use crate::migrate;

pub use memory::Machine;
pub use report::{Finding, Report, Severity, Target};

/// From which values on something is said. The defaults are for production.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Statements slower than this in the mean, in milliseconds: what the documents allow a query.
    pub slow_ms: f64,
    /// Calls that a statement needs before its mean counts.
    pub slow_calls: i64,
    /// Indexes smaller than this may lie idle, in bytes.
    pub idle_index_bytes: i64,
    /// Chunks of a table beyond which planning gets slow.
    pub chunks: i64,
    /// Compression below which it is not worth its time.
    pub compression: f64,
    /// A hole in a feed may be open for this long, in seconds.
    pub gap_open_seconds: i64,
    /// Shares of records: late; repeated; in quarantine.
    pub late: f64,
    /// Share of records that repeat another.
    pub duplicates: f64,
    /// Share of records that could not be taken.
    pub quarantined: f64,
    /// Records below which shares say nothing.
    pub records: i64,
    /// A transaction may be idle for this long, in seconds.
    pub idle_seconds: i64,
    /// Dead rows of a table below which nothing is said.
    pub dead_rows: i64,
    /// How far replicas may be behind, in seconds.
    pub replication_seconds: f64,
    /// How long after its time a step of the lifecycle may be waiting, in days.
    pub lifecycle_days: i64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            slow_ms: 100.0,
            slow_calls: 10,
            idle_index_bytes: 64 << 20,
            chunks: 2_000,
            compression: 3.0,
            gap_open_seconds: 600,
            late: 0.01,
            duplicates: 0.05,
            quarantined: 0.001,
            records: 1_000,
            idle_seconds: 300,
            dead_rows: 100_000,
            replication_seconds: 60.0,
            lifecycle_days: 2,
        }
    }
}

/// What to examine, beside what the configuration names.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Memory and cores of the database's machine; this one's where it is local, otherwise unknown.
    pub machine: Option<Machine>,
    /// PgBouncer, whatever the database; its console is asked.
    pub pgbouncer: Option<String>,
    /// Hours of history whose prices are judged, back from the newest trade.
    pub history_hours: u32,
    /// Change the settings that are safe to change.
    pub apply: bool,
}

/// One patient: the database and what was found so far.
pub(crate) struct Patient<'c> {
    config: &'c Config,
    scope: &'c Scope,
    limits: &'c Limits,
    database: PgConnection,
    community: bool,
    report: Report,
}

/// A question to the database may take this long.
const PATIENCE: &str = "set statement_timeout = '60s'";

/// Examines everything. An error means that not even the database could be asked.
pub async fn run(config: &Config, scope: &Scope, limits: &Limits) -> Result<Report> {
    let mut database = migrate::connect(config.database.read_url()).await?;
    database.execute(PATIENCE).await?;
    database.execute("set timezone = 'UTC'").await?;
    let community = migrate::is_community(&mut database).await.unwrap_or(false);
    let report = Report::default();
    let mut patient = Patient { config, scope, limits, database, community, report };
    let outcomes = [
        ("versions", versions::examine(&mut patient).await),
        ("settings of postgresql", settings::examine(&mut patient).await),
        ("tables", tables::examine(&mut patient).await),
        ("statements", statements::examine(&mut patient).await),
        ("connections", pool::examine(&mut patient).await),
        ("replication", replication::examine(&mut patient).await),
        ("redis", cache::examine(&mut patient).await),
        ("quality of data", quality::examine(&mut patient).await),
        ("prices of history", history::examine(&mut patient).await),
    ];
    for (what, outcome) in outcomes {
        if let Err(error) = outcome {
            patient.report.unseen(what, &format!("{error:#}"));
        }
    }
    if scope.apply {
        apply::apply(&mut patient).await.context("applying settings")?;
    }
    Ok(patient.report)
}
