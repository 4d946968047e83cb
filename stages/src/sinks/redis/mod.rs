//! Redis: the last value of each key, never an older one than was shown (invariant 6, R1).

mod fields;
mod rebuild;
mod server;
mod shown;

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::cache::{Folds, LastValues};
use crate::failpoint;
use crate::flow::{Resume, Sink, SinkError, Span, Start, TopicPartition};
use crate::sinks::TopicIdentity;
pub use rebuild::{Rebuilder, Rebuilt};
use server::{Server, Write};
pub use shown::{Shown, shown};

/// Where the log ends, and where what may still be shown begins.
pub trait LogEnds: Send {
    /// The next offset that the partition will give.
    fn end(&mut self, at: TopicPartition) -> impl Future<Output = Result<i64, String>> + Send;

    /// The first offset that was appended within the time that a value lives; the end where none was.
    fn living(&mut self, at: TopicPartition) -> impl Future<Output = Result<i64, String>> + Send;
}

/// Settings of a [`RedisSink`].
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// Where Redis is, and how to reach it.
    pub client: redis::Client,
    /// Name of the pipeline, as in the sentinel's key.
    pub pipeline: String,
    /// The topics, as [`TopicPartition::topic`] counts them.
    pub topics: Vec<TopicIdentity>,
    /// How long one answer may take before the connection counts as lost.
    pub answer: Duration,
}

impl RedisSettings {
    /// Settings with the usual limits.
    pub fn new(
        client: redis::Client,
        pipeline: impl Into<String>,
        topics: Vec<TopicIdentity>,
    ) -> RedisSettings {
        RedisSettings { client, pipeline: pipeline.into(), topics, answer: Duration::from_secs(5) }
    }
}

/// What is known about a value's copy in Redis.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Copy {
    /// Not written yet.
    Pending,
    /// Written; gone again at this time.
    Until(Instant),
}

/// The sink of one lane. Remembers one value a key (invariant 8), to hold values back until the
/// log is folded, and to write them again when Redis lost them.
#[derive(Debug)]
pub struct RedisSink<E> {
    server: Server,
    topics: Vec<TopicIdentity>,
    ends: E,
    folds: Folds,
    last: LastValues,
    /// One for each of the last values.
    copies: Vec<Copy>,
    /// Values that may have to be written.
    pending: Vec<usize>,
    /// Partitions whose log is folded, and whether their sentinel stands.
    folded: HashMap<TopicPartition, bool>,
}

impl<E: LogEnds> RedisSink<E> {
    /// A sink that connects when it is first used.
    pub fn new(settings: RedisSettings, ends: E) -> RedisSink<E> {
        RedisSink {
            server: Server::new(settings.client, &settings.pipeline, settings.answer),
            topics: settings.topics,
            ends,
            folds: Folds::default(),
            last: LastValues::default(),
            copies: Vec::new(),
            pending: Vec::new(),
            folded: HashMap::new(),
        }
    }

    /// Takes a batch's values into memory.
    fn remember(&mut self, out: &LastValues) {
        for value in out.values() {
            let taken = self.last.offer(&value.key, value.kind, value.stamp, &value.payload);
            let Some(index) = taken else { continue };
            if index == self.copies.len() {
                self.copies.push(Copy::Pending);
                self.pending.push(index);
            } else if self.copies[index] != Copy::Pending {
                self.copies[index] = Copy::Pending;
                self.pending.push(index);
            }
        }
    }

    /// Forgets partitions, so that memory carries nothing from one assignment into the next.
    fn forget(&mut self, partitions: &[TopicPartition]) {
        let kept = std::mem::take(&mut self.last);
        let copies = std::mem::take(&mut self.copies);
        self.pending.clear();
        for (value, copy) in kept.values().iter().zip(copies) {
            if partitions.contains(&value.stamp.at) {
                continue;
            }
            self.last.offer(&value.key, value.kind, value.stamp, &value.payload);
            if copy == Copy::Pending {
                self.pending.push(self.copies.len());
            }
            self.copies.push(copy);
        }
        for at in partitions {
            self.folded.remove(at);
        }
    }

    /// Everything that was shown and has not outlived its time is to be shown again.
    fn lose(&mut self) {
        tracing::warn!("redis lost its data, writing the last values again");
        metrics::counter!("tapeline_cache_losses_total").increment(1);
        self.pending = (0..self.copies.len()).collect();
        self.folded.values_mut().for_each(|stands| *stands = false);
    }

    async fn show(&mut self) -> Result<(), SinkError> {
        if self.server.connect().await.map_err(SinkError::Retry)? {
            self.lose();
        }
        let announced = self.folded.iter().find(|(_, stands)| **stands).map(|(at, _)| *at);
        if let Some(at) = announced
            && !self.server.is_announced(&self.topics, at).await.map_err(SinkError::Retry)?
        {
            self.lose();
        }
        let now = Instant::now();
        let due = due(&self.pending, &self.last, &self.copies, &self.folded, &self.topics, now);
        let written: Vec<(usize, Instant)> =
            due.iter().map(|write| (write.index, now + write.live)).collect();
        failpoint::hit("cache.before_write");
        self.server.write(&due).await.map_err(SinkError::Retry)?;
        failpoint::hit("cache.after_write");
        for (index, end) in written {
            self.copies[index] = Copy::Until(end);
        }
        let (folded, copies, last) = (&self.folded, &self.copies, &self.last);
        self.pending.retain(|&index| {
            copies[index] == Copy::Pending && !folded.contains_key(&last.values()[index].stamp.at)
        });
        // The sentinel comes last: where it stands, everything before it has been written.
        let fresh: Vec<TopicPartition> =
            self.folded.iter().filter(|(_, stands)| !**stands).map(|(at, _)| *at).collect();
        self.server.announce(&self.topics, &fresh).await.map_err(SinkError::Retry)?;
        self.folded.values_mut().for_each(|stands| *stands = true);
        Ok(())
    }
}

/// Values to write now: those of folded partitions whose time has not passed.
fn due<'v>(
    pending: &[usize],
    last: &'v LastValues,
    copies: &[Copy],
    folded: &HashMap<TopicPartition, bool>,
    topics: &'v [TopicIdentity],
    now: Instant,
) -> Vec<Write<'v>> {
    let due = pending.iter().filter_map(|&index| {
        let value = &last.values()[index];
        let (_, seconds) = value.kind.spec().redis?;
        folded.get(&value.stamp.at)?;
        let live = match copies[index] {
            Copy::Pending => Duration::from_secs(u64::from(seconds)),
            Copy::Until(end) => end.checked_duration_since(now)?,
        };
        let topic_id = &topics.get(usize::from(value.stamp.at.topic))?.id;
        (live.as_millis() > 0).then_some(Write { index, value, topic_id, live })
    });
    due.collect()
}

impl<E: LogEnds> Sink<LastValues> for RedisSink<E> {
    async fn write(&mut self, out: &LastValues, spans: &mut [Span]) -> Result<(), SinkError> {
        self.remember(out);
        for span in spans.iter() {
            if self.folds.read(span) {
                self.folded.entry(span.at).or_insert(false);
            }
        }
        if self.folded.is_empty() { Ok(()) } else { self.show().await }
    }

    /// Values that are folded but not yet in Redis would be lost with this process.
    fn committable(&self, at: TopicPartition, offset: i64) -> i64 {
        self.folds.committable(at, offset)
    }

    /// Redis refuses no value for its content.
    fn remove_rows(&self, _: &mut LastValues, _: &[usize]) {}

    async fn assign(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Resume>, SinkError> {
        self.forget(partitions);
        let mut resumes = Vec::with_capacity(partitions.len());
        for &at in partitions {
            let until = self.ends.end(at).await.map_err(SinkError::Retry)?;
            self.folds.begin(at, until);
            // All that Redis may hold is read again (R2): what it lost comes back, what it has is not written twice.
            let living = self.ends.living(at).await.map_err(SinkError::Retry)?;
            resumes.push(Resume {
                at,
                start: Start::CommittedOrEarlier(living),
                held_origin: None,
            });
        }
        Ok(resumes)
    }

    async fn revoke(&mut self, partitions: &[TopicPartition]) {
        self.forget(partitions);
        for &at in partitions {
            self.folds.end(at);
        }
    }
}
