//! Which incarnations of its topics a stage has read. A topic that was deleted and made again has
//! another id, and offsets of the one mean nothing in the other: that is noticed, not trusted
//! (invariant 2).
//!
//! Kafka forgets a group's offsets together with their topic, so the ids are kept in the metadata
//! of a commit to another one: those of raw topics with their checked topics, whose origins are
//! raw offsets, those of the others with the quarantine topic. Like every commit they are
//! forgotten some days after the last time that they were renewed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use tapeline_schemas::Kind;
use tapeline_stages::flow::{Contract, Topic};

use super::Context;
use crate::kafka::{Admin, KafkaSettings, commit_note, committed};

/// Time between two looks at the topics of a running stage.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks until what is remembered is renewed.
const LOOKS_TO_RENEW: u32 = 3_600;

/// Ids by topic.
type Ids = BTreeMap<String, String>;

/// Where some ids are remembered.
#[derive(Debug, Clone)]
struct Anchor {
    group: String,
    topic: String,
    ids: Ids,
}

/// The incarnations that a stage reads.
#[derive(Debug, Clone)]
pub(super) struct Incarnations {
    kafka: KafkaSettings,
    anchors: Vec<Anchor>,
    ids: Ids,
}

impl Incarnations {
    /// Those that `stage` reads now; an error where one is not what it read before.
    pub(super) async fn known(
        context: &Context,
        stage: &str,
        topics: &[Topic],
    ) -> Result<Incarnations> {
        let prefix = context.prefix();
        let mut ids = Ids::new();
        for topic in topics {
            let id = context.topic_id(&topic.name).unwrap_or_default();
            ids.insert(topic.name.clone(), id.to_owned());
        }
        let mut anchors = Vec::new();
        let mut others = Ids::new();
        for topic in topics {
            let id = (topic.name.clone(), ids[&topic.name].clone());
            if topic.contract == Contract::Raw {
                anchors.push(Anchor {
                    group: format!("{prefix}origins"),
                    topic: topic.kind.spec().topic(prefix),
                    ids: Ids::from([id]),
                });
            } else {
                others.extend([id]);
            }
        }
        if !others.is_empty() {
            let group = format!("{}-topics", context.group(stage));
            anchors.push(Anchor {
                group,
                topic: Kind::Quarantine.spec().topic(prefix),
                ids: others,
            });
        }
        let known = Incarnations { kafka: context.config.kafka.clone(), anchors, ids };
        let checked = known.clone();
        // The store's fences know the ids of its topics, and say more about them.
        let has_fences = stage == "store";
        tokio::task::spawn_blocking(move || match has_fences {
            true => Ok(()),
            false => checked.anchors.iter().try_for_each(|anchor| anchor.check(&checked.kafka)),
        })
        .await??;
        Ok(known)
    }

    /// Ends when a topic is no longer the one that was there at the start, and says so.
    pub(super) async fn changed(&self) -> String {
        let mut looks = 0;
        let mut admin: Option<Arc<Admin>> = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            looks += 1;
            let (known, asked) = (self.clone(), admin.clone());
            let looked = tokio::task::spawn_blocking(move || {
                if looks % LOOKS_TO_RENEW == 0 {
                    known.anchors.iter().try_for_each(|anchor| anchor.remember(&known.kafka))?;
                }
                let admin = asked.map_or_else(|| Admin::new(&known.kafka).map(Arc::new), Ok)?;
                anyhow::Ok((known.look(&admin)?, admin))
            });
            match looked.await {
                Ok(Ok((None, asked))) => admin = Some(asked),
                Ok(Ok((Some(changed), _))) => return changed,
                Ok(Err(error)) => tracing::debug!(error = format!("{error:#}"), "topics"),
                Err(error) => tracing::debug!(%error, "topics"),
            }
        }
    }

    fn look(&self, admin: &Admin) -> Result<Option<String>> {
        let names: Vec<&str> = self.ids.keys().map(String::as_str).collect();
        let found = admin.describe(&names)?;
        let changed = self.ids.iter().find_map(|(name, id)| {
            let now = &found.get(name)?.id;
            (now != id).then(|| recreated(name, now, id))
        });
        Ok(changed)
    }
}

impl Anchor {
    /// Refuses an id that is not the one remembered; remembers those that are new.
    fn check(&self, kafka: &KafkaSettings) -> Result<()> {
        let known = self.remembered(kafka)?;
        for (name, id) in &self.ids {
            if let Some(before) = known.get(name).filter(|before| *before != id) {
                bail!(
                    "{}; its incarnation is kept by group {}",
                    recreated(name, id, before),
                    self.group
                );
            }
        }
        if known == self.ids { Ok(()) } else { self.remember(kafka) }
    }

    fn remembered(&self, kafka: &KafkaSettings) -> Result<Ids> {
        let found = committed(kafka, &self.group, &self.topic, 1)?;
        let note = found.into_iter().next().flatten().map(|(_, note)| note);
        Ok(note.and_then(|note| serde_json::from_str(&note).ok()).unwrap_or_default())
    }

    fn remember(&self, kafka: &KafkaSettings) -> Result<()> {
        commit_note(kafka, &self.group, &self.topic, &serde_json::to_string(&self.ids)?)
    }
}

fn recreated(name: &str, now: &str, before: &str) -> String {
    format!(
        "topic {name} was recreated: its id is {now}, what was read before is {before}. Offsets of the old \
         topic mean nothing in the new one, so nothing was skipped. Behind a recreated raw topic the checked \
         one has to be new too: give the pipeline another kafka.topic_prefix, or delete both. For another \
         topic give the pipeline another pipeline.id, or delete the stage's groups: it begins anew"
    )
}
