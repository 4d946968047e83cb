//! `tapeline doctor`: is everything that the pipeline stands on fit for it? (O2, O4)
//!
//! Each examination says what it found, how bad that is and what to do. What it may not see, for a
//! lack of rights or because something is not there, it says too; that alone is no finding. What fails is one.

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
use crate::database::connect;
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

/// Each examination has a transaction of its own: behind a pooler in transaction mode that is one server's connection
/// to the end, and where one fails the next ones go on. A question may take a minute.
const BEGIN: &str =
    "begin read only; set local statement_timeout = '60s'; set local timezone = 'UTC'";

/// What PostgreSQL says where a right is missing, or an extension's library is not loaded.
const UNSEEN: [&str; 2] = ["42501", "55000"];

impl<'c> Patient<'c> {
    /// Examines in a transaction. What fails is a finding, but for what this role may not see.
    async fn section(
        &mut self,
        what: &'static str,
        examine: impl AsyncFnOnce(&mut Patient<'c>) -> Result<()>,
    ) {
        let outcome = match self.database.execute(BEGIN).await {
            Ok(_) => examine(&mut *self).await,
            Err(error) => Err(error.into()),
        };
        let ended = self.database.execute("rollback").await;
        let outcome = outcome.and(ended.map(drop).map_err(anyhow::Error::from));
        self.note(what, outcome);
    }

    fn note(&mut self, what: &'static str, outcome: Result<()>) {
        let Err(error) = outcome else { return };
        if is_unseen(&error) {
            return self.report.unseen(what, &format!("{error:#}"));
        }
        let message = format!("could not be examined: {error:#}");
        self.report.find(what, Severity::Warning, message);
    }
}

fn is_unseen(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let database = cause.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error);
        let code = database.and_then(|error| error.code());
        let redis = cause.downcast_ref::<redis::RedisError>().and_then(redis::RedisError::code);
        code.is_some_and(|code| UNSEEN.contains(&&*code)) || redis == Some("NOPERM")
    })
}

/// Examines everything. An error means that not even the database could be asked.
pub async fn run(config: &Config, scope: &Scope, limits: &Limits) -> Result<Report> {
    let mut config = config.clone();
    if scope.apply {
        // A replica's settings are not the primary's: what is examined is what is changed.
        config.database.read_url = None;
    }
    let database = connect(&config.database).await?;
    let report = Report::default();
    let mut patient =
        Patient { config: &config, scope, limits, database, community: false, report };
    patient
        .section("edition", async |patient| {
            // Without the extension there is no edition, which `versions` says.
            patient.community =
                migrate::is_community(&mut patient.database).await.unwrap_or_default();
            Ok(())
        })
        .await;
    patient.section("versions", versions::examine).await;
    patient.section("settings of postgresql", settings::examine).await;
    patient.section("tables", tables::examine).await;
    patient.section("statements", statements::examine).await;
    patient.section("connections", pool::examine).await;
    patient.section("replication", replication::examine).await;
    let cached = cache::examine(&mut patient).await;
    patient.note("redis", cached);
    patient.section("quality of data", quality::examine).await;
    patient.section("prices of history", history::examine).await;
    if scope.apply {
        apply::apply(&mut patient).await.context("applying settings")?;
    }
    Ok(patient.report)
}
