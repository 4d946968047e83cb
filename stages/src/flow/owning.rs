//! Partitions that come and go.

use std::time::Duration;

use super::origin::Held;
use super::run::{Lane, Stop};
use super::{
    Batcher, QuarantineSink, Released, Resume, SchemaSource, Sink, SinkError, Source, Stage, Start,
    TopicPartition,
};

/// First and longest pause between attempts to take partitions that cannot be taken yet.
const ASSIGN_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

impl<St, Si, Q, Sc> Lane<'_, St, Si, Q, Sc>
where
    St: Stage,
    Si: Sink<St::Out>,
    Q: QuarantineSink,
    Sc: SchemaSource,
{
    pub(super) async fn assign(
        &mut self,
        partitions: Vec<(TopicPartition, Option<String>)>,
        source: &mut impl Source,
    ) -> Result<Vec<Resume>, Stop> {
        let places: Vec<_> = partitions.iter().map(|(at, _)| *at).collect();
        let mut pause = ASSIGN_PAUSE.0;
        // The sink is asked while it writes nothing; what is gathered of others can wait.
        self.finish(source).await?;
        let resumes = loop {
            match self.writer.ends().await.sink.assign(&places).await {
                Ok(resumes) => break resumes,
                Err(SinkError::Retry(reason)) => {
                    tracing::warn!(
                        stage = self.name,
                        reason,
                        "cannot take partitions yet, will try again"
                    );
                }
                Err(error) => return Err(error.into()),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = source.interrupted() => return Err(Stop::Interrupted),
            }
            pause = (pause * 2).min(ASSIGN_PAUSE.1);
        };
        self.gave_up = false;
        for (at, note) in &partitions {
            self.stage.assigned(*at, note.as_deref());
        }
        for resume in &resumes {
            let next_offset = match resume.start {
                Start::At(offset) => Some(offset),
                Start::Beginning | Start::Committed | Start::CommittedOrEarlier(_) => None,
            };
            self.held.insert(resume.at, Held::new(resume.held_origin, next_offset));
        }
        tracing::info!(stage = self.name, partitions = places.len(), "partitions taken");
        Ok(resumes)
    }

    /// Drains, commits, then lets go.
    pub(super) async fn revoke(
        &mut self,
        partitions: &[TopicPartition],
        source: &mut impl Source,
    ) -> Result<Released, Stop> {
        match self.drain(source).await {
            Ok(()) => {}
            Err(Stop::Interrupted) => self.give_up(),
            Err(fatal) => return Err(fatal),
        }
        for at in partitions {
            self.held.remove(at);
            self.waiting.remove(*at);
            self.stage.revoked(*at);
        }
        self.writer.ends().await.sink.revoke(partitions).await;
        tracing::info!(stage = self.name, partitions = partitions.len(), "partitions released");
        Ok(if self.gave_up { Released::GaveUp } else { Released::Drained })
    }

    /// Forgets everything gathered and every partition; the source assigns again what stays ours.
    pub(super) fn give_up(&mut self) {
        self.gave_up = true;
        self.writer.give_up();
        self.batcher = Batcher::default();
        self.deadline = None;
        self.waiting.clear();
        for (at, _) in self.held.drain() {
            self.stage.revoked(at);
        }
    }
}
