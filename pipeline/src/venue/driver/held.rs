//! What a driver does with the lease: publishes what comes from its holder alone, and begins and ceases to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tapeline_schemas::{Control, GapChange, GapState, Kind, Micros};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::{info, warn};

use super::backoff;
use super::connection::Event;
use super::core::Core;
use super::lease::{Holding, is_held};
use super::unit::Unit;
use crate::venue::{Body, Outgoing, Publisher};

/// A hole by kind, key and start.
type Hole = (Kind, String, Micros);

/// The log is read for holes that whoever held the lease before left open.
struct Reading {
    /// Of which takeover.
    number: u64,
    task: AbortHandle,
    /// What has ended since it began, of which it may not tell yet.
    ended: HashSet<Hole>,
}

/// Who lost the lease again ends nothing.
impl Drop for Reading {
    fn drop(&mut self) {
        self.task.abort();
    }
}

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
    announced: HashSet<Hole>,
    reading: Option<Reading>,
}

impl Held {
    pub(super) fn new(holding: watch::Receiver<Holding>) -> Held {
        let publishes = holding.borrow().holds();
        let (latest, announced) = Default::default();
        Held { holding, publishes, heard: None, other_at: None, latest, announced, reading: None }
    }

    /// Whether this process may speak for all.
    pub(super) fn speaks(&self) -> bool {
        self.publishes && self.holding.borrow().holds()
    }

    /// The lease is no longer held: from when it was last seen to be, what comes may be missing in the log, whoever
    /// holds it next.
    fn lapsed(&mut self) {
        self.publishes = false;
        self.reading = None;
        let seen = self.heard.map(|(_, at)| at).filter(|at| *at > Micros::default());
        self.other_at = self.other_at.or(seen);
    }

    /// The log knows of holes of this feed already, by start and cause.
    pub(super) fn knows(&mut self, kind: Kind, key: &str, holes: &[(Micros, String)]) {
        let known = holes.iter().map(|(from, _)| (kind, key.to_owned(), *from));
        self.announced.extend(known);
    }

    /// A hole has ended; answers whether the log knows of it.
    fn ended(&mut self, hole: Hole) -> bool {
        let is_known = self.announced.remove(&hole);
        if let Some(reading) = self.reading.as_mut().filter(|_| is_known) {
            reading.ended.insert(hole);
        }
        is_known
    }

    /// Whether a record is to be published; what is kept back is remembered for a takeover.
    pub(super) fn passes(&mut self, outgoing: &Outgoing) -> bool {
        if !is_held(outgoing.kind) {
            return true;
        }
        let speaks = self.speaks();
        if self.publishes && !speaks {
            self.lapsed();
        }
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
                    _ => self.ended(hole),
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
        if !holding.holds() {
            self.held.lapsed();
            info!(venue = self.spec.name, "another publishes tickers and books now");
            return;
        }
        self.held.publishes = true;
        info!(venue = self.spec.name, token = holding.token, "publishing tickers and books");
        let from = self.held.other_at.take();
        self.begin(from, now);
        self.read_left(holding.polls);
    }

    /// States everything as it is here; what may be missing before it, since `from`, is a recorded hole. Where no other
    /// was seen to hold it, nothing is known since the log's cover ended.
    fn begin(&mut self, from: Option<Micros>, now: Micros) {
        let mut latest = std::mem::take(&mut self.held.latest);
        for index in 0..self.units.len() {
            let feeds = self.units[index].feeds().map(|(n, feed)| (n, feed.clone()));
            let feeds: Vec<_> = feeds.filter(|(_, feed)| is_held(feed.0)).collect();
            for (connection, feed) in feeds {
                if self.serving(&feed) != Some(index) {
                    continue;
                }
                let (unit, (kind, symbol)) = (&mut self.units[index], &feed);
                let from = from.or_else(|| self.config.resume_from.get(kind).copied());
                let key = format!("{}:{symbol}", self.spec.name);
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
        self.config.resume_from.clear();
    }

    /// Reads from the log which holes are open: whoever opened them may be gone without a word. What has been published
    /// meanwhile goes on.
    fn read_left(&mut self, number: u64) {
        let mut settings = self.config.settings.clone();
        settings.channels.retain(|kind| is_held(*kind));
        if settings.channels.is_empty() {
            return;
        }
        let (publisher, events) = (Arc::clone(&self.publisher), self.events.clone());
        let venue = self.spec.name;
        let task = self.links.spawn(async move {
            let mut failures = 0;
            let holes = loop {
                match publisher.left_open(venue, &settings).await {
                    Ok(holes) => break holes,
                    Err(error) => warn!(venue, %error, "cannot read which holes were left open"),
                }
                failures += 1;
                tokio::time::sleep(backoff::wait(failures)).await;
            };
            // The driver may have ended meanwhile.
            let _ = events.send(Event::Left { number, holes }).await;
        });
        self.held.reading = Some(Reading { number, task, ended: HashSet::new() });
    }

    /// Ends the holes that were left open: now where the feed is whole, else once it is.
    pub(super) fn end_left(&mut self, number: u64, holes: Vec<GapChange>) {
        let Some(reading) = self.held.reading.take_if(|reading| reading.number == number) else {
            return;
        };
        let mut ends = 0;
        for gap in holes {
            let Some(kind) = Kind::from_name(&gap.channel).filter(|kind| is_held(*kind)) else {
                continue;
            };
            let key = format!("{}:{}", self.spec.name, gap.symbol);
            let hole = (kind, key, gap.from);
            let is_own = self.held.announced.contains(&hole) || reading.ended.contains(&hole);
            let feed = (kind, gap.symbol);
            let Some(index) = self.serving(&feed).filter(|_| !is_own) else { continue };
            self.held.announced.insert(hole);
            ends += 1;
            let unit = &mut self.units[index];
            unit.out.end_left(&feed, (gap.from, gap.cause), unit.now);
        }
        if ends > 0 {
            info!(venue = self.spec.name, holes = ends, "holes were left open by another");
        }
    }

    /// The unit whose records of a feed are published.
    fn serving(&self, feed: &(Kind, String)) -> Option<usize> {
        let has = |unit: &Unit| unit.feeds().any(|(_, of)| of == feed);
        let takes = |unit: &Unit| unit.takes.as_ref().map(|takes| takes.taken.contains(feed));
        let successor = self.units.iter().position(|unit| takes(unit) == Some(true));
        let alone = |unit: &Unit| takes(unit).is_none() && has(unit);
        successor.or_else(|| self.units.iter().position(alone))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::venue::driver::lease;

    #[test]
    fn a_lease_that_lapsed_is_a_hole_from_when_it_was_last_seen_to_be_held_whoever_has_it_next() {
        let (says, holding) = lease::start(false);
        let mut held = Held::new(holding);
        held.heard = Some((Holding::alone(), Micros(7)));
        let ticker =
            Outgoing { kind: Kind::Ticker, key: "X:A-B".to_owned(), body: Body::Event(Vec::new()) };
        assert!(held.passes(&ticker));
        let (_, lapsed) = lease::start(true);
        says.send_replace(*lapsed.borrow());
        assert!(!held.passes(&ticker));
        // Held again before anybody looked.
        says.send_replace(Holding::alone());
        assert!(!held.passes(&ticker), "nothing follows before the hole is said");
        assert_eq!((held.publishes, held.other_at), (false, Some(Micros(7))));
    }
}
