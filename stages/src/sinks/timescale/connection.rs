//! One connection, and steps on it that end within a limit.

use std::future::Future;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Connection, Executor};

use super::error::Failure;
use crate::flow::SinkError;
use crate::store::{HEADER, TRAILER};

/// Data is sent in pieces of about this size.
const PIECE_BYTES: usize = 256 * 1024;

/// Makes connections with the session's settings.
#[derive(Debug)]
pub(super) struct Connector {
    options: PgConnectOptions,
    session: String,
    answer: Duration,
}

impl Connector {
    pub(super) fn new(
        url: &str,
        schema: Option<&str>,
        answer: Duration,
    ) -> Result<Connector, String> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|error| format!("database url: {error}"))?
            .application_name("tapeline-store")
            .disable_statement_logging();
        // Statements, not startup parameters: PgBouncer refuses those (O5).
        let mut session = format!(
            "set timezone = 'UTC'; set lock_timeout = {limit}; set statement_timeout = {limit};
             set idle_in_transaction_session_timeout = {limit}; set temp_buffers = '32MB';
             set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5;
             set tcp_keepalives_count = 3; set synchronous_commit = on; set jit = off;
             set max_parallel_workers_per_gather = 0;",
            limit = answer.as_millis()
        );
        if let Some(schema) = schema {
            session.push_str(&format!(
                "set search_path = \"{}\", public;",
                schema.replace('"', "\"\"")
            ));
        }
        Ok(Connector { options, session, answer })
    }

    pub(super) async fn connect(&self) -> Result<Session, SinkError> {
        let connecting = async {
            let mut inner = PgConnection::connect_with(&self.options).await?;
            inner.execute(self.session.as_str()).await?;
            Ok(Session { inner, answer: self.answer })
        };
        within(self.answer, connecting).await.map_err(Failure::into_sink_error)
    }
}

/// A connection whose every step has a limit: a server that is gone without a word is noticed.
#[derive(Debug)]
pub(super) struct Session {
    inner: PgConnection,
    answer: Duration,
}

async fn within<T>(
    limit: Duration,
    step: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, step).await {
        Ok(done) => done.map_err(Failure::from),
        Err(_) => Err(Failure::Lost(format!("no answer of the database in {limit:?}"))),
    }
}

impl Session {
    /// Runs statements without parameters or rows.
    pub(super) async fn run(&mut self, sql: &str) -> Result<(), Failure> {
        within(self.answer, self.inner.execute(sql)).await.map(drop)
    }

    /// Runs a statement with parameters.
    pub(super) async fn rows<'q, T>(
        &mut self,
        query: sqlx::query::QueryAs<'q, sqlx::Postgres, T, sqlx::postgres::PgArguments>,
    ) -> Result<Vec<T>, Failure>
    where
        T: for<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin + 'q,
    {
        let rows = within(self.answer, self.inner.fetch_all(query)).await?;
        Ok(rows.iter().map(T::from_row).collect::<Result<_, _>>()?)
    }

    /// Binary COPY of tuples. `between` is called once, when some have been sent.
    pub(super) async fn copy<'t>(
        &mut self,
        statement: &str,
        tuples: impl Iterator<Item = Row<'t>>,
        between: impl FnOnce(),
    ) -> Result<(), Failure> {
        let mut copy = within(self.answer, self.inner.copy_in_raw(statement)).await?;
        let mut between = Some(between);
        let mut piece = Vec::with_capacity(PIECE_BYTES + 4096);
        piece.extend_from_slice(HEADER);
        for tuple in tuples {
            tuple.put(&mut piece);
            if piece.len() >= PIECE_BYTES {
                within(self.answer, copy.send(&piece[..])).await?;
                piece.clear();
                if let Some(between) = between.take() {
                    between();
                }
            }
        }
        if let Some(between) = between.take() {
            within(self.answer, copy.send(&piece[..])).await?;
            piece.clear();
            between();
        }
        piece.extend_from_slice(TRAILER);
        within(self.answer, copy.send(&piece[..])).await?;
        within(self.answer, copy.finish()).await.map(drop)
    }

    /// Ends a failed transaction; an error means the connection is of no more use.
    pub(super) async fn rollback(&mut self) -> Result<(), Failure> {
        self.run("rollback").await
    }

    pub(super) async fn close(self) {
        let closing = async { self.inner.close().await };
        // A server that does not answer to a goodbye will notice by itself.
        let _ = within(Duration::from_secs(1), closing).await;
    }
}

/// A tuple to send, with its number in front where the table has a column for it.
pub(super) struct Row<'t> {
    pub(super) number: Option<i32>,
    pub(super) tuple: &'t [u8],
}

impl Row<'_> {
    fn put(&self, out: &mut Vec<u8>) {
        let Some(number) = self.number else {
            out.extend_from_slice(self.tuple);
            return;
        };
        let (count, fields) = self.tuple.split_at(2);
        let count = i16::from_be_bytes([count[0], count[1]]) + 1;
        out.extend_from_slice(&count.to_be_bytes());
        out.extend_from_slice(&4_i32.to_be_bytes());
        out.extend_from_slice(&number.to_be_bytes());
        out.extend_from_slice(fields);
    }
}
