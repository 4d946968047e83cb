//! The connection to Redis, and how to tell that it lost its data.

use std::future::Future;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind};
use tapeline_schemas::CodecError;

use super::fields;
use crate::cache::Value;
use crate::flow::TopicPartition;
use crate::sinks::TopicIdentity;
use crate::tls::redis_refusal;

const SCRIPT: &str = include_str!("replace.lua");
/// Values in one round trip: bounds the memory of requests and answers (invariant 8).
const PIPELINE_VALUES: usize = 512;

/// One value to write.
pub(super) struct Write<'v> {
    pub(super) index: usize,
    pub(super) value: &'v Value,
    pub(super) topic_id: &'v str,
    pub(super) live: Duration,
}

#[derive(Debug)]
pub(super) struct Server {
    client: Client,
    /// Taken out while in use: a write that is dropped halfway leaves none behind.
    connection: Option<MultiplexedConnection>,
    /// Hash with a field for each partition whose values have been written. Gone, or without the
    /// field: so are the values.
    sentinel: String,
    sha: String,
    /// The server's process. A restarted one may have come back with an old snapshot.
    run_id: Option<String>,
    answer: Duration,
}

fn field(topics: &[TopicIdentity], at: TopicPartition) -> String {
    let name = topics.get(usize::from(at.topic)).map_or("", |topic| topic.name.as_str());
    format!("{name}:{}", at.partition)
}

impl Server {
    pub(super) fn new(client: Client, pipeline: &str, answer: Duration) -> Server {
        Server {
            client,
            connection: None,
            sentinel: format!("tapeline:cache:{pipeline}:alive"),
            sha: String::new(),
            run_id: None,
            answer,
        }
    }

    async fn within<T>(
        &self,
        step: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T, RedisError> {
        match tokio::time::timeout(self.answer, step).await {
            Ok(done) => done,
            Err(_) => Err((ErrorKind::Io, "no answer of redis in time").into()),
        }
    }

    /// Connects where there is no connection; whether another server process answers than before.
    pub(super) async fn connect(&mut self) -> Result<bool, String> {
        if self.connection.is_some() {
            return Ok(false);
        }
        let connecting = async {
            let mut connection = self.client.get_multiplexed_async_connection().await?;
            let info: String =
                redis::cmd("INFO").arg("server").query_async(&mut connection).await?;
            let mut load = redis::cmd("SCRIPT");
            let sha: String = load.arg("LOAD").arg(SCRIPT).query_async(&mut connection).await?;
            Ok((connection, info, sha))
        };
        let connected = self.within(connecting).await;
        let (connection, info, sha) =
            connected.map_err(|error| format!("redis: {}", redis_refusal(&self.client, &error)))?;
        let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:")).map(str::to_owned);
        let is_other = self.run_id.is_some() && self.run_id != run_id;
        self.run_id = run_id;
        self.sha = sha;
        self.connection = Some(connection);
        Ok(is_other)
    }

    /// Runs a pipeline; the connection is kept only where it answered.
    async fn run<T: redis::FromRedisValue>(
        &mut self,
        pipeline: &Pipeline,
    ) -> Result<T, RedisError> {
        let Some(mut connection) = self.connection.take() else {
            return Err((ErrorKind::Io, "not connected").into());
        };
        let done = self.within(pipeline.query_async(&mut connection)).await;
        // After an error the next attempt begins with a connection of its own.
        if done.is_ok() {
            self.connection = Some(connection);
        }
        done
    }

    pub(super) async fn is_announced(
        &mut self,
        topics: &[TopicIdentity],
        at: TopicPartition,
    ) -> Result<bool, String> {
        let mut pipeline = redis::pipe();
        pipeline.hexists(&self.sentinel, field(topics, at));
        let (stands,): (bool,) =
            self.run(&pipeline).await.map_err(|error| format!("redis: {error}"))?;
        Ok(stands)
    }

    pub(super) async fn announce(
        &mut self,
        topics: &[TopicIdentity],
        partitions: &[TopicPartition],
    ) -> Result<(), String> {
        if partitions.is_empty() {
            return Ok(());
        }
        let mut pipeline = redis::pipe();
        for &at in partitions {
            pipeline.hset(&self.sentinel, field(topics, at), 1).ignore();
        }
        self.run(&pipeline).await.map_err(|error| format!("redis: {error}"))
    }

    /// How many of the values were written; of the others Redis holds as new a one or a newer.
    pub(super) async fn write(&mut self, values: &[Write<'_>]) -> Result<u64, String> {
        let mut all = 0;
        for some in values.chunks(PIPELINE_VALUES) {
            let mut answer = self.replace(some).await?;
            if answer.as_ref().is_err_and(is_script_missing) {
                // Forgotten by `script flush`; connecting loads it again.
                self.connect().await?;
                answer = self.replace(some).await?;
            }
            let replaced: Vec<u8> = answer.map_err(|error| format!("redis: {error}"))?;
            let written = replaced.iter().filter(|&&replaced| replaced == 1).count() as u64;
            let kept = replaced.len() as u64 - written;
            metrics::counter!("tapeline_cache_values_total", "what" => "written")
                .increment(written);
            metrics::counter!("tapeline_cache_values_total", "what" => "older").increment(kept);
            all += written;
        }
        Ok(all)
    }

    async fn replace(
        &mut self,
        values: &[Write<'_>],
    ) -> Result<Result<Vec<u8>, RedisError>, String> {
        let mut pipeline = redis::pipe();
        for write in values {
            pipeline.add_command(replacement(&self.sha, write).map_err(|error| {
                format!("{}: {error}", write.value.key) // decoded before, so it is our own fault
            })?);
        }
        Ok(self.run(&pipeline).await)
    }
}

fn replacement(sha: &str, write: &Write<'_>) -> Result<Cmd, CodecError> {
    let stamp = &write.value.stamp;
    let mut cmd = redis::cmd("EVALSHA");
    cmd.arg(sha).arg(1).arg(&*write.value.key);
    cmd.arg(write.live.as_millis() as u64).arg(write.topic_id);
    cmd.arg(stamp.origin).arg(stamp.venue_time.0);
    fields::put(write.value, |name, text| {
        cmd.arg(name).arg(text);
    })?;
    Ok(cmd)
}

fn is_script_missing(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
