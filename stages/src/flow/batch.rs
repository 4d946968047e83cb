//! Batches: output together with every position it came from.

use tapeline_schemas::Micros;

use super::{Outcome, Output, Record, Reject, TopicPartition};

/// A range of offsets of one partition with what became of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The partition.
    pub at: TopicPartition,
    /// First offset.
    pub first_offset: i64,
    /// Offset after the last one.
    pub next_offset: i64,
    /// First origin.
    pub first_origin: i64,
    /// Last origin.
    pub held_origin: i64,
    /// Number of origins of each outcome, in the order of [`Outcome::ALL`].
    pub counts: [u64; Outcome::ALL.len()],
    /// Oldest and newest event time.
    pub event_times: Option<(Micros, Micros)>,
}

impl Span {
    /// Number of origins with `outcome`.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.counts[outcome as usize]
    }

    /// Moves `number` origins from one outcome to another, when a sink knows better.
    pub fn reclassify(&mut self, from: Outcome, to: Outcome, number: u64) {
        self.counts[from as usize] = self.counts[from as usize].saturating_sub(number);
        self.counts[to as usize] += number;
    }
}

/// A record that goes to quarantine, copied whole.
#[derive(Debug, Clone)]
pub struct Rejected {
    /// Where it was read.
    pub at: TopicPartition,
    /// Its offset.
    pub offset: i64,
    /// When the broker appended it.
    pub time: Micros,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Why.
    pub reject: Reject,
}

impl Rejected {
    /// A copy of the whole record.
    pub fn copy(record: &Record<'_>, reject: Reject) -> Rejected {
        Rejected {
            at: record.at,
            offset: record.offset,
            time: record.time,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record
                .headers
                .iter()
                .map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
                .collect(),
            reject,
        }
    }
}

/// Output with the positions it came from. Only a [`Batcher`] makes one.
#[derive(Debug)]
pub struct Batch<O> {
    pub(super) out: O,
    pub(super) spans: Vec<Span>,
    pub(super) rejected: Vec<Rejected>,
}

impl<O: Output> Default for Batch<O> {
    fn default() -> Self {
        Batch { out: O::default(), spans: Vec::new(), rejected: Vec::new() }
    }
}

impl<O> Batch<O> {
    /// The output.
    pub fn out(&self) -> &O {
        &self.out
    }

    /// The positions, one span a partition, ordered by partition.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Records for quarantine.
    pub fn rejected(&self) -> &[Rejected] {
        &self.rejected
    }
}

/// One position with all that enters the batch with it.
#[derive(Debug, Clone, Copy)]
pub struct Position {
    /// The partition.
    pub at: TopicPartition,
    /// The record's offset.
    pub offset: i64,
    /// First origin it stands for.
    pub origin_first: i64,
    /// Last origin it stands for.
    pub origin: i64,
    /// Time of its event.
    pub event_time: Option<Micros>,
}

/// Gathers a batch. Every position enters with its outcome, also with none, so that
/// nothing overtakes (invariant 1).
#[derive(Debug)]
pub struct Batcher<O> {
    batch: Batch<O>,
    positions: usize,
    rejected_bytes: usize,
    /// Span of the last position: nearly every one has the partition of the one before.
    last: usize,
}

impl<O: Output> Default for Batcher<O> {
    fn default() -> Self {
        Batcher { batch: Batch::default(), positions: 0, rejected_bytes: 0, last: 0 }
    }
}

impl<O: Output> Batcher<O> {
    /// Where the stage adds its output before it pushes the position.
    pub fn out(&mut self) -> &mut O {
        &mut self.batch.out
    }

    /// Enters a position. Panics if it does not come after the partition's last one: an
    /// overtaken position must never be committed.
    pub fn push(&mut self, position: Position, outcome: Outcome) {
        let spans = &mut self.batch.spans;
        let last = self.last;
        let same = spans.get(last).is_some_and(|span| span.at == position.at);
        let found =
            if same { Ok(last) } else { spans.binary_search_by_key(&position.at, |s| s.at) };
        let index = found.unwrap_or_else(|index| {
            spans.insert(
                index,
                Span {
                    at: position.at,
                    first_offset: position.offset,
                    next_offset: position.offset,
                    first_origin: position.origin_first,
                    held_origin: position.origin_first - 1,
                    counts: [0; Outcome::ALL.len()],
                    event_times: None,
                },
            );
            index
        });
        self.last = index;
        let span = &mut spans[index];
        assert!(position.offset >= span.next_offset, "a position was overtaken");
        span.next_offset = position.offset + 1;
        if outcome == Outcome::Repeated {
            span.counts[outcome as usize] += 1;
        } else {
            span.held_origin = span.held_origin.max(position.origin);
            span.counts[outcome as usize] += (position.origin - position.origin_first + 1) as u64;
        }
        if let Some(time) = position.event_time {
            let (oldest, newest) = span.event_times.unwrap_or((time, time));
            span.event_times = Some((oldest.min(time), newest.max(time)));
        }
        self.positions += 1;
    }

    /// Enters a position that stands for the offsets from `first_offset` on.
    pub fn push_range(&mut self, first_offset: i64, position: Position, outcome: Outcome) {
        self.push(position, outcome);
        let mut spans = self.batch.spans.iter_mut();
        if let Some(span) = spans.find(|span| span.at == position.at) {
            span.first_offset = span.first_offset.min(first_offset);
        }
    }

    /// Adds a record for quarantine; its position is pushed beside it.
    pub fn reject(&mut self, rejected: Rejected) {
        self.rejected_bytes += rejected.value.as_ref().map_or(0, Vec::len) + 256;
        self.batch.rejected.push(rejected);
    }

    /// Number of positions.
    pub fn len(&self) -> usize {
        self.positions
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.positions == 0
    }

    /// Memory that the batch takes, roughly.
    pub fn byte_len(&self) -> usize {
        self.batch.out.byte_len() + self.rejected_bytes
    }

    /// The batch so far; the next one starts empty.
    pub fn take(&mut self) -> Batch<O> {
        self.replace(Batch::default())
    }

    /// The batch so far; the next one takes over the memory of one that is done with.
    pub fn replace(&mut self, mut spent: Batch<O>) -> Batch<O> {
        spent.out.clear();
        spent.spans.clear();
        spent.rejected.clear();
        (self.positions, self.rejected_bytes, self.last) = (0, 0, 0);
        std::mem::replace(&mut self.batch, spent)
    }
}
