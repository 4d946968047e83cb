//! The books a connector keeps, and when their best levels are published (invariant 9).

use std::borrow::Cow;

use tapeline_schemas::{Book, BookAction, Kind, Level, Micros};
use tapeline_stages::book::OrderBook;

use super::subscription::Subscribed;
use super::{Output, Settings};

/// A book that stays crossed for so long, by receive time, has lost an update: the venue would have matched these
/// orders.
const CROSSED_MICROS: i64 = 5_000_000;

/// A book that has waited so long for its snapshot, by receive time, while changes come, asks for it again.
const SNAPSHOT_MICROS: i64 = 10_000_000;

/// How often the best levels are published, and how many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TopPace {
    levels: usize,
    every_micros: i64,
}

impl TopPace {
    pub(crate) fn new(settings: &Settings) -> TopPace {
        TopPace { levels: settings.top_levels, every_micros: settings.top_every_micros }
    }
}

/// A snapshot or a delta on its way into a book.
#[derive(Debug, Clone)]
pub(crate) struct Update {
    pub(crate) first_sequence: Option<i64>,
    pub(crate) sequence: Option<i64>,
    pub(crate) checksum: Option<i64>,
    /// Identity of the update, where the venue gives one.
    pub(crate) event_id: Option<String>,
    pub(crate) venue_time: Micros,
    pub(crate) receive_time: Micros,
    pub(crate) bids: Vec<Level>,
    pub(crate) asks: Vec<Level>,
}

impl Update {
    /// An update of a venue that numbers none.
    pub(crate) fn unnumbered(
        venue_time: Micros,
        receive_time: Micros,
        bids: Vec<Level>,
        asks: Vec<Level>,
    ) -> Update {
        Update {
            first_sequence: None,
            sequence: None,
            checksum: None,
            event_id: None,
            venue_time,
            receive_time,
            bids,
            asks,
        }
    }

    /// The record of this update.
    pub(crate) fn record<'a>(
        self,
        venue: &'static str,
        symbol: &'a str,
        action: BookAction,
    ) -> Book<'a> {
        Book {
            exchange: Cow::Borrowed(venue),
            symbol: Cow::Borrowed(symbol),
            action,
            event_id: self.event_id.map(Cow::Owned),
            bids: self.bids,
            asks: self.asks,
            first_sequence: self.first_sequence,
            sequence: self.sequence,
            checksum: self.checksum,
            venue_time: self.venue_time,
            receive_time: self.receive_time,
        }
    }
}

/// Where the last update put a book.
#[derive(Debug)]
struct Mark {
    sequence: Option<i64>,
    checksum: Option<i64>,
    event_id: Option<String>,
    venue_time: Micros,
    receive_time: Micros,
}

/// One symbol's book. It is whole from a snapshot to the next break.
#[derive(Debug)]
pub(crate) struct LocalBook {
    venue: &'static str,
    pub(crate) symbol: String,
    pub(crate) connection: usize,
    pub(crate) levels: OrderBook,
    whole: bool,
    mark: Option<Mark>,
    changed: bool,
    last_top: Option<Micros>,
    crossed_since: Option<Micros>,
    /// Since when changes have come without the snapshot that they change.
    waiting_since: Option<Micros>,
}

impl LocalBook {
    pub(crate) fn new(venue: &'static str, symbol: &str, connection: usize) -> LocalBook {
        LocalBook {
            venue,
            symbol: symbol.to_owned(),
            connection,
            levels: OrderBook::new(),
            whole: false,
            mark: None,
            changed: false,
            last_top: None,
            crossed_since: None,
            waiting_since: None,
        }
    }

    /// The books of `symbols`, so many a connection, the first on connection `first`.
    pub(super) fn spread(
        venue: &'static str,
        symbols: &[Subscribed],
        per_connection: usize,
        first: usize,
    ) -> Vec<LocalBook> {
        let books = symbols.iter().enumerate();
        books.map(|(i, s)| LocalBook::new(venue, &s.symbol, first + i / per_connection)).collect()
    }

    /// A connection is gone: its books are of unknown state.
    pub(crate) fn lose(books: &mut [LocalBook], connection: usize) {
        books.iter_mut().filter(|book| book.connection == connection).for_each(LocalBook::broken);
    }

    /// Shows the books of a connection that are due; with `all`, due or not.
    pub(crate) fn flush(
        books: &mut [LocalBook],
        connection: usize,
        now: Micros,
        all: bool,
        pace: TopPace,
        out: &mut Output,
    ) {
        for book in books.iter_mut().filter(|book| book.connection == connection) {
            book.show(now, all, pace, out);
        }
    }

    /// Whether the book can be trusted.
    pub(crate) fn whole(&self) -> bool {
        self.whole
    }

    /// Receive time of the last update that went in.
    pub(crate) fn covered(&self) -> Option<Micros> {
        self.mark.as_ref().map(|mark| mark.receive_time)
    }

    /// Last update of the venue's sequence that went in.
    pub(crate) fn sequence(&self) -> Option<i64> {
        self.mark.as_ref().and_then(|mark| mark.sequence)
    }

    /// The book is wrong or of unknown state: it is not shown until the next snapshot.
    pub(crate) fn broken(&mut self) {
        self.whole = false;
        self.changed = false;
        self.crossed_since = None;
        self.waiting_since = None;
        self.levels.clear();
    }

    /// Something is wrong since the last good update: the hole is recorded before anything else, and this symbol
    /// alone starts anew, with `texts` sent on its connection.
    pub(crate) fn resubscribe(
        &mut self,
        cause: &'static str,
        at: Micros,
        texts: Vec<String>,
        out: &mut Output,
    ) {
        let from = self.covered().unwrap_or(at);
        out.open_gap(Kind::Book, &self.symbol, from, cause);
        out.resynced(&self.symbol);
        self.broken();
        out.resubscribe(self.connection, texts);
    }

    /// A change came while the book waits for its snapshot: it was on its way before the subscription took effect, or
    /// the snapshot is lost, and then it is asked for again.
    pub(crate) fn stale(
        &mut self,
        at: Micros,
        texts: impl FnOnce() -> Vec<String>,
        out: &mut Output,
    ) {
        out.stats().updates_stale.add(1);
        let since = *self.waiting_since.get_or_insert(at);
        if at.since(since) >= SNAPSHOT_MICROS {
            self.resubscribe("snapshot", at, texts(), out);
        }
    }

    /// Takes a message that is a whole book. One from before what the book holds is counted and left out.
    pub(crate) fn replace(&mut self, snapshot: Update, pace: TopPace, out: &mut Output) {
        out.stats().received(Kind::Book);
        if self.mark.as_ref().is_some_and(|mark| snapshot.venue_time < mark.venue_time) {
            out.stats().updates_stale.add(1);
            return;
        }
        let now = snapshot.receive_time;
        self.levels.apply_snapshot(&snapshot.bids, &snapshot.asks);
        self.verified(BookAction::Snapshot, snapshot, out);
        // Every message is a snapshot, so only the pace decides.
        self.show(now, false, pace, out);
    }

    /// Whether the book has been crossed for longer than a working venue's ever is; for venues that give neither a
    /// sequence nor a checksum to tell by.
    pub(crate) fn stays_crossed(&mut self, now: Micros) -> bool {
        if !self.levels.crossed() {
            self.crossed_since = None;
            return false;
        }
        let since = *self.crossed_since.get_or_insert(now);
        now.since(since) >= CROSSED_MICROS
    }

    /// Publishes an update that is already in `levels` and found right.
    pub(crate) fn verified(&mut self, action: BookAction, update: Update, out: &mut Output) {
        self.whole = true;
        self.changed = true;
        self.waiting_since = None;
        let before = self.mark.as_ref().map_or(update.venue_time, |mark| mark.venue_time);
        self.mark = Some(Mark {
            sequence: update.sequence,
            checksum: update.checksum,
            event_id: update.event_id.clone(),
            // A snapshot stamped on arrival may be followed by deltas stamped earlier.
            venue_time: update.venue_time.max(before),
            receive_time: update.receive_time,
        });
        out.book(&update.record(self.venue, &self.symbol, action));
    }

    /// Publishes the whole book as it stands, for readers who have not followed it so far. Nothing where it is not
    /// whole.
    pub(crate) fn restate(books: &[LocalBook], symbol: &str, now: Micros, out: &mut Output) {
        if let Some(book) = books.iter().find(|book| book.symbol == symbol) {
            book.state(now, out);
        }
    }

    /// As [`LocalBook::restate`], of this book.
    pub(crate) fn state(&self, now: Micros, out: &mut Output) {
        let Some(mark) = self.mark.as_ref().filter(|_| self.whole) else { return };
        let (bids, asks) = self.levels.top(usize::MAX);
        let whole = Update {
            first_sequence: None,
            sequence: mark.sequence,
            checksum: mark.checksum,
            // Other content than the update's own record, so another event.
            event_id: mark.event_id.as_ref().map(|id| format!("state-{id}-{}", now.0)),
            venue_time: mark.venue_time,
            receive_time: now,
            bids,
            asks,
        };
        out.book(&whole.record(self.venue, &self.symbol, BookAction::Snapshot));
    }

    /// Publishes the best levels if they are due: the book changed and the pace allows it, or `at_once`.
    pub(crate) fn show(&mut self, now: Micros, at_once: bool, pace: TopPace, out: &mut Output) {
        let due = at_once || self.last_top.is_none_or(|last| now.since(last) >= pace.every_micros);
        let Some(mark) = self.mark.as_ref().filter(|_| self.whole && self.changed && due) else {
            return;
        };
        if self.levels.crossed() {
            return;
        }
        let (bids, asks) = self.levels.top(pace.levels);
        self.changed = false;
        self.last_top = Some(now);
        let top = Update {
            first_sequence: None,
            sequence: mark.sequence,
            checksum: mark.checksum,
            event_id: mark.event_id.as_ref().map(|id| format!("top-{id}")),
            venue_time: mark.venue_time,
            receive_time: now,
            bids,
            asks,
        };
        out.book(&top.record(self.venue, &self.symbol, BookAction::Top));
    }
}
