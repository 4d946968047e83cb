//! Books whose snapshot comes by REST and whose deltas carry a sequence: Binance's rule.
//!
//! The first delta after a snapshot has `first <= snapshot + 1 <= last`; every later one has
//! `first = previous last + 1`. Deltas wait in a bounded queue while there is no snapshot.

use std::collections::VecDeque;

use tapeline_schemas::{BookAction, Kind};

use super::books::{LocalBook, TopPace, Update};
use super::{Output, SnapshotOutcome};

/// Deltas kept while a snapshot is on its way. Beyond it they are dropped, and the snapshot that
/// comes will be found too old and asked for again.
pub(super) const MAX_QUEUED_DELTAS: usize = 10_000;

#[derive(Debug)]
enum State {
    /// Waits for a snapshot.
    Waiting(VecDeque<Update>),
    /// Holds everything up to `last`; `joined` once a delta followed the snapshot.
    Live { last: i64, joined: bool },
}

/// A book kept by sequence.
#[derive(Debug)]
pub(super) struct SequencedBook {
    pub(super) book: LocalBook,
    state: State,
}

impl SequencedBook {
    pub(super) fn new(book: LocalBook) -> SequencedBook {
        SequencedBook { book, state: State::Waiting(VecDeque::new()) }
    }

    /// Whether deltas wait for a snapshot.
    pub(super) fn waiting(&self) -> bool {
        matches!(self.state, State::Waiting(_))
    }

    /// The connection is gone: nothing follows what is here.
    pub(super) fn closed(&mut self) {
        self.state = State::Waiting(VecDeque::new());
        self.book.broken();
    }

    /// Takes a delta with both its sequence numbers set.
    pub(super) fn delta(&mut self, delta: Update, pace: TopPace, out: &mut Output) {
        let (first, next) = span(&delta);
        match &mut self.state {
            State::Waiting(queue) => {
                if let Some(oldest) = queue.front().filter(|_| queue.len() >= MAX_QUEUED_DELTAS) {
                    let from = self.book.covered().unwrap_or(oldest.receive_time);
                    out.open_gap(Kind::Book, &self.book.symbol, from, "overflow");
                    out.stats().updates_stale.add(queue.len() as u64);
                    queue.clear();
                }
                queue.push_back(delta);
            }
            State::Live { last, .. } if next <= *last => out.stats().updates_stale.add(1),
            State::Live { last, joined } => {
                let follows = first == last.saturating_add(1) || (!*joined && first <= *last);
                if follows {
                    self.state = State::Live { last: next, joined: true };
                    self.apply(delta, pace, out);
                } else {
                    self.resync(delta, out);
                }
            }
        }
    }

    fn apply(&mut self, delta: Update, pace: TopPace, out: &mut Output) {
        let now = delta.receive_time;
        self.book.levels.apply_delta(&delta.bids, &delta.asks);
        self.book.verified(BookAction::Delta, delta, out);
        self.book.show(now, false, pace, out);
    }

    /// Something is missing before `delta`: the hole is recorded before anything else happens.
    fn resync(&mut self, delta: Update, out: &mut Output) {
        let from = self.book.covered().unwrap_or(delta.receive_time);
        out.open_gap(Kind::Book, &self.book.symbol, from, "sequence");
        out.resynced(&self.book.symbol);
        self.book.broken();
        self.state = State::Waiting(VecDeque::from([delta]));
        out.request_snapshot(&self.book.symbol);
    }

    /// Takes a snapshot with its sequence number set, and what waited for it.
    pub(super) fn snapshot(
        &mut self,
        snapshot: Update,
        pace: TopPace,
        out: &mut Output,
    ) -> SnapshotOutcome {
        let State::Waiting(queue) = &mut self.state else {
            // Asked for twice; the book has long gone on from the first answer.
            return SnapshotOutcome::Applied;
        };
        let last = snapshot.sequence.unwrap_or_default();
        let reaches = |delta: &Update| span(delta).0 <= last.saturating_add(1);
        if let Some(delta) = queue.iter().find(|delta| span(delta).1 > last)
            && !reaches(delta)
        {
            let from = self.book.covered().unwrap_or(delta.receive_time);
            out.open_gap(Kind::Book, &self.book.symbol, from, "stale");
            return SnapshotOutcome::TooOld;
        }
        let queue = std::mem::take(queue);
        self.state = State::Live { last, joined: false };
        let now = snapshot.receive_time;
        self.book.levels.apply_snapshot(&snapshot.bids, &snapshot.asks);
        self.book.verified(BookAction::Snapshot, snapshot, out);
        self.book.show(now, true, pace, out);
        for delta in queue {
            self.delta(delta, pace, out);
        }
        SnapshotOutcome::Applied
    }
}

fn span(delta: &Update) -> (i64, i64) {
    (delta.first_sequence.unwrap_or(i64::MIN), delta.sequence.unwrap_or(i64::MIN))
}
