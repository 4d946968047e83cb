//! Rows: what the ledger says was added, by table and day, is what the tables hold.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use sqlx::{PgConnection, Row};
use tapeline_stages::store::Table;

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
    let wanted: Vec<_> = auditor.wanted().map(|subject| subject.kind).collect();
    for table in
        Table::ALL.into_iter().filter(|table| table.kinds().any(|kind| wanted.contains(&kind)))
    {
        judge_table(database, table, cut, &mut check).await?;
    }
    Ok(check)
}

async fn judge_table(
    database: &mut PgConnection,
    table: Table,
    cut: &Cut,
    check: &mut Check,
) -> Result<()> {
    let mut held = held(database, table, cut.days).await?;
    let mut expected = Days::new();
    for kind in table.kinds() {
        add(&mut expected, ledger(database, kind.name()).await?, 1);
    }
    let name = table.name();
    add(&mut expected, beside(database, name, "tapeline_additions").await?, 1);
    let removed = beside(database, name, "tapeline_removals").await?;
    check.count("removed_by_lifecycle", removed.values().sum());
    add(&mut expected, removed, -1);
    if !table.keeps_time() {
        // A row moves to the day of what replaced it: only all days together can be compared.
        if cut.days != (None, None) {
            return Ok(());
        }
        for days in [&mut held, &mut expected] {
            *days = Days::from([(0, days.values().sum())]);
        }
    }
    let days: BTreeSet<i64> = held.keys().chain(expected.keys()).copied().collect();
    for day in days.into_iter().filter(|&day| is_within(day, cut.days)) {
        let rows = held.get(&day).copied().unwrap_or_default();
        let said = expected.get(&day).copied().unwrap_or_default();
        check.examined += rows;
        if rows != said {
            check.wrong(|| match table.keeps_time() {
                true => {
                    let day = day_name(day);
                    format!("{name} holds {rows} rows of {day}, the ledger added {said}")
                }
                false => format!("{name} holds {rows} rows, the ledger added {said}"),
            });
        }
    }
    Ok(())
}

fn add(days: &mut Days, more: Days, sign: i64) {
    for (day, rows) in more {
        *days.entry(day).or_default() += sign * rows;
    }
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
    table: Table,
    scope: (Option<i64>, Option<i64>),
) -> Result<Days> {
    let (table, time) = (table.name(), table.time());
    let sql = format!(
        "select (extract(epoch from day) / 86400)::bigint, rows from \
         (select date_bin('1 day', {time}::timestamptz, 'epoch') as day, count(*) as rows from {table} \
         where {} and $1 <> '' group by 1) as days",
        within(time, scope)
    );
    days(database, &sql, table).await
}

/// Rows that batches of any pipeline on this database added: a topic ends with its kind's name.
async fn ledger(database: &mut PgConnection, kind: &str) -> Result<Days> {
    let sql = "select (extract(epoch from (key || ' 00:00Z')::timestamptz) / 86400)::bigint, \
               sum(value::bigint)::bigint from tapeline_ledger, jsonb_each_text(by_day) \
               where topic ~ ('(^|[^a-z_])' || $1 || '$') group by 1";
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
