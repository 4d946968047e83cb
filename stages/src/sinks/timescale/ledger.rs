//! The ledger: what became of each raw offset, one row a partition and batch (invariant 2).

use std::collections::BTreeMap;

use tapeline_schemas::{Micros, civil};

use super::connection::{Row, Session};
use super::copy::Merged;
use super::error::Failure;
use super::fence::Fences;
use crate::flow::{Outcome, Span, TopicPartition};
use crate::store::{CopyBuffers, Table, Tuple, postgres_micros};

const STATEMENT: &str = "copy tapeline_ledger (pipeline, topic, topic_id, partition,
    first_offset, last_offset, first_origin, last_origin, stored, duplicate, conflict,
    not_stored, quarantined, control, skipped, lost, repeated, min_event_time, max_event_time,
    by_day, rules) from stdin with (format binary)";
const FIELDS: usize = 21;
const DAY_MICROS: i64 = 86_400_000_000;

/// Rows added, by partition and day.
type Days = BTreeMap<(TopicPartition, i64), u64>;

/// Corrects the spans by what the database dropped, and counts the rows that were added.
pub(super) fn account(out: &CopyBuffers, merged: &[(Table, Merged)], spans: &mut [Span]) -> Days {
    let mut days = Days::new();
    let day = |time: Micros| time.0.div_euclid(DAY_MICROS);
    for table in Table::ALL.into_iter().filter(|table| !table.is_beside()) {
        for run in out
            .table(table)
            .rows()
            .chunk_by(|a, b| a.original.at == b.original.at && day(a.time) == day(b.time))
        {
            *days.entry((run[0].original.at, day(run[0].time))).or_default() += run.len() as u64;
        }
    }
    for (table, merged) in merged.iter().filter(|(table, _)| !table.is_beside()) {
        let rows = out.table(*table).rows();
        for &(row, is_conflict) in &merged.dropped {
            let row = &rows[row];
            let outcome = if is_conflict { Outcome::Conflict } else { Outcome::Duplicate };
            if let Some(span) = spans.iter_mut().find(|span| span.at == row.original.at) {
                span.reclassify(Outcome::Taken, outcome, 1);
            }
        }
        let dropped = merged.dropped.iter().map(|&(row, _)| row);
        for row in dropped.chain(merged.replaced.iter().copied()) {
            if let Some(count) = days.get_mut(&(rows[row].original.at, day(rows[row].time))) {
                *count -= 1;
            }
        }
    }
    days
}

/// Writes the ledger's rows.
pub(super) async fn write(
    session: &mut Session,
    fences: &Fences,
    out: &CopyBuffers,
    spans: &[Span],
    days: &Days,
) -> Result<(), Failure> {
    let mut bytes = Vec::new();
    let mut ends = Vec::new();
    for span in spans {
        put(&mut bytes, fences, out, span, days);
        ends.push(bytes.len());
    }
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let rows =
        starts.zip(&ends).map(|(start, &end)| Row { number: None, tuple: &bytes[start..end] });
    session.copy(STATEMENT, rows, || ()).await
}

fn put(bytes: &mut Vec<u8>, fences: &Fences, out: &CopyBuffers, span: &Span, days: &Days) {
    let topic = fences.topic(span.at);
    let mut tuple = Tuple::begin(bytes, FIELDS);
    tuple.text(fences.pipeline());
    tuple.text(&topic.name);
    tuple.text(&topic.id);
    tuple.integer(span.at.partition);
    for number in [span.first_offset, span.next_offset - 1, span.first_origin, span.held_origin] {
        tuple.bigint(number);
    }
    for outcome in Outcome::ALL {
        tuple.bigint(span.count(outcome) as i64);
    }
    // Of the rows, not of the span: a refused row's time is none of ours.
    let rows = || Table::ALL.into_iter().flat_map(|table| out.table(table).rows());
    let times = || rows().filter(|row| row.original.at == span.at).map(|row| row.time);
    for time in [times().min(), times().max()] {
        tuple.bigint_or_null(time.and_then(postgres_micros));
    }
    let days = days.range((span.at, i64::MIN)..=(span.at, i64::MAX)).filter(|day| *day.1 > 0);
    tuple.jsonb(|json| {
        json.write_char('{')?;
        for (index, (&(_, day), count)) in days.enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let (year, month, day) = civil(day);
            write!(json, "{comma}\"{year:04}-{month:02}-{day:02}\":{count}")?;
        }
        json.write_char('}')
    });
    let rules: Vec<&str> = out.rules(span.at).collect();
    tuple.text(&rules.join(","));
}
