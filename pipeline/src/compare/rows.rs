//! Rows of differing minutes, read from both databases in the order of their keys.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use anyhow::Result;
use futures_util::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use sqlx::PgConnection;
use tapeline_stages::store::Table;

use super::Scope;
use super::sums::{in_minutes, in_scope};
use crate::difference::{NAMED, TableDifference, list};

/// Rows that differ: missing, extra, changed, each with the first keys.
#[derive(Debug, Default)]
pub(super) struct Found([(i64, Vec<String>); 3]);

impl Found {
    fn add(&mut self, sort: usize, key: String) {
        let (count, first) = &mut self.0[sort];
        *count += 1;
        if first.len() < NAMED {
            first.push(key);
        }
    }

    pub(super) fn into_difference(self, table: Table) -> TableDifference {
        TableDifference::new(table.name(), self.0)
    }
}

/// A row: its key and all of its columns, as text.
type Row = (String, String);

fn read<'c>(
    database: &'c mut PgConnection,
    sql: &'c str,
    scope: &'c Scope,
    minutes: &'c [i64],
) -> BoxStream<'c, sqlx::Result<Row>> {
    let query = sqlx::query_as(sql).bind(&scope.from).bind(&scope.to).bind(minutes);
    query.fetch(database).boxed()
}

/// Compares the rows of some minutes of one day; holds one row of each database at a time.
pub(super) async fn compare(
    a: &mut PgConnection,
    b: &mut PgConnection,
    table: Table,
    scope: &Scope,
    minutes: &BTreeSet<i64>,
    found: &mut Found,
) -> Result<()> {
    let sql = format!(
        "select row({key})::text, row({columns})::text from public.{name} t
         where {minutes} and {scope} order by row({key})::text collate \"C\"",
        key = list(table.key(), "t"),
        columns = list(table.columns(), "t"),
        name = table.name(),
        minutes = in_minutes(table, minutes),
        scope = in_scope(table),
    );
    let minutes: Vec<i64> = minutes.iter().copied().collect();
    let (mut a, mut b) = (read(a, &sql, scope, &minutes), read(b, &sql, scope, &minutes));
    let (mut of_a, mut of_b) = (a.try_next().await?, b.try_next().await?);
    loop {
        let order = match (&of_a, &of_b) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((key_a, _)), Some((key_b, _))) => key_a.cmp(key_b),
        };
        let left =
            if order.is_le() { std::mem::replace(&mut of_a, a.try_next().await?) } else { None };
        let right =
            if order.is_ge() { std::mem::replace(&mut of_b, b.try_next().await?) } else { None };
        match (left, right) {
            (Some((key, left)), Some((_, right))) if left != right => found.add(2, key),
            (Some((key, _)), None) => found.add(0, key),
            (None, Some((key, _))) => found.add(1, key),
            _ => {}
        }
    }
}
