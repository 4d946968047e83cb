//! Rows: what the ledger says was added, by table and day, is what the tables hold.

use std::collections::BTreeMap;

use anyhow::Result;
use sqlx::{PgConnection, Row};

use super::Auditor;
use super::cut::Cut;
use super::report::Check;

/// Rows by day since the epoch.
type Days = BTreeMap<i64, i64>;

/// The name of a day since the epoch.
pub(super) fn day_name(day: i64) -> String {
    let (year, month, date) = tapeline_schemas::civil(day);
    format!("{year:04}-{month:02}-{date:02}")
}

/// The check over the tables of every kind in scope.
pub(super) async fn judge(
    database: &mut PgConnection,
    auditor: &Auditor,
    cut: &Cut,
) -> Result<Check> {
    let mut check = Check::new("ledger_to_tables");
    for subject in auditor.wanted() {
        let Some(table) = subject.kind.spec().table else { continue };
        let held = held(database, table, cut.days).await?;
        let mut expected = ledger(database, subject.kind.name()).await?;
        for (day, rows) in beside(database, table, "tapeline_additions").await? {
            *expected.entry(day).or_default() += rows;
        }
        for (day, rows) in beside(database, table, "tapeline_removals").await? {
            *expected.entry(day).or_default() -= rows;
            check.count("removed_by_lifecycle", rows);
        }
        let days: std::collections::BTreeSet<i64> =
            held.keys().chain(expected.keys()).copied().collect();
        for day in days.into_iter().filter(|&day| is_within(day, cut.days)) {
            let rows = held.get(&day).copied().unwrap_or_default();
            let said = expected.get(&day).copied().unwrap_or_default();
            check.examined += rows;
            if rows != said {
                check.wrong(|| {
                    let day = day_name(day);
                    format!("{table} holds {rows} rows of {day}, the ledger added {said}")
                });
            }
        }
    }
    Ok(check)
}

/// Whether a day is in scope.
pub(super) fn is_within(day: i64, (from, to): (Option<i64>, Option<i64>)) -> bool {
    from.is_none_or(|from| from <= day) && to.is_none_or(|to| day < to)
}

/// A condition on a time column, as literals: the planner then leaves out the other chunks.
pub(super) fn within(column: &str, (from, to): (Option<i64>, Option<i64>)) -> String {
    let edge = |day: Option<i64>, order: &str| {
        day.map(|day| format!(" and {column} {order} to_timestamp({})", day * 86_400))
    };
    format!("true{}{}", edge(from, ">=").unwrap_or_default(), edge(to, "<").unwrap_or_default())
}

async fn days(database: &mut PgConnection, sql: &str, argument: &str) -> Result<Days> {
    let rows = sqlx::query(sql).bind(argument).fetch_all(database).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Rows of a table.
async fn held(
    database: &mut PgConnection,
    table: &str,
    scope: (Option<i64>, Option<i64>),
) -> Result<Days> {
    let time = if table == "market_data_gaps" { "from_time" } else { "time" };
    let sql = format!(
        "select (extract(epoch from day) / 86400)::bigint, rows from \
         (select date_bin('1 day', {time}, 'epoch') as day, count(*) as rows from {table} \
         where {} and $1 <> '' group by 1) as days",
        within(time, scope)
    );
    days(database, &sql, table).await
}

/// Rows that batches of any pipeline on this database added: a topic ends with its kind's name,
/// and one table takes a kind.
async fn ledger(database: &mut PgConnection, kind: &str) -> Result<Days> {
    let sql = "select (extract(epoch from (key || ' 00:00Z')::timestamptz) / 86400)::bigint, \
               sum(value::bigint)::bigint from tapeline_ledger, jsonb_each_text(by_day) \
               where right(topic, length($1)) = $1 group by 1";
    days(database, sql, kind).await
}

/// Rows that came or went beside the store.
async fn beside(database: &mut PgConnection, table: &str, from: &str) -> Result<Days> {
    let sql = format!(
        "select (day - date '1970-01-01')::bigint, sum(rows)::bigint from {from} \
         where table_name = $1 group by 1"
    );
    days(database, &sql, table).await
}
