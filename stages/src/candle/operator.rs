//! The one operator behind candles of every timeframe.

use std::collections::HashMap;

use tapeline_schemas::{Control, GapChange, GapState, Kind, Micros, Timeframe, encode};

use super::dirty::Dirty;
use super::fold::{RANGE, Version};
use super::holes::CHANNEL;
use super::loss::{Loss, Lost};
use super::note::Note;
use super::tier::{Tier, in_range};
use super::window::{Closed, Origin, Partition};
use crate::decode::Decoders;
use crate::flow::{Checkpoint, In, Marker, Outcome, Refusal, Reject, Stage, TopicPartition};
use crate::messages::{Message, Messages, OutTopic, symbol_key};

/// Reason for a control record that cannot be read.
const CONTROL: &str = "control";

/// What an operator is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the topic it reads, for dirty records.
    pub topic: String,
    /// How far an event's time lies ahead of what it proves complete.
    pub lateness_micros: i64,
    /// How long, by the broker's clock in the records, a window may hold back the commit. A venue
    /// that stops without a word would hold it until retention takes the log away.
    pub hold_micros: i64,
}

/// [`Settings::hold_micros`] where configuration says nothing else: well under the topics'
/// retention of seven days.
pub const HOLD_MICROS: i64 = 3 * Timeframe::D1.micros();

/// Builds the candles of one [`Tier`].
pub struct Candles<L: Tier> {
    settings: Settings,
    decoders: Decoders,
    partitions: HashMap<TopicPartition, Partition<L::Content>>,
    event_time: Option<Micros>,
}

/// Where output goes, and on whose account.
struct Emit<'e> {
    settings: &'e Settings,
    partition: i32,
    offset: i64,
    out: &'e mut Messages,
}

impl<L: Tier> Candles<L> {
    /// An operator without partitions.
    pub fn new(settings: Settings) -> Candles<L> {
        Candles {
            settings,
            decoders: Decoders::new(),
            partitions: HashMap::new(),
            event_time: None,
        }
    }

    fn take(&mut self, input: &In<'_>, seen: bool, out: &mut Messages) -> Result<Outcome, Refusal> {
        let record = &input.record;
        let partition = self.partitions.entry(record.at).or_default();
        if let Some(outcome) = outcome_without_event(input) {
            // Of those that the last owner met its note knows.
            if outcome == Outcome::Lost && !seen {
                partition.lose(Loss::Everywhere);
            }
            return Ok(outcome);
        }
        let mut emit = Emit {
            settings: &self.settings,
            partition: record.at.partition,
            offset: record.offset,
            out,
        };
        let value = match (input.marker, record.value) {
            (None, Some(value)) if !value.is_empty() => value,
            _ => {
                take_control::<L>(partition, &read_control(input)?, seen, &mut emit);
                return Ok(Outcome::Control);
            }
        };
        let payload = self.decoders.payload(L::KIND, value)?;
        let Some(entry) = L::read(payload, input, self.settings.lateness_micros)? else {
            return Ok(Outcome::NotStored);
        };
        let origin = Origin { offset: record.offset, append: record.time };
        partition.comes(&entry.venue, entry.time.plus(self.settings.lateness_micros));
        let venue = partition.venue(&entry.venue);
        let (time, opens) = (entry.time, entry.opens);
        let added = venue.add(&entry.symbol, L::FRAMES, time, &entry.piece, opens, origin)?;
        self.event_time = Some(entry.time);
        if !seen || venue.unsure {
            for &(frame, start) in &added.late {
                let range = (start, frame.end(start));
                emit.dirty(&entry.venue, &entry.symbol, frame, range, None);
            }
        }
        if seen {
            return Ok(Outcome::Repeated);
        }
        if let Some(moves) = entry.moves {
            raise::<L>(partition, &entry.venue, moves, &mut emit);
        }
        let counted = added.any || !added.late.is_empty();
        Ok(if counted { Outcome::Taken } else { Outcome::Duplicate })
    }
}

/// Markers without a control record, and events that repeat an identity: nothing to count.
fn outcome_without_event(input: &In<'_>) -> Option<Outcome> {
    match input.marker {
        Some(Marker::Quarantined) => Some(Outcome::Quarantined),
        Some(Marker::Skipped) => Some(Outcome::Skipped),
        Some(Marker::Lost) => Some(Outcome::Lost),
        Some(Marker::Control) => None,
        None if !input.flags.is_repeat() => None,
        None if input.flags.has(tapeline_schemas::Flag::Conflict) => Some(Outcome::Conflict),
        None => Some(Outcome::Duplicate),
    }
}

/// The control record of a checked marker or of an empty value in a plain topic.
fn read_control(input: &In<'_>) -> Result<Control, Reject> {
    let headers = input.record.headers;
    let control = Control::from_headers(|name| headers.text(name))
        .map_err(|error| Reject::new(CONTROL, error))?;
    match &control {
        Control::Complete { through, .. } => in_range(*through)?,
        Control::Gap(gap) => {
            in_range(gap.from)?;
            gap.to.map_or(Ok(()), in_range)?;
            if gap.state != GapState::Opened && gap.to.is_none_or(|to| to < gap.from) {
                return Err(Reject::new(RANGE, "a gap ends before it begins"));
            }
        }
    }
    Ok(control)
}

fn take_control<L: Tier>(
    partition: &mut Partition<L::Content>,
    control: &Control,
    seen: bool,
    emit: &mut Emit<'_>,
) {
    match control {
        Control::Complete { .. } if seen => {}
        Control::Complete { venue, through } => {
            // What the venue calls complete is; no lateness comes off.
            raise::<L>(partition, venue, *through, emit);
        }
        Control::Gap(gap) if gap.channel != CHANNEL => {}
        Control::Gap(gap) => {
            if seen && partition.holes_noted {
                return;
            }
            let venue = partition.venue(&gap.venue);
            venue.holes(&gap.symbol).change(gap, emit.offset);
            if seen {
                return;
            }
            if L::ANNOUNCES {
                emit.control(symbol_key(&gap.venue, &gap.symbol), control);
            }
            if gap.state == GapState::Filled {
                emit.filled::<L>(gap, venue.watermark);
            }
        }
    }
}

/// Moves a venue's watermark and writes what that releases.
fn raise<L: Tier>(
    partition: &mut Partition<L::Content>,
    name: &str,
    to: Micros,
    emit: &mut Emit<'_>,
) {
    let longest = L::FRAMES.last().copied().unwrap_or(Timeframe::M1);
    let venue = partition.venue(name);
    let before = venue.watermark;
    for mut closed in venue.raise(to, longest) {
        let start = closed.start();
        let lacks = partition.lacks(start);
        closed.is_final &= lacks.is_empty();
        emit.candle(name, &closed);
        if lacks.may_be_stored() {
            emit.dirty(name, &closed.symbol, closed.frame, (start, closed.end), None);
        }
    }
    let minute = |time| Timeframe::M1.start(time);
    let crossed = before.is_none_or(|before| minute(before) < minute(to));
    if L::ANNOUNCES && crossed {
        // Behind the candles it speaks of: who reads it has read them.
        let through = minute(to);
        let complete = Control::Complete { venue: name.to_owned(), through };
        emit.control(name.as_bytes().to_vec(), &complete);
    }
}

impl Emit<'_> {
    fn candle(&mut self, venue: &str, closed: &Closed) {
        let start = closed.start();
        let version = Version { is_final: closed.is_final, revision: 0 };
        let candle = closed.bar.to_candle(venue, &closed.symbol, closed.frame, start, version);
        self.out.push(&Message {
            topic: OutTopic::Of(Kind::Candle),
            partition: self.partition,
            key: symbol_key(venue, &closed.symbol),
            schema: Some(Kind::Candle),
            value: Some(encode(&candle)),
            headers: Vec::new(),
        });
    }

    fn control(&mut self, key: Vec<u8>, control: &Control) {
        self.out.push(&Message::control(OutTopic::Of(Kind::Candle), self.partition, key, control));
    }

    fn dirty(
        &mut self,
        venue: &str,
        symbol: &str,
        frame: Timeframe,
        (from, to): (Micros, Micros),
        filled_from: Option<Micros>,
    ) {
        let dirty = Dirty {
            exchange: venue.to_owned(),
            symbol: symbol.to_owned(),
            timeframe: frame.name().to_owned(),
            from: from.0,
            to: to.0,
            topic: self.settings.topic.clone(),
            partition: self.partition,
            offset: self.offset,
            filled_from: filled_from.map(|from| from.0),
        };
        self.out.push(&dirty.to_message(self.partition));
    }

    /// The windows over a filled hole become dirty, as far as they have been released: the others
    /// are still open and close without the hole.
    fn filled<L: Tier>(&mut self, gap: &GapChange, watermark: Option<Micros>) {
        let (Some(watermark), Some(to)) = (watermark, gap.to) else { return };
        for &frame in L::FRAMES {
            let first = frame.start(gap.from);
            let last = frame.end(frame.start(to)).min(frame.start(watermark));
            if first < last {
                self.dirty(&gap.venue, &gap.symbol, frame, (first, last), Some(gap.from));
            }
        }
    }
}

impl<L: Tier> Stage for Candles<L> {
    type Out = Messages;

    fn apply(&mut self, input: &In<'_>, out: &mut Messages) -> Result<Outcome, Refusal> {
        let record = &input.record;
        let partition = self.partitions.entry(record.at).or_default();
        let seen = record.offset < partition.next;
        if !seen && input.origin <= partition.origin {
            // The loop holds no origin right after a restart; the note does (invariant 3).
            return Ok(Outcome::Repeated);
        }
        let outcome = self.take(input, seen, out)?;
        let partition = self.partitions.entry(record.at).or_default();
        partition.origin = partition.origin.max(input.origin);
        let hold = self.settings.hold_micros;
        for (venue, end) in partition.overdue(record.time, hold, seen) {
            let settings = &self.settings;
            let (at, offset) = (record.at.partition, record.offset);
            raise::<L>(partition, &venue, end, &mut Emit { settings, partition: at, offset, out });
        }
        Ok(outcome)
    }

    fn lost(&mut self, at: TopicPartition, first: i64, last: i64, out: &mut Messages) {
        self.partitions.entry(at).or_default().lose(Loss::Own);
        let timeframes = L::FRAMES.iter().map(|frame| frame.name().to_owned()).collect();
        let topic = self.settings.topic.clone();
        let lost = Lost { topic, partition: at.partition, first, last, timeframes };
        out.push(&lost.to_message(at.partition));
    }

    fn learn(&mut self, kind: Kind, id: u32, schema: Option<&str>) {
        self.decoders.learn(kind, id, schema);
    }

    fn assigned(&mut self, at: TopicPartition, note: Option<&str>) {
        let noted = note.filter(|note| !note.is_empty()).map(Note::read);
        if let Some(None) = noted {
            tracing::error!(
                topic = self.settings.topic,
                partition = at.partition,
                "the note of the partition's last owner cannot be read; windows that it released may be written again"
            );
        }
        let partition = noted.flatten().map_or_else(Partition::default, Partition::from_note);
        self.partitions.insert(at, partition);
    }

    fn revoked(&mut self, at: TopicPartition) {
        self.partitions.remove(&at);
    }

    fn checkpoint(&self, at: TopicPartition, next_offset: i64) -> Checkpoint {
        match self.partitions.get(&at) {
            Some(partition) => partition.checkpoint(next_offset),
            None => Checkpoint { offset: next_offset, note: String::new() },
        }
    }

    fn event_time(&self) -> Option<Micros> {
        self.event_time
    }
}
