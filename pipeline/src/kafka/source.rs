//! A lane's end of the consumer: chunks in, checkpoints out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc as std_mpsc};
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

/// One lane's records.
#[derive(Debug)]
pub struct KafkaSource {
    pub(super) inputs: mpsc::Receiver<Input>,
    pub(super) checkpoints: std_mpsc::SyncSender<Checkpoints>,
    pub(super) interrupt: Arc<Interrupt>,
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

    fn commit(&mut self, checkpoints: Checkpoints) {
        // Where the queue is full or the consumer gone, this commit is left out: the next one says
        // more, and what is not committed is read again and recognised.
        let _ = self.checkpoints.try_send(checkpoints);
    }
}
