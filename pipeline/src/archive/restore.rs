//! From the archive back into the table, or into a file.

use std::io::Write;

use anyhow::{Result, ensure};
use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, RecordBatch};

use super::batch::put_row;
use super::columns::{ArchivedTable, Column};
use super::day::Day;
use super::export::{Exporter, Format};
use super::lanes::on_lanes;
use super::manifest::{ArchivedFile, Manifest};
use super::read::{Wanted, batches, fetch};
use super::restored_day::restore_day;
use super::store::Store;
use crate::migrate::connect;

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

/// Puts archived rows back into their table, several days at a time. Rows that are there stay as they
/// are; doing it again adds nothing.
pub async fn restore(url: &str, store: &Store, pipeline: &str, what: &Restore) -> Result<Restored> {
    let table = ArchivedTable::load(&mut connect(url).await?, &what.table).await?;
    ensure!(
        what.wanted.symbol.is_none() || table.index_of("symbol").is_some(),
        "rows of {} have no symbol",
        what.kind
    );
    let manifests = what.manifests(store).await?;
    ensure!(
        !manifests.is_empty(),
        "the archive at {} has nothing of {} from {} to {}",
        store.shown(),
        what.kind,
        what.days.0,
        what.days.1
    );
    let done = on_lanes(url, &manifests, async |database, manifest| {
        restore_day(database, store, pipeline, &table, manifest, what).await
    });
    let mut restored = Restored::default();
    for (rows, added) in done.await? {
        restored.days += 1;
        restored.rows += rows;
        restored.added += added;
    }
    Ok(restored)
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
