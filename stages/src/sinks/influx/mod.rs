//! InfluxDB over its line protocol (S5). A point's identity is its event's, so writing a batch
//! again, whole or in parts, changes nothing.

mod server;

use std::iter;
use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

use crate::failpoint;
use crate::flow::{
    Output, RefusedRow, Reject, Resume, Sink, SinkError, Span, Start, TopicPartition,
};
use crate::influx::Lines;
use server::{Answer, Server};

/// What lines that the server refuses are counted as.
const REASON: &str = "influx";
/// Longest pause taken from an answer's `Retry-After`.
const MAX_REST: Duration = Duration::from_secs(300);

/// Where points go, and with what right.
#[derive(Clone)]
pub enum InfluxTarget {
    /// InfluxDB 1: `/write`.
    V1 {
        /// The database, which must exist.
        database: String,
        /// User and password, where it asks for them.
        login: Option<(String, String)>,
    },
    /// InfluxDB 2, and 3's compatible endpoint: `/api/v2/write`.
    V2 {
        /// The organisation.
        org: String,
        /// The bucket, which must exist.
        bucket: String,
        /// A token that may write to it.
        token: String,
    },
}

/// Settings of an [`InfluxSink`].
#[derive(Clone)]
pub struct InfluxSettings {
    /// Where the server is: `http://host:port`, without user and password.
    pub url: String,
    /// Where points go.
    pub target: InfluxTarget,
    /// Certificates of the CAs to trust; the system's where there are none.
    pub trusted: Vec<reqwest::Certificate>,
    /// How long an answer may take before the connection counts as lost.
    pub answer: Duration,
}

/// The sink of one lane.
pub struct InfluxSink {
    server: Server,
    /// The server asked to be left alone until then.
    rest_until: Option<Instant>,
}

impl InfluxSink {
    /// A sink that connects when it is first used; an error if the settings make no request.
    pub fn new(settings: InfluxSettings) -> Result<InfluxSink, String> {
        Ok(InfluxSink { server: Server::new(settings)?, rest_until: None })
    }

    /// Sends lines; the ones that are refused are found by halving.
    async fn send(&mut self, out: &Lines) -> Result<Vec<RefusedRow>, SinkError> {
        let mut refused = Vec::new();
        // The first is the last: what is left of the batch, in order from the end.
        let mut left: Vec<Range<usize>> = iter::once(0..out.len()).collect();
        while let Some(rows) = left.pop() {
            let reason = match self.server.write(out.body(rows.clone())).await {
                Answer::Written => {
                    failpoint::hit("influx.mid_write");
                    continue;
                }
                Answer::Refused(reason) => reason,
                Answer::Later { reason, after } => {
                    self.rest_until = after.map(|after| Instant::now() + after.min(MAX_REST));
                    return Err(SinkError::Retry(reason));
                }
                Answer::Fatal(reason) => return Err(SinkError::Fatal(reason)),
            };
            if rows.len() > 1 {
                let middle = rows.start + rows.len() / 2;
                left.extend([middle..rows.end, rows.start..middle]);
            } else {
                let row = rows.start;
                let rejected = out.rejected(row, Reject::new(REASON, reason));
                refused.push(RefusedRow { row, rejected });
            }
        }
        Ok(refused)
    }
}

impl Sink<Lines> for InfluxSink {
    async fn write(&mut self, out: &Lines, _: &mut [Span]) -> Result<(), SinkError> {
        if out.is_empty() {
            return Ok(());
        }
        if let Some(until) = self.rest_until {
            tokio::time::sleep_until(until).await;
            self.rest_until = None;
        }
        failpoint::hit("influx.before_write");
        let refused = self.send(out).await?;
        failpoint::hit("influx.after_write");
        if refused.is_empty() { Ok(()) } else { Err(SinkError::Reject(refused)) }
    }

    fn remove_rows(&self, out: &mut Lines, rows: &[usize]) {
        out.remove(rows);
    }

    async fn assign(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Resume>, SinkError> {
        let resume = |&at| Resume { at, start: Start::Committed, held_origin: None };
        Ok(partitions.iter().map(resume).collect())
    }

    async fn revoke(&mut self, _: &[TopicPartition]) {}
}
