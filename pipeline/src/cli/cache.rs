//! `tapeline cache`: the stage, and Redis filled again from the database.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::host::{self, StageArgs};
use crate::config::Config;
use crate::rebuild::{self, Request};
use crate::wiring::StageName;

/// Runs the stage where nothing else is asked for.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct CacheArgs {
    /// Beside the stage.
    #[command(subcommand)]
    pub action: Option<CacheAction>,
    /// As for each stage.
    #[command(flatten)]
    pub stage: StageArgs,
}

/// What to do with what Redis holds.
#[derive(Debug, Subcommand)]
pub enum CacheAction {
    /// Write the newest values that the database holds and that have not outlived their time; also beside the running
    /// stage, for nothing in Redis gives way to what is older. Waits for the store to come to the log's end.
    Rebuild(RebuildArgs),
}

/// What to rebuild.
#[derive(Debug, Args)]
pub struct RebuildArgs {
    /// Only these symbols: `BTC-USD`, or `KRAKEN:BTC-USD`.
    #[arg(long = "symbol", value_name = "SYMBOL", value_delimiter = ',')]
    pub symbols: Vec<String>,
    /// Say what would be written, and write nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Seconds that the store is given to come to the log's end.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub wait: u64,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Does it.
pub(super) async fn run(config: Config, args: CacheArgs) -> Result<ExitCode> {
    match args.action {
        None => host::stages(config, vec![StageName::Cache], &args.stage).await?,
        Some(CacheAction::Rebuild(args)) => {
            let wait = Duration::from_secs(args.wait);
            let request = Request { symbols: args.symbols, dry_run: args.dry_run, wait };
            let report = rebuild::run(&config, &request).await?;
            if args.json {
                println!("{}", serde_json::to_string(&report)?);
            } else {
                report.print();
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
