//! The quality of feeds, as metrics: what came of each symbol and kind, how old it is, how long it took.

use std::collections::HashMap;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tapeline_schemas::{Kind, Micros, Timeframe};

use super::CHANNELS;

/// Symbols of a venue with metrics of their own; the others share the label [`OTHERS`].
const MAX_SYMBOLS: usize = 1_000;
/// Label of the symbols beyond [`MAX_SYMBOLS`].
const OTHERS: &str = "others";
/// Weight of one message in the latency shown of a symbol.
const SMOOTHING: f64 = 1.0 / 16.0;
/// How long a clock is compared before the figure is renewed, by receive time.
const CLOCK_WINDOW_MICROS: i64 = Timeframe::M1.micros();

/// Metrics of one symbol and kind.
struct Feed {
    messages: Counter,
    gaps: Counter,
    last: Gauge,
    latency: Gauge,
    /// Of the venue's kind.
    latencies: Histogram,
    smoothed: Option<f64>,
}

impl Feed {
    fn new(venue: &'static str, kind: Kind, symbol: &str) -> Feed {
        let of_kind = [("venue", venue.to_owned()), ("channel", kind.name().to_owned())];
        let [venue, channel] = of_kind.clone();
        let labels = [venue, channel, ("symbol", symbol.to_owned())];
        let (messages, gaps) = (
            counter!("tapeline_feed_messages_total", &labels),
            counter!("tapeline_feed_gaps_total", &labels),
        );
        messages.increment(0);
        gaps.increment(0);
        Feed {
            messages,
            gaps,
            last: gauge!("tapeline_feed_last_message_timestamp_seconds", &labels),
            latency: gauge!("tapeline_feed_latency_smoothed_seconds", &labels),
            latencies: histogram!("tapeline_feed_latency_seconds", &of_kind),
            smoothed: None,
        }
    }

    fn latency(&mut self, seconds: f64) {
        self.latencies.record(seconds.max(0.0));
        let before = self.smoothed.unwrap_or(seconds);
        let smoothed = before + (seconds - before) * SMOOTHING;
        self.smoothed = Some(smoothed);
        self.latency.set(smoothed);
    }
}

/// The smallest receive time less venue time of a minute: our clock less the venue's, plus the shortest way.
#[derive(Debug, Clone, Copy)]
struct Clock {
    since: Micros,
    smallest: i64,
}

impl Clock {
    /// Takes one message; gives the last minute's figure where a minute has passed.
    fn take(&mut self, difference: i64, at: Micros) -> Option<i64> {
        if at.since(self.since) < CLOCK_WINDOW_MICROS {
            self.smallest = self.smallest.min(difference);
            return None;
        }
        let smallest = self.smallest;
        *self = Clock { since: at, smallest: difference };
        Some(smallest)
    }
}

/// The feeds of one venue. Labels are bounded: a symbol gets some by being subscribed to, [`MAX_SYMBOLS`] at most.
pub(super) struct Feeds {
    venue: &'static str,
    symbols: HashMap<String, [Option<Feed>; CHANNELS.len()]>,
    clock: Option<Clock>,
    is_shown: bool,
}

impl std::fmt::Debug for Feeds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Feeds({}, {} symbols)", self.venue, self.symbols.len())
    }
}

fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

impl Feeds {
    pub(super) fn new(venue: &'static str) -> Feeds {
        Feeds { venue, symbols: HashMap::new(), clock: None, is_shown: true }
    }

    /// Begins or ceases to count: of two connections with the same feeds one counts.
    pub(super) fn show(&mut self, is_shown: bool) {
        self.is_shown = is_shown;
    }

    /// A message with an event of this feed came. A venue time that is the receive time says nothing about the way.
    pub(super) fn message(&mut self, kind: Kind, symbol: &str, venue_time: Micros, at: Micros) {
        if !self.is_shown {
            return;
        }
        let difference = (venue_time != at).then(|| at.since(venue_time));
        if let Some(feed) = self.feed(kind, symbol) {
            feed.messages.increment(1);
            feed.last.set(seconds(at.0));
            if let Some(difference) = difference {
                feed.latency(seconds(difference));
            }
        }
        let Some(difference) = difference else { return };
        let clock = self.clock.get_or_insert(Clock { since: at, smallest: difference });
        if let Some(smallest) = clock.take(difference, at) {
            gauge!("tapeline_feed_clock_offset_seconds", "venue" => self.venue)
                .set(seconds(smallest));
        }
    }

    /// A hole was opened in this feed.
    pub(super) fn gap(&mut self, kind: Kind, symbol: &str) {
        if self.is_shown
            && let Some(feed) = self.feed(kind, symbol)
        {
            feed.gaps.increment(1);
        }
    }

    /// A book was resynchronised.
    pub(super) fn resync(&self, symbol: &str) {
        if !self.is_shown {
            return;
        }
        let symbol = if self.symbols.contains_key(symbol) { symbol } else { OTHERS };
        counter!("tapeline_feed_resyncs_total", "venue" => self.venue, "symbol" => symbol.to_owned())
            .increment(1);
    }

    /// A connection was lost.
    pub(super) fn disconnect(&self) {
        if self.is_shown {
            counter!("tapeline_feed_disconnects_total", "venue" => self.venue).increment(1);
        }
    }

    /// A message gave no event.
    pub(super) fn error(&self, reason: &'static str) {
        if !self.is_shown {
            return;
        }
        counter!("tapeline_feed_errors_total", "venue" => self.venue, "reason" => reason)
            .increment(1);
    }

    /// A feed that is subscribed to is shown before its first message.
    pub(super) fn expect(&mut self, kind: Kind, symbol: &str) {
        let _ = self.feed(kind, symbol);
    }

    fn feed(&mut self, kind: Kind, symbol: &str) -> Option<&mut Feed> {
        let index = CHANNELS.iter().position(|channel| *channel == kind)?;
        let venue = self.venue;
        // Looked up twice: the usual case makes no text.
        if !self.symbols.contains_key(symbol) {
            let room = self.symbols.len() < MAX_SYMBOLS;
            let label = if room { symbol } else { OTHERS };
            let feeds = self.symbols.entry(label.to_owned()).or_default();
            return feeds
                .get_mut(index)
                .map(|f| f.get_or_insert_with(|| Feed::new(venue, kind, label)));
        }
        let feeds = self.symbols.get_mut(symbol)?;
        feeds.get_mut(index).map(|f| f.get_or_insert_with(|| Feed::new(venue, kind, symbol)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_figure_is_the_smallest_difference_of_a_minute() {
        let mut clock = Clock { since: Micros(0), smallest: 900 };
        assert_eq!(clock.take(-40, Micros(1)), None);
        assert_eq!(clock.take(70, Micros(59_999_999)), None);
        assert_eq!(clock.take(500, Micros(60_000_000)), Some(-40));
        assert_eq!(clock.take(501, Micros(120_000_000)), Some(500));
    }

    #[test]
    fn symbols_beyond_the_bound_share_a_label() {
        let mut feeds = Feeds::new("X");
        for number in 0..MAX_SYMBOLS + 50 {
            feeds.message(Kind::Trade, &format!("S{number}-USD"), Micros(0), Micros(1));
        }
        assert_eq!(feeds.symbols.len(), MAX_SYMBOLS + 1);
        assert!(feeds.symbols.contains_key(OTHERS));
    }
}
