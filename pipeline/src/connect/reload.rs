//! Going over to another configuration while connectors run: symbols and venues come and go, the others go on.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Error, Result};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Live, left, named};
use crate::config::Config;
use crate::venue::driver::{self, Clock, DriverError, Subscriptions, VenueConfig};
use crate::venue::{StatsReport, VenueStats};
use crate::wiring::Context;

/// What a new configuration makes of the connectors; nothing in it can be refused any more.
#[derive(Debug)]
pub struct Change {
    venues: Vec<(VenueConfig, Subscriptions)>,
}

/// Finds everything that `config` names at the venues. An error names the key, and nothing has changed then.
pub async fn prepare(config: &Config, only: &[String]) -> Result<Change> {
    let mut venues = Vec::new();
    for venue in named(config, only)? {
        let key = format!("connect.venues.{}.symbols", venue.venue);
        let found = driver::find(&venue).await.context(key)?;
        venues.push((venue, found));
    }
    Ok(Change { venues })
}

/// A driver under way.
struct Handle {
    config: VenueConfig,
    orders: mpsc::Sender<Subscriptions>,
    stop: CancellationToken,
}

/// The drivers under way.
pub(super) struct Running {
    pub(super) drivers: JoinSet<Result<(String, StatsReport), DriverError>>,
    handles: BTreeMap<String, Handle>,
    /// What is to be started once the driver of that name, which was stopped, has ended.
    waiting: BTreeMap<String, VenueConfig>,
    publisher: Arc<Live>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
}

impl Running {
    pub(super) fn new(
        publisher: Arc<Live>,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Running {
        let (drivers, handles, waiting) = (JoinSet::new(), BTreeMap::new(), BTreeMap::new());
        Running { drivers, handles, waiting, publisher, clock, stop }
    }

    pub(super) fn start(&mut self, venue: VenueConfig, stats: Arc<VenueStats>) {
        let (orders, inbox) = mpsc::channel(1);
        let stop = self.stop.child_token();
        let (publisher, clock) = (Arc::clone(&self.publisher), Arc::clone(&self.clock));
        let (config, cancel) = (venue.clone(), stop.clone());
        let name = venue.venue.clone();
        self.handles.insert(name.clone(), Handle { config: venue, orders, stop });
        self.drivers.spawn(async move {
            driver::run_with(config, publisher, clock, stats, inbox, cancel)
                .await
                .map(|report| (name, report))
        });
    }

    /// Stops those that are still there, and waits for them.
    pub(super) async fn end(&mut self) {
        self.stop.cancel();
        while self.drivers.join_next().await.is_some() {}
    }

    /// A driver has ended; one that is configured again follows it. Where it cannot, the others go on: an error only
    /// where there is none.
    pub(super) async fn ended(&mut self, context: &Context, name: &str) -> Result<()> {
        let handle = self.handles.remove(name);
        let Some(mut venue) = self.waiting.remove(name).filter(|_| !self.stop.is_cancelled())
        else {
            return Ok(());
        };
        venue.finite = handle.is_some_and(|handle| handle.config.finite);
        match self.resume(context, &mut venue).await {
            Ok(()) => self.start(venue, Arc::default()),
            Err(error) if self.drivers.is_empty() => return Err(error.context(venue.venue)),
            Err(error) => not_resumed(&venue, &error, "not connected again before the next reload"),
        }
        Ok(())
    }

    /// Says in `venue` where the log's cover of it ends.
    async fn resume(&self, context: &Context, venue: &mut VenueConfig) -> Result<()> {
        // What the one before it said is to be found there.
        self.publisher.raw.delivered().await.map_err(Error::msg)?;
        left::resume(context, venue).await
    }

    /// Brings what runs in line with `change`; where it cannot be told from where a new venue goes on, nothing changes.
    pub(super) async fn change(&mut self, context: &Context, mut change: Change) {
        let finite = self.handles.values().any(|handle| handle.config.finite);
        for (venue, _) in &mut change.venues {
            if self.handles.contains_key(&venue.venue) {
                continue;
            }
            venue.finite = finite;
            if let Err(error) = self.resume(context, venue).await {
                not_resumed(venue, &error, "configuration refused, the old one stays in force");
                return;
            }
        }
        let kept = |name: &String| change.venues.iter().any(|(venue, _)| venue.venue == *name);
        for (name, handle) in self.handles.iter().filter(|(name, _)| !kept(name)) {
            info!(venue = name, "no longer configured, disconnecting");
            handle.stop.cancel();
        }
        self.waiting.retain(|name, _| kept(name));
        for (venue, subscriptions) in change.venues {
            let Some(handle) = self.handles.get_mut(&venue.venue) else {
                self.start(venue, Arc::default());
                continue;
            };
            if handle.stop.is_cancelled() {
                info!(venue = venue.venue, "configured again, connecting once it has disconnected");
                self.waiting.insert(venue.venue.clone(), venue);
                continue;
            }
            let addresses = |config: &VenueConfig| (config.rest_url.clone(), config.ws_url.clone());
            if addresses(&handle.config) != addresses(&venue) {
                warn!(venue = venue.venue, "its address takes effect at the next start");
            }
            if handle.config.settings != venue.settings {
                handle.config.settings = venue.settings;
                // A driver that has ended takes none.
                let _ = handle.orders.send(subscriptions).await;
            }
        }
    }
}

fn not_resumed(venue: &VenueConfig, error: &Error, then: &str) {
    let (venue, error) = (venue.venue.as_str(), format!("{error:#}"));
    error!(venue, error, "where the log's cover ends cannot be read; {then}");
}
