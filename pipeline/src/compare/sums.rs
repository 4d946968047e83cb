//! Counts and checksums of the rows of days and minutes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use sqlx::PgConnection;
use tapeline_stages::store::Table;

use super::Scope;
use crate::difference::list;

/// Number and checksum of the rows of each bucket, which is a number of days or minutes since 1970.
pub(super) type Sums = BTreeMap<i64, (i64, String)>;

const DAY_SECONDS: i64 = 86_400;
const MINUTE_SECONDS: i64 = 60;

/// Which bucket a row `t` is in.
fn bucket(table: Table, seconds: i64) -> String {
    format!("floor(extract(epoch from t.\"{}\") / {seconds})::bigint", table.time())
}

/// What limits rows `t` to the scope: its ends are parameters `$1` and `$2`.
pub(super) fn in_scope(table: Table) -> String {
    let time = table.time();
    format!(
        "($1::timestamptz is null or t.\"{time}\" >= $1::timestamptz)
         and ($2::timestamptz is null or t.\"{time}\" < $2::timestamptz)"
    )
}

/// What limits rows `t` to some minutes, `$3`, which are of one day.
pub(super) fn in_minutes(table: Table, minutes: &BTreeSet<i64>) -> String {
    let first = minutes.first().map_or(0, |minute| minute * MINUTE_SECONDS);
    let last = minutes.last().map_or(0, |minute| (minute + 1) * MINUTE_SECONDS);
    format!("{} and {} = any($3)", between(table, first, last), bucket(table, MINUTE_SECONDS))
}

/// Said of the time itself, so that chunks outside are not read.
fn between(table: Table, first: i64, last: i64) -> String {
    let time = table.time();
    format!("t.\"{time}\" >= to_timestamp({first}) and t.\"{time}\" < to_timestamp({last})")
}

/// Sums of days.
pub(super) async fn days(database: &mut PgConnection, table: Table, scope: &Scope) -> Result<Sums> {
    sums(database, table, scope, DAY_SECONDS, "true".to_owned()).await
}

/// Sums of the minutes of a day.
pub(super) async fn minutes(
    database: &mut PgConnection,
    table: Table,
    scope: &Scope,
    day: i64,
) -> Result<Sums> {
    let (first, last) = (day * DAY_SECONDS, (day + 1) * DAY_SECONDS);
    sums(database, table, scope, MINUTE_SECONDS, between(table, first, last)).await
}

async fn sums(
    database: &mut PgConnection,
    table: Table,
    scope: &Scope,
    seconds: i64,
    condition: String,
) -> Result<Sums> {
    let sql = format!(
        "select {bucket}, count(*), sum(('x' || left(md5(row({columns})::text), 16))::bit(64)::bigint)::text
         from public.{name} t where {condition} and {scope} group by 1",
        bucket = bucket(table, seconds),
        columns = list(table.columns(), "t"),
        name = table.name(),
        scope = in_scope(table),
    );
    let rows: Vec<(i64, i64, String)> =
        sqlx::query_as(&sql).bind(&scope.from).bind(&scope.to).fetch_all(database).await?;
    Ok(rows.into_iter().map(|(bucket, rows, sum)| (bucket, (rows, sum))).collect())
}

/// Buckets that are not the same in both.
pub(super) fn differing(a: &Sums, b: &Sums) -> BTreeSet<i64> {
    let buckets = a.keys().chain(b.keys());
    buckets.filter(|bucket| a.get(*bucket) != b.get(*bucket)).copied().collect()
}

/// Number of rows.
pub(super) fn rows(sums: &Sums) -> i64 {
    sums.values().map(|(rows, _)| rows).sum()
}
