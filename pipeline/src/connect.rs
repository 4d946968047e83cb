//! Connectors under way: a driver for each configured venue, publishing into the raw topics (C1).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tapeline_schemas::{Control, GapChange, Kind};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::{Config, ConnectConfig};
use crate::instruments;
use crate::kafka::RawPublisher;
use crate::record::Limits;
use crate::venue::driver::{Clock, Lease, Network, Shared, VenueConfig};
use crate::venue::{
    Body, Outgoing, PublishError, Publisher, Settings, StatsReport, SymbolTable, VenueStats,
};
use crate::wiring::Context;

mod again;
mod left;
mod reload;

pub use self::again::again;
use self::reload::Running;
pub use self::reload::{Change, prepare};

const MIB: u64 = 1024 * 1024;

/// Publishes into the raw topics, and keeps what venues list in the database, beside it.
struct Live {
    raw: RawPublisher,
    context: Context,
    listings: Mutex<Vec<JoinHandle<()>>>,
}

impl Publisher for Live {
    async fn publish(&self, outgoing: Outgoing) -> Result<(), PublishError> {
        let Outgoing { kind, key, body } = outgoing;
        match body {
            Body::Event(payload) => self.raw.event(kind, &key, &payload).await,
            Body::Control(control) => self.raw.control(kind, &key, &control).await,
        }
        .map_err(PublishError)
    }

    async fn broadcast(&self, kind: Kind, control: Control) -> Result<(), PublishError> {
        self.raw.broadcast(kind, &control).await.map_err(PublishError)
    }

    async fn delivered(&self) -> Result<(), PublishError> {
        self.raw.delivered().await.map_err(PublishError)
    }

    async fn left_open(
        &self,
        venue: &'static str,
        settings: &Settings,
    ) -> Result<Vec<GapChange>, PublishError> {
        // What this process said of its own holes is to be found there.
        self.delivered().await?;
        let holes = left::open_holes(&self.context, venue, settings).await;
        holes.map_err(|error| PublishError(format!("{error:#}")))
    }

    fn listed(&self, venue: &'static str, table: SymbolTable) {
        let url = self.context.config.database.url.clone();
        let listing = tokio::spawn(async move {
            let stored = instruments::store(&url, venue, &table);
            match tokio::time::timeout(instruments::PATIENCE, stored).await {
                Ok(Ok(changed)) => info!(venue, listed = table.len(), changed, "instruments kept"),
                Ok(Err(error)) => {
                    warn!(venue, error = format!("{error:#}"), "instruments not kept")
                }
                Err(_) => warn!(venue, "instruments not kept: the database does not answer"),
            }
        });
        self.listings.lock().unwrap_or_else(PoisonError::into_inner).push(listing);
    }
}

/// How `venue` is reached: its addresses, and the limits that everybody who asks it shares. It need not be configured.
pub fn reached(config: &Config, venue: &str, settings: Settings) -> Result<VenueConfig> {
    let mut live = VenueConfig::live(venue, settings)?;
    let own = config.connect.venues.get(&live.venue).cloned().unwrap_or_default();
    live.rest_url = own.rest_url.unwrap_or(live.rest_url);
    live.ws_url = own.ws_url.unwrap_or(live.ws_url);
    let age = own.max_connection_age_s.unwrap_or(config.connect.max_connection_age_s);
    live.max_age = (age > 0).then(|| Duration::from_secs(age));
    let silence = i64::try_from(own.stale_after_ms.unwrap_or(config.connect.stale_after_ms))?;
    live.stale_after_micros = (silence > 0).then_some(silence * 1_000);
    if !config.connect.instance.is_empty() {
        live.lease = Some(Lease {
            name: format!("{}{}", config.kafka.topic_prefix, live.venue),
            instance: config.connect.instance.clone(),
            term: Duration::from_millis(config.connect.lease_ms),
        });
    }
    let (proxy, ca_file) = (&config.connect.proxy, &config.connect.ca_file);
    live.network = Network::new(proxy.as_deref(), ca_file.as_deref().map(Path::new))
        .context("connect.proxy and connect.ca_file")?
        .with_compression(config.connect.compression);
    live.shared = Some(Shared::open(config.redis.client()?).context("redis")?);
    live.complete_every_micros = i64::try_from(config.connect.complete_interval_ms)? * 1_000;
    live.record = limits(&config.connect);
    Ok(live)
}

/// Several connectors of the same symbols may share a machine: each keeps a directory of its own name.
fn limits(ConnectConfig { instance, record, .. }: &ConnectConfig) -> Option<Limits> {
    let dir = match instance.as_str() {
        "" => PathBuf::from(&record.dir),
        instance => Path::new(&record.dir).join(instance),
    };
    record.enabled.then(|| Limits {
        dir,
        file_bytes: record.file_mb.saturating_mul(MIB),
        max_bytes: record.max_mb.saturating_mul(MIB),
        max_age: Duration::from_secs(record.keep_hours.saturating_mul(3_600)),
    })
}

/// The configured venues, or those of them that are named, with what earlier connectors left of each.
pub async fn configured(context: &Context, only: &[String]) -> Result<Vec<VenueConfig>> {
    let mut venues = named(&context.config, only)?;
    for venue in &mut venues {
        left::resume(context, venue).await?;
    }
    Ok(venues)
}

/// The configured venues, or those of them that are named.
fn named(config: &Config, only: &[String]) -> Result<Vec<VenueConfig>> {
    let mut venues = Vec::new();
    for (name, venue) in &config.connect.venues {
        let wanted = only.is_empty() || only.iter().any(|only| only.eq_ignore_ascii_case(name));
        if !venue.enabled || !wanted {
            continue;
        }
        venues.push(reached(config, name, settings(config, venue)?)?);
    }
    ensure!(!venues.is_empty(), "no venue is configured and enabled under connect.venues");
    Ok(venues)
}

fn settings(config: &Config, venue: &crate::config::VenueConfig) -> Result<Settings> {
    let channels = venue
        .channels
        .iter()
        .map(|name| Kind::from_name(name).with_context(|| format!("unknown channel `{name}`")))
        .collect::<Result<Vec<_>>>()?;
    let mut settings = Settings::new(venue.symbols.clone(), channels);
    settings.top_levels = config.connect.book_depth;
    settings.top_every_micros = i64::try_from(config.connect.book_interval_ms)? * 1_000;
    Ok(settings)
}

/// Runs `venues` until `stop`, or until the tapes of all of them have ended; everything published
/// is delivered when it returns.
pub async fn run(
    context: &Context,
    venues: Vec<(VenueConfig, Arc<VenueStats>)>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> Result<BTreeMap<String, StatsReport>> {
    let (_, changes) = mpsc::channel(1);
    run_with(context, venues, clock, stop, changes).await
}

/// Looks after the connectors until all have ended, or one has failed.
async fn until_ended(
    context: &Context,
    running: &mut Running,
    changes: &mut mpsc::Receiver<Change>,
) -> Result<BTreeMap<String, StatsReport>> {
    let mut reports = BTreeMap::new();
    loop {
        tokio::select! {
            ended = running.drivers.join_next() => {
                let Some(ended) = ended else { return Ok(reports) };
                let (name, report) = ended.context("a connector panicked")??;
                running.ended(context, &name).await?;
                reports.insert(name, report);
            }
            Some(change) = changes.recv() => running.change(context, change).await,
        }
    }
}

/// As [`run`], going over to whatever other venues and symbols come through `changes`.
pub async fn run_with(
    context: &Context,
    venues: Vec<(VenueConfig, Arc<VenueStats>)>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    mut changes: mpsc::Receiver<Change>,
) -> Result<BTreeMap<String, StatsReport>> {
    let publisher = Arc::new(Live {
        raw: context.publisher()?.signed(&context.config.connect.instance),
        context: context.clone(),
        listings: Mutex::default(),
    });
    let mut running = Running::new(Arc::clone(&publisher), clock, stop.child_token());
    for (venue, stats) in venues {
        running.start(venue, stats);
    }
    let reports = until_ended(context, &mut running, &mut changes).await;
    // Where one has failed, the others still write what they keep.
    running.end().await;
    let reports = reports?;
    let listings =
        std::mem::take(&mut *publisher.listings.lock().unwrap_or_else(PoisonError::into_inner));
    for listing in listings {
        listing.await.context("keeping instruments panicked")?;
    }
    if let Err(reason) = publisher.raw.delivered().await {
        bail!("not everything could be published: {reason}");
    }
    Ok(reports)
}
