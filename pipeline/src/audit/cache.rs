//! Redis: each value is what some checked record says, not older than one that the cache has
//! taken since, and has not outlived its time (invariant 6, R1).

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use redis::aio::MultiplexedConnection;
use tapeline_schemas::{Flags, Kind, headers};
use tapeline_stages::cache::{Cache, LastValues};
use tapeline_stages::flow::{Contract, In, Marker, Outcome, Record, Refusal, Stage as _, Topic};
use tapeline_stages::sinks::redis::shown;

use super::Auditor;
use super::report::Check;
use crate::schemas::Schemas;
use crate::wiring::CACHED_KINDS;

/// Keys looked at in one round trip (invariant 8).
const KEYS: usize = 500;
/// How long Redis may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// A value as Redis had it.
#[derive(Debug)]
struct Value {
    kind: Kind,
    partition: i32,
    origin: i64,
    venue_time: i64,
    fields: HashMap<String, String>,
    matched: bool,
    wrong: Option<String>,
}

/// Every value of the cache, one a key (invariant 8: as many as the cache itself holds).
pub(super) struct Cached {
    check: Check,
    values: HashMap<String, Value>,
    topic_ids: HashMap<Kind, String>,
    stage: Cache,
    /// First origin that the log still has.
    first: HashMap<(Kind, i32), i64>,
}

/// Reads the values of the kinds in scope; `None` where none is.
pub(super) async fn read(auditor: &Auditor) -> Result<Option<Cached>> {
    let kinds: Vec<Kind> = CACHED_KINDS.into_iter().filter(|kind| auditor.wants(*kind)).collect();
    if kinds.is_empty() {
        return Ok(None);
    }
    let topic_ids = auditor.subjects.iter().map(|of| (of.kind, of.topic_id.clone())).collect();
    let mut cached = Cached {
        check: Check::new("redis"),
        values: HashMap::new(),
        topic_ids,
        stage: Cache::new(),
        first: HashMap::new(),
    };
    let client = auditor.config.redis.client()?;
    let reading = async {
        let mut connection = client.get_multiplexed_async_connection().await?;
        for kind in kinds {
            cached.read_kind(&mut connection, kind).await?;
        }
        Ok::<_, redis::RedisError>(())
    };
    reading.await.context("redis")?;
    Ok(Some(cached))
}

/// An answer within its time.
async fn answer<T: redis::FromRedisValue>(
    connection: &mut MultiplexedConnection,
    pipeline: &redis::Pipeline,
) -> Result<T, redis::RedisError> {
    let asked = tokio::time::timeout(ANSWER, pipeline.query_async(connection)).await;
    asked.unwrap_or_else(|_| Err((redis::ErrorKind::Io, "no answer of redis in time").into()))
}

impl Cached {
    async fn read_kind(
        &mut self,
        connection: &mut MultiplexedConnection,
        kind: Kind,
    ) -> Result<(), redis::RedisError> {
        let Some((prefix, _)) = kind.spec().redis else { return Ok(()) };
        let mut cursor = 0_u64;
        loop {
            let mut scan = redis::pipe();
            let pattern = format!("{prefix}:*");
            scan.cmd("SCAN").arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(KEYS);
            let ((next, keys),): ((u64, Vec<String>),) = answer(connection, &scan).await?;
            self.read_keys(connection, kind, &keys).await?;
            cursor = next;
            if cursor == 0 {
                return Ok(());
            }
        }
    }

    async fn read_keys(
        &mut self,
        connection: &mut MultiplexedConnection,
        kind: Kind,
        keys: &[String],
    ) -> Result<(), redis::RedisError> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut types = redis::pipe();
        keys.iter().for_each(|key| {
            types.cmd("TYPE").arg(key);
        });
        let types: Vec<String> = answer(connection, &types).await?;
        let mut hashes = Vec::new();
        for (key, found) in keys.iter().zip(types) {
            match found.as_str() {
                "hash" => hashes.push(key),
                "none" => {} // expired meanwhile
                other => self.check.wrong(|| format!("{key} is a {other}, not a hash")),
            }
        }
        if hashes.is_empty() {
            return Ok(());
        }
        let mut values = redis::pipe();
        for key in &hashes {
            values.cmd("HGETALL").arg(key).cmd("PTTL").arg(key);
        }
        let answers: Vec<redis::Value> = answer(connection, &values).await?;
        for (key, pair) in hashes.into_iter().zip(answers.chunks(2)) {
            let [fields, life] = pair else { continue };
            let fields: HashMap<String, String> = redis::from_redis_value(fields.clone())?;
            let life: i64 = redis::from_redis_value(life.clone())?;
            self.read_value(kind, key, fields, life);
        }
        Ok(())
    }

    fn read_value(&mut self, kind: Kind, key: &str, fields: HashMap<String, String>, life_ms: i64) {
        const GONE: i64 = -2;
        if fields.is_empty() || life_ms == GONE {
            return; // expired meanwhile
        }
        let longest = kind.spec().redis.map_or(0, |(_, seconds)| i64::from(seconds) * 1_000);
        let mut wrong = match life_ms {
            -1 => Some("does not expire".to_owned()),
            life if life > longest => Some(format!("lives for {life} ms more, {longest} at most")),
            _ => None,
        };
        let number = |name: &str| fields.get(name).and_then(|text| text.parse::<i64>().ok());
        let (partition, origin) = (number("partition"), number("origin"));
        let (Some(partition), Some(origin), Some(venue_time)) =
            (partition, origin, number("venue_time"))
        else {
            self.check.wrong(|| format!("{key} has no partition, origin or venue time"));
            return;
        };
        if fields.get("topic_id") != self.topic_ids.get(&kind) {
            wrong.get_or_insert_with(|| "is not of the topic that is there now".to_owned());
        }
        let partition = i32::try_from(partition).unwrap_or(-1);
        let value = Value { kind, partition, origin, venue_time, fields, matched: false, wrong };
        self.values.insert(key.to_owned(), value);
    }

    /// Oldest origin among the values of a partition.
    pub(super) fn oldest(&self, kind: Kind, partition: i32) -> i64 {
        let values = self.values.values();
        let here = values.filter(|value| value.kind == kind && value.partition == partition);
        here.map(|value| value.origin).min().unwrap_or(i64::MAX)
    }

    /// Says from which origin on a partition's log was there to be read.
    pub(super) fn retained(&mut self, kind: Kind, partition: i32, first: i64) {
        self.first.insert((kind, partition), first);
    }

    /// Holds a record against the value of its key. `is_shown`: the cache has committed it.
    pub(super) fn take(
        &mut self,
        topic: &Topic,
        record: &Record<'_>,
        is_shown: bool,
        schemas: &Schemas,
    ) -> Result<()> {
        if topic.kind.spec().redis.is_none() {
            return Ok(());
        }
        let input = input(topic, record);
        let mut out = LastValues::default();
        loop {
            match self.stage.apply(&input, &mut out) {
                Ok(Outcome::Taken) => break,
                Ok(_) | Err(Refusal::Reject(_)) => return Ok(()),
                Err(Refusal::UnknownSchema(kind, id)) => {
                    let schema = schemas.lookup(id)?;
                    self.stage.learn(kind, id, schema.as_deref());
                }
            }
        }
        let topic_id = self.topic_ids.get(&topic.kind).map_or("", String::as_str);
        for made in shown(&out) {
            let Some(value) = self.values.get_mut(made.key()) else { continue };
            if value.partition != record.at.partition || value.kind != topic.kind {
                continue;
            }
            if made.origin() == value.origin {
                value.matched = true;
                let fields = made.fields(topic_id)?;
                let right = |(name, text): &(String, String)| value.fields.get(name) == Some(text);
                if let Some((name, text)) = fields.iter().find(|field| !right(field)) {
                    let found = value.fields.get(name).map_or("nothing", String::as_str);
                    let wrong = format!("has {name} {found}, its record says {text}");
                    value.wrong.get_or_insert(wrong);
                } else if fields.len() != value.fields.len() {
                    value.wrong.get_or_insert("has a field that its record has not".to_owned());
                }
            } else if is_shown
                && made.origin() > value.origin
                && made.venue_time().0 >= value.venue_time
            {
                let wrong = format!(
                    "is of origin {}, the cache has taken the newer {}",
                    value.origin,
                    made.origin()
                );
                value.wrong.get_or_insert(wrong);
            }
        }
        Ok(())
    }

    /// The check, once every record has been seen.
    pub(super) fn into_check(self) -> Check {
        let Cached { mut check, values, first, .. } = self;
        let mut values: Vec<(String, Value)> = values.into_iter().collect();
        values.sort_by(|a, b| a.0.cmp(&b.0));
        for (key, value) in values {
            check.examined += 1;
            let Value { kind, partition, origin, .. } = value;
            if let Some(wrong) = value.wrong {
                check.wrong(|| format!("{key} {wrong}"));
            } else if !value.matched {
                if first.get(&(kind, partition)).is_some_and(|first| origin < *first) {
                    check.count("retained_away", 1);
                    continue;
                }
                check.wrong(|| {
                    format!(
                        "{key}: no {} of partition {partition} and origin {origin} makes it",
                        kind.name()
                    )
                });
            }
        }
        check
    }
}

/// A record as the cache is given it.
fn input<'r>(topic: &Topic, record: &Record<'r>) -> In<'r> {
    let checked = topic.contract == Contract::Checked;
    let origin = record.headers.number(headers::ORIGIN).filter(|_| checked);
    let origin = origin.unwrap_or(record.offset);
    let marked =
        (checked && record.headers.text(headers::OUTCOME).is_some()) || record.value.is_none();
    let flags = record.headers.text(headers::FLAGS).filter(|_| checked);
    In {
        record: *record,
        kind: topic.kind,
        origin,
        origin_first: origin,
        flags: flags.map_or(Flags::NONE, Flags::parse),
        // Which one makes no difference here: none of them stands for an event.
        marker: marked.then_some(Marker::Control),
    }
}
