//! A lane's end of the consumer: chunks in, checkpoints out.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc};
use std::thread::Thread;

use tapeline_stages::flow::{Checkpoint, Input, Source, TopicPartition};
use tokio::sync::{Notify, mpsc};

/// Checkpoints on their way to the consumer's thread.
pub(super) type Checkpoints = Vec<(TopicPartition, Checkpoint)>;

/// Checkpoints that wait for the consumer's thread (invariant 8).
pub(super) const CHECKPOINTS: usize = 256;

/// Tells a lane that is stuck writing that its partitions are wanted back.
#[derive(Debug, Default)]
pub(super) struct Interrupt {
    raised: AtomicBool,
    changed: Notify,
}

impl Interrupt {
    pub(super) fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    pub(super) fn clear(&self) {
        self.raised.store(false, Ordering::Release);
    }

    async fn raised(&self) {
        loop {
            let changed = self.changed.notified();
            if self.raised.load(Ordering::Acquire) {
                return;
            }
            changed.await;
        }
    }
}

/// What a lane wants of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// Not to be read for now.
    Hold,
    /// To be assigned once more.
    Again,
}

/// What a lane wants of its partitions: the last word about each, so at most one a partition
/// (invariant 8).
#[derive(Debug, Default)]
pub(super) struct Wishes(Mutex<HashMap<TopicPartition, Wish>>);

impl Wishes {
    fn add(&self, at: TopicPartition, wish: Wish) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(at, wish);
    }

    pub(super) fn take(&self) -> HashMap<TopicPartition, Wish> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A partition that went, or begins anew, has no wishes left from before.
    pub(super) fn forget(&self, at: TopicPartition) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&at);
    }
}

/// One lane's records.
#[derive(Debug)]
pub struct KafkaSource {
    pub(super) inputs: mpsc::Receiver<Input>,
    pub(super) checkpoints: std_mpsc::SyncSender<Checkpoints>,
    pub(super) interrupt: Arc<Interrupt>,
    pub(super) wishes: Arc<Wishes>,
    pub(super) consumer: Thread,
}

impl Source for KafkaSource {
    async fn next(&mut self) -> Input {
        let input = self.inputs.recv().await;
        // The consumer may be waiting for room in the queue.
        self.consumer.unpark();
        input.unwrap_or(Input::End)
    }

    async fn interrupted(&self) {
        self.interrupt.raised().await;
    }

    fn hold(&mut self, at: TopicPartition) {
        self.wishes.add(at, Wish::Hold);
    }

    fn again(&mut self, at: TopicPartition) {
        self.wishes.add(at, Wish::Again);
    }

    fn commit(&mut self, checkpoints: Checkpoints) {
        // Where the queue is full or the consumer gone, this commit is left out: the next one says
        // more, and what is not committed is read again and recognised.
        let _ = self.checkpoints.try_send(checkpoints);
    }
}
