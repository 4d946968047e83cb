//! From the archive back into the table, or into a file.

use std::io::Write;

use anyhow::{Context as _, Result, bail, ensure};
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, RecordBatch};
use sqlx::{Executor, PgConnection};
use tapeline_stages::store::{HEADER, TRAILER};
use tokio::sync::mpsc;

use super::batch::put_row;
use super::columns::{ArchivedTable, Column, quoted};
use super::day::Day;
use super::export::{Exporter, Format};
use super::manifest::{ArchivedFile, Manifest};
use super::read::{Wanted, batches, fetch};
use super::store::Store;

/// Bytes sent to the database at a time, and pieces that may wait.
const PIECE_BYTES: usize = 256 * 1024;
const PIECES: usize = 16;
/// SQLSTATE of a row whose key is there.
const UNIQUE_VIOLATION: &str = "23505";

/// What to restore.
#[derive(Debug, Clone)]
pub struct Restore {
    /// Kind of events.
    pub kind: String,
    /// Table they belong to.
    pub table: String,
    /// First and last UTC day.
    pub days: (Day, Day),
    /// Only this venue.
    pub exchange: Option<String>,
    /// What of the days.
    pub wanted: Wanted,
}

/// What became of a restore.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Restored {
    /// Archived days found.
    pub days: u32,
    /// Rows of the archive that were wanted.
    pub rows: u64,
    /// Rows that were not in the table yet.
    pub added: u64,
}

/// Rows of a batch that are wanted.
pub(super) fn kept(
    columns: &[Column],
    time: &str,
    batch: &RecordBatch,
    wanted: &Wanted,
) -> Vec<usize> {
    let index = |name: &str| columns.iter().position(|column| column.name == name);
    let symbols = index("symbol").map(|index| batch.column(index).as_string::<i32>());
    let times =
        index(time).map(|index| batch.column(index).as_primitive::<TimestampMicrosecondType>());
    (0..batch.num_rows())
        .filter(|&row| {
            let symbol = match (&wanted.symbol, &symbols) {
                (Some(symbol), Some(column)) => column.is_valid(row) && column.value(row) == symbol,
                (Some(_), None) => false,
                (None, _) => true,
            };
            let time = times.as_ref().map(|times| times.value(row)).unwrap_or_default();
            symbol
                && wanted.from.is_none_or(|from| time >= from)
                && wanted.to.is_none_or(|to| time < to)
        })
        .collect()
}

impl Restore {
    /// The archived days that are asked for, each as the newest manifest has it.
    pub(super) async fn manifests(&self, store: &Store) -> Result<Vec<Manifest>> {
        let mut found: Vec<Manifest> = Vec::new();
        for manifest in Manifest::all(store, Some(&self.kind)).await? {
            if !(self.days.0..=self.days.1).contains(&manifest.day) {
                continue;
            }
            ensure!(
                manifest.table == self.table,
                "the archive of {} is of table {}",
                self.kind,
                manifest.table
            );
            match found.last_mut() {
                Some(last) if last.day == manifest.day => *last = manifest,
                _ => found.push(manifest),
            }
        }
        Ok(found)
    }

    pub(super) fn files<'m>(
        &self,
        manifest: &'m Manifest,
    ) -> impl Iterator<Item = &'m ArchivedFile> {
        let exchange = self.exchange.clone();
        manifest.files.iter().filter(move |file| exchange.is_none() || file.exchange == exchange)
    }
}

/// Puts archived rows back into their table. Rows that are there stay as they are; doing it
/// again adds nothing.
pub async fn restore(
    database: &mut PgConnection,
    store: &Store,
    pipeline: &str,
    what: &Restore,
) -> Result<Restored> {
    let table = ArchivedTable::load(database, &what.table).await?;
    ensure!(
        what.wanted.symbol.is_none() || table.index_of("symbol").is_some(),
        "rows of {} have no symbol",
        what.kind
    );
    let mut restored = Restored::default();
    for manifest in what.manifests(store).await? {
        let (rows, added) = restore_day(database, store, pipeline, &table, &manifest, what).await?;
        restored.days += 1;
        restored.rows += rows;
        restored.added += added;
    }
    ensure!(
        restored.days > 0,
        "the archive at {} has nothing of {} from {} to {}",
        store.shown(),
        what.kind,
        what.days.0,
        what.days.1
    );
    Ok(restored)
}

/// One day, in one transaction: its rows, and their place in the books.
pub(crate) async fn restore_day(
    database: &mut PgConnection,
    store: &Store,
    pipeline: &str,
    table: &ArchivedTable,
    manifest: &Manifest,
    what: &Restore,
) -> Result<(u64, u64)> {
    for file in &manifest.files {
        let known = file.columns.iter().all(|column| table.index_of(&column.name).is_some());
        ensure!(known, "{}: its columns are not those of table {}", file.path, table.name);
    }
    let range = format!(
        "{time} >= '{day}'::date::timestamp at time zone 'UTC' and {time} < '{next}'::date::timestamp at time zone 'UTC'",
        time = quoted(&table.time),
        day = manifest.day,
        next = manifest.day.next(),
    );
    let there: bool = sqlx::query_scalar(&format!(
        "select exists (select from {} where {range})",
        quoted(&table.name)
    ))
    .fetch_one(&mut *database)
    .await?;
    // an empty day is copied straight in; where a row comes in between, the careful way is taken
    if !there {
        match in_transaction(database, store, pipeline, table, manifest, what, false).await {
            Err(error) if is_duplicate(&error) => {}
            done => return done,
        }
    }
    in_transaction(database, store, pipeline, table, manifest, what, true).await
}

fn is_duplicate(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<sqlx::Error>()).any(|error| {
        error.as_database_error().and_then(|error| error.code()).as_deref()
            == Some(UNIQUE_VIOLATION)
    })
}

async fn in_transaction(
    database: &mut PgConnection,
    store: &Store,
    pipeline: &str,
    table: &ArchivedTable,
    manifest: &Manifest,
    what: &Restore,
    careful: bool,
) -> Result<(u64, u64)> {
    database.execute("begin").await?;
    let done = async {
        let (mut rows, mut added) = (0, 0);
        for file in what.files(manifest) {
            let (copied, new) = restore_file(database, store, table, file, what, careful).await?;
            rows += copied;
            added += new;
        }
        account(database, pipeline, table, manifest, added).await?;
        database.execute("commit").await?;
        Ok((rows, added))
    }
    .await;
    if done.is_err() {
        // The first error says why; a connection that is gone has rolled back by itself.
        let _ = database.execute("rollback").await;
    }
    done
}

async fn account(
    database: &mut PgConnection,
    pipeline: &str,
    table: &ArchivedTable,
    manifest: &Manifest,
    added: u64,
) -> Result<()> {
    if added == 0 {
        return Ok(());
    }
    let added = i64::try_from(added)?;
    sqlx::query(
        "insert into tapeline_additions as a (pipeline, table_name, day, rows) values ($1, $2, $3::text::date, $4)
         on conflict (pipeline, table_name, day) do update set rows = a.rows + excluded.rows",
    )
    .bind(pipeline)
    .bind(&table.name)
    .bind(manifest.day.to_string())
    .bind(added)
    .execute(&mut *database)
    .await?;
    sqlx::query(
        "insert into tapeline_restores as r (table_name, day, rows) values ($1, $2::text::date, $3)
         on conflict (table_name, day) do update set rows = r.rows + excluded.rows, restored_at = excluded.restored_at",
    )
    .bind(&table.name)
    .bind(manifest.day.to_string())
    .bind(added)
    .execute(&mut *database)
    .await?;
    Ok(())
}

async fn restore_file(
    database: &mut PgConnection,
    store: &Store,
    table: &ArchivedTable,
    file: &ArchivedFile,
    what: &Restore,
    careful: bool,
) -> Result<(u64, u64)> {
    let body = fetch(store, file).await?;
    let columns =
        file.columns.iter().map(|column| quoted(&column.name)).collect::<Vec<_>>().join(", ");
    let target = if careful {
        let make = format!(
            "create temporary table restored (like {}) on commit drop",
            quoted(&table.name)
        );
        database.execute(make.as_str()).await?;
        "restored".to_owned()
    } else {
        quoted(&table.name)
    };
    let (pieces, mut received) = mpsc::channel(PIECES);
    let (encoded, time, wanted) = (file.clone(), table.time.clone(), what.wanted.clone());
    let encoding = tokio::task::spawn_blocking(move || {
        let mut piece = HEADER.to_vec();
        let mut fields = Vec::new();
        for batch in batches(&encoded, &time, body, &wanted)? {
            let batch = batch?;
            for row in kept(&encoded.columns, &time, &batch, &wanted) {
                put_row(&encoded.columns, &batch, row, &mut piece, &mut fields)?;
                if piece.len() >= PIECE_BYTES {
                    pieces
                        .blocking_send(std::mem::take(&mut piece))
                        .context("the database takes no more")?;
                }
            }
        }
        piece.extend_from_slice(TRAILER);
        pieces.blocking_send(piece).context("the database takes no more")?;
        Ok::<_, anyhow::Error>(())
    });
    let statement = format!("copy {target} ({columns}) from stdin (format binary)");
    let mut copy = database.copy_in_raw(&statement).await?;
    while let Some(piece) = received.recv().await {
        copy.send(piece).await?;
    }
    if let Err(error) = encoding.await? {
        copy.abort("the archive cannot be read").await?;
        bail!(error);
    }
    let copied = copy.finish().await?;
    if !careful {
        return Ok((copied, copied));
    }
    let merge = format!(
        "insert into {} ({columns}) select {columns} from restored on conflict do nothing",
        quoted(&table.name)
    );
    let added = database.execute(merge.as_str()).await?.rows_affected();
    database.execute("drop table restored").await?;
    Ok((copied, added))
}

/// Writes archived rows to `out`; returns how many.
pub async fn export(
    store: &Store,
    time: &str,
    what: &Restore,
    format: Format,
    out: impl Write + Send,
) -> Result<u64> {
    let mut exporter = Exporter::new(format, out);
    let mut rows = 0;
    let (mut tuple, mut fields) = (Vec::new(), Vec::new());
    for manifest in what.manifests(store).await? {
        for file in what.files(&manifest) {
            let body = fetch(store, file).await?;
            for batch in batches(file, time, body, &what.wanted)? {
                let batch = batch?;
                let keep = kept(&file.columns, time, &batch, &what.wanted);
                rows += keep.len() as u64;
                for row in keep {
                    tuple.clear();
                    put_row(&file.columns, &batch, row, &mut tuple, &mut fields)?;
                    let fields = fields.iter().map(|f| f.map(|(start, end)| &tuple[start..end]));
                    exporter.push(&file.columns, fields)?;
                }
            }
        }
    }
    exporter.finish()?;
    Ok(rows)
}
