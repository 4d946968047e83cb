//! What was rebuilt, and what was not.

use serde::Serialize;
use tapeline_schemas::{ALL_KINDS, Kind};
use tapeline_stages::sinks::redis::Rebuilt;

use crate::wiring::CACHED_KINDS;

/// What became of the values of a kind.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct KindReport {
    /// Its name.
    pub kind: &'static str,
    /// How long a value lives, in seconds.
    pub lifetime_s: u32,
    /// Values written; with `dry_run` those that would be.
    pub written: u64,
    /// Values of which Redis holds as new a one, or a newer one.
    pub held: u64,
    /// Newest values, of the time that was looked at, that have outlived theirs.
    pub expired: u64,
    /// Candles where the log ends with another than the one that is stored, so that they may be older than what was shown.
    pub overtaken: u64,
}

impl KindReport {
    pub(super) fn new(kind: Kind) -> KindReport {
        let lifetime_s = kind.spec().redis.map_or(0, |(_, seconds)| seconds);
        KindReport { kind: kind.name(), lifetime_s, written: 0, held: 0, expired: 0, overtaken: 0 }
    }

    pub(super) fn add(&mut self, rebuilt: Rebuilt) {
        self.written += rebuilt.written;
        self.held += rebuilt.held;
    }
}

/// A kind whose values do not come back.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct NotRebuilt {
    /// Its name.
    pub kind: &'static str,
    /// Why.
    pub why: &'static str,
}

/// The whole rebuild.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Redis was only asked.
    pub dry_run: bool,
    /// Kinds that the cache shows.
    pub kinds: Vec<KindReport>,
    /// Kinds that the database holds and the cache does not show.
    pub not_rebuilt: Vec<NotRebuilt>,
}

impl Report {
    pub(super) fn new(dry_run: bool, kinds: Vec<KindReport>) -> Report {
        let stored = ALL_KINDS.iter().filter(|spec| spec.table.is_some());
        let others = stored.filter(|spec| !CACHED_KINDS.contains(&spec.kind));
        let not_rebuilt = others.map(|spec| NotRebuilt {
            kind: spec.name,
            why: "the cache stage does not write it to Redis",
        });
        Report { dry_run, kinds, not_rebuilt: not_rebuilt.collect() }
    }

    /// What became of a kind; none for one that the cache does not show.
    pub fn kind(&self, kind: Kind) -> Option<&KindReport> {
        self.kinds.iter().find(|report| report.kind == kind.name())
    }

    /// Prints it for people, a line a kind.
    pub fn print(&self) {
        let written = if self.dry_run { "to write" } else { "written" };
        for report in &self.kinds {
            let KindReport { kind, lifetime_s, written: number, held, expired, overtaken } = report;
            println!(
                "{kind:<7} {number} {written}, {held} left alone: Redis has as new ones or newer, \
                 {expired} expired: stored more than {lifetime_s} s ago"
            );
            if *overtaken > 0 {
                println!(
                    "{:<7} {overtaken} left out: the log ends with others than those that are stored",
                    ""
                );
            }
        }
        let names: Vec<&str> = self.not_rebuilt.iter().map(|other| other.kind).collect();
        println!(
            "not rebuilt: {}, which the cache stage does not write to Redis",
            names.join(", ")
        );
        if self.dry_run {
            println!("dry run: Redis was only asked, nothing was written");
        }
    }
}
