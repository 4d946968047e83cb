//! Sending records through `validate` again, and setting them aside.
//!
//! A run first writes that it is about to send (`tl-retrying`), sends, and then writes where the
//! copy is (`tl-retried`). Of several runs the first one in the log sends. What a run that died
//! left open is looked for in the topic itself, by the header that every copy carries: so a record
//! is never sent twice without being asked for (`again`).

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rdkafka::Message as _;
use serde::Serialize;
use tapeline_schemas::{Kind, Micros, headers, partition_for};
use tapeline_stages::flow::Topic;

use super::{Entry, Filter, Kept, Place, State, kept, list};
use crate::kafka::{Republisher, Written, header_text, scan_since};
use crate::wiring::Context;

/// How long a run that said it would send a record is believed to be still at it. A send is
/// given up long before, see `unordered_producer`.
const LEASE: Duration = Duration::from_secs(120);

/// Records under way at the same time (invariant 8).
const IN_FLIGHT: usize = 64;

/// How to send again.
#[derive(Debug, Clone)]
pub struct RetryOptions {
    /// Also what was sent again, or set aside, before.
    pub again: bool,
    /// Only say what would be sent.
    pub dry_run: bool,
    /// How long another run is believed to be still at it.
    pub lease: Duration,
}

impl Default for RetryOptions {
    fn default() -> RetryOptions {
        RetryOptions { again: false, dry_run: false, lease: LEASE }
    }
}

/// What a run did.
#[derive(Debug, Default, Serialize)]
pub struct RetryReport {
    /// Records that were sent, with the places of their copies (without one in a dry run).
    pub sent: Vec<(Place, Option<Place>)>,
    /// Records that were left alone, and why.
    pub left: Vec<(Place, String)>,
    /// Records that could not be sent, and why.
    pub failed: Vec<(Place, String)>,
}

/// Sends what the filter takes to its raw topic again, key, value and headers as they were, with
/// the header `tl-retry-of`. A record that a sink refused goes to the raw topic behind it: its
/// first origin stays accounted for as quarantined, the copy is a new one.
pub async fn retry(
    context: &Context,
    filter: &Filter,
    options: &RetryOptions,
) -> Result<RetryReport> {
    let mut report = RetryReport::default();
    let mut chosen = Vec::new();
    for entry in list(context, filter).await? {
        match (&entry.state, options.again) {
            (State::Retried { to }, false) => {
                report.left.push((entry.place, format!("was sent again as {to}")));
            }
            (State::Discarded { why }, false) => {
                report.left.push((entry.place, format!("was discarded: {why}")));
            }
            _ => chosen.push(entry),
        }
    }
    if options.dry_run {
        report.sent.extend(chosen.into_iter().map(|entry| (entry.place, None)));
        return Ok(report);
    }
    let run = Run::new(context, options)?;
    let sendable = run.claim(chosen, &mut report).await?;
    let mut records = kept(context, &sendable).await?;
    let sent = stream::poll_fn(|context| records.poll_recv(context))
        .map(async |record| {
            let record = record?;
            Ok::<_, anyhow::Error>((record.entry.place.clone(), run.send(&record).await))
        })
        .buffered(IN_FLIGHT);
    let mut sent = std::pin::pin!(sent);
    while let Some((place, to)) = sent.try_next().await? {
        match to {
            Ok(to) => report.sent.push((place, Some(to))),
            Err(error) => report.failed.push((place, format!("{error:#}"))),
        }
    }
    Ok(report)
}

/// Marks what the filter takes as dealt with; returns the records. What is in doubt because a
/// retry of it did not say how it ended is not touched.
pub async fn discard(context: &Context, filter: &Filter, why: &str) -> Result<Vec<Place>> {
    ensure!(!why.trim().is_empty(), "say why: a reason is what is left of the record");
    let run = Run::new(context, &RetryOptions::default())?;
    let mut places = Vec::new();
    for entry in list(context, filter).await? {
        if entry.state == State::Open {
            run.follow_up(&entry, headers::DISCARDED, why).await?;
            places.push(entry.place);
        }
    }
    Ok(places)
}

/// One run of `retry`.
struct Run<'c> {
    context: &'c Context,
    name: String,
    lease_micros: i64,
    republisher: Republisher,
    quarantine: Topic,
    /// Raw topics by the names of their checked ones.
    raw_of: HashMap<String, String>,
}

impl<'c> Run<'c> {
    fn new(context: &'c Context, options: &RetryOptions) -> Result<Run<'c>> {
        let raw = context.raw_topics()?;
        let checked = context.sink_topics(raw.iter().map(|topic| topic.kind))?;
        Ok(Run {
            context,
            name: format!("{:016x}", RandomState::new().build_hasher().finish()),
            lease_micros: i64::try_from(options.lease.as_micros())?,
            republisher: Republisher::new(&context.config.kafka)?,
            quarantine: context.sink_topics([Kind::Quarantine])?.remove(0),
            raw_of: checked.into_iter().zip(raw).map(|(c, r)| (c.name, r.name)).collect(),
        })
    }

    /// Writes the intent for each, and keeps those that are this run's to send.
    async fn claim(&self, chosen: Vec<Entry>, report: &mut RetryReport) -> Result<Vec<Entry>> {
        stream::iter(&chosen)
            .map(|entry| self.follow_up(entry, headers::RETRYING, &self.name))
            .buffered(IN_FLIGHT)
            .try_collect::<()>()
            .await?;
        let places: Vec<_> = chosen.iter().map(|entry| entry.place.clone()).collect();
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let now = list(self.context, &Filter { places, ..Filter::default() }).await?;
        let mut ours = Vec::new();
        for before in chosen {
            let entry = now.iter().find(|e| e.place == before.place && e.time == before.time);
            let entry = entry.with_context(|| format!("{} is gone", before.place))?;
            let Some(mine) = entry.intents.iter().find(|intent| intent.run == self.name) else {
                report.left.push((before.place, "another run was faster".to_owned()));
                continue;
            };
            let first = entry.intents.first().unwrap_or(mine);
            if let Some(to) =
                entry.last_sent.as_ref().filter(|_| entry.last_sent != before.last_sent)
            {
                // It was sent between this run's choice and its word.
                self.follow_up(&before, headers::RETRIED, to).await?;
                report.left.push((before.place, format!("was sent again as {to}")));
            } else if first == mine {
                ours.push(before);
            } else if mine.time.since(first.time) < self.lease_micros {
                report.left.push((before.place, "another run is at it".to_owned()));
            } else if let Some(to) = self.copy_of(&before.place, first.time).await? {
                self.follow_up(&before, headers::RETRIED, &to.to_string()).await?;
                report.left.push((before.place, format!("was sent again as {to}")));
            } else {
                ours.push(before);
            }
        }
        Ok(ours)
    }

    /// The copy of `place` that was sent at `since` or later, if there is one.
    async fn copy_of(&self, place: &Place, since: Micros) -> Result<Option<Place>> {
        let target = self.target(place)?;
        let topic = Topic {
            partitions: self.context.partitions(&target)?,
            name: target,
            ..self.quarantine.clone()
        };
        let (kafka, of) = (self.context.config.kafka.clone(), place.to_string());
        tokio::task::spawn_blocking(move || {
            let mut found = None;
            scan_since(&kafka, &topic, since, |message| {
                if header_text(message, headers::RETRY_OF).as_ref() == Some(&of) {
                    found = Some(Place {
                        topic: topic.name.clone(),
                        partition: message.partition(),
                        offset: message.offset(),
                    });
                }
            })?;
            Ok(found)
        })
        .await?
    }

    /// The topic that a record read from `place` is sent to: raw for what `validate` wrote, its
    /// own for what the pipeline itself makes.
    fn target(&self, place: &Place) -> Result<String> {
        let name = &place.topic;
        if let Some(raw) = self.raw_of.get(name) {
            return Ok(raw.clone());
        }
        if self.context.topic_id(name).is_none() {
            bail!(
                "{name} is no topic of this pipeline: kafka.topic_prefix is {}",
                self.context.prefix()
            );
        }
        Ok(name.clone())
    }

    async fn send(&self, record: &Kept) -> Result<Place> {
        let origin = &record.entry.place;
        let written = self.again(record)?;
        let offset = self.republisher.write(&written).await?;
        let to = Place { topic: written.topic, partition: written.partition, offset };
        self.follow_up(&record.entry, headers::RETRIED, &to.to_string()).await.with_context(
            || {
                format!(
                    "{origin} was sent as {to}, which could not be noted; the next retry finds it"
                )
            },
        )?;
        Ok(to)
    }

    /// The record as it is sent: to where its key belongs, which also mends a misrouted one.
    /// Control records, which have no value, go to every partition alike and stay in theirs.
    fn again(&self, record: &Kept) -> Result<Written> {
        let origin = &record.entry.place;
        let topic = self.target(origin)?;
        let partitions = self.context.partitions(&topic)?;
        let partition = match (&record.key, &record.value) {
            (Some(key), Some(_)) => partition_for(key, partitions),
            _ => origin.partition,
        };
        let from_checked = self.raw_of.contains_key(&origin.topic);
        let mut kept: Vec<_> = record
            .headers
            .iter()
            // What `validate` said of the first copy it will say of this one.
            .filter(|(name, _)| name != headers::RETRY_OF)
            .filter(|(name, _)| !(from_checked && headers::is_verdict(name)))
            .cloned()
            .collect();
        kept.push((headers::RETRY_OF.to_owned(), Some(origin.to_string().into_bytes())));
        let (key, value) = (record.key.clone(), record.value.clone());
        Ok(Written { topic, partition, key, value, headers: kept })
    }

    async fn follow_up(&self, entry: &Entry, name: &str, value: &str) -> Result<()> {
        let written = Written {
            topic: self.quarantine.name.clone(),
            partition: entry.kept_at.0,
            key: Some(entry.place.to_string().into_bytes()),
            value: None,
            headers: vec![(name.to_owned(), Some(value.as_bytes().to_vec()))],
        };
        self.republisher.write(&written).await.map(drop)
    }
}
