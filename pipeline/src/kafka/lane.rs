//! The consumer's end of a lane: a bounded queue, and what does not fit waits here in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Timestamp};
use tapeline_schemas::Micros;
use tapeline_stages::flow::{Chunk, Input, TopicPartition};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::headers::RawHeaders;
use super::source::{Interrupt, Wishes};

/// Chunks a lane's queue holds (invariant 8).
pub(super) const LANE_CHUNKS: usize = 8;
/// Records and bytes of a chunk.
const CHUNK_RECORDS: usize = 2_000;
const CHUNK_BYTES: usize = 256 * 1024;
/// How long a lane may be stuck before its partitions are paused, so that the others go on.
const PAUSE_AFTER: Duration = Duration::from_millis(300);

pub(super) struct Lane {
    pub(super) sender: mpsc::Sender<Input>,
    pub(super) interrupt: Arc<Interrupt>,
    pub(super) wishes: Arc<Wishes>,
    /// Whether its partitions are paused in librdkafka.
    pub(super) paused: bool,
    backlog: VecDeque<Input>,
    open: HashMap<TopicPartition, Chunk>,
    stuck_since: Option<Instant>,
}

impl Lane {
    pub(super) fn new(
        sender: mpsc::Sender<Input>,
        interrupt: Arc<Interrupt>,
        wishes: Arc<Wishes>,
    ) -> Lane {
        Lane {
            sender,
            interrupt,
            wishes,
            paused: false,
            backlog: VecDeque::new(),
            open: HashMap::new(),
            stuck_since: None,
        }
    }

    pub(super) fn append(&mut self, at: TopicPartition, message: &BorrowedMessage<'_>) {
        let chunk = self.open.entry(at).or_insert_with(|| Chunk::new(at));
        let time = match message.timestamp() {
            Timestamp::CreateTime(millis) | Timestamp::LogAppendTime(millis) => {
                Micros::from_millis(millis)
            }
            Timestamp::NotAvailable => Micros(0),
        };
        let headers = RawHeaders::of(message);
        chunk.push(message.offset(), time, message.key(), message.payload(), headers);
        if chunk.len() >= CHUNK_RECORDS || chunk.byte_len() >= CHUNK_BYTES {
            self.close(at);
        }
    }

    fn close(&mut self, at: TopicPartition) {
        if let Some(chunk) = self.open.remove(&at) {
            self.backlog.push_back(Input::Chunk(chunk));
        }
    }

    /// Everything appended so far is on its way.
    pub(super) fn close_all(&mut self) {
        self.backlog.extend(self.open.drain().map(|(_, chunk)| Input::Chunk(chunk)));
    }

    /// Drops what was read of `at` and not delivered: it will be read again.
    pub(super) fn forget(&mut self, at: TopicPartition) {
        self.wishes.forget(at);
        self.open.remove(&at);
        self.backlog.retain(|input| !matches!(input, Input::Chunk(chunk) if chunk.at() == at));
    }

    /// Queues a change behind everything read before it.
    pub(super) fn tell(&mut self, input: Input) {
        self.close_all();
        self.backlog.push_back(input);
    }

    /// Hands over what fits; an error when the lane is gone.
    pub(super) fn deliver(&mut self) -> Result<(), ()> {
        while let Some(input) = self.backlog.pop_front() {
            match self.sender.try_send(input) {
                Ok(()) => {}
                Err(TrySendError::Full(input)) => {
                    self.backlog.push_front(input);
                    self.stuck_since.get_or_insert_with(Instant::now);
                    return Ok(());
                }
                Err(TrySendError::Closed(_)) => return Err(()),
            }
        }
        self.stuck_since = None;
        Ok(())
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.stuck_since.is_some()
    }

    pub(super) fn should_pause(&self) -> bool {
        !self.paused && self.stuck_since.is_some_and(|since| since.elapsed() >= PAUSE_AFTER)
    }

    pub(super) fn should_resume(&self) -> bool {
        self.paused && self.stuck_since.is_none()
    }
}
