//! What is asked for.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::Place;

/// Longest name of a shadow or a replay.
const NAME_LETTERS: usize = 40;
/// Longest name that Kafka takes for a topic.
const TOPIC_LETTERS: usize = 249;

/// Where the records go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// Into the event tables.
    Store,
    /// Into tables and candles of their own, to be compared.
    Shadow(String),
    /// Into another topic, as raw records.
    Topic(String),
}

/// Refuses a name that is not `[a-z0-9_]{1,40}`: it becomes part of a schema's name.
pub fn check_name(name: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if (1..=NAME_LETTERS).contains(&name.len()) && name.bytes().all(fits) {
        return Ok(());
    }
    Err(format!("`{name}` is no name: 1 to {NAME_LETTERS} of a-z, 0-9 and _"))
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Target, String> {
        match text.split_once(':') {
            None if text == "store" => Ok(Target::Store),
            Some(("shadow", name)) => check_name(name).map(|()| Target::Shadow(name.to_owned())),
            Some(("topic", name)) => {
                let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
                if (1..=TOPIC_LETTERS).contains(&name.len())
                    && name.bytes().all(fits)
                    && name != "."
                    && name != ".."
                {
                    return Ok(Target::Topic(name.to_owned()));
                }
                Err(format!("`{name}` is no name of a topic: letters, digits, `.`, `_` and `-`"))
            }
            _ => Err(format!("`{text}` is no target: store, shadow:NAME or topic:NAME")),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> Result<Target, String> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> String {
        target.to_string()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Store => f.write_str("store"),
            Target::Shadow(name) => write!(f, "shadow:{name}"),
            Target::Topic(name) => write!(f, "topic:{name}"),
        }
    }
}

/// What a replay is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Kinds or names of topics.
    pub topics: Vec<String>,
    /// Where each partition begins.
    pub from: Place,
    /// Where each partition ends: that record is not read any more.
    pub to: Place,
    /// Only events of this time by the venue's clock or later, in microseconds since the epoch.
    pub from_event_time: Option<i64>,
    /// Where the records go.
    pub into: Target,
    /// Only these partitions; all where there is none.
    pub partitions: Vec<i32>,
    /// Partitions of a topic that is created; as many as the source has where not set.
    pub new_partitions: Option<i32>,
    /// How many times as fast as the records were appended; as fast as possible without.
    pub speed: Option<f64>,
    /// Only these symbols (`BTC-USD`, or `KRAKEN:BTC-USD`); all where there is none.
    pub symbols: Vec<String>,
    /// Judges raw records anew; into a shadow alone (invariant 4).
    pub revalidate: bool,
}

impl Request {
    /// Everything of `topics` into `into`.
    pub fn new(topics: &[&str], into: Target) -> Request {
        Request {
            topics: topics.iter().map(|&topic| topic.to_owned()).collect(),
            from: Place::Beginning,
            to: Place::End,
            from_event_time: None,
            into,
            partitions: Vec::new(),
            new_partitions: None,
            speed: None,
            symbols: Vec::new(),
            revalidate: false,
        }
    }

    /// Refuses what does not go together.
    pub fn check(&self) -> Result<()> {
        let is_topic = matches!(self.into, Target::Topic(_));
        ensure!(
            !self.revalidate || matches!(self.into, Target::Shadow(_)),
            "--revalidate judges anew, so it goes into a shadow alone: --into shadow:NAME"
        );
        ensure!(
            self.new_partitions.is_none() || is_topic,
            "--partitions is for a topic that is created: --into topic:NAME"
        );
        ensure!(
            self.new_partitions.is_none_or(|partitions| (1..=10_000).contains(&partitions)),
            "--partitions takes 1 to 10000"
        );
        ensure!(!is_topic || self.topics.len() == 1, "--into topic:NAME takes one --topic");
        ensure!(
            !is_topic || self.from_event_time.is_none(),
            "--from-event-time is not for --into topic:NAME, which copies records unread"
        );
        ensure!(
            self.speed.is_none_or(|speed| speed.is_finite() && speed > 0.0),
            "--speed takes a number above 0, or max"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_as_written_and_bad_names_are_refused() {
        for text in ["store", "shadow:a_1", "topic:md.v2.trade.raw"] {
            assert_eq!(text.parse::<Target>().expect(text).to_string(), text);
        }
        let long = format!("shadow:{}", "a".repeat(41));
        for text in [
            "",
            "Store",
            "shadow",
            "shadow:",
            "shadow:A",
            "shadow:a;b",
            "shadow:a b",
            &long,
            "topic:",
            "topic:a/b",
            "topic:..",
        ] {
            text.parse::<Target>().expect_err(text);
        }
    }
}
