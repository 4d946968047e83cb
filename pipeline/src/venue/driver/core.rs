//! The driver's core: takes what connections and REST requests bring, one at a time, and publishes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tapeline_schemas::{Control, Kind, Micros};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::backoff;
use super::clock::Clock;
use super::connection::Event;
use super::coverage::{Reach, final_through, through};
use super::rest::{Answer, Rest, RestError};
use super::{DriverError, VenueConfig};
use crate::venue::{
    Body, Confirmation, ConnectionPlan, Connector, Item, Output, Publisher, SnapshotOutcome,
    take_frame,
};

/// How often a snapshot is asked for once the tape has ended.
const LAST_ATTEMPTS: u32 = 8;

/// A snapshot that was asked for.
#[derive(Debug)]
struct Pending {
    /// Tells this request's answer from that of one before a reconnect.
    generation: u64,
    attempts: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct Core<P> {
    config: VenueConfig,
    connector: Box<dyn Connector>,
    out: Output,
    publisher: Arc<P>,
    clock: Arc<dyn Clock>,
    plans: Vec<ConnectionPlan>,
    outboxes: Vec<mpsc::Sender<String>>,
    events: mpsc::Sender<Event>,
    rest: Arc<Rest>,
    requests: JoinSet<()>,
    /// Feeds that are about to start anew, by connection and last message.
    resubscribing: Arc<Mutex<HashSet<(usize, String)>>>,
    reaches: Vec<Reach>,
    pending: HashMap<String, Pending>,
    generation: u64,
    complete: BTreeMap<Kind, Micros>,
}

impl<P: Publisher> Core<P> {
    #[allow(clippy::too_many_arguments)] // One call, naming every part.
    pub(super) fn new(
        config: VenueConfig,
        connector: Box<dyn Connector>,
        out: Output,
        publisher: Arc<P>,
        clock: Arc<dyn Clock>,
        plans: Vec<ConnectionPlan>,
        outboxes: Vec<mpsc::Sender<String>>,
        events: mpsc::Sender<Event>,
        rest: Rest,
    ) -> Core<P> {
        let reach = |plan: &ConnectionPlan| Reach {
            kinds: plan.feeds.iter().map(|(kind, _)| *kind).collect(),
            last: None,
            ended: false,
            fresh: true,
        };
        Core {
            reaches: plans.iter().map(reach).collect(),
            config,
            connector,
            out,
            publisher,
            clock,
            plans,
            outboxes,
            events,
            rest: Arc::new(rest),
            requests: JoinSet::new(),
            resubscribing: Arc::default(),
            pending: HashMap::new(),
            generation: 0,
            complete: BTreeMap::new(),
        }
    }

    /// Runs until a finite tape has ended; else until it is dropped.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Event>) -> Result<(), DriverError> {
        self.resume();
        self.publish().await?;
        while !self.finished() {
            // `self.events` keeps the channel open, so this always is an event.
            let Some(event) = inbox.recv().await else { break };
            self.event(event);
            self.publish().await?;
            self.announce().await?;
            // Only so that finished requests are not kept.
            while self.requests.try_join_next().is_some() {}
        }
        self.finish().await
    }

    fn finished(&self) -> bool {
        let ended = self.reaches.iter().all(|reach| reach.ended);
        self.config.finite && ended && self.pending.is_empty()
    }

    /// After a restart nothing is known from the last covered moment on.
    fn resume(&mut self) {
        for (kind, symbol) in self.plans.iter().flat_map(|plan| &plan.feeds) {
            if let Some(from) = self.config.resume_from.get(kind) {
                self.out.open_gap(*kind, symbol, *from, "restart");
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Opened { connection } => {
                if let Some(reach) = self.reaches.get_mut(connection) {
                    reach.fresh = true;
                }
                self.connector.opened(connection, &mut self.out);
            }
            Event::Frame { connection, frame, at } => {
                self.heard(connection, at);
                take_frame(self.connector.as_mut(), connection, &frame, at, &mut self.out);
            }
            Event::Alive { connection, at } => {
                self.heard(connection, at);
                self.connector.flush_tops(connection, at, false, &mut self.out);
            }
            Event::Lost { connection, reason } => self.lost(connection, &reason),
            Event::Ended { connection } => {
                info!(venue = self.connector.venue(), connection, "end of the recording");
                if let Some(reach) = self.reaches.get_mut(connection) {
                    reach.ended = true;
                }
            }
            Event::Snapshot { symbol, generation, answer } => {
                self.snapshot(symbol, generation, answer);
            }
        }
    }

    /// Something came: the connection is covered up to here, and its subscriptions may be confirmed by it.
    fn heard(&mut self, connection: usize, at: Micros) {
        let (Some(reach), Some(plan)) =
            (self.reaches.get_mut(connection), self.plans.get(connection))
        else {
            return;
        };
        if std::mem::take(&mut reach.fresh) && plan.confirmation == Confirmation::FirstFrame {
            for (kind, symbol) in plan.feeds.iter().filter(|(kind, _)| *kind != Kind::Book) {
                self.out.whole(*kind, symbol, at);
            }
        }
        reach.last = Some(at);
    }

    fn lost(&mut self, connection: usize, reason: &str) {
        warn!(venue = self.connector.venue(), connection, reason, "connection lost, reconnecting");
        self.out.stats().disconnects.add(1);
        self.connector.closed(connection);
        let (Some(reach), Some(plan)) = (self.reaches.get(connection), self.plans.get(connection))
        else {
            return;
        };
        for (kind, symbol) in &plan.feeds {
            if *kind == Kind::Book {
                self.pending.remove(symbol);
            }
            // Where nothing had come yet, nothing was covered either.
            if let Some(from) = reach.last {
                self.out.open_gap(*kind, symbol, from, "disconnect");
            }
        }
    }

    fn snapshot(&mut self, symbol: String, generation: u64, answer: Result<Answer, RestError>) {
        let venue = self.connector.venue();
        let attempts = match self.pending.get(&symbol) {
            Some(pending) if pending.generation == generation => pending.attempts,
            _ => return,
        };
        let again = match answer {
            Ok(answer) => match self.clock.receive_time(answer.announced) {
                Some(at) => self.apply_snapshot(&symbol, &answer.body, at),
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
        self.pending.remove(&symbol);
        // At the end of a tape nothing comes any more that a later answer could fit.
        let ended = self.config.finite && self.reaches.iter().all(|reach| reach.ended);
        if again && !(ended && attempts >= LAST_ATTEMPTS) {
            self.request_snapshot(symbol, attempts + 1);
        }
    }

    /// Answers whether to ask again.
    fn apply_snapshot(&mut self, symbol: &str, body: &[u8], at: Micros) -> bool {
        match self.connector.decode_snapshot(symbol, body, at, &mut self.out) {
            Ok(outcome) => outcome == SnapshotOutcome::TooOld,
            Err(error) => {
                self.out.complain(&error, body);
                true
            }
        }
    }

    fn request_snapshot(&mut self, symbol: String, attempts: u32) {
        let Some(path) = self.connector.snapshot_request(&symbol) else { return };
        self.generation += 1;
        let generation = self.generation;
        self.pending.insert(symbol.clone(), Pending { generation, attempts });
        let (rest, events) = (Arc::clone(&self.rest), self.events.clone());
        // At most one request a symbol counts, and the budget spaces them.
        self.requests.spawn(async move {
            tokio::time::sleep(backoff::wait(attempts)).await;
            let answer = rest.get(&path).await;
            // The driver may have ended meanwhile.
            let _ = events.send(Event::Snapshot { symbol, generation, answer }).await;
        });
    }

    /// Does what the connector asked for, in order.
    async fn publish(&mut self) -> Result<(), DriverError> {
        let items: Vec<Item> = self.out.drain().collect();
        for item in items {
            match item {
                Item::Publish(outgoing) => {
                    let kind = outgoing.kind;
                    let event = matches!(outgoing.body, Body::Event(_));
                    self.publisher.publish(outgoing).await?;
                    if event {
                        self.out.stats().published(kind);
                    }
                }
                Item::Resubscribe { connection, texts } => self.resubscribe(connection, texts),
                Item::RequestSnapshot { symbol } => self.request_snapshot(symbol, 0),
            }
        }
        Ok(())
    }

    /// The core itself never waits: a connection that waits for us to take its frames must not be waited
    /// for. The budget keeps a book that is wrong again and again from hammering the venue, and what waits for it
    /// already is not asked for twice, so that a venue that talks nonsense fills no memory (invariant 8).
    fn resubscribe(&mut self, connection: usize, texts: Vec<String>) {
        let (Some(outbox), Some(last)) =
            (self.outboxes.get(connection).cloned(), texts.last().cloned())
        else {
            return;
        };
        let (rest, waiting) = (Arc::clone(&self.rest), Arc::clone(&self.resubscribing));
        let feed = (connection, last);
        if !lock(&waiting).insert(feed.clone()) {
            return;
        }
        self.requests.spawn(async move {
            rest.allowed().await;
            lock(&waiting).remove(&feed);
            for text in texts {
                // The connection may have ended meanwhile.
                let _ = outbox.send(text).await;
            }
        });
    }

    /// Tells up to when everything has been published, at the set pace of the injected clock.
    async fn announce(&mut self) -> Result<(), DriverError> {
        for index in 0..self.config.settings.channels.len() {
            let Some(&kind) = self.config.settings.channels.get(index) else { break };
            // Deltas that wait for a snapshot have been received but not published.
            if kind == Kind::Book && !self.connector.settled() {
                continue;
            }
            let Some(through) = through(&self.reaches, kind) else { continue };
            let due = |last: &Micros| through.since(*last) >= self.config.complete_every_micros;
            if self.complete.get(&kind).is_none_or(due) {
                self.broadcast(kind, through).await?;
            }
        }
        Ok(())
    }

    async fn broadcast(&mut self, kind: Kind, through: Micros) -> Result<(), DriverError> {
        self.complete.insert(kind, through);
        let venue = self.connector.venue().to_owned();
        self.publisher.broadcast(kind, Control::Complete { venue, through }).await?;
        Ok(())
    }

    /// The tape has ended: shows the last state of every book and closes the day.
    async fn finish(mut self) -> Result<(), DriverError> {
        for (connection, reach) in self.reaches.iter().enumerate() {
            if let Some(last) = reach.last {
                self.connector.flush_tops(connection, last, true, &mut self.out);
            }
        }
        self.publish().await?;
        if let Some(through) = final_through(&self.reaches) {
            for kind in self.config.settings.channels.clone() {
                self.broadcast(kind, through).await?;
            }
        }
        Ok(())
    }
}
