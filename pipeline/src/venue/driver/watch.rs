//! Feeds that are connected and silent: noticed by receive times alone (invariant 11), against the feed's own usual pace.

use std::collections::HashMap;

use tapeline_schemas::{Kind, Micros};

/// Pauses between events that must have been seen before a silence is judged by them.
const KNOWN_PAUSES: u32 = 10;
/// For how many times the shortest silence a feed must have been watched before it is judged.
const KNOWN_FLOORS: i64 = 10;
/// A silence of so many times the longest usual pause is too long.
const TIMES_THE_LONGEST: i64 = 4;
/// The longest pause counts half as much after so long.
const HALVED_MICROS: i64 = 3_600_000_000;
/// Each alarm without an answer doubles the next silence, up to so often.
const MOST_DOUBLINGS: u32 = 6;

/// One feed's pace.
#[derive(Debug, Default)]
struct Pace {
    watched_from: Option<Micros>,
    last: Option<Micros>,
    /// A connection was opened since the last event.
    resumed: bool,
    /// Since when the present silence counts: the last event, alarm or opening.
    silent_since: Option<Micros>,
    pauses: u32,
    longest: i64,
    halved_at: Micros,
    alarms: u32,
}

impl Pace {
    fn event(&mut self, at: Micros) {
        if std::mem::take(&mut self.resumed) {
            // The time without a connection is no pause of the feed's.
        } else if let Some(last) = self.last {
            let hours = at.since(self.halved_at) / HALVED_MICROS;
            if hours > 0 {
                self.longest >>= hours.min(62);
                self.halved_at = self.halved_at.plus(hours * HALVED_MICROS);
            }
            self.longest = self.longest.max(at.since(last));
            self.pauses = self.pauses.saturating_add(1);
        } else {
            self.halved_at = at;
        }
        self.last = Some(at);
        self.silent_since = Some(at);
        self.alarms = 0;
    }

    /// Whether the feed has been silent for too long; then, since when it may have missed something.
    fn alarm(&mut self, kind: Kind, at: Micros, floor: i64) -> Option<Micros> {
        let watched_from = *self.watched_from.get_or_insert(at);
        let since = *self.silent_since.get_or_insert(at);
        let limit = match self.last {
            // Every book begins with a snapshot; of other feeds nothing may come for days.
            None if kind == Kind::Book => floor,
            None => return None,
            Some(_) => {
                let watched = at.since(watched_from) >= floor.saturating_mul(KNOWN_FLOORS);
                if self.pauses < KNOWN_PAUSES || !watched {
                    return None;
                }
                floor.max(self.longest.saturating_mul(TIMES_THE_LONGEST))
            }
        };
        if at.since(since) < limit.saturating_mul(1 << self.alarms.min(MOST_DOUBLINGS)) {
            return None;
        }
        self.alarms += 1;
        self.silent_since = Some(at);
        Some(since)
    }
}

/// The paces of a unit's feeds.
#[derive(Debug)]
pub(super) struct Watch {
    /// Shortest silence that is an alarm, in microseconds; none watches nothing.
    floor: Option<i64>,
    by_symbol: HashMap<String, Vec<(Kind, Pace)>>,
}

impl Watch {
    pub(super) fn new<'f>(
        floor: Option<i64>,
        feeds: impl Iterator<Item = &'f (Kind, String)>,
    ) -> Watch {
        let mut by_symbol: HashMap<String, Vec<(Kind, Pace)>> = HashMap::new();
        for (kind, symbol) in feeds {
            by_symbol.entry(symbol.clone()).or_default().push((*kind, Pace::default()));
        }
        Watch { floor, by_symbol }
    }

    fn pace(&mut self, kind: Kind, symbol: &str) -> Option<&mut Pace> {
        let paces = self.by_symbol.get_mut(symbol)?;
        paces.iter_mut().find(|(of, _)| *of == kind).map(|(_, pace)| pace)
    }

    /// An event came.
    pub(super) fn event(&mut self, kind: Kind, symbol: &str, at: Micros) {
        if self.floor.is_some()
            && let Some(pace) = self.pace(kind, symbol)
        {
            pace.event(at);
        }
    }

    /// The feeds begin anew: the time without a connection is no silence of theirs.
    pub(super) fn opened(&mut self, feeds: &[(Kind, String)]) {
        for (kind, symbol) in feeds {
            if let Some(pace) = self.pace(*kind, symbol) {
                (pace.resumed, pace.silent_since) = (true, None);
            }
        }
    }

    /// The feeds that have been silent for too long at `at`, and since when.
    pub(super) fn silent(
        &mut self,
        feeds: &[(Kind, String)],
        at: Micros,
    ) -> Vec<((Kind, String), Micros)> {
        let Some(floor) = self.floor else { return Vec::new() };
        let mut silent = Vec::new();
        for feed in feeds {
            let alarm = self.pace(feed.0, &feed.1).and_then(|pace| pace.alarm(feed.0, at, floor));
            silent.extend(alarm.map(|from| (feed.clone(), from)));
        }
        silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000;

    fn watched(kind: Kind, every: i64, until: i64) -> Watch {
        let feeds = [(kind, "A-B".to_owned())];
        let mut watch = Watch::new(Some(60 * S), feeds.iter());
        for second in 0..=until {
            if second % every == 0 {
                watch.event(kind, "A-B", Micros(second * S));
            }
            assert!(watch.silent(&feeds, Micros(second * S)).is_empty(), "at {second} s");
        }
        watch
    }

    fn alarms(watch: &mut Watch, kind: Kind, from: i64, to: i64) -> Vec<(i64, i64)> {
        let feeds = [(kind, "A-B".to_owned())];
        let at = |second: i64| watch.silent(&feeds, Micros(second * S)).pop();
        (from..to)
            .map(at)
            .enumerate()
            .filter_map(|(i, a)| Some((from + i as i64, a?.1.0 / S)))
            .collect()
    }

    #[test]
    fn a_lively_feed_that_falls_silent_alarms_and_a_quiet_one_only_by_its_own_pace() {
        let mut lively = watched(Kind::Trade, 1, 1_000);
        assert_eq!(
            alarms(&mut lively, Kind::Trade, 1_001, 1_400),
            [(1_060, 1_000), (1_180, 1_060)]
        );
        let mut quiet = watched(Kind::Trade, 300, 6_000);
        let found = alarms(&mut quiet, Kind::Trade, 6_001, 8_000);
        assert_eq!(found.first(), Some(&(7_200, 6_000)));
    }

    #[test]
    fn nothing_is_judged_before_its_pace_is_known_except_a_book_that_never_came() {
        let mut young = watched(Kind::Ticker, 100, 500);
        assert!(alarms(&mut young, Kind::Ticker, 501, 5_000).is_empty());
        for (kind, count) in [(Kind::Trade, 0), (Kind::Book, 1)] {
            let feeds = [(kind, "A-B".to_owned())];
            let mut never = Watch::new(Some(60 * S), feeds.iter());
            assert_eq!(alarms(&mut never, kind, 0, 100).len(), count);
        }
    }
}
