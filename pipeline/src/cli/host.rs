//! Hosting stages in one process until a signal, or until one of them must not go on.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tapeline_schemas::Micros;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::telemetry::{self, Readiness};
use crate::wiring::{Context, StageName, run_stage};

/// Time between two looks.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Looks once or, with `watch`, every two seconds until a signal.
pub(super) async fn look(watch: bool, mut once: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    let shutdown = stopped_by_signal()?;
    loop {
        once().await?;
        if !watch {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(WATCH_EVERY) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}

/// Clears a terminal and writes the time into its first line.
pub(super) fn clear(now: Micros) {
    println!("\x1b[H\x1b[2J{now}");
}

/// How to run stages.
#[derive(Debug, clap::Args)]
pub struct StageArgs {
    /// Go on where retention has taken what was to be read next. What is gone is counted as lost,
    /// in the log and in the ledger.
    #[arg(long)]
    pub accept_loss: bool,
}

/// A token that SIGTERM and SIGINT cancel.
pub(super) fn stopped_by_signal() -> Result<CancellationToken> {
    let token = CancellationToken::new();
    let stop = token.clone();
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: what was read is written and committed first");
        stop.cancel();
    });
    Ok(token)
}

/// Runs `names`, all stages where it is empty.
pub(super) async fn stages(config: Config, names: Vec<StageName>, args: &StageArgs) -> Result<()> {
    let names = if names.is_empty() { StageName::WHOLE.to_vec() } else { names };
    tapeline_stages::failpoint::arm_signals(
        &std::env::var("TAPELINE_FAILPOINTS").unwrap_or_default(),
    )
    .map_err(anyhow::Error::msg)?;
    let shutdown = stopped_by_signal()?;
    let readiness = Readiness::new();
    let starting = readiness.component("start");
    if let Some(listen) = &config.http.listen {
        telemetry::serve(listen, readiness.clone(), shutdown.clone()).await?;
    }
    let mut context = Context::new(config, &shutdown).await?;
    context.accept_loss = args.accept_loss;
    context.readiness = readiness.clone();
    // All that will have to be ready, before the first of them is.
    for group in context.groups()?.iter().filter(|group| names.contains(&group.stage)) {
        readiness.component(group.name);
    }
    let mut running = JoinSet::new();
    for name in names {
        let (context, shutdown) = (context.clone(), shutdown.child_token());
        running.spawn(async move { run_stage(name, &context, shutdown).await });
    }
    starting.ready();
    let mut first_failure = None;
    while let Some(ended) = running.join_next().await {
        if let Err(error) = ended.context("a stage panicked").and_then(|ended| ended) {
            first_failure.get_or_insert(error);
        }
        // Half a pipeline is no pipeline: whoever supervises the process starts all of it again.
        shutdown.cancel();
    }
    first_failure.map_or(Ok(()), Err)
}
