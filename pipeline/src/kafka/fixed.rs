//! Reading fixed ranges of partitions without a group: where each begins and ends, how fast, and
//! how far it has become durable.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tapeline_schemas::Micros;
use tapeline_stages::flow::{Checkpoint, TopicPartition};

/// What one partition gives: offsets `from..to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// The partition.
    pub at: TopicPartition,
    /// First offset, where the sink holds no later one.
    pub from: i64,
    /// Offset after the last one.
    pub to: i64,
    /// The note that was left with `from`, for stages that leave one.
    pub note: Option<String>,
}

/// Fixed ranges to read.
#[derive(Debug, Clone)]
pub struct Fixed {
    /// At most one a partition; empty ones are allowed.
    pub ranges: Vec<Range>,
    /// How many times as fast as the records were appended; as fast as possible without.
    pub speed: Option<f64>,
    /// Where progress is told.
    pub progress: Arc<Progress>,
}

/// How far fixed ranges have been taken. Nothing is committed to Kafka: who started the reading
/// asks here.
#[derive(Debug, Default)]
pub struct Progress(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    durable: BTreeMap<TopicPartition, Checkpoint>,
    ended: bool,
}

impl Progress {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to where each partition is durable, with the stage's note.
    pub fn durable(&self) -> BTreeMap<TopicPartition, Checkpoint> {
        self.state().durable.clone()
    }

    /// Whether every range was read to its end. What was read is durable once the stage has ended
    /// well.
    pub fn has_ended(&self) -> bool {
        self.state().ended
    }

    pub(super) fn advance(
        &self,
        checkpoints: impl IntoIterator<Item = (TopicPartition, Checkpoint)>,
    ) {
        self.state().durable.extend(checkpoints);
    }

    pub(super) fn end(&self) {
        self.state().ended = true;
    }
}

/// How far ahead of its pace a record may go out, so that not every one costs a pause.
const SLACK: Duration = Duration::from_millis(500);

/// A wait that no run lives to see the end of.
const FAR: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Holds partitions back to the pace at which their records were appended.
#[derive(Debug)]
pub(super) struct Pace {
    speed: f64,
    began: Instant,
    /// Append time of the oldest record seen: it goes out at `began`.
    oldest: Option<Micros>,
    /// Partitions that wait, with the offset they go on from and when.
    waiting: HashMap<TopicPartition, (i64, Instant)>,
}

impl Pace {
    pub(super) fn new(speed: f64) -> Pace {
        Pace { speed, began: Instant::now(), oldest: None, waiting: HashMap::new() }
    }

    /// Whether the record at `offset` has to wait; then its partition does, from it on.
    pub(super) fn holds(&mut self, at: TopicPartition, offset: i64, appended: Micros) -> bool {
        let oldest = self.oldest.map_or(appended, |oldest| oldest.min(appended));
        self.oldest = Some(oldest);
        let after = appended.since(oldest) as f64 / 1e6 / self.speed;
        let due = Duration::try_from_secs_f64(after).ok();
        let due = due.and_then(|after| self.began.checked_add(after));
        let due = due.unwrap_or_else(|| self.began + FAR);
        let holds = due > Instant::now() + SLACK;
        if holds {
            self.waiting.insert(at, (offset, due));
        }
        holds
    }

    pub(super) fn is_waiting(&self, at: TopicPartition) -> bool {
        self.waiting.contains_key(&at)
    }

    /// Partitions whose time has come, as far as `can_go`, with the offsets they go on from.
    pub(super) fn due(
        &mut self,
        can_go: impl Fn(TopicPartition) -> bool,
    ) -> Vec<(TopicPartition, i64)> {
        let now = Instant::now();
        let due = self.waiting.iter().filter(|(at, (_, due))| *due <= now && can_go(**at));
        let due: Vec<_> = due.map(|(at, (offset, _))| (*at, *offset)).collect();
        self.waiting.retain(|at, _| due.iter().all(|(gone, _)| gone != at));
        due
    }
}
