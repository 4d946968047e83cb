//! What is to be read next and is gone: never passed over in silence (invariant 1).

use anyhow::{Result, bail};
use rdkafka::Offset;
use tapeline_stages::flow::{Lost, TopicPartition};

use super::Worker;
use crate::kafka::ends;

impl Worker {
    /// Where to start reading `at`, which is to go on at `start`: there, or, where retention has
    /// taken that and the loss is accepted, at the oldest record, with what is gone in `lost`.
    pub(super) fn in_log(
        &self,
        at: TopicPartition,
        start: Offset,
        lost: &mut Vec<Lost>,
    ) -> Result<Offset> {
        let Offset::Offset(next) = start else { return Ok(start) };
        let (name, partition) = (self.name(at), at.partition);
        let (low, high) = ends(&self.consumer, name, partition)?;
        if next > high {
            bail!(
                "{name} [{partition}] ends before offset {high}, and {next} is to be read next: the topic \
                 was recreated or its log cut. Nothing was skipped; see `Loud errors` in docs/operations.md"
            );
        }
        if next >= low {
            return Ok(start);
        }
        if !self.accept_loss {
            bail!(
                "the log no longer has what is to be read next: {name} [{partition}] offsets {next} to {}, the \
                 log holds {low}..{high}. Restore it, or start again with --accept-loss: what is gone is \
                 then counted as lost",
                low - 1
            );
        }
        lost.push(Lost { at, first: next, last: low - 1 });
        Ok(Offset::Offset(low))
    }
}
