//! Runs a connector against its venue: written once for all venues (C2, C3).
//!
//! Each connection and each REST request is a task that sends into one bounded channel; the core
//! takes from it, decodes and publishes in order. When the publisher waits, the core waits, the
//! channel fills, and TCP slows the venue down: nothing grows.

use std::collections::BTreeMap;
use std::sync::Arc;

use tapeline_schemas::{Kind, Micros};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

mod backoff;
mod budget;
mod clock;
mod connection;
mod core;
mod coverage;
mod rest;
mod shared;
mod symbols;

pub(crate) use backoff::wait as pause_before;
pub use budget::RequestBudget;
pub use clock::{ANNOUNCEMENT, Clock, PlaybackClock, RECORDED_AT, SystemClock};
pub use connection::END_OF_RECORDING;
pub use rest::{Answer, Rest, RestError};
pub use shared::Shared;

use self::connection::Link;
use self::core::Core;
use super::{
    Connector, DecodeError, Output, PublishError, Publisher, Settings, StatsReport, SymbolTable,
    UnknownSymbol, VenueSpec, VenueStats, venue, venue_names,
};

/// Events between connections and the core. Frames are at most 16 MiB, books of a few hundred KiB the largest seen.
const EVENTS: usize = 1_024;
/// Messages waiting to be sent on a connection.
const OUTBOX: usize = 16;

/// What a driver is to do.
#[derive(Debug, Clone)]
pub struct VenueConfig {
    /// Name of the venue.
    pub venue: String,
    /// Symbols, channels and books.
    pub settings: Settings,
    /// Base address of REST requests.
    pub rest_url: String,
    /// Base address of WebSocket connections.
    pub ws_url: String,
    /// Microseconds of the injected clock between two `complete` records of a kind.
    pub complete_every_micros: i64,
    /// Whether the end of a recording ends the driver.
    pub finite: bool,
    /// Last moment the log covers of each kind, after a restart: holes with cause `restart` are opened from there.
    pub resume_from: BTreeMap<Kind, Micros>,
    /// Where the budget of requests is shared with other processes.
    pub shared: Option<Shared>,
}

impl VenueConfig {
    /// The venue's REST interface as it may be asked by `connector`, within the budget that everybody shares.
    pub fn rest(&self, connector: &dyn Connector) -> Result<Rest, RestError> {
        let shared = self.shared.clone();
        let budget =
            RequestBudget::new(connector.venue(), &self.rest_url, connector.budget(), shared);
        Rest::new(&self.rest_url, budget)
    }

    /// The live venue with its usual settings.
    pub fn live(venue_name: &str, settings: Settings) -> Result<VenueConfig, DriverError> {
        let spec = spec(venue_name)?;
        Ok(VenueConfig {
            venue: spec.name.to_owned(),
            settings,
            rest_url: spec.rest_url.to_owned(),
            ws_url: spec.ws_url.to_owned(),
            complete_every_micros: 1_000_000,
            finite: false,
            resume_from: BTreeMap::new(),
            shared: None,
        })
    }

    /// The venue as a playback serves it: `rest_url` and `ws_url` are its addresses, and its tape ends.
    pub fn playback(
        venue_name: &str,
        settings: Settings,
        rest_url: String,
        ws_url: String,
    ) -> Result<VenueConfig, DriverError> {
        let live = VenueConfig::live(venue_name, settings)?;
        Ok(VenueConfig { rest_url, ws_url, finite: true, ..live })
    }
}

/// Why a driver ended before its time.
#[derive(Debug, Error)]
pub enum DriverError {
    /// There is no connector of this name.
    #[error("unknown venue `{0}`, expected one of {names}", names = venue_names())]
    UnknownVenue(String),
    /// Without symbols or channels there is nothing to do.
    #[error("no symbols or no channels of {0} are configured")]
    NothingSubscribed(String),
    /// A configured symbol is not listed.
    #[error(transparent)]
    UnknownSymbol(#[from] UnknownSymbol),
    /// The table of symbols cannot be had.
    #[error("cannot get the symbols of {venue}: {source}")]
    Symbols {
        /// The venue.
        venue: &'static str,
        /// Why.
        source: RestError,
    },
    /// The table of symbols cannot be read.
    #[error("cannot read the symbols of {venue}: {source}")]
    SymbolTable {
        /// The venue.
        venue: &'static str,
        /// Why.
        source: DecodeError,
    },
    /// Nothing can be published any more.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

fn spec(name: &str) -> Result<&'static VenueSpec, DriverError> {
    venue(name).ok_or_else(|| DriverError::UnknownVenue(name.to_owned()))
}

/// Runs a venue until `cancel`, or, where the configuration is finite, until its tape has ended and
/// everything is published. The counts are shared through `stats` while it runs.
pub async fn run<P: Publisher>(
    config: VenueConfig,
    publisher: Arc<P>,
    clock: Arc<dyn Clock>,
    stats: Arc<VenueStats>,
    cancel: CancellationToken,
) -> Result<StatsReport, DriverError> {
    // With two providers compiled in, rustls chooses none; an earlier choice is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    if config.settings.symbols.is_empty() || config.settings.channels.is_empty() {
        return Err(DriverError::NothingSubscribed(config.venue));
    }
    let mut connector = (spec(&config.venue)?.connector)(config.settings.clone());
    let rest = config
        .rest(connector.as_ref())
        .map_err(|source| DriverError::Symbols { venue: connector.venue(), source })?;
    let configured = cancel.run_until_cancelled(configure(connector.as_mut(), &rest)).await;
    match configured {
        None => return Ok(stats.report()),
        Some(table) => publisher.listed(connector.venue(), table?),
    }
    let (events, inbox) = mpsc::channel(EVENTS);
    let mut tasks = JoinSet::new();
    let mut outboxes = Vec::new();
    let plans = connector.connections();
    for (number, plan) in plans.iter().enumerate() {
        let (sender, outbox) = mpsc::channel(OUTBOX);
        outboxes.push(sender);
        let link = Link {
            number,
            base: config.ws_url.clone(),
            plan: plan.clone(),
            keepalive: connector.keepalive(),
            finite: config.finite,
            clock: Arc::clone(&clock),
            events: events.clone(),
            outbox,
        };
        tasks.spawn(link.run());
    }
    info!(venue = connector.venue(), connections = plans.len(), "connecting");
    let out = Output::new(connector.venue(), Arc::clone(&stats));
    let core = Core::new(config, connector, out, publisher, clock, plans, outboxes, events, rest);
    // A publisher that never takes another record must not keep the process alive.
    let outcome = cancel.run_until_cancelled(core.run(inbox)).await;
    // Dropping the set would end the tasks too, but at some later time.
    tasks.shutdown().await;
    outcome.unwrap_or(Ok(()))?;
    Ok(stats.report())
}

/// Gets the table of symbols and fixes the subscriptions.
async fn configure(connector: &mut dyn Connector, rest: &Rest) -> Result<SymbolTable, DriverError> {
    let table = symbols::fetch(connector, rest).await?;
    connector.configure(&table)?;
    Ok(table)
}

/// All that a venue lists; of a table in several parts those that it gives, if it gives any.
pub async fn symbols(config: &VenueConfig) -> Result<SymbolTable, DriverError> {
    // With two providers compiled in, rustls chooses none; an earlier choice is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut connector = (spec(&config.venue)?.connector)(config.settings.clone());
    let rest = config
        .rest(connector.as_ref())
        .map_err(|source| DriverError::Symbols { venue: connector.venue(), source })?;
    symbols::fetch_what_there_is(connector.as_mut(), &rest).await
}
