//! Where records come from.

use std::future::Future;

use tokio::sync::oneshot;

use super::{Checkpoint, Chunk, Resume, TopicPartition};

/// What a source says next.
#[derive(Debug)]
pub enum Input {
    /// Records.
    Chunk(Chunk),
    /// Partitions begin; they stay silent until the answer says where each starts. The note that
    /// the group's last owner committed comes with each.
    Assigned(Vec<(TopicPartition, Option<String>)>, oneshot::Sender<Vec<Resume>>),
    /// Offsets that are gone, a loss that was accepted; what follows them comes next.
    Lost(Lost),
    /// Partitions go; their next owner waits for the answer.
    Revoked(Vec<TopicPartition>, oneshot::Sender<Released>),
    /// Nothing more will come; everything before is to be written and committed.
    End,
    /// The source cannot go on.
    Failed(String),
}

/// Offsets that retention took before they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// The partition.
    pub at: TopicPartition,
    /// First offset.
    pub first: i64,
    /// Last offset.
    pub last: i64,
}

/// How partitions were let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// Everything read of them is durable and its commit was asked for.
    Drained,
    /// The sink could not write: what was read is given up, of every partition of the lane. The
    /// source assigns those that stay once more.
    GaveUp,
}

/// A source of records, bounded in memory.
pub trait Source: Send {
    /// The next input; waits for it. Dropping the future loses nothing.
    fn next(&mut self) -> impl Future<Output = Input> + Send;

    /// Returns once partitions are being taken away or the end was asked for, while their
    /// input still waits in the queue: whoever is stuck writing gives up then.
    fn interrupted(&self) -> impl Future<Output = ()> + Send;

    /// Commits checkpoints, for partitions that are still owned. Consumed in order with the answers to revocations.
    fn commit(&mut self, checkpoints: Vec<(TopicPartition, Checkpoint)>);
}

/// Looks up writer schemas.
pub trait SchemaSource: Send {
    /// The schema with this id; `Ok(None)` only where a healthy registry does not know it,
    /// `Err` where the registry cannot be asked: the loop waits and asks again.
    fn schema(&mut self, id: u32) -> impl Future<Output = Result<Option<String>, String>> + Send;
}
