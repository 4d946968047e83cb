//! Load for the pipeline: a seeded market into the raw topics, the faults that it has to survive,
//! and benchmarks.

mod bench;
mod connections;
mod cpu;
mod database;
mod faults;
mod market;
mod produce;
mod proxy;
mod random;
mod soak;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use tapeline::config::Config;

/// Load generator, faults and benchmarks of Tapeline.
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
    /// Make things go wrong, and compare what is stored with what was sent.
    Faults(faults::FaultsArgs),
    /// Play recordings with faults through the whole pipeline for a while, and watch memory.
    Soak(soak::SoakArgs),
    /// Measure the pipeline, and programs like it, on this machine.
    Bench(bench::BenchArgs),
    /// Hold many clients at once through PgBouncer, and measure their questions.
    Connections(connections::ConnectionsArgs),
    /// Measure what the database answers, and its archive, on a table of its own.
    BenchDb(database::DatabaseArgs),
    /// Measure how many bytes each kind takes in each tier.
    Capacity,
}

/// How long threads that still work may hold up the end of a command.
const LAST_WORK: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("tapeline-loadtest: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(run());
    // What failed may leave a thread that waits for what never comes.
    runtime.shutdown_timeout(LAST_WORK);
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("tapeline-loadtest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<bool> {
    match Cli::parse().command {
        Command::Produce(args) => produce::run(Config::load(None)?, args).await.map(|()| true),
        Command::Bench(args) => bench::run(args).await.map(|()| true),
        Command::Soak(args) => {
            tokio::select! {
                good = soak::run(args) => good,
                _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            }
        }
        Command::Connections(args) => {
            connections::run(Config::load(None)?, args).await.map(|()| true)
        }
        Command::BenchDb(args) => database::run(args).await,
        Command::Capacity => database::capacity::run().await,
        Command::Faults(args) => {
            // Dropped at a signal, so that processes and services end with it.
            tokio::select! {
                good = faults::run(args) => good,
                _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            }
        }
    }
}
