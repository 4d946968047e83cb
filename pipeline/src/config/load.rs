//! From file and environment to a [`Config`].

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::redact::redacted_text;
use super::{Config, ConfigError, VenueConfig};

const PREFIX: &str = "TAPELINE__";

impl Config {
    /// Loads the file, where there is one, under this process's environment.
    pub fn load(path: Option<&Path>) -> Result<Config, ConfigError> {
        Config::load_with(
            path,
            std::env::vars_os().filter_map(|(name, value)| {
                // Names and values that are not text belong to nothing of ours.
                Some((name.into_string().ok()?, value.into_string().ok()?))
            }),
        )
    }

    /// Loads the file, where there is one, under the given environment.
    pub fn load_with(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Config, ConfigError> {
        let file = match path {
            Some(path) => read_file(path)?,
            None => Value::Object(Map::new()),
        };
        let mut tree = Tree { root: with_venue_names(file), origins: BTreeMap::new() };
        let environment: BTreeMap<String, String> = environment.into_iter().collect();
        tree.add_common_variables(&environment);
        for (variable, value) in environment.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
            tree.add_variable(variable, value)?;
        }
        let file_name = path.map(|path| path.display().to_string());
        tree.into_config(file_name.as_deref())
    }
}

fn read_file(path: &Path) -> Result<Value, ConfigError> {
    let file = path.to_path_buf();
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { file: file.clone(), source })?;
    let extension = path.extension().and_then(|ext| ext.to_str()).unwrap_or_default();
    let parsed: Result<Value, String> = match extension.to_ascii_lowercase().as_str() {
        "toml" => toml::from_str(&text).map_err(|error| toml_message(&text, &error)),
        "json" => serde_json::from_str(&text).map_err(|error| error.to_string()),
        "yaml" | "yml" => serde_yaml_ng::from_str(&text).map_err(|error| error.to_string()),
        _ => return Err(ConfigError::Extension { file }),
    };
    match parsed {
        // An empty YAML file says nothing, which is allowed.
        Ok(Value::Null) => Ok(Value::Object(Map::new())),
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(ConfigError::Syntax { file, message: "expected sections with keys".into() }),
        Err(message) => Err(ConfigError::Syntax { file, message }),
    }
}

/// The library's own message quotes the line, which may hold a password.
fn toml_message(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    format!("line {}: {}", before.matches('\n').count() + 1, error.message())
}

/// Venues go by capital names everywhere; files may write them small.
fn with_venue_names(mut file: Value) -> Value {
    if let Some(Value::Object(venues)) = file.pointer_mut("/connect/venues") {
        *venues = std::mem::take(venues)
            .into_iter()
            .map(|(name, venue)| (name.to_ascii_uppercase(), venue))
            .collect();
    }
    file
}

/// The values, and which environment variable each came from that did.
struct Tree {
    root: Value,
    origins: BTreeMap<String, String>,
}

impl Tree {
    /// Variables that other programs read too. They go before the file and after our own.
    fn add_common_variables(&mut self, environment: &BTreeMap<String, String>) {
        let get = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        if let Some(url) = get("REDIS_URL") {
            self.put(&["redis", "url"], url.as_str().into(), "REDIS_URL");
        }
        if let Some(url) = get("TIMESCALE_DSN") {
            self.put(&["database", "url"], url.as_str().into(), "TIMESCALE_DSN");
        } else if let Some(url) = timescale_url(get) {
            self.put(&["database", "url"], url.into(), "TIMESCALE_*");
        }
    }

    fn add_variable(&mut self, variable: &str, text: &str) -> Result<(), ConfigError> {
        let refuse = |message: &str| ConfigError::Variable {
            variable: variable.to_owned(),
            message: message.to_owned(),
        };
        let name = variable.strip_prefix(PREFIX).unwrap_or(variable);
        let mut path: Vec<String> = name.split("__").map(str::to_ascii_lowercase).collect();
        if path.len() < 2 || path.iter().any(String::is_empty) {
            return Err(refuse("expected TAPELINE__SECTION__KEY"));
        }
        if path[0] == "kafka" && path[1].ends_with("properties") && path.len() == 3 {
            path[2] = path[2].replace('_', ".");
        }
        if path[0] == "backup" && path.len() == 4 && path[2] == "properties" {
            path[3] = path[3].replace('_', "-");
        }
        if path[0] == "connect" && path[1] == "venues" && path.len() > 2 {
            path[2] = path[2].to_ascii_uppercase();
        }
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let value = scalar(text, default_at(&path).as_ref());
        if self.put(&path, value, variable) {
            return Ok(());
        }
        Err(refuse("expected the name of a key, not one below or above it"))
    }

    /// Sets a value; false where a scalar stands in the way.
    fn put(&mut self, path: &[&str], value: Value, origin: &str) -> bool {
        let Some((last, sections)) = path.split_last() else { return false };
        let mut at = &mut self.root;
        for section in sections {
            let Value::Object(map) = at else { return false };
            at = map.entry(*section).or_insert_with(|| Value::Object(Map::new()));
        }
        let Value::Object(map) = at else { return false };
        map.insert((*last).to_owned(), value);
        self.origins.insert(path.join("."), origin.to_owned());
        true
    }

    fn into_config(self, file: Option<&str>) -> Result<Config, ConfigError> {
        let file = file.unwrap_or("configuration").to_owned();
        let config: Config = serde_path_to_error::deserialize(&self.root).map_err(|error| {
            let path = error.path().to_string();
            let origin = match self.origins.get(&path) {
                Some(variable) => format!("environment variable {variable}"),
                None => file.clone(),
            };
            let message = redacted_text(&error.into_inner().to_string());
            ConfigError::Value { origin, path, message }
        })?;
        let problems: Vec<String> =
            config.problems().into_iter().map(|p| self.with_origin(p)).collect();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Range { origin: file, problems })
        }
    }

    fn with_origin(&self, problem: String) -> String {
        let key = problem.split(": ").next().unwrap_or_default();
        match self.origins.get(key) {
            Some(variable) => format!("{problem} (from {variable})"),
            None => problem,
        }
    }
}

/// What a key holds by default: that says how the environment's text is to be read.
fn default_at(path: &[&str]) -> Option<Value> {
    let (root, path) = match path {
        ["connect", "venues", _, rest @ ..] => (serde_json::to_value(VenueConfig::default()), rest),
        _ => (serde_json::to_value(Config::default()), path),
    };
    path.iter().try_fold(root.ok()?, |at, key| at.get(key).cloned())
}

fn scalar(text: &str, default: Option<&Value>) -> Value {
    match default {
        Some(Value::String(_) | Value::Array(_)) => text.into(),
        _ => match serde_json::from_str(text) {
            Ok(value @ (Value::Number(_) | Value::Bool(_))) if keeps_text(&value, text) => value,
            _ => text.into(),
        },
    }
}

/// A key of digits alone must not lose any.
fn keeps_text(value: &Value, text: &str) -> bool {
    let written = value.to_string();
    written == text
}

/// A URL from the parts, where any is given. PgBouncer's or the database's host alike.
fn timescale_url<'a>(get: impl Fn(&str) -> Option<&'a String>) -> Option<String> {
    const PARTS: [(&str, &str); 4] = [
        ("TIMESCALE_USER", "tapeline"),
        ("TIMESCALE_HOST", "127.0.0.1"),
        ("TIMESCALE_PORT", "5432"),
        ("TIMESCALE_DB", "tapeline"),
    ];
    let password = get("TIMESCALE_PASSWORD");
    if password.is_none() && PARTS.iter().all(|(name, _)| get(name).is_none()) {
        return None;
    }
    let [user, host, port, db] =
        PARTS.map(|(name, default)| escaped(get(name).map_or(default, String::as_str)));
    let password = password.map(|password| format!(":{}", escaped(password))).unwrap_or_default();
    Some(format!("postgres://{user}{password}@{host}:{port}/{db}"))
}

/// Percent-encoding of everything that means something in a URL. IPv6 hosts stay as they are.
fn escaped(text: &str) -> String {
    if text.starts_with('[') && text.ends_with(']') {
        return text.to_owned();
    }
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
