//! What `validate` remembers of each symbol to judge the next event. It dies with the
//! assignment and is bounded by name (invariants 4 and 8).

use std::collections::VecDeque;

use hashbrown::HashMap;
use tapeline_schemas::{Flag, Flags, Micros, Money, headers};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::Settings;
use super::robust::Estimate;
use crate::flow::Record;

/// Memory of one kind of events of one symbol.
#[derive(Debug, Default)]
pub(super) struct SymbolMemory {
    /// Content by identity. 128 bits, so that two ids never meet by chance.
    contents: HashMap<u128, u64>,
    order: VecDeque<u128>,
    newest: Option<Micros>,
    prices: Estimate,
}

/// What judging an event found: flags, and words for the anomaly.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    pub(super) flags: Flags,
    pub(super) detail: String,
}

impl Judgement {
    pub(super) fn add(&mut self, flag: Flag, detail: impl FnOnce() -> String) {
        self.flags.set(flag);
        if !self.detail.is_empty() {
            self.detail.push_str("; ");
        }
        self.detail.push_str(&detail());
    }
}

impl SymbolMemory {
    /// Flags an identity that came before; `content` is all of the event but its receive time.
    ///
    /// A record sent again from quarantine repeats the one that a sink refused. Flagged as a duplicate nobody would
    /// take it; whether its event is there after all, the sinks' keys tell.
    pub(super) fn identity(
        &mut self,
        id: &[u8],
        content: &[u8],
        settings: &Settings,
        record: &Record<'_>,
        judgement: &mut Judgement,
    ) {
        let key = xxh3_128(id);
        let content = xxh3_64(content);
        match self.contents.get(&key) {
            Some(_) if record.headers.text(headers::RETRY_OF).is_some() => return,
            Some(&known) if known == content => {
                judgement.add(Flag::Duplicate, || "same identity and content as before".to_owned());
                return;
            }
            Some(_) => {
                judgement
                    .add(Flag::Conflict, || "same identity as before, other content".to_owned());
                return;
            }
            None => {}
        }
        if self.order.len() >= settings.memory_per_symbol
            && let Some(oldest) = self.order.pop_front()
        {
            self.contents.remove(&oldest);
        }
        self.contents.insert(key, content);
        self.order.push_back(key);
    }

    /// Flags a price far from what came before, and remembers it.
    pub(super) fn price(
        &mut self,
        what: &str,
        price: Money,
        settings: &Settings,
        judgement: &mut Judgement,
    ) {
        let mantissa = price.mantissa();
        if let Some((median, deviations)) =
            self.prices.judge(mantissa, settings.price_jump_deviations)
        {
            judgement.add(Flag::PriceJump, || {
                let median = Money::from_mantissa(median).unwrap_or_default();
                format!("{what} {price} is {deviations} deviations from the median {median}")
            });
        }
        self.prices.push(mantissa);
    }

    /// Flags a time that is odd against the receive time or runs backwards.
    pub(super) fn time(
        &mut self,
        venue: Micros,
        receive: Micros,
        settings: &Settings,
        judgement: &mut Judgement,
    ) {
        skew(venue, receive, settings, judgement);
        if judgement.flags.has(Flag::Future) {
            return; // it must not make every honest event after it look out of order
        }
        match self.newest {
            Some(newest) if venue < newest => judgement.add(Flag::OutOfOrder, || {
                format!("venue time {} µs before the newest of its symbol", newest.since(venue))
            }),
            _ => self.newest = Some(venue),
        }
    }
}

/// Flags a time that is odd against the receive time.
pub(super) fn skew(venue: Micros, receive: Micros, settings: &Settings, judgement: &mut Judgement) {
    let ahead = venue.since(receive);
    if ahead > settings.max_ahead.as_micros() as i64 {
        judgement.add(Flag::Future, || format!("venue time {ahead} µs ahead of receive time"));
    } else if -ahead > settings.max_behind.as_micros() as i64 {
        judgement.add(Flag::Late, || format!("venue time {} µs behind receive time", -ahead));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::flow::{Chunk, TopicPartition};

    fn flags(memory: &mut SymbolMemory, content: &[u8], retry_of: Option<&[u8]>) -> Flags {
        let mut chunk = Chunk::new(TopicPartition { topic: 0, partition: 0 });
        let headers = retry_of.map(|origin| (headers::RETRY_OF, Some(origin)));
        chunk.push(7, Micros(0), None, None, headers.into_iter());
        let (mut judgement, second) = (Judgement::default(), Duration::from_secs(1));
        let settings = Settings {
            max_ahead: second,
            max_behind: second,
            reject_ahead: second,
            price_jump_deviations: 8,
            memory_per_symbol: 8,
        };
        memory.identity(b"id", content, &settings, &chunk.record(0), &mut judgement);
        judgement.flags
    }

    #[test]
    fn an_event_sent_again_from_quarantine_is_no_repeat_and_everything_else_is() {
        let mut memory = SymbolMemory::default();
        assert!(!flags(&mut memory, b"one", None).is_repeat());
        assert!(flags(&mut memory, b"one", None).has(Flag::Duplicate));
        assert!(flags(&mut memory, b"other", None).has(Flag::Conflict));
        assert!(!flags(&mut memory, b"one", Some(b"3")).is_repeat());
        assert!(!flags(&mut memory, b"other", Some(b"3")).is_repeat());
        assert!(flags(&mut memory, b"one", None).has(Flag::Duplicate));
    }
}
