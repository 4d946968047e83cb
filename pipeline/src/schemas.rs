//! Our own schemas in the registry, and other writers' schemas out of it.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Result, bail};
use tapeline_schemas::ALL_KINDS;
use tapeline_stages::flow::SchemaSource;
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

/// Schemas of other writers.
#[derive(Clone)]
pub struct RegistrySchemas(pub RegistryClient);

impl SchemaSource for RegistrySchemas {
    async fn schema(&mut self, id: u32) -> Result<Option<String>, String> {
        self.0.lookup(id).await.map_err(|error| error.to_string())
    }
}
