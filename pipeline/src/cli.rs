//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Market-data pipeline: exchanges to Kafka to TimescaleDB, Redis and candles.
#[derive(Debug, Parser)]
#[command(name = "tapeline", version, about)]
pub struct Cli {
    /// Configuration file: TOML, JSON or YAML. The environment (`TAPELINE__SECTION__KEY`) comes over it.
    #[arg(long, global = true, env = "TAPELINE_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {}

/// Runs a command.
pub async fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {}
}
