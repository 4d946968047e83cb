//! Two databases compared row by row: checksums of days first, of minutes where a day differs,
//! rows where a minute differs (S6). It only reads, each database as of one moment.

mod rows;
mod sums;

use std::fmt;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use sqlx::{Executor as _, PgConnection};
use tapeline_schemas::Kind;
use tapeline_stages::store::Table;

pub use crate::difference::TableDifference;
use crate::migrate;

/// What to compare.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Names of tables, or of kinds; every table where there is none.
    pub tables: Vec<String>,
    /// Oldest event time, as the database reads times.
    pub from: Option<String>,
    /// Event time where to end, exclusive.
    pub to: Option<String>,
}

/// One table of both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableComparison {
    /// Its rows in the first database.
    pub rows_a: i64,
    /// Its rows in the second.
    pub rows_b: i64,
    /// Missing are rows of the first that the second does not have.
    #[serde(flatten)]
    pub difference: TableDifference,
}

/// The whole comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// Whether nothing differs.
    pub ok: bool,
    /// Each table that was compared.
    pub tables: Vec<TableComparison>,
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for TableComparison { rows_a, difference, .. } in &self.tables {
            match difference.is_equal() {
                true => writeln!(f, "{}: {rows_a} rows, equal", difference.table)?,
                false => writeln!(f, "{difference}")?,
            }
        }
        let verdict = if self.ok { "B has the rows of A" } else { "B differs from A" };
        write!(f, "{verdict}")
    }
}

/// Compares the databases at two addresses.
pub async fn compare(a: &str, b: &str, scope: &Scope) -> Result<Comparison> {
    let wanted = tables(&scope.tables)?;
    let mut a = open(a).await.context("database A")?;
    let mut b = open(b).await.context("database B")?;
    let mut tables = Vec::new();
    for table in wanted {
        let compared = one(&mut a, &mut b, table, scope).await;
        tables.push(compared.with_context(|| format!("comparing {}", table.name()))?);
    }
    Ok(Comparison { ok: tables.iter().all(|table| table.difference.is_equal()), tables })
}

/// A connection that sees one moment of the database.
async fn open(url: &str) -> Result<PgConnection> {
    let mut connection = migrate::connect(url).await?;
    // Rows are compared as text, which depends on the zone.
    connection.execute("set timezone = 'UTC'; set datestyle = 'ISO'").await?;
    connection.execute("begin transaction isolation level repeatable read read only").await?;
    Ok(connection)
}

fn tables(names: &[String]) -> Result<Vec<Table>> {
    if names.is_empty() {
        return Ok(Table::ALL.to_vec());
    }
    let find = |name: &String| {
        let of_kind = Kind::from_name(name).and_then(Table::of);
        let found = Table::ALL.into_iter().find(|table| table.name() == name).or(of_kind);
        match found {
            Some(table) => Ok(table),
            None => bail!(
                "`{name}` is no table that is compared; there are {}",
                Table::ALL.map(Table::name).join(", ")
            ),
        }
    };
    let found = names.iter().map(find).collect::<Result<Vec<_>>>()?;
    Ok(Table::ALL.into_iter().filter(|table| found.contains(table)).collect())
}

async fn one(
    a: &mut PgConnection,
    b: &mut PgConnection,
    table: Table,
    scope: &Scope,
) -> Result<TableComparison> {
    let (of_a, of_b) = tokio::try_join!(sums::days(a, table, scope), sums::days(b, table, scope))?;
    let mut found = rows::Found::default();
    for day in sums::differing(&of_a, &of_b) {
        let (of_a, of_b) = tokio::try_join!(
            sums::minutes(a, table, scope, day),
            sums::minutes(b, table, scope, day)
        )?;
        let minutes = sums::differing(&of_a, &of_b);
        rows::compare(a, b, table, scope, &minutes, &mut found).await?;
    }
    Ok(TableComparison {
        rows_a: sums::rows(&of_a),
        rows_b: sums::rows(&of_b),
        difference: found.into_difference(table),
    })
}
