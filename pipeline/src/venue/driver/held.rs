//! What a driver does with the lease: publishes what comes from its holder alone, and begins and ceases to.

use std::collections::{HashMap, HashSet};

use tapeline_schemas::{Control, GapState, Kind, Micros};
use tokio::sync::watch;
use tracing::info;

use super::core::Core;
use super::lease::{Holding, is_held};
use crate::venue::{Body, Outgoing, Publisher};

/// Where a driver stands with its lease.
pub(super) struct Held {
    holding: watch::Receiver<Holding>,
    /// It has stated its books and publishes.
    pub(super) publishes: bool,
    /// What was heard of the lease last, and the receive time then.
    heard: Option<(Holding, Micros)>,
    /// Receive time at which another held it for certain.
    other_at: Option<Micros>,
    /// The last events that were kept back, one of each feed.
    latest: HashMap<(Kind, String), Outgoing>,
    /// Holes of which the log knows.
    announced: HashSet<(Kind, String, Micros)>,
}

impl Held {
    pub(super) fn new(holding: watch::Receiver<Holding>) -> Held {
        let publishes = holding.borrow().holds();
        let (latest, announced) = Default::default();
        Held { holding, publishes, heard: None, other_at: None, latest, announced }
    }

    /// Whether this process may speak for all.
    pub(super) fn speaks(&self) -> bool {
        self.publishes && self.holding.borrow().holds()
    }

    /// The log knows of holes of this feed already, by start and cause.
    pub(super) fn knows(&mut self, kind: Kind, key: &str, holes: &[(Micros, String)]) {
        let known = holes.iter().map(|(from, _)| (kind, key.to_owned(), *from));
        self.announced.extend(known);
    }

    /// Whether a record is to be published; what is kept back is remembered for a takeover.
    pub(super) fn passes(&mut self, outgoing: &Outgoing) -> bool {
        if !is_held(outgoing.kind) {
            return true;
        }
        let speaks = self.speaks();
        let slot = (outgoing.kind, outgoing.key.clone());
        match &outgoing.body {
            Body::Event(_) if speaks => {}
            // A book is stated from what is kept of it.
            Body::Event(_) if outgoing.kind == Kind::Book => {}
            Body::Event(_) => {
                self.latest.insert(slot, outgoing.clone());
            }
            Body::Control(Control::Gap(gap)) => {
                let hole = (slot.0, slot.1, gap.from);
                // A hole of which the log knows is ended there, whoever speaks now.
                return match gap.state {
                    GapState::Opened if speaks => self.announced.insert(hole),
                    GapState::Opened => false,
                    _ => self.announced.remove(&hole),
                };
            }
            Body::Control(_) => {}
        }
        speaks
    }
}

impl<P: Publisher> Core<P> {
    /// Begins or ceases to publish as the lease was won or lost.
    pub(super) fn heed_lease(&mut self) {
        let holding = *self.held.holding.borrow_and_update();
        let now = self.units.iter().map(|unit| unit.now).max().unwrap_or_default();
        let (before, then) = self.held.heard.unwrap_or((holding, now));
        if before.polls != holding.polls || self.held.heard.is_none() {
            // Who renewed it since then still held it then. Before the first frame there is no time to tell when.
            if holding.others_renewed > before.others_renewed && then > Micros::default() {
                self.held.other_at = Some(then);
            }
            self.held.heard = Some((holding, now));
        }
        if holding.holds() == self.held.publishes {
            return;
        }
        self.held.publishes = holding.holds();
        if !self.held.publishes {
            info!(venue = self.spec.name, "another publishes tickers and books now");
            return;
        }
        info!(venue = self.spec.name, token = holding.token, "publishing tickers and books");
        let from = self.held.other_at.take();
        self.begin(from, now);
    }

    /// States everything as it is here; what may be missing before it, since `from`, is a recorded hole. Where no other
    /// was seen to hold it, nothing is known since the log's cover ended.
    fn begin(&mut self, from: Option<Micros>, now: Micros) {
        let mut latest = std::mem::take(&mut self.held.latest);
        let others = self.held.heard.is_some_and(|(holding, _)| holding.others_renewed > 0);
        for unit in self.units.iter_mut().filter(|unit| unit.takes.is_none()) {
            let feeds: Vec<_> = unit.feeds().map(|(n, feed)| (n, feed.clone())).collect();
            for (connection, feed) in feeds.into_iter().filter(|(_, feed)| is_held(feed.0)) {
                let (kind, symbol) = &feed;
                let from = from.or_else(|| self.config.resume_from.get(kind).copied());
                // Where another held it since, what was left is his.
                let left = if others { Vec::new() } else { self.config.left_of(&feed) };
                let key = format!("{}:{symbol}", self.spec.name);
                self.held.knows(*kind, &key, &left);
                unit.out.take_up(&feed, left);
                unit.out.open_again(&feed);
                if let Some(from) = from {
                    unit.out.open_gap(*kind, symbol, from, "takeover");
                }
                let reach = unit.reaches.get(connection);
                let covered = reach.is_some_and(|reach| !reach.down && reach.last.is_some());
                if *kind == Kind::Book {
                    unit.connector.state_book(symbol, now, &mut unit.out);
                } else if covered && from.is_some() {
                    unit.out.end_gap_of(&feed, "takeover", now);
                }
                if let Some(last) = latest.remove(&(*kind, key)) {
                    unit.out.again(last);
                }
            }
        }
        self.config.left_open.clear();
        self.config.resume_from.clear();
    }
}
