//! Rows of a table as fast as it gives them: chunk by chunk, on several connections at once.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, bail, ensure};
use futures_util::TryStreamExt as _;
use sqlx::{Connection as _, PgConnection};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::columns::{ArchivedTable, Column};
use super::export::{Exporter, Format, Lines};
use super::read::Wanted;
use super::tuples::TupleReader;

/// Connections, and blocks of lines that may wait (invariant 8).
const CONNECTIONS: usize = 2;
const BLOCKS: usize = 8;
const BLOCK_BYTES: usize = 256 * 1024;

/// The range of what is wanted, cut where the table's chunks end.
pub(super) async fn ranges(
    database: &mut PgConnection,
    table: &ArchivedTable,
    wanted: &Wanted,
) -> Result<Vec<Wanted>> {
    let ends: Vec<i64> = sqlx::query_scalar(
        "select distinct (extract(epoch from range_end) * 1000000)::bigint as cut
         from timescaledb_information.chunks
         where hypertable_schema = current_schema() and hypertable_name = $1 order by cut",
    )
    .bind(&table.name)
    .fetch_all(&mut *database)
    .await?;
    let mut ranges = Vec::new();
    let mut rest = wanted.clone();
    for end in ends {
        let inside = rest.from.is_none_or(|from| end > from) && rest.to.is_none_or(|to| end < to);
        if inside {
            ranges.push(Wanted { to: Some(end), ..rest.clone() });
            rest.from = Some(end);
        }
    }
    ranges.push(rest);
    Ok(ranges)
}

/// Writes the rows of `statements`, each a binary COPY, as lines; returns their number.
pub(super) async fn lines<W: Write + Send>(
    url: &str,
    statements: Vec<String>,
    columns: &[Column],
    format: Format,
    exporter: &mut Exporter<W>,
) -> Result<u64> {
    ensure!(format != Format::Parquet, "rows without an order are written as CSV or JSON");
    let (blocks, mut received) = mpsc::channel::<Vec<u8>>(BLOCKS);
    let (statements, next) = (Arc::new(statements), Arc::new(AtomicUsize::new(0)));
    let columns: Arc<[Column]> = columns.into();
    let mut readers = JoinSet::new();
    for _ in 0..CONNECTIONS.min(statements.len()) {
        let mut database = PgConnection::connect(url).await?;
        let (statements, next) = (Arc::clone(&statements), Arc::clone(&next));
        let (columns, blocks) = (Arc::clone(&columns), blocks.clone());
        readers.spawn(async move {
            let mut rows = 0;
            while let Some(statement) = statements.get(next.fetch_add(1, Ordering::Relaxed)) {
                rows += read(&mut database, statement, &columns, format, &blocks).await?;
            }
            Ok::<u64, anyhow::Error>(rows)
        });
    }
    drop(blocks);
    while let Some(block) = received.recv().await {
        exporter.write_lines(&block)?;
    }
    let mut rows = 0;
    while let Some(read) = readers.join_next().await {
        rows += read??;
    }
    Ok(rows)
}

async fn read(
    database: &mut PgConnection,
    statement: &str,
    columns: &[Column],
    format: Format,
    blocks: &mpsc::Sender<Vec<u8>>,
) -> Result<u64> {
    let mut answer = database.copy_out_raw(statement).await?;
    let (mut reader, mut fields, mut lines) =
        (TupleReader::default(), Vec::new(), Lines::default());
    let mut rows = 0;
    while let Some(piece) = answer.try_next().await? {
        reader.feed(&piece);
        while reader.next(&mut fields)? {
            let bytes = fields.iter().map(|field| field.map(|range| reader.bytes(range)));
            match format {
                Format::Json => lines.json(columns, bytes)?,
                _ => lines.csv(columns, bytes)?,
            }
            rows += 1;
        }
        if let Some(block) = lines.take(BLOCK_BYTES)
            && blocks.send(block).await.is_err()
        {
            bail!("the lines cannot be written");
        }
    }
    reader.finish()?;
    if let Some(block) = lines.take(1)
        && blocks.send(block).await.is_err()
    {
        bail!("the lines cannot be written");
    }
    Ok(rows)
}
