//! One record in quarantine, and which of them are meant.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};
use tapeline_schemas::Micros;

/// Where a record is: `topic/partition/offset`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        let mut parts = text.rsplitn(3, '/');
        let offset = parts.next().and_then(|part| part.parse().ok());
        let partition = parts.next().and_then(|part| part.parse().ok());
        match (parts.next(), partition, offset) {
            (Some(topic), Some(partition), Some(offset)) if !topic.is_empty() => {
                Ok(Place { topic: topic.to_owned(), partition, offset })
            }
            _ => Err(format!("'{text}' is no place, expected TOPIC/PARTITION/OFFSET")),
        }
    }
}

/// What was done about a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "state")]
pub enum State {
    /// Nothing.
    Open,
    /// Somebody began to send it again and has not said how it ended.
    Retrying,
    /// It was sent again.
    Retried {
        /// Where the copy is.
        to: String,
    },
    /// It was dealt with otherwise.
    Discarded {
        /// In the words of whoever did.
        why: String,
    },
}

impl State {
    /// Its name, as filters and lists say it.
    pub const fn name(&self) -> &'static str {
        match self {
            State::Open => "open",
            State::Retrying => "retrying",
            State::Retried { .. } => "retried",
            State::Discarded { .. } => "discarded",
        }
    }
}

/// A run that said it would send a record again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Intent {
    pub(super) run: String,
    /// By the broker's clock.
    pub(super) time: Micros,
}

/// A record in quarantine, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Where it was read; its name.
    pub place: Place,
    /// When the broker had appended it there; microseconds since the epoch.
    pub time: Micros,
    /// Partition and offset in the quarantine topic.
    pub kept_at: (i32, i64),
    /// When it came into quarantine; microseconds since the epoch.
    pub quarantined: Micros,
    /// The stage that refused it.
    pub stage: String,
    /// Short name of the reason.
    pub reason: String,
    /// The error, cut where it is long.
    pub detail: String,
    /// Bytes of its value.
    pub value_bytes: usize,
    /// What was done about it.
    #[serde(flatten)]
    pub state: State,
    /// Where it was last sent again to, whatever followed.
    #[serde(skip)]
    pub(super) last_sent: Option<String>,
    #[serde(skip)]
    pub(super) intents: Vec<Intent>,
}

/// A record in quarantine, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What the list says of it.
    pub entry: Entry,
    /// The error in full.
    pub detail: String,
    /// Original key.
    pub key: Option<Vec<u8>>,
    /// Original value.
    pub value: Option<Vec<u8>>,
    /// Original headers in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Which records are meant; what is not set allows all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this stage.
    pub stage: Option<String>,
    /// For this reason.
    pub reason: Option<String>,
    /// Read from this topic.
    pub topic: Option<String>,
    /// In quarantine since then.
    pub since: Option<Micros>,
    /// In one of these states ([`State::name`]).
    pub states: Vec<String>,
    /// These and no others; none named: all.
    pub places: Vec<Place>,
    /// The oldest so many.
    pub limit: Option<usize>,
}

impl Filter {
    /// Whether what does not change speaks for the entry.
    pub(super) fn takes(&self, entry: &Entry) -> bool {
        let is = |wanted: &Option<String>, text: &str| wanted.as_ref().is_none_or(|w| w == text);
        is(&self.stage, &entry.stage)
            && is(&self.reason, &entry.reason)
            && is(&self.topic, &entry.place.topic)
            && self.since.is_none_or(|since| entry.quarantined >= since)
            && (self.places.is_empty() || self.places.contains(&entry.place))
    }

    /// Whether the entry's state is wanted.
    pub(super) fn takes_state(&self, state: &State) -> bool {
        self.states.is_empty() || self.states.iter().any(|name| name == state.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_written_and_what_is_none_is_refused() {
        let place: Place = "md.trade.raw/3/12".parse().expect("a place");
        assert_eq!((place.topic.as_str(), place.partition, place.offset), ("md.trade.raw", 3, 12));
        assert_eq!(place.to_string(), "md.trade.raw/3/12");
        for text in ["", "md.trade", "md.trade/3", "/3/4", "md.trade/x/4", "md.trade/3/x"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
