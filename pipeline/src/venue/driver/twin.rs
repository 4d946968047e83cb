//! What several connectors of the same symbols know of each other: which trades another has published for certain.
//!
//! A hole of this connector's that another covered is no hole of the pipeline's. "Complete through T" does not prove
//! that: it says what its writer received and nothing of the symbols, since when, or of another's holes. So each
//! says in Redis, once Kafka has confirmed everything before, since when each of its feeds is whole and through when.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use redis::Script;
use serde::{Deserialize, Serialize};
use tapeline_schemas::{Control, GapChange, GapState, Kind};
use tokio::time::Instant;
use tracing::info;

use super::connection::Event;
use super::core::Core;
use super::coverage::through;
use super::lease::is_held;
use crate::venue::{Body, Outgoing, Publisher};

/// How often it is said.
const SAID_EVERY: Duration = Duration::from_secs(1);
/// The same event is received at slightly different times, by clocks that differ slightly.
const SKEW_MICROS: i64 = 2_000_000;
/// Holes that wait for another's word.
const MAX_WAITING: usize = 100_000;
/// How long a hole waits for it.
const PATIENCE: Duration = Duration::from_secs(120);
const SCRIPT: &str = "redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], 86400)
return redis.call('HGETALL', KEYS[1])";

/// What one connector has published for certain, in microseconds of its receive time.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Covered {
    /// Kind and symbol: whole since.
    since: BTreeMap<String, i64>,
    /// Kind: through.
    through: BTreeMap<String, i64>,
}

impl Covered {
    /// Whether nothing of the hole is missing here.
    fn covers(&self, gap: &GapChange) -> bool {
        let Some(to) = gap.to else { return false };
        let since = self.since.get(&field(&gap.channel, &gap.symbol));
        let through = self.through.get(&gap.channel);
        since.is_some_and(|since| since + SKEW_MICROS <= gap.from.0)
            && through.is_some_and(|through| *through >= to.0 + SKEW_MICROS)
    }
}

fn field(channel: &str, symbol: &str) -> String {
    format!("{channel} {symbol}")
}

/// A driver's side of it.
#[derive(Debug, Default)]
pub(super) struct Twins {
    waiting: Vec<(Instant, Kind, GapChange)>,
    said: Option<Instant>,
    is_asking: bool,
}

impl Twins {
    /// Remembers a hole that has ended: another may have covered it.
    pub(super) fn ended(&mut self, outgoing: &Outgoing) {
        let Body::Control(Control::Gap(gap)) = &outgoing.body else { return };
        let is_one = gap.state == GapState::Ended && !is_held(outgoing.kind);
        if is_one && self.waiting.len() < MAX_WAITING {
            self.waiting.push((Instant::now(), outgoing.kind, gap.clone()));
        }
    }
}

impl<P: Publisher> Core<P> {
    /// Says what is covered, once all of it is delivered, and asks what others cover.
    pub(super) fn say_covered(&mut self) {
        let Some((lease, shared)) = self.config.lease.clone().zip(self.config.shared.clone())
        else {
            return;
        };
        let due = self.twins.said.is_none_or(|said| said.elapsed() >= SAID_EVERY);
        if self.twins.is_asking || !due {
            return;
        }
        (self.twins.is_asking, self.twins.said) = (true, Some(Instant::now()));
        let Ok(covered) = serde_json::to_string(&self.covered()) else { return };
        let (publisher, events) = (Arc::clone(&self.publisher), self.events.clone());
        self.links.spawn(async move {
            let mut others = Vec::new();
            if publisher.delivered().await.is_ok() {
                let script = Script::new(SCRIPT);
                let mut call = script.key(format!("coverage:{}", lease.name));
                call.arg(&lease.instance).arg(covered);
                let all: Vec<(String, String)> = shared.call(&call).await.unwrap_or_default();
                others = all.into_iter().filter(|(by, _)| *by != lease.instance).collect();
            }
            // The driver may have ended meanwhile.
            let _ = events.send(Event::Twins { others }).await;
        });
    }

    fn covered(&self) -> Covered {
        let mut covered = Covered::default();
        let promising = || self.units.iter().filter(|unit| unit.promises());
        for kind in self.config.settings.channels.iter().filter(|kind| !is_held(**kind)) {
            if let Some(through) = through(promising().flat_map(|unit| &unit.reaches), *kind) {
                covered.through.insert(kind.name().to_owned(), through.0);
            }
        }
        for unit in promising() {
            for (_, feed) in unit.feeds().filter(|(_, feed)| !is_held(feed.0)) {
                if let Some(progress) = unit.out.progress(feed) {
                    covered.since.insert(field(feed.0.name(), &feed.1), progress.whole_since.0);
                }
            }
        }
        covered
    }

    /// What others cover: holes of ours that another covered are filled by it.
    pub(super) fn heed_twins(&mut self, others: &[(String, String)]) {
        self.twins.is_asking = false;
        let others: Vec<(&str, Covered)> = others
            .iter()
            .filter_map(|(by, covered)| Some((by.as_str(), serde_json::from_str(covered).ok()?)))
            .collect();
        let waiting = std::mem::take(&mut self.twins.waiting);
        for (since, kind, gap) in waiting {
            match others.iter().find(|(_, covered)| covered.covers(&gap)) {
                Some((by, _)) => self.filled_by(kind, gap, by),
                None if since.elapsed() < PATIENCE => self.twins.waiting.push((since, kind, gap)),
                None => {}
            }
        }
    }

    fn filled_by(&mut self, kind: Kind, gap: GapChange, by: &str) {
        info!(symbol = gap.symbol, from = gap.from.0, by, "a hole that another connector covered");
        let key = format!("{}:{}", gap.venue, gap.symbol);
        let filled =
            GapChange { state: GapState::Filled, filled_by: Some(format!("twin {by}")), ..gap };
        let body = Body::Control(Control::Gap(filled));
        // Its end has been published; which of two units that overlap serves the feed by now does not matter.
        self.apart.push(Outgoing { kind, key, body });
    }
}

#[cfg(test)]
mod tests {
    use tapeline_schemas::Micros;

    use super::*;

    #[test]
    fn another_covers_a_hole_only_where_it_was_whole_before_and_is_through_after_it() {
        let gap = |from, to: Option<i64>| GapChange {
            venue: "X".to_owned(),
            symbol: "A-B".to_owned(),
            channel: "trade".to_owned(),
            state: GapState::Ended,
            from: Micros(from),
            to: to.map(Micros),
            cause: "restart".to_owned(),
            filled_by: None,
        };
        let (s, since) = (1_000_000, BTreeMap::from([(field("trade", "A-B"), 10_000_000)]));
        let covered = Covered { since, through: BTreeMap::from([("trade".to_owned(), 30 * s)]) };
        assert!(covered.covers(&gap(12 * s, Some(28 * s))));
        assert!(!covered.covers(&gap(11 * s, Some(28 * s))), "it was not whole before");
        assert!(!covered.covers(&gap(12 * s, Some(29 * s))), "it is not through yet");
        assert!(!covered.covers(&gap(12 * s, None)));
        let other = GapChange { symbol: "C-D".to_owned(), ..gap(12 * s, Some(28 * s)) };
        assert!(!covered.covers(&other), "it does not have that symbol");
    }
}
