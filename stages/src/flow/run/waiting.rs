//! Partitions that wait for a registry that cannot be asked.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use metrics::{counter, gauge};
use tapeline_schemas::Kind;

use super::{Lane, Stop};
use crate::flow::{QuarantineSink, SchemaSource, Sink, Source, Stage, TopicPartition};

/// How long all partitions wait for the answer about a schema before one of them waits alone.
const INLINE: Duration = Duration::from_millis(500);
/// First and longest pause between questions to a registry that does not answer.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// An id with the registry's answer.
type Answer = (u32, Result<Option<String>, String>);
type Asking = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What waits, and the question under way.
pub(in crate::flow) struct Waiting {
    stage: &'static str,
    partitions: BTreeMap<TopicPartition, (Kind, u32)>,
    asking: Option<Asking>,
    pause: Duration,
    shown: usize,
}

impl Waiting {
    pub(super) fn new(stage: &'static str) -> Waiting {
        Waiting { stage, partitions: BTreeMap::new(), asking: None, pause: PAUSE.0, shown: 0 }
    }

    /// Asks now; `None` where that gives no answer soon. While others wait for an answer, only
    /// what is known without a question is heard.
    pub(super) async fn ask(
        &mut self,
        schemas: &mut impl SchemaSource,
        id: u32,
    ) -> Option<Option<String>> {
        let patience = if self.partitions.is_empty() { INLINE } else { Duration::ZERO };
        match tokio::time::timeout(patience, schemas.schema(id)).await {
            Ok(Ok(schema)) => Some(schema),
            Ok(Err(reason)) => {
                self.failed(id, &reason);
                None
            }
            Err(_) => None,
        }
    }

    pub(super) fn add(&mut self, at: TopicPartition, kind: Kind, id: u32) {
        self.partitions.insert(at, (kind, id));
        self.show();
    }

    pub(in crate::flow) fn remove(&mut self, at: TopicPartition) {
        self.partitions.remove(&at);
        self.show();
    }

    pub(in crate::flow) fn clear(&mut self) {
        self.partitions.clear();
        self.show();
    }

    /// Takes the partitions that waited for `id`.
    pub(super) fn release(&mut self, id: u32) -> Vec<(TopicPartition, Kind)> {
        let released = self.partitions.iter().filter(|(_, (_, wanted))| *wanted == id);
        let released: Vec<_> = released.map(|(at, (kind, _))| (*at, *kind)).collect();
        self.partitions.retain(|_, (_, wanted)| *wanted != id);
        self.show();
        released
    }

    /// The next answer of the registry, asked as long as anything waits. Dropping the future
    /// loses nothing.
    pub(super) async fn answer(&mut self, schemas: &impl SchemaSource) -> (u32, Option<String>) {
        loop {
            let Some((_, id)) = self.partitions.values().next().copied() else {
                self.asking = None;
                self.pause = PAUSE.0;
                return std::future::pending().await;
            };
            let pause = self.pause;
            let asking = self.asking.get_or_insert_with(|| {
                let mut schemas = schemas.clone();
                Box::pin(async move {
                    tokio::time::sleep(pause).await;
                    (id, schemas.schema(id).await)
                })
            });
            let (id, answer) = asking.await;
            self.asking = None;
            match answer {
                Ok(schema) => {
                    self.pause = PAUSE.0;
                    return (id, schema);
                }
                Err(reason) => {
                    self.pause = (pause * 2).min(PAUSE.1);
                    self.failed(id, &reason);
                }
            }
        }
    }

    fn failed(&self, id: u32, reason: &str) {
        counter!("tapeline_registry_failures_total", "stage" => self.stage).increment(1);
        let partitions = self.partitions.len();
        tracing::warn!(
            stage = self.stage,
            schema_id = id,
            partitions,
            reason,
            "registry cannot be asked, waiting"
        );
    }

    /// Lanes of a stage add up.
    fn show(&mut self) {
        let change = self.partitions.len() as f64 - self.shown as f64;
        self.shown = self.partitions.len();
        gauge!("tapeline_registry_waiting_partitions", "stage" => self.stage).increment(change);
    }
}

impl<St, Si, Q, Sc> Lane<'_, St, Si, Q, Sc>
where
    St: Stage,
    Si: Sink<St::Out>,
    Q: QuarantineSink,
    Sc: SchemaSource,
{
    /// A registry that cannot be asked is not the record's fault: its partition waits, the others
    /// go on. It is given back to the source and assigned again once there is an answer.
    pub(super) async fn hold(
        &mut self,
        at: TopicPartition,
        kind: Kind,
        id: u32,
        source: &mut impl Source,
    ) -> Result<(), Stop> {
        // Before the stage forgets the partition: its checkpoint speaks of what is durable.
        self.drain(source).await?;
        self.held.remove(&at);
        self.stage.revoked(at);
        self.waiting.add(at, kind, id);
        source.hold(at);
        Ok(())
    }

    pub(super) fn resume_waiting(
        &mut self,
        (id, schema): (u32, Option<String>),
        source: &mut impl Source,
    ) {
        for (at, kind) in self.waiting.release(id) {
            // That there is none is believed for one record only, which asks again itself.
            if schema.is_some() {
                self.stage.learn(kind, id, schema.as_deref());
            }
            source.again(at);
        }
    }
}
