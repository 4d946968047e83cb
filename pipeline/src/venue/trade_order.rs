//! What trades tell of each other: holes in their ids, and equal ones where they have none.

use tapeline_schemas::{Kind, Micros};

use super::Output;

/// Trades of one symbol whose venue numbers them one by one: a number left out is a trade that was missed.
#[derive(Debug, Default)]
pub(super) struct TradeChain {
    newest: Option<(i64, Micros)>,
}

impl TradeChain {
    /// Takes a trade with the numbers `first` to `last` (the same where it is a single one) before it is
    /// published: the hole before it, if there is one, is recorded first and ends with it.
    pub(super) fn follow(
        &mut self,
        symbol: &str,
        first: i64,
        last: i64,
        at: Micros,
        out: &mut Output,
    ) {
        match self.newest {
            Some((newest, covered)) if first > newest.saturating_add(1) => {
                out.open_gap(Kind::Trade, symbol, covered, "sequence");
            }
            // Sent again.
            Some((newest, _)) if last <= newest => return,
            _ => {}
        }
        self.newest = Some((last, at));
    }
}

/// Trades of one symbol at its newest time, to tell equal ones apart where the venue gives no id.
#[derive(Debug, Default)]
pub(super) struct Ordinals {
    time: Micros,
    seen: Vec<(String, u32)>,
}

impl Ordinals {
    /// The number of trades like this one that came before at the same time.
    pub(super) fn next(&mut self, time: Micros, likeness: &str) -> u32 {
        if self.time != time {
            self.time = time;
            self.seen.clear();
        }
        if let Some((_, count)) = self.seen.iter_mut().find(|(seen, _)| seen == likeness) {
            *count += 1;
            return *count;
        }
        self.seen.push((likeness.to_owned(), 0));
        0
    }
}
