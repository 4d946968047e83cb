//! A soak: recordings played again and again, with faults, through connectors and every stage, each a process of its own
//! whose memory is watched; at the end the audit.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tapeline::config::{Config, VenueConfig};
use tapeline::playback::Recording;
use tapeline::venue::VENUES;

use crate::faults::process::Process;
use crate::faults::rig::{How, Rig};
use crate::faults::site::{Addresses, Site};

const MIB: u64 = 1024 * 1024;
/// Samples fewer than this say nothing about growth.
const FEWEST_SAMPLES: usize = 16;
/// What a process may have more in the last quarter of the time than in the second, in percent and beside that in bytes.
const GROWTH_PERCENT: u64 = 25;
const GROWTH_BYTES: u64 = 24 * MIB;
/// The longest the pipeline may take to come to rest at the end.
const SETTLE: Duration = Duration::from_secs(600);
const STAGES: [&str; 4] = ["validate", "store", "cache", "candles"];

/// What to soak, and for how long.
#[derive(Debug, clap::Args)]
pub(crate) struct SoakArgs {
    /// How long.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=10_080))]
    minutes: u64,
    /// So many times as fast as recorded.
    #[arg(long, default_value_t = 10.0)]
    speed: f64,
    /// What goes wrong, as `tapeline playback --faults` takes it.
    #[arg(
        long,
        default_value = "drop=0.2,duplicate=0.2,reorder=0.2,checksum=0.1,cut=0.02,stall=0.01,stall-ms=500,http-429=5,http-5xx=5,slow-snapshot-ms=200"
    )]
    faults: String,
    /// Repeats the same faults.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Directory of the recordings.
    #[arg(long, env = "TAPELINE_RECORDINGS", default_value = "../shared/recordings")]
    recordings: PathBuf,
    /// Seconds between two looks at memory.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    every: u64,
}

/// Resident bytes of one process over time.
#[derive(Debug)]
struct Memory {
    process: &'static str,
    samples: Vec<u64>,
}

impl Memory {
    /// The most of a part of the time, in quarters.
    fn most(&self, quarter: usize) -> u64 {
        let length = self.samples.len();
        let part = self.samples.get(length * quarter / 4..length * (quarter + 1) / 4);
        part.and_then(|part| part.iter().max()).copied().unwrap_or_default()
    }

    /// Whether it stays as it is, once it has warmed up.
    fn flat(&self) -> bool {
        let (before, after) = (self.most(1), self.most(3));
        self.samples.len() < FEWEST_SAMPLES
            || after <= before + (before * GROWTH_PERCENT / 100).max(GROWTH_BYTES)
    }
}

/// Runs the soak; whether all was well.
pub(crate) async fn run(args: SoakArgs) -> Result<bool> {
    let dir = std::env::temp_dir().join(format!("tapeline-soak-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let site = Arc::new(Site::new(Addresses::from_environment()?, "soak", dir.clone()).await?);
    let listen = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let rig = Rig::with(&site, "soak", |config| configure(config, &args, &listen, &dir)).await?;
    ensure!(
        !rig.config.connect.venues.is_empty(),
        "no recordings in {}",
        args.recordings.display()
    );
    let mut processes = start(&rig, &args, &listen)?;
    let memory = watch(&args, &mut processes).await?;
    let good = finish(&rig, processes, &memory).await?;
    if good {
        rig.finish().await?;
        site.finish().await?;
        std::fs::remove_dir_all(&dir)?;
    } else {
        println!("logs are in {}", dir.display());
    }
    Ok(good)
}

/// Every recorded venue, as the playback will serve it.
fn configure(config: &mut Config, args: &SoakArgs, listen: &str, dir: &std::path::Path) {
    for spec in &VENUES {
        let Ok(recording) = Recording::read(&args.recordings, spec.name) else { continue };
        let settings = recording.settings();
        let path = spec.name.to_ascii_lowercase();
        let venue = VenueConfig {
            symbols: settings.symbols,
            channels: settings.channels.iter().map(|kind| kind.name().to_owned()).collect(),
            ws_url: Some(format!("ws://{listen}/{path}")),
            rest_url: Some(format!("http://{listen}/{path}")),
            ..VenueConfig::default()
        };
        config.connect.venues.insert(spec.name.to_owned(), venue);
    }
    config.connect.record.enabled = true;
    config.connect.record.dir = dir.join("recordings").display().to_string();
    config.connect.record.file_mb = 4;
    config.connect.record.max_mb = 32;
    config.store.batch_rows = 10_000;
}

fn start(rig: &Rig, args: &SoakArgs, listen: &str) -> Result<Vec<(&'static str, Process)>> {
    let arguments = |list: &[&str]| How {
        arguments: list.iter().map(|text| (*text).to_owned()).collect(),
        ..How::default()
    };
    let (recordings, speed) = (args.recordings.display().to_string(), args.speed.to_string());
    let (seed, laps) = (args.seed.to_string(), u32::MAX.to_string());
    let playback = arguments(&[
        "--recordings",
        &recordings,
        "--listen",
        listen,
        "--speed",
        &speed,
        "--live",
        "--laps",
        &laps,
        "--faults",
        &args.faults,
        "--seed",
        &seed,
    ]);
    let mut processes = vec![("playback", rig.start("playback", &playback)?)];
    for stage in STAGES {
        processes.push((stage, rig.start(stage, &How::default())?));
    }
    processes.push(("connect", rig.start("connect", &arguments(&["--playback"]))?));
    Ok(processes)
}

/// Looks at memory until the time is over; fails where a process ends by itself.
async fn watch(args: &SoakArgs, processes: &mut [(&'static str, Process)]) -> Result<Vec<Memory>> {
    let mut memory: Vec<Memory> =
        processes.iter().map(|(process, _)| Memory { process, samples: Vec::new() }).collect();
    let names: Vec<String> = memory.iter().map(|of| format!("{:>9}", of.process)).collect();
    println!("resident MiB\n    min {}", names.join(" "));
    let (began, length) = (Instant::now(), Duration::from_secs(args.minutes * 60));
    let mut look = tokio::time::interval(Duration::from_secs(args.every));
    let every = (length.as_secs() / args.every / 40).max(1);
    let mut looks = 0;
    while began.elapsed() < length {
        look.tick().await;
        let mut line = format!("{:>7.1}", began.elapsed().as_secs_f64() / 60.0);
        for (of, (_, process)) in memory.iter_mut().zip(processes.iter_mut()) {
            process.still_runs()?;
            let resident = process.resident();
            of.samples.push(resident);
            line.push_str(&format!(" {:>9}", resident / MIB));
        }
        if looks % every == 0 {
            println!("{line}");
        }
        looks += 1;
    }
    Ok(memory)
}

/// Stops the connectors, waits until everything is where it belongs, and says what was found.
async fn finish(
    rig: &Rig,
    processes: Vec<(&'static str, Process)>,
    memory: &[Memory],
) -> Result<bool> {
    let (feed, mut stages): (Vec<_>, Vec<_>) =
        processes.into_iter().partition(|(name, _)| matches!(*name, "connect" | "playback"));
    for (name, process) in feed.into_iter().rev() {
        let said = process.said_at_its_end().await.with_context(|| name.to_owned())?;
        said.lines().filter(|line| !line.contains("://")).for_each(|line| println!("{line}"));
    }
    let began = Instant::now();
    let mut wrong = rig.audit().await?;
    while wrong.is_some() && began.elapsed() < SETTLE {
        for (_, process) in &mut stages {
            process.still_runs()?;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        wrong = rig.audit().await?;
    }
    for (_, process) in stages {
        process.stop().await?;
    }
    for (what, table) in [
        ("trades", "market_data_trades"),
        ("tickers", "market_data_ticker"),
        ("book snapshots", "market_data_orderbook"),
        ("gaps", "market_data_gaps"),
    ] {
        println!("{what}: {}", rig.count(&format!("select count(*) from {table}")).await?);
    }
    let mut flat = true;
    for of in memory {
        let quarters: Vec<u64> = (0..4).map(|quarter| of.most(quarter) / MIB).collect();
        let word = if of.flat() { "flat" } else { "GROWING" };
        println!("{}: most MiB in each quarter {quarters:?}, {word}", of.process);
        flat &= of.flat();
    }
    match &wrong {
        None => println!("audit: nothing lost, nothing doubled"),
        Some(wrong) => println!("{wrong}"),
    }
    Ok(flat && wrong.is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_grows_after_it_has_warmed_up_is_seen() {
        let memory = |samples: Vec<u64>| Memory { process: "x", samples };
        let warm = (0..40).map(|n| (n * 10).min(100) * MIB).collect();
        assert!(memory(warm).flat());
        assert!(!memory((0..40).map(|n| n * 10 * MIB).collect()).flat());
        assert!(memory((0..4).map(|n| n * 100 * MIB).collect()).flat(), "too few to tell");
    }
}
