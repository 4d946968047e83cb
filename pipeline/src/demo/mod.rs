//! The demo: exchange traffic through the whole pipeline, and what became of every record.

mod latency;
mod report;
mod setup;
mod tape;
mod wait;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::report::Report;
use self::tape::Tape;
use crate::config::Config;
use crate::kafka::delete_topics;
use crate::playback::Speed;
use crate::venue::driver::PlaybackClock;
use crate::wiring::{Context, StageName, run_stage};
use crate::{connect, telemetry};

/// How to show it.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Directory of recordings; without it, a simulated venue with faults of every kind.
    #[arg(long, env = "TAPELINE_RECORDINGS", default_value = "../shared/recordings")]
    pub recordings: PathBuf,
    /// Play the simulated venue even where there are recordings.
    #[arg(long)]
    pub simulated: bool,
    /// `1` as recorded, `N` times as fast, or `max`.
    #[arg(long, default_value = "10")]
    pub speed: Speed,
    /// Print one JSON object as the last line.
    #[arg(long)]
    pub json: bool,
    /// Keep everything running afterwards, until a signal.
    #[arg(long)]
    pub stay: bool,
}

impl DemoArgs {
    /// The simulated venue, as fast as possible.
    pub fn simulated() -> DemoArgs {
        DemoArgs {
            recordings: PathBuf::new(),
            simulated: true,
            speed: Speed::Max,
            json: false,
            stay: false,
        }
    }
}

/// Runs the demo; succeeds only where every raw offset is accounted for.
pub async fn run(config: Config, args: DemoArgs, stop: CancellationToken) -> Result<ExitCode> {
    let id = format!("demo-{:08x}", RandomState::new().hash_one(0) as u32);
    let config = setup::prepare(config, &id).await?;
    if args.stay
        && let Some(listen) = &config.http.listen
    {
        telemetry::serve(listen, telemetry::Readiness::new(), stop.clone()).await?;
    }
    let kafka = config.kafka.clone();
    let outcome = play(config, &args, &stop).await;
    delete_topics(&kafka).await?;
    let report = outcome?;
    Ok(if report.ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn play(config: Config, args: &DemoArgs, stop: &CancellationToken) -> Result<Report> {
    let context = Context::new(config, stop).await?;
    let stages_stop = stop.child_token();
    let mut stages = JoinSet::new();
    for name in StageName::WHOLE {
        let (context, token) = (context.clone(), stages_stop.clone());
        stages.spawn(async move { run_stage(name, &context, token).await });
    }
    let report = tokio::select! {
        report = watch(&context, args, stop) => report,
        ended = stages.join_next() => {
            let ended = ended.context("no stage runs")?;
            ended.context("a stage panicked")?.and_then(|()| anyhow::bail!("a stage ended too soon"))
        }
    };
    if args.stay && report.is_ok() {
        eprintln!(
            "everything stays up: topics {}*, database {}; ctrl-c ends it",
            context.config.kafka.topic_prefix,
            setup::DATABASE
        );
        stop.cancelled().await;
    }
    stages_stop.cancel();
    while let Some(ended) = stages.join_next().await {
        if let Err(error) = ended.context("a stage panicked")? {
            tracing::warn!(error = format!("{error:#}"), "a stage ended badly");
        }
    }
    report
}

async fn watch(context: &Context, args: &DemoArgs, stop: &CancellationToken) -> Result<Report> {
    let tape = Tape::serve(args).await?;
    eprintln!("playing {} at speed {:?}", tape.description(), args.speed);
    let stats: BTreeMap<_, _> =
        tape.venues().iter().map(|venue| (venue.venue.clone(), Arc::default())).collect();
    let venues = tape
        .venues()
        .iter()
        .map(|venue| (venue.clone(), Arc::clone(&stats[&venue.venue])))
        .collect();
    let connectors = connect::run(context, venues, Arc::new(PlaybackClock), stop.child_token());
    let progress = wait::show_progress(context, &stats);
    let reports = tokio::select! {
        reports = connectors => reports?,
        never = progress => never?,
    };
    wait::until_durable(context, stop).await?;
    let report = report::gather(context, &reports).await?;
    tape.shutdown().await;
    report.print();
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    }
    Ok(report)
}
