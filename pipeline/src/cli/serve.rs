//! Commands that serve or connect.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::host::stopped_by_signal;
use crate::config::Config;
use crate::playback::{self, Faults, Join, Options, Recording, Speed};
use crate::registry::{self, RegistryOptions};
use crate::telemetry::{self, Readiness};
use crate::venue::driver::{Clock, PlaybackClock, SystemClock};
use crate::wiring::Context;
use crate::{connect, kafka, venue};

/// How to serve the registry.
#[derive(Debug, Args)]
pub struct RegistryArgs {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:8081")]
    pub listen: String,
    /// Topic that keeps the schemas.
    #[arg(long, default_value = "_schemas")]
    pub topic: String,
}

/// Serves the registry until a signal.
pub(super) async fn registry(config: Config, args: RegistryArgs) -> Result<()> {
    let shutdown = stopped_by_signal()?;
    let options = RegistryOptions {
        brokers: config.kafka.brokers,
        properties: config.kafka.properties,
        listen: args.listen,
        topic: args.topic,
        replication: config.kafka.replication,
    };
    registry::serve(options, shutdown).await
}

/// How to connect.
#[derive(Debug, Args)]
pub struct ConnectArgs {
    /// Only these venues of the configuration.
    #[arg(long, value_delimiter = ',')]
    pub venues: Vec<String>,
    /// The venues are a playback: take receive times from it, and end with its tape.
    #[arg(long)]
    pub playback: bool,
    /// Connect to nothing: decode what connectors kept in this directory again, and publish it.
    #[arg(long, value_name = "DIR", conflicts_with = "playback")]
    pub from_recording: Option<PathBuf>,
    /// Into topics with this prefix instead of the configured one; they are made.
    #[arg(long, value_name = "PREFIX", requires = "from_recording")]
    pub into: Option<String>,
}

/// Decodes a recording again.
async fn from_recording(mut config: Config, dir: &Path, args: &ConnectArgs) -> Result<()> {
    let shutdown = stopped_by_signal()?;
    if let Some(prefix) = &args.into {
        config.kafka.topic_prefix.clone_from(prefix);
        kafka::create_topics(&config.kafka).await?;
    }
    let context = Context::new(config, &shutdown).await?;
    for (name, report) in connect::again(&context, dir, &args.venues, shutdown).await? {
        println!("{name}: {}", serde_json::to_string(&report)?);
    }
    Ok(())
}

/// Runs the connectors until a signal, or until the tapes have ended.
pub(super) async fn connect(
    config: Config,
    file: Option<PathBuf>,
    args: ConnectArgs,
) -> Result<()> {
    if let Some(dir) = &args.from_recording {
        return from_recording(config, dir, &args).await;
    }
    let shutdown = stopped_by_signal()?;
    let readiness = Readiness::new();
    let component = readiness.component("connect");
    if let Some(listen) = &config.http.listen {
        telemetry::serve(listen, readiness.clone(), shutdown.clone()).await?;
    }
    let context = Context::new(config, &shutdown).await?;
    let mut venues = connect::configured(&context, &args.venues).await?;
    let clock: Arc<dyn Clock> = if args.playback {
        venues.iter_mut().for_each(|venue| venue.finite = true);
        Arc::new(PlaybackClock)
    } else {
        Arc::new(SystemClock::default())
    };
    component.ready();
    let venues = venues.into_iter().map(|venue| (venue, Arc::default())).collect();
    let changes = changed_by_signal(file, Arc::clone(&context.config), args.venues)?;
    for (name, report) in connect::run_with(&context, venues, clock, shutdown, changes).await? {
        println!("{name}: {}", serde_json::to_string(&report)?);
    }
    Ok(())
}

/// What the configuration says of venues whenever SIGHUP asks to read it again. One that is wrong is refused as a
/// whole, and the old one stays in force.
fn changed_by_signal(
    file: Option<PathBuf>,
    config: Arc<Config>,
    only: Vec<String>,
) -> Result<mpsc::Receiver<connect::Change>> {
    let (sender, changes) = mpsc::channel(1);
    let mut hang_up = signal(SignalKind::hangup()).context("SIGHUP")?;
    tokio::spawn(async move {
        while hang_up.recv().await.is_some() {
            let change = match Config::load(file.as_deref()) {
                Ok(new) => {
                    let rest = Config { connect: config.connect.clone(), ..new.clone() };
                    if rest != *config {
                        warn!(
                            "only what stands under connect.venues takes effect without a restart"
                        );
                    }
                    connect::prepare(&new, &only).await
                }
                Err(error) => Err(error.into()),
            };
            match change {
                Ok(change) => {
                    info!("configuration read again");
                    if sender.send(change).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    error!(error, "configuration refused, the old one stays in force");
                }
            }
        }
    });
    Ok(changes)
}

/// What to play.
#[derive(Debug, Args)]
pub struct PlaybackArgs {
    /// Directory of the recordings.
    #[arg(long, env = "TAPELINE_RECORDINGS", default_value = "../shared/recordings")]
    pub recordings: PathBuf,
    /// Venues to serve; all that are recorded and known where none is named.
    #[arg(long, value_delimiter = ',')]
    pub venues: Vec<String>,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:19800")]
    pub listen: SocketAddr,
    /// `1` as recorded, `N` times as fast, or `max`.
    #[arg(long, default_value = "1")]
    pub speed: Speed,
    /// One tape for all, which begins with the first client: who connects later, or again, joins it where it is.
    #[arg(long)]
    pub live: bool,
    /// What goes wrong, in percent of frames or answers: `drop=1,duplicate=1,reorder=1,checksum=1,cut=0.1,stall=0.1,
    /// stall-ms=2000,http-429=10,http-5xx=10,slow-snapshot-ms=500`, or some of them.
    #[arg(long, value_name = "NAME=NUMBER,...")]
    pub faults: Option<Faults>,
    /// How often the tape is played, one time behind the other with later times and higher ids.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub laps: u32,
    /// The same seed draws the same faults.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// Serves recordings until a signal.
pub(super) async fn playback(args: PlaybackArgs) -> Result<()> {
    let shutdown = stopped_by_signal()?;
    let names: Vec<&str> = if args.venues.is_empty() {
        let known = venue::VENUES.iter().map(|spec| spec.name);
        known.filter(|name| Recording::read(&args.recordings, name).is_ok()).collect()
    } else {
        args.venues.iter().map(String::as_str).collect()
    };
    ensure!(!names.is_empty(), "no recordings in {}", args.recordings.display());
    let join = if args.live { Join::Now } else { Join::Beginning };
    let (speed, faults, seed) = (args.speed, args.faults, args.seed);
    let options = Options { speed, join, faults, seed, laps: args.laps };
    let handle = playback::serve(&args.recordings, &names, args.listen, options).await?;
    for name in &names {
        println!("{name}: {} {}", handle.ws_url(name), handle.rest_url(name));
    }
    shutdown.cancelled().await;
    if args.faults.is_some() {
        println!("faults: {}", handle.injected().count());
    }
    handle.shutdown().await;
    Ok(())
}
