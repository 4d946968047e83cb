//! Where a connector puts what it makes of a frame, in the order it is to be published.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tapeline_schemas::{
    Book, BookAction, Candle, Control, GapChange, GapState, Kind, Micros, OptionData, Record,
    Ticker, Trade, encode,
};
use tracing::warn;

use super::feed::Feeds;
use super::{Body, DecodeError, Outgoing, VenueStats};

/// How much of a message that cannot be read is logged.
const LOGGED_BYTES: usize = 200;

/// One thing for the driver to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Publish a record.
    Publish(Outgoing),
    /// Send messages on a connection to start one feed anew, once the request budget allows.
    Resubscribe {
        /// Number of the connection.
        connection: usize,
        /// The messages, in order.
        texts: Vec<String>,
    },
    /// Send a message on a connection at once: who does not answer a heartbeat is disconnected.
    Reply {
        /// Number of the connection.
        connection: usize,
        /// The message.
        text: &'static str,
    },
    /// Ask for the snapshot of a symbol's book.
    RequestSnapshot {
        /// The symbol.
        symbol: String,
    },
}

/// A hole that has not ended.
#[derive(Debug)]
pub(super) struct OpenGap {
    from: Micros,
    cause: Cow<'static, str>,
    /// Starts and causes of others of this feed, which end with it.
    others: Vec<(Micros, String)>,
}

/// One symbol's events of one kind.
pub(super) type Feed = (Kind, String);

/// How far a feed has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Progress {
    /// It has been whole since.
    pub(super) whole_since: Micros,
    /// The venue's number of the last update of a book, and its time.
    pub(super) update: Option<(Option<i64>, Micros)>,
}

/// Collects what connectors make, keeps the counts, and knows which holes are open.
#[derive(Debug)]
pub struct Output {
    venue: &'static str,
    stats: Arc<VenueStats>,
    feeds: Feeds,
    gaps: HashMap<Feed, OpenGap>,
    /// Kept only while it is asked for.
    progress: Option<HashMap<Feed, Progress>>,
    complained: BTreeSet<&'static str>,
    items: Vec<Item>,
}

impl Output {
    /// An empty output of `venue`.
    pub fn new(venue: &'static str, stats: Arc<VenueStats>) -> Output {
        Output {
            venue,
            stats,
            feeds: Feeds::new(venue),
            gaps: HashMap::new(),
            progress: None,
            complained: BTreeSet::new(),
            items: Vec::new(),
        }
    }

    /// An empty output of `venue` that nobody counts yet.
    pub(super) fn uncounted(venue: &'static str) -> Output {
        let mut out = Output::new(venue, Arc::default());
        out.feeds.show(false);
        out
    }

    /// The counts.
    pub fn stats(&self) -> &VenueStats {
        &self.stats
    }

    /// Counts into `stats` from now on.
    pub(super) fn count_into(&mut self, stats: Arc<VenueStats>) {
        self.stats = stats;
        self.feeds.show(true);
    }

    /// Begins or ends keeping the progress of feeds.
    pub(super) fn keep_progress(&mut self, keep: bool) {
        self.progress = keep.then(|| self.progress.take().unwrap_or_default());
    }

    /// How far a feed has come since that is kept; none while it has a hole.
    pub(super) fn progress(&self, feed: &Feed) -> Option<Progress> {
        self.progress.as_ref()?.get(feed).copied()
    }

    /// The feed was whole before, elsewhere.
    pub(super) fn whole_as(&mut self, feed: &Feed, before: Option<Progress>) {
        let own = self.progress.as_mut().and_then(|progress| progress.get_mut(feed));
        if let (Some(own), Some(before)) = (own, before) {
            own.whole_since = own.whole_since.min(before.whole_since);
        }
    }

    /// Says again that a hole is open, if one is.
    pub(super) fn open_again(&mut self, feed: &Feed) {
        if let Some(open) = self.gaps.get(feed) {
            let (from, cause) = (open.from, open.cause.clone());
            self.gap(feed.0, &feed.1, GapState::Opened, from, None, &cause);
        }
    }

    /// Ends a hole if it is open for this cause.
    pub(super) fn end_gap_of(&mut self, feed: &Feed, cause: &str, at: Micros) {
        if self.gaps.get(feed).is_some_and(|open| open.cause == cause) {
            self.whole(feed.0, &feed.1, at);
        }
    }

    /// Takes up holes that nobody else will end, by start and cause: they end when the feed is whole.
    pub(super) fn take_up(&mut self, feed: &Feed, mut left: Vec<(Micros, String)>) {
        left.sort_unstable();
        left.dedup_by_key(|(from, _)| *from);
        if !left.is_empty() && !self.gaps.contains_key(feed) {
            let (from, cause) = left.remove(0);
            self.open(feed.0, &feed.1, from, Cow::Owned(cause));
        }
        if let Some(open) = self.gaps.get_mut(feed) {
            left.retain(|(from, _)| *from != open.from);
            open.others.extend(left);
        }
    }

    /// Ends a hole that nobody else will end, by start and cause: at once if the feed is whole, else when it is.
    pub(super) fn end_left(&mut self, feed: &Feed, (from, cause): (Micros, String), at: Micros) {
        if self.progress(feed).is_none() {
            self.take_up(feed, vec![(from, cause)]);
        } else {
            self.gap(feed.0, &feed.1, GapState::Ended, from, Some(at.max(from)), &cause);
        }
    }

    /// Ends the open holes of all feeds but those that somebody `has`, who ends them himself.
    pub(super) fn end_gaps(&mut self, at: Micros, has: impl Fn(&Feed) -> bool) {
        for (feed, open) in std::mem::take(&mut self.gaps) {
            if !has(&feed) {
                self.end(feed.0, &feed.1, open, at);
            }
        }
    }

    /// Publishes a record that was made before.
    pub(super) fn again(&mut self, outgoing: Outgoing) {
        self.items.push(Item::Publish(outgoing));
    }

    /// Gives a feed's hole away, without a word.
    pub(super) fn give_gap(&mut self, feed: &Feed) -> Option<OpenGap> {
        self.gaps.remove(feed)
    }

    /// Takes a hole that another output opened.
    pub(super) fn take_gap(&mut self, feed: Feed, gap: OpenGap) {
        self.gaps.insert(feed, gap);
    }

    /// Shows a feed that is subscribed to in the metrics before its first message.
    pub fn expect(&mut self, kind: Kind, symbol: &str) {
        self.feeds.expect(kind, symbol);
    }

    /// Counts a book that is resynchronised.
    pub fn resynced(&mut self, symbol: &str) {
        self.stats.resyncs.add(1);
        self.feeds.resync(symbol);
    }

    /// Counts a lost connection.
    pub fn disconnected(&mut self) {
        self.stats.disconnects.add(1);
        self.feeds.disconnect();
    }

    /// Takes what has been collected.
    pub fn drain(&mut self) -> std::vec::Drain<'_, Item> {
        self.items.drain(..)
    }

    /// Publishes a trade; ends a hole in its symbol's trades.
    pub fn trade(&mut self, trade: &Trade<'_>) {
        self.stats.received(Kind::Trade);
        self.feeds.message(Kind::Trade, &trade.symbol, trade.venue_time, trade.receive_time);
        self.whole(Kind::Trade, &trade.symbol, trade.receive_time);
        self.event(Kind::Trade, &trade.symbol, trade);
    }

    /// Publishes a ticker; ends a hole in its symbol's tickers.
    pub fn ticker(&mut self, ticker: &Ticker<'_>) {
        self.stats.received(Kind::Ticker);
        self.feeds.message(Kind::Ticker, &ticker.symbol, ticker.venue_time, ticker.receive_time);
        self.whole(Kind::Ticker, &ticker.symbol, ticker.receive_time);
        self.event(Kind::Ticker, &ticker.symbol, ticker);
    }

    /// Publishes an option's figures; ends a hole in its symbol's.
    pub fn option(&mut self, option: &OptionData<'_>) {
        self.stats.received(Kind::Option);
        self.feeds.message(Kind::Option, &option.symbol, option.venue_time, option.receive_time);
        self.whole(Kind::Option, &option.symbol, option.receive_time);
        self.event(Kind::Option, &option.symbol, option);
    }

    /// Publishes a candle that the venue made; ends a hole in its symbol's.
    pub fn candle(&mut self, candle: &Candle<'_>) {
        self.stats.received(Kind::VenueCandle);
        self.feeds.message(
            Kind::VenueCandle,
            &candle.symbol,
            candle.receive_time,
            candle.receive_time,
        );
        self.whole(Kind::VenueCandle, &candle.symbol, candle.receive_time);
        self.event(Kind::VenueCandle, &candle.symbol, candle);
    }

    /// Publishes a book record; a snapshot ends a hole in its symbol's book.
    pub fn book(&mut self, book: &Book<'_>) {
        if book.action != BookAction::Top {
            self.feeds.message(Kind::Book, &book.symbol, book.venue_time, book.receive_time);
        }
        match book.action {
            BookAction::Snapshot => {
                self.stats.updates_applied.add(1);
                self.whole(Kind::Book, &book.symbol, book.receive_time);
            }
            BookAction::Delta => self.stats.updates_applied.add(1),
            BookAction::Top => self.stats.tops.add(1),
        }
        if let Some(progress) = &mut self.progress
            && book.action != BookAction::Top
        {
            let begin = Progress { whole_since: book.receive_time, update: None };
            let feed = (Kind::Book, book.symbol.to_string());
            progress.entry(feed).or_insert(begin).update = Some((book.sequence, book.venue_time));
        }
        self.event(Kind::Book, &book.symbol, book);
    }

    fn event<'a>(&mut self, kind: Kind, symbol: &str, event: &impl Record<'a>) {
        let body = Body::Event(encode(event));
        self.items.push(Item::Publish(Outgoing { kind, key: self.key(symbol), body }));
    }

    /// Opens a hole unless one is open: data after `from` may be missing.
    pub fn open_gap(&mut self, kind: Kind, symbol: &str, from: Micros, cause: &'static str) {
        self.open(kind, symbol, from, Cow::Borrowed(cause));
    }

    fn open(&mut self, kind: Kind, symbol: &str, from: Micros, cause: Cow<'static, str>) {
        let slot = (kind, symbol.to_owned());
        if let Some(progress) = &mut self.progress {
            progress.remove(&slot);
        }
        if self.gaps.contains_key(&slot) {
            return;
        }
        self.stats.gaps_opened.add(1);
        self.feeds.gap(kind, symbol);
        self.gap(kind, symbol, GapState::Opened, from, None, &cause);
        self.gaps.insert(slot, OpenGap { from, cause, others: Vec::new() });
    }

    /// Ends the hole in a feed, if one is open: from `at` on it is whole.
    pub fn whole(&mut self, kind: Kind, symbol: &str, at: Micros) {
        if let Some(progress) = &mut self.progress {
            let begin = Progress { whole_since: at, update: None };
            progress.entry((kind, symbol.to_owned())).or_insert(begin);
        }
        if self.gaps.is_empty() {
            return;
        }
        if let Some(open) = self.gaps.remove(&(kind, symbol.to_owned())) {
            self.end(kind, symbol, open, at);
        }
    }

    fn end(&mut self, kind: Kind, symbol: &str, open: OpenGap, at: Micros) {
        let others = open.others.iter().map(|(from, cause)| (*from, cause.as_str()));
        for (from, cause) in others.chain([(open.from, &*open.cause)]) {
            self.gap(kind, symbol, GapState::Ended, from, Some(at.max(from)), cause);
        }
    }

    fn gap(
        &mut self,
        kind: Kind,
        symbol: &str,
        state: GapState,
        from: Micros,
        to: Option<Micros>,
        cause: &str,
    ) {
        let change = GapChange {
            venue: self.venue.to_owned(),
            symbol: symbol.to_owned(),
            channel: kind.name().to_owned(),
            state,
            from,
            to,
            cause: cause.to_owned(),
            filled_by: None,
        };
        let body = Body::Control(Control::Gap(change));
        self.items.push(Item::Publish(Outgoing { kind, key: self.key(symbol), body }));
    }

    /// Starts one feed of a connection anew.
    pub fn resubscribe(&mut self, connection: usize, texts: Vec<String>) {
        self.items.push(Item::Resubscribe { connection, texts });
    }

    /// Sends a message on a connection at once.
    pub fn reply(&mut self, connection: usize, text: &'static str) {
        self.items.push(Item::Reply { connection, text });
    }

    /// Asks for the snapshot of a symbol's book.
    pub fn request_snapshot(&mut self, symbol: &str) {
        self.items.push(Item::RequestSnapshot { symbol: symbol.to_owned() });
    }

    /// Counts a message that gave no event, and logs the first of its kind with its start.
    pub fn complain(&mut self, error: &DecodeError, message: &[u8]) {
        let (name, counter) = match error {
            DecodeError::Malformed(_) => ("malformed", &self.stats.decode_errors),
            DecodeError::Unknown(_) => ("unknown", &self.stats.unknown_messages),
            DecodeError::Venue(_) => ("venue", &self.stats.venue_errors),
        };
        counter.add(1);
        self.feeds.error(name);
        if self.complained.insert(name) {
            let start = message.get(..LOGGED_BYTES).unwrap_or(message);
            warn!(
                venue = self.venue,
                %error,
                message = %String::from_utf8_lossy(start).escape_debug(),
                "message not understood; more of this kind are counted, not logged"
            );
        }
    }

    fn key(&self, symbol: &str) -> String {
        [self.venue, ":", symbol].concat()
    }
}
