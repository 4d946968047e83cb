//! Reading the quarantine topic: what is in it, with what became of each.

use std::collections::{HashMap, HashSet};

use anyhow::{Context as _, Result, bail, ensure};
use rdkafka::Message;
use rdkafka::message::BorrowedMessage;
use tapeline_schemas::{Kind, Micros, Quarantine, Record as _, headers};
use tapeline_stages::decode::Decoders;
use tapeline_stages::flow::{Refusal, Topic};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::entry::Intent;
use super::{Entry, Filter, Kept, Place, State};
use crate::kafka::{KafkaSettings, header_text, scan_since};
use crate::registry_client::RegistryClient;
use crate::wiring::Context;

/// Entries that are looked at in one go (invariant 8).
const MAX_ENTRIES: usize = 500_000;
/// Characters of the error that a list keeps.
const DETAIL_CHARS: usize = 300;
/// Whole records between the reader and whoever works on them (invariant 8).
const IN_FLIGHT: usize = 16;

/// What the filter takes, oldest first.
pub async fn list(context: &Context, filter: &Filter) -> Result<Vec<Entry>> {
    let (reader, filter) = (Reader::new(context)?, filter.clone());
    tokio::task::spawn_blocking(move || reader.index(&filter)).await?
}

/// The entry named by its place, `TOPIC/PARTITION/OFFSET`, or by `PARTITION:OFFSET` of the
/// quarantine topic.
pub async fn find(context: &Context, name: &str) -> Result<Entry> {
    let kept_at = name.split_once(':').and_then(|(partition, offset)| {
        Some((partition.parse::<i32>().ok()?, offset.parse::<i64>().ok()?))
    });
    let mut filter = Filter::default();
    if kept_at.is_none() {
        filter.places = vec![name.parse().map_err(anyhow::Error::msg)?];
    }
    let found = list(context, &filter).await?;
    // Of a recreated topic the same place can be there twice: the newest is meant.
    found
        .into_iter()
        .rfind(|entry| kept_at.is_none_or(|kept_at| entry.kept_at == kept_at))
        .with_context(|| format!("{name} is not in quarantine"))
}

/// Reads `entries` whole, a few at a time, in the order of the quarantine topic.
pub async fn kept(context: &Context, entries: &[Entry]) -> Result<mpsc::Receiver<Result<Kept>>> {
    let reader = Reader::new(context)?;
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    let entries: HashMap<(i32, i64), Entry> =
        entries.iter().map(|entry| (entry.kept_at, entry.clone())).collect();
    tokio::task::spawn_blocking(move || {
        if let Err(error) = reader.send_kept(entries, &sender) {
            // A receiver that has gone wants no more.
            let _ = sender.blocking_send(Err(error));
        }
    });
    Ok(receiver)
}

/// Reads the topic in a blocking thread.
struct Reader {
    kafka: KafkaSettings,
    topic: Topic,
    registry: RegistryClient,
    decoders: Decoders,
    runtime: Handle,
}

impl Reader {
    fn new(context: &Context) -> Result<Reader> {
        let topic = context.sink_topics([Kind::Quarantine])?.remove(0);
        let mut decoders = Decoders::new();
        if let Some(&id) = context.schema_ids.get(&Kind::Quarantine) {
            decoders.learn(Kind::Quarantine, id, Some(Quarantine::SCHEMA));
        }
        Ok(Reader {
            kafka: context.config.kafka.clone(),
            topic,
            registry: context.registry.clone(),
            decoders,
            runtime: Handle::current(),
        })
    }

    fn index(mut self, filter: &Filter) -> Result<Vec<Entry>> {
        let mut index = Index::default();
        let (kafka, topic) = (self.kafka.clone(), self.topic.clone());
        let mut failed = None;
        scan_since(&kafka, &topic, filter.since.unwrap_or_default(), |message| {
            if failed.is_none() {
                failed = self.enter(&mut index, filter, message).err();
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        let mut entries = index.entries;
        entries.retain(|entry| filter.takes_state(&entry.state));
        entries.sort_by_key(|entry| (entry.quarantined, entry.kept_at));
        entries.truncate(filter.limit.unwrap_or(usize::MAX));
        Ok(entries)
    }

    fn enter(
        &mut self,
        index: &mut Index,
        filter: &Filter,
        message: &BorrowedMessage<'_>,
    ) -> Result<()> {
        if message.payload().is_none() {
            index.follow_up(message);
            return Ok(());
        }
        let entry = self.kept(message)?.entry;
        if filter.takes(&entry) {
            ensure!(
                index.entries.len() < MAX_ENTRIES,
                "more than {MAX_ENTRIES} records in quarantine are meant: narrow them down by topic, reason or time"
            );
            index.add(entry);
        }
        Ok(())
    }

    fn send_kept(
        mut self,
        mut entries: HashMap<(i32, i64), Entry>,
        sender: &mpsc::Sender<Result<Kept>>,
    ) -> Result<()> {
        let Some(since) = entries.values().map(|entry| entry.quarantined).min() else {
            return Ok(());
        };
        let (kafka, topic) = (self.kafka.clone(), self.topic.clone());
        scan_since(&kafka, &topic, since, |message| {
            if let Some(entry) = entries.remove(&(message.partition(), message.offset())) {
                let kept = self.kept(message).map(|kept| Kept { entry, ..kept });
                let _ = sender.blocking_send(kept);
            }
        })?;
        match entries.values().next() {
            None => Ok(()),
            Some(gone) => bail!("retention took {} while it was asked for", gone.place),
        }
    }

    fn kept(&mut self, message: &BorrowedMessage<'_>) -> Result<Kept> {
        let place =
            || format!("{} [{}] offset {}", self.topic.name, message.partition(), message.offset());
        let value = message.payload().with_context(place)?;
        let payload = loop {
            match self.decoders.payload(Kind::Quarantine, value) {
                Ok(payload) => break payload.to_vec(),
                Err(Refusal::UnknownSchema(kind, id)) => {
                    let schema = self.runtime.block_on(self.registry.lookup(id))?;
                    self.decoders.learn(kind, id, schema.as_deref());
                }
                Err(Refusal::Reject(reject)) => {
                    bail!("{} is no quarantined record: {}", place(), reject.detail)
                }
            }
        };
        let event = Quarantine::decode(&payload).with_context(place)?;
        let place = Place {
            topic: event.origin_topic.into_owned(),
            partition: event.origin_partition,
            offset: event.origin_offset,
        };
        let entry = Entry {
            place,
            time: event.origin_time,
            kept_at: (message.partition(), message.offset()),
            quarantined: appended(message),
            stage: event.stage.into_owned(),
            reason: event.reason.into_owned(),
            detail: event.detail.chars().take(DETAIL_CHARS).collect(),
            value_bytes: event.value.as_ref().map_or(0, |value| value.len()),
            state: State::Open,
            last_sent: None,
            intents: Vec::new(),
        };
        Ok(Kept {
            entry,
            detail: event.detail.into_owned(),
            key: event.key.map(|key| key.into_owned()),
            value: event.value.map(|value| value.into_owned()),
            headers: event
                .headers
                .into_iter()
                .map(|header| (header.name.into_owned(), header.value.map(|v| v.into_owned())))
                .collect(),
        })
    }
}

fn appended(message: &BorrowedMessage<'_>) -> Micros {
    Micros::from_millis(message.timestamp().to_millis().unwrap_or_default())
}

/// Entries as they are found, with the follow-ups of each.
#[derive(Default)]
struct Index {
    entries: Vec<Entry>,
    newest: HashMap<Place, usize>,
    seen: HashSet<(Place, Micros)>,
}

impl Index {
    /// A crash can put a record into quarantine twice; the same place of a topic that was
    /// recreated is another record, which its time tells.
    fn add(&mut self, entry: Entry) {
        if self.seen.insert((entry.place.clone(), entry.time)) {
            self.newest.insert(entry.place.clone(), self.entries.len());
            self.entries.push(entry);
        }
    }

    fn follow_up(&mut self, message: &BorrowedMessage<'_>) {
        let key = message.key().and_then(|key| std::str::from_utf8(key).ok());
        let place = key.and_then(|key| key.parse::<Place>().ok());
        let Some(&at) = place.and_then(|place| self.newest.get(&place)) else { return };
        let Some(entry) = self.entries.get_mut(at) else { return };
        if let Some(run) = header_text(message, headers::RETRYING) {
            entry.intents.push(Intent { run, time: appended(message) });
            entry.state = State::Retrying;
        } else if let Some(to) = header_text(message, headers::RETRIED) {
            entry.intents.clear();
            entry.last_sent = Some(to.clone());
            entry.state = State::Retried { to };
        } else if let Some(why) = header_text(message, headers::DISCARDED) {
            entry.intents.clear();
            entry.state = State::Discarded { why };
        }
    }
}
