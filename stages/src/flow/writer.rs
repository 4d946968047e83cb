//! The write under way, so that the next batch is gathered meanwhile.

use std::future::{Future, pending};
use std::pin::Pin;

use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::{
    Batch, Checkpoint, Durable, Output, QuarantineSink, Sink, SinkError, TopicPartition, flush,
};

/// A sink with its quarantine.
pub(super) struct Ends<Si, Q> {
    pub(super) sink: Si,
    pub(super) quarantine: Q,
}

/// Where a partition may be committed, as of the end of a batch.
pub(super) type Checkpoints = Vec<(TopicPartition, Checkpoint)>;

type Written<O> = (Result<(Durable, Checkpoints), SinkError>, Batch<O>);

struct Writing<'e, O> {
    done: Pin<Box<dyn Future<Output = Written<O>> + Send + 'e>>,
    began: Instant,
}

/// Writes one batch at a time. What holds the ends meanwhile can be dropped: they stay.
pub(super) struct Writer<'e, Si, Q, O> {
    name: &'static str,
    ends: &'e Mutex<Ends<Si, Q>>,
    writing: Option<Writing<'e, O>>,
    /// The batch last written, for its memory.
    spent: Batch<O>,
}

/// A batch that is durable.
pub(super) struct Done {
    pub(super) durable: Durable,
    pub(super) checkpoints: Checkpoints,
    /// How long it took.
    pub(super) seconds: f64,
}

impl<'e, Si, Q, O> Writer<'e, Si, Q, O>
where
    Si: Sink<O>,
    Q: QuarantineSink,
    O: Output,
{
    pub(super) fn new(name: &'static str, ends: &'e Mutex<Ends<Si, Q>>) -> Writer<'e, Si, Q, O> {
        Writer { name, ends, writing: None, spent: Batch::default() }
    }

    pub(super) fn is_writing(&self) -> bool {
        self.writing.is_some()
    }

    /// Memory for the next batch.
    pub(super) fn spent(&mut self) -> Batch<O> {
        std::mem::take(&mut self.spent)
    }

    /// Begins to write; the write before must be done.
    pub(super) fn start(&mut self, mut batch: Batch<O>, mut checkpoints: Checkpoints) {
        assert!(self.writing.is_none(), "batches are written one after the other");
        let (name, ends) = (self.name, self.ends);
        let done = Box::pin(async move {
            let mut ends = ends.lock().await;
            let Ends { sink, quarantine } = &mut *ends;
            let flushed = flush(name, sink, quarantine, &mut batch).await;
            let flushed = flushed.map(|durable| {
                for (at, checkpoint) in &mut checkpoints {
                    checkpoint.offset = sink.committable(*at, checkpoint.offset);
                }
                (durable, checkpoints)
            });
            (flushed, batch)
        });
        self.writing = Some(Writing { done, began: Instant::now() });
    }

    /// Waits for the write under way, for ever where there is none. Dropping the future loses
    /// nothing.
    pub(super) async fn done(&mut self) -> Result<Done, SinkError> {
        let Some(writing) = &mut self.writing else { return pending().await };
        let (flushed, batch) = (&mut writing.done).await;
        let seconds = writing.began.elapsed().as_secs_f64();
        self.writing = None;
        self.spent = batch;
        let (durable, checkpoints) = flushed?;
        Ok(Done { durable, checkpoints, seconds })
    }

    /// Gives the write under way up: nothing of it may be committed.
    pub(super) fn give_up(&mut self) {
        self.writing = None;
    }

    /// The sink, while nothing is written.
    pub(super) async fn ends(&mut self) -> MutexGuard<'e, Ends<Si, Q>> {
        debug_assert!(self.writing.is_none());
        self.ends.lock().await
    }
}
