//! TimescaleDB: rows, ledger and fences in one transaction (invariant 2).

mod connection;
mod copy;
mod error;
mod fence;
mod ledger;
mod merge;

use std::time::Duration;

use connection::{Connector, Session};
use copy::{Merged, Trust};
use error::Failure;
use fence::Fences;

use crate::failpoint;
use crate::flow::{
    Output, RefusedRow, Reject, Resume, Sink, SinkError, Span, Start, TopicPartition,
};
use crate::sinks::TopicIdentity;
use crate::store::{CopyBuffers, Table};

/// The migrations in `sql/` (S7); `sql/community/` is not among them.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../sql");

/// What rows that only the database refuses are counted as.
const REASON: &str = "database";

/// Settings of a [`TimescaleSink`].
#[derive(Debug, Clone)]
pub struct TimescaleSettings {
    /// Where the database is: `postgres://…`.
    pub url: String,
    /// Schema to write to instead of `public`, for shadows.
    pub schema: Option<String>,
    /// Name under which fences and ledger are kept; a replay has one of its own (invariant 5).
    pub pipeline: String,
    /// The topics, as [`TopicPartition::topic`] counts them.
    pub topics: Vec<TopicIdentity>,
    /// How long to wait for a fence before its owner counts as frozen and is ended.
    pub takeover: Duration,
    /// How long one answer of the database may take before the connection counts as lost.
    pub answer: Duration,
}

impl TimescaleSettings {
    /// Settings for the live pipeline.
    pub fn new(
        url: impl Into<String>,
        pipeline: impl Into<String>,
        topics: Vec<TopicIdentity>,
    ) -> TimescaleSettings {
        TimescaleSettings {
            url: url.into(),
            schema: None,
            pipeline: pipeline.into(),
            topics,
            takeover: Duration::from_secs(5),
            answer: Duration::from_secs(30),
        }
    }
}

/// The sink of one lane, on one connection.
#[derive(Debug)]
pub struct TimescaleSink {
    connector: Connector,
    /// Taken out while in use: a write that is dropped halfway leaves none behind.
    session: Option<Session>,
    fences: Fences,
    trust: Trust,
}

impl TimescaleSink {
    /// A sink that connects when it is first used; an error if the address cannot be read.
    pub fn new(settings: TimescaleSettings) -> Result<TimescaleSink, String> {
        let TimescaleSettings { url, schema, pipeline, topics, takeover, answer } = settings;
        Ok(TimescaleSink {
            connector: Connector::new(&url, schema.as_deref(), answer)?,
            session: None,
            fences: Fences::new(pipeline, topics, takeover.as_millis().max(1) as u64),
            trust: Trust::default(),
        })
    }

    /// One attempt at the batch: everything or nothing.
    async fn attempt(
        &self,
        session: &mut Session,
        out: &CopyBuffers,
        spans: &mut [Span],
    ) -> Result<Vec<Table>, (Option<Table>, Failure)> {
        let tables = || Table::ALL.into_iter().filter(|&table| !out.table(table).rows().is_empty());
        let anywhere = |failure| (None, failure);
        for table in tables().filter(|&table| self.trust.is_careful(table)) {
            copy::prepare(session, table).await.map_err(anywhere)?;
        }
        failpoint::hit("store.before_begin");
        session.run("begin").await.map_err(anywhere)?;
        self.fences.advance(session, spans).await.map_err(anywhere)?;
        failpoint::hit("store.before_copy");
        let mut merged = Vec::new();
        for table in tables() {
            if self.trust.is_careful(table) {
                let careful = copy::careful(session, out, table).await;
                merged.push((table, careful.map_err(|failure| (Some(table), failure))?));
            } else {
                let straight = copy::straight(session, out, table).await;
                straight.map_err(|failure| (Some(table), failure))?;
            }
        }
        let days = ledger::account(out, &merged, spans);
        ledger::write(session, &self.fences, out, spans, &days).await.map_err(anywhere)?;
        failpoint::hit("store.before_commit");
        session.run("commit").await.map_err(|failure| (None, unheard(failure)))?;
        failpoint::hit("store.after_commit");
        let dropped =
            |(table, merged): (Table, Merged)| (!merged.dropped.is_empty()).then_some(table);
        Ok(merged.into_iter().filter_map(dropped).collect())
    }

    /// Repeats the batch where only our way of writing it was at fault.
    async fn write_on(
        &mut self,
        session: &mut Session,
        out: &CopyBuffers,
        spans: &mut [Span],
    ) -> Result<(), WriteFailure> {
        loop {
            let mut attempted = spans.to_vec();
            let (table, failure) = match self.attempt(session, out, &mut attempted).await {
                Ok(with_duplicates) => {
                    spans.clone_from_slice(&attempted);
                    self.fences.advanced(spans);
                    self.learn(out, &with_duplicates);
                    return Ok(());
                }
                Err(failed) => failed,
            };
            if failure.is_lost() {
                return Err(failure.into());
            }
            session.rollback().await?;
            match (failure, table) {
                (Failure::Unique(_), Some(table)) if !self.trust.is_careful(table) => {
                    metrics::counter!("tapeline_store_careful_batches_total", "table" => table.name())
                        .increment(1);
                    self.trust.lost(table);
                }
                (Failure::Data(reason), Some(table)) => {
                    return Err(refuse(session, out, table, reason).await);
                }
                (failure, _) => return Err(failure.into()),
            }
        }
    }

    fn learn(&mut self, out: &CopyBuffers, with_duplicates: &[Table]) {
        for table in Table::ALL {
            if with_duplicates.contains(&table) {
                self.trust.lost(table);
            } else if !out.table(table).rows().is_empty() {
                self.trust.kept(table);
            }
        }
    }
}

/// Why a batch was not written, rows to blame included.
enum WriteFailure {
    Rows(Vec<RefusedRow>),
    Other(Failure),
}

impl From<Failure> for WriteFailure {
    fn from(failure: Failure) -> WriteFailure {
        WriteFailure::Other(failure)
    }
}

/// Whatever COMMIT failed with, it may have succeeded: only the fence knows, asked anew.
fn unheard(failure: Failure) -> Failure {
    match failure {
        Failure::Later(reason) | Failure::Lost(reason) => Failure::Lost(reason),
        other => other,
    }
}

async fn refuse(
    session: &mut Session,
    out: &CopyBuffers,
    table: Table,
    reason: String,
) -> WriteFailure {
    let found = async {
        copy::prepare(session, table).await?;
        copy::find_refused(session, out, table).await
    };
    match found.await {
        Ok(refused) if refused.is_empty() => Failure::Later(reason).into(),
        Ok(refused) => WriteFailure::Rows(
            refused
                .into_iter()
                .map(|(row, detail)| RefusedRow {
                    row: out.index_of(table, row),
                    rejected: out.rejected(table, row, Reject::new(REASON, detail)),
                })
                .collect(),
        ),
        // The transaction of the search may be open still.
        Err(failure) => Failure::Lost(format!("{failure:?}")).into(),
    }
}

impl Sink<CopyBuffers> for TimescaleSink {
    async fn write(&mut self, out: &CopyBuffers, spans: &mut [Span]) -> Result<(), SinkError> {
        if let Some(span) = spans.iter().find(|span| self.fences.held(span.at).is_none()) {
            return Err(SinkError::Fatal(format!("a batch of {:?}, which is not ours", span.at)));
        }
        let mut session = match self.session.take() {
            Some(session) => session,
            None => {
                let mut session = self.connector.connect().await?;
                let there = self.fences.reclaim(&mut session, spans).await;
                if there.map_err(Failure::into_sink_error)? {
                    tracing::info!("the batch whose commit went unanswered is there");
                    self.session = Some(session);
                    return Ok(());
                }
                session
            }
        };
        let failure = match self.write_on(&mut session, out, spans).await {
            Ok(()) => {
                self.session = Some(session);
                return Ok(());
            }
            Err(failure) => failure,
        };
        match failure {
            WriteFailure::Rows(rows) => {
                self.session = Some(session);
                Err(SinkError::Reject(rows))
            }
            WriteFailure::Other(failure) => {
                if !failure.is_lost() {
                    self.session = Some(session);
                }
                Err(failure.into_sink_error())
            }
        }
    }

    fn remove_rows(&self, out: &mut CopyBuffers, rows: &[usize]) {
        debug_assert!(rows.iter().all(|&row| row < out.len()));
        out.remove(rows);
    }

    async fn assign(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Resume>, SinkError> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => self.connector.connect().await?,
        };
        if let Err(failure) = self.fences.claim(&mut session, partitions).await {
            if !failure.is_lost() {
                self.session = Some(session);
            }
            return Err(failure.into_sink_error());
        }
        self.session = Some(session);
        Ok(partitions
            .iter()
            .map(|&at| {
                let fence = self.fences.held(at);
                let next_offset = fence.and_then(|fence| fence.next_offset);
                Resume {
                    at,
                    start: next_offset.map_or(Start::Beginning, Start::At),
                    held_origin: fence.and_then(|fence| fence.held_origin),
                }
            })
            .collect())
    }

    async fn revoke(&mut self, partitions: &[TopicPartition]) {
        self.fences.release(partitions);
        if self.fences.is_empty()
            && let Some(session) = self.session.take()
        {
            session.close().await;
        }
    }
}
