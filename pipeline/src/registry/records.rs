//! The records of the schemas topic, byte for byte as Confluent's registry and
//! Karapace write them, so that any of the three can take over from another.
//!
//! Sources: Confluent Schema Registry, `storage/*Key.java` and `*Value.java`;
//! Karapace, `core/key_format.py`, `core/schema_registry.py`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

/// Why a record of the topic was not taken. Such records are logged and passed over: a foreign
/// registry may write kinds of records that this one has no use for.
#[derive(Debug, Error)]
pub(super) enum RecordError {
    #[error("the record has no key")]
    NoKey,
    #[error("the {0} is not the JSON expected: {1}")]
    Json(&'static str, #[source] serde_json::Error),
    #[error("the key of a {keytype} record lacks its {field}")]
    Incomplete { keytype: String, field: &'static str },
    #[error("no use for records of the type {0}")]
    UnknownType(String),
}

/// One version of a subject, as it stands in the topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct SchemaValue {
    pub(super) subject: String,
    pub(super) version: u32,
    pub(super) id: u32,
    /// Absent for Avro.
    #[serde(rename = "schemaType", default, skip_serializing_if = "Option::is_none")]
    pub(super) schema_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) references: Option<Value>,
    pub(super) schema: String,
    #[serde(default)]
    pub(super) deleted: bool,
    /// What other registries keep beside (hashes, metadata): carried along when a record is
    /// written again, so that a take-over loses nothing.
    #[serde(flatten)]
    pub(super) rest: Map<String, Value>,
}

/// A record of the topic, understood.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Record {
    /// A version written, or rewritten as deleted.
    Schema(Box<SchemaValue>),
    /// A version removed for good.
    SchemaRemoved { subject: String, version: u32 },
    /// All versions of a subject up to this one deleted.
    SubjectDeleted { subject: String, version: u32 },
    /// A compatibility level, of a subject or of all; `None` removes it.
    Level { subject: Option<String>, level: Option<String> },
    /// A mode, of a subject or of all; `None` removes it.
    Mode { subject: Option<String>, mode: Option<String> },
    /// Says nothing.
    Noop,
}

#[derive(Deserialize)]
struct AnyKey {
    keytype: String,
    subject: Option<String>,
    version: Option<u32>,
}

#[derive(Deserialize)]
struct SubjectDeletedValue {
    version: u32,
}

#[derive(Deserialize)]
struct LevelValue {
    #[serde(rename = "compatibilityLevel")]
    level: Option<String>,
}

#[derive(Deserialize)]
struct ModeValue {
    mode: Option<String>,
}

impl Record {
    /// Reads a record. Karapace's tombstones have an empty value instead of none.
    pub(super) fn read(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Record, RecordError> {
        let key: AnyKey = json("key", key.ok_or(RecordError::NoKey)?)?;
        let value = value.filter(|value| !value.is_empty() && *value != b"null");
        let incomplete = |field| RecordError::Incomplete { keytype: key.keytype.clone(), field };
        Ok(match key.keytype.as_str() {
            "SCHEMA" => match value {
                Some(value) => Record::Schema(json("value", value)?),
                None => Record::SchemaRemoved {
                    subject: key.subject.clone().ok_or_else(|| incomplete("subject"))?,
                    version: key.version.ok_or_else(|| incomplete("version"))?,
                },
            },
            "DELETE_SUBJECT" => match value {
                Some(value) => Record::SubjectDeleted {
                    subject: key.subject.clone().ok_or_else(|| incomplete("subject"))?,
                    version: json::<SubjectDeletedValue>("value", value)?.version,
                },
                None => Record::Noop,
            },
            "CONFIG" => Record::Level {
                subject: key.subject,
                level: optional::<LevelValue>(value)?.and_then(|value| value.level),
            },
            "MODE" => Record::Mode {
                subject: key.subject,
                mode: optional::<ModeValue>(value)?.and_then(|value| value.mode),
            },
            "NOOP" => Record::Noop,
            _ => return Err(RecordError::UnknownType(key.keytype)),
        })
    }
}

fn json<'a, T: Deserialize<'a>>(part: &'static str, text: &'a [u8]) -> Result<T, RecordError> {
    serde_json::from_slice(text).map_err(|error| RecordError::Json(part, error))
}

fn optional<'a, T: Deserialize<'a>>(value: Option<&'a [u8]>) -> Result<Option<T>, RecordError> {
    value.map(|value| json("value", value)).transpose()
}

/// The text of a JSON string, quotes included.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn subject_or_null(subject: Option<&str>) -> String {
    subject.map_or_else(|| "null".to_owned(), quoted)
}

/// Key of one version. Compaction compares bytes: order and spacing of keys are part of the format.
pub(super) fn schema_key(subject: &str, version: u32) -> Vec<u8> {
    let subject = quoted(subject);
    format!(r#"{{"keytype":"SCHEMA","subject":{subject},"version":{version},"magic":1}}"#)
        .into_bytes()
}

/// Key and value of "all versions of this subject up to `version` are deleted".
pub(super) fn subject_deleted(subject: &str, version: u32) -> (Vec<u8>, Vec<u8>) {
    let subject = quoted(subject);
    (
        format!(r#"{{"keytype":"DELETE_SUBJECT","subject":{subject},"magic":0}}"#).into_bytes(),
        format!(r#"{{"subject":{subject},"version":{version}}}"#).into_bytes(),
    )
}

/// Key of a compatibility level.
pub(super) fn level_key(subject: Option<&str>) -> Vec<u8> {
    let subject = subject_or_null(subject);
    format!(r#"{{"keytype":"CONFIG","subject":{subject},"magic":0}}"#).into_bytes()
}

/// Value of a compatibility level.
pub(super) fn level_value(level: &str) -> Vec<u8> {
    format!(r#"{{"compatibilityLevel":{}}}"#, quoted(level)).into_bytes()
}

/// Key of a mode.
pub(super) fn mode_key(subject: Option<&str>) -> Vec<u8> {
    let subject = subject_or_null(subject);
    format!(r#"{{"keytype":"MODE","subject":{subject},"magic":0}}"#).into_bytes()
}

/// Value of a mode.
pub(super) fn mode_value(mode: &str) -> Vec<u8> {
    format!(r#"{{"mode":{}}}"#, quoted(mode)).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_confluent_and_karapace() {
        assert_eq!(
            schema_key("md.trade.raw-value", 1),
            br#"{"keytype":"SCHEMA","subject":"md.trade.raw-value","version":1,"magic":1}"#
        );
        assert_eq!(level_key(None), br#"{"keytype":"CONFIG","subject":null,"magic":0}"#);
        assert_eq!(level_key(Some("s")), br#"{"keytype":"CONFIG","subject":"s","magic":0}"#);
        assert_eq!(
            subject_deleted("s\"x", 2).0,
            br#"{"keytype":"DELETE_SUBJECT","subject":"s\"x","magic":0}"#
        );
    }

    #[test]
    fn what_other_registries_keep_survives_a_rewrite() {
        let key = schema_key("s", 1);
        let text =
            br#"{"subject":"s","version":1,"id":7,"md5":"abc","schema":"\"int\"","deleted":false}"#;
        let Ok(Record::Schema(value)) = Record::read(Some(&key), Some(text)) else {
            panic!("not read as a schema");
        };
        assert_eq!(value.rest["md5"], "abc");
        let again = serde_json::to_vec(&value).expect("serialisable");
        assert_eq!(
            Record::read(Some(&key), Some(&again)).expect("readable"),
            Record::Schema(value)
        );
    }

    #[test]
    fn tombstones_noops_and_foreign_kinds_are_told_apart() {
        let key = schema_key("s", 3);
        for value in [None, Some(&b""[..]), Some(&b"null"[..])] {
            assert_eq!(
                Record::read(Some(&key), value).expect("a tombstone"),
                Record::SchemaRemoved { subject: "s".into(), version: 3 }
            );
        }
        let noop = br#"{"keytype":"NOOP","magic":0}"#;
        assert_eq!(Record::read(Some(noop), None).expect("a noop"), Record::Noop);
        let foreign = br#"{"keytype":"CONTEXT","tenant":"default","context":".","magic":0}"#;
        assert!(matches!(Record::read(Some(foreign), None), Err(RecordError::UnknownType(_))));
        assert!(matches!(Record::read(None, None), Err(RecordError::NoKey)));
        assert!(matches!(Record::read(Some(b"{"), None), Err(RecordError::Json("key", _))));
    }
}
