//! Records in quarantine as files, with every byte they had.

use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::Kept;

/// Bytes in JSON: a string where they are text, `{"base64": "…"}` where not, null for none.
#[derive(Debug, Clone, Copy)]
pub struct Bytes<'b>(pub Option<&'b [u8]>);

impl Serialize for Bytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(bytes) = self.0 else { return serializer.serialize_none() };
        match std::str::from_utf8(bytes) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => json!({"base64": STANDARD.encode(bytes)}).serialize(serializer),
        }
    }
}

/// The record as one line of JSON: what the list says of it, key, value and headers in order.
pub fn json_line(kept: &Kept) -> Result<String> {
    let mut line = described(kept)?;
    line["key"] = serde_json::to_value(Bytes(kept.key.as_deref()))?;
    line["value"] = serde_json::to_value(Bytes(kept.value.as_deref()))?;
    Ok(line.to_string())
}

/// Writes `TOPIC_PARTITION_OFFSET.json`, and beside it `.key` and `.value` with the bytes
/// themselves, each where there is one.
pub fn write_files(kept: &Kept, directory: &Path) -> Result<()> {
    let place = &kept.entry.place;
    let name = format!("{}_{}_{}", place.topic, place.partition, place.offset);
    let write = |ending: &str, bytes: &[u8]| {
        let path = directory.join(format!("{name}.{ending}"));
        std::fs::write(&path, bytes)
            .with_context(|| format!("{} cannot be written", path.display()))
    };
    for (ending, bytes) in [("key", &kept.key), ("value", &kept.value)] {
        if let Some(bytes) = bytes {
            write(ending, bytes)?;
        }
    }
    write("json", described(kept)?.to_string().as_bytes())
}

fn described(kept: &Kept) -> Result<Value> {
    let mut line = serde_json::to_value(&kept.entry)?;
    line["detail"] = json!(kept.detail);
    line["headers"] = kept
        .headers
        .iter()
        .map(|(name, value)| json!({"name": name, "value": Bytes(value.as_deref())}))
        .collect();
    Ok(line)
}
