//! The loop that owns tasks, back-pressure, metrics and order, so that stages need not.

mod waiting;

use std::time::Duration;

use hashbrown::HashMap;
use metrics::{Counter, Histogram, counter, histogram};
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::waiting::Waiting;
use super::loss;
use super::origin::{Held, plain_input};
use super::writer::{Done, Ends, Writer};
use super::{
    Batcher, Chunk, Contract, In, Input, Lost, Outcome, Position, QuarantineSink, Record, Refusal,
    Rejected, SchemaSource, Sink, SinkError, Source, Stage, Topic, TopicPartition,
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

struct Meters {
    records: [Counter; Outcome::ALL.len()],
    flush_seconds: Histogram,
    batch_positions: Histogram,
}

impl Meters {
    fn of(stage: &'static str) -> Meters {
        Meters {
            records: Outcome::ALL.map(|outcome| {
                counter!("tapeline_stage_records_total", "stage" => stage, "outcome" => outcome.name())
            }),
            flush_seconds: histogram!("tapeline_stage_flush_seconds", "stage" => stage),
            batch_positions: histogram!("tapeline_stage_batch_records", "stage" => stage),
        }
    }
}

/// One lane: a stage, and the writer of what it makes.
pub(super) struct Lane<'t, St: Stage, Si, Q, Sc> {
    pub(super) name: &'static str,
    topics: &'t [Topic],
    limits: Limits,
    pub(super) stage: St,
    pub(super) writer: Writer<'t, Si, Q, St::Out>,
    schemas: Sc,
    pub(super) batcher: Batcher<St::Out>,
    pub(super) held: HashMap<TopicPartition, Held>,
    pub(super) deadline: Option<Instant>,
    /// Partitions that wait for the registry.
    pub(super) waiting: Waiting,
    /// Partitions were given up and have not been assigned again.
    pub(super) gave_up: bool,
    meters: Meters,
}

/// Why a lane left its work.
pub(super) enum Stop {
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

/// What a lane turns to next.
enum Next {
    /// The write under way has ended.
    Done(Result<Done, SinkError>),
    /// The batch has waited long enough.
    Due,
    Input(Input),
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
    let ends = Mutex::new(Ends { sink, quarantine });
    let mut lane = Lane {
        name,
        topics,
        limits,
        stage,
        writer: Writer::new(name, &ends),
        schemas,
        batcher: Batcher::default(),
        held: HashMap::new(),
        deadline: None,
        waiting: Waiting::new(name),
        gave_up: false,
        meters: Meters::of(name),
    };
    loop {
        let step = match lane.next(&mut source).await {
            Next::Done(done) => done.map(|done| lane.commit(done, &mut source)).map_err(Stop::from),
            Next::Due => lane.flush(&mut source).await,
            Next::Input(Input::Chunk(chunk)) => lane.take_chunk(&chunk, &mut source).await,
            Next::Input(Input::Assigned(partitions, answer)) => {
                let started = lane.assign(partitions, &mut source).await;
                started.map(|resumes| drop(answer.send(resumes)))
            }
            Next::Input(Input::Lost(lost)) => {
                lane.lose(lost);
                Ok(())
            }
            Next::Input(Input::Revoked(partitions, answer)) => {
                lane.revoke(&partitions, &mut source).await.map(|released| {
                    // Nobody waits for the answer where the source has gone.
                    let _ = answer.send(released);
                })
            }
            Next::Input(Input::End) => {
                return match lane.drain(&mut source).await {
                    Ok(()) | Err(Stop::Interrupted) => Ok(()),
                    Err(Stop::Fatal(reason)) => Err(reason),
                };
            }
            Next::Input(Input::Failed(reason)) => Err(Stop::Fatal(reason)),
        };
        if let Err(stop) = step {
            lane.stopped(stop)?;
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
    async fn next(&mut self, source: &mut impl Source) -> Next {
        loop {
            // While a batch is being written the next one gathers, as long as it has room.
            let deadline = self.deadline.filter(|_| !self.writer.is_writing());
            return tokio::select! {
                biased;
                done = self.writer.done() => Next::Done(done),
                () = sleep_until(deadline) => Next::Due,
                answer = self.waiting.answer(&self.schemas) => {
                    self.resume_waiting(answer, source);
                    continue;
                }
                input = source.next() => Next::Input(input),
            };
        }
    }

    async fn take_chunk(&mut self, chunk: &Chunk, source: &mut impl Source) -> Result<(), Stop> {
        if !self.held.contains_key(&chunk.at()) {
            return Ok(()); // given up or revoked: the next owner reads it again
        }
        for index in 0..chunk.len() {
            if !self.take_record(chunk.record(index), source).await? {
                break; // held: the rest is read again
            }
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
        self.deadline.get_or_insert_with(|| Instant::now() + self.limits.linger);
    }

    /// Whether the record was taken; if not, its partition is held.
    async fn take_record(
        &mut self,
        record: Record<'_>,
        source: &mut impl Source,
    ) -> Result<bool, Stop> {
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
                loss::before(&mut self.stage, &mut self.batcher, held, &record);
                match held.checked(record, topic)? {
                    Some(input) => input,
                    None => {
                        // It stands for no origin: a span that begins with it holds what was held.
                        let origin = held.origin().unwrap_or(record.offset);
                        let input = plain_input(record, topic);
                        let input = In { origin, origin_first: origin + 1, ..input };
                        self.push(&input, Outcome::Repeated);
                        return Ok(true);
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
                    match self.waiting.ask(&mut self.schemas, id).await {
                        Some(schema) => self.stage.learn(kind, id, schema.as_deref()),
                        None => {
                            self.hold(record.at, kind, id, source).await?;
                            return Ok(false);
                        }
                    }
                    continue;
                }
            }
            return Ok(true);
        }
    }

    /// What was gathered when the source interrupted is given up, not skipped: it was never
    /// committed, and the revocation or the end that interrupted comes next.
    fn stopped(&mut self, stop: Stop) -> Result<(), String> {
        match stop {
            Stop::Interrupted => self.give_up(),
            Stop::Fatal(reason) => return Err(reason),
        }
        Ok(())
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
    }

    /// Begins to write the batch, once the one before it is written.
    async fn flush(&mut self, source: &mut impl Source) -> Result<(), Stop> {
        self.deadline = None;
        if self.batcher.is_empty() {
            return Ok(());
        }
        self.finish(source).await?;
        self.meters.batch_positions.record(self.batcher.len() as f64);
        let spent = self.writer.spent();
        let batch = self.batcher.replace(spent);
        for outcome in Outcome::ALL {
            let count = batch.spans().iter().map(|span| span.count(outcome)).sum();
            self.meters.records[outcome as usize].increment(count);
        }
        // The stage as it is now, at the end of the batch: when it is durable, the stage is further.
        let checkpoints = batch
            .spans()
            .iter()
            .map(|span| (span.at, self.stage.checkpoint(span.at, span.next_offset)))
            .collect();
        self.writer.start(batch, checkpoints);
        Ok(())
    }

    /// Waits for the write under way.
    pub(super) async fn finish(&mut self, source: &mut impl Source) -> Result<(), Stop> {
        if !self.writer.is_writing() {
            return Ok(());
        }
        let done = tokio::select! {
            biased;
            done = self.writer.done() => done?,
            () = interrupted_for_long(source) => return Err(Stop::Interrupted),
        };
        self.commit(done, source);
        Ok(())
    }

    /// Writes everything that was taken.
    pub(super) async fn drain(&mut self, source: &mut impl Source) -> Result<(), Stop> {
        self.flush(source).await?;
        self.finish(source).await
    }

    /// Consumes the proof: committing anything else does not compile.
    fn commit(&mut self, Done { durable, checkpoints, seconds }: Done, source: &mut impl Source) {
        self.meters.flush_seconds.record(seconds);
        debug_assert!(
            durable.spans().iter().map(|span| span.at).eq(checkpoints.iter().map(|c| c.0))
        );
        source.commit(checkpoints);
    }
}

/// How long a sink may go on writing after the source asked for its partitions.
const DRAIN: Duration = Duration::from_secs(10);

async fn interrupted_for_long(source: &impl Source) {
    source.interrupted().await;
    tokio::time::sleep(DRAIN).await;
}
