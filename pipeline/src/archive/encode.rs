//! From the rows of a day to Parquet objects.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use tokio::sync::mpsc;

use super::batch::BatchBuilder;
use super::columns::{ArchivedTable, Column, ColumnType, arrow_schema};
use super::tuples::{RowSum, TupleReader};

/// Rows a batch, a row group, and an object at most. A query reads whole row groups.
const BATCH_ROWS: usize = 8_192;
const GROUP_ROWS: usize = 131_072;
const FILE_ROWS: u64 = 2_000_000;
/// Level of zstd: beyond 3, time grows and size hardly shrinks.
const ZSTD_LEVEL: i32 = 3;

/// How the values of a column are kept that hardly ever repeat, but follow each other closely in the order of the rows.
/// A dictionary of them would be given up after much work.
fn by_difference(column: &Column) -> Option<Encoding> {
    match (column.kind, column.name.as_str()) {
        (ColumnType::Timestamp | ColumnType::Bigint, _) => Some(Encoding::DELTA_BINARY_PACKED),
        (ColumnType::Text, "trade_id" | "event_id") => Some(Encoding::DELTA_BYTE_ARRAY),
        _ => None,
    }
}

/// A finished object.
#[derive(Debug)]
pub(super) struct Encoded {
    pub(super) exchange: Option<String>,
    pub(super) body: Bytes,
    pub(super) sum: RowSum,
    pub(super) columns: Vec<Column>,
}

struct OpenFile {
    exchange: Option<String>,
    writer: ArrowWriter<Vec<u8>>,
    sum: RowSum,
}

/// Turns rows, sorted by venue, into objects: a new one for each venue, and where one is full.
pub(super) struct Encoder {
    columns: Vec<Column>,
    schema: SchemaRef,
    exchange_index: Option<usize>,
    sorting: Vec<SortingColumn>,
    builder: BatchBuilder,
    open: Option<OpenFile>,
    finished: mpsc::Sender<Encoded>,
}

impl Encoder {
    /// Objects go to `finished` as they are done.
    pub(super) fn new(table: &ArchivedTable, finished: mpsc::Sender<Encoded>) -> Result<Encoder> {
        let columns = table.columns.clone();
        let schema = arrow_schema(&columns);
        let sorting = table
            .order
            .iter()
            .filter_map(|name| table.index_of(name))
            .map(|index| SortingColumn {
                column_idx: index as i32,
                descending: false,
                nulls_first: false,
            })
            .collect();
        Ok(Encoder {
            exchange_index: table.by_exchange.then(|| table.index_of("exchange")).flatten(),
            builder: BatchBuilder::new(&columns, Arc::clone(&schema))?,
            columns,
            schema,
            sorting,
            open: None,
            finished,
        })
    }

    /// Takes pieces of a binary COPY until there are no more.
    pub(super) fn run(mut self, mut pieces: mpsc::Receiver<Bytes>) -> Result<RowSum> {
        let mut reader = TupleReader::default();
        let mut fields = Vec::new();
        let mut scratch = Vec::new();
        let mut all = RowSum::default();
        while let Some(piece) = pieces.blocking_recv() {
            reader.feed(&piece);
            while reader.next(&mut fields)? {
                let row = || fields.iter().map(|field| field.map(|range| reader.bytes(range)));
                let exchange = match self.exchange_index {
                    Some(index) => row().nth(index).flatten(),
                    None => None,
                };
                self.begin_file(exchange)?;
                self.builder.push(&self.columns, row())?;
                if let Some(open) = &mut self.open {
                    open.sum.add_row(&self.columns, row(), &mut scratch);
                }
                if self.builder.rows() >= BATCH_ROWS {
                    self.write_batch()?;
                }
            }
        }
        reader.finish()?;
        all.add(self.end_file()?);
        Ok(all)
    }

    fn begin_file(&mut self, exchange: Option<&[u8]>) -> Result<()> {
        let same = self.open.as_ref().is_some_and(|open| {
            open.exchange.as_deref().map(str::as_bytes) == exchange && open.sum.rows < FILE_ROWS
        });
        if same {
            return Ok(());
        }
        self.end_file()?;
        let exchange =
            exchange.map(|name| std::str::from_utf8(name).map(str::to_owned)).transpose()?;
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_sorting_columns(Some(self.sorting.clone()));
        for (column, encoding) in
            self.columns.iter().filter_map(|column| Some((column, by_difference(column)?)))
        {
            let path = ColumnPath::from(column.name.as_str());
            properties = properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, encoding);
        }
        let writer =
            ArrowWriter::try_new(Vec::new(), Arc::clone(&self.schema), Some(properties.build()))?;
        self.open = Some(OpenFile { exchange, writer, sum: RowSum::default() });
        Ok(())
    }

    fn write_batch(&mut self) -> Result<()> {
        if self.builder.rows() == 0 {
            return Ok(());
        }
        let batch: RecordBatch = self.builder.finish()?;
        match &mut self.open {
            Some(open) => Ok(open.writer.write(&batch)?),
            None => Ok(()),
        }
    }

    fn end_file(&mut self) -> Result<RowSum> {
        self.write_batch()?;
        let Some(open) = self.open.take() else { return Ok(RowSum::default()) };
        let sum = open.sum;
        let body = Bytes::from(open.writer.into_inner()?);
        let encoded = Encoded { exchange: open.exchange, body, sum, columns: self.columns.clone() };
        self.finished.blocking_send(encoded).ok().context("nobody takes the objects any more")?;
        Ok(sum)
    }
}
