//! A share of a venue's symbols: a connector of its own, its connections, and how far they have come.
//!
//! A venue's symbols are spread over units of one connection's worth, so that one of them can be opened, replaced
//! or closed while the others go on.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use tapeline_schemas::{Kind, Micros};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::{info, warn};

use super::coverage::Reach;
use super::overlap::Takeover;
use super::watch::Watch;
use crate::venue::{Confirmation, ConnectionPlan, Connector, Output, SnapshotOutcome, take_frame};

/// Microseconds of receive time between two looks for silent feeds.
const LOOK_EVERY_MICROS: i64 = 1_000_000;

/// A snapshot that was asked for.
#[derive(Debug)]
pub(super) struct Pending {
    /// Tells this request's answer from that of one before a reconnect.
    pub(super) generation: u64,
    pub(super) attempts: u32,
    /// Ends the request; none where nobody is asked.
    pub(super) request: Option<AbortHandle>,
}

/// An answer that nobody waits for any more costs nothing of the venue's budget.
impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(request) = &self.request {
            request.abort();
        }
    }
}

pub(super) struct Unit {
    pub(super) number: u64,
    pub(super) symbols: Vec<String>,
    pub(super) connector: Box<dyn Connector>,
    pub(super) out: Output,
    pub(super) plans: Vec<ConnectionPlan>,
    pub(super) reaches: Vec<Reach>,
    /// Number of the first connection among all of the driver's; the others follow it.
    pub(super) first_link: usize,
    /// Where they take what is to be sent. Dropping them closes the connections.
    pub(super) outboxes: Vec<mpsc::Sender<String>>,
    /// Where they take what cannot wait for its turn.
    pub(super) replies: Vec<mpsc::Sender<&'static str>>,
    pub(super) pending: HashMap<String, Pending>,
    pub(super) watch: Watch,
    /// When it is renewed, before the venue cuts its connections.
    pub(super) dies_at: Option<Instant>,
    /// Receive time of what is being handled.
    pub(super) now: Micros,
    /// The unit that this one takes over from.
    pub(super) takes: Option<Takeover>,
    /// Came later than the others: until it is connected, it promises nothing.
    pub(super) is_added: bool,
}

impl Unit {
    /// Where it stands with nothing received.
    pub(super) fn reaches(plans: &[ConnectionPlan]) -> Vec<Reach> {
        let reach = |plan: &ConnectionPlan| {
            let kinds: BTreeSet<Kind> = plan.feeds.iter().map(|(kind, _)| *kind).collect();
            Reach { kinds, last: None, ended: false, fresh: true, down: true, looked: None }
        };
        plans.iter().map(reach).collect()
    }

    /// The number of a link among this unit's connections.
    pub(super) fn connection(&self, link: usize) -> Option<usize> {
        link.checked_sub(self.first_link).filter(|number| *number < self.plans.len())
    }

    /// Its feeds, each with the number of its connection.
    pub(super) fn feeds(&self) -> impl Iterator<Item = (usize, &(Kind, String))> {
        let numbered = self.plans.iter().enumerate();
        numbered.flat_map(|(number, plan)| plan.feeds.iter().map(move |feed| (number, feed)))
    }

    pub(super) fn opened(&mut self, connection: usize) {
        if let Some(reach) = self.reaches.get_mut(connection) {
            (reach.fresh, reach.down) = (true, false);
        }
        if let Some(plan) = self.plans.get(connection) {
            self.watch.opened(&plan.feeds);
        }
        self.connector.opened(connection, &mut self.out);
    }

    pub(super) fn frame(&mut self, connection: usize, frame: &Bytes, at: Micros) {
        self.heard(connection, at);
        take_frame(self.connector.as_mut(), connection, frame, at, &mut self.out);
    }

    pub(super) fn alive(&mut self, connection: usize, at: Micros) {
        self.heard(connection, at);
        self.connector.flush_tops(connection, at, false, &mut self.out);
    }

    pub(super) fn ended(&mut self, connection: usize) {
        info!(venue = self.connector.venue(), connection, "end of the recording");
        if let Some(reach) = self.reaches.get_mut(connection) {
            reach.ended = true;
        }
    }

    /// Something came: the connection is covered up to here, and its subscriptions may be confirmed by it.
    fn heard(&mut self, connection: usize, at: Micros) {
        self.now = at;
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
        let due = reach.looked.is_none_or(|looked| at.since(looked) >= LOOK_EVERY_MICROS);
        if due {
            reach.looked = Some(at);
            self.look_for_silence(connection, at);
        }
    }

    /// A feed that is connected and silent starts anew, alone: the hole is recorded before anything else.
    fn look_for_silence(&mut self, connection: usize, at: Micros) {
        let Some(plan) = self.plans.get(connection) else { return };
        for ((kind, symbol), from) in self.watch.silent(&plan.feeds, at) {
            // Its snapshot is on its way, and the request is repeated until it is there.
            if kind == Kind::Book && self.pending.contains_key(&symbol) {
                continue;
            }
            let (venue, channel) = (self.connector.venue(), kind.name());
            warn!(venue, symbol, channel, "connected but silent, subscribing anew");
            self.out.open_gap(kind, &symbol, from, "stale");
            self.connector.restart(kind, &symbol, at, &mut self.out);
        }
    }

    pub(super) fn lost(&mut self, connection: usize, reason: &str) {
        let venue = self.connector.venue();
        warn!(venue, connection, reason, "connection lost, reconnecting");
        self.out.disconnected();
        self.connector.closed(connection);
        let (Some(reach), Some(plan)) =
            (self.reaches.get_mut(connection), self.plans.get(connection))
        else {
            return;
        };
        reach.down = true;
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
}

/// Gives a unit the snapshot of a book; answers whether to ask again.
pub(super) fn apply_snapshot(unit: &mut Unit, symbol: &str, body: &[u8], at: Micros) -> bool {
    unit.now = at;
    match unit.connector.decode_snapshot(symbol, body, at, &mut unit.out) {
        Ok(outcome) => outcome == SnapshotOutcome::TooOld,
        Err(error) => {
            unit.out.complain(&error, body);
            true
        }
    }
}
