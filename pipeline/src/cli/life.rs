//! `archive`, `restore`, `lifecycle`, `query`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};

use tapeline_stages::store::Table;

use super::{code, host};
use crate::archive::{
    self, Day, Format, Query, Restore, Store, Wanted, archived_kind, parse_moment,
};
use crate::config::Config;
use crate::database::reader;
use crate::schedule::{self, Job};
use crate::{lifecycle, migrate, telemetry};

/// What to do with the archive.
#[derive(Debug, Subcommand)]
pub enum ArchiveAction {
    /// Archive days of a kind now; nothing is dropped.
    Create {
        /// Kind of events: trade, ticker, book, candle, anomaly, option, flow, prediction, portfolio.
        #[arg(long)]
        kind: String,
        /// UTC day, YYYY-MM-DD.
        #[arg(long)]
        date: Day,
        /// Last day of a range.
        #[arg(long)]
        to_date: Option<Day>,
    },
    /// List archived days.
    List(ListArgs),
    /// Read every object back and compare it with its manifest; exit 1 where one differs.
    Verify(ListArgs),
    /// As `tapeline query`.
    Query(QueryArgs),
    /// The bucket's own rules for old objects.
    Lifecycle {
        /// What to do with them.
        #[command(subcommand)]
        action: PolicyAction,
    },
}

/// What to do with the bucket's rules.
#[derive(Debug, Subcommand)]
pub enum PolicyAction {
    /// Give them to the bucket: infrequent access after 30 days, Glacier after 90.
    Apply,
}

/// Which archived days.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Kind of events; every kind where none is named.
    #[arg(long)]
    kind: Option<String>,
    /// A JSON array.
    #[arg(long)]
    json: bool,
}

/// What to restore, and where to.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// Kind of events.
    #[arg(long, default_value = "trade")]
    kind: String,
    /// UTC day, YYYY-MM-DD.
    #[arg(long)]
    date: Day,
    /// Last day of a range.
    #[arg(long)]
    to_date: Option<Day>,
    /// Only this symbol.
    #[arg(long)]
    symbol: Option<String>,
    /// Only this venue.
    #[arg(long)]
    exchange: Option<String>,
    /// Write a file instead of the table.
    #[arg(long, value_name = "FORMAT", requires = "out")]
    to: Option<Format>,
    /// The file.
    #[arg(long, value_name = "FILE", requires = "to")]
    out: Option<PathBuf>,
}

/// Which rows.
#[derive(Debug, Args)]
pub struct QueryArgs {
    /// Kind of events.
    #[arg(long, default_value = "trade")]
    kind: String,
    /// Only this venue.
    #[arg(long)]
    exchange: Option<String>,
    /// Only this symbol.
    #[arg(long)]
    symbol: Option<String>,
    /// From this time on: YYYY-MM-DD or YYYY-MM-DDTHH:MM:SS[.ffffff]Z.
    #[arg(long, value_parser = parse_moment)]
    from: i64,
    /// Before this time.
    #[arg(long, value_parser = parse_moment)]
    to: i64,
    /// Rows at most.
    #[arg(long)]
    limit: Option<u64>,
    /// How to write them.
    #[arg(long, default_value = "csv")]
    format: Format,
    /// In no order, as fast as the table gives them: for whole days as CSV or JSON.
    #[arg(long, conflicts_with = "limit")]
    unordered: bool,
    /// A file instead of the standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What to do with what is old.
#[derive(Debug, Subcommand)]
pub enum LifecycleAction {
    /// Do what is due.
    Run {
        /// Only say what is due.
        #[arg(long)]
        dry_run: bool,
    },
    /// Do it at its times (`lifecycle.schedule`), until stopped.
    Schedule,
    /// Say what is due.
    Plan {
        /// A JSON array.
        #[arg(long)]
        json: bool,
        /// The same; nothing is ever changed.
        #[arg(long)]
        dry_run: bool,
    },
}

/// `tapeline archive`
pub(super) async fn archive(config: &Config, action: ArchiveAction) -> Result<ExitCode> {
    match action {
        ArchiveAction::Create { kind, date, to_date } => {
            let store = Store::open(&config.archive)?;
            let (url, days) = (&config.database.url, days(date, to_date)?);
            let made = lifecycle::archive_days(url, &store, &config.pipeline.id, &kind, days);
            for (day, rows) in made.await? {
                println!("{kind} {day}: {rows} rows, read back and compared");
            }
        }
        ArchiveAction::List(args) => {
            let listed =
                archive::list(&Store::open(&config.archive)?, args.kind.as_deref()).await?;
            show(&listed, args.json)?;
        }
        ArchiveAction::Verify(args) => {
            let checked =
                archive::verify_all(&Store::open(&config.archive)?, args.kind.as_deref()).await?;
            show(&checked, args.json)?;
            return Ok(code(checked.iter().all(|archived| archived.fault.is_none())));
        }
        ArchiveAction::Query(args) => query(config, args).await?,
        ArchiveAction::Lifecycle { action: PolicyAction::Apply } => {
            println!("bucket {} has the rules", archive::apply_policy(&config.archive).await?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(archived: &[archive::Archived], json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(archived)?);
        return Ok(());
    }
    for day in archived {
        let fault = day.fault.as_ref().map(|fault| format!("  {fault}")).unwrap_or_default();
        println!(
            "{:<8} {}  {:>12} rows  {:>3} objects  {:>12} bytes{fault}",
            day.kind, day.day, day.rows, day.objects, day.bytes
        );
    }
    Ok(())
}

fn days(first: Day, last: Option<Day>) -> Result<(Day, Day)> {
    let last = last.unwrap_or(first);
    ensure!(first <= last, "--date {first} is after --to-date {last}");
    Ok((first, last))
}

/// `tapeline restore`
pub(super) async fn restore(config: &Config, args: RestoreArgs) -> Result<()> {
    let (kind, table) = archived_kind(&args.kind)?;
    let what = Restore {
        kind: kind.name().to_owned(),
        table: table.to_owned(),
        days: days(args.date, args.to_date)?,
        exchange: args.exchange,
        wanted: Wanted { symbol: args.symbol, ..Wanted::default() },
    };
    let store = Store::open(&config.archive)?;
    if let (Some(format), Some(out)) = (args.to, args.out) {
        let file = File::create(&out).with_context(|| format!("cannot write {}", out.display()))?;
        let time = Table::of(kind).map_or("time", Table::time);
        let rows = archive::export(&store, time, &what, format, BufWriter::new(file)).await?;
        println!("{rows} rows written to {}", out.display());
        return Ok(());
    }
    let done = archive::restore(&config.database.url, &store, &config.pipeline.id, &what).await?;
    println!(
        "{} rows of {} archived days; {} of them were not in {table} and are now",
        done.rows, done.days, done.added
    );
    Ok(())
}

/// `tapeline lifecycle`
pub(super) async fn lifecycle(config: &Config, action: LifecycleAction) -> Result<()> {
    match action {
        LifecycleAction::Plan { json, .. } => plan(config, json).await,
        LifecycleAction::Run { dry_run: true } => plan(config, false).await,
        LifecycleAction::Run { .. } => run_once(config).await,
        LifecycleAction::Schedule => {
            let when = &config.lifecycle.schedule;
            let job = Job::new("lifecycle", when, || run_once(config))?;
            telemetry::metrics_handle()?;
            let listen = config.http.listen.as_deref();
            schedule::run(vec![job], listen, host::stopped_by_signal()?).await
        }
    }
}

async fn plan(config: &Config, json: bool) -> Result<()> {
    let mut database = reader(&config.database).await?;
    let steps = lifecycle::plan(&mut database, &config.lifecycle).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&steps)?);
        return Ok(());
    }
    for step in &steps {
        println!(
            "{:<8} {:?}  {} to {}  {} chunks",
            step.kind,
            step.action,
            Day::of_micros(step.from),
            Day::of_micros(step.to),
            step.chunks.len()
        );
    }
    if steps.is_empty() {
        println!("nothing is due");
    }
    Ok(())
}

async fn run_once(config: &Config) -> Result<()> {
    tapeline_stages::failpoint::arm_signals(
        &std::env::var("TAPELINE_FAILPOINTS").unwrap_or_default(),
    )
    .map_err(anyhow::Error::msg)?;
    let store = Store::open(&config.archive)?;
    let mut database = migrate::connect(&config.database.url).await?;
    let report =
        lifecycle::run(&mut database, &store, &config.pipeline.id, &config.lifecycle).await?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// `tapeline query`
pub(super) async fn query(config: &Config, args: QueryArgs) -> Result<()> {
    let (kind, table) = archived_kind(&args.kind)?;
    ensure!(args.from < args.to, "--from is not before --to");
    let wanted = Wanted { symbol: args.symbol, from: Some(args.from), to: Some(args.to) };
    let query = Query {
        kind: kind.name().to_owned(),
        table: table.to_owned(),
        exchange: args.exchange,
        wanted,
        limit: args.limit,
        unordered: args.unordered.then(|| config.database.read_url().to_owned()),
    };
    let store = config.archive.url.is_some().then(|| Store::open(&config.archive)).transpose()?;
    let mut database = reader(&config.database).await?;
    let out: Box<dyn Write + Send> = match &args.out {
        Some(path) => Box::new(
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?,
        ),
        None => Box::new(std::io::stdout()),
    };
    let answered =
        archive::query(&mut database, store.as_ref(), &query, args.format, BufWriter::new(out))
            .await?;
    if !answered.archived_days.is_empty() {
        let days: Vec<_> = answered.archived_days.iter().map(Day::to_string).collect();
        eprintln!(
            "{} rows from the archive ({}), {} from the table",
            answered.from_archive,
            days.join(", "),
            answered.from_table
        );
    }
    Ok(())
}
