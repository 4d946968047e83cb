//! From the staging table into the real one, by the table's rule about keys that are there.

use super::connection::Session;
use super::copy::{Merged, quoted};
use super::error::Failure;
use crate::store::{CopyBuffers, Rule, Spec, Table};

/// Name of a table's staging table.
pub(super) fn staging(table: Table) -> String {
    format!("tapeline_staging_{}", table.name().trim_start_matches("market_data_"))
}

fn equal(columns: &[&str], left: &str, right: &str) -> String {
    let pairs: Vec<String> = columns
        .iter()
        .map(|column| format!("{left}.\"{column}\" = {right}.\"{column}\""))
        .collect();
    pairs.join(" and ")
}

fn prefixed(columns: &[&str], prefix: &str) -> String {
    let columns: Vec<String> =
        columns.iter().map(|column| format!("{prefix}.\"{column}\"")).collect();
    columns.join(", ")
}

fn height(spec: &Spec, row: &str) -> String {
    spec.height.replace("{}", row)
}

/// Rows whose key is there are dropped; of several in the batch the first one is taken.
fn insert_first(table: Table) -> String {
    let spec = table.spec();
    format!(
        "insert into {name} ({columns})
        select {columns} from {staging} order by {key}, row_no
        on conflict do nothing",
        name = spec.name,
        columns = quoted(spec.columns),
        staging = staging(table),
        key = quoted(spec.key),
    )
}

/// A row replaces one with its key if it goes further; of several in the batch the furthest one.
fn upsert_higher(table: Table) -> (String, String) {
    let spec = table.spec();
    let key = quoted(spec.key);
    let best = format!(
        "select distinct on ({key}) * from {staging} s order by {key}, {height} desc, row_no",
        staging = staging(table),
        height = height(spec, "s"),
    );
    let rest: Vec<String> = spec
        .columns
        .iter()
        .filter(|column| !spec.key.contains(column))
        .map(|column| format!("\"{column}\" = excluded.\"{column}\""))
        .collect();
    let upsert = format!(
        "insert into {name} as t ({columns}) select {columns} from best
        on conflict ({key}) do update set {set} where {new} > {old}
        returning {returned}",
        name = spec.name,
        columns = quoted(spec.columns),
        set = rest.join(", "),
        new = height(spec, "excluded"),
        old = height(spec, "t"),
        returned = prefixed(spec.key, "t"),
    );
    (best, upsert)
}

/// Only writes; for finding rows that cannot be written.
pub(super) async fn insert(
    session: &mut Session,
    out: &CopyBuffers,
    table: Table,
) -> Result<(), Failure> {
    match table.spec().rule {
        Rule::First => session.run(&insert_first(table)).await,
        Rule::Higher => merge(session, out, table).await.map(drop),
    }
}

/// Writes and tells what became of each row.
pub(super) async fn merge(
    session: &mut Session,
    out: &CopyBuffers,
    table: Table,
) -> Result<Merged, Failure> {
    match table.spec().rule {
        Rule::First => merge_first(session, out, table).await,
        Rule::Higher => merge_higher(session, table).await,
    }
}

async fn merge_first(
    session: &mut Session,
    out: &CopyBuffers,
    table: Table,
) -> Result<Merged, Failure> {
    let spec = table.spec();
    let sql = format!(
        "with added as ({insert} returning {identity})
        select s.row_no from (
            select row_no, {identity}, row_number() over (partition by {identity} order by row_no) as nth
            from {staging}
        ) as s
        where s.nth > 1 or not exists (select from added where {same})",
        insert = insert_first(table),
        identity = quoted(spec.identity),
        staging = staging(table),
        same = equal(spec.identity, "added", "s"),
    );
    let dropped: Vec<(i32,)> = session.rows(sqlx::query_as(&sql)).await?;
    let dropped: Vec<i32> = dropped.into_iter().map(|(row,)| row).collect();
    if dropped.is_empty() {
        return Ok(Merged::default());
    }
    let conflicts = conflicts(session, out, table, &dropped).await?;
    let dropped = dropped.into_iter().map(|row| (row as usize, conflicts.contains(&row))).collect();
    Ok(Merged { dropped, replaced: Vec::new() })
}

/// Which of the dropped rows say something else than the row with their key.
async fn conflicts(
    session: &mut Session,
    out: &CopyBuffers,
    table: Table,
    dropped: &[i32],
) -> Result<std::collections::HashSet<i32>, Failure> {
    let spec = table.spec();
    let buffer = out.table(table);
    let times = || dropped.iter().map(|&row| buffer.rows()[row as usize].time.0);
    let bounds = [times().min(), times().max()].map(Option::unwrap_or_default);
    // Bounds that the planner sees: chunks outside of them are not looked at. The limit keeps it from
    // a join that reads the whole table to look up a few rows: each is found by its key.
    let sql = format!(
        "select s.row_no from {staging} s cross join lateral (
            select ({theirs}) is distinct from ({ours}) as differs from {name} t
            where {same} and t.\"{time}\" between {oldest} and {newest} limit 1
        ) as found
        where s.row_no = any($1) and found.differs",
        staging = staging(table),
        name = spec.name,
        same = equal(spec.key, "s", "t"),
        ours = prefixed(spec.content, "s"),
        theirs = prefixed(spec.content, "t"),
        time = spec.time,
        oldest = moment(bounds[0]),
        newest = moment(bounds[1]),
    );
    let query = sqlx::query_as::<_, (i32,)>(&sql).bind(dropped).persistent(false);
    Ok(session.rows(query).await?.into_iter().map(|(row,)| row).collect())
}

/// A literal for a moment: whole seconds and microseconds apart, so that no digit is lost.
fn moment(micros: i64) -> String {
    format!(
        "(to_timestamp({}) + interval '{} microseconds')",
        micros.div_euclid(1_000_000),
        micros.rem_euclid(1_000_000)
    )
}

async fn merge_higher(session: &mut Session, table: Table) -> Result<Merged, Failure> {
    let spec = table.spec();
    let (best, upsert) = upsert_higher(table);
    let sql = format!(
        "with best as ({best}),
        present as (
            select b.row_no from best b cross join lateral (
                select from {name} t where {present} limit 1
            ) as found
        ),
        written as ({upsert})
        select s.row_no, w.row_no is not null, p.row_no is not null
        from {staging} s
        left join (select b.row_no from best b join written on {same}) w on w.row_no = s.row_no
        left join present p on p.row_no = s.row_no",
        name = spec.name,
        present = equal(spec.key, "b", "t"),
        staging = staging(table),
        same = equal(spec.key, "b", "written"),
    );
    let rows: Vec<(i32, bool, bool)> = session.rows(sqlx::query_as(&sql)).await?;
    let mut merged = Merged::default();
    for (row, written, present) in rows {
        match (written, present) {
            (true, true) => merged.replaced.push(row as usize),
            (true, false) => {}
            (false, _) => merged.dropped.push((row as usize, false)),
        }
    }
    Ok(merged)
}
