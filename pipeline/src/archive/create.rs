//! Archiving a day: rows out of the database, Parquet into the store, read back and compared.

use anyhow::{Context as _, Result, ensure};
use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;
use sqlx::PgConnection;
use tapeline_stages::failpoint;
use tokio::sync::mpsc;

use super::batch::DoesNotFit;
use super::columns::{ArchivedTable, ColumnType, quoted};
use super::day::Day;
use super::encode::{Encoded, Encoder};
use super::manifest::{ArchivedFile, Manifest};
use super::read;
use super::store::Store;
use super::tuples::{RowSum, TupleReader};

/// Bytes of the database's answer that are handed on at a time: it comes a row at a time.
const PIECE_BYTES: usize = 256 * 1024;
/// Pieces of the answer, and objects, that may wait (invariant 8).
const PIECES: usize = 16;
const OBJECTS: usize = 1;
/// Memory that the database may sort a day's rows in before it takes to the disk.
const SORT_MEMORY: &str = "256MB";

/// The statement for the rows of a day, in the archive's order.
fn select(table: &ArchivedTable, day: Day, ordered: bool) -> String {
    let order = if ordered { format!(" order by {}", table.order_list()) } else { String::new() };
    format!(
        "copy (select {columns} from {name} where {time} >= '{day}'::date::timestamp at time zone 'UTC'
         and {time} < '{next}'::date::timestamp at time zone 'UTC'{order}) to stdout (format binary)",
        columns = table.column_list(),
        name = quoted(&table.name),
        time = quoted(&table.time),
        next = day.next(),
    )
}

/// Writes a day into the archive and returns its manifest, after its objects were read back and compared.
pub(crate) async fn create(
    database: &mut PgConnection,
    store: &Store,
    kind: &str,
    table: &ArchivedTable,
    day: Day,
    generation: u32,
) -> Result<Manifest> {
    let mut table = table.clone();
    let files = loop {
        match write_files(database, store, kind, &table, day, generation).await {
            Ok(files) => break files,
            Err(error) => match error.downcast_ref::<DoesNotFit>() {
                Some(DoesNotFit(column)) => as_text(&mut table, column)?,
                None => return Err(error),
            },
        }
    };
    failpoint::hit("archive.before_manifest");
    let manifest = Manifest::new(kind, &table.name, day, generation, files);
    manifest.save(store).await?;
    failpoint::hit("archive.after_manifest");
    Ok(manifest)
}

fn as_text(table: &mut ArchivedTable, name: &str) -> Result<()> {
    let column = table.columns.iter_mut().find(|column| column.name == name);
    let column = column.context("a column that is not the table's")?;
    ensure!(column.kind == ColumnType::Decimal, "column {name} fits no Parquet type");
    column.kind = ColumnType::NumericText;
    Ok(())
}

async fn write_files(
    database: &mut PgConnection,
    store: &Store,
    kind: &str,
    table: &ArchivedTable,
    day: Day,
    generation: u32,
) -> Result<Vec<ArchivedFile>> {
    let (pieces, received) = mpsc::channel(PIECES);
    let (finished, mut objects) = mpsc::channel(OBJECTS);
    let encoder = Encoder::new(table, finished)?;
    let encoding = tokio::task::spawn_blocking(move || encoder.run(received));
    let reading = copy_out(database, select(table, day, true), pieces);
    // The receiver is this future's: where an upload fails, it goes, and the encoder ends.
    let uploading = async move {
        let mut files = Vec::new();
        while let Some(object) = objects.recv().await {
            files.push(upload(store, kind, day, generation, files.len(), object).await?);
        }
        Ok::<_, anyhow::Error>(files)
    };
    let (read, files) = tokio::join!(reading, uploading);
    let encoded = encoding.await?;
    // a failed upload stops the encoder, and what stopped the encoder stops the reading
    let files = files?;
    encoded?;
    read?;
    Ok(files)
}

async fn copy_out(
    database: &mut PgConnection,
    statement: String,
    pieces: mpsc::Sender<Bytes>,
) -> Result<()> {
    sqlx::query(&format!("set work_mem = '{SORT_MEMORY}'")).execute(&mut *database).await?;
    let mut rows = database.copy_out_raw(&statement).await?;
    let mut taken = true;
    let mut piece = BytesMut::with_capacity(2 * PIECE_BYTES);
    // read to the end even where nobody wants the rest: the connection is used again
    while let Some(row) = rows.try_next().await? {
        piece.extend_from_slice(&row);
        if piece.len() >= PIECE_BYTES {
            failpoint::hit("archive.reading");
            taken = taken && pieces.send(piece.split().freeze()).await.is_ok();
            piece.reserve(2 * PIECE_BYTES);
        }
    }
    failpoint::hit("archive.reading");
    taken = taken && pieces.send(piece.freeze()).await.is_ok();
    ensure!(taken, "the rows could not be encoded");
    drop(rows);
    sqlx::query("reset work_mem").execute(&mut *database).await?;
    Ok(())
}

async fn upload(
    store: &Store,
    kind: &str,
    day: Day,
    generation: u32,
    number: usize,
    object: Encoded,
) -> Result<ArchivedFile> {
    let exchange = match &object.exchange {
        Some(exchange) => format!("/exchange={}", escaped(exchange)),
        None => String::new(),
    };
    let path = format!("kind={kind}{exchange}/date={day}/{generation:03}-{number:04}.parquet");
    let file = ArchivedFile {
        path,
        exchange: object.exchange,
        bytes: object.body.len() as u64,
        sha256: read::sha256(&object.body),
        sum: object.sum,
        columns: object.columns,
    };
    store.put(&file.path, object.body).await?;
    failpoint::hit("archive.after_upload");
    // beside the encoding of the next one
    read::verify_file(store, &file)
        .await
        .context("what was written does not read back as it was")?;
    Ok(file)
}

/// A venue's name in a path: as Hive writes partition values.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

/// Number and sum of a day's rows as the database has them now.
pub(crate) async fn row_sum(
    database: &mut PgConnection,
    table: &ArchivedTable,
    day: Day,
) -> Result<RowSum> {
    let statement = select(table, day, false);
    let mut rows = database.copy_out_raw(&statement).await?;
    let (mut reader, mut fields, mut scratch) = (TupleReader::default(), Vec::new(), Vec::new());
    let mut sum = RowSum::default();
    while let Some(piece) = rows.try_next().await? {
        reader.feed(&piece);
        while reader.next(&mut fields)? {
            let row = fields.iter().map(|field| field.map(|range| reader.bytes(range)));
            sum.add_row(&table.columns, row, &mut scratch);
        }
    }
    drop(rows);
    reader.finish()?;
    Ok(sum)
}
