//! What the topic says, folded: subjects, versions, ids, levels and modes. Pure; the only way
//! in is [`State::apply`], by the thread that reads the topic.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use thiserror::Error;

use super::compatibility::Level;
use super::records::{Record, SchemaValue};
use super::schema_text::{identity, normalized_identity};

/// One version of a subject.
#[derive(Debug, Clone)]
pub(super) struct Version {
    pub(super) value: SchemaValue,
    /// The record's key as it stands in the topic. Compaction compares bytes, and older
    /// Karapace wrote its keys in another order: a later record must use the same.
    pub(super) key: Vec<u8>,
}

#[derive(Debug, Clone)]
struct Setting {
    name: String,
    key: Vec<u8>,
}

#[derive(Debug)]
struct Known {
    identity: String,
    value: SchemaValue,
}

/// Two different schemas under one id: only two writers at once can do that. The first stays.
#[derive(Debug, Error)]
#[error(
    "subject '{subject}' version {version} claims id {id}, which another schema has; \
     only one registry may write to the topic"
)]
pub(super) struct IdTaken {
    subject: String,
    version: u32,
    id: u32,
}

/// How a text is compared with the schemas that are there.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lookup {
    /// Compare with names spelled out.
    pub(super) normalize: bool,
    /// Deleted versions count.
    pub(super) deleted: bool,
}

/// The registry's state.
#[derive(Debug, Default)]
pub(super) struct State {
    subjects: BTreeMap<String, BTreeMap<u32, Version>>,
    ids: BTreeMap<u32, Known>,
    by_identity: HashMap<String, u32>,
    levels: BTreeMap<Option<String>, Setting>,
    modes: BTreeMap<Option<String>, Setting>,
    newest_id: u32,
}

impl State {
    /// Takes a record of the topic, in the topic's order.
    pub(super) fn apply(&mut self, record: Record, key: &[u8]) -> Result<(), IdTaken> {
        match record {
            Record::Schema(value) => self.put(*value, key)?,
            Record::SchemaRemoved { subject, version } => self.remove(&subject, version),
            Record::SubjectDeleted { subject, version } => {
                if let Some(versions) = self.subjects.get_mut(&subject) {
                    versions.range_mut(..=version).for_each(|(_, v)| v.value.deleted = true);
                }
            }
            Record::Level { subject, level } => set(&mut self.levels, subject, level, key),
            Record::Mode { subject, mode } => set(&mut self.modes, subject, mode, key),
            Record::Noop => {}
        }
        Ok(())
    }

    fn put(&mut self, value: SchemaValue, key: &[u8]) -> Result<(), IdTaken> {
        let identity = full_identity(&value);
        self.newest_id = self.newest_id.max(value.id);
        match self.ids.get(&value.id) {
            Some(known) if known.identity != identity => {
                let (subject, version, id) = (value.subject, value.version, value.id);
                return Err(IdTaken { subject, version, id });
            }
            Some(_) => {}
            None => {
                self.by_identity.entry(identity.clone()).or_insert(value.id);
                self.ids.insert(value.id, Known { identity, value: value.clone() });
            }
        }
        let versions = self.subjects.entry(value.subject.clone()).or_default();
        let replaced = versions.insert(value.version, Version { value, key: key.to_vec() });
        if let Some(replaced) = replaced {
            self.forget_if_unused(replaced.value.id);
        }
        Ok(())
    }

    fn remove(&mut self, subject: &str, version: u32) {
        let Some(versions) = self.subjects.get_mut(subject) else { return };
        let removed = versions.remove(&version);
        if versions.is_empty() {
            self.subjects.remove(subject);
        }
        if let Some(removed) = removed {
            self.forget_if_unused(removed.value.id);
        }
    }

    /// Drops what is known of an id that no version has any more. `newest_id` stays, so that
    /// the id is not given to another schema.
    fn forget_if_unused(&mut self, id: u32) {
        if self.subjects.values().flat_map(BTreeMap::values).any(|v| v.value.id == id) {
            return;
        }
        let Some(known) = self.ids.remove(&id) else { return };
        if self.by_identity.get(&known.identity) == Some(&id) {
            let other = self.ids.iter().find(|(_, other)| other.identity == known.identity);
            match other.map(|(id, _)| *id) {
                Some(other) => self.by_identity.insert(known.identity, other),
                None => self.by_identity.remove(&known.identity),
            };
        }
    }

    /// Names of the subjects with a version that counts.
    pub(super) fn subject_names(&self, deleted: bool) -> Vec<&str> {
        let counts = |versions: &BTreeMap<u32, Version>| {
            deleted || versions.values().any(|version| !version.value.deleted)
        };
        self.subjects.iter().filter(|(_, v)| counts(v)).map(|(name, _)| name.as_str()).collect()
    }

    /// The subject's versions, in order.
    pub(super) fn versions(&self, subject: &str, deleted: bool) -> Vec<&Version> {
        let versions = self.subjects.get(subject).into_iter().flat_map(BTreeMap::values);
        versions.filter(|version| deleted || !version.value.deleted).collect()
    }

    /// One version of a subject.
    pub(super) fn version(&self, subject: &str, version: u32) -> Option<&Version> {
        self.subjects.get(subject)?.get(&version)
    }

    /// The schema with this id.
    pub(super) fn by_id(&self, id: u32) -> Option<&SchemaValue> {
        self.ids.get(&id).map(|known| &known.value)
    }

    /// Subjects and versions that have this id.
    pub(super) fn holders(&self, id: u32, deleted: bool) -> BTreeSet<(&str, u32)> {
        let all = self.subjects.values().flat_map(BTreeMap::values).map(|version| &version.value);
        all.filter(|value| value.id == id && (deleted || !value.deleted))
            .map(|value| (value.subject.as_str(), value.version))
            .collect()
    }

    /// The newest version of the subject that holds this schema.
    pub(super) fn find(&self, subject: &str, text: &str, how: Lookup) -> Option<&SchemaValue> {
        let of = |text: &str| match how.normalize {
            true => normalized_identity(text),
            false => identity(text),
        };
        let wanted = of(text);
        let versions = self.versions(subject, how.deleted).into_iter().rev();
        versions
            .map(|version| &version.value)
            .find(|value| is_plain_avro(value) && of(&value.schema) == wanted)
    }

    /// Id for a schema that its subject does not have: the one it has elsewhere, or a new one.
    pub(super) fn id_for(&self, text: &str) -> u32 {
        let known = self.by_identity.get(&identity_of(None, None, text));
        known.copied().unwrap_or(self.newest_id + 1)
    }

    /// Number of the subject's next version. Numbers of deleted versions are not used again.
    pub(super) fn next_version(&self, subject: &str) -> u32 {
        let last = self.subjects.get(subject).and_then(|versions| versions.keys().next_back());
        last.map_or(1, |version| version + 1)
    }

    /// The subject's own level, or the one for all with `None`.
    pub(super) fn level(&self, subject: Option<&str>) -> Option<&str> {
        get(&self.levels, subject)
    }

    /// The level that holds for a subject.
    pub(super) fn effective_level(&self, subject: &str) -> Level {
        let name = self.level(Some(subject)).or_else(|| self.level(None));
        name.and_then(Level::from_name).unwrap_or(Level::Backward)
    }

    /// The subject's own mode, or the one for all with `None`.
    pub(super) fn mode(&self, subject: Option<&str>) -> Option<&str> {
        get(&self.modes, subject)
    }

    /// The mode that holds for a subject.
    pub(super) fn effective_mode(&self, subject: &str) -> &str {
        self.mode(Some(subject)).or_else(|| self.mode(None)).unwrap_or("READWRITE")
    }

    /// Key under which a level stands in the topic.
    pub(super) fn level_key(&self, subject: Option<&str>) -> Option<Vec<u8>> {
        self.levels.get(&subject.map(str::to_owned)).map(|setting| setting.key.clone())
    }

    /// Key under which a mode stands in the topic.
    pub(super) fn mode_key(&self, subject: Option<&str>) -> Option<Vec<u8>> {
        self.modes.get(&subject.map(str::to_owned)).map(|setting| setting.key.clone())
    }

    /// How many schemas are known by id.
    pub(super) fn schemas(&self) -> usize {
        self.ids.len()
    }
}

type Settings = BTreeMap<Option<String>, Setting>;

fn set(settings: &mut Settings, subject: Option<String>, name: Option<String>, key: &[u8]) {
    match name {
        Some(name) => settings.insert(subject, Setting { name, key: key.to_vec() }),
        None => settings.remove(&subject),
    };
}

fn get<'a>(settings: &'a Settings, subject: Option<&str>) -> Option<&'a str> {
    settings.get(&subject.map(str::to_owned)).map(|setting| setting.name.as_str())
}

/// Whether this registry can compare and check the schema.
pub(super) fn is_plain_avro(value: &SchemaValue) -> bool {
    value.schema_type.as_deref().is_none_or(|kind| kind == "AVRO") && !has_references(value)
}

fn has_references(value: &SchemaValue) -> bool {
    value.references.as_ref().is_some_and(|list| list.as_array().is_none_or(|l| !l.is_empty()))
}

fn full_identity(value: &SchemaValue) -> String {
    let references = value.references.as_ref().filter(|_| has_references(value));
    let references = references.map(|list| list.to_string());
    identity_of(value.schema_type.as_deref(), references.as_deref(), &value.schema)
}

fn identity_of(kind: Option<&str>, references: Option<&str>, text: &str) -> String {
    let (kind, references) = (kind.unwrap_or("AVRO"), references.unwrap_or(""));
    format!("{kind}\n{references}\n{}", identity(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(subject: &str, version: u32, id: u32, text: &str) -> Record {
        let json =
            serde_json::json!({"subject": subject, "version": version, "id": id, "schema": text});
        Record::Schema(serde_json::from_value(json).expect("a value"))
    }

    fn state(records: Vec<Record>) -> State {
        let mut state = State::default();
        records.into_iter().for_each(|record| state.apply(record, b"k").expect("applies"));
        state
    }

    #[test]
    fn an_id_is_not_given_twice_though_its_schema_is_gone() {
        let gone = Record::SchemaRemoved { subject: "a".into(), version: 1 };
        let state = state(vec![schema("a", 1, 4, r#""int""#), gone]);
        assert!(state.by_id(4).is_none());
        assert_eq!(state.id_for(r#""int""#), 5);
        assert!(state.subject_names(true).is_empty());
    }

    #[test]
    fn the_first_schema_of_an_id_stays() {
        let mut state = state(vec![schema("a", 1, 1, r#""int""#)]);
        assert!(state.apply(schema("b", 1, 1, r#""long""#), b"k").is_err());
        assert_eq!(state.by_id(1).map(|value| value.schema.as_str()), Some(r#""int""#));
        assert!(state.versions("b", true).is_empty());
    }

    #[test]
    fn a_deleted_subject_goes_on_counting() {
        let deleted = Record::SubjectDeleted { subject: "a".into(), version: 1 };
        let state = state(vec![schema("a", 1, 1, r#""int""#), deleted]);
        assert!(state.subject_names(false).is_empty());
        assert_eq!(state.subject_names(true), ["a"]);
        assert_eq!(state.next_version("a"), 2);
        assert_eq!(state.id_for(r#" "int" "#), 1);
        assert!(state.find("a", r#""int""#, Lookup::default()).is_none());
        let how = Lookup { deleted: true, ..Lookup::default() };
        assert_eq!(state.find("a", r#""int""#, how).map(|value| value.version), Some(1));
    }

    #[test]
    fn a_subjects_level_goes_before_the_one_for_all() {
        let level = |subject: Option<&str>, level: Option<&str>| Record::Level {
            subject: subject.map(str::to_owned),
            level: level.map(str::to_owned),
        };
        let mut state = state(vec![level(None, Some("FULL")), level(Some("a"), Some("NONE"))]);
        assert_eq!(state.effective_level("a"), Level::None);
        assert_eq!(state.effective_level("b"), Level::Full);
        state.apply(level(Some("a"), None), b"k").expect("applies");
        state.apply(level(None, None), b"k").expect("applies");
        assert_eq!(state.effective_level("a"), Level::Backward);
    }
}
