//! `tapeline backup`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use chrono::Utc;
use clap::{Args, Subcommand};

use super::{code, host};
use crate::archive::parse_moment;
use crate::backup::{self, Backup, Kind, Place, Target, Trial};
use crate::config::Config;
use crate::instruments::utc;
use crate::schedule::{self, Job};
use crate::telemetry;

/// What to do with backups.
#[derive(Debug, Subcommand)]
pub enum BackupAction {
    /// Have the server hand over its write-ahead log, and make the repositories.
    Setup {
        /// Also where something else archives the log: that ends.
        #[arg(long)]
        replace: bool,
    },
    /// Make a backup in each repository; an incremental one where nothing is said.
    Create {
        #[command(flatten)]
        kind: CreateArgs,
        /// Write the newest backups' times there, for Prometheus's node exporter; no other command's file.
        #[arg(long, value_name = "FILE")]
        metrics: Option<PathBuf>,
    },
    /// List the backups.
    List {
        /// A JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Read back every file of the repositories; exit 1 where one is not whole.
    Verify {
        /// Restore the newest backup into a scratch instance too, and compare each table with the database.
        #[arg(long)]
        restore: bool,
        /// Only this repository, 1 or 2; the other one may be gone.
        #[arg(long, requires = "restore")]
        repository: Option<u32>,
        /// Write age, duration and outcome of the restore tests there, for Prometheus's node exporter; no other
        /// command's file.
        #[arg(long, value_name = "FILE", requires = "restore")]
        metrics: Option<PathBuf>,
        /// A JSON array of what the restore tests found.
        #[arg(long, requires = "restore")]
        json: bool,
    },
    /// Restore the cluster into a directory.
    Restore(RestoreArgs),
    /// Make backups and restore tests at their times (`backup.schedule`), until stopped.
    Schedule,
}

impl BackupAction {
    fn with_absolute_paths(mut self) -> Result<BackupAction> {
        let path = match &mut self {
            BackupAction::Create { metrics: Some(path), .. }
            | BackupAction::Verify { metrics: Some(path), .. } => path,
            BackupAction::Restore(args) => &mut args.into,
            _ => return Ok(self),
        };
        *path = std::path::absolute(&*path)?;
        Ok(self)
    }
}

/// Which kind.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct CreateArgs {
    /// Everything.
    #[arg(long)]
    full: bool,
    /// What changed since the last full one.
    #[arg(long)]
    differential: bool,
    /// What changed since the last of any kind.
    #[arg(long)]
    incremental: bool,
}

/// How far, where to, where from.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// Up to this time: YYYY-MM-DDTHH:MM:SS[.ffffff]Z.
    #[arg(long, value_parser = parse_moment, required_unless_present = "latest")]
    to: Option<i64>,
    /// As far as the log goes.
    #[arg(long, conflicts_with = "to")]
    latest: bool,
    /// A directory that is empty or not there yet.
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
    /// Repository to restore from, 1 or 2.
    #[arg(long, default_value_t = 1)]
    repository: u32,
}

/// Does it.
pub(super) async fn run(config: &Config, action: BackupAction) -> Result<ExitCode> {
    // Before the working directory changes.
    let action = action.with_absolute_paths()?;
    let place = Place::take(config)?;
    match action {
        BackupAction::Setup { replace } => return setup(&place, replace).await,
        BackupAction::Create { kind, metrics } => {
            let kind = match (kind.full, kind.differential, kind.incremental) {
                (true, _, _) => Kind::Full,
                (_, true, _) => Kind::Differential,
                _ => Kind::Incremental,
            };
            measured(metrics.as_deref(), &CREATED, backup::create(&place, kind)).await?;
        }
        BackupAction::List { json } => show(&backup::list(&place).await?, json)?,
        BackupAction::Verify { restore, repository, metrics, json } => {
            let verifying = verify(&place, restore, repository, json);
            return Ok(code(measured(metrics.as_deref(), &TESTED, verifying).await?));
        }
        BackupAction::Restore(args) => {
            let target = match args.to {
                Some(micros) if micros > Utc::now().timestamp_micros() => {
                    bail!("--to {} is in the future", utc(micros))
                }
                Some(micros) => Target::Time(utc(micros)),
                None => Target::Latest,
            };
            backup::restore(&place, args.repository, &target, &args.into).await?;
            println!(
                "restored into {}; its archive_mode is off: `alter system reset archive_mode` makes it the one that \
                 is backed up",
                args.into.display()
            );
        }
        BackupAction::Schedule => run_schedule(config, &place).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What the files of `create` and `verify` hold: the exporter refuses a metric that is in two files.
const CREATED: [&str; 1] = ["tapeline_backup_newest"];
const TESTED: [&str; 2] = ["tapeline_backup_restore_test", "tapeline_backup_age"];

/// Does it, and writes the metrics whose names begin so, however it went. A failure of the work comes before one of
/// the file.
async fn measured<T>(
    file: Option<&Path>,
    names: &[&str],
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    // Installed first: what is measured before that is not kept.
    let handle = telemetry::metrics_handle()?;
    let done = work.await;
    let Some(file) = file else { return done };
    let written = write(file, &of_names(&handle.render(), names));
    match (done, written) {
        (Ok(done), written) => written.map(|()| done),
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(unwritten)) => {
            eprintln!("{unwritten:#}");
            Err(error)
        }
    }
}

/// The lines of metrics whose names begin so.
fn of_names(text: &str, names: &[&str]) -> String {
    let wanted = |line: &&str| {
        let line = line.trim_start_matches("# TYPE ").trim_start_matches("# HELP ");
        names.iter().any(|name| line.starts_with(*name))
    };
    text.lines().filter(wanted).flat_map(|line| [line, "\n"]).collect()
}

async fn setup(place: &Place, replace: bool) -> Result<ExitCode> {
    let ready = backup::setup(place, replace).await?;
    match ready {
        true => println!("the server archives its log, the repositories are ready"),
        false => println!("archive_mode is set: restart the server, then run this again"),
    }
    Ok(code(ready))
}

fn show(backups: &[Backup], json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(backups)?);
        return Ok(());
    }
    for backup in backups {
        println!(
            "repository {}  {:<33} {:<4}  {}  {:>5} s  {:>14} bytes, {:>14} added{}",
            backup.repository,
            backup.label,
            backup.kind,
            utc(backup.stop * 1_000_000),
            backup.stop - backup.start,
            backup.database_bytes,
            backup.repository_bytes,
            if backup.error { "  with damaged pages" } else { "" }
        );
    }
    Ok(())
}

async fn verify(place: &Place, restore: bool, repository: Option<u32>, json: bool) -> Result<bool> {
    let faults = backup::verify(place, repository.as_slice()).await;
    for fault in &faults {
        eprintln!("{fault}");
    }
    if !restore {
        return Ok(faults.is_empty());
    }
    let (trials, ended) = backup::trial(place, repository.as_slice()).await;
    if json {
        println!("{}", serde_json::to_string_pretty(&trials)?);
    } else {
        trials.iter().for_each(tell);
    }
    ended?;
    Ok(faults.is_empty() && trials.iter().all(|trial| trial.differences.is_empty()))
}

fn tell(trial: &Trial) {
    let outcome = if trial.differences.is_empty() { "the same" } else { "not the same" };
    println!(
        "repository {}: {} of {} s ago, restored in {:.1} s: {} rows of {} tables are {outcome}",
        trial.repository,
        trial.label,
        trial.age_seconds,
        trial.restore_seconds,
        trial.rows,
        trial.tables
    );
    for difference in &trial.differences {
        println!("  {difference}");
    }
}

/// Whole or not at all: the exporter may read at any time.
fn write(file: &Path, text: &str) -> Result<()> {
    let fresh = file.with_extension("new");
    std::fs::write(&fresh, text)
        .and_then(|()| std::fs::rename(&fresh, file))
        .with_context(|| format!("--metrics: cannot write {}", file.display()))
}

async fn run_schedule(config: &Config, place: &Place) -> Result<()> {
    let times = &config.backup.schedule;
    let mut jobs = Vec::new();
    for (name, when, kind) in [
        ("backup-full", &times.full, Kind::Full),
        ("backup-differential", &times.differential, Kind::Differential),
        ("backup-incremental", &times.incremental, Kind::Incremental),
    ] {
        if let Some(when) = when {
            jobs.push(Job::new(name, when, move || backup::create(place, kind))?);
        }
    }
    if let Some(when) = &times.restore_test {
        jobs.push(Job::new("restore-test", when, move || async move {
            if verify(place, true, None, false).await? {
                return Ok(());
            }
            bail!("a backup is not whole, or does not restore to what the database holds")
        })?);
    }
    telemetry::metrics_handle()?;
    // What there is already, so that its age is known from the start.
    if let Err(error) = backup::list(place).await {
        tracing::error!(error = format!("{error:#}"), "not every repository can be read");
    }
    schedule::run(jobs, config.http.listen.as_deref(), host::stopped_by_signal()?).await
}
