//! `bench`: the figures that the README shows, each measured in the same run.

mod connect;
mod decode;
mod fill;
mod latency;
mod line;
mod machine;
mod memory;
mod plot;
mod results;
mod scale;
mod site;
mod stage;
mod store;
mod table;
mod tape;

use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use tokio::signal::unix::{SignalKind, signal};

use self::connect::Insert;
pub(crate) use self::machine::describe;
pub(crate) use self::results::Machine;
use self::results::Results;
pub(crate) use self::stage::without_overrides;

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
    /// Ways in which Kafka Connect inserts, of [`Insert::ALL`].
    pub(crate) inserts: usize,
    /// Records through all stages in each round.
    pub(crate) tape_records: u64,
    /// Rounds of `tape`.
    pub(crate) tape_rounds: usize,
    /// Length of a round of `latency`.
    pub(crate) latency_time: Duration,
    /// Rounds of `latency`.
    pub(crate) latency_rounds: usize,
    /// Records at full speed before the database is stopped.
    pub(crate) memory_records: u64,
    /// How long the database is stopped.
    pub(crate) memory_stopped: Duration,
    /// Records in the topic that all stores share.
    pub(crate) scale_records: u64,
    /// How long the stores are watched.
    pub(crate) scale_time: Duration,
    /// Rounds of `scale`.
    pub(crate) scale_rounds: usize,
    /// How long a venue's recording is looped.
    pub(crate) decode_time: Duration,
    /// Rounds of `decode`.
    pub(crate) decode_rounds: usize,
}

impl Sizes {
    const FULL: Sizes = Sizes {
        store_records: 1_500_000,
        store_rounds: 3,
        inserts: Insert::ALL.len(),
        tape_records: 3_000_000,
        tape_rounds: 3,
        latency_time: Duration::from_secs(30),
        latency_rounds: 3,
        memory_records: 2_000_000,
        memory_stopped: Duration::from_secs(60),
        scale_records: 800_000,
        scale_time: Duration::from_secs(12),
        scale_rounds: 3,
        decode_time: Duration::from_secs(2),
        decode_rounds: 3,
    };
    const QUICK: Sizes = Sizes {
        store_records: 300_000,
        store_rounds: 1,
        inserts: 1,
        tape_records: 200_000,
        tape_rounds: 1,
        latency_time: Duration::from_secs(8),
        latency_rounds: 1,
        memory_records: 200_000,
        memory_stopped: Duration::from_secs(6),
        scale_records: 400_000,
        scale_time: Duration::from_secs(3),
        scale_rounds: 1,
        decode_time: Duration::from_millis(500),
        decode_rounds: 1,
    };
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
    let latest = args.results.join("latest.json");
    if args.readme {
        return table::into_readme(&Results::read(&latest)?, Path::new("README.md"));
    }
    ensure!(!cfg!(debug_assertions), "benchmarks of a debug build say nothing: use `make bench`");
    let bench = Bench { only: args.only };
    let sizes = if args.quick { Sizes::QUICK } else { Sizes::FULL };
    let mut results = Results { quick: args.quick, ..Results::default() };
    let began = Instant::now();
    (results.date, results.commit, results.machine) = describe().await?;
    // What is dropped ends its processes.
    let measured = tokio::select! {
        measured = measure(&bench, &sizes, &mut results) => measured,
        () = interrupted() => {
            site::remove_left_over().await?;
            bail!("interrupted");
        }
    };
    if measured.is_err() {
        site::remove_left_over().await?;
    }
    if results.series.is_empty() {
        return measured;
    }
    results.conclude();
    std::fs::create_dir_all(&args.results)?;
    results.write(&latest)?;
    plot::write(&results, &args.results)?;
    println!("{}\n\n{}", table::facts(&results), table::table(&results));
    results.notes.iter().for_each(|note| println!("- {note}"));
    println!("{} and plots beside it; {:.0} s", latest.display(), began.elapsed().as_secs_f64());
    measured
}

/// SIGINT or SIGTERM.
pub(crate) async fn interrupted() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// Measures one benchmark after another. One that fails is a note in the results, and the others go on.
async fn measure(bench: &Bench, sizes: &Sizes, results: &mut Results) -> Result<()> {
    let mut failed = Vec::new();
    let mut judge = |name: &str, outcome: Result<()>, results: &mut Results| {
        if let Err(error) = outcome {
            let note = format!("{name} failed: {error:#}");
            bench.say(&note);
            results.notes.push(note);
            failed.push(name.to_owned());
        }
    };
    if ["limit", "store", "kafka-connect"].iter().any(|name| bench.wants(name)) {
        let outcome = store::run(bench, sizes, results).await;
        judge("limit, store, kafka-connect", outcome, results);
    }
    if bench.wants("tape") {
        let outcome = tape::run(bench, sizes, results).await;
        judge("tape", outcome, results);
    }
    if bench.wants("latency") {
        let outcome = latency::run(bench, sizes, results).await;
        judge("latency", outcome, results);
    }
    if bench.wants("memory") {
        let outcome = memory::run(bench, sizes, results).await;
        judge("memory", outcome, results);
    }
    if bench.wants("scale") {
        let outcome = scale::run(bench, sizes, results).await;
        judge("scale", outcome, results);
    }
    if bench.wants("decode") {
        let outcome = tokio::task::block_in_place(|| decode::run(bench, sizes, results));
        judge("decode", outcome, results);
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join("; "));
    Ok(())
}
