//! Where batches become durable, and the only way to a commit.

use std::future::Future;
use std::time::Duration;

use thiserror::Error;

use crate::failpoint;

use super::{Batch, Outcome, Rejected, Span, TopicPartition};

/// Where a partition starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record there is.
    Beginning,
    /// At this offset; if the log no longer has it, the stage stops loudly.
    At(i64),
    /// Where the group committed, with the note left there; the beginning where it never did.
    Committed,
    /// At this offset, or where the group committed, whichever comes first.
    CommittedOrEarlier(i64),
}

/// A partition's start with the last origin its owner holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// The partition.
    pub at: TopicPartition,
    /// Where to read from.
    pub start: Start,
    /// Last origin taken; unknown, the first record tells.
    pub held_origin: Option<i64>,
}

/// Why a batch was not written.
#[derive(Debug, Error)]
pub enum SinkError {
    /// Not now: the loop waits, longer each time, and writes the same batch again.
    #[error("{0}")]
    Retry(String),
    /// Nothing is wrong, but another stage has to come first: the loop waits the same way, without a word.
    #[error("{0}")]
    NotYet(String),
    /// These rows can never be written: they go to quarantine, the rest is written again.
    #[error("{} rows refused", .0.len())]
    Reject(Vec<RefusedRow>),
    /// The stage must stop: it lost its partition to another owner, or must not go on.
    #[error("{0}")]
    Fatal(String),
}

/// A row that a sink can never write.
#[derive(Debug)]
pub struct RefusedRow {
    /// Index of the row in the batch's output.
    pub row: usize,
    /// The record, for quarantine.
    pub rejected: Rejected,
}

/// Writes batches of one kind of output.
pub trait Sink<O>: Send {
    /// Writes the whole batch; `Ok` means durable. Writing the same batch again is harmless.
    /// May correct the spans' counts (what it found to be a duplicate).
    fn write(
        &mut self,
        out: &O,
        spans: &mut [Span],
    ) -> impl Future<Output = Result<(), SinkError>> + Send;

    /// Up to where `at` may be committed when all before `offset` was written: not beyond what
    /// the sink holds in memory only.
    fn committable(&self, at: TopicPartition, offset: i64) -> i64 {
        let _ = at;
        offset
    }

    /// Takes rows out of an output before it is written again.
    fn remove_rows(&self, out: &mut O, rows: &[usize]);

    /// Partitions begin: says where each starts.
    fn assign(
        &mut self,
        partitions: &[TopicPartition],
    ) -> impl Future<Output = Result<Vec<Resume>, SinkError>> + Send;

    /// Partitions go, after their last batch.
    fn revoke(&mut self, partitions: &[TopicPartition]) -> impl Future<Output = ()> + Send;
}

/// Keeps rejected records. If it cannot, the stage waits; it never skips.
pub trait QuarantineSink: Send {
    /// Writes all of them; `Ok` means durable. Writing the same again is harmless.
    fn write(
        &mut self,
        rejected: &[Rejected],
    ) -> impl Future<Output = Result<(), SinkError>> + Send;
}

/// Proof that every position of a batch is durable. Only [`flush`] makes one.
#[derive(Debug)]
pub struct Durable {
    spans: Vec<Span>,
}

impl Durable {
    /// The positions.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }
}

/// First pause after a failed write; doubled up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(20);
/// Longest pause between two attempts to write.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Writes a batch: rejected records to quarantine first, then the output; waits and repeats
/// until both are durable.
///
/// Dropping the future gives the batch up: nothing of it may then be committed.
pub async fn flush<O, S: Sink<O>, Q: QuarantineSink>(
    name: &'static str,
    sink: &mut S,
    quarantine: &mut Q,
    batch: &mut Batch<O>,
) -> Result<Durable, SinkError> {
    if !batch.rejected.is_empty() {
        quarantine_all(name, quarantine, &batch.rejected).await?;
        failpoint::hit_in(name, "after_quarantine");
    }
    let mut pause = MIN_PAUSE;
    loop {
        let mut spans = batch.spans.clone();
        match sink.write(&batch.out, &mut spans).await {
            Ok(()) => return Ok(Durable { spans }),
            Err(SinkError::Retry(reason)) => {
                wait(name, "sink", &reason, &mut pause).await;
            }
            Err(SinkError::NotYet(reason)) => {
                tracing::debug!(stage = name, reason, "waits");
                rest(&mut pause).await;
            }
            Err(SinkError::Reject(refused)) => {
                for row in &refused {
                    let at = row.rejected.at;
                    if let Some(span) = batch.spans.iter_mut().find(|span| span.at == at) {
                        span.reclassify(Outcome::Taken, Outcome::Quarantined, 1);
                    }
                }
                let (rows, rejected): (Vec<_>, Vec<_>) =
                    refused.into_iter().map(|refused| (refused.row, refused.rejected)).unzip();
                quarantine_all(name, quarantine, &rejected).await?;
                sink.remove_rows(&mut batch.out, &rows);
            }
            Err(fatal) => return Err(fatal),
        }
    }
}

async fn quarantine_all<Q: QuarantineSink>(
    name: &'static str,
    quarantine: &mut Q,
    rejected: &[Rejected],
) -> Result<(), SinkError> {
    let mut pause = MIN_PAUSE;
    loop {
        match quarantine.write(rejected).await {
            Ok(()) => break,
            Err(SinkError::Retry(reason)) => wait(name, "quarantine", &reason, &mut pause).await,
            Err(fatal) => return Err(fatal),
        }
    }
    for rejected in rejected {
        metrics::counter!("tapeline_quarantine_records_total", "stage" => name, "reason" => rejected.reject.reason)
            .increment(1);
    }
    Ok(())
}

async fn wait(stage: &'static str, what: &'static str, reason: &str, pause: &mut Duration) {
    metrics::counter!("tapeline_flush_retries_total", "stage" => stage, "what" => what)
        .increment(1);
    tracing::warn!(
        stage,
        what,
        reason,
        pause_ms = pause.as_millis() as u64,
        "cannot write, will try again"
    );
    rest(pause).await;
}

async fn rest(pause: &mut Duration) {
    tokio::time::sleep(*pause).await;
    *pause = (*pause * 2).min(MAX_PAUSE);
}
