//! Load for the pipeline: seeded, realistic enough to be worth storing; and the faults that it has
//! to survive.

mod faults;
mod market;
mod random;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use tapeline::config::Config;
use tapeline::wiring::Context;
use tapeline_schemas::{Kind, Micros, encode};
use tokio_util::sync::CancellationToken;

use crate::market::Market;

/// Load generator of Tapeline.
#[derive(Debug, Parser)]
#[command(name = "tapeline-loadtest", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Publish trades of a simulated market into the raw topic.
    Produce(ProduceArgs),
    /// Make things go wrong, and compare what is stored with what was sent.
    Faults(faults::FaultsArgs),
}

#[derive(Debug, clap::Args)]
struct ProduceArgs {
    /// Number of trades.
    #[arg(long, default_value_t = 100_000)]
    trades: u64,
    /// Number of symbols; activity is skewed towards the first ones.
    #[arg(long, default_value_t = 50)]
    symbols: u32,
    /// Trades a second; as fast as possible where it is 0.
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// The same seed gives the same trades.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Trades published twice, of every thousand.
    #[arg(long, default_value_t = 0)]
    duplicates_per_mille: u64,
    /// Time of the first trade, Unix seconds.
    #[arg(long, default_value_t = 1_700_000_000)]
    start: i64,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
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
        Command::Produce(args) => {
            let context = Context::new(Config::load(None)?, &CancellationToken::new()).await?;
            produce(&context, &args).await?;
            Ok(true)
        }
        Command::Faults(args) => {
            // Dropped at a signal, so that processes and services end with it.
            tokio::select! {
                good = faults::run(args) => good,
                _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            }
        }
    }
}

/// Trades between two looks at the clock.
const PACE: u64 = 100;

async fn produce(context: &Context, args: &ProduceArgs) -> Result<()> {
    let publisher = context.publisher()?;
    let start = Micros(args.start.checked_mul(1_000_000).context("start is out of range")?);
    let mut market = Market::new(args.seed, args.symbols, start);
    let began = Instant::now();
    let mut repeated = 0_u64;
    for number in 0..args.trades {
        let trade = market.next_trade();
        let key = format!("{}:{}", trade.exchange, trade.symbol);
        let payload = encode(&trade);
        let again = market.one_in_a_thousand(args.duplicates_per_mille);
        for _ in 0..=u32::from(again) {
            publisher.event(Kind::Trade, &key, &payload).await.map_err(anyhow::Error::msg)?;
        }
        repeated += u64::from(again);
        if args.rate > 0 && number % PACE == 0 {
            let due = Duration::from_secs_f64(number as f64 / args.rate as f64);
            tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        }
    }
    publisher.delivered().await.map_err(anyhow::Error::msg)?;
    let seconds = began.elapsed().as_secs_f64();
    let sent = args.trades + repeated;
    println!("{sent} trades, {repeated} of them repeated, {:.0} a second", sent as f64 / seconds);
    Ok(())
}
