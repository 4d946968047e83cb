//! The difference between a shadow and the live tables.

use std::fmt;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use sqlx::{Executor as _, PgConnection};
use tapeline_schemas::Kind;
use tapeline_stages::flow::Contract;
use tapeline_stages::store::Table;

use super::differ::Shadow;
use super::{Entry, Target, book, shadow};
use crate::difference::{NAMED, TableDifference, WHAT};
use crate::migrate;
use crate::wiring::Context;

/// The whole report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DifferenceReport {
    /// The shadow.
    pub name: String,
    /// Each table that it has.
    pub tables: Vec<TableDifference>,
}

impl DifferenceReport {
    /// Whether nothing differs.
    pub fn is_equal(&self) -> bool {
        self.tables.iter().all(TableDifference::is_equal)
    }
}

impl fmt::Display for DifferenceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in &self.tables {
            writeln!(f, "{table}")?;
        }
        let verdict = if self.is_equal() { "equals" } else { "differs from" };
        write!(f, "shadow {} {verdict} the live tables in its range", self.name)
    }
}

/// The finished shadow of this name.
pub(super) async fn finished(
    database: &mut PgConnection,
    context: &Context,
    name: &str,
) -> Result<Entry> {
    let entry = book::find(database, &context.config.pipeline.id, name).await?;
    let entry = entry.with_context(|| format!("there is no shadow named {name}"))?;
    ensure!(matches!(entry.settings.into, Target::Shadow(_)), "replay {name} is no shadow");
    ensure!(
        ["done", "promoted"].contains(&entry.state.as_str()),
        "shadow {name} is {}: `tapeline replay --resume {name}` goes on with it",
        entry.state
    );
    Ok(entry)
}

/// What the statements need to know.
pub(super) fn describe<'e>(context: &Context, entry: &'e Entry) -> Result<Shadow<'e>> {
    let prefix = context.prefix();
    let kinds = Kind::raw().filter(|kind| {
        let spec = kind.spec();
        entry
            .asked
            .iter()
            .any(|part| part.topic == spec.topic(prefix) || part.topic == spec.raw_topic(prefix))
    });
    let mut topics = context.sink_topics(kinds)?;
    if entry.settings.revalidate {
        let own = shadow::prefix(context, &entry.name);
        for topic in &mut topics {
            topic.name = topic.kind.spec().topic(&own);
        }
    }
    topics.retain(|topic| topic.contract == Contract::Checked);
    let raw = topics.iter().map(|topic| (topic.kind, topic.kind.spec().raw_topic(prefix)));
    let raw = raw.collect();
    Ok(Shadow { name: &entry.name, request: &entry.settings, topics, raw })
}

/// Compares a finished shadow with the live tables.
pub async fn differences(context: &Context, name: &str) -> Result<DifferenceReport> {
    let mut database = migrate::connect(&context.config.database.url).await?;
    database.execute("set timezone = 'UTC'").await?;
    let entry = finished(&mut database, context, name).await?;
    let shadow = describe(context, &entry)?;
    compare(&mut database, &shadow).await
}

/// Compares on a connection, which may be in a transaction.
pub(super) async fn compare(
    database: &mut PgConnection,
    shadow: &Shadow<'_>,
) -> Result<DifferenceReport> {
    let mut tables = Vec::new();
    for table in shadow.tables() {
        tables.push(one(database, shadow, table).await?);
    }
    Ok(DifferenceReport { name: shadow.name.to_owned(), tables })
}

async fn one(
    database: &mut PgConnection,
    shadow: &Shadow<'_>,
    table: Table,
) -> Result<TableDifference> {
    let key: Vec<_> = table.key().iter().map(|column| format!("\"{column}\"::text")).collect();
    let sql = format!(
        "select what, count(*), (array_agg(concat_ws(' ', {key}) order by {key}))[1:{NAMED}]
        from ({}) as differing group by what",
        shadow.differences(table),
        key = key.join(", "),
    );
    let rows: Vec<(String, i64, Vec<String>)> = sqlx::query_as(&sql)
        .fetch_all(database)
        .await
        .with_context(|| format!("comparing {}", table.name()))?;
    let sorts = WHAT.map(|what| {
        let found = rows.iter().find(|(sort, ..)| sort == what);
        found.map_or((0, Vec::new()), |(_, count, keys)| (*count, keys.clone()))
    });
    Ok(TableDifference::new(table.name(), sorts))
}
