//! Load for the pipeline: a seeded market into the raw topics, and benchmarks on it.

mod bench;
mod cpu;
mod market;
mod produce;
mod proxy;

use anyhow::Result;
use clap::{Parser, Subcommand};
use tapeline::config::Config;

/// Load generator and benchmarks of Tapeline.
#[derive(Debug, Parser)]
#[command(name = "tapeline-loadtest", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Publish the records of a simulated market into the raw topics.
    Produce(produce::ProduceArgs),
    /// Measure the pipeline, and programs like it, on this machine.
    Bench(bench::BenchArgs),
}

#[tokio::main]
async fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Produce(args) => produce::run(Config::load(None)?, args).await,
        Command::Bench(args) => bench::run(args).await,
    }
}
