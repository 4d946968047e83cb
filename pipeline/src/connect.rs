//! Connectors under way: a driver for each configured venue, publishing into the raw topics (C1).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};
use tapeline_schemas::{Control, Kind};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::config::Config;
use crate::instruments;
use crate::kafka::{RawPublisher, last_covered};
use crate::venue::driver::{self, Clock, Shared, VenueConfig};
use crate::venue::{
    Body, Outgoing, PublishError, Publisher, Settings, StatsReport, SymbolTable, VenueStats,
};
use crate::wiring::Context;

/// Publishes into the raw topics, and keeps what venues list in the database, beside it.
struct Live {
    raw: RawPublisher,
    database: String,
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

    fn listed(&self, venue: &'static str, table: SymbolTable) {
        let url = self.database.clone();
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
    if let Some(own) = config.connect.venues.get(&live.venue) {
        live.rest_url = own.rest_url.clone().unwrap_or(live.rest_url);
        live.ws_url = own.ws_url.clone().unwrap_or(live.ws_url);
    }
    live.shared = Some(Shared::open(&config.redis.url).context("redis.url")?);
    live.complete_every_micros = i64::try_from(config.connect.complete_interval_ms)? * 1_000;
    Ok(live)
}

/// The configured venues, or those of them that are named.
pub async fn configured(context: &Context, only: &[String]) -> Result<Vec<VenueConfig>> {
    let config = &context.config;
    let mut venues = Vec::new();
    for (name, venue) in &config.connect.venues {
        let wanted = only.is_empty() || only.iter().any(|only| only.eq_ignore_ascii_case(name));
        if !venue.enabled || !wanted {
            continue;
        }
        let mut live = reached(config, name, settings(config, venue)?)?;
        live.resume_from = resume_from(context, &live).await?;
        venues.push(live);
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

/// What the log already covers of a venue: a connector that starts opens its holes from there.
async fn resume_from(
    context: &Context,
    venue: &VenueConfig,
) -> Result<BTreeMap<Kind, tapeline_schemas::Micros>> {
    let (kafka, name) = (context.config.kafka.clone(), venue.venue.clone());
    let channels = venue.settings.channels.clone();
    tokio::task::spawn_blocking(move || last_covered(&kafka, &name, &channels)).await?
}

/// Runs `venues` until `stop`, or until the tapes of all of them have ended; everything published
/// is delivered when it returns.
pub async fn run(
    context: &Context,
    venues: Vec<(VenueConfig, Arc<VenueStats>)>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> Result<BTreeMap<String, StatsReport>> {
    let publisher = Arc::new(Live {
        raw: context.publisher()?,
        database: context.config.database.url.clone(),
        listings: Mutex::default(),
    });
    let mut drivers = JoinSet::new();
    for (venue, stats) in venues {
        let (publisher, clock, stop) = (Arc::clone(&publisher), Arc::clone(&clock), stop.clone());
        drivers.spawn(async move {
            let name = venue.venue.clone();
            driver::run(venue, publisher, clock, stats, stop).await.map(|report| (name, report))
        });
    }
    let mut reports = BTreeMap::new();
    while let Some(ended) = drivers.join_next().await {
        let (name, report) = ended.context("a connector panicked")??;
        reports.insert(name, report);
    }
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
