//! Rows of a time range, wherever they are: in the table, or only in the archive (O6, S1).

use std::collections::HashSet;
use std::io::Write;

use anyhow::{Result, ensure};
use futures_util::TryStreamExt as _;
use sqlx::{Executor as _, PgConnection};

use super::batch::put_row;
use super::columns::{ArchivedTable, Column, ColumnType, quoted};
use super::day::Day;
use super::export::{Exporter, Format};
use super::manifest::Manifest;
use super::read::{Wanted, batches, fetch};
use super::restore::{Restore, kept};
use super::store::Store;
use super::tuples::{RowSum, TupleReader};
use super::unordered;

/// A question for rows.
#[derive(Debug, Clone)]
pub struct Query {
    /// Kind of events.
    pub kind: String,
    /// Table they are in.
    pub table: String,
    /// Only this venue.
    pub exchange: Option<String>,
    /// The range, and the symbol.
    pub wanted: Wanted,
    /// Rows at most.
    pub limit: Option<u64>,
    /// Rows in the order in which the table gives them, by several connections to this URL: faster.
    /// Without a limit, as lines (CSV, JSON).
    pub unordered: Option<String>,
}

/// Where the rows of an answer came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answered {
    /// Rows from the table.
    pub from_table: u64,
    /// Rows from the archive.
    pub from_archive: u64,
    /// Days that were read from the archive.
    pub archived_days: Vec<Day>,
}

/// Writes the rows to `out`: first what only the archive holds, by day, then the table's.
/// Without a store, only the table is asked. `database` is in a transaction that has not read yet (`database::reader`).
pub async fn query(
    database: &mut PgConnection,
    store: Option<&Store>,
    query: &Query,
    format: Format,
    out: impl Write + Send,
) -> Result<Answered> {
    // Before the first snapshot is taken: no chunk is dropped between what says that it is gone and what reads it.
    let lock = format!("lock table {} in access share mode", quoted(&query.table));
    database.execute(lock.as_str()).await?;
    let table = ArchivedTable::load(database, &query.table).await?;
    let has = |column: &str| table.index_of(column).is_some();
    ensure!(
        query.wanted.symbol.is_none() || has("symbol"),
        "rows of {} have no symbol",
        query.kind
    );
    ensure!(query.exchange.is_none() || has("exchange"), "rows of {} have no venue", query.kind);
    let mut writer = Writer {
        exporter: Exporter::new(format, out),
        left: query.limit.unwrap_or(u64::MAX),
        archived: HashSet::new(),
        columns: text_columns(&table),
    };
    writer.exporter.begin(&writer.columns)?;
    let mut answered = Answered::default();
    if let Some(store) = store {
        for manifest in removed_days(database, store, query).await? {
            if writer.left == 0 {
                break;
            }
            answered.from_archive +=
                from_archive(store, &table, &manifest, query, &mut writer).await?;
            answered.archived_days.push(manifest.day);
        }
    }
    let plain = writer.archived.is_empty() && writer.left == u64::MAX;
    answered.from_table = match &query.unordered {
        // rows that were told already are only found one by one
        Some(url) if plain => {
            let ranges = unordered::ranges(database, &table, &query.wanted).await?;
            let before = removals(database, &query.table).await?;
            // The others would wait behind who waits for this lock.
            database.execute("commit").await?;
            let statements = ranges
                .into_iter()
                .map(|wanted| statement(&table, &Query { wanted, ..query.clone() }, false));
            let statements = statements.collect();
            let rows =
                unordered::lines(url, statements, &writer.columns, format, &mut writer.exporter)
                    .await?;
            // in a transaction again, for poolers
            database.execute("begin read only").await?;
            ensure!(
                removals(database, &query.table).await? == before,
                "lifecycle removed days while rows were read: ask again"
            );
            rows
        }
        _ => from_table(database, &table, query, &mut writer).await?,
    };
    writer.exporter.finish()?;
    Ok(answered)
}

/// Archived days of the range whose rows are no longer in the table, or not all.
async fn removed_days(
    database: &mut PgConnection,
    store: &Store,
    query: &Query,
) -> Result<Vec<Manifest>> {
    let removed = removals(database, &query.table).await?;
    let removed: HashSet<Day> = removed.iter().filter_map(|day| day.parse().ok()).collect();
    let first = query.wanted.from.map_or(Day(i32::MIN), Day::of_micros);
    let last = query.wanted.to.map_or(Day(i32::MAX), |to| Day::of_micros(to - 1));
    if !removed.iter().any(|day| (first..=last).contains(day)) {
        return Ok(Vec::new());
    }
    let mut manifests = of_range(query, (first, last)).manifests(store).await?;
    manifests.retain(|manifest| removed.contains(&manifest.day));
    Ok(manifests)
}

/// Days of which rows were removed.
async fn removals(database: &mut PgConnection, table: &str) -> Result<Vec<String>> {
    let days = "select distinct day::text from tapeline_removals where table_name = $1 order by 1";
    Ok(sqlx::query_scalar(days).bind(table).fetch_all(database).await?)
}

fn of_range(query: &Query, days: (Day, Day)) -> Restore {
    Restore {
        kind: query.kind.clone(),
        table: query.table.clone(),
        days,
        exchange: query.exchange.clone(),
        wanted: query.wanted.clone(),
    }
}

/// Numbers as text, so that an answer looks the same from wherever it comes.
fn text_columns(table: &ArchivedTable) -> Vec<Column> {
    let mut columns = table.columns.clone();
    for column in &mut columns {
        if column.kind == ColumnType::Decimal {
            column.kind = ColumnType::NumericText;
        }
    }
    columns
}

struct Writer<W: Write + Send> {
    exporter: Exporter<W>,
    left: u64,
    /// Rows written from the archive: one that was restored is in the table too.
    archived: HashSet<u128>,
    columns: Vec<Column>,
}

async fn from_archive<W: Write + Send>(
    store: &Store,
    table: &ArchivedTable,
    manifest: &Manifest,
    query: &Query,
    writer: &mut Writer<W>,
) -> Result<u64> {
    let mut written = 0;
    let (mut tuple, mut fields, mut scratch) = (Vec::new(), Vec::new(), Vec::new());
    let days = (manifest.day, manifest.day);
    for file in of_range(query, days).files(manifest) {
        let body = fetch(store, file).await?;
        for batch in batches(file, &table.time, body, &query.wanted)? {
            let batch = batch?;
            for row in kept(&file.columns, &table.time, &batch, &query.wanted) {
                if writer.left == 0 {
                    break;
                }
                tuple.clear();
                put_row(&file.columns, &batch, row, &mut tuple, &mut fields)?;
                let bytes =
                    || fields.iter().map(|field| field.map(|(start, end)| &tuple[start..end]));
                let mut sum = RowSum::default();
                sum.add_row(&file.columns, bytes(), &mut scratch);
                writer.archived.insert(sum.checksum);
                writer.exporter.push(&writer.columns, bytes())?;
                writer.left -= 1;
                written += 1;
            }
        }
    }
    Ok(written)
}

fn statement(table: &ArchivedTable, query: &Query, ordered: bool) -> String {
    let literal = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let moment = |micros: i64| {
        format!("(timestamptz '1970-01-01 00:00:00+00' + {micros} * interval '1 microsecond')")
    };
    let time = quoted(&table.time);
    let mut conditions = vec!["true".to_owned()];
    conditions.extend(query.wanted.symbol.as_deref().map(|s| format!("symbol = {}", literal(s))));
    conditions.extend(query.exchange.as_deref().map(|e| format!("exchange = {}", literal(e))));
    conditions.extend(query.wanted.from.map(|from| format!("{time} >= {}", moment(from))));
    conditions.extend(query.wanted.to.map(|to| format!("{time} < {}", moment(to))));
    let limit = query.limit.map(|limit| format!(" limit {limit}")).unwrap_or_default();
    let order =
        if ordered { format!(" order by {time}, {}", table.order_list()) } else { String::new() };
    format!(
        "copy (select {} from {} where {}{order}{limit}) to stdout (format binary)",
        table.column_list(),
        quoted(&table.name),
        conditions.join(" and "),
    )
}

async fn from_table<W: Write + Send>(
    database: &mut PgConnection,
    table: &ArchivedTable,
    query: &Query,
    writer: &mut Writer<W>,
) -> Result<u64> {
    let statement = statement(table, query, true);
    let mut answer = database.copy_out_raw(&statement).await?;
    let (mut reader, mut fields, mut scratch) = (TupleReader::default(), Vec::new(), Vec::new());
    let mut written = 0;
    while let Some(piece) = answer.try_next().await? {
        reader.feed(&piece);
        while reader.next(&mut fields)? {
            let bytes = || fields.iter().map(|field| field.map(|range| reader.bytes(range)));
            let mut sum = RowSum::default();
            if !writer.archived.is_empty() {
                sum.add_row(&writer.columns, bytes(), &mut scratch);
            }
            if writer.left == 0 || writer.archived.contains(&sum.checksum) {
                continue;
            }
            writer.exporter.push(&writer.columns, bytes())?;
            writer.left -= 1;
            written += 1;
        }
    }
    drop(answer);
    reader.finish()?;
    Ok(written)
}
