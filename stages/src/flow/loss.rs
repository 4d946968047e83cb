//! Accepted losses: they enter the batch like everything else, so that nothing overtakes them.

use super::origin::Held;
use super::{Batcher, Contract, Lost, Outcome, Position, Record, Stage, Topic};

/// Takes note of `lost`. What stands for offsets of a raw topic, or of one without origins,
/// enters at once; of a checked topic the next record tells the origins.
pub(super) fn enter<St: Stage>(
    stage: &mut St,
    batcher: &mut Batcher<St::Out>,
    held: &mut Held,
    topic: &Topic,
    lost: Lost,
) {
    let Lost { at, first, last } = lost;
    match topic.contract {
        Contract::Checked => return held.lose_checked(lost),
        Contract::Raw => held.lose_raw(lost),
        Contract::Plain => {}
    }
    stage.lost(at, first, last, batcher.out());
    let position =
        Position { at, offset: last, origin_first: first, origin: last, event_time: None };
    batcher.push_range(first, position, Outcome::Lost);
}

/// Enters what was lost before a checked `record`, now that its origins are known.
pub(super) fn before<St: Stage>(
    stage: &mut St,
    batcher: &mut Batcher<St::Out>,
    held: &mut Held,
    record: &Record<'_>,
) {
    let Some((lost, origin_first, origin)) = held.lost_before(record) else { return };
    stage.lost(lost.at, lost.first, lost.last, batcher.out());
    let position =
        Position { at: lost.at, offset: lost.last, origin_first, origin, event_time: None };
    batcher.push_range(lost.first, position, Outcome::Lost);
}
