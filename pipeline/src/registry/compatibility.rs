//! When a new schema may follow older ones: Avro's resolution rules, by level.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, UnionSchema};
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};

/// What a new schema must stand up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    None,
    Backward,
    BackwardTransitive,
    Forward,
    ForwardTransitive,
    Full,
    FullTransitive,
}

const LEVELS: [(Level, &str); 7] = [
    (Level::None, "NONE"),
    (Level::Backward, "BACKWARD"),
    (Level::BackwardTransitive, "BACKWARD_TRANSITIVE"),
    (Level::Forward, "FORWARD"),
    (Level::ForwardTransitive, "FORWARD_TRANSITIVE"),
    (Level::Full, "FULL"),
    (Level::FullTransitive, "FULL_TRANSITIVE"),
];

impl Level {
    /// The level of this name, in any case.
    pub(super) fn from_name(name: &str) -> Option<Level> {
        LEVELS.iter().find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(level, _)| *level)
    }

    /// The level's name in the API.
    pub(super) fn name(self) -> &'static str {
        LEVELS.iter().find(|(level, _)| *level == self).map_or("BACKWARD", |(_, name)| name)
    }

    /// Whether every older version counts, and not the newest alone.
    pub(super) fn transitive(self) -> bool {
        matches!(self, Level::BackwardTransitive | Level::ForwardTransitive | Level::FullTransitive)
    }

    fn backward(self) -> bool {
        matches!(
            self,
            Level::Backward | Level::BackwardTransitive | Level::Full | Level::FullTransitive
        )
    }

    fn forward(self) -> bool {
        matches!(
            self,
            Level::Forward | Level::ForwardTransitive | Level::Full | Level::FullTransitive
        )
    }
}

/// Reasons why `new` may not follow `old` at this level; none if it may.
pub(super) fn objections(new: &Schema, old: &Schema, level: Level) -> Vec<String> {
    let (new, old) = (without_references(new), without_references(old));
    let mut reasons = Vec::new();
    if level.backward()
        && let Err(reason) = can_read(&old, &new)
    {
        reasons.push(format!("the new schema cannot read what the old one wrote: {reason}"));
    }
    if level.forward()
        && let Err(reason) = can_read(&new, &old)
    {
        reasons.push(format!("the old schema cannot read what the new one writes: {reason}"));
    }
    reasons
}

fn can_read(writer: &Schema, reader: &Schema) -> Result<(), String> {
    match SchemaCompatibility::can_read(writer, reader) {
        Ok(Compatibility::Full) => money_stays_money(writer, reader),
        // Some values could be read and others not: as in Java, that is not compatible.
        Ok(Compatibility::Partial) => {
            Err("a union branch or enum symbol of the writer is unknown to the reader".into())
        }
        Err(error) => Err(one_line(&error.to_string())),
    }
}

/// The library's message holds the whole of both schemas where types differ.
fn one_line(message: &str) -> String {
    const LONGEST: usize = 300;
    let line: String = message.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(LONGEST).collect()
}

/// What can stand at one place of a schema, as far as decimals are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Leaf {
    Decimal {
        precision: usize,
        scale: usize,
    },
    /// Bytes, text or a fixed without a decimal's meaning.
    Plain,
}

/// Avro's rules promote freely between bytes, strings and decimals on bytes. For money that
/// would turn 1.5 into fifteen without anyone's notice: a decimal must meet its equal, in
/// precision and scale, wherever both schemas have the same place.
fn money_stays_money(writer: &Schema, reader: &Schema) -> Result<(), String> {
    let (written, read) = (leaves(writer), leaves(reader));
    for (place, written) in &written {
        let Some(read) = read.get(place) else { continue };
        if let Some(lost) = written.iter().find(|leaf| !read.contains(leaf)) {
            return Err(match lost {
                Leaf::Decimal { precision, scale } => format!(
                    "{place}: decimal({precision}, {scale}) is not there for the reader; \
                     precision and scale must stay"
                ),
                Leaf::Plain => format!("{place}: plain bytes or text became a decimal"),
            });
        }
    }
    Ok(())
}

fn leaves(schema: &Schema) -> BTreeMap<String, BTreeSet<Leaf>> {
    let mut out = BTreeMap::new();
    collect_leaves(schema, "value", &mut out);
    out
}

fn collect_leaves(schema: &Schema, place: &str, out: &mut BTreeMap<String, BTreeSet<Leaf>>) {
    let leaf = match schema {
        Schema::Record(record) => {
            for field in &record.fields {
                collect_leaves(&field.schema, &format!("{place}.{}", field.name), out);
            }
            return;
        }
        Schema::Array(array) => return collect_leaves(&array.items, &format!("{place}[]"), out),
        Schema::Map(map) => return collect_leaves(&map.types, &format!("{place}{{}}"), out),
        Schema::Union(union) => {
            for variant in union.variants() {
                collect_leaves(variant, place, out);
            }
            return;
        }
        Schema::Decimal(decimal) => {
            debug_assert!(matches!(
                decimal.inner,
                InnerDecimalSchema::Bytes | InnerDecimalSchema::Fixed(_)
            ));
            Leaf::Decimal { precision: decimal.precision, scale: decimal.scale }
        }
        Schema::Bytes | Schema::String | Schema::Fixed(_) | Schema::BigDecimal => Leaf::Plain,
        _ => return,
    };
    out.entry(place.to_owned()).or_default().insert(leaf);
}

/// The schema with every named type written out where it is used (but within itself). The
/// library compares a reference by its name alone, so that moving a definition would look like
/// a change, and a change behind two references like none.
fn without_references(schema: &Schema) -> Schema {
    let mut named = HashMap::new();
    collect_named(schema, &mut named);
    let mut copy = schema.clone();
    write_out(&mut copy, &named, &mut Vec::new());
    copy
}

fn collect_named(schema: &Schema, named: &mut HashMap<String, Schema>) {
    if !matches!(schema, Schema::Ref { .. })
        && let Some(name) = schema.name()
    {
        named.insert(name.fullname(None), schema.clone());
    }
    match schema {
        Schema::Record(record) => {
            record.fields.iter().for_each(|field| collect_named(&field.schema, named));
        }
        Schema::Array(array) => collect_named(&array.items, named),
        Schema::Map(map) => collect_named(&map.types, named),
        Schema::Union(union) => {
            union.variants().iter().for_each(|variant| collect_named(variant, named));
        }
        _ => {}
    }
}

fn write_out(schema: &mut Schema, named: &HashMap<String, Schema>, within: &mut Vec<String>) {
    if let Schema::Ref { name } = schema {
        let name = name.fullname(None);
        match named.get(&name) {
            Some(definition) if !within.contains(&name) => *schema = definition.clone(),
            _ => return,
        }
    }
    match schema {
        Schema::Record(record) => {
            within.push(record.name.fullname(None));
            for field in &mut record.fields {
                write_out(&mut field.schema, named, within);
            }
            within.pop();
        }
        Schema::Array(array) => write_out(&mut array.items, named, within),
        Schema::Map(map) => write_out(&mut map.types, named, within),
        Schema::Union(union) => {
            let mut variants = union.variants().to_vec();
            variants.iter_mut().for_each(|variant| write_out(variant, named, within));
            if let Ok(written_out) = UnionSchema::new(variants) {
                *union = written_out;
            }
        }
        _ => {}
    }
}

#[cfg(test)]
#[path = "compatibility_tests.rs"]
mod tests;
