//! Raw records once more, into a topic with another number of partitions.

use std::collections::{BTreeMap, BTreeSet};

use tapeline_schemas::{Control, Kind, Micros, headers, partition_for};

use crate::flow::{In, Marker, Outcome, Refusal, Stage, TopicPartition};
use crate::messages::{Message, Messages, OutTopic};

/// Publishes each record into the partition of its key, unread and unchanged; what `validate` said
/// in a checked record's headers is left out. All source partitions go through one of these, so
/// the order within each key is kept.
///
/// A venue's "complete" speaks of what came before it in its partition. With other partitions it
/// is true once every source partition has said it: then all of the new ones are told.
pub struct Republish {
    partitions: i32,
    sources: BTreeSet<TopicPartition>,
    complete: BTreeMap<String, BTreeMap<TopicPartition, Micros>>,
    told: BTreeMap<String, Micros>,
}

impl Republish {
    /// Into a topic of `partitions` partitions.
    pub fn new(partitions: i32) -> Republish {
        Republish {
            partitions,
            sources: BTreeSet::new(),
            complete: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    fn complete(&mut self, at: TopicPartition, kind: Kind, control: &Control, out: &mut Messages) {
        let Control::Complete { venue, through } = control else { return };
        let said = self.complete.entry(venue.clone()).or_default();
        said.insert(at, *through);
        if said.len() < self.sources.len() {
            return;
        }
        let Some(&through) = said.values().min() else { return };
        if self.told.get(venue).is_some_and(|&told| told >= through) {
            return;
        }
        self.told.insert(venue.clone(), through);
        let control = Control::Complete { venue: venue.clone(), through };
        for partition in 0..self.partitions {
            let key = venue.as_bytes().to_vec();
            out.push(&Message::control(OutTopic::Of(kind), partition, key, &control));
        }
    }
}

impl Stage for Republish {
    type Out = Messages;

    fn apply(&mut self, input: &In<'_>, out: &mut Messages) -> Result<Outcome, Refusal> {
        let record = &input.record;
        match input.marker {
            Some(Marker::Quarantined) => return Ok(Outcome::Quarantined),
            Some(Marker::Skipped | Marker::Lost) => return Ok(Outcome::Skipped),
            Some(Marker::Control) | None => {}
        }
        if record.value.is_none_or(<[u8]>::is_empty)
            && let Ok(control @ Control::Complete { .. }) =
                Control::from_headers(|name| record.headers.text(name))
        {
            self.complete(record.at, input.kind, &control, out);
            return Ok(Outcome::Control);
        }
        let key = record.key.unwrap_or_default();
        let partition = Some(partition_for(key, self.partitions));
        let topic = OutTopic::Of(input.kind);
        out.push_parts(topic, partition, key, None, record.value, |out| {
            for (name, value) in record.headers.iter() {
                if !headers::is_verdict(name) {
                    out.push(name, value);
                }
            }
        });
        Ok(Outcome::Taken)
    }

    fn learn(&mut self, _: Kind, _: u32, _: Option<&str>) {}

    fn assigned(&mut self, at: TopicPartition, _: Option<&str>) {
        self.sources.insert(at);
    }
}
