//! How far each partition's log has been folded since it was assigned (invariant 6).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::flow::{Span, TopicPartition};

#[derive(Debug)]
struct Fold {
    /// End of the log when the partition was assigned.
    until: i64,
    /// First offset that was read since.
    from: Option<i64>,
    next: i64,
}

impl Fold {
    fn is_done(&self) -> bool {
        self.from.is_some() && self.next >= self.until
    }
}

/// Shared by the stage, which must not commit what is only in memory, and its sink, which must
/// not write before the log's end.
#[derive(Debug, Clone, Default)]
pub struct Folds(Arc<Mutex<HashMap<TopicPartition, Fold>>>);

impl Folds {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<TopicPartition, Fold>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn begin(&self, at: TopicPartition, until: i64) {
        self.with(|folds| folds.insert(at, Fold { until, from: None, next: 0 }));
    }

    pub(crate) fn end(&self, at: TopicPartition) {
        self.with(|folds| folds.remove(&at));
    }

    /// Takes note of what was read; whether the partition's log has been folded to its end.
    pub(crate) fn read(&self, span: &Span) -> bool {
        self.with(|folds| {
            let Some(fold) = folds.get_mut(&span.at) else { return false };
            fold.from.get_or_insert(span.first_offset);
            fold.next = fold.next.max(span.next_offset);
            fold.is_done()
        })
    }

    /// Up to where the partition may be committed: not before its log is folded.
    pub(super) fn committable(&self, at: TopicPartition, next_offset: i64) -> i64 {
        self.with(|folds| match folds.get(&at) {
            Some(fold) if !fold.is_done() => fold.from.unwrap_or(next_offset),
            _ => next_offset,
        })
    }
}
