//! How the rows of a table differ from other rows of it: of a shadow, of another database.

use std::fmt;

use serde::Serialize;

/// How a row differs.
pub(crate) const WHAT: [&str; 3] = ["missing", "extra", "changed"];
/// Rows of each sort that are named.
pub(crate) const NAMED: usize = 5;

/// What differs in one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableDifference {
    /// Its name.
    pub table: &'static str,
    /// Rows that should be there and are not.
    pub missing: i64,
    /// Rows that should not be there.
    pub extra: i64,
    /// Rows of one key that say something else.
    pub changed: i64,
    /// The first of each sort, by key.
    pub first: Vec<String>,
}

impl TableDifference {
    /// From the count of each sort and its first keys, in the order of [`WHAT`].
    pub(crate) fn new(table: &'static str, sorts: [(i64, Vec<String>); 3]) -> TableDifference {
        let [missing, extra, changed] = [0, 1, 2].map(|sort: usize| sorts[sort].0);
        let first = WHAT
            .iter()
            .zip(sorts)
            .flat_map(|(what, (_, keys))| keys.into_iter().map(move |key| format!("{what} {key}")))
            .collect();
        TableDifference { table, missing, extra, changed, first }
    }

    /// Whether nothing differs.
    pub fn is_equal(&self) -> bool {
        self.missing + self.extra + self.changed == 0
    }
}

/// A line, and one more for each row that is named.
impl fmt::Display for TableDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TableDifference { table, missing, extra, changed, first } = self;
        write!(f, "{table}: {missing} missing, {extra} extra, {changed} changed")?;
        first.iter().try_for_each(|row| write!(f, "\n  {row}"))
    }
}

/// Columns as a list for a statement, of the row that `of` stands for.
pub(crate) fn list(columns: &[&str], of: &str) -> String {
    let columns: Vec<_> = columns.iter().map(|column| format!("{of}.\"{column}\"")).collect();
    columns.join(", ")
}
