//! Going over to another configuration while connectors run: symbols and venues come and go, the others go on.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

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
        Running { drivers: JoinSet::new(), handles: BTreeMap::new(), publisher, clock, stop }
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

    /// A driver has ended.
    pub(super) fn ended(&mut self, name: &str) {
        self.handles.remove(name);
    }

    /// Brings what runs in line with `change`.
    pub(super) async fn change(&mut self, context: &Context, change: Change) -> Result<()> {
        let kept = |name: &String| change.venues.iter().any(|(venue, _)| venue.venue == *name);
        for (name, handle) in self.handles.iter().filter(|(name, _)| !kept(name)) {
            info!(venue = name, "no longer configured, disconnecting");
            handle.stop.cancel();
        }
        for (mut venue, subscriptions) in change.venues {
            if !self.handles.contains_key(&venue.venue) {
                left::resume(context, &mut venue).await?;
                venue.finite = self.handles.values().any(|handle| handle.config.finite);
                self.start(venue, Arc::default());
                continue;
            }
            let Some(handle) = self.handles.get_mut(&venue.venue) else { continue };
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
        Ok(())
    }
}
