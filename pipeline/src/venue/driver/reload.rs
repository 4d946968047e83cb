//! Which units there are: opening them, replacing them, and what a new configuration changes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tapeline_schemas::Kind;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{info, warn};

use super::connection::Link;
use super::core::Core;
use super::overlap::{PATIENCE, Takeover, ready};
use super::rest::{Answer, Rest};
use super::unit::Unit;
use super::watch::Watch;
use super::{DriverError, VenueConfig, backoff, spec, symbols};
use crate::venue::{Body, Item, Outgoing, Output, Publisher, Settings, SymbolTable};

/// Messages waiting to be sent on a connection.
const OUTBOX: usize = 16;
/// Units grow old at a moment within the last so-many-th of their time: what was opened together is not renewed
/// together.
const RENEWAL_SPREAD: u32 = 10;

/// What a driver is to subscribe to: found in the venue's table, so that nothing in it can be refused.
#[derive(Debug)]
pub struct Subscriptions {
    pub(super) settings: Settings,
    pub(super) table: Arc<SymbolTable>,
    /// The table as the venue gave it, by requests, until it is kept.
    pub(super) tables: Vec<(String, Answer)>,
}

impl Subscriptions {
    /// What `config` names, with the venue's table as `rest` gives it now.
    pub(super) async fn find(
        config: &VenueConfig,
        rest: &Rest,
        patience: symbols::Patience,
    ) -> Result<Subscriptions, DriverError> {
        let settings = &config.settings;
        if settings.symbols.is_empty() || settings.channels.is_empty() {
            return Err(DriverError::NothingSubscribed(config.venue.clone()));
        }
        let mut connector = (spec(&config.venue)?.connector)(settings.clone());
        let (table, tables) = symbols::fetch(connector.as_mut(), rest, patience).await?;
        connector.configure(&table)?;
        Ok(Subscriptions { settings: settings.clone(), table: Arc::new(table), tables })
    }

    /// The symbols, each once, in order.
    fn symbols(&self) -> Vec<String> {
        let mut known = BTreeSet::new();
        let symbols = self.settings.symbols.iter().map(|symbol| symbol.to_ascii_uppercase());
        symbols.filter(|symbol| known.insert(symbol.clone())).collect()
    }
}

impl Unit {
    /// Whether what it received counts for "complete through".
    pub(super) fn promises(&self) -> bool {
        let silent = self.reaches.iter().any(|reach| reach.last.is_none());
        self.takes.is_none() && !(self.is_added && silent)
    }
}

impl<P: Publisher> Core<P> {
    /// Opens the units of the start.
    pub(super) fn open_all(&mut self) -> Result<(), DriverError> {
        self.open_for(&self.subscriptions.symbols(), false)
    }

    fn open_for(&mut self, symbols: &[String], is_added: bool) -> Result<(), DriverError> {
        for some in symbols.chunks(self.spec.symbols_per_connection) {
            self.open(some.to_vec(), None, is_added)?;
        }
        Ok(())
    }

    /// Opens a unit for these symbols.
    pub(super) fn open(
        &mut self,
        symbols: Vec<String>,
        takes: Option<Takeover>,
        is_added: bool,
    ) -> Result<(), DriverError> {
        let Subscriptions { settings, table, .. } = &self.subscriptions;
        let settings = Settings { symbols: symbols.clone(), ..settings.clone() };
        let mut connector = (self.spec.connector)(settings);
        connector.configure(table)?;
        let plans = connector.connections();
        let mut out = match takes {
            // What a successor counts is counted once it serves.
            Some(_) => Output::uncounted(self.spec.name),
            None => Output::new(self.spec.name, Arc::clone(&self.stats)),
        };
        out.keep_progress(takes.is_some() || self.config.lease.is_some());
        let first_link = self.next_link;
        self.keep_unit(&symbols, takes.as_ref());
        let (mut outboxes, mut replies) = (Vec::new(), Vec::new());
        for plan in &plans {
            let (sender, outbox) = mpsc::channel(OUTBOX);
            outboxes.push(sender);
            let (sender, answers) = mpsc::channel(OUTBOX);
            replies.push(sender);
            let link = Link {
                number: self.next_link,
                network: self.config.network.clone(),
                base: self.config.ws_url.clone(),
                plan: plan.clone(),
                keepalive: connector.keepalive(),
                finite: self.config.finite,
                clock: Arc::clone(&self.clock),
                events: self.events.clone(),
                outbox,
                replies: answers,
            };
            // What is decoded again has no connections.
            if !self.is_again {
                self.links.spawn(link.run());
            }
            self.next_link += 1;
        }
        let feeds = plans.iter().flat_map(|plan| &plan.feeds);
        feeds.clone().for_each(|(kind, symbol)| out.expect(*kind, symbol));
        self.units.push(Unit {
            number: self.next_unit,
            symbols,
            out,
            reaches: Unit::reaches(&plans),
            first_link,
            outboxes,
            replies,
            pending: Default::default(),
            watch: Watch::new(self.config.stale_after_micros, feeds),
            dies_at: self.config.max_age.filter(|_| !self.config.finite).map(spread),
            now: Default::default(),
            takes,
            is_added,
            connector,
            plans,
        });
        self.next_unit += 1;
        Ok(())
    }

    /// Opens a successor for a unit, with these symbols of it; the unit goes on until the successor has taken over.
    pub(super) fn replace(
        &mut self,
        index: usize,
        symbols: Vec<String>,
    ) -> Result<(), DriverError> {
        let venue = self.spec.name;
        let unit = &mut self.units[index];
        info!(venue, symbols = symbols.len(), "opening connections that take over from older ones");
        unit.out.keep_progress(true);
        let from = unit.number;
        let takes = Takeover { from, since: Instant::now(), taken: Default::default() };
        self.open(symbols, Some(takes), false)
    }

    /// Hands over what successors are ready for, and closes units of which nothing is left.
    pub(super) fn take_over(&mut self) {
        while self.take_over_one() {}
    }

    /// Goes through the successors until one has taken everything; answers whether there was one.
    fn take_over_one(&mut self) -> bool {
        for new in 0..self.units.len() {
            let Some(takes) = &self.units[new].takes else { continue };
            let (from, late) = (takes.from, takes.since.elapsed() > PATIENCE);
            let Some(old) = self.units.iter().position(|unit| unit.number == from) else {
                continue;
            };
            let Ok([new_unit, old_unit]) = self.units.get_disjoint_mut([new, old]) else {
                continue;
            };
            let mut feeds = ready(new_unit, old_unit, self.config.overlap_micros);
            if late {
                let rest = new_unit.feeds().map(|(_, feed)| feed.clone());
                feeds = rest.collect();
            }
            for feed in feeds {
                hand_over(new_unit, old_unit, feed, late);
            }
            if new_unit.take_all() {
                new_unit.out.count_into(Arc::clone(&self.stats));
                new_unit.out.keep_progress(self.config.lease.is_some());
                let feeds: BTreeSet<_> = new_unit.feeds().map(|(_, feed)| feed.clone()).collect();
                self.close(old, |feed| feeds.contains(feed));
                info!(venue = self.spec.name, "the new connections have taken over");
                return true;
            }
        }
        false
    }

    /// Closes a unit: its outboxes go with it, and that closes its connections. Open holes of feeds that nobody `has`
    /// now end here, since nobody else would end them.
    pub(super) fn close(&mut self, index: usize, has: impl Fn(&(Kind, String)) -> bool) {
        let mut closed = self.units.remove(index);
        drop(closed.out.drain());
        closed.out.end_gaps(closed.now, has);
        self.keep_closed(&closed);
        self.apart.extend(closed.out.drain().filter_map(|item| match item {
            Item::Publish(outgoing) => Some(outgoing),
            _ => None,
        }));
    }

    /// Whether a record is this unit's to publish: the old unit's until its feed is handed over, the successor's
    /// from then on; a trade is whose comes first.
    pub(super) fn passes(&mut self, index: usize, outgoing: &Outgoing) -> bool {
        let unit = &self.units[index];
        let successor = self
            .units
            .iter()
            .find_map(|other| other.takes.as_ref().filter(|takes| takes.from == unit.number));
        if unit.takes.is_none() && successor.is_none() {
            return true;
        }
        if let (Kind::Trade, Body::Event(payload)) = (outgoing.kind, &outgoing.body) {
            return self.seen.first(&outgoing.key, payload);
        }
        let symbol = outgoing.key.split_once(':').map_or("", |(_, symbol)| symbol);
        let feed = (outgoing.kind, symbol.to_owned());
        match (&unit.takes, successor) {
            (Some(takes), _) => takes.taken.contains(&feed),
            (None, Some(takes)) => !takes.taken.contains(&feed),
            (None, None) => true,
        }
    }

    /// Goes over to other subscriptions: what stays is not touched, what is new gets connections of its own, and
    /// units that lose some of theirs are replaced by one without them.
    pub(super) fn subscribe(&mut self, next: Subscriptions) -> Result<(), DriverError> {
        let wanted = next.symbols();
        let without = |settings: &Settings| Settings { symbols: Vec::new(), ..settings.clone() };
        let others = without(&next.settings) != without(&self.subscriptions.settings);
        self.subscriptions = next;
        self.config.settings = self.subscriptions.settings.clone();
        self.keep_subscriptions();
        let subscribed: BTreeSet<String> =
            self.units.iter().flat_map(|unit| unit.symbols.clone()).collect();
        for index in (0..self.units.len()).rev() {
            let unit = &self.units[index];
            let stay: Vec<String> =
                unit.symbols.iter().filter(|symbol| wanted.contains(symbol)).cloned().collect();
            if stay.is_empty() {
                self.close(index, |_| false);
            } else if others || stay.len() < unit.symbols.len() {
                self.replace(index, stay)?;
            }
        }
        let new: Vec<String> =
            wanted.into_iter().filter(|symbol| !subscribed.contains(symbol)).collect();
        info!(
            venue = self.spec.name,
            symbols = self.config.settings.symbols.len(),
            added = new.len(),
            "subscriptions changed"
        );
        self.open_for(&new, true)
    }
}

impl Unit {
    /// Ends the takeover if nothing is left of it.
    fn take_all(&mut self) -> bool {
        let all = self
            .takes
            .as_ref()
            .is_some_and(|takes| self.feeds().all(|(_, feed)| takes.taken.contains(feed)));
        if all {
            self.takes = None;
        }
        all
    }
}

/// From here on the feed is the new unit's. With it goes a hole that is open, which ends here unless the new unit is
/// `late` and has it not either.
fn hand_over(new: &mut Unit, old: &mut Unit, feed: (Kind, String), late: bool) {
    let Some(takes) = &mut new.takes else { return };
    if !takes.taken.insert(feed.clone()) {
        return;
    }
    let is_whole = new.out.progress(&feed).is_some();
    new.out.whole_as(&feed, old.out.progress(&feed));
    if let Some(gap) = old.out.give_gap(&feed) {
        new.out.take_gap(feed.clone(), gap);
    } else if late && !is_whole {
        warn!(symbol = feed.1, channel = feed.0.name(), "not taken over in time");
        new.out.open_gap(feed.0, &feed.1, old.now, "disconnect");
    }
    if !is_whole {
        return;
    }
    let connection = new.feeds().find(|(_, of)| **of == feed).map(|(connection, _)| connection);
    let reach = connection.and_then(|connection| new.reaches.get(connection)?.last);
    let at = reach.unwrap_or(new.now);
    new.out.whole(feed.0, &feed.1, at);
    if feed.0 == Kind::Book {
        // Readers go on from the new connection's state.
        new.connector.state_book(&feed.1, at, &mut new.out);
    }
}

/// The moment at which something that lives for `age` is renewed.
fn spread(age: Duration) -> Instant {
    Instant::now() + age.saturating_sub(backoff::jitter(age / RENEWAL_SPREAD))
}
