//! Fixed ranges: they begin once, without a group, and the source ends with the last of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use anyhow::{Context, Result};
use rdkafka::consumer::Consumer;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};
use tapeline_schemas::Micros;
use tapeline_stages::flow::{Input, Resume, Start, TopicPartition};

use super::{ASK, Worker};
use crate::kafka::fixed::{Fixed, Pace, Progress};

/// Reports in a row that a partition was fetched to its end before that is believed: one may have
/// been on its way while the partition was sent back.
const REPORTS: u32 = 2;

/// The ranges of a consumer without a group.
pub(super) struct Reading {
    fixed: Fixed,
    pace: Option<Pace>,
    begun: bool,
    /// Ends of the ranges that are being read.
    left: HashMap<TopicPartition, i64>,
    /// Partitions that are to be paused: at their end, or ahead of the pace.
    to_pause: HashSet<TopicPartition>,
    /// Reports that nothing more comes before the end.
    fetched: HashMap<TopicPartition, u32>,
}

impl Reading {
    pub(super) fn new(fixed: Fixed) -> Reading {
        Reading {
            pace: fixed.speed.map(Pace::new),
            fixed,
            begun: false,
            left: HashMap::new(),
            to_pause: HashSet::new(),
            fetched: HashMap::new(),
        }
    }

    pub(super) fn progress(&self) -> &Arc<Progress> {
        &self.fixed.progress
    }

    /// Whether a message is handed on: it is within its range and not ahead of the pace.
    pub(super) fn takes(&mut self, at: TopicPartition, message: &BorrowedMessage<'_>) -> bool {
        let Some(&to) = self.left.get(&at) else { return false };
        let offset = message.offset();
        if let Some(pace) = self.pace.as_mut().filter(|_| offset < to) {
            let appended = Micros::from_millis(message.timestamp().to_millis().unwrap_or_default());
            if pace.is_waiting(at) {
                return false;
            }
            if pace.holds(at, offset, appended) {
                self.to_pause.insert(at);
                return false;
            }
        }
        if offset + 1 >= to {
            self.left.remove(&at);
            self.to_pause.insert(at);
        }
        offset < to
    }

    /// Whether a partition may be paused and resumed with its lane. Whatever is known of its
    /// queue is of no more use then.
    pub(super) fn is_read(&mut self, at: TopicPartition) -> bool {
        self.fetched.remove(&at);
        self.left.contains_key(&at) && self.pace.as_ref().is_none_or(|pace| !pace.is_waiting(at))
    }

    /// Takes a report: the queue was empty and `next` was to be fetched.
    fn report(&mut self, at: TopicPartition, next: i64) {
        let waits = self.pace.as_ref().is_some_and(|pace| pace.is_waiting(at));
        let Some(&to) = self.left.get(&at) else { return };
        if waits || next < to {
            self.fetched.remove(&at);
            return;
        }
        // Kafka keeps offsets that it never delivers, such as the marker at a transaction's end.
        let reports = self.fetched.entry(at).or_default();
        *reports += 1;
        if *reports >= REPORTS {
            self.left.remove(&at);
            self.to_pause.insert(at);
        }
    }
}

impl Worker {
    /// Begins the ranges, looks after their pace, and ends the source with the last of them.
    pub(super) fn settle_reading(&mut self) -> Result<()> {
        let Some(reading) = &mut self.reading else { return Ok(()) };
        if !reading.begun {
            reading.begun = true;
            let ranges = &reading.fixed.ranges;
            let noted = ranges.iter().map(|range| (range.at, range.note.clone())).collect();
            self.start(noted, HashMap::new(), false);
            return Ok(());
        }
        if !self.starting.is_empty() || self.ending {
            return Ok(());
        }
        for (topic, partition, next) in self.consumer.context().take_fetched() {
            let at = self.index.get(&topic).map(|&topic| TopicPartition { topic, partition });
            if let Some(at) = at
                && let Some(reading) = &mut self.reading
                && !self.lanes[at.partition as usize % self.lanes.len()].paused
            {
                reading.report(at, next);
            }
        }
        self.pause_and_seek()?;
        let Some(reading) = &self.reading else { return Ok(()) };
        if reading.left.is_empty() {
            reading.progress().end();
            self.lanes.iter_mut().for_each(|lane| lane.tell(Input::End));
            self.ending = true;
        }
        Ok(())
    }

    fn pause_and_seek(&mut self) -> Result<()> {
        let (lanes, topics) = (&self.lanes, &self.topics);
        let Some(reading) = &mut self.reading else { return Ok(()) };
        if !reading.to_pause.is_empty() {
            let mut list = TopicPartitionList::new();
            for at in reading.to_pause.drain() {
                reading.fetched.remove(&at);
                list.add_partition(&topics[at.topic as usize].name, at.partition);
            }
            self.consumer.pause(&list).context("pause")?;
        }
        let Some(pace) = &mut reading.pace else { return Ok(()) };
        let due = pace.due(|at| !lanes[at.partition as usize % lanes.len()].paused);
        if due.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for (at, offset) in due {
            let name = &topics[at.topic as usize].name;
            list.add_partition_offset(name, at.partition, Offset::Offset(offset))?;
        }
        self.consumer.seek_partitions(list.clone(), ASK).context("seek")?;
        self.consumer.resume(&list).context("resume")
    }

    /// The lanes have said how far they are: what is left of each range is read.
    pub(super) fn begin_ranges(&mut self, resumes: &[Resume]) -> Result<()> {
        let Some(reading) = &mut self.reading else { return Ok(()) };
        let mut list = TopicPartitionList::new();
        for resume in resumes {
            let Some(range) = reading.fixed.ranges.iter().find(|range| range.at == resume.at)
            else {
                continue;
            };
            let next = match resume.start {
                Start::At(offset) => offset.max(range.from),
                Start::Beginning | Start::Committed | Start::CommittedOrEarlier(_) => range.from,
            };
            if next < range.to {
                let name = &self.topics[range.at.topic as usize].name;
                list.add_partition_offset(name, range.at.partition, Offset::Offset(next))?;
                reading.left.insert(range.at, range.to);
            }
            self.owned.insert(range.at, range.at.partition as usize % self.lanes.len());
        }
        self.consumer.assign(&list).context("assignment")
    }
}
