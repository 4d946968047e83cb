//! What a venue's connector and driver count.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use tapeline_schemas::Kind;

use super::CHANNELS;

/// A counter that many threads may read while one counts.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct KindCounters {
    received: Counter,
    published: Counter,
}

/// A venue's running counts, shared between its driver and whoever shows them.
#[derive(Debug, Default)]
pub struct VenueStats {
    kinds: [KindCounters; CHANNELS.len()],
    pub(crate) updates_applied: Counter,
    pub(crate) updates_stale: Counter,
    pub(crate) tops: Counter,
    pub(crate) checksums_verified: Counter,
    pub(crate) checksums_failed: Counter,
    pub(crate) resyncs: Counter,
    pub(crate) gaps_opened: Counter,
    pub(crate) disconnects: Counter,
    pub(crate) decode_errors: Counter,
    pub(crate) unknown_messages: Counter,
    pub(crate) venue_errors: Counter,
}

/// Counts of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct KindReport {
    /// Events the venue sent: trades, tickers, or book snapshots and deltas.
    pub received: u64,
    /// Events published; of books also the `top` records.
    pub published: u64,
}

/// Counts of books.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct BookReport {
    /// Snapshots and deltas applied.
    pub updates_applied: u64,
    /// Deltas that a snapshot already held, or that came while the book waited for one.
    pub updates_stale: u64,
    /// Records of the best levels.
    pub tops: u64,
    /// Updates whose checksum was right.
    pub checksums_verified: u64,
    /// Updates whose checksum was wrong.
    pub checksums_failed: u64,
    /// Books resynchronised after a break in their sequence or a wrong checksum.
    pub resyncs: u64,
}

/// A venue's counts at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct StatsReport {
    /// Trades.
    pub trade: KindReport,
    /// Tickers.
    pub ticker: KindReport,
    /// Books as records.
    pub book: KindReport,
    /// Figures of options.
    pub option: KindReport,
    /// The venue's own candles.
    pub venue_candle: KindReport,
    /// Books as state.
    pub books: BookReport,
    /// Holes opened.
    pub gaps_opened: u64,
    /// Connections lost.
    pub disconnects: u64,
    /// Messages that are not what the venue documents.
    pub decode_errors: u64,
    /// Messages nobody subscribed to.
    pub unknown_messages: u64,
    /// Errors the venue reported.
    pub venue_errors: u64,
}

impl StatsReport {
    /// The counts of every kind.
    pub fn kinds(&self) -> [(Kind, KindReport); CHANNELS.len()] {
        [
            (Kind::Trade, self.trade),
            (Kind::Ticker, self.ticker),
            (Kind::Book, self.book),
            (Kind::Option, self.option),
            (Kind::VenueCandle, self.venue_candle),
        ]
    }
}

impl VenueStats {
    /// The counts now.
    pub fn report(&self) -> StatsReport {
        let kind = |kind| {
            self.kind(kind).map_or_else(KindReport::default, |counters| KindReport {
                received: counters.received.get(),
                published: counters.published.get(),
            })
        };
        StatsReport {
            trade: kind(Kind::Trade),
            ticker: kind(Kind::Ticker),
            book: kind(Kind::Book),
            option: kind(Kind::Option),
            venue_candle: kind(Kind::VenueCandle),
            books: BookReport {
                updates_applied: self.updates_applied.get(),
                updates_stale: self.updates_stale.get(),
                tops: self.tops.get(),
                checksums_verified: self.checksums_verified.get(),
                checksums_failed: self.checksums_failed.get(),
                resyncs: self.resyncs.get(),
            },
            gaps_opened: self.gaps_opened.get(),
            disconnects: self.disconnects.get(),
            decode_errors: self.decode_errors.get(),
            unknown_messages: self.unknown_messages.get(),
            venue_errors: self.venue_errors.get(),
        }
    }

    pub(crate) fn received(&self, kind: Kind) {
        if let Some(counters) = self.kind(kind) {
            counters.received.add(1);
        }
    }

    pub(crate) fn published(&self, kind: Kind) {
        if let Some(counters) = self.kind(kind) {
            counters.published.add(1);
        }
    }

    fn kind(&self, kind: Kind) -> Option<&KindCounters> {
        CHANNELS.iter().position(|k| *k == kind).and_then(|index| self.kinds.get(index))
    }
}
