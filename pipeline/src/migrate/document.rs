//! `docs/database.md`: the tables with an entity-relationship diagram, out of the catalog.

use std::fmt::Write as _;

use super::catalog::{Catalog, Key};

const HEAD: &str = "# Database

Written by `tapeline migrate docs` from the catalog of a migrated database; a test says when it is not
current. Times are `timestamptz`, money is `numeric` without a fixed scale. On TimescaleDB's Community edition
`mv_ohlcv_1h` and `daily_candles` are continuous aggregates of the same columns, and the four tables of
market data are compressed, segmented by symbol (`sql/community`).
";

/// The document.
pub fn render(catalog: &Catalog) -> String {
    let mut out = String::from(HEAD);
    out.push_str("\n## Diagram\n\nSolid lines are foreign keys, dotted ones lead from a table to its views.\n\n");
    out.push_str("```mermaid\nerDiagram\n");
    for relation in relations(catalog) {
        diagram(catalog, relation, &mut out);
    }
    links(catalog, &mut out);
    out.push_str("```\n");
    for relation in relations(catalog) {
        section(catalog, relation, &mut out);
    }
    out
}

/// Tables first, then views, by name.
fn relations(catalog: &Catalog) -> impl Iterator<Item = &str> {
    let of = |kind: &'static str| {
        catalog.keys().filter(move |key| key.kind == kind).map(|key| key.relation.as_str())
    };
    of("table").chain(of("view"))
}

fn of<'c>(
    catalog: &'c Catalog,
    kind: &str,
    relation: &str,
) -> impl Iterator<Item = (&'c str, &'c str)> {
    catalog
        .iter()
        .filter(move |(key, _)| key.kind == kind && key.relation == relation)
        .map(|(key, what)| (key.name.as_str(), what.as_str()))
}

/// Columns as the table has them in order.
fn columns<'c>(catalog: &'c Catalog, relation: &str) -> Vec<(&'c str, &'c str)> {
    let all: Vec<_> = of(catalog, "column", relation).collect();
    let order = of(catalog, "order", relation).next().map_or("", |(_, order)| order);
    let find = |name: &str| all.iter().find(|(column, _)| *column == name).copied();
    order.split(", ").filter_map(find).collect()
}

fn comment<'c>(catalog: &'c Catalog, relation: &str, name: &str) -> &'c str {
    let (kind, relation, name) = ("comment".to_owned(), relation.to_owned(), name.to_owned());
    catalog.get(&Key { kind, relation, name }).map_or("", String::as_str)
}

/// A column's type, without what else is said of it.
fn type_of(what: &str) -> String {
    let end = [" not null", " collate ", " identity", " default ", " generated "]
        .iter()
        .filter_map(|word| what.find(word))
        .min()
        .unwrap_or(what.len());
    what[..end].replace("timestamp with time zone", "timestamptz").replace(' ', "_")
}

fn diagram(catalog: &Catalog, relation: &str, out: &mut String) {
    // Writing to memory cannot fail.
    let _ = writeln!(out, "    {relation} {{");
    for (column, what) in columns(catalog, relation) {
        let is_in = |(name, columns): (&str, &str)| {
            let listed = columns.split(", ").any(|listed| listed == column);
            listed.then(|| if name.ends_with("_pkey") { " PK" } else { " UK" })
        };
        let key = of(catalog, "unique", relation).find_map(is_in).unwrap_or_default();
        let _ = writeln!(out, "        {} {column}{key}", type_of(what));
    }
    out.push_str("    }\n");
}

fn links(catalog: &Catalog, out: &mut String) {
    for (key, what) in catalog {
        match key.kind.as_str() {
            "reads" => {
                let _ = writeln!(out, "    {} ||..|| {} : shows", key.name, key.relation);
            }
            "constraint" => {
                let referenced = what.split_once("REFERENCES ").map(|(_, rest)| rest);
                if let Some((table, _)) = referenced.and_then(|rest| rest.split_once('(')) {
                    let _ = writeln!(out, "    {table} ||--o{{ {} : has", key.relation);
                }
            }
            _ => {}
        }
    }
}

fn section(catalog: &Catalog, relation: &str, out: &mut String) {
    let cell = |text: &str| text.replace('|', "\\|");
    let _ = write!(out, "\n## {relation}\n\n{}.\n", comment(catalog, relation, ""));
    let dimensions: Vec<String> = of(catalog, "dimension", relation)
        .map(|(column, size)| format!("`{column}` ({size})"))
        .collect();
    if !dimensions.is_empty() {
        let _ = write!(out, "\nHypertable, chunks by {}.\n", dimensions.join(" and "));
    }
    out.push_str("\n| column | type | |\n|---|---|---|\n");
    for (column, what) in columns(catalog, relation) {
        let null = if what.contains(" not null") || of(catalog, "reads", relation).next().is_some()
        {
            ""
        } else {
            ", null"
        };
        let said = cell(comment(catalog, relation, column));
        let _ = writeln!(out, "| `{column}` | {}{null} | {said} |", type_of(what));
    }
    let mut indexes = of(catalog, "index", relation).peekable();
    if indexes.peek().is_some() {
        out.push_str("\nIndexes:\n\n");
    }
    for (_, definition) in indexes {
        let definition = definition.replace("CREATE ", "").replace(" ON public.", " on ");
        let definition = definition.replace("UNIQUE INDEX", "unique").replace("INDEX ", "");
        let _ = writeln!(out, "- `{}`", definition.replace("USING btree ", ""));
    }
}
