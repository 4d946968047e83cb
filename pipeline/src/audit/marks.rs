//! Outcomes: what validate's markers say is what the ledger counted, and what is said to be in
//! quarantine is there.

use std::collections::BTreeMap;

use tapeline_schemas::{Micros, headers::outcome, partition_for};
use tapeline_stages::flow::Record;

use super::ledger::Sums;
use super::report::Check;
use crate::kafka::OffsetRange;

/// Outcomes of which the checked topic has markers.
pub(super) const MARKED: [&str; 4] =
    [outcome::QUARANTINED, outcome::CONTROL, outcome::SKIPPED, outcome::LOST];
const QUARANTINED: usize = 0;

/// Offsets in a page of a set.
const PAGE: i64 = 65_536;

/// A set of offsets, a bit each: a hundred million take 12 MB at most (invariant 8).
#[derive(Debug, Default)]
struct Offsets(BTreeMap<i64, Box<[u64]>>);

impl Offsets {
    fn add(&mut self, offset: i64) {
        let page = self.0.entry(offset.div_euclid(PAGE));
        let page = page.or_insert_with(|| vec![0; (PAGE / 64) as usize].into_boxed_slice());
        let bit = offset.rem_euclid(PAGE) as usize;
        page[bit / 64] |= 1 << (bit % 64);
    }

    fn has(&self, offset: i64) -> bool {
        let bit = offset.rem_euclid(PAGE) as usize;
        let page = self.0.get(&offset.div_euclid(PAGE));
        page.is_some_and(|page| page[bit / 64] & (1 << (bit % 64)) != 0)
    }

    /// How many there are from `from` on.
    fn count_from(&self, from: i64) -> i64 {
        let pages = self.0.range(from.div_euclid(PAGE)..);
        pages
            .map(|(number, page)| {
                let first = number * PAGE;
                if first >= from {
                    return page.iter().map(|word| i64::from(word.count_ones())).sum();
                }
                (from..first + PAGE).filter(|&offset| self.has(offset)).count() as i64
            })
            .sum()
    }
}

/// What the quarantine topic holds, by where it is from.
#[derive(Debug, Default)]
pub(super) struct Quarantined {
    /// Everything, and what the store put there, by topic and partition.
    all: BTreeMap<(String, i32), Offsets>,
    of_store: BTreeMap<(String, i32), Offsets>,
    /// For each partition of the quarantine topic that retention has cut: time of the oldest
    /// record that is left.
    cut: Vec<Option<Option<Micros>>>,
}

impl Quarantined {
    /// For a topic that holds these ranges.
    pub(super) fn new(ranges: &[OffsetRange]) -> Quarantined {
        let cut = ranges.iter().map(|range| (range.from > 0).then_some(None)).collect();
        Quarantined { cut, ..Quarantined::default() }
    }

    pub(super) fn take(&mut self, record: &Record<'_>) {
        if let Some(Some(oldest @ None)) = self.cut.get_mut(record.at.partition as usize) {
            *oldest = Some(record.time);
        }
        let text = |name: &str| record.headers.text(name);
        let number = |name: &str| record.headers.number(name);
        let (Some(topic), Some(partition), Some(offset)) = (
            text("__connect.errors.topic"),
            number("__connect.errors.partition"),
            number("__connect.errors.offset"),
        ) else {
            return;
        };
        let place = (topic.to_owned(), partition as i32);
        if text("__connect.errors.stage") == Some("store") {
            self.of_store.entry(place.clone()).or_default().add(offset);
        }
        self.all.entry(place).or_default().add(offset);
    }

    fn has(&self, topic: &str, partition: i32, offset: i64) -> bool {
        self.all.get(&(topic.to_owned(), partition)).is_some_and(|offsets| offsets.has(offset))
    }

    /// Whether retention may have taken what was put there at `time`.
    fn may_be_retained(&self, topic: &str, partition: i32, offset: i64, time: Micros) -> bool {
        let key = format!("{topic}/{partition}/{offset}");
        let place = partition_for(key.as_bytes(), self.cut.len().max(1) as i32);
        match self.cut.get(place as usize) {
            Some(Some(oldest)) => oldest.is_none_or(|oldest| time <= oldest),
            _ => false,
        }
    }

    fn is_cut(&self) -> bool {
        self.cut.iter().any(Option::is_some)
    }
}

/// The markers that the walk met.
#[derive(Debug, Default)]
pub(super) struct Marks {
    pub(super) quarantined: Quarantined,
    counts: BTreeMap<(String, i32), [i64; MARKED.len()]>,
    examined: i64,
    retained: i64,
    missing: i64,
    first_missing: Option<String>,
}

impl Marks {
    /// Takes a marker for origins `first..=last` of `raw`; `counts` where the ledger's rows that
    /// it will be held against cover it.
    pub(super) fn take(
        &mut self,
        place: &(String, i32),
        raw: &str,
        outcome: usize,
        (first, last): (i64, i64),
        record: &Record<'_>,
        counts: bool,
    ) {
        if counts {
            self.counts.entry(place.clone()).or_default()[outcome] += last - first + 1;
        }
        if outcome != QUARANTINED {
            return;
        }
        self.examined += 1;
        let partition = place.1;
        if self.quarantined.has(raw, partition, last) {
            return;
        }
        if self.quarantined.may_be_retained(raw, partition, last, record.time) {
            self.retained += 1;
            return;
        }
        self.missing += 1;
        self.first_missing.get_or_insert_with(|| {
            format!("{raw} [{partition}] offset {last} is not in the quarantine topic")
        });
    }
}

/// The check.
pub(super) fn judge(marks: &Marks, sums: &BTreeMap<(String, i32), Sums>) -> Check {
    let mut check = Check::new("outcomes");
    check.examined = marks.examined;
    check.count("retained_away", marks.retained);
    if let Some(missing) = &marks.first_missing {
        check.wrong(|| missing.clone());
        check.offences = marks.missing;
    }
    for (place, sums) in sums {
        let Some(from) = sums.from_offset else { continue };
        let (topic, partition) = place;
        let marked = marks.counts.get(place).copied().unwrap_or_default();
        let is_checked = sums.is_checked;
        for outcome in (QUARANTINED + 1..MARKED.len()).filter(|_| is_checked) {
            let (said, counted) = (marked[outcome], sums.marked[outcome]);
            if said != counted {
                let name = MARKED[outcome];
                check.wrong(|| {
                    format!(
                        "{topic} [{partition}]: {said} {name} by validate, {counted} in the ledger"
                    )
                });
            }
        }
        let rejected = sums.marked[QUARANTINED] - marked[QUARANTINED];
        if rejected < 0 {
            check.wrong(|| {
                let (said, counted) = (marked[QUARANTINED], sums.marked[QUARANTINED]);
                format!(
                    "{topic} [{partition}]: {said} quarantined by validate, {counted} in the ledger"
                )
            });
        }
        let held = marks.quarantined.of_store.get(place);
        let held = held.map_or(0, |offsets| offsets.count_from(from));
        check.examined += rejected.max(0);
        if held < rejected && !marks.quarantined.is_cut() {
            check.wrong(|| {
                format!("{topic} [{partition}]: the store quarantined {rejected} records, the quarantine topic holds {held}")
            });
        }
    }
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_offsets_counts_each_once_and_from_any_of_them_on() {
        let mut offsets = Offsets::default();
        for offset in [0, 1, 63, 64, 65_535, 65_536, 1 << 40, 64] {
            offsets.add(offset);
        }
        assert!(offsets.has(64) && offsets.has(1 << 40) && !offsets.has(2));
        let counts = [0, 1, 64, 65, 65_536, 65_537].map(|from| offsets.count_from(from));
        assert_eq!(counts, [7, 6, 4, 3, 2, 1]);
    }
}
