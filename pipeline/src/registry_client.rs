//! Talks to a schema registry, over `schema_registry_converter`.
//!
//! What matters to the stages is one distinction: a schema id that a healthy registry does not
//! know is the record's fault and goes to quarantine; a registry that cannot be asked is nobody's
//! fault and the partition waits.

use std::error::Error;
use std::time::Duration;

use schema_registry_converter::async_impl::schema_registry::{
    SrSettings, get_schema_by_id, post_schema,
};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{RawError, SchemaType, SuppliedSchema};
use tapeline_stages::tls::advised;
use thiserror::Error;

use crate::config::RegistryConfig;
use crate::tls;

/// Confluent's code for a schema id that is not known.
const SCHEMA_NOT_FOUND: u32 = 40403;

/// The registry gave no answer that can be relied on. Asking again later may.
#[derive(Debug, Error)]
#[error(
    "the schema registry at {url} cannot be asked: {reason}; check registry.url and that it runs"
)]
pub struct Unreachable {
    url: String,
    reason: String,
}

/// Why a schema is not registered.
#[derive(Debug, Error)]
pub enum RegisterError {
    /// The registry gave no answer that can be relied on.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// The registry refused the schema.
    #[error(
        "the schema registry refused the schema of {subject}: {message} (code {code}); \
         make it compatible, or change the subject's compatibility level"
    )]
    Refused {
        /// The subject.
        subject: String,
        /// Confluent's code.
        code: u32,
        /// The registry's words.
        message: String,
    },
}

impl RegisterError {
    /// Whether the same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, RegisterError::Unreachable(_))
    }
}

/// The settings cannot make a client.
#[derive(Debug, Error)]
#[error("no client can be made for the schema registry at {url}: {source}; check registry.url")]
pub struct InvalidSettings {
    url: String,
    source: SRCError,
}

/// A client of one registry.
#[derive(Debug, Clone)]
pub struct RegistryClient {
    /// Without user and password.
    shown_url: String,
    settings: SrSettings,
}

impl RegistryClient {
    /// How long an answer may take where configuration says nothing else.
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

    /// A client for the registry at `url` (`http://host:port`), whose answers may take `timeout`.
    pub fn new(url: &str, timeout: Duration) -> Result<RegistryClient, InvalidSettings> {
        RegistryClient::with(url, timeout, reqwest::Client::builder())
    }

    /// The client that is configured, where a registry is.
    pub fn configured(config: &RegistryConfig) -> anyhow::Result<Option<RegistryClient>> {
        let Some(url) = &config.url else { return Ok(None) };
        let mut client = reqwest::Client::builder();
        if let Some(file) = &config.ca_file {
            client = client.tls_certs_only(tls::certificates("registry.ca_file", file)?);
        }
        let timeout = Duration::from_millis(config.timeout_ms);
        Ok(Some(RegistryClient::with(url, timeout, client)?))
    }

    fn with(
        url: &str,
        timeout: Duration,
        client: reqwest::ClientBuilder,
    ) -> Result<RegistryClient, InvalidSettings> {
        let url = url.trim_end_matches('/');
        let shown_url = without_credentials(url);
        let settings =
            SrSettings::new_builder(url.to_owned()).set_timeout(timeout).build_with(client);
        match settings {
            Ok(settings) => Ok(RegistryClient { shown_url, settings }),
            Err(source) => Err(InvalidSettings { url: shown_url, source }),
        }
    }

    /// Registers an Avro schema under a subject, or finds that it is there; its id.
    pub async fn register(&self, subject: &str, schema: &str) -> Result<u32, RegisterError> {
        let supplied = SuppliedSchema::new(None, SchemaType::Avro, schema.to_owned());
        let error = match post_schema(&self.settings, subject.to_owned(), supplied).await {
            Ok(registered) => return Ok(registered.id),
            Err(error) => error,
        };
        match raw_error(&error) {
            Some(raw) if is_refusal(raw.error_code) => Err(RegisterError::Refused {
                subject: subject.to_owned(),
                code: raw.error_code,
                message: raw.message.clone(),
            }),
            _ => Err(self.unreachable(&error).into()),
        }
    }

    /// The text of the schema with this id; `None` only where a healthy registry says that it
    /// has none. Everything else (no connection, no answer in time, a server's error, an answer
    /// that is none of a registry's) is [`Unreachable`].
    pub async fn lookup(&self, id: u32) -> Result<Option<String>, Unreachable> {
        match get_schema_by_id(id, &self.settings).await {
            Ok(registered) => Ok(Some(registered.schema)),
            Err(error) => match raw_error(&error) {
                Some(raw) if raw.error_code == SCHEMA_NOT_FOUND => Ok(None),
                _ => Err(self.unreachable(&error)),
            },
        }
    }

    fn unreachable(&self, error: &SRCError) -> Unreachable {
        let mut reason = error.error.clone();
        let mut cause = error.source();
        while let Some(error) = cause {
            reason.push_str(": ");
            reason.push_str(&error.to_string());
            cause = error.source();
        }
        Unreachable { url: self.shown_url.clone(), reason: advised(reason) }
    }
}

/// What the registry itself said, where it said something in its own form.
fn raw_error(error: &SRCError) -> Option<&RawError> {
    error.source()?.downcast_ref::<RawError>()
}

/// Conflict and unprocessable are about the schema; other codes are about the registry or the way.
fn is_refusal(code: u32) -> bool {
    matches!(code, 409 | 422 | 42200..=42299 | 40900..=40999)
}

fn without_credentials(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            format!("{}{}", &url[..scheme + 3], &url[at + 1..])
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
#[path = "registry_client_tests.rs"]
mod tests;
