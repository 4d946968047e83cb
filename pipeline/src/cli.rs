//! The command line: what can be asked for, and which module does it.

mod audit;
mod backfill;
mod backup;
mod cache;
mod check;
mod compare;
mod database;
mod doctor;
mod feeds;
mod gaps;
mod host;
mod instruments;
mod lag;
mod life;
mod quarantine;
mod replay;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::config::{Config, LogConfig};
use crate::wiring::StageName;
use crate::{kafka, telemetry};

pub use database::{ConfigAction, MigrateAction};

/// What `--config` without a file stands for.
const NO_FILE: &str = "-";

/// Market-data pipeline: exchanges to Kafka to TimescaleDB, Redis and candles.
#[derive(Debug, Parser)]
#[command(name = "tapeline", version, about)]
pub struct Cli {
    /// Configuration file: TOML, JSON or YAML. The environment (`TAPELINE__SECTION__KEY`) comes over it.
    #[arg(long, global = true, env = "TAPELINE_CONFIG", value_name = "FILE", num_args = 0..=1, default_missing_value = NO_FILE)]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check raw records, one to one, into the checked topics.
    Validate(host::StageArgs),
    /// Store checked records in TimescaleDB.
    Store(host::StageArgs),
    /// Keep Redis fresh; fill it again from the database.
    Cache(cache::CacheArgs),
    /// Build candles from trades.
    Candles(host::StageArgs),
    /// Write market data to InfluxDB too, a second target beside the database.
    Influx(host::StageArgs),
    /// Run several stages in one process.
    Run {
        /// Which ones; where none is named, all but `influx`.
        #[arg(long, value_delimiter = ',')]
        stages: Vec<StageName>,
        /// As for each stage.
        #[command(flatten)]
        args: host::StageArgs,
    },
    /// Feed ranges of the log again: into the store, into a shadow, into another topic.
    Replay(Box<replay::ReplayArgs>),
    /// Connect to the configured venues and publish what they send.
    Connect(serve::ConnectArgs),
    /// Play exchange traffic through the whole pipeline and show what became of it.
    Demo(crate::demo::DemoArgs),
    /// Serve recordings over WebSocket and HTTP in the venues' own protocols.
    Playback(serve::PlaybackArgs),
    /// Serve the Confluent schema registry API, with its state in Kafka.
    Registry(serve::RegistryArgs),
    /// Topics of the pipeline.
    Topics {
        /// What to do with them.
        #[command(subcommand)]
        action: TopicsAction,
    },
    /// Records that could not be taken: look at them, send them again, set them aside.
    Quarantine {
        /// What to do with them.
        #[command(subcommand)]
        action: quarantine::Action,
    },
    /// How far each stage is behind, in records and in seconds.
    Lag(lag::LagArgs),
    /// How good the feeds of running connectors are: messages, gaps, age, latency, clocks.
    Feeds(feeds::FeedsArgs),
    /// The continuity of feeds: holes, their causes, and what filled them.
    Gaps(gaps::GapsArgs),
    /// Fill holes from the venues' REST interfaces; exit 1 where something may still be missing.
    Backfill(backfill::BackfillArgs),
    /// What can be traded where, by the venues' own tables.
    Instruments {
        /// What to do with them.
        #[command(subcommand)]
        action: instruments::InstrumentsAction,
    },
    /// Days of the database as Parquet in an object store.
    Archive {
        /// What to do with it.
        #[command(subcommand)]
        action: life::ArchiveAction,
    },
    /// Bring archived rows back into their table, or write them to a file.
    Restore(life::RestoreArgs),
    /// Backups of the database's cluster, and proof that they can be restored.
    Backup {
        /// What to do.
        #[command(subcommand)]
        action: backup::BackupAction,
    },
    /// Compress, archive and drop what is old.
    Lifecycle {
        /// What to do.
        #[command(subcommand)]
        action: life::LifecycleAction,
    },
    /// Rows of a time range, from the table and from the archive.
    Query(life::QueryArgs),
    /// Migrations of the database.
    Migrate {
        /// What to do with them.
        #[command(subcommand)]
        action: MigrateAction,
    },
    /// Check configuration, services or the whole way; exit 1 where something is wrong.
    Check(CheckArgs),
    /// Prove that nothing was lost or doubled, up to the store's fences; exit 1 where something is
    /// wrong, 2 where that could not be found out.
    Audit(audit::AuditArgs),
    /// Examine what the pipeline stands on: database, Redis, the data itself; exit 1 with warnings, 2
    /// where something is critical.
    Doctor(doctor::DoctorArgs),
    /// Compare the rows of two databases; exit 1 where they differ, 2 where that could not be
    /// found out.
    Compare(compare::CompareArgs),
    /// The store's ledger.
    Ledger {
        /// What to do with it.
        #[command(subcommand)]
        action: audit::LedgerAction,
    },
    /// The configuration, and settings kept in the database.
    Config {
        /// What to do with it.
        #[command(subcommand)]
        action: ConfigAction,
    },
    /// Ask a running stage for its health; exit 1 where it is not well.
    Health {
        /// Address of `/health/ready` or `/health/live`.
        #[arg(long, default_value = "http://127.0.0.1:9100/health/ready")]
        url: String,
    },
}

/// What to do with topics.
#[derive(Debug, Subcommand)]
pub enum TopicsAction {
    /// Create those that do not exist.
    Create,
}

/// What to check beside the configuration, which is checked always (`check --config [FILE]`).
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Kafka, registry, database and Redis: reachable and fit.
    #[arg(long)]
    pub deps: bool,
    /// The whole way: the demo on its simulated venue (topics of its own, database tapeline_demo, Redis database 1).
    #[arg(long)]
    pub e2e: bool,
}

impl Cli {
    /// The exit code of a command that could not be carried out.
    fn failure_code(&self) -> ExitCode {
        match self.command {
            Command::Audit(_) | Command::Compare(_) | Command::Doctor(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Reads the command line and does what it says. In the library, so that nothing is compiled twice.
#[tokio::main]
pub async fn main() -> ExitCode {
    let cli = Cli::parse();
    let failure = cli.failure_code();
    match run(cli).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tapeline: {error:#}");
            failure
        }
    }
}

async fn run(cli: Cli) -> Result<ExitCode> {
    if let Command::Health { url } = &cli.command {
        return Ok(code(telemetry::health_client(url).await));
    }
    let file = cli.config.filter(|file| file.as_os_str() != NO_FILE);
    let mut config = Config::load(file.as_deref())?;
    let looked_at = matches!(
        cli.command,
        Command::Demo(_)
            | Command::Doctor(_)
            | Command::Quarantine { .. }
            | Command::Lag(_)
            | Command::Replay(_)
            | Command::Backfill(_)
            | Command::Cache(cache::CacheArgs { action: Some(_), .. })
    );
    if looked_at && config.log == LogConfig::default() {
        "warn".clone_into(&mut config.log.level); // its output is what people look at
    }
    telemetry::init_logs(&config.log)?;
    match cli.command {
        Command::Validate(args) => host::stages(config, vec![StageName::Validate], &args).await?,
        Command::Store(args) => host::stages(config, vec![StageName::Store], &args).await?,
        Command::Cache(args) => return cache::run(config, args).await,
        Command::Candles(args) => host::stages(config, vec![StageName::Candles], &args).await?,
        Command::Influx(args) => host::stages(config, vec![StageName::Influx], &args).await?,
        Command::Run { stages, args } => host::stages(config, stages, &args).await?,
        Command::Replay(args) => return replay::run(config, *args).await,
        Command::Connect(args) => serve::connect(config, file, args).await?,
        Command::Demo(args) => {
            return crate::demo::run(config, args, host::stopped_by_signal()?).await;
        }
        Command::Playback(args) => serve::playback(args).await?,
        Command::Registry(args) => serve::registry(config, args).await?,
        Command::Topics { action: TopicsAction::Create } => {
            for name in kafka::create_topics(&config.kafka).await? {
                println!("created {name}");
            }
        }
        Command::Quarantine { action } => return quarantine::run(config, action).await,
        Command::Lag(args) => lag::run(config, args).await?,
        Command::Feeds(args) => feeds::run(&config, args).await?,
        Command::Backfill(args) => return backfill::run(config, args).await,
        Command::Gaps(args) => gaps::run(&config, args).await?,
        Command::Ledger { action } => audit::ledger(&config, &action).await?,
        Command::Archive { action } => return life::archive(&config, action).await,
        Command::Restore(args) => life::restore(&config, args).await?,
        Command::Lifecycle { action } => life::lifecycle(&config, action).await?,
        Command::Backup { action } => return backup::run(&config, action).await,
        Command::Query(args) => life::query(&config, args).await?,
        Command::Audit(args) => return audit::run(&config, args).await,
        Command::Doctor(args) => return doctor::run(&config, args).await,
        Command::Compare(args) => return compare::run(&config, args).await,
        Command::Migrate { action } => return database::migrations(&config, &action).await,
        Command::Instruments { action } => instruments::run(&config, action).await?,
        Command::Check(args) => return check::run(config, &args).await,
        Command::Config { action } => database::configuration(&config, action).await?,
        Command::Health { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}

fn code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_config_needs_no_file() {
        for (arguments, file) in [
            (&["tapeline", "check", "--config"][..], Some(NO_FILE)),
            (&["tapeline", "check", "--config", "--deps"], Some(NO_FILE)),
            (&["tapeline", "--config", "a.toml", "check"], Some("a.toml")),
        ] {
            let cli = Cli::try_parse_from(arguments).expect("parses");
            assert_eq!(cli.config, file.map(PathBuf::from), "{arguments:?}");
        }
    }
}
