//! Partitions that come and go: lanes say where to start, and drain before they let go.

use std::collections::HashMap;

use anyhow::{Context, Result};
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use tapeline_stages::flow::{Input, Released, Resume, Start, TopicPartition};
use tokio::sync::oneshot;

use super::{ASK, POLL, Worker};
use crate::kafka::rebalance::Change;
use crate::kafka::source::Wish;

/// An assignment that waits for the lanes to say where to start.
pub(super) struct Starting {
    waiting: Vec<oneshot::Receiver<Vec<Resume>>>,
    resumes: Vec<Resume>,
    committed: HashMap<TopicPartition, i64>,
    /// The partitions were ours all along: they are sought, not assigned.
    again: bool,
}

/// A revocation that waits for the lanes to drain.
pub(super) struct Draining {
    list: TopicPartitionList,
    waiting: Vec<(usize, oneshot::Receiver<Released>)>,
    gave_up: Vec<usize>,
}

impl Draining {
    /// Whether `at` is among what goes.
    pub(super) fn takes(&self, at: TopicPartition, worker: &Worker) -> bool {
        let name = worker.name(at);
        self.list.elements().iter().any(|e| e.topic() == name && e.partition() == at.partition)
    }
}

/// Partitions with the note their last owner left.
pub(super) type Noted = Vec<(TopicPartition, Option<String>)>;

impl Worker {
    /// Ready is who owns partitions, and who takes part in a group that has none for it.
    pub(super) fn say_whether_ready(&mut self) {
        let owns = !self.owned.is_empty() && self.starting.is_empty();
        let is_ready = owns || self.consumer.context().has_none_to_own();
        if self.is_ready.replace(is_ready) != Some(is_ready) {
            if is_ready {
                self.ready.ready();
            } else {
                self.ready.unready("no partitions yet");
            }
        }
    }

    pub(super) fn take_wishes(&mut self) -> Result<()> {
        for lane in 0..self.lanes.len() {
            for (at, wish) in self.lanes[lane].wishes.take() {
                // A partition that goes, or is gone, is its next owner's.
                let goes = self.draining.as_ref().is_some_and(|draining| draining.takes(at, self));
                if goes || !self.owned.contains_key(&at) {
                    continue;
                }
                match wish {
                    Wish::Hold => {
                        let mut list = TopicPartitionList::new();
                        list.add_partition(self.name(at), at.partition);
                        self.consumer.pause(&list).context("pause")?;
                        self.lanes[lane].forget(at);
                        self.held.insert(at);
                    }
                    Wish::Again => self.start_again(lane, &[at])?,
                }
            }
        }
        Ok(())
    }

    pub(super) fn begin_assign(&mut self, list: &TopicPartitionList) -> Result<()> {
        if list.count() == 0 {
            self.consumer.context().none_to_own();
            return self.consumer.incremental_assign(list).context("empty assignment");
        }
        match self.committed(list.clone()) {
            Ok((places, offsets)) => self.start(places, offsets, false),
            // A coordinator on the move, a member whose epoch has passed: librdkafka waits for
            // our answer to the assignment, so the question can be asked again.
            Err(error) => {
                tracing::warn!(
                    reason = format!("{error:#}"),
                    "cannot take partitions yet, will try again"
                );
                std::thread::sleep(POLL);
                self.consumer.context().put_back(Change::Assign(list.clone()));
            }
        }
        Ok(())
    }

    /// Where the group committed, and the notes it left.
    fn committed(&self, list: TopicPartitionList) -> Result<(Noted, HashMap<TopicPartition, i64>)> {
        let committed = self.consumer.committed_offsets(list, ASK);
        let committed = committed.context("committed offsets of the group")?;
        let mut places = Vec::new();
        let mut offsets = HashMap::new();
        for element in committed.elements() {
            let Some(at) = self.place(element.topic(), element.partition()) else { continue };
            let mut note = None;
            if let Offset::Offset(offset) = element.offset() {
                offsets.insert(at, offset);
                note = Some(element.metadata().to_owned());
            }
            places.push((at, note));
        }
        Ok((places, offsets))
    }

    pub(super) fn start(
        &mut self,
        places: Noted,
        committed: HashMap<TopicPartition, i64>,
        again: bool,
    ) {
        let mut waiting = Vec::new();
        for lane in 0..self.lanes.len() {
            let mine: Vec<_> =
                places.iter().filter(|(at, _)| self.lane_of(*at) == lane).cloned().collect();
            if !mine.is_empty() {
                let (answer, waits) = oneshot::channel();
                self.lanes[lane].tell(Input::Assigned(mine, answer));
                waiting.push(waits);
            }
        }
        self.starting.push(Starting { waiting, resumes: Vec::new(), committed, again });
    }

    pub(super) fn settle_starting(&mut self) -> Result<()> {
        for starting in &mut self.starting {
            starting.waiting.retain_mut(|waits| match waits.try_recv() {
                Ok(resumes) => {
                    starting.resumes.extend(resumes);
                    false
                }
                Err(oneshot::error::TryRecvError::Empty) => true,
                // The lane is on its way out, and with it the whole consumer.
                Err(oneshot::error::TryRecvError::Closed) => false,
            });
        }
        while let Some(index) = self.starting.iter().position(|s| s.waiting.is_empty()) {
            let starting = self.starting.swap_remove(index);
            self.begin_reading(&starting)?;
        }
        Ok(())
    }

    fn begin_reading(&mut self, starting: &Starting) -> Result<()> {
        if self.reading.is_some() {
            return self.begin_ranges(&starting.resumes);
        }
        let mut list = TopicPartitionList::new();
        let mut lost = Vec::new();
        for resume in &starting.resumes {
            let committed = starting.committed.get(&resume.at).copied();
            let offset = match resume.start {
                Start::Beginning => None,
                Start::At(offset) => Some(offset),
                Start::Committed => committed,
                Start::CommittedOrEarlier(offset) => committed.map(|o| o.min(offset)),
            };
            let offset = offset.map_or(Offset::Beginning, Offset::Offset);
            let offset = self.in_log(resume.at, offset, &mut lost)?;
            list.add_partition_offset(self.name(resume.at), resume.at.partition, offset)?;
        }
        // Before anything that comes after it.
        for lost in lost {
            let lane = self.lane_of(lost.at);
            self.lanes[lane].tell(Input::Lost(lost));
        }
        if starting.again {
            self.consumer.seek_partitions(list.clone(), ASK).context("seek")?;
            self.consumer.resume(&list).context("resume")?;
        } else {
            self.consumer.incremental_assign(&list).context("assignment")?;
        }
        for resume in &starting.resumes {
            self.owned.insert(resume.at, self.lane_of(resume.at));
        }
        self.show_partitions();
        Ok(())
    }

    pub(super) fn begin_revoke(&mut self, list: TopicPartitionList) {
        if self.consumer.assignment_lost() {
            tracing::warn!(
                "the group took partitions away without asking: this member was silent for too long"
            );
        }
        let places: Vec<_> = list
            .elements()
            .iter()
            .filter_map(|element| self.place(element.topic(), element.partition()))
            .collect();
        let mut waiting = Vec::new();
        for lane in 0..self.lanes.len() {
            let mine: Vec<_> =
                places.iter().copied().filter(|&at| self.lane_of(at) == lane).collect();
            if !mine.is_empty() {
                let (answer, waits) = oneshot::channel();
                self.lanes[lane].tell(Input::Revoked(mine, answer));
                self.lanes[lane].interrupt.raise();
                waiting.push((lane, waits));
            }
        }
        self.draining = Some(Draining { list, waiting, gave_up: Vec::new() });
    }

    pub(super) fn settle_draining(&mut self) -> Result<()> {
        let Some(draining) = &mut self.draining else { return Ok(()) };
        let lanes = &self.lanes;
        let gave_up = &mut draining.gave_up;
        draining.waiting.retain_mut(|(lane, waits)| match waits.try_recv() {
            Ok(released) => {
                lanes[*lane].interrupt.clear();
                if released == Released::GaveUp {
                    gave_up.push(*lane);
                }
                false
            }
            Err(oneshot::error::TryRecvError::Empty) => true,
            Err(oneshot::error::TryRecvError::Closed) => false,
        });
        if !draining.waiting.is_empty() {
            return Ok(());
        }
        let Some(draining) = self.draining.take() else { return Ok(()) };
        self.take_checkpoints();
        self.commit(CommitMode::Sync);
        for element in draining.list.elements() {
            if let Some(at) = self.place(element.topic(), element.partition()) {
                self.owned.remove(&at);
                self.held.remove(&at);
                let lane = self.lane_of(at);
                self.lanes[lane].forget(at);
            }
        }
        self.consumer.incremental_unassign(&draining.list).context("giving partitions back")?;
        self.show_partitions();
        for lane in draining.gave_up {
            let mine = self.owned.iter().filter(|(_, owner)| **owner == lane);
            let mine: Vec<_> = mine.map(|(at, _)| *at).collect();
            self.start_again(lane, &mine)?;
        }
        Ok(())
    }

    /// librdkafka waits for the answer to every change, also while it is being closed: whoever is
    /// owed one and ends without it waits for ever.
    pub(super) fn answer_all(&mut self) {
        let draining = self.draining.take().map(|draining| Change::Revoke(draining.list));
        let starting = self.starting.drain(..).find(|starting| !starting.again);
        let starting = starting.map(|_| Change::Assign(TopicPartitionList::new()));
        for change in self.consumer.context().take().into_iter().chain(draining).chain(starting) {
            let answered = match change {
                Change::Assign(_) => self.consumer.incremental_assign(&TopicPartitionList::new()),
                Change::Revoke(list) => self.consumer.incremental_unassign(&list),
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "rebalance while closing");
            }
        }
    }

    /// A lane gave up what it had read of `places`: they are read again from where the sink stands.
    pub(super) fn start_again(&mut self, lane: usize, places: &[TopicPartition]) -> Result<()> {
        if places.is_empty() {
            return Ok(());
        }
        let mut list = TopicPartitionList::new();
        for at in places {
            list.add_partition(self.name(*at), at.partition);
            self.owned.remove(at);
            self.held.remove(at);
        }
        places.iter().for_each(|at| self.lanes[lane].forget(*at));
        self.consumer.pause(&list).context("pause")?;
        let (noted, offsets) = self.committed(list)?;
        self.start(noted, offsets, true);
        Ok(())
    }
}
