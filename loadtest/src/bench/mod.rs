//! `bench`: the figures that the README shows, each measured in the same run.

mod connect;
mod fill;
mod results;
mod site;
mod stage;
mod store;

use std::path::PathBuf;

use anyhow::{Result, ensure};

use self::results::Results;

/// Names of the benchmarks, in the order in which they run.
const NAMES: [&str; 8] =
    ["limit", "store", "kafka-connect", "tape", "latency", "memory", "scale", "decode"];

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    /// Small sizes: under 3 minutes, and figures to match.
    #[arg(long)]
    quick: bool,
    /// Only these benchmarks.
    #[arg(long, num_args = 1.., value_parser = NAMES)]
    only: Vec<String>,
    /// Measure nothing: put the table of the last results into README.md.
    #[arg(long)]
    readme: bool,
    /// Where results and plots are written.
    #[arg(long, default_value = "loadtest/results")]
    results: PathBuf,
}

/// How much is measured.
#[derive(Debug, Clone)]
pub(crate) struct Sizes {
    /// Records that are stored in each round.
    pub(crate) store_records: u64,
    /// Rounds of `limit`, `store` and `kafka-connect`.
    pub(crate) store_rounds: usize,
}

impl Sizes {
    const FULL: Sizes = Sizes { store_records: 1_500_000, store_rounds: 5 };
    const QUICK: Sizes = Sizes { store_records: 300_000, store_rounds: 1 };
}

/// One run.
pub(crate) struct Bench {
    only: Vec<String>,
}

impl Bench {
    /// Whether a benchmark is asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    /// Tells how far it is.
    pub(crate) fn say(&self, what: &str) {
        eprintln!("bench: {what}");
    }
}

/// Runs the command.
pub(crate) async fn run(args: BenchArgs) -> Result<()> {
    ensure!(!cfg!(debug_assertions), "benchmarks of a debug build say nothing: use `make bench`");
    let bench = Bench { only: args.only };
    let sizes = if args.quick { Sizes::QUICK } else { Sizes::FULL };
    let mut results = Results { quick: args.quick, ..Results::default() };
    if ["limit", "store", "kafka-connect"].iter().any(|name| bench.wants(name)) {
        store::run(&bench, &sizes, &mut results).await?;
    }
    results.conclude();
    std::fs::create_dir_all(&args.results)?;
    results.write(&args.results.join("latest.json"))?;
    Ok(())
}
