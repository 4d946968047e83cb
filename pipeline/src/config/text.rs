//! Reading of text where files and the environment hold numbers, lists or nothing.

use std::collections::BTreeMap;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

fn scalar<E: Error>(value: Value) -> Result<String, E> {
    match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        _ => Err(E::custom("expected text, a number or true or false")),
    }
}

/// Settings for librdkafka are text to it; files may say `linger.ms = 5`.
pub(super) fn map<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let values = BTreeMap::<String, Value>::deserialize(deserializer)?;
    values.into_iter().map(|(name, value)| Ok((name, scalar(value)?))).collect()
}

/// Text, or nothing: TOML and the environment have no null, so `none` and the empty text say it.
pub(super) fn optional<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        value => scalar(value)
            .map(|text| Some(text).filter(|text| !matches!(text.as_str(), "" | "none"))),
    }
}

/// A list, or text with commas, which is how the environment writes one.
pub(super) fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Array(items) => items.into_iter().map(scalar).collect(),
        value => {
            let text = scalar::<D::Error>(value)?;
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(items.map(str::to_owned).collect())
        }
    }
}
