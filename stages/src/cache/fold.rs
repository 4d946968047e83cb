//! How far each partition's log has been folded since it was assigned (invariant 6).

use std::collections::HashMap;

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

/// How far each partition's log has been folded.
#[derive(Debug, Default)]
pub(crate) struct Folds(HashMap<TopicPartition, Fold>);

impl Folds {
    pub(crate) fn begin(&mut self, at: TopicPartition, until: i64) {
        self.0.insert(at, Fold { until, from: None, next: 0 });
    }

    pub(crate) fn end(&mut self, at: TopicPartition) {
        self.0.remove(&at);
    }

    /// Takes note of what was read; whether the partition's log has been folded to its end.
    pub(crate) fn read(&mut self, span: &Span) -> bool {
        let Some(fold) = self.0.get_mut(&span.at) else { return false };
        fold.from.get_or_insert(span.first_offset);
        fold.next = fold.next.max(span.next_offset);
        fold.is_done()
    }

    /// Up to where the partition may be committed: not before its log is folded.
    pub(crate) fn committable(&self, at: TopicPartition, next_offset: i64) -> i64 {
        match self.0.get(&at) {
            Some(fold) if !fold.is_done() => fold.from.unwrap_or(next_offset),
            _ => next_offset,
        }
    }
}
