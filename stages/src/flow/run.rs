//! The loop that owns tasks, back-pressure, metrics and order, so that stages need not.

use std::collections::HashMap;
use std::time::Duration;

use metrics::{Counter, Histogram, counter, histogram};
use tokio::time::Instant;

use super::loss;
use super::origin::{Held, plain_input};
use super::{
    Batcher, Chunk, Contract, Durable, In, Input, Lost, Outcome, Position, QuarantineSink, Record,
    Refusal, Rejected, Released, SchemaSource, Sink, SinkError, Source, Stage, Start, Topic,
    TopicPartition, flush,
};

/// Named limits of one lane of a stage (invariant 8).
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest number of positions in a batch.
    pub batch_positions: usize,
    /// Memory at which a batch is written.
    pub batch_bytes: usize,
    /// How long a batch may wait for more.
    pub linger: Duration,
}

/// First and longest pause between questions to a registry that does not answer.
const REGISTRY_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

struct Meters {
    records: [Counter; Outcome::ALL.len()],
    flush_seconds: Histogram,
    batch_positions: Histogram,
}

/// One lane: a stage, its sink and its quarantine.
struct Lane<'t, St: Stage, Si, Q, Sc> {
    name: &'static str,
    topics: &'t [Topic],
    limits: Limits,
    stage: St,
    sink: Si,
    quarantine: Q,
    schemas: Sc,
    batcher: Batcher<St::Out>,
    held: HashMap<TopicPartition, Held>,
    deadline: Option<Instant>,
    /// Partitions were given up and have not been assigned again.
    gave_up: bool,
    meters: Meters,
}

/// Why a lane left its work.
enum Stop {
    /// The source wants partitions back, or the end, while the sink cannot write.
    Interrupted,
    /// The stage must not go on.
    Fatal(String),
}

impl From<String> for Stop {
    fn from(reason: String) -> Stop {
        Stop::Fatal(reason)
    }
}

impl From<SinkError> for Stop {
    fn from(error: SinkError) -> Stop {
        Stop::Fatal(error.to_string())
    }
}

/// Runs a stage until its source ends. An error means the stage must not go on; what is not
/// committed will be read again.
#[allow(clippy::too_many_arguments)]
pub async fn run<St, Si, Q, So, Sc>(
    name: &'static str,
    topics: &[Topic],
    limits: Limits,
    stage: St,
    sink: Si,
    quarantine: Q,
    mut source: So,
    schemas: Sc,
) -> Result<(), String>
where
    St: Stage,
    Si: Sink<St::Out>,
    Q: QuarantineSink,
    So: Source,
    Sc: SchemaSource,
{
    let meters = Meters {
        records: Outcome::ALL.map(|outcome| {
            counter!("tapeline_stage_records_total", "stage" => name, "outcome" => outcome.name())
        }),
        flush_seconds: histogram!("tapeline_stage_flush_seconds", "stage" => name),
        batch_positions: histogram!("tapeline_stage_batch_records", "stage" => name),
    };
    let mut lane = Lane {
        name,
        topics,
        limits,
        stage,
        sink,
        quarantine,
        schemas,
        batcher: Batcher::default(),
        held: HashMap::new(),
        deadline: None,
        gave_up: false,
        meters,
    };
    loop {
        let deadline = lane.deadline;
        let input = tokio::select! {
            biased;
            () = sleep_until(deadline) => None,
            input = source.next() => Some(input),
        };
        let step = match input {
            None => lane.flush(&mut source).await,
            Some(Input::Chunk(chunk)) => lane.take_chunk(&chunk, &mut source).await,
            Some(Input::Assigned(partitions, answer)) => {
                let started = lane.assign(partitions, &source).await;
                started.map(|resumes| drop(answer.send(resumes)))
            }
            Some(Input::Lost(lost)) => {
                lane.lose(lost);
                Ok(())
            }
            Some(Input::Revoked(partitions, answer)) => {
                lane.revoke(&partitions, &mut source).await.map(|released| {
                    // Nobody waits for the answer where the source has gone.
                    let _ = answer.send(released);
                })
            }
            Some(Input::End) => {
                return match lane.flush(&mut source).await {
                    Ok(()) | Err(Stop::Interrupted) => Ok(()),
                    Err(Stop::Fatal(reason)) => Err(reason),
                };
            }
            Some(Input::Failed(reason)) => Err(Stop::Fatal(reason)),
        };
        match step {
            Ok(()) => {}
            // What was gathered is given up, not skipped: it was never committed, and the
            // revocation or the end that interrupted comes next.
            Err(Stop::Interrupted) => lane.give_up(),
            Err(Stop::Fatal(reason)) => return Err(reason),
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

impl<St, Si, Q, Sc> Lane<'_, St, Si, Q, Sc>
where
    St: Stage,
    Si: Sink<St::Out>,
    Q: QuarantineSink,
    Sc: SchemaSource,
{
    async fn take_chunk(&mut self, chunk: &Chunk, source: &mut impl Source) -> Result<(), Stop> {
        if !self.held.contains_key(&chunk.at()) {
            return Ok(()); // given up or revoked: the next owner reads it again
        }
        for index in 0..chunk.len() {
            self.take_record(chunk.record(index), source).await?;
            if self.batcher.len() >= self.limits.batch_positions
                || self.batcher.byte_len() >= self.limits.batch_bytes
            {
                self.flush(source).await?;
            }
        }
        if self.deadline.is_none() && !self.batcher.is_empty() {
            self.deadline = Some(Instant::now() + self.limits.linger);
        }
        Ok(())
    }

    /// What is gone is counted as such.
    fn lose(&mut self, lost: Lost) {
        let topic = &self.topics[lost.at.topic as usize];
        let Lost { at, first, last } = lost;
        let (stage, partition) = (self.name, at.partition);
        tracing::warn!(stage, topic = topic.name, partition, first, last, "accepted as lost");
        let held = self.held.entry(at).or_default();
        loss::enter(&mut self.stage, &mut self.batcher, held, topic, lost);
        self.meters.records[Outcome::Lost as usize].increment((last - first + 1) as u64);
        self.deadline.get_or_insert_with(|| Instant::now() + self.limits.linger);
    }

    async fn take_record(
        &mut self,
        record: Record<'_>,
        source: &mut impl Source,
    ) -> Result<(), Stop> {
        let topics = self.topics;
        let topic = &topics[record.at.topic as usize];
        let input = match topic.contract {
            Contract::Raw => {
                self.account_for_skipped(&record);
                plain_input(record, topic)
            }
            Contract::Plain => plain_input(record, topic),
            Contract::Checked => {
                let held = self.held.entry(record.at).or_default();
                loss::before::<St>(&mut self.batcher, held, &record);
                match held.checked(record, topic)? {
                    Some(input) => input,
                    None => {
                        // It stands for no origin: a span that begins with it holds what was held.
                        let origin = held.origin().unwrap_or(record.offset);
                        let input = plain_input(record, topic);
                        let input = In { origin, origin_first: origin + 1, ..input };
                        self.push(&input, Outcome::Repeated);
                        return Ok(());
                    }
                }
            }
        };
        loop {
            match self.stage.apply(&input, self.batcher.out()) {
                Ok(outcome) => self.push(&input, outcome),
                Err(Refusal::Reject(reject)) => {
                    self.stage.rejected(&input, &reject, self.batcher.out());
                    tracing::warn!(
                        stage = self.name,
                        topic = topic.name,
                        partition = record.at.partition,
                        offset = record.offset,
                        reason = reject.reason,
                        detail = reject.detail,
                        "record goes to quarantine"
                    );
                    self.batcher.reject(Rejected::copy(&record, reject));
                    self.push(&input, Outcome::Quarantined);
                }
                Err(Refusal::UnknownSchema(kind, id)) => {
                    let schema = self.ask_registry(id, source).await?;
                    self.stage.learn(kind, id, schema.as_deref());
                    continue;
                }
            }
            return Ok(());
        }
    }

    /// Asks until the registry answers; an unreachable registry pauses the lane, it is not the
    /// record's fault.
    async fn ask_registry(
        &mut self,
        id: u32,
        source: &impl Source,
    ) -> Result<Option<String>, Stop> {
        let mut pause = REGISTRY_PAUSE.0;
        loop {
            let reason = match self.schemas.schema(id).await {
                Ok(schema) => return Ok(schema),
                Err(reason) => reason,
            };
            counter!("tapeline_registry_failures_total", "stage" => self.name).increment(1);
            tracing::warn!(
                stage = self.name,
                schema_id = id,
                reason,
                "registry cannot be asked, waiting"
            );
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = source.interrupted() => return Err(Stop::Interrupted),
            }
            pause = (pause * 2).min(REGISTRY_PAUSE.1);
        }
    }

    /// Offsets between the last raw record and this one were never delivered: a marker for them.
    fn account_for_skipped(&mut self, record: &Record<'_>) {
        let held = self.held.entry(record.at).or_default();
        let Some((first, last)) = held.skipped_before(record.offset) else { return };
        self.stage.skipped(record.at, first, last, self.batcher.out());
        let position = Position {
            at: record.at,
            offset: last,
            origin_first: first,
            origin: last,
            event_time: None,
        };
        self.batcher.push(position, Outcome::Skipped);
        self.meters.records[Outcome::Skipped as usize].increment((last - first + 1) as u64);
    }

    fn push(&mut self, input: &In<'_>, outcome: Outcome) {
        let event_time = match outcome {
            Outcome::Taken => self.stage.event_time(),
            _ => None,
        };
        let position = Position {
            at: input.record.at,
            offset: input.record.offset,
            origin_first: input.origin_first,
            origin: input.origin,
            event_time,
        };
        self.batcher.push(position, outcome);
        self.meters.records[outcome as usize].increment(1);
    }

    async fn flush(&mut self, source: &mut impl Source) -> Result<(), Stop> {
        self.deadline = None;
        if self.batcher.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        self.meters.batch_positions.record(self.batcher.len() as f64);
        let batch = self.batcher.take();
        let durable = tokio::select! {
            biased;
            durable = flush(self.name, &mut self.sink, &mut self.quarantine, batch) => durable?,
            () = interrupted_for_long(source) => return Err(Stop::Interrupted),
        };
        self.meters.flush_seconds.record(began.elapsed().as_secs_f64());
        self.commit(durable, source);
        Ok(())
    }

    /// Consumes the proof: committing anything else does not compile.
    fn commit(&mut self, durable: Durable, source: &mut impl Source) {
        let checkpoints = durable
            .spans()
            .iter()
            .map(|span| (span.at, self.stage.checkpoint(span.at, span.next_offset)))
            .collect();
        source.commit(checkpoints);
    }

    async fn assign(
        &mut self,
        partitions: Vec<(TopicPartition, Option<String>)>,
        source: &impl Source,
    ) -> Result<Vec<super::Resume>, Stop> {
        let places: Vec<_> = partitions.iter().map(|(at, _)| *at).collect();
        let mut pause = REGISTRY_PAUSE.0;
        let resumes = loop {
            match self.sink.assign(&places).await {
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
            pause = (pause * 2).min(REGISTRY_PAUSE.1);
        };
        self.gave_up = false;
        for (at, note) in &partitions {
            self.stage.assigned(*at, note.as_deref());
        }
        for resume in &resumes {
            let next_offset = match resume.start {
                Start::At(offset) => Some(offset),
                Start::Beginning | Start::Committed => None,
            };
            self.held.insert(resume.at, Held::new(resume.held_origin, next_offset));
        }
        tracing::info!(stage = self.name, partitions = places.len(), "partitions taken");
        Ok(resumes)
    }

    /// Drains, commits, then lets go.
    async fn revoke(
        &mut self,
        partitions: &[TopicPartition],
        source: &mut impl Source,
    ) -> Result<Released, Stop> {
        match self.flush(source).await {
            Ok(()) => {}
            Err(Stop::Interrupted) => self.give_up(),
            Err(fatal) => return Err(fatal),
        }
        for at in partitions {
            self.held.remove(at);
            self.stage.revoked(*at);
        }
        self.sink.revoke(partitions).await;
        tracing::info!(stage = self.name, partitions = partitions.len(), "partitions released");
        Ok(if self.gave_up { Released::GaveUp } else { Released::Drained })
    }

    /// Forgets everything gathered and every partition; the source assigns again what stays ours.
    fn give_up(&mut self) {
        self.gave_up = true;
        self.batcher = Batcher::default();
        self.deadline = None;
        for (at, _) in self.held.drain() {
            self.stage.revoked(at);
        }
    }
}

/// How long a sink may go on writing after the source asked for its partitions.
const DRAIN: Duration = Duration::from_secs(10);

async fn interrupted_for_long(source: &impl Source) {
    source.interrupted().await;
    tokio::time::sleep(DRAIN).await;
}
