//! What the migrations make, as the live catalog shows it, held against what it should show.
//!
//! `sql/catalog.tsv` is the catalog of a freshly migrated database of the Apache edition, written
//! by `tapeline migrate catalog`; a test says when it is not current.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use sqlx::PgConnection;

use super::{AGGREGATES, COMPRESSED, is_community};

const QUERY: &str = include_str!("catalog.sql");
const EXPECTED: &str = include_str!("../../../sql/catalog.tsv");

/// One object, or one thing about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// `table`, `view`, `column`, `index`, `comment` and others.
    pub kind: String,
    /// Table, view or function it is or belongs to.
    pub relation: String,
    /// Its own name, where it is not the relation itself.
    pub name: String,
}

/// All objects, each with its definition.
pub type Catalog = BTreeMap<Key, String>;

/// Reads the live catalog.
pub async fn load(connection: &mut PgConnection) -> Result<Catalog> {
    // Moments and intervals are to be printed in one form.
    sqlx::query("select set_config('timezone', 'UTC', false), set_config('intervalstyle', 'postgres', false)")
        .execute(&mut *connection)
        .await
        .context("session")?;
    let rows: Vec<(String, String, String, String)> =
        sqlx::query_as(QUERY).fetch_all(connection).await.context("catalog")?;
    Ok(rows
        .into_iter()
        .map(|(kind, relation, name, what)| (Key { kind, relation, name }, what))
        .collect())
}

/// The catalog as a file: an object a line, fields separated by tabs.
pub fn to_text(catalog: &Catalog) -> String {
    let line = |(key, what): (&Key, &String)| {
        format!("{}\t{}\t{}\t{what}\n", key.kind, key.relation, key.name)
    };
    catalog.iter().map(line).collect()
}

fn from_text(text: &str) -> Catalog {
    let key = |line: &str| {
        let mut fields = line.splitn(4, '\t').map(str::to_owned);
        let key = Key { kind: fields.next()?, relation: fields.next()?, name: fields.next()? };
        Some((key, fields.next()?))
    };
    text.lines().filter_map(key).collect()
}

/// What the catalog should show on this edition.
fn expected(community: bool) -> Catalog {
    let mut catalog = from_text(EXPECTED);
    if !community {
        return catalog;
    }
    let key = |kind: &str, relation: &str| Key {
        kind: kind.to_owned(),
        relation: relation.to_owned(),
        name: String::new(),
    };
    for (aggregate, _) in AGGREGATES {
        catalog.retain(|key, _| key.kind != "reads" || key.relation != aggregate);
        catalog.insert(key("view", aggregate), "continuous aggregate".to_owned());
    }
    catalog.extend(COMPRESSED.map(|table| (key("compressed", table), String::new())));
    catalog
}

/// Differences between the database and what the migrations make, each naming its object.
pub async fn drift(connection: &mut PgConnection) -> Result<Vec<String>> {
    let expected = expected(is_community(connection).await?);
    Ok(differences(&expected, &load(connection).await?))
}

fn differences(expected: &Catalog, found: &Catalog) -> Vec<String> {
    let mut all = Vec::new();
    let is_whole = |key: &Key| matches!(key.kind.as_str(), "table" | "view" | "function");
    let missing_whole = |relation: &str, one: &Catalog, other: &Catalog| {
        let whole =
            |catalog: &Catalog| catalog.keys().any(|key| is_whole(key) && key.relation == relation);
        whole(one) && !whole(other)
    };
    for (key, what) in expected.iter().filter(|(key, _)| key.kind != "order") {
        match found.get(key) {
            Some(there) if there == what => {}
            Some(there) => {
                all.push(format!("{} differs: `{there}`, expected `{what}`", named(key)))
            }
            // What belongs to a missing table is missing with it.
            None if !is_whole(key) && missing_whole(&key.relation, expected, found) => {}
            None => all.push(format!("{} is missing", named(key))),
        }
    }
    for key in found.keys().filter(|key| !expected.contains_key(key)) {
        if is_whole(key) || !missing_whole(&key.relation, found, expected) {
            all.push(format!("{} is not of the migrations", named(key)));
        }
    }
    all
}

fn named(key: &Key) -> String {
    match (key.kind.as_str(), key.name.as_str()) {
        ("comment", "") => format!("comment on {}", key.relation),
        ("comment", name) => format!("comment on {}.{name}", key.relation),
        (kind, "") => format!("{kind} {}", key.relation),
        (kind, name) => format!("{kind} {}.{name}", key.relation),
    }
}
