//! Holes in a symbol's trades, as far as they still matter to its candles.

use tapeline_schemas::{GapChange, GapState, Micros};

/// The channel whose holes matter to candles.
pub(super) const CHANNEL: &str = "trade";

/// A hole that nothing has filled. Its start is its identity within a symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hole {
    /// Last moment known to be covered.
    pub(super) from: Micros,
    /// Moment from which the feed is whole again; open-ended before that is known.
    pub(super) to: Option<Micros>,
    /// Offset of the first record that spoke of it.
    pub(super) offset: i64,
}

impl Hole {
    /// Whether trades of the window may be missing. The reviser's query says the same.
    fn overlaps(&self, start: Micros, end: Micros) -> bool {
        self.from < end && self.to.is_none_or(|to| to > start)
    }
}

/// The holes of one symbol.
#[derive(Debug, Default)]
pub(super) struct Holes(Vec<Hole>);

impl Holes {
    /// Takes a change in; a repeated one changes nothing.
    pub(super) fn change(&mut self, gap: &GapChange, offset: i64) {
        let known = self.0.iter().position(|hole| hole.from == gap.from);
        match (gap.state, known) {
            (GapState::Filled, Some(index)) => {
                self.0.swap_remove(index);
            }
            (GapState::Filled, None) | (GapState::Opened, Some(_)) => {}
            (GapState::Ended, Some(index)) => self.0[index].to = gap.to,
            // An end without its beginning: the hole is as real.
            (GapState::Opened | GapState::Ended, None) => {
                self.0.push(Hole { from: gap.from, to: gap.to, offset });
            }
        }
    }

    /// Puts a hole back that a note remembers.
    pub(super) fn restore(&mut self, hole: Hole) {
        self.0.push(hole);
    }

    /// Whether one of them overlaps the window.
    pub(super) fn any_overlaps(&self, start: Micros, end: Micros) -> bool {
        self.0.iter().any(|hole| hole.overlaps(start, end))
    }

    /// Forgets the holes that can no longer touch an open window.
    pub(super) fn forget(&mut self, no_longer_matters: impl Fn(Micros) -> bool) {
        self.0.retain(|hole| !hole.to.is_some_and(&no_longer_matters));
    }

    /// The holes.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Hole> {
        self.0.iter()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
