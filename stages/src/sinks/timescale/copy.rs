//! Rows into tables: straight where no key is expected to be there, by way of a staging
//! table where one may be.

use super::connection::{Row as Tuple, Session};
use super::error::Failure;
use super::merge;
use crate::failpoint;
use crate::store::{CopyBuffers, Rule, Table};

/// What became of rows that were not simply added.
#[derive(Debug, Default)]
pub(super) struct Merged {
    /// Rows that were dropped: something with their key is there. Whether its content differs.
    pub(super) dropped: Vec<(usize, bool)>,
    /// Rows that took the place of another.
    pub(super) replaced: Vec<usize>,
}

/// Batches that go the careful way after one with duplicates, at first and at most.
const CAREFUL_BATCHES: (u32, u32) = (4, 64);

/// How much a table's keys have been trusted lately. A duplicate costs a whole COPY that was for
/// nothing, so optimism comes back slowly.
#[derive(Debug, Default)]
pub(super) struct Trust {
    careful: [u32; Table::ALL.len()],
    last: [u32; Table::ALL.len()],
}

impl Trust {
    pub(super) fn is_careful(&self, table: Table) -> bool {
        table.spec().rule == Rule::Higher || self.careful[table as usize] > 0
    }

    /// A key was there already.
    pub(super) fn lost(&mut self, table: Table) {
        let last = &mut self.last[table as usize];
        *last = (*last * 2).clamp(CAREFUL_BATCHES.0, CAREFUL_BATCHES.1);
        self.careful[table as usize] = *last;
    }

    /// A batch went in without one.
    pub(super) fn kept(&mut self, table: Table) {
        let careful = &mut self.careful[table as usize];
        if *careful > 0 {
            *careful -= 1;
        } else {
            self.last[table as usize] /= 2;
        }
    }
}

fn statement(name: &str, first: &str, columns: &[&str]) -> String {
    format!("copy {name} ({first}{}) from stdin with (format binary)", quoted(columns))
}

/// Column names: `type` and others would be keywords.
pub(super) fn quoted(columns: &[&str]) -> String {
    let quoted: Vec<String> = columns.iter().map(|column| format!("\"{column}\"")).collect();
    quoted.join(", ")
}

/// Straight into the table; a key that is there is an error.
pub(super) async fn straight(
    session: &mut Session,
    out: &CopyBuffers,
    table: Table,
) -> Result<(), Failure> {
    let buffer = out.table(table);
    let order = buffer.sorted();
    let tuples = order
        .iter()
        .map(|&index| Tuple { number: None, tuple: buffer.tuple(&buffer.rows()[index as usize]) });
    let statement = statement(table.name(), "", table.spec().columns);
    session.copy(&statement, tuples, || failpoint::hit("store.mid_copy")).await
}

/// Makes the staging table of this session; outside of the batch's transaction, once.
pub(super) async fn prepare(session: &mut Session, table: Table) -> Result<(), Failure> {
    session
        .run(&format!(
            "create temp table if not exists {} (row_no integer not null, like {})
                on commit delete rows",
            merge::staging(table),
            table.name()
        ))
        .await
}

/// Rows into the staging table, with their numbers.
pub(super) async fn stage(
    session: &mut Session,
    out: &CopyBuffers,
    table: Table,
    rows: std::ops::Range<usize>,
) -> Result<(), Failure> {
    let buffer = out.table(table);
    let tuples = rows.map(|index| Tuple {
        number: Some(index as i32),
        tuple: buffer.tuple(&buffer.rows()[index]),
    });
    let statement = statement(&merge::staging(table), "row_no, ", table.spec().columns);
    session.copy(&statement, tuples, || failpoint::hit("store.mid_copy")).await
}

/// By way of the staging table, so that keys that are there do no harm.
pub(super) async fn careful(
    session: &mut Session,
    out: &CopyBuffers,
    table: Table,
) -> Result<Merged, Failure> {
    stage(session, out, table, 0..out.table(table).rows().len()).await?;
    merge::merge(session, out, table).await
}

/// Rows that the database refuses, found by halving: it does not say which one it was.
pub(super) async fn find_refused(
    session: &mut Session,
    out: &CopyBuffers,
    table: Table,
) -> Result<Vec<(usize, String)>, Failure> {
    let mut refused = Vec::new();
    let all = 0..out.table(table).rows().len();
    let mut ranges: Vec<_> = std::iter::once(all).collect();
    session.run("begin").await?;
    while let Some(range) = ranges.pop() {
        session.run("savepoint probe").await?;
        let mut probed = stage(session, out, table, range.clone()).await;
        if probed.is_ok() {
            probed = merge::insert(session, out, table).await;
        }
        match probed {
            Ok(()) => {}
            Err(Failure::Data(reason)) if range.len() == 1 => refused.push((range.start, reason)),
            Err(Failure::Data(_)) => {
                let middle = range.start + range.len() / 2;
                ranges.push(middle..range.end);
                ranges.push(range.start..middle);
            }
            Err(failure) => return Err(failure),
        }
        session.run("rollback to savepoint probe").await?;
    }
    session.rollback().await?;
    Ok(refused)
}
