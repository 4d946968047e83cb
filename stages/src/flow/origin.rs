//! Which raw offset a record stands for, and whether it is its turn (invariant 3).

use tapeline_schemas::{Flags, headers};

use super::{Contract, Headers, In, Lost, Marker, Record, Topic};

/// How far a partition has been taken.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Last origin taken.
    origin: Option<i64>,
    /// Offset expected next, for raw topics.
    next_offset: Option<i64>,
    /// An accepted loss whose origins the next record tells.
    lost: Option<Lost>,
}

impl Held {
    pub(super) fn new(origin: Option<i64>, next_offset: Option<i64>) -> Held {
        Held { origin, next_offset, lost: None }
    }

    /// Last origin taken.
    pub(super) fn origin(&self) -> Option<i64> {
        self.origin
    }

    /// Raw offsets are gone: what comes after them is expected next.
    pub(super) fn lose_raw(&mut self, lost: Lost) {
        self.next_offset = Some(lost.last + 1);
    }

    /// Checked records are gone; the next one tells which origins they stood for.
    pub(super) fn lose_checked(&mut self, lost: Lost) {
        self.lost = Some(lost);
    }

    /// The offsets lost before `record`, with the first and last origin that went with them; the
    /// last is before the first where none did.
    pub(super) fn lost_before(&mut self, record: &Record<'_>) -> Option<(Lost, i64, i64)> {
        let lost = self.lost.take()?;
        let number = |name| record.headers.number(name);
        let next = number(headers::ORIGIN_FIRST).or_else(|| number(headers::ORIGIN))?;
        let held = self.origin.unwrap_or(next - 1);
        let last = held.max(next - 1);
        self.origin = Some(last);
        Some((lost, held + 1, last))
    }

    /// Offsets between the last raw record and the one at `offset`, which Kafka never delivered.
    pub(super) fn skipped_before(&mut self, offset: i64) -> Option<(i64, i64)> {
        let expected = self.next_offset.replace(offset + 1);
        expected.filter(|&expected| expected < offset).map(|first| (first, offset - 1))
    }

    /// Invariant 3: held + 1 is taken, lower is a repetition (`None`), higher stops the stage.
    pub(super) fn checked<'r>(
        &mut self,
        record: Record<'r>,
        topic: &Topic,
    ) -> Result<Option<In<'r>>, String> {
        let place = || format!("{} [{}] offset {}", topic.name, record.at.partition, record.offset);
        let said = Said::of(record.headers);
        let Some(origin) = said.origin.and_then(|text| text.parse().ok()) else {
            return Err(format!(
                "{}: no {} header; only `validate` may write to a checked topic",
                place(),
                headers::ORIGIN
            ));
        };
        let origin_first = said.origin_first.and_then(|text| text.parse().ok()).unwrap_or(origin);
        match self.origin {
            Some(held) if origin <= held => return Ok(None),
            Some(held) if origin_first > held + 1 => {
                return Err(format!(
                    "{}: origin {origin_first} follows origin {held}: raw records are missing from the checked topic",
                    place()
                ));
            }
            _ => self.origin = Some(origin),
        }
        let marker = match said.outcome {
            None => None,
            Some(headers::outcome::QUARANTINED) => Some(Marker::Quarantined),
            Some(headers::outcome::CONTROL) => Some(Marker::Control),
            Some(headers::outcome::SKIPPED) => Some(Marker::Skipped),
            Some(headers::outcome::LOST) => Some(Marker::Lost),
            Some(other) => {
                return Err(format!(
                    "{}: unknown outcome `{other}`; written by a newer version?",
                    place()
                ));
            }
        };
        let flags = said.flags.map_or(Flags::NONE, Flags::parse);
        Ok(Some(In { record, kind: topic.kind, origin, origin_first, flags, marker }))
    }
}

/// What `validate` said in the headers of a checked record. Every record has them: they are
/// read in one go.
#[derive(Default)]
struct Said<'r> {
    origin: Option<&'r str>,
    origin_first: Option<&'r str>,
    outcome: Option<&'r str>,
    flags: Option<&'r str>,
}

impl<'r> Said<'r> {
    #[inline]
    fn of(headers: Headers<'r>) -> Said<'r> {
        let mut said = Said::default();
        for (name, value) in headers.raw() {
            // The last one of a name counts.
            let place = match name {
                name if name == headers::ORIGIN.as_bytes() => &mut said.origin,
                name if name == headers::ORIGIN_FIRST.as_bytes() => &mut said.origin_first,
                name if name == headers::OUTCOME.as_bytes() => &mut said.outcome,
                name if name == headers::FLAGS.as_bytes() => &mut said.flags,
                _ => continue,
            };
            *place = value.and_then(|value| std::str::from_utf8(value).ok());
        }
        said
    }
}

/// A record that stands for itself.
pub(super) fn plain_input<'r>(record: Record<'r>, topic: &Topic) -> In<'r> {
    In {
        record,
        kind: topic.kind,
        origin: record.offset,
        origin_first: record.offset,
        flags: Flags::NONE,
        // Control records travel in the pipeline's own topics too. In a raw topic what has no
        // value is for `validate` to judge.
        marker: (topic.contract == Contract::Plain && record.value.is_none())
            .then_some(Marker::Control),
    }
}
