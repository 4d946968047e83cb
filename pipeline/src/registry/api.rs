//! The REST API: paths, parameters and answers. What they do is in `service`.
//!
//! Source: Confluent Schema Registry documentation, "API reference".

use std::collections::HashMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State as Extract};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::errors::ApiError;
use super::records::SchemaValue;
use super::service::{SchemaRequest, Service, Which, pick};
use super::settings;
use super::state::Lookup;

const LARGEST_BODY_BYTES: usize = 4 * 1024 * 1024;

/// JSON under the API's own media type.
pub(super) struct Body<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Body<T> {
    fn into_response(self) -> Response {
        let text = serde_json::to_vec(&self.0).unwrap_or_default();
        ([(CONTENT_TYPE, "application/vnd.schemaregistry.v1+json")], text).into_response()
    }
}

pub(super) type Answer = Result<Body<Value>, ApiError>;
pub(super) type Registry = Extract<Arc<Service>>;
pub(super) type Parameters = Query<HashMap<String, String>>;

/// Whether a parameter says true. Python's clients write `True`.
pub(super) fn flag(parameters: &HashMap<String, String>, name: &str) -> bool {
    parameters.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// Reads a request's JSON whatever its media type: clients differ in it.
pub(super) fn read_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::Request(error.to_string()))
}

/// Runs a write to its end, also where the client goes away: a write that is dropped in the
/// middle would let the next one choose the same id.
pub(super) async fn to_the_end<T: Send + 'static>(
    write: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::spawn(write).await {
        Ok(result) => result,
        Err(error) => Err(ApiError::Store(error.to_string())),
    }
}

/// All paths.
pub(super) fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/", get(async || Body(json!({}))))
        .route("/subjects", get(subjects))
        .route("/subjects/{subject}", post(look_up).delete(delete_subject))
        .route("/subjects/{subject}/versions", get(versions).post(register))
        .route("/subjects/{subject}/versions/{version}", get(version).delete(delete_version))
        .route("/subjects/{subject}/versions/{version}/schema", get(version_text))
        .route("/subjects/{subject}/versions/{version}/referencedby", get(referenced_by))
        .route("/schemas", get(schemas))
        .route("/schemas/types", get(async || Body(json!(["AVRO"]))))
        .route("/schemas/ids/{id}", get(by_id))
        .route("/schemas/ids/{id}/schema", get(text_by_id))
        .route("/schemas/ids/{id}/versions", get(versions_by_id))
        .route("/schemas/ids/{id}/subjects", get(subjects_by_id))
        .route("/compatibility/subjects/{subject}/versions", post(check_all))
        .route("/compatibility/subjects/{subject}/versions/{version}", post(check_one))
        .merge(settings::routes())
        .fallback(async || ApiError::NoSuchPath)
        .method_not_allowed_fallback(async || ApiError::Method)
        .layer(DefaultBodyLimit::max(LARGEST_BODY_BYTES))
        .with_state(service)
}

/// A version in full. Avro goes without saying, as in Confluent's answers.
fn in_full(value: &SchemaValue) -> Value {
    let mut answer = json!({
        "subject": value.subject, "version": value.version, "id": value.id, "schema": value.schema,
    });
    add_type(&mut answer, value);
    answer
}

fn add_type(answer: &mut Value, value: &SchemaValue) {
    if let Some(kind) = value.schema_type.as_deref().filter(|kind| *kind != "AVRO") {
        answer["schemaType"] = kind.into();
    }
    if let Some(references) = &value.references {
        answer["references"] = references.clone();
    }
}

async fn subjects(registry: Registry, Query(parameters): Parameters) -> Answer {
    let prefix = parameters.get("subjectPrefix").map_or("", String::as_str);
    let deleted = flag(&parameters, "deleted");
    Ok(registry.read(|state| {
        let names = state.subject_names(deleted).into_iter();
        Body(names.filter(|name| name.starts_with(prefix)).collect())
    }))
}

async fn versions(
    registry: Registry,
    Path(subject): Path<String>,
    Query(parameters): Parameters,
) -> Answer {
    let deleted = flag(&parameters, "deleted");
    let numbers: Vec<u32> = registry.read(|state| {
        state.versions(&subject, deleted).into_iter().map(|v| v.value.version).collect()
    });
    if numbers.is_empty() {
        return Err(ApiError::Subject(subject));
    }
    Ok(Body(json!(numbers)))
}

async fn register(
    Extract(registry): Registry,
    Path(subject): Path<String>,
    Query(parameters): Parameters,
    body: Bytes,
) -> Answer {
    let request: SchemaRequest = read_body(&body)?;
    let normalize = flag(&parameters, "normalize");
    let id = to_the_end(async move { registry.register(&subject, &request, normalize).await });
    Ok(Body(json!({"id": id.await?})))
}

async fn look_up(
    registry: Registry,
    Path(subject): Path<String>,
    Query(parameters): Parameters,
    body: Bytes,
) -> Answer {
    let request: SchemaRequest = read_body(&body)?;
    let deleted = flag(&parameters, "deleted");
    let how = Lookup { normalize: flag(&parameters, "normalize"), deleted };
    registry.read(|state| {
        if state.versions(&subject, deleted).is_empty() {
            return Err(ApiError::Subject(subject.clone()));
        }
        let (text, _) = request.checked()?;
        let found = state.find(&subject, &text, how);
        found.map(|value| Body(in_full(value))).ok_or_else(|| ApiError::Schema("sent".into()))
    })
}

async fn delete_subject(
    Extract(registry): Registry,
    Path(subject): Path<String>,
    Query(parameters): Parameters,
) -> Answer {
    let permanent = flag(&parameters, "permanent");
    let deleted = to_the_end(async move { registry.delete_subject(&subject, permanent).await });
    Ok(Body(json!(deleted.await?)))
}

async fn version(
    registry: Registry,
    Path((subject, version)): Path<(String, String)>,
    Query(parameters): Parameters,
) -> Answer {
    let which = Which::parse(&version)?;
    let deleted = flag(&parameters, "deleted");
    registry.read(|state| pick(state, &subject, which, deleted).map(|value| Body(in_full(value))))
}

async fn version_text(
    registry: Registry,
    Path((subject, version)): Path<(String, String)>,
    Query(parameters): Parameters,
) -> Result<Response, ApiError> {
    let which = Which::parse(&version)?;
    let deleted = flag(&parameters, "deleted");
    registry.read(|state| pick(state, &subject, which, deleted).map(|value| raw(&value.schema)))
}

/// A schema by itself: JSON already where it is Avro.
fn raw(schema: &str) -> Response {
    let media_type = [(CONTENT_TYPE, "application/vnd.schemaregistry.v1+json")];
    (media_type, schema.to_owned()).into_response()
}

async fn referenced_by(
    registry: Registry,
    Path((subject, version)): Path<(String, String)>,
) -> Answer {
    let which = Which::parse(&version)?;
    registry.read(|state| pick(state, &subject, which, true).map(|_| Body(json!([]))))
}

async fn delete_version(
    Extract(registry): Registry,
    Path((subject, version)): Path<(String, String)>,
    Query(parameters): Parameters,
) -> Answer {
    let which = Which::parse(&version)?;
    let permanent = flag(&parameters, "permanent");
    let deleted =
        to_the_end(async move { registry.delete_version(&subject, which, permanent).await });
    Ok(Body(json!(deleted.await?)))
}

async fn schemas(registry: Registry, Query(parameters): Parameters) -> Answer {
    let prefix = parameters.get("subjectPrefix").map_or("", String::as_str);
    let deleted = flag(&parameters, "deleted");
    let latest = flag(&parameters, "latestOnly");
    Ok(registry.read(|state| {
        let mut all = Vec::new();
        for subject in state.subject_names(deleted).into_iter().filter(|s| s.starts_with(prefix)) {
            let mut versions = state.versions(subject, deleted);
            if latest {
                versions = versions.split_off(versions.len().saturating_sub(1));
            }
            all.extend(versions.into_iter().map(|version| in_full(&version.value)));
        }
        Body(all.into())
    }))
}

fn parse_id(text: &str) -> Result<u32, ApiError> {
    text.parse().map_err(|_| ApiError::NoSuchPath)
}

async fn by_id(registry: Registry, Path(id): Path<String>) -> Answer {
    let number = parse_id(&id)?;
    registry.read(|state| {
        let value = state.by_id(number).ok_or(ApiError::Schema(id))?;
        let mut answer = json!({"schema": value.schema});
        add_type(&mut answer, value);
        Ok(Body(answer))
    })
}

async fn text_by_id(registry: Registry, Path(id): Path<String>) -> Result<Response, ApiError> {
    let number = parse_id(&id)?;
    registry.read(|state| {
        state.by_id(number).map(|value| raw(&value.schema)).ok_or(ApiError::Schema(id))
    })
}

async fn versions_by_id(
    registry: Registry,
    Path(id): Path<String>,
    Query(parameters): Parameters,
) -> Answer {
    let number = parse_id(&id)?;
    let deleted = flag(&parameters, "deleted");
    registry.read(|state| {
        state.by_id(number).ok_or(ApiError::Schema(id))?;
        let holders = state.holders(number, deleted).into_iter();
        let holders = holders.map(|(subject, v)| json!({"subject": subject, "version": v}));
        Ok(Body(holders.collect()))
    })
}

async fn subjects_by_id(
    registry: Registry,
    Path(id): Path<String>,
    Query(parameters): Parameters,
) -> Answer {
    let number = parse_id(&id)?;
    let deleted = flag(&parameters, "deleted");
    registry.read(|state| {
        state.by_id(number).ok_or(ApiError::Schema(id))?;
        let mut subjects: Vec<_> =
            state.holders(number, deleted).into_iter().map(|(subject, _)| subject).collect();
        subjects.dedup();
        Ok(Body(json!(subjects)))
    })
}

async fn check_all(
    registry: Registry,
    Path(subject): Path<String>,
    Query(parameters): Parameters,
    body: Bytes,
) -> Answer {
    let reasons = registry.check(&subject, None, &read_body(&body)?)?;
    Ok(verdict(&reasons, flag(&parameters, "verbose")))
}

async fn check_one(
    registry: Registry,
    Path((subject, version)): Path<(String, String)>,
    Query(parameters): Parameters,
    body: Bytes,
) -> Answer {
    let against = Which::parse(&version)?;
    let reasons = registry.check(&subject, Some(against), &read_body(&body)?)?;
    Ok(verdict(&reasons, flag(&parameters, "verbose")))
}

fn verdict(reasons: &[String], verbose: bool) -> Body<Value> {
    let mut answer = json!({"is_compatible": reasons.is_empty()});
    if verbose {
        answer["messages"] = json!(reasons);
    }
    Body(answer)
}
