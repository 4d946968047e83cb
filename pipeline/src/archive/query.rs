//! Rows of a time range, wherever they are: in the table, or only in the archive (O6, S1).

use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;

use anyhow::Result;
use arrow_array::RecordBatch;
use futures_util::TryStreamExt as _;
use sqlx::PgConnection;

use super::batch::{BatchBuilder, put_row};
use super::columns::{ArchivedTable, Column, ColumnType, arrow_schema, quoted};
use super::day::Day;
use super::export::{Exporter, Format};
use super::manifest::Manifest;
use super::read::{Wanted, batches, fetch};
use super::restore::{Restore, kept};
use super::store::Store;
use super::tuples::{RowSum, TupleReader};

const BATCH_ROWS: usize = 8_192;

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
/// Without a store, only the table is asked.
pub async fn query(
    database: &mut PgConnection,
    store: Option<&Store>,
    query: &Query,
    format: Format,
    out: impl Write + Send,
) -> Result<Answered> {
    let table = ArchivedTable::load(database, &query.table).await?;
    let mut writer = Writer {
        exporter: Exporter::new(format, out),
        left: query.limit.unwrap_or(u64::MAX),
        archived: HashSet::new(),
        columns: text_columns(&table),
    };
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
    answered.from_table = from_table(database, &table, query, &mut writer).await?;
    writer.exporter.finish()?;
    Ok(answered)
}

/// Archived days of the range whose rows are no longer in the table, or not all.
async fn removed_days(
    database: &mut PgConnection,
    store: &Store,
    query: &Query,
) -> Result<Vec<Manifest>> {
    let removed: Vec<String> = sqlx::query_scalar(
        "select distinct day::text from tapeline_removals where table_name = $1 order by 1",
    )
    .bind(&query.table)
    .fetch_all(&mut *database)
    .await?;
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
            let mut rows = BatchBuilder::new(&writer.columns, arrow_schema(&writer.columns))?;
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
                rows.push(&writer.columns, bytes())?;
                writer.left -= 1;
                written += 1;
            }
            writer.write(&mut rows)?;
        }
    }
    Ok(written)
}

impl<W: Write + Send> Writer<W> {
    fn write(&mut self, rows: &mut BatchBuilder) -> Result<()> {
        let count = rows.rows();
        if count == 0 {
            return Ok(());
        }
        let batch: RecordBatch = rows.finish()?;
        let all: Vec<usize> = (0..count).collect();
        self.exporter.write(&self.columns, &batch, &all)
    }
}

fn statement(table: &ArchivedTable, query: &Query) -> String {
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
    format!(
        "copy (select {} from {} where {} order by {time}, {}{limit}) to stdout (format binary)",
        table.column_list(),
        quoted(&table.name),
        conditions.join(" and "),
        table.order_list(),
    )
}

async fn from_table<W: Write + Send>(
    database: &mut PgConnection,
    table: &ArchivedTable,
    query: &Query,
    writer: &mut Writer<W>,
) -> Result<u64> {
    let statement = statement(table, query);
    let mut answer = database.copy_out_raw(&statement).await?;
    let (mut reader, mut fields, mut scratch) = (TupleReader::default(), Vec::new(), Vec::new());
    let schema = arrow_schema(&writer.columns);
    let mut rows = BatchBuilder::new(&writer.columns, Arc::clone(&schema))?;
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
            rows.push(&writer.columns, bytes())?;
            writer.left -= 1;
            written += 1;
            if rows.rows() >= BATCH_ROWS {
                writer.write(&mut rows)?;
            }
        }
    }
    drop(answer);
    reader.finish()?;
    writer.write(&mut rows)?;
    Ok(written)
}
