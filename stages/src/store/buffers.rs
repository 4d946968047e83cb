//! Rows on their way to the database, as the tuples of a binary COPY.

use tapeline_schemas::Micros;

use super::table::Table;
use crate::flow::{Original, Originals, Output, Record, Reject, Rejected, TopicPartition};

/// A row: where its tuple is, and all that is needed to account for it or to refuse it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    start: u32,
    end: u32,
    /// Time of its event.
    pub(crate) time: Micros,
    /// Rows of one symbol have one number.
    group: u32,
    /// The record it comes from.
    pub(crate) original: Original,
}

/// Tuples of one table.
#[derive(Debug, Default)]
pub(crate) struct TableBuffer {
    tuples: Vec<u8>,
    rows: Vec<Row>,
}

/// What `store` makes: the tuples of every table, with the records they come from, so that a
/// row only the database refuses goes to quarantine as it was.
#[derive(Debug, Default)]
pub struct CopyBuffers {
    tables: [TableBuffer; Table::ALL.len()],
    originals: Originals,
    /// Versions of the rules that judged the records, by partition.
    rules: Vec<(TopicPartition, String)>,
    /// The one last noted: nearly every record has those of the one before.
    last_rules: usize,
}

impl TableBuffer {
    pub(crate) fn rows(&self) -> &[Row] {
        &self.rows
    }

    pub(crate) fn tuple(&self, row: &Row) -> &[u8] {
        &self.tuples[row.start as usize..row.end as usize]
    }

    /// Indexes of the rows by symbol and time: neighbours in the index then go to
    /// neighbouring pages, and rows of a chunk arrive together.
    pub(crate) fn sorted(&self) -> Vec<u32> {
        let mut keys: Vec<(u32, i64, u32)> = self
            .rows
            .iter()
            .enumerate()
            .map(|(index, row)| (row.group, row.time.0, index as u32))
            .collect();
        keys.sort_unstable();
        keys.into_iter().map(|(_, _, index)| index).collect()
    }
}

impl CopyBuffers {
    pub(crate) fn table(&self, table: Table) -> &TableBuffer {
        &self.tables[table as usize]
    }

    /// Appends the row that `write` writes; on an error nothing is added.
    #[inline]
    pub(super) fn push<E>(
        &mut self,
        table: Table,
        record: &Record<'_>,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(Micros, u32), E>,
    ) -> Result<Micros, E> {
        let buffer = &mut self.tables[table as usize];
        let start = buffer.tuples.len();
        let (time, group) = match write(&mut buffer.tuples) {
            Ok(written) => written,
            Err(error) => {
                buffer.tuples.truncate(start);
                return Err(error);
            }
        };
        let original = self.originals.keep(record);
        let (start, end) = (start as u32, buffer.tuples.len() as u32);
        buffer.rows.push(Row { start, end, time, group, original });
        Ok(time)
    }

    /// Notes which version of the rules judged a record.
    #[inline]
    pub(super) fn note_rules(&mut self, at: TopicPartition, rules: &str) {
        let known =
            |(place, text): &(TopicPartition, String)| *place == at && text.as_str() == rules;
        if self.rules.get(self.last_rules).is_some_and(known) {
            return;
        }
        self.last_rules = self.rules.iter().position(known).unwrap_or_else(|| {
            self.rules.push((at, rules.to_owned()));
            self.rules.len() - 1
        });
    }

    /// Versions of the rules that judged the records of `at`.
    pub(crate) fn rules(&self, at: TopicPartition) -> impl Iterator<Item = &str> {
        self.rules.iter().filter(move |(place, _)| *place == at).map(|(_, text)| text.as_str())
    }

    /// The record behind a row, for quarantine.
    pub(crate) fn rejected(&self, table: Table, row: usize, reject: Reject) -> Rejected {
        let row = &self.tables[table as usize].rows[row];
        self.originals.rejected(&row.original, reject)
    }

    /// Index of a table's row among all rows.
    pub(crate) fn index_of(&self, table: Table, row: usize) -> usize {
        self.tables[..table as usize].iter().map(|buffer| buffer.rows.len()).sum::<usize>() + row
    }

    /// Takes rows out, by their index among all rows, with the other rows of the same records.
    pub(crate) fn remove(&mut self, rows: &[usize]) {
        let all: Vec<(TopicPartition, i64)> = self
            .tables
            .iter()
            .flat_map(|buffer| &buffer.rows)
            .map(|row| row.original.place())
            .collect();
        let records: std::collections::HashSet<_> =
            rows.iter().filter_map(|&row| all.get(row)).collect();
        for buffer in &mut self.tables {
            buffer.rows.retain(|row| !records.contains(&row.original.place()));
        }
    }
}

impl Output for CopyBuffers {
    fn len(&self) -> usize {
        self.tables.iter().map(|buffer| buffer.rows.len()).sum()
    }

    fn byte_len(&self) -> usize {
        let rows = |buffer: &TableBuffer| {
            buffer.tuples.len() + buffer.rows.len() * std::mem::size_of::<Row>()
        };
        self.originals.byte_len() + self.tables.iter().map(rows).sum::<usize>()
    }

    fn clear(&mut self) {
        for buffer in &mut self.tables {
            buffer.tuples.clear();
            buffer.rows.clear();
        }
        self.originals.clear();
        self.rules.clear();
        self.last_rules = 0;
    }
}
