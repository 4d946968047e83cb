//! Our own schemas in the registry, and other writers' schemas out of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tapeline_schemas::ALL_KINDS;
use tapeline_stages::flow::SchemaSource;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::kafka::SchemaIds;
use crate::registry_client::RegistryClient;

/// Pause between attempts to reach a registry that does not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// Registers our schemas under the subjects of every topic and returns their ids; waits for a
/// registry that does not answer.
pub async fn register_all(
    registry: &RegistryClient,
    topic_prefix: &str,
    shutdown: &CancellationToken,
) -> Result<SchemaIds> {
    let mut ids: SchemaIds = HashMap::new();
    for spec in &ALL_KINDS {
        let raw = spec.raw.then(|| spec.raw_topic(topic_prefix));
        for topic in raw.into_iter().chain([spec.topic(topic_prefix)]) {
            let subject = format!("{topic}-value");
            loop {
                match registry.register(&subject, spec.schema).await {
                    Ok(id) => {
                        ids.insert(spec.kind, id);
                        break;
                    }
                    Err(error) if error.is_retryable() => {
                        tracing::warn!(%error, subject, "registry cannot be reached, waiting");
                    }
                    Err(error) => bail!("schema of subject {subject} was refused: {error}"),
                }
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = shutdown.cancelled() => bail!("stopped while waiting for the registry"),
                }
            }
        }
    }
    Ok(ids)
}

/// How long the registry's word that it has no such schema is believed: long enough that a stream
/// of records with such ids does not ask for each, short enough for a schema registered meanwhile.
const ABSENT_FOR: Duration = Duration::from_secs(5);
/// Absent ids that are remembered (invariant 8).
const MAX_ABSENT: usize = 1_024;

/// Schemas of other writers. Clones share what they know.
#[derive(Clone)]
pub struct RegistrySchemas {
    registry: RegistryClient,
    absent: Arc<Mutex<HashMap<u32, Instant>>>,
}

impl RegistrySchemas {
    /// Asks `registry`.
    pub fn new(registry: RegistryClient) -> RegistrySchemas {
        RegistrySchemas { registry, absent: Arc::default() }
    }

    fn absent(&self) -> MutexGuard<'_, HashMap<u32, Instant>> {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SchemaSource for RegistrySchemas {
    async fn schema(&mut self, id: u32) -> Result<Option<String>, String> {
        if self.absent().get(&id).is_some_and(|since| since.elapsed() < ABSENT_FOR) {
            return Ok(None);
        }
        let schema = self.registry.lookup(id).await.map_err(|error| error.to_string())?;
        let mut absent = self.absent();
        absent.remove(&id);
        if schema.is_none() {
            if absent.len() >= MAX_ABSENT {
                absent.retain(|_, since| since.elapsed() < ABSENT_FOR);
            }
            if absent.len() < MAX_ABSENT {
                absent.insert(id, Instant::now());
            }
        }
        Ok(schema)
    }
}

/// Asks the registry from a thread that may block, for whoever reads topics by itself.
pub(crate) struct Schemas {
    registry: Option<RegistryClient>,
    runtime: Handle,
}

impl Schemas {
    /// Asks `registry`, which is needed only once a schema is; inside a runtime.
    pub(crate) fn new(registry: Option<RegistryClient>) -> Schemas {
        Schemas { registry, runtime: Handle::current() }
    }

    /// The schema with this id.
    pub(crate) fn lookup(&self, id: u32) -> Result<Option<String>> {
        let registry = self.registry.as_ref().context("registry.url is not set")?;
        Ok(self.runtime.block_on(registry.lookup(id))?)
    }
}
