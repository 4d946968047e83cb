//! What a table of the database looks like: its columns, its time, its order.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::numeric::{PRECISION, SCALE};

/// How a column is kept in Parquet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ColumnType {
    Text,
    Boolean,
    Smallint,
    Integer,
    Bigint,
    /// Microseconds, UTC.
    Timestamp,
    Date,
    /// `numeric` as decimal(38, 18).
    Decimal,
    /// `numeric` as text, where one number of a file needs more digits than that.
    NumericText,
    /// `jsonb`, as text.
    Json,
    /// `uuid`, as text.
    Uuid,
    /// `text[]`
    Texts,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Column {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: ColumnType,
}

impl ColumnType {
    fn of(postgres: &str) -> Option<ColumnType> {
        Some(match postgres {
            "text" => ColumnType::Text,
            "boolean" => ColumnType::Boolean,
            "smallint" => ColumnType::Smallint,
            "integer" => ColumnType::Integer,
            "bigint" => ColumnType::Bigint,
            "timestamp with time zone" => ColumnType::Timestamp,
            "date" => ColumnType::Date,
            "numeric" => ColumnType::Decimal,
            "jsonb" => ColumnType::Json,
            "uuid" => ColumnType::Uuid,
            "text[]" => ColumnType::Texts,
            _ => return None,
        })
    }

    fn arrow(self) -> DataType {
        match self {
            ColumnType::Text | ColumnType::NumericText | ColumnType::Json | ColumnType::Uuid => {
                DataType::Utf8
            }
            ColumnType::Boolean => DataType::Boolean,
            ColumnType::Smallint => DataType::Int16,
            ColumnType::Integer => DataType::Int32,
            ColumnType::Bigint => DataType::Int64,
            ColumnType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            ColumnType::Date => DataType::Date32,
            ColumnType::Decimal => DataType::Decimal128(PRECISION, SCALE),
            ColumnType::Texts => {
                DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, false)))
            }
        }
    }
}

/// The Parquet schema of `columns`.
pub(crate) fn arrow_schema(columns: &[Column]) -> SchemaRef {
    let fields: Vec<Field> =
        columns.iter().map(|column| Field::new(&column.name, column.kind.arrow(), true)).collect();
    Arc::new(Schema::new(fields))
}

/// A hypertable that can be archived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArchivedTable {
    pub(crate) name: String,
    pub(crate) columns: Vec<Column>,
    /// The hypertable's time dimension.
    pub(crate) time: String,
    /// Columns that rows are sorted by: those of the unique key, venue and symbol first.
    pub(crate) order: Vec<String>,
    /// Whether there is a column `exchange`, to divide files by.
    pub(crate) by_exchange: bool,
}

impl ArchivedTable {
    /// What the catalog says about `name`.
    pub(crate) async fn load(database: &mut PgConnection, name: &str) -> Result<ArchivedTable> {
        let time: Option<String> = sqlx::query_scalar(
            "select column_name::text from timescaledb_information.dimensions
             where hypertable_schema = current_schema() and hypertable_name = $1 and dimension_type = 'Time'",
        )
        .bind(name)
        .fetch_optional(&mut *database)
        .await?;
        let time =
            time.with_context(|| format!("{name} is not a hypertable: only those are archived"))?;
        let rows: Vec<(String, String)> = sqlx::query_as(
            "select attname::text, format_type(atttypid, null) from pg_attribute
             where attrelid = to_regclass($1) and attnum > 0 and not attisdropped order by attnum",
        )
        .bind(name)
        .fetch_all(&mut *database)
        .await?;
        let mut columns = Vec::with_capacity(rows.len());
        for (column, postgres) in rows {
            let Some(kind) = ColumnType::of(&postgres) else {
                bail!("{name}.{column}: no way is known to keep type {postgres} in Parquet");
            };
            columns.push(Column { name: column, kind });
        }
        let order: Vec<String> = sqlx::query_scalar(
            "select a.attname::text from pg_index i
             cross join lateral unnest(i.indkey) with ordinality as k(attnum, position)
             join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
             where i.indexrelid = (select indexrelid from pg_index where indrelid = to_regclass($1)
                 and indisunique and indpred is null order by indisprimary desc, indexrelid limit 1)
             order by k.position",
        )
        .bind(name)
        .fetch_all(&mut *database)
        .await?;
        if order.is_empty() {
            bail!("{name} has no unique key: its rows could not be restored without doubling any");
        }
        let by_exchange = order.iter().any(|column| column == "exchange");
        Ok(ArchivedTable {
            name: name.to_owned(),
            columns,
            time,
            order: order_of(order),
            by_exchange,
        })
    }

    /// The columns' names, quoted, for statements.
    pub(crate) fn column_list(&self) -> String {
        self.columns.iter().map(|column| quoted(&column.name)).collect::<Vec<_>>().join(", ")
    }

    /// The columns' names rows are sorted by, quoted.
    pub(crate) fn order_list(&self) -> String {
        self.order.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ")
    }

    /// Index of the column with this name.
    pub(crate) fn index_of(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

/// The venue first: files are divided by it. The symbol next, so that row groups can be skipped by it.
fn order_of(key: Vec<String>) -> Vec<String> {
    let rank = |name: &str| match name {
        "exchange" => 0,
        "symbol" => 1,
        _ => 2,
    };
    let mut order = key;
    order.sort_by_key(|name| rank(name));
    order
}

/// An identifier for a statement.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
