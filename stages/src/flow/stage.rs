//! What a stage is: a small synchronous function over records.

use tapeline_schemas::{Control, Flags, Kind, Micros};

use super::{Record, TopicPartition};

/// What a checked record stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    /// The raw record is in quarantine.
    Quarantined,
    /// The raw record is a control record.
    Control,
    /// Kafka skipped these raw offsets.
    Skipped,
    /// Retention took these raw offsets before they were read.
    Lost,
}

/// A record with what the loop has established about it.
#[derive(Debug, Clone, Copy)]
pub struct In<'a> {
    /// The record itself.
    pub record: Record<'a>,
    /// Kind of its topic's events.
    pub kind: Kind,
    /// Raw offset it stands for; its own offset where the topic carries no origin.
    pub origin: i64,
    /// First raw offset it stands for, for ranges.
    pub origin_first: i64,
    /// Judgements of `validate`.
    pub flags: Flags,
    /// Set where the record stands for no event.
    pub marker: Option<Marker>,
}

impl In<'_> {
    /// The control record that a marker carries, if it is one.
    pub fn control(&self) -> Option<Control> {
        match self.marker {
            Some(Marker::Control) => {
                Control::from_headers(|name| self.record.headers.text(name)).ok()
            }
            _ => None,
        }
    }
}

/// What a stage did with a record. Every position enters a batch with one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It made output.
    Taken,
    /// It repeats an event that came before.
    Duplicate,
    /// It has the identity of an event that came before, and other content.
    Conflict,
    /// The stage does not take this kind of event.
    NotStored,
    /// It is in quarantine.
    Quarantined,
    /// It is a control record.
    Control,
    /// Kafka skipped these offsets.
    Skipped,
    /// Retention took these offsets before they were read, and that was accepted.
    Lost,
    /// The checked topic holds this origin twice; the first one counted.
    Repeated,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Outcome; 9] = [
        Outcome::Taken,
        Outcome::Duplicate,
        Outcome::Conflict,
        Outcome::NotStored,
        Outcome::Quarantined,
        Outcome::Control,
        Outcome::Skipped,
        Outcome::Lost,
        Outcome::Repeated,
    ];

    /// Its name in metrics and in the ledger.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Taken => "taken",
            Outcome::Duplicate => "duplicate",
            Outcome::Conflict => "conflict",
            Outcome::NotStored => "not_stored",
            Outcome::Quarantined => "quarantined",
            Outcome::Control => "control",
            Outcome::Skipped => "skipped",
            Outcome::Lost => "lost",
            Outcome::Repeated => "repeated",
        }
    }
}

/// Why a record cannot be taken; it goes to quarantine with this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// Short name, for counting: `schema`, `range`, `routing`, …
    pub reason: &'static str,
    /// The error in full.
    pub detail: String,
}

impl Reject {
    /// A rejection for `reason`.
    pub fn new(reason: &'static str, detail: impl std::fmt::Display) -> Reject {
        Reject { reason, detail: detail.to_string() }
    }
}

/// Why `apply` did nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The record is at fault: the loop puts it in quarantine and goes on.
    Reject(Reject),
    /// The writer schema of this kind is not known yet: the loop asks the registry, lets the
    /// stage [`learn`](Stage::learn) the answer and applies the same record again.
    UnknownSchema(Kind, u32),
}

impl From<Reject> for Refusal {
    fn from(reject: Reject) -> Refusal {
        Refusal::Reject(reject)
    }
}

/// What a stage makes, gathered until it is written.
pub trait Output: Default + Send + Sync + 'static {
    /// Number of rows or messages.
    fn len(&self) -> usize;
    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Memory it takes, roughly.
    fn byte_len(&self) -> usize;
    /// Empties it for the next batch; memory worth keeping is kept.
    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Up to where a partition may be committed, and what to remember with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checkpoint {
    /// Next offset to read.
    pub offset: i64,
    /// The stage's note to its successor, at most 4,000 bytes.
    pub note: String,
}

/// A stage: synchronous and deterministic; it sees no clock and no Kafka.
pub trait Stage: Send {
    /// What it makes.
    type Out: Output;

    /// Takes one record. On `Err` nothing has been added to `out` and nothing remembered.
    fn apply(&mut self, input: &In<'_>, out: &mut Self::Out) -> Result<Outcome, Refusal>;

    /// Adds what must follow a rejected record downstream.
    fn rejected(&mut self, input: &In<'_>, reject: &Reject, out: &mut Self::Out) {
        let _ = (input, reject, out);
    }

    /// Raw offsets `first..=last` were never delivered by Kafka.
    fn skipped(&mut self, at: TopicPartition, first: i64, last: i64, out: &mut Self::Out) {
        let _ = (at, first, last, out);
    }

    /// Offsets `first..=last` of the topic that it reads are gone, and that was accepted.
    fn lost(&mut self, at: TopicPartition, first: i64, last: i64, out: &mut Self::Out) {
        let _ = (at, first, last, out);
    }

    /// The registry's answer about a writer schema; `None`: a healthy registry does not know it.
    fn learn(&mut self, kind: Kind, id: u32, schema: Option<&str>);

    /// A partition begins, with the note its last owner left.
    fn assigned(&mut self, at: TopicPartition, note: Option<&str>) {
        let _ = (at, note);
    }

    /// A partition goes: all memory of it is dropped.
    fn revoked(&mut self, at: TopicPartition) {
        let _ = at;
    }

    /// Up to where `at` may be committed once everything before `next_offset` is durable.
    fn checkpoint(&self, at: TopicPartition, next_offset: i64) -> Checkpoint {
        let _ = at;
        Checkpoint { offset: next_offset, note: String::new() }
    }

    /// Time of the event last applied, for the ledger and for metrics.
    fn event_time(&self) -> Option<Micros> {
        None
    }
}
