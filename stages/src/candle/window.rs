//! Open windows and watermarks, per partition, venue and symbol.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use tapeline_schemas::{Micros, Timeframe};

use super::fold::Bar;
use super::holes::{Hole, Holes};
use super::loss::{Loss, Losses};
use super::note::{Note, noted};
use super::tier::Content;
use crate::flow::{Checkpoint, Reject};

/// A window that takes pieces.
#[derive(Debug)]
struct Window<C> {
    content: C,
    /// Offset of its first record: no commit goes beyond it.
    first_offset: i64,
    /// When the broker appended that record.
    first_append: Micros,
}

/// One symbol.
#[derive(Debug)]
struct Symbol<C> {
    /// By end, so that the first is the next to close.
    windows: BTreeMap<(Micros, Timeframe), Window<C>>,
    holes: Holes,
}

impl<C> Default for Symbol<C> {
    fn default() -> Self {
        Symbol { windows: BTreeMap::new(), holes: Holes::default() }
    }
}

/// One venue in one partition.
#[derive(Debug)]
pub(super) struct Venue<C> {
    /// Everything before this moment is taken for complete; windows up to here are released.
    pub(super) watermark: Option<Micros>,
    /// It found no place in the note of the last owner: its true watermark is not known.
    pub(super) unsure: bool,
    /// Records were lost, and none of it has come since.
    unmet: Losses,
    /// Earliest end among its open windows: most events close nothing and look no further.
    due: Option<Micros>,
    symbols: BTreeMap<String, Symbol<C>>,
}

/// A window that has been released.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) end: Micros,
    pub(super) frame: Timeframe,
    pub(super) symbol: String,
    pub(super) bar: Bar,
    /// Every piece is final and no hole overlaps the window.
    pub(super) is_final: bool,
}

impl Closed {
    /// When it began.
    pub(super) fn start(&self) -> Micros {
        self.end.plus(-self.frame.micros())
    }
}

/// What became of a piece in the windows of one timeframe each.
#[derive(Debug, Default)]
pub(super) struct Added {
    /// A window took it.
    pub(super) any: bool,
    /// Starts of windows that are past finality.
    pub(super) late: Vec<(Timeframe, Micros)>,
}

/// Where a record stands in the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin {
    pub(super) offset: i64,
    pub(super) append: Micros,
}

impl<C: Content> Venue<C> {
    fn new(watermark: Option<Micros>, unsure: bool) -> Venue<C> {
        Venue { watermark, unsure, unmet: Losses::default(), due: None, symbols: BTreeMap::new() }
    }

    fn is_released(&self, end: Micros) -> bool {
        self.watermark.is_some_and(|watermark| watermark >= end)
    }

    /// Adds a piece to its windows, to all or to none of them.
    pub(super) fn add(
        &mut self,
        symbol: &str,
        frames: &[Timeframe],
        time: Micros,
        piece: &C::Piece,
        opens: bool,
        origin: Origin,
    ) -> Result<Added, Reject> {
        let mut added = Added::default();
        let mut changes = Vec::new();
        let known = self.symbols.get(symbol);
        for &frame in frames {
            let start = frame.start(time);
            let at = (frame.end(start), frame);
            let window = known.and_then(|symbol| symbol.windows.get(&at));
            if self.is_released(at.0) || (window.is_none() && !opens) {
                added.late.push((frame, start));
                continue;
            }
            let change = match window {
                Some(window) => window.content.consider(piece)?,
                None => C::default().consider(piece)?,
            };
            changes.extend(change.map(|change| (at, change)));
        }
        if changes.is_empty() {
            return Ok(added);
        }
        added.any = true;
        if known.is_none() {
            self.symbols.insert(symbol.to_owned(), Symbol::default());
        }
        let Some(symbol) = self.symbols.get_mut(symbol) else { return Ok(added) };
        for (at, change) in changes {
            let window = symbol.windows.entry(at).or_insert_with(|| Window {
                content: C::default(),
                first_offset: origin.offset,
                first_append: origin.append,
            });
            window.content.put(change);
            self.due = Some(self.due.map_or(at.0, |due| due.min(at.0)));
        }
        Ok(added)
    }

    /// Moves the watermark up to `to` and releases what it has passed, ordered by end, timeframe
    /// and symbol. It never goes back.
    pub(super) fn raise(&mut self, to: Micros, longest: Timeframe) -> Vec<Closed> {
        let before = self.watermark;
        if before.is_some_and(|before| before >= to) {
            return Vec::new();
        }
        self.watermark = Some(to);
        let mut closed = Vec::new();
        if self.due.is_some_and(|due| due <= to) {
            for (name, symbol) in &mut self.symbols {
                symbol.release(name, to, &mut closed);
            }
            closed.sort_by(|a, b| (a.end, a.frame, &a.symbol).cmp(&(b.end, b.frame, &b.symbol)));
        }
        // Holes end to the microsecond but matter to whole windows.
        let minute = |time| Timeframe::M1.start(time);
        if before.map(minute) != Some(minute(to)) {
            let passed = |end: Micros| longest.end(longest.start(end)) <= to;
            self.symbols.retain(|_, symbol| {
                symbol.holes.forget(passed);
                !symbol.windows.is_empty() || !symbol.holes.is_empty()
            });
        }
        let ends = self.symbols.values().filter_map(|symbol| symbol.windows.keys().next());
        self.due = if closed.is_empty() { self.due } else { ends.map(|(end, _)| *end).min() };
        closed
    }

    /// The holes of a symbol, to be changed.
    pub(super) fn holes(&mut self, symbol: &str) -> &mut Holes {
        &mut self.symbols.entry(symbol.to_owned()).or_default().holes
    }

    /// The newest moment that its windows are about.
    fn newest(&self) -> Option<Micros> {
        let ends = self.symbols.values().filter_map(|symbol| symbol.windows.keys().next_back());
        ends.map(|(end, _)| *end).max().max(self.watermark)
    }

    /// Newest end among the windows whose first record was appended before `since`.
    fn overdue(&self, since: Micros) -> Option<Micros> {
        let windows = self.symbols.values().flat_map(|symbol| &symbol.windows);
        windows.filter(|(_, window)| window.first_append < since).map(|((end, _), _)| *end).max()
    }
}

impl<C: Content> Symbol<C> {
    fn release(&mut self, name: &str, to: Micros, closed: &mut Vec<Closed>) {
        while let Some(first) = self.windows.first_entry() {
            let (end, frame) = *first.key();
            if end > to {
                return;
            }
            let window = first.remove();
            let Some((bar, pieces_final)) = window.content.bar() else { continue };
            let start = end.plus(-frame.micros());
            let is_final = pieces_final && !self.holes.any_overlaps(start, end);
            closed.push(Closed { end, frame, symbol: name.to_owned(), bar, is_final });
        }
    }
}

/// One partition.
#[derive(Debug)]
pub(super) struct Partition<C> {
    /// Records before this offset were taken by the last owner. They fill open windows again:
    /// they are never late, move no watermark and make no message.
    pub(super) next: i64,
    /// Last origin taken.
    pub(super) origin: i64,
    /// Newest watermark among the venues that found no place in the last owner's note.
    rest: Option<Micros>,
    /// The last owner's note held its holes: the log is not asked for them again.
    pub(super) holes_noted: bool,
    /// Minute of the broker's time of the last record.
    append_minute: Option<Micros>,
    /// What was lost, where something was.
    losses: Losses,
    venues: HashMap<String, Venue<C>>,
}

impl<C> Default for Partition<C> {
    fn default() -> Self {
        Partition {
            next: i64::MIN,
            origin: i64::MIN,
            rest: None,
            holes_noted: false,
            append_minute: None,
            losses: Losses::default(),
            venues: HashMap::new(),
        }
    }
}

impl<C: Content> Partition<C> {
    /// The partition as its last owner left it.
    pub(super) fn from_note(note: Note) -> Partition<C> {
        let mut partition = Partition {
            next: note.next,
            origin: note.origin,
            rest: note.rest.map(Micros),
            holes_noted: note.holes.is_some(),
            losses: note.losses,
            ..Partition::default()
        };
        for (name, watermark) in note.venues {
            partition.venues.insert(name, Venue::new(watermark.map(Micros), false));
        }
        if !partition.losses.is_empty() {
            // Which venues have come since is not noted.
            let unmet = partition.losses;
            partition.venues.values_mut().for_each(|venue| venue.unmet = unmet);
        }
        for (venue, symbol, from, to, offset) in note.holes.unwrap_or_default() {
            let hole = Hole { from: Micros(from), to: to.map(Micros), offset };
            partition.venue(&venue).holes(&symbol).restore(hole);
        }
        partition
    }

    /// The venue, which begins where the note's forgotten ones may have been.
    pub(super) fn venue(&mut self, name: &str) -> &mut Venue<C> {
        let rest = self.rest;
        let unmet = self.losses;
        self.venues
            .entry_ref(name)
            .or_insert_with(|| Venue { unmet, ..Venue::new(rest, rest.is_some()) })
    }

    /// Takes note that records were lost here. Pieces may be missing from every window that is
    /// open, and from those that each venue's next event shows to have been under way.
    pub(super) fn lose(&mut self, kind: Loss) {
        let newest = self.venues.values().filter_map(Venue::newest).max();
        let newest = newest.unwrap_or(Micros(i64::MIN));
        self.losses = self.losses_left();
        self.losses.widen(kind, newest);
        self.venues.values_mut().for_each(|venue| venue.unmet.widen(kind, newest));
    }

    /// Takes note of a venue's event, which after a loss shows how far that went.
    pub(super) fn comes(&mut self, venue: &str, time: Micros) {
        let unmet = std::mem::take(&mut self.venue(venue).unmet);
        self.losses.reach(unmet, time);
    }

    /// What the windows from `start` on may lack.
    pub(super) fn lacks(&self, start: Micros) -> Losses {
        self.losses.at(start)
    }

    /// Where venues stand whose oldest window holds the log back for longer than `hold_micros` of
    /// the broker's time. Asked once a minute of that time: it is in the records, so every owner
    /// comes to the same answer at the same record (invariant 11).
    pub(super) fn overdue(
        &mut self,
        append: Micros,
        hold_micros: i64,
        seen: bool,
    ) -> Vec<(String, Micros)> {
        let minute = Timeframe::M1.start(append);
        let before = self.append_minute.replace(minute);
        if seen || before.is_none_or(|before| before >= minute) {
            return Vec::new();
        }
        let since = minute.plus(-hold_micros);
        let venues = self.venues.iter();
        let mut overdue: Vec<_> = venues
            .filter_map(|(name, venue)| Some((name.clone(), venue.overdue(since)?)))
            .collect();
        overdue.sort();
        overdue
    }

    /// Each loss until every venue is past it.
    fn losses_left(&self) -> Losses {
        let is_behind = |venue: &Venue<C>, loss: Losses| {
            venue.unmet.shares_kind(loss)
                || venue.watermark.is_some_and(|at| !loss.at(at).is_empty())
        };
        let none_came = self.venues.is_empty();
        self.losses
            .only(|loss| none_came || self.venues.values().any(|venue| is_behind(venue, loss)))
    }

    /// Up to where the partition may be committed, with the note.
    pub(super) fn checkpoint(&self, next_offset: i64) -> Checkpoint {
        let symbols = || {
            let venues = self.venues.iter();
            venues.flat_map(|(venue, state)| state.symbols.iter().map(move |of| (venue, of)))
        };
        let windows = symbols().flat_map(|(_, (_, symbol))| symbol.windows.values());
        let mut offset = windows.map(|window| window.first_offset).fold(next_offset, i64::min);
        let holes: Vec<_> = symbols()
            .flat_map(|(venue, (name, symbol))| {
                symbol.holes.iter().map(move |hole| noted(venue, name, hole))
            })
            .collect();
        let oldest_hole = holes.iter().map(|hole| hole.4).min();
        let venues = self.venues.iter();
        let venues = venues.map(|(name, venue)| (name.clone(), venue.watermark.map(|w| w.0)));
        let mut venues: Vec<_> = venues.collect();
        venues.sort();
        // Still reading again what the last owner took: the note is about where that ends, and
        // holes that come from the log itself are not all known yet.
        let next = self.next.max(next_offset);
        let knows_holes = next_offset >= self.next || self.holes_noted;
        let holes = knows_holes.then_some(holes);
        let (note, holes_fit) =
            Note::write(next, self.origin, self.rest, venues, holes, self.losses_left());
        if !holes_fit {
            offset = oldest_hole.map_or(offset, |oldest| oldest.min(offset));
        }
        Checkpoint { offset, note }
    }
}
