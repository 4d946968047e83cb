//! Printing without secrets.

use std::fmt;

use serde_json::Value;

use super::{
    ArchiveConfig, BackupConfig, Config, ConnectConfig, DatabaseConfig, InfluxConfig, KafkaConfig,
    RedisConfig, RegistryConfig, RepositoryConfig, VenueConfig,
};

const HIDDEN: &str = "***";

/// Parts of names of keys whose values nobody should see.
const SECRET_KEYS: [&str; 14] = [
    "password",
    "passphrase",
    "passwd",
    "secret",
    "token",
    "key.pem",
    "private.key",
    "api_key",
    "s3-key",
    "customer-key",
    "access_key",
    "credential",
    "user.info",
    "oauthbearer.config",
];

/// A copy without secrets: values of keys that sound like one, and passwords inside of URLs and
/// connection strings.
pub fn redacted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let entry = |(key, value): (&String, &Value)| match value {
                Value::Null => (key.clone(), Value::Null),
                _ if is_secret(key) => (key.clone(), HIDDEN.into()),
                _ => (key.clone(), redacted(value)),
            };
            Value::Object(map.iter().map(entry).collect())
        }
        Value::Array(items) => items.iter().map(redacted).collect(),
        Value::String(text) => redacted_text(text).into(),
        other => other.clone(),
    }
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    SECRET_KEYS.iter().any(|part| key.contains(part))
}

pub(super) fn redacted_text(text: &str) -> String {
    redacted_parameters(&redacted_user(text))
}

/// `scheme://user:password@host` keeps all but the password. The last `@` before the path
/// counts, as a password may hold one.
fn redacted_user(text: &str) -> String {
    let Some(start) = text.find("://").map(|at| at + 3) else { return text.to_owned() };
    let rest = &text[start..];
    let Some(at) = rest.rfind('@') else { return text.to_owned() };
    match rest[..at].find(':') {
        Some(colon) => format!("{}{}:{HIDDEN}{}", &text[..start], &rest[..colon], &rest[at..]),
        // A lone part before the host can be a token.
        None if text.starts_with("http") => format!("{}{HIDDEN}{}", &text[..start], &rest[at..]),
        None => text.to_owned(),
    }
}

/// `password=…` in a query or a connection string.
fn redacted_parameters(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(equals) = rest.find('=') {
        let is_separator = |c: char| matches!(c, '&' | '?' | ' ' | ';');
        let name_start = rest[..equals].rfind(is_separator).map_or(0, |at| at + 1);
        let secret = is_secret(&rest[name_start..equals]);
        out.push_str(&rest[..=equals]);
        rest = &rest[equals + 1..];
        if secret {
            out.push_str(HIDDEN);
            rest = rest.find(is_separator).map_or("", |end| &rest[end..]);
        }
    }
    out + rest
}

impl Config {
    /// The configuration as it holds, without secrets.
    pub fn redacted(&self) -> Value {
        redacted(&serde_json::to_value(self).unwrap_or_default())
    }
}

macro_rules! debug_without_secrets {
    ($($section:ty),*) => {$(
        impl fmt::Debug for $section {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let value = serde_json::to_value(self).map_err(|_| fmt::Error)?;
                write!(f, "{}{}", stringify!($section), redacted(&value))
            }
        }
    )*};
}

debug_without_secrets!(
    ArchiveConfig,
    BackupConfig,
    Config,
    ConnectConfig,
    KafkaConfig,
    RegistryConfig,
    RepositoryConfig,
    DatabaseConfig,
    RedisConfig,
    InfluxConfig,
    VenueConfig
);
