//! What every stage needs: configuration, topics, schemas.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use tapeline_schemas::Kind;
use tapeline_stages::flow::{Contract, Topic};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::kafka::{
    Bulk, RawPublisher, SchemaIds, TopicState, create_topics, describe_all, dirty_topic,
};
use crate::registry_client::RegistryClient;
use crate::schemas::register_all;
use crate::telemetry::Readiness;

/// What every stage needs, set up once.
#[derive(Clone)]
pub struct Context {
    /// The configuration.
    pub config: Arc<Config>,
    /// Ids of our own schemas.
    pub schema_ids: SchemaIds,
    /// The registry, for other writers' schemas.
    pub registry: RegistryClient,
    /// Go on where retention has taken what was to be read next; it is counted as lost.
    pub accept_loss: bool,
    /// What has to be ready in this process.
    pub readiness: Readiness,
    /// Every topic of the pipeline.
    topics: Arc<HashMap<String, TopicState>>,
}

impl Context {
    /// Connects to the registry and to Kafka; waits for a registry that does not answer.
    pub async fn new(config: Config, shutdown: &CancellationToken) -> Result<Context> {
        config.kafka.check()?;
        let Some(registry) = RegistryClient::configured(&config.registry)? else {
            bail!(
                "registry.url is not set: start `tapeline registry`, or name another Confluent-compatible one"
            );
        };
        let schema_ids = register_all(&registry, &config.kafka.topic_prefix, shutdown).await?;
        let topics = describe_all(&config.kafka).await?;
        Ok(Context {
            config: Arc::new(config),
            schema_ids,
            registry,
            accept_loss: false,
            readiness: Readiness::new(),
            topics: Arc::new(topics),
        })
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.config.kafka.topic_prefix
    }

    /// The same services for another pipeline: its id, and topics of its own behind `prefix`, which
    /// are created with `partitions` each where they are missing.
    pub async fn beside(&self, prefix: String, id: String, partitions: i32) -> Result<Context> {
        let mut config = (*self.config).clone();
        config.kafka.topic_prefix = prefix;
        config.kafka.partitions = Some(partitions);
        config.pipeline.id = id;
        create_topics(&config.kafka).await?;
        let topics = describe_all(&config.kafka).await?;
        let (config, topics) = (Arc::new(config), Arc::new(topics));
        Ok(Context { config, topics, ..self.clone() })
    }

    fn topic(&self, name: String, kind: Kind, contract: Contract) -> Result<Topic> {
        let state = self.topics.get(&name).with_context(|| format!("topic {name} is unknown"))?;
        Ok(Topic { partitions: state.partitions, name, kind, contract })
    }

    /// The raw topics.
    pub fn raw_topics(&self) -> Result<Vec<Topic>> {
        Kind::raw()
            .map(|kind| self.topic(kind.spec().raw_topic(self.prefix()), kind, Contract::Raw))
            .collect()
    }

    /// The topics of `kinds` that sinks read: checked where there is a raw one.
    pub fn sink_topics(&self, kinds: impl IntoIterator<Item = Kind>) -> Result<Vec<Topic>> {
        kinds
            .into_iter()
            .map(|kind| {
                let spec = kind.spec();
                let contract = if spec.raw { Contract::Checked } else { Contract::Plain };
                self.topic(spec.topic(self.prefix()), kind, contract)
            })
            .collect()
    }

    /// The topic of windows to be computed again.
    pub fn dirty_topic(&self) -> Result<Topic> {
        self.topic(dirty_topic(self.prefix()), Kind::Candle, Contract::Plain)
    }

    /// The incarnation of a topic.
    pub fn topic_id(&self, name: &str) -> Option<&str> {
        self.topics.get(name).map(|state| state.id.as_str())
    }

    /// Number of partitions of a topic of the pipeline.
    pub fn partitions(&self, name: &str) -> Result<i32> {
        let state = self.topics.get(name).with_context(|| format!("topic {name} is unknown"))?;
        Ok(state.partitions)
    }

    /// The name of a stage's consumer group.
    pub fn group(&self, stage: &str) -> String {
        format!("{}-{stage}", self.config.pipeline.id)
    }

    /// A publisher into the raw topics.
    pub fn publisher(&self) -> Result<RawPublisher> {
        let partitions =
            self.raw_topics()?.into_iter().map(|topic| (topic.kind, topic.partitions)).collect();
        let producer = Bulk::new(&self.config.kafka.stream_producer())?;
        Ok(RawPublisher::new(producer, self.prefix(), &partitions, self.schema_ids.clone()))
    }
}
