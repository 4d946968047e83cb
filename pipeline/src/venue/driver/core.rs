//! The driver's core: takes what connections and REST requests bring, one at a time, and publishes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tapeline_schemas::{Control, Kind, Micros};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::warn;

use super::backoff;
use super::clock::Clock;
use super::connection::Event;
use super::coverage::{final_through, through};
use super::held::Held;
use super::keep::keep_answer;
use super::lease::is_held;
use super::overlap::Seen;
use super::reload::Subscriptions;
use super::rest::{Answer, Rest, RestError};
use super::resubscribing::Resubscribing;
use super::tasks::reap;
use super::twin::Twins;
use super::unit::{Pending, Unit, apply_snapshot};
use super::{DriverError, VenueConfig};
use crate::record::Recorder;
use crate::venue::{Body, Item, Outgoing, Publisher, VenueSpec, VenueStats};

/// How often units are looked at that overlap or have grown old.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often a snapshot is asked for once the tape has ended.
const LAST_ATTEMPTS: u32 = 8;

pub(super) struct Core<P> {
    pub(super) config: VenueConfig,
    pub(super) spec: &'static VenueSpec,
    pub(super) subscriptions: Subscriptions,
    /// What is to be subscribed to next.
    pub(super) next: Option<Subscriptions>,
    pub(super) publisher: Arc<P>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) stats: Arc<VenueStats>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) rest: Arc<Rest>,
    pub(super) links: JoinSet<()>,
    pub(super) units: Vec<Unit>,
    pub(super) next_unit: u64,
    pub(super) next_link: usize,
    pub(super) seen: Seen,
    pub(super) held: Held,
    pub(super) twins: Twins,
    /// Records that no unit has a say in: the last ones of closed units, and what others told.
    pub(super) apart: Vec<Outgoing>,
    requests: JoinSet<()>,
    resubscribing: Resubscribing,
    generation: u64,
    complete: BTreeMap<Kind, Micros>,
    pub(super) recorder: Option<Recorder>,
    /// What comes is a recording that is decoded again: there are no connections, and nobody is asked.
    pub(super) is_again: bool,
    /// That recording has ended.
    pub(super) is_over: bool,
}

impl<P: Publisher> Core<P> {
    #[allow(clippy::too_many_arguments)] // One call, naming every part.
    pub(super) fn new(
        config: VenueConfig,
        spec: &'static VenueSpec,
        subscriptions: Subscriptions,
        publisher: Arc<P>,
        clock: Arc<dyn Clock>,
        stats: Arc<VenueStats>,
        events: mpsc::Sender<Event>,
        rest: Rest,
        held: Held,
    ) -> Core<P> {
        Core {
            config,
            spec,
            subscriptions,
            next: None,
            publisher,
            clock,
            stats,
            events,
            rest: Arc::new(rest),
            links: JoinSet::new(),
            units: Vec::new(),
            next_unit: 0,
            next_link: 0,
            seen: Seen::default(),
            held,
            twins: Twins::default(),
            apart: Vec::new(),
            requests: JoinSet::new(),
            resubscribing: Resubscribing::default(),
            generation: 0,
            complete: BTreeMap::new(),
            recorder: None,
            is_again: false,
            is_over: false,
        }
    }

    /// Runs until a finite tape has ended; else until it is dropped.
    pub(super) async fn run(
        &mut self,
        mut inbox: mpsc::Receiver<Event>,
        mut orders: mpsc::Receiver<Subscriptions>,
    ) -> Result<(), DriverError> {
        if !self.is_again {
            self.requests.spawn(self.resubscribing.clone().run(Arc::clone(&self.rest)));
            self.open_all()?;
        }
        self.resume();
        self.publish().await?;
        let mut look = tokio::time::interval(LOOK_EVERY);
        while !self.finished() {
            tokio::select! {
                // `self.events` keeps the channel open, so this always is an event.
                Some(event) = inbox.recv() => self.event(event)?,
                Some(order) = orders.recv() => self.next = Some(order),
                _ = look.tick() => self.look()?,
            }
            self.publish().await?;
            self.announce().await?;
            reap(&mut self.requests);
            reap(&mut self.links);
        }
        self.finish().await
    }

    fn ended(&self) -> bool {
        self.units.iter().flat_map(|unit| &unit.reaches).all(|reach| reach.ended)
    }

    fn finished(&self) -> bool {
        if self.is_again {
            return self.is_over;
        }
        let waiting = self.units.iter().any(|unit| !unit.pending.is_empty());
        self.config.finite && self.ended() && !waiting
    }

    fn event(&mut self, event: Event) -> Result<(), DriverError> {
        self.keep(&event);
        match event {
            Event::Opened { connection } => self.tell(connection, Unit::opened),
            Event::Frame { connection, frame, at } => {
                self.tell(connection, |unit, connection| unit.frame(connection, &frame, at));
            }
            Event::Alive { connection, at } => {
                self.tell(connection, |unit, connection| unit.alive(connection, at));
            }
            Event::Lost { connection, reason } => {
                self.resubscribing.lost(connection);
                self.tell(connection, |unit, connection| unit.lost(connection, &reason));
            }
            Event::Ended { connection } => self.tell(connection, Unit::ended),
            Event::Twins { others } => self.heed_twins(&others),
            Event::Left { number, holes } => self.end_left(number, holes),
            Event::Snapshot { symbol, generation, answer } => {
                self.snapshot(symbol, generation, answer);
            }
            Event::Recorded(recorded) => return self.recorded(recorded),
        }
        Ok(())
    }

    /// Tells the unit that a link belongs to; one that was closed has no say any more.
    fn tell(&mut self, link: usize, what: impl FnOnce(&mut Unit, usize)) {
        let mut units = self.units.iter_mut();
        if let Some((unit, connection)) =
            units.find_map(|unit| unit.connection(link).map(|connection| (unit, connection)))
        {
            what(unit, connection);
        }
    }

    fn snapshot(&mut self, symbol: String, generation: u64, answer: Result<Answer, RestError>) {
        // At the end of a tape nothing comes any more that a later answer could fit.
        let over = self.config.finite && self.ended();
        let is_it = |unit: &Unit| {
            unit.pending.get(&symbol).is_some_and(|pending| pending.generation == generation)
        };
        let Some(index) = self.units.iter().position(is_it) else { return };
        let unit = &mut self.units[index];
        let venue = unit.connector.venue();
        let attempts = unit.pending.remove(&symbol).map_or(0, |pending| pending.attempts);
        let again = match answer {
            Ok(answer) => match self.clock.receive_time(answer.announced) {
                Some(at) => {
                    keep_answer(self.recorder.as_ref(), self.spec, unit, &symbol, &answer.body, at);
                    apply_snapshot(unit, &symbol, &answer.body, at)
                }
                None => {
                    warn!(venue, symbol, "snapshot without a recorded time");
                    false
                }
            },
            Err(error) => {
                warn!(venue, symbol, %error, "no snapshot");
                // What was not recorded never will be.
                error.transient() || !self.config.finite
            }
        };
        if again && !(over && attempts >= LAST_ATTEMPTS) {
            self.request_snapshot(index, symbol, attempts + 1);
        }
    }

    pub(super) fn request_snapshot(&mut self, index: usize, symbol: String, attempts: u32) {
        let unit = &mut self.units[index];
        let Some(path) = unit.connector.snapshot_request(&symbol) else { return };
        let weight = unit.connector.weight(&path);
        self.generation += 1;
        let generation = self.generation;
        let asked = symbol.clone();
        let (rest, events) = (Arc::clone(&self.rest), self.events.clone());
        // At most one request a symbol counts, and the budget spaces them. What is decoded again asks nobody.
        let request = (!self.is_again).then(|| {
            self.requests.spawn(async move {
                tokio::time::sleep(backoff::wait(attempts)).await;
                let answer = rest.get(&path, weight).await;
                // The driver may have ended meanwhile.
                let _ = events.send(Event::Snapshot { symbol: asked, generation, answer }).await;
            })
        });
        unit.pending.insert(symbol, Pending { generation, attempts, request });
    }

    /// Does what the connectors asked for, in order.
    async fn publish(&mut self) -> Result<(), DriverError> {
        for outgoing in std::mem::take(&mut self.apart) {
            self.put(outgoing).await?;
        }
        for index in 0..self.units.len() {
            let items: Vec<Item> = self.units[index].out.drain().collect();
            for item in items {
                match item {
                    Item::Publish(outgoing) => self.publish_one(index, outgoing).await?,
                    Item::Resubscribe { connection, texts } => {
                        self.resubscribe(index, connection, texts);
                    }
                    Item::Reply { connection, text } => {
                        if let Some(replies) = self.units[index].replies.get(connection) {
                            // Full only while the connection is not there.
                            let _ = replies.try_send(text);
                        }
                    }
                    Item::RequestSnapshot { symbol } => self.request_snapshot(index, symbol, 0),
                }
            }
        }
        Ok(())
    }

    async fn publish_one(&mut self, index: usize, outgoing: Outgoing) -> Result<(), DriverError> {
        let kind = outgoing.kind;
        let event = matches!(outgoing.body, Body::Event(_));
        if event && let Some((_, symbol)) = outgoing.key.split_once(':') {
            let unit = &mut self.units[index];
            unit.watch.event(kind, symbol, unit.now);
        }
        if self.passes(index, &outgoing) { self.put(outgoing).await } else { Ok(()) }
    }

    /// Publishes a record unless it is another process's to publish.
    async fn put(&mut self, outgoing: Outgoing) -> Result<(), DriverError> {
        let (kind, event) = (outgoing.kind, matches!(outgoing.body, Body::Event(_)));
        if self.held.passes(&outgoing) {
            if !event && self.config.lease.is_some() {
                self.twins.ended(&outgoing);
            }
            self.publisher.publish(outgoing).await?;
            if event {
                self.stats.published(kind);
            }
        }
        Ok(())
    }

    /// The core itself never waits: a connection that waits for us to take its frames must not be waited for.
    fn resubscribe(&mut self, index: usize, connection: usize, texts: Vec<String>) {
        let unit = &self.units[index];
        if let Some(outbox) = unit.outboxes.get(connection)
            && !self.is_again
        {
            self.resubscribing.ask(unit.first_link + connection, outbox, texts);
        }
    }

    /// Tells up to when everything has been published, at the set pace of the injected clock.
    async fn announce(&mut self) -> Result<(), DriverError> {
        for index in 0..self.config.settings.channels.len() {
            let Some(&kind) = self.config.settings.channels.get(index) else { break };
            if let Some(through) = self.due(kind) {
                self.broadcast(kind, through).await?;
            }
        }
        Ok(())
    }

    /// Up to when a kind is published, where that is to be said.
    fn due(&self, kind: Kind) -> Option<Micros> {
        // Who does not publish a kind cannot say how far it is published.
        if is_held(kind) && !self.held.speaks() {
            return None;
        }
        let promising = || self.units.iter().filter(|unit| unit.promises());
        // Deltas that wait for a snapshot have been received but not published.
        if kind == Kind::Book && !promising().all(|unit| unit.connector.settled()) {
            return None;
        }
        let through = through(promising().flat_map(|unit| &unit.reaches), kind)?;
        let due = |last: &Micros| through.since(*last) >= self.config.complete_every_micros;
        self.complete.get(&kind).is_none_or(due).then_some(through)
    }

    async fn broadcast(&mut self, kind: Kind, through: Micros) -> Result<(), DriverError> {
        self.complete.insert(kind, through);
        let venue = self.spec.name.to_owned();
        self.publisher.broadcast(kind, Control::Complete { venue, through }).await?;
        Ok(())
    }

    /// The tape has ended: shows the last state of every book and closes the day.
    async fn finish(&mut self) -> Result<(), DriverError> {
        for unit in &mut self.units {
            for (connection, reach) in unit.reaches.iter().enumerate() {
                if let Some(last) = reach.last {
                    unit.connector.flush_tops(connection, last, true, &mut unit.out);
                }
            }
        }
        self.publish().await?;
        if self.is_again {
            // Others may have gone on since.
            return Ok(());
        }
        let reaches = self.units.iter().flat_map(|unit| &unit.reaches);
        if let Some(through) = final_through(reaches) {
            for kind in self.config.settings.channels.clone() {
                if !is_held(kind) || self.held.speaks() {
                    self.broadcast(kind, through).await?;
                }
            }
        }
        Ok(())
    }

    /// What is due by the time that passes: the next subscriptions, units that overlap, units that have grown old.
    fn look(&mut self) -> Result<(), DriverError> {
        self.heed_lease();
        self.say_covered();
        self.take_over();
        if self.units.iter().any(|unit| unit.takes.is_some()) {
            return Ok(());
        }
        self.seen.forget();
        if let Some(next) = self.next.take() {
            return self.subscribe(next);
        }
        let old = |unit: &Unit| unit.dies_at.is_some_and(|at| Instant::now() >= at);
        if let Some(index) = self.units.iter().position(old) {
            let symbols = self.units[index].symbols.clone();
            self.replace(index, symbols)?;
        }
        Ok(())
    }
}
