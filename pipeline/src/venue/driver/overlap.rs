//! Replacing a unit without a hole: its successor is connected and confirmed before it is closed.
//!
//! Both are open for a while. Trades are published from both, each identity once; every other feed comes from the
//! old unit until the new one has it whole and is not behind, and from the new one from then on.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use tapeline_schemas::{Kind, Micros, Record, Trade};
use tokio::time::Instant;

use super::unit::Unit;

/// Longest time for a successor to take everything; what it does not have by then is a recorded hole.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);
/// Trades remembered while two units overlap.
const REMEMBERED: usize = 200_000;

/// What a unit has taken over so far.
#[derive(Debug)]
pub(super) struct Takeover {
    /// Number of the unit before it.
    pub(super) from: u64,
    pub(super) since: Instant,
    pub(super) taken: HashSet<(Kind, String)>,
}

/// The trades of an overlap.
#[derive(Debug, Default)]
pub(super) struct Seen {
    ids: HashSet<(String, String)>,
    order: VecDeque<(String, String)>,
}

impl Seen {
    /// Whether this trade, in the codec's bytes, is the first of its identity.
    pub(super) fn first(&mut self, key: &str, payload: &[u8]) -> bool {
        let Ok(trade) = Trade::decode(payload) else { return true };
        let id = (key.to_owned(), trade.trade_id.into_owned());
        if !self.ids.insert(id.clone()) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }

    pub(super) fn forget(&mut self) {
        *self = Seen::default();
    }
}

/// The feeds that `new` can take from `old` now, without anything missing between them: subscribed and confirmed while
/// the old connection went on for `overlap` microseconds of receive time; of a book, whole and not behind. Where the
/// old connection is down there is nothing to wait for.
pub(super) fn ready(new: &Unit, old: &Unit, overlap: i64) -> Vec<(Kind, String)> {
    let Some(takes) = &new.takes else { return Vec::new() };
    let waiting = new.feeds().filter(|(_, feed)| !takes.taken.contains(*feed));
    let ready = waiting.filter(|(connection, feed)| {
        let Some(progress) = new.out.progress(feed) else { return false };
        let before = old.feeds().find(|(_, of)| of == feed).map(|(connection, _)| connection);
        let Some(before) = before.and_then(|connection| old.reaches.get(connection)) else {
            return true;
        };
        if before.down {
            return true;
        }
        let end = progress.whole_since.plus(overlap);
        let past = |last: Option<Micros>| last.is_some_and(|last| last >= end);
        let overlapped =
            past(before.last) && new.reaches.get(*connection).is_some_and(|r| past(r.last));
        overlapped && (feed.0 != Kind::Book || is_not_behind(progress.update, old, feed))
    });
    ready.map(|(_, feed)| feed.clone()).collect()
}

/// Whether a book has come as far as the old unit's: by the venue's number, or by its time where it numbers none.
fn is_not_behind(new: Option<(Option<i64>, Micros)>, old: &Unit, feed: &(Kind, String)) -> bool {
    let old = old.out.progress(feed).and_then(|progress| progress.update);
    match (new, old) {
        // Nothing came to the old book while the new one was subscribed.
        (_, None) => true,
        (None, Some(_)) => false,
        (Some((Some(new), _)), Some((Some(old), _))) => new >= old,
        (Some((_, new)), Some((_, old))) => new >= old,
    }
}
