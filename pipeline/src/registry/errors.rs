//! Refusals, with the codes of the Confluent API.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use thiserror::Error;

use super::api::Body;

/// Why a request was refused.
#[derive(Debug, Error)]
pub(super) enum ApiError {
    #[error("nothing is served at this path")]
    NoSuchPath,
    #[error("this path does not take that method")]
    Method,
    #[error("the request could not be read: {0}")]
    Request(String),
    #[error("subject '{0}' not found")]
    Subject(String),
    #[error("version {0} not found")]
    Version(String),
    #[error("schema {0} not found")]
    Schema(String),
    #[error("subject '{0}' was soft deleted; add permanent=true to remove it for good")]
    SubjectSoftDeleted(String),
    #[error("subject '{0}' was not deleted first; delete it without permanent=true before")]
    SubjectNotSoftDeleted(String),
    #[error("subject '{0}' version {1} was soft deleted; add permanent=true to remove it for good")]
    VersionSoftDeleted(String, u32),
    #[error(
        "subject '{0}' version {1} was not deleted first; delete it without permanent=true before"
    )]
    VersionNotSoftDeleted(String, u32),
    #[error("subject '{0}' has no compatibility level of its own; add defaultToGlobal=true")]
    NoLevel(String),
    #[error("subject '{0}' has no mode of its own; add defaultToGlobal=true")]
    NoMode(String),
    #[error(
        "the schema is incompatible with an earlier one of subject '{subject}' (level {level}): {reasons}"
    )]
    Incompatible { subject: String, level: &'static str, reasons: String },
    #[error("the schema is invalid: {0}")]
    InvalidSchema(String),
    #[error("the version '{0}' is invalid; give a number from 1 to 2147483647, or latest")]
    InvalidVersion(String),
    #[error(
        "the compatibility level '{0}' is invalid; give none, backward, backward_transitive, \
         forward, forward_transitive, full or full_transitive"
    )]
    InvalidLevel(String),
    #[error("the mode '{0}' is invalid here; give READWRITE or READONLY")]
    InvalidMode(String),
    #[error("{0}")]
    NotPermitted(String),
    #[error("the subject '{0}' is not a valid name; choose another")]
    InvalidSubject(String),
    #[error("the schemas topic could not be written: {0}; try again")]
    Store(String),
    #[error("the schemas topic did not answer in time; try again")]
    Timeout,
}

impl ApiError {
    /// The code in the answer's body; the HTTP status is its first three digits.
    fn code(&self) -> u16 {
        match self {
            ApiError::NoSuchPath => 404,
            ApiError::Method => 405,
            ApiError::Request(_) => 422,
            ApiError::Subject(_) => 40401,
            ApiError::Version(_) => 40402,
            ApiError::Schema(_) => 40403,
            ApiError::SubjectSoftDeleted(_) => 40404,
            ApiError::SubjectNotSoftDeleted(_) => 40405,
            ApiError::VersionSoftDeleted(..) => 40406,
            ApiError::VersionNotSoftDeleted(..) => 40407,
            ApiError::NoLevel(_) => 40408,
            ApiError::NoMode(_) => 40409,
            ApiError::Incompatible { .. } => 409,
            ApiError::InvalidSchema(_) => 42201,
            ApiError::InvalidVersion(_) => 42202,
            ApiError::InvalidLevel(_) => 42203,
            ApiError::InvalidMode(_) => 42204,
            ApiError::NotPermitted(_) => 42205,
            ApiError::InvalidSubject(_) => 42208,
            ApiError::Store(_) => 50001,
            ApiError::Timeout => 50002,
        }
    }

    fn status(&self) -> StatusCode {
        let code = self.code();
        let digits = if code > 999 { code / 100 } else { code };
        StatusCode::from_u16(digits).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        if status.is_server_error() {
            tracing::error!(error = %self, "a registry request failed");
        }
        let body = serde_json::json!({"error_code": self.code(), "message": self.to_string()});
        (status, Body(body)).into_response()
    }
}
