//! The paths `/config` and `/mode`, for all subjects and for one.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State as Extract};
use axum::routing::get;
use serde::Deserialize;
use serde_json::json;

use super::api::{Answer, Body, Parameters, Registry, flag, read_body, to_the_end};
use super::compatibility::Level;
use super::errors::ApiError;
use super::service::{Service, Setting};

const DEFAULT_LEVEL: &str = "BACKWARD";
const DEFAULT_MODE: &str = "READWRITE";

/// The paths of the settings.
pub(super) fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/config", get(level).put(put_level).delete(delete_level))
        .route(
            "/config/{subject}",
            get(subject_level).put(put_subject_level).delete(delete_subject_level),
        )
        .route("/mode", get(mode).put(put_mode))
        .route(
            "/mode/{subject}",
            get(subject_mode).put(put_subject_mode).delete(delete_subject_mode),
        )
}

#[derive(Deserialize)]
struct LevelRequest {
    compatibility: String,
}

#[derive(Deserialize)]
struct ModeRequest {
    mode: String,
}

fn global_level(registry: &Service) -> String {
    registry.read(|state| state.level(None).unwrap_or(DEFAULT_LEVEL).to_owned())
}

async fn level(registry: Registry) -> Answer {
    Ok(Body(json!({"compatibilityLevel": global_level(&registry)})))
}

async fn subject_level(
    registry: Registry,
    Path(subject): Path<String>,
    Query(parameters): Parameters,
) -> Answer {
    let own = registry.read(|state| state.level(Some(&subject)).map(str::to_owned));
    let level = match own {
        Some(level) => level,
        None if flag(&parameters, "defaultToGlobal") => global_level(&registry),
        None => return Err(ApiError::NoLevel(subject)),
    };
    Ok(Body(json!({"compatibilityLevel": level})))
}

async fn put_level(registry: Registry, body: Bytes) -> Answer {
    set_level(registry, None, &body).await
}

async fn put_subject_level(registry: Registry, subject: Path<String>, body: Bytes) -> Answer {
    set_level(registry, Some(subject.0), &body).await
}

async fn set_level(Extract(registry): Registry, subject: Option<String>, body: &[u8]) -> Answer {
    let request: LevelRequest = read_body(body)?;
    let Some(level) = Level::from_name(&request.compatibility) else {
        return Err(ApiError::InvalidLevel(request.compatibility));
    };
    to_the_end(async move {
        registry.set(Setting::Level, subject.as_deref(), Some(level.name())).await
    })
    .await?;
    Ok(Body(json!({"compatibility": level.name()})))
}

async fn delete_level(Extract(registry): Registry) -> Answer {
    let was = global_level(&registry);
    to_the_end(async move { registry.set(Setting::Level, None, None).await }).await?;
    Ok(Body(json!({"compatibilityLevel": was})))
}

async fn delete_subject_level(Extract(registry): Registry, Path(subject): Path<String>) -> Answer {
    let own = registry.read(|state| state.level(Some(&subject)).map(str::to_owned));
    let was = own.ok_or_else(|| ApiError::NoLevel(subject.clone()))?;
    to_the_end(async move { registry.set(Setting::Level, Some(&subject), None).await }).await?;
    Ok(Body(json!({"compatibilityLevel": was})))
}

fn global_mode(registry: &Service) -> String {
    registry.read(|state| state.mode(None).unwrap_or(DEFAULT_MODE).to_owned())
}

async fn mode(registry: Registry) -> Answer {
    Ok(Body(json!({"mode": global_mode(&registry)})))
}

async fn subject_mode(
    registry: Registry,
    Path(subject): Path<String>,
    Query(parameters): Parameters,
) -> Answer {
    let own = registry.read(|state| state.mode(Some(&subject)).map(str::to_owned));
    let mode = match own {
        Some(mode) => mode,
        None if flag(&parameters, "defaultToGlobal") => global_mode(&registry),
        None => return Err(ApiError::NoMode(subject)),
    };
    Ok(Body(json!({"mode": mode})))
}

async fn put_mode(registry: Registry, body: Bytes) -> Answer {
    set_mode(registry, None, &body).await
}

async fn put_subject_mode(registry: Registry, subject: Path<String>, body: Bytes) -> Answer {
    set_mode(registry, Some(subject.0), &body).await
}

async fn set_mode(Extract(registry): Registry, subject: Option<String>, body: &[u8]) -> Answer {
    let request: ModeRequest = read_body(body)?;
    let mode = request.mode.to_ascii_uppercase();
    if !matches!(mode.as_str(), "READWRITE" | "READONLY") {
        return Err(ApiError::InvalidMode(request.mode));
    }
    let answer = json!({"mode": mode});
    to_the_end(async move { registry.set(Setting::Mode, subject.as_deref(), Some(&mode)).await })
        .await?;
    Ok(Body(answer))
}

async fn delete_subject_mode(Extract(registry): Registry, Path(subject): Path<String>) -> Answer {
    let own = registry.read(|state| state.mode(Some(&subject)).map(str::to_owned));
    let was = own.ok_or_else(|| ApiError::NoMode(subject.clone()))?;
    to_the_end(async move { registry.set(Setting::Mode, Some(&subject), None).await }).await?;
    Ok(Body(json!({"mode": was})))
}
