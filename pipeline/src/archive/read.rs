//! Reading the archive's objects: whole, to verify or restore them, or only what a query needs.

use anyhow::{Context as _, Result, ensure};
use arrow_array::RecordBatch;
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;

use super::batch::put_row;
use super::columns::arrow_schema;
use super::manifest::{ArchivedFile, Manifest};
use super::store::Store;
use super::tuples::RowSum;

const BATCH_ROWS: usize = 8_192;

/// What of an object is wanted; nothing given means all.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Only this symbol.
    pub symbol: Option<String>,
    /// From this moment on, microseconds since the epoch.
    pub from: Option<i64>,
    /// Before this moment.
    pub to: Option<i64>,
}

/// Fetches an object and refuses one that is not what the manifest says.
pub(super) async fn fetch(store: &Store, file: &ArchivedFile) -> Result<Bytes> {
    let body = store.get(&file.path).await?;
    let (bytes, sha256) = (body.len() as u64, sha256(&body));
    ensure!(
        bytes == file.bytes && sha256 == file.sha256,
        "{}: {bytes} bytes with sha256 {sha256}, the manifest says {} with {}: the object was changed",
        file.path,
        file.bytes,
        file.sha256
    );
    Ok(body)
}

pub(super) fn sha256(body: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, body);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The rows of an object as batches; row groups that cannot hold what is wanted are not read.
pub(super) fn batches(
    file: &ArchivedFile,
    time: &str,
    body: Bytes,
    wanted: &Wanted,
) -> Result<impl Iterator<Item = Result<RecordBatch>>> {
    let metadata = ArrowReaderMetadata::load(&body, Default::default())
        .with_context(|| format!("{} is no Parquet", file.path))?;
    ensure!(
        *metadata.schema().fields() == *arrow_schema(&file.columns).fields(),
        "{}: its columns are not those of the manifest",
        file.path
    );
    let groups = groups_with(metadata.metadata(), file, time, wanted);
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(body, metadata)
        .with_row_groups(groups)
        .with_batch_size(BATCH_ROWS)
        .build()?;
    let path = file.path.clone();
    Ok(reader.map(move |batch| batch.with_context(|| format!("{path} cannot be read"))))
}

fn groups_with(
    metadata: &ParquetMetaData,
    file: &ArchivedFile,
    time: &str,
    wanted: &Wanted,
) -> Vec<usize> {
    let index = |name: &str| file.columns.iter().position(|column| column.name == name);
    let (symbol, time) = (index("symbol"), index(time));
    (0..metadata.num_row_groups())
        .filter(|&group| {
            let statistics =
                |index: Option<usize>| metadata.row_group(group).column(index?).statistics();
            let symbol_there = match (&wanted.symbol, statistics(symbol)) {
                (Some(symbol), Some(Statistics::ByteArray(found))) => {
                    let (min, max) = (found.min_bytes_opt(), found.max_bytes_opt());
                    min.is_none_or(|min| min <= symbol.as_bytes())
                        && max.is_none_or(|max| max >= symbol.as_bytes())
                }
                _ => true,
            };
            let time_there = match statistics(time) {
                Some(Statistics::Int64(found)) => {
                    wanted.from.is_none_or(|from| found.max_opt().is_none_or(|max| *max >= from))
                        && wanted.to.is_none_or(|to| found.min_opt().is_none_or(|min| *min < to))
                }
                _ => true,
            };
            symbol_there && time_there
        })
        .collect()
}

/// Number and sum of an object's rows, counted from its bytes.
pub(super) fn row_sum(file: &ArchivedFile, time: &str, body: Bytes) -> Result<RowSum> {
    let mut sum = RowSum::default();
    let (mut tuple, mut fields, mut scratch) = (Vec::new(), Vec::new(), Vec::new());
    for batch in batches(file, time, body, &Wanted::default())? {
        let batch = batch?;
        for row in 0..batch.num_rows() {
            tuple.clear();
            put_row(&file.columns, &batch, row, &mut tuple, &mut fields)?;
            let bytes = fields.iter().map(|field| field.map(|(start, end)| &tuple[start..end]));
            sum.add_row(&file.columns, bytes, &mut scratch);
        }
    }
    Ok(sum)
}

/// Reads a day back from the store and compares every object, its rows and their sum with the manifest.
pub(crate) async fn verify(store: &Store, manifest: &Manifest) -> Result<()> {
    for file in &manifest.files {
        verify_file(store, file).await?;
    }
    Ok(())
}

/// Reads an object back and compares it, its rows and their sum with what the manifest says.
pub(super) async fn verify_file(store: &Store, file: &ArchivedFile) -> Result<()> {
    let body = fetch(store, file).await?;
    let checked = file.clone();
    let sum = tokio::task::spawn_blocking(move || row_sum(&checked, "", body)).await??;
    ensure!(
        sum == file.sum,
        "{}: {} rows with sum {:032x}, the manifest says {} with {:032x}",
        file.path,
        sum.rows,
        sum.checksum,
        file.sum.rows,
        file.sum.checksum
    );
    Ok(())
}
