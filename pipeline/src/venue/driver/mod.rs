//! Runs a connector against its venue: written once for all venues (C2, C3).
//!
//! Each connection and each REST request is a task that sends into one bounded channel; the core
//! takes from it, decodes and publishes in order. When the publisher waits, the core waits, the
//! channel fills, and TCP slows the venue down: nothing grows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tapeline_schemas::{GapChange, Kind, Micros};
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::info;

mod again;
mod backoff;
mod budget;
mod clock;
mod connection;
mod core;
mod coverage;
mod feed;
mod held;
mod keep;
mod lease;
mod network;
mod overlap;
mod reload;
mod rest;
mod resubscribing;
mod resume;
mod shared;
mod symbols;
mod tasks;
mod twin;
mod unit;
mod watch;

pub use again::again;
pub(crate) use backoff::wait as pause_before;
pub use budget::RequestBudget;
pub use clock::{ANNOUNCEMENT, Clock, PlaybackClock, RECORDED_AT, SystemClock};
pub use connection::END_OF_RECORDING;
pub use lease::Lease;
pub use network::{Network, NetworkError};
pub use reload::Subscriptions;
pub use rest::{Answer, Rest, RestError};
pub use shared::Shared;

use self::core::Core;
use self::held::Held;
use self::lease::Claim;
use super::{
    Connector, DecodeError, PublishError, Publisher, Settings, StatsReport, SymbolTable,
    UnknownSymbol, VenueSpec, VenueStats, venue, venue_names,
};
use crate::playback::RecordingError;
use crate::record::{Limits, Recorder};

/// Events between connections and the core. Frames are at most 16 MiB, books of a few hundred KiB the largest seen.
const EVENTS: usize = 1_024;

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
    /// Holes that were open when the connector before ended.
    pub left_open: Vec<GapChange>,
    /// Where the budget of requests is shared with other processes.
    pub shared: Option<Shared>,
    /// Where several connectors have the same symbols: which of them publishes tickers and books.
    pub lease: Option<Lease>,
    /// The way there.
    pub network: Network,
    /// Age at which connections are renewed; venues cut those of a day. None renews nothing, nor does a finite tape.
    pub max_age: Option<Duration>,
    /// Microseconds of receive time for which an old and a new connection go on beside each other at least.
    pub overlap_micros: i64,
    /// Shortest silence, in microseconds of receive time, after which a feed with a livelier pace is subscribed
    /// to anew; none watches nothing.
    pub stale_after_micros: Option<i64>,
    /// Where raw frames are kept; none keeps nothing.
    pub record: Option<Limits>,
}

impl VenueConfig {
    /// The venue's REST interface as it may be asked by `connector`, within the budget that everybody shares.
    pub fn rest(&self, connector: &dyn Connector) -> Result<Rest, RestError> {
        let shared = self.shared.clone();
        let budget =
            RequestBudget::new(connector.venue(), &self.rest_url, connector.budget(), shared);
        Rest::new(&self.rest_url, &self.network, budget)
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
            left_open: Vec::new(),
            shared: None,
            lease: None,
            network: Network::new(None, None)?,
            max_age: Some(Duration::from_secs(23 * 3_600)),
            overlap_micros: 1_000_000,
            stale_after_micros: Some(60_000_000),
            record: None,
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
    /// What was kept cannot be read.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// There is no way to the venue.
    #[error(transparent)]
    Network(#[from] NetworkError),
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
    let (_, orders) = mpsc::channel(1);
    run_with(config, publisher, clock, stats, orders, cancel).await
}

/// As [`run`], going over to whatever other subscriptions come through `orders`, without disturbing what stays.
pub async fn run_with<P: Publisher>(
    config: VenueConfig,
    publisher: Arc<P>,
    clock: Arc<dyn Clock>,
    stats: Arc<VenueStats>,
    orders: mpsc::Receiver<Subscriptions>,
    cancel: CancellationToken,
) -> Result<StatsReport, DriverError> {
    let spec = spec(&config.venue)?;
    let rest = config
        .rest((spec.connector)(config.settings.clone()).as_ref())
        .map_err(|source| DriverError::Symbols { venue: spec.name, source })?;
    // A connector waits for its venue however long it is away.
    let found = Subscriptions::find(&config, &rest, None);
    let found = cancel.run_until_cancelled(found).await;
    let Some(subscriptions) = found.transpose()? else { return Ok(stats.report()) };
    publisher.listed(spec.name, (*subscriptions.table).clone());
    let (events, inbox) = mpsc::channel(EVENTS);
    info!(venue = spec.name, symbols = subscriptions.settings.symbols.len(), "connecting");
    let recorder = config.record.clone().map(|limits| {
        let started =
            clock.receive_time(None).or_else(|| SystemClock::default().receive_time(None));
        Recorder::start(spec.name, started.unwrap_or_default(), limits)
    });
    let counts = Arc::clone(&stats);
    let claim = config.lease.clone().zip(config.shared.clone());
    let claim = claim.map(|(lease, shared)| Claim::new(lease, shared));
    let (says, holding) = lease::start(claim.is_some());
    let held = Held::new(holding);
    let mut core =
        Core::new(config, spec, subscriptions, publisher, clock, counts, events, rest, held);
    core.recorder = recorder;
    core.keep_subscriptions();
    if let Some(claim) = claim.clone() {
        core.links.spawn(claim.hold(says));
    }
    // A publisher that never takes another record must not keep the process alive.
    let outcome = cancel.run_until_cancelled(core.run(inbox, orders)).await;
    // Dropping the set would end the tasks too, but at some later time.
    core.links.shutdown().await;
    if let Some(claim) = &claim {
        claim.release().await;
    }
    if let Some(recorder) = core.recorder.take() {
        recorder.close().await;
    }
    outcome.unwrap_or(Ok(()))?;
    Ok(stats.report())
}

/// Finds the subscriptions of `config` at the venue as it is now, for a driver that runs already; gives up where the venue
/// does not answer.
pub async fn find(config: &VenueConfig) -> Result<Subscriptions, DriverError> {
    let spec = spec(&config.venue)?;
    let rest = config
        .rest((spec.connector)(config.settings.clone()).as_ref())
        .map_err(|source| DriverError::Symbols { venue: spec.name, source })?;
    Subscriptions::find(config, &rest, symbols::IMPATIENT).await
}

/// All that a venue lists; of a table in several parts those that it gives, if it gives any. Gives up where it does not
/// answer.
pub async fn symbols(config: &VenueConfig) -> Result<SymbolTable, DriverError> {
    let mut connector = (spec(&config.venue)?.connector)(config.settings.clone());
    let rest = config
        .rest(connector.as_ref())
        .map_err(|source| DriverError::Symbols { venue: connector.venue(), source })?;
    symbols::fetch_what_there_is(connector.as_mut(), &rest, symbols::IMPATIENT).await
}
