//! Schemas as text: what is kept, and when two are the same.

use serde_json::Value;

/// The schema without the white space between its tokens, everything else as it was sent.
/// That is the form registries keep and answer with.
pub(super) fn compact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut quoted, mut escaped) = (false, false);
    for c in text.chars() {
        if quoted {
            out.push(c);
            quoted = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if !c.is_ascii_whitespace() {
            out.push(c);
            quoted = c == '"';
        }
    }
    out
}

/// Text that is equal for schemas that differ only in spacing and in the order of JSON keys,
/// as in Karapace. Text that is not JSON (Protobuf, from another registry) is its own identity.
pub(super) fn identity(text: &str) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(value) => {
            let mut out = String::with_capacity(text.len());
            write_sorted(&value, &mut out);
            out
        }
        Err(_) => text.to_owned(),
    }
}

/// Identity of a schema whose names are spelled out and whose types are written in their short
/// form: what `normalize=true` compares. Falls back to [`identity`] for what is not Avro.
pub(super) fn normalized_identity(text: &str) -> String {
    let spelled_out = apache_avro::Schema::parse_str(text)
        .ok()
        .and_then(|schema| serde_json::to_string(&schema).ok());
    identity(spelled_out.as_deref().unwrap_or(text))
}

fn write_sorted(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            out.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_sorted(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_sorted(item, out);
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compacting_leaves_strings_alone() {
        let text = "{ \"doc\" : \"a \\\" b \\\\\" ,\n \"type\": \"int\" }";
        assert_eq!(compact(text), r#"{"doc":"a \" b \\","type":"int"}"#);
    }

    #[test]
    fn spacing_and_key_order_make_no_other_schema() {
        let a = r#"{"type": "fixed", "name": "F", "size": 4}"#;
        let b = r#"{"size":4,"name":"F","type":"fixed"}"#;
        assert_eq!(identity(a), identity(b));
        assert_ne!(identity(a), identity(r#"{"size":5,"name":"F","type":"fixed"}"#));
        assert_eq!(identity("syntax = \"proto3\";"), "syntax = \"proto3\";");
    }

    #[test]
    fn normalizing_sees_through_spelling() {
        let a = r#"{"type":"record","name":"R","namespace":"n","fields":[{"name":"a","type":{"type":"string"}}]}"#;
        let b = r#"{"type":"record","name":"n.R","fields":[{"name":"a","type":"string"}]}"#;
        assert_ne!(identity(a), identity(b));
        assert_eq!(normalized_identity(a), normalized_identity(b));
    }
}
