//! An archived day on its way back into the table.

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tapeline_stages::store::{HEADER, TRAILER};
use tokio::sync::mpsc;

use super::batch::put_row;
use super::columns::{ArchivedTable, quoted};
use super::manifest::{ArchivedFile, Manifest};
use super::read::{Wanted, batches, fetch};
use super::restore::{Restore, kept};
use super::store::Store;

/// Bytes sent to the database at a time, and pieces that may wait.
const PIECE_BYTES: usize = 256 * 1024;
const PIECES: usize = 16;
/// SQLSTATE of a row whose key is there.
const UNIQUE_VIOLATION: &str = "23505";

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
    let mut files = what.files(manifest);
    let Some(first) = files.next() else { return Ok((0, 0)) };
    let first = (first, fetch(store, first).await?);
    let day = DayRestore { store, pipeline, table, manifest, what, first, rest: files.collect() };
    day.run(database).await
}

/// A day on its way back.
struct DayRestore<'a> {
    store: &'a Store,
    pipeline: &'a str,
    table: &'a ArchivedTable,
    manifest: &'a Manifest,
    what: &'a Restore,
    /// The first object, fetched.
    first: (&'a ArchivedFile, Bytes),
    /// The others.
    rest: Vec<&'a ArchivedFile>,
}

impl DayRestore<'_> {
    async fn run(&self, database: &mut PgConnection) -> Result<(u64, u64)> {
        let there: bool = sqlx::query_scalar(&format!(
            "select exists (select from {} where {})",
            quoted(&self.table.name),
            self.range()
        ))
        .fetch_one(&mut *database)
        .await?;
        // an empty day is copied straight in; where a row comes in between, the careful way is taken
        if !there {
            let straight = async {
                self.make_chunk(database).await?;
                self.in_transaction(database, false).await
            };
            match straight.await {
                Err(error) if is_duplicate(&error) => {}
                done => return done,
            }
        }
        self.in_transaction(database, true).await
    }

    /// The day as a condition.
    fn range(&self) -> String {
        format!(
            "{time} >= '{day}'::date::timestamp at time zone 'UTC' and {time} < '{next}'::date::timestamp at time zone 'UTC'",
            time = quoted(&self.table.time),
            day = self.manifest.day,
            next = self.manifest.day.next(),
        )
    }

    /// Makes the day's chunk in a short transaction of its own. Whoever makes one locks out, to the end of the
    /// transaction, all others that need a new one: the stages at midnight, and the day beside this one.
    /// Of a table that is cut by symbol too, the other chunks are made later.
    async fn make_chunk(&self, database: &mut PgConnection) -> Result<()> {
        let (file, body) = &self.first;
        let Some(row) = first_row(file, &self.table.time, body.clone(), &self.what.wanted)? else {
            return Ok(());
        };
        let delete = format!(
            "delete from {} where {} and xmin = pg_current_xact_id()::xid",
            quoted(&self.table.name),
            self.range()
        );
        let mut work = database.begin().await?;
        let mut copy = work.copy_in_raw(&copy_statement(&quoted(&self.table.name), file)).await?;
        copy.send(row).await?;
        copy.finish().await?;
        let deleted = work.execute(delete.as_str()).await?.rows_affected();
        ensure!(deleted == 1, "{}: {deleted} rows deleted where one was put", file.path);
        work.commit().await?;
        Ok(())
    }

    async fn in_transaction(
        &self,
        database: &mut PgConnection,
        careful: bool,
    ) -> Result<(u64, u64)> {
        let mut work = database.begin().await?;
        let (file, body) = &self.first;
        let (mut rows, mut added) = self.put(&mut work, file, body.clone(), careful).await?;
        for file in &self.rest {
            let body = fetch(self.store, file).await?;
            let (copied, new) = self.put(&mut work, file, body, careful).await?;
            rows += copied;
            added += new;
        }
        self.account(&mut work, added).await?;
        work.commit().await?;
        Ok((rows, added))
    }

    async fn account(&self, database: &mut PgConnection, added: u64) -> Result<()> {
        if added == 0 {
            return Ok(());
        }
        let added = i64::try_from(added)?;
        sqlx::query(
            "insert into tapeline_additions as a (pipeline, table_name, day, rows) values ($1, $2, $3::text::date, $4)
             on conflict (pipeline, table_name, day) do update set rows = a.rows + excluded.rows",
        )
        .bind(self.pipeline)
        .bind(&self.table.name)
        .bind(self.manifest.day.to_string())
        .bind(added)
        .execute(&mut *database)
        .await?;
        sqlx::query(
            "insert into tapeline_restores as r (table_name, day, rows) values ($1, $2::text::date, $3)
             on conflict (table_name, day) do update set rows = r.rows + excluded.rows, restored_at = excluded.restored_at",
        )
        .bind(&self.table.name)
        .bind(self.manifest.day.to_string())
        .bind(added)
        .execute(&mut *database)
        .await?;
        Ok(())
    }

    /// Puts the rows of an object into the table; returns how many there were, and how many were new.
    async fn put(
        &self,
        database: &mut PgConnection,
        file: &ArchivedFile,
        body: Bytes,
        careful: bool,
    ) -> Result<(u64, u64)> {
        let table = quoted(&self.table.name);
        if !careful {
            let copied = self.copy(database, &table, file, body).await?;
            return Ok((copied, copied));
        }
        let make = format!("create temporary table restored (like {table}) on commit drop");
        database.execute(make.as_str()).await?;
        let copied = self.copy(database, "restored", file, body).await?;
        let columns = column_list(file);
        let merge = format!(
            "insert into {table} ({columns}) select {columns} from restored on conflict do nothing"
        );
        let added = database.execute(merge.as_str()).await?.rows_affected();
        database.execute("drop table restored").await?;
        Ok((copied, added))
    }

    async fn copy(
        &self,
        database: &mut PgConnection,
        target: &str,
        file: &ArchivedFile,
        body: Bytes,
    ) -> Result<u64> {
        let (pieces, mut received) = mpsc::channel(PIECES);
        let (encoded, time, wanted) =
            (file.clone(), self.table.time.clone(), self.what.wanted.clone());
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
        let mut copy = database.copy_in_raw(&copy_statement(target, file)).await?;
        while let Some(piece) = received.recv().await {
            copy.send(piece).await?;
        }
        if let Err(error) = encoding.await? {
            copy.abort("the archive cannot be read").await?;
            bail!(error);
        }
        Ok(copy.finish().await?)
    }
}

fn column_list(file: &ArchivedFile) -> String {
    file.columns.iter().map(|column| quoted(&column.name)).collect::<Vec<_>>().join(", ")
}

fn copy_statement(target: &str, file: &ArchivedFile) -> String {
    format!("copy {target} ({}) from stdin (format binary)", column_list(file))
}

/// The first wanted row of an object as a whole binary COPY.
fn first_row(
    file: &ArchivedFile,
    time: &str,
    body: Bytes,
    wanted: &Wanted,
) -> Result<Option<Vec<u8>>> {
    for batch in batches(file, time, body, wanted)? {
        let batch = batch?;
        if let Some(&row) = kept(&file.columns, time, &batch, wanted).first() {
            let mut copy = HEADER.to_vec();
            put_row(&file.columns, &batch, row, &mut copy, &mut Vec::new())?;
            copy.extend_from_slice(TRAILER);
            return Ok(Some(copy));
        }
    }
    Ok(None)
}

fn is_duplicate(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<sqlx::Error>()).any(|error| {
        error.as_database_error().and_then(|error| error.code()).as_deref()
            == Some(UNIQUE_VIOLATION)
    })
}
