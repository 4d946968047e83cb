//! What the registry does: reading from the state, writing through the topic.

use apache_avro::Schema;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;

use super::compatibility::{Level, objections};
use super::errors::ApiError;
use super::log::{Log, SharedState, look};
use super::records::{self, SchemaValue};
use super::schema_text::compact;
use super::state::{Lookup, State, is_plain_avro};

/// A schema as clients send it.
#[derive(Debug, Deserialize)]
pub(super) struct SchemaRequest {
    schema: String,
    #[serde(rename = "schemaType")]
    schema_type: Option<String>,
    references: Option<Vec<Value>>,
    id: Option<i64>,
}

/// Which version of a subject.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which {
    Latest,
    Number(u32),
}

impl Which {
    /// Reads the version of a path.
    pub(super) fn parse(text: &str) -> Result<Which, ApiError> {
        if text == "latest" || text == "-1" {
            return Ok(Which::Latest);
        }
        match text.parse::<u32>() {
            Ok(number) if (1..=i32::MAX as u32).contains(&number) => Ok(Which::Number(number)),
            _ => Err(ApiError::InvalidVersion(text.to_owned())),
        }
    }
}

/// What a setting is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Setting {
    Level,
    Mode,
}

/// The registry behind its API.
pub(super) struct Service {
    state: SharedState,
    log: Log,
    /// Whoever writes holds it from looking at the state to reading its own record back.
    turn: Mutex<()>,
}

impl Service {
    /// A service over a state that has been read to the topic's end.
    pub(super) fn new(state: SharedState, log: Log) -> Service {
        Service { state, log, turn: Mutex::new(()) }
    }

    /// Looks at the state.
    pub(super) fn read<T>(&self, look_at: impl FnOnce(&State) -> T) -> T {
        look_at(&look(&self.state))
    }

    /// Registers a schema, or finds that it is there.
    pub(super) async fn register(
        &self,
        subject: &str,
        request: &SchemaRequest,
        normalize: bool,
    ) -> Result<u32, ApiError> {
        valid_subject(subject)?;
        let (text, schema) = request.checked()?;
        let how = Lookup { normalize, deleted: false };
        let present = |state: &State| state.find(subject, &text, how).map(|value| value.id);
        if let Some(id) = self.read(present) {
            return Ok(id);
        }
        let _turn = self.turn.lock().await;
        self.log.catch_up().await?;
        if let Some(id) = self.read(present) {
            return Ok(id);
        }
        let value = self.read(|state| {
            writable(state, subject)?;
            if request.id.is_some_and(|id| id != -1) {
                let reason = "an id can be chosen in the mode IMPORT only, which is not offered";
                return Err(ApiError::NotPermitted(reason.into()));
            }
            compatible(state, subject, &schema)?;
            Ok(SchemaValue {
                subject: subject.to_owned(),
                version: state.next_version(subject),
                id: state.id_for(&text),
                schema_type: None,
                references: None,
                schema: text.clone(),
                deleted: false,
                rest: serde_json::Map::new(),
            })
        })?;
        self.write_schema(&records::schema_key(subject, value.version), &value).await?;
        Ok(value.id)
    }

    /// Writes a version and makes sure that it is what the topic says now.
    async fn write_schema(&self, key: &[u8], value: &SchemaValue) -> Result<(), ApiError> {
        let json = serde_json::to_vec(value).map_err(|error| ApiError::Store(error.to_string()))?;
        self.log.append(key, Some(&json)).await?;
        let stands = self.read(|state| {
            state.version(&value.subject, value.version).is_some_and(|there| there.value == *value)
        });
        if stands {
            return Ok(());
        }
        Err(ApiError::Store("another registry wrote at the same time, run only one".into()))
    }

    /// Reasons why the schema may not be registered; against one version, or as the level says.
    pub(super) fn check(
        &self,
        subject: &str,
        against: Option<Which>,
        request: &SchemaRequest,
    ) -> Result<Vec<String>, ApiError> {
        let (_, schema) = request.checked()?;
        self.read(|state| {
            let level = state.effective_level(subject);
            match against {
                None => reasons_by_level(state, subject, &schema),
                Some(which) => {
                    let old = pick(state, subject, which, false)?;
                    Ok(objections(&schema, &parsed(old)?, level))
                }
            }
        })
    }

    /// Deletes a subject: marks its versions, or removes the marked ones for good.
    pub(super) async fn delete_subject(
        &self,
        subject: &str,
        permanent: bool,
    ) -> Result<Vec<u32>, ApiError> {
        let _turn = self.turn.lock().await;
        self.log.catch_up().await?;
        let name = || subject.to_owned();
        let (live, all) = self.read(|state| {
            writable(state, subject)?;
            let keyed = |deleted| {
                let versions = state.versions(subject, deleted).into_iter();
                versions.map(|v| (v.value.version, v.key.clone())).collect::<Vec<_>>()
            };
            Ok((keyed(false), keyed(true)))
        })?;
        if all.is_empty() {
            return Err(ApiError::Subject(name()));
        }
        if permanent {
            if !live.is_empty() {
                return Err(ApiError::SubjectNotSoftDeleted(name()));
            }
            for (_, key) in &all {
                self.log.append(key, None).await?;
            }
            return Ok(all.into_iter().map(|(version, _)| version).collect());
        }
        let Some((last, _)) = live.last() else {
            return Err(ApiError::SubjectSoftDeleted(name()));
        };
        let (key, value) = records::subject_deleted(subject, *last);
        self.log.append(&key, Some(&value)).await?;
        Ok(live.into_iter().map(|(version, _)| version).collect())
    }

    /// Deletes a version: marks it, or removes a marked one for good.
    pub(super) async fn delete_version(
        &self,
        subject: &str,
        which: Which,
        permanent: bool,
    ) -> Result<u32, ApiError> {
        let _turn = self.turn.lock().await;
        self.log.catch_up().await?;
        let (mut value, key) = self.read(|state| {
            writable(state, subject)?;
            // "latest" means the newest that is there, also where a deleted one is newer.
            let deleted = permanent || matches!(which, Which::Number(_));
            let value = pick(state, subject, which, deleted)?.clone();
            let key = state.version(subject, value.version).map(|version| version.key.clone());
            Ok((value, key.unwrap_or_default()))
        })?;
        let version = value.version;
        match (permanent, value.deleted) {
            (false, true) => Err(ApiError::VersionSoftDeleted(subject.to_owned(), version)),
            (true, false) => Err(ApiError::VersionNotSoftDeleted(subject.to_owned(), version)),
            (true, true) => {
                self.log.append(&key, None).await?;
                Ok(version)
            }
            (false, false) => {
                value.deleted = true;
                self.write_schema(&key, &value).await?;
                Ok(version)
            }
        }
    }

    /// Sets or removes (`None`) a compatibility level or a mode.
    pub(super) async fn set(
        &self,
        setting: Setting,
        subject: Option<&str>,
        name: Option<&str>,
    ) -> Result<(), ApiError> {
        if let Some(subject) = subject {
            valid_subject(subject)?;
        }
        let _turn = self.turn.lock().await;
        self.log.catch_up().await?;
        let (known, new, value) = self.read(|state| match setting {
            Setting::Level => (
                state.level_key(subject),
                records::level_key(subject),
                name.map(records::level_value),
            ),
            Setting::Mode => {
                (state.mode_key(subject), records::mode_key(subject), name.map(records::mode_value))
            }
        });
        self.log.append(&known.unwrap_or(new), value.as_deref()).await
    }
}

impl SchemaRequest {
    /// The schema as it is kept, and parsed.
    pub(super) fn checked(&self) -> Result<(String, Schema), ApiError> {
        let kind = self.schema_type.as_deref().unwrap_or("AVRO");
        if !kind.eq_ignore_ascii_case("AVRO") {
            let reason = format!("only the type AVRO is taken, not {kind}");
            return Err(ApiError::InvalidSchema(reason));
        }
        if self.references.as_ref().is_some_and(|list| !list.is_empty()) {
            let reason = "references are not taken; write the named types into the schema";
            return Err(ApiError::InvalidSchema(reason.into()));
        }
        let text = compact(&self.schema);
        match Schema::parse_str(&text) {
            Ok(schema) => Ok((text, schema)),
            Err(error) => Err(ApiError::InvalidSchema(error.to_string())),
        }
    }
}

/// The version asked for.
pub(super) fn pick<'a>(
    state: &'a State,
    subject: &str,
    which: Which,
    deleted: bool,
) -> Result<&'a SchemaValue, ApiError> {
    let versions = state.versions(subject, deleted);
    let found = match which {
        Which::Latest => versions.last(),
        Which::Number(number) => versions.iter().find(|v| v.value.version == number),
    };
    match (found, which) {
        (Some(version), _) => Ok(&version.value),
        (None, Which::Number(number)) if !versions.is_empty() => {
            Err(ApiError::Version(number.to_string()))
        }
        _ => Err(ApiError::Subject(subject.to_owned())),
    }
}

fn valid_subject(subject: &str) -> Result<(), ApiError> {
    // The two names mean "all subjects" and "none" to Confluent's registry.
    let reserved = matches!(subject, "" | "__GLOBAL" | "__EMPTY");
    if reserved || subject.chars().any(char::is_control) {
        return Err(ApiError::InvalidSubject(subject.to_owned()));
    }
    Ok(())
}

fn writable(state: &State, subject: &str) -> Result<(), ApiError> {
    match state.effective_mode(subject) {
        "READWRITE" => Ok(()),
        mode => Err(ApiError::NotPermitted(format!(
            "subject '{subject}' is in mode {mode}; set it to READWRITE to write"
        ))),
    }
}

fn parsed(value: &SchemaValue) -> Result<Schema, ApiError> {
    let place = format!("subject '{}' version {}", value.subject, value.version);
    if !is_plain_avro(value) {
        let reason = format!("{place} is not avro without references; it cannot be compared");
        return Err(ApiError::InvalidSchema(reason));
    }
    Schema::parse_str(&value.schema)
        .map_err(|error| ApiError::InvalidSchema(format!("{place} cannot be parsed: {error}")))
}

fn reasons_by_level(state: &State, subject: &str, new: &Schema) -> Result<Vec<String>, ApiError> {
    let level = state.effective_level(subject);
    if level == Level::None {
        return Ok(Vec::new());
    }
    let mut versions = state.versions(subject, false);
    if !level.transitive() {
        versions = versions.split_off(versions.len().saturating_sub(1));
    }
    let mut reasons = Vec::new();
    for version in versions {
        reasons.extend(objections(new, &parsed(&version.value)?, level));
    }
    Ok(reasons)
}

fn compatible(state: &State, subject: &str, new: &Schema) -> Result<(), ApiError> {
    let reasons = reasons_by_level(state, subject, new)?;
    if reasons.is_empty() {
        return Ok(());
    }
    let level = state.effective_level(subject).name();
    Err(ApiError::Incompatible { subject: subject.to_owned(), level, reasons: reasons.join("; ") })
}
