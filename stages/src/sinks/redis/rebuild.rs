//! Values that do not come out of the log, by the same rule (invariant 6): Redis filled again from the database (R2).

use std::time::Duration;

use tapeline_schemas::{ALL_KINDS, Flags, Kind, Micros, wire};

use super::RedisSettings;
use super::server::{Server, Write};
use crate::cache::{Cache, LastValues};
use crate::flow::{Headers, In, Outcome, Output as _, Record, Refusal, Stage as _, TopicPartition};
use crate::sinks::TopicIdentity;

/// Values that are held before they are to be written (invariant 8).
const HELD_VALUES: usize = 512;

/// Id under which the stage is given our own schemas: no record of another writer comes this way.
const OWN_SCHEMA: u32 = 0;

/// What became of values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Written, or to be written where that was only asked.
    pub written: u64,
    /// Left alone: Redis holds as new a value, or a newer one.
    pub held: u64,
}

/// Makes values as the stage makes them, and writes them as its sink does. No sentinel: what the stage has written is
/// for the stage to say.
#[derive(Debug)]
pub struct Rebuilder {
    server: Server,
    topics: Vec<TopicIdentity>,
    stage: Cache,
    values: LastValues,
    /// What is left of the time of each value.
    lives: Vec<Duration>,
}

impl Rebuilder {
    /// One that connects when it first writes.
    pub fn new(settings: RedisSettings) -> Rebuilder {
        let mut stage = Cache::new();
        for spec in ALL_KINDS.iter().filter(|spec| spec.redis.is_some()) {
            stage.learn(spec.kind, OWN_SCHEMA, Some(spec.schema));
        }
        Rebuilder {
            server: Server::new(settings.client, &settings.pipeline, settings.answer),
            topics: settings.topics,
            stage,
            values: LastValues::default(),
            lives: Vec::new(),
        }
    }

    /// Takes an event in our own schema as the stage takes the record of this origin. Each key comes once.
    pub fn take(
        &mut self,
        kind: Kind,
        at: TopicPartition,
        origin: i64,
        payload: &[u8],
        live: Duration,
    ) -> Result<(), String> {
        let mut value = Vec::with_capacity(wire::HEADER_BYTES + payload.len());
        wire::put_header(OWN_SCHEMA, &mut value);
        value.extend_from_slice(payload);
        let headers = Headers::default();
        let record =
            Record { at, offset: origin, time: Micros(0), key: None, value: Some(&value), headers };
        let input =
            In { record, kind, origin, origin_first: origin, flags: Flags::NONE, marker: None };
        match self.stage.apply(&input, &mut self.values) {
            Ok(Outcome::Taken) if self.values.len() > self.lives.len() => {
                self.lives.push(live);
                Ok(())
            }
            Ok(Outcome::Taken) => Err(format!("two values of one {}", kind.name())),
            Ok(_) => Err(format!("the cache takes no such {}", kind.name())),
            Err(Refusal::Reject(reject)) => Err(reject.detail),
            Err(Refusal::UnknownSchema(kind, id)) => {
                Err(format!("schema {id} of {} is unknown", kind.name()))
            }
        }
    }

    /// Whether as many values are held as may be.
    pub fn is_full(&self) -> bool {
        self.values.len() >= HELD_VALUES
    }

    /// Writes what was taken, and forgets it. `only_asked`: Redis says what it would do, and does nothing.
    pub async fn write(&mut self, only_asked: bool) -> Result<Rebuilt, String> {
        let values = std::mem::take(&mut self.values);
        let lives = std::mem::take(&mut self.lives);
        let mut writes = Vec::with_capacity(lives.len());
        for (index, (value, live)) in values.values().iter().zip(lives).enumerate() {
            let topic = self.topics.get(usize::from(value.stamp.at.topic));
            let topic_id = &topic.ok_or_else(|| format!("{}: no topic", value.key))?.id;
            // The script takes no time to live for a question.
            let live = if only_asked { Duration::ZERO } else { live.max(Duration::from_millis(1)) };
            writes.push(Write { index, value, topic_id, live });
        }
        if writes.is_empty() {
            return Ok(Rebuilt::default());
        }
        self.server.connect().await?;
        let written = self.server.write(&writes).await?;
        Ok(Rebuilt { written, held: writes.len() as u64 - written })
    }
}
