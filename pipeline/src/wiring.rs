//! The whole pipeline, a line per stage.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tapeline_schemas::Kind;
use tapeline_stages::flow::{self, Contract, Limits, Sink, Stage, Topic};
use tapeline_stages::sinks::timescale::{StoredTopic, TimescaleSettings, TimescaleSink};
use tapeline_stages::store::Store;
use tapeline_stages::validate::{self, Validate};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, GroupProtocol};
use crate::kafka::{
    Admin, AssignFrom, CheckedTail, ConsumerOptions, KafkaSettings, MessageSink, Producer,
    Quarantine, RawPublisher, SchemaIds, TopicState, start_consumer,
};
use crate::registry_client::RegistryClient;
use crate::schemas::{RegistrySchemas, register_all};

/// A stage that can be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum StageName {
    /// Raw records to checked records.
    Validate,
    /// Checked records into TimescaleDB.
    Store,
}

impl StageName {
    /// The name in groups, metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            StageName::Validate => "validate",
            StageName::Store => "store",
        }
    }
}

/// What every stage needs, set up once.
#[derive(Clone)]
pub struct Context {
    /// The configuration.
    pub config: Arc<Config>,
    /// Ids of our own schemas.
    pub schema_ids: SchemaIds,
    /// The registry, for other writers' schemas.
    pub registry: RegistryClient,
    /// Every topic of the pipeline.
    topics: Arc<HashMap<String, TopicState>>,
}

impl Context {
    /// Connects to the registry and to Kafka; waits for a registry that does not answer.
    pub async fn new(config: Config, shutdown: &CancellationToken) -> Result<Context> {
        config.kafka.check()?;
        let Some(url) = &config.registry.url else {
            bail!(
                "registry.url is not set: start `tapeline registry`, or name another Confluent-compatible one"
            );
        };
        let registry = RegistryClient::new(url, Duration::from_millis(config.registry.timeout_ms))?;
        let schema_ids = register_all(&registry, &config.kafka.topic_prefix, shutdown).await?;
        let topics = describe_all(config.kafka.clone()).await?;
        Ok(Context { config: Arc::new(config), schema_ids, registry, topics: Arc::new(topics) })
    }

    fn prefix(&self) -> &str {
        &self.config.kafka.topic_prefix
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

    /// The incarnation of a topic.
    pub fn topic_id(&self, name: &str) -> Option<&str> {
        self.topics.get(name).map(|state| state.id.as_str())
    }

    /// The name of a stage's consumer group.
    pub fn group(&self, stage: &str) -> String {
        format!("{}-{stage}", self.config.pipeline.id)
    }

    /// A publisher into the raw topics.
    pub fn publisher(&self) -> Result<RawPublisher> {
        let partitions =
            self.raw_topics()?.into_iter().map(|topic| (topic.kind, topic.partitions)).collect();
        let producer = Producer::new(&self.config.kafka)?;
        Ok(RawPublisher::new(producer, self.prefix(), &partitions, self.schema_ids.clone()))
    }
}

async fn describe_all(kafka: KafkaSettings) -> Result<HashMap<String, TopicState>> {
    tokio::task::spawn_blocking(move || {
        let names = crate::kafka::topic_names(&kafka.topic_prefix);
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        Admin::new(&kafka)?.describe(&names)
    })
    .await?
}

/// Runs a stage until `shutdown`, or until it must not go on.
pub async fn run_stage(
    stage: StageName,
    context: &Context,
    shutdown: CancellationToken,
) -> Result<()> {
    match stage {
        StageName::Validate => run_validate(context, shutdown).await,
        StageName::Store => run_store(context, shutdown).await,
    }
    .with_context(|| format!("stage {}", stage.name()))
}

async fn run_validate(context: &Context, shutdown: CancellationToken) -> Result<()> {
    let config = &context.config;
    let topics = context.raw_topics()?;
    let producer = Producer::new(&config.kafka)?;
    let settings = validate::Settings {
        max_ahead: Duration::from_millis(config.validate.max_ahead_ms),
        max_behind: Duration::from_millis(config.validate.max_behind_ms),
        reject_ahead: Duration::from_millis(config.validate.reject_ahead_ms),
        price_jump_deviations: config.validate.price_jump_deviations,
        memory_per_symbol: config.validate.memory_per_symbol,
    };
    let lanes = (0..VALIDATE_LANES)
        .map(|_| {
            let tail = CheckedTail::new(config.kafka.clone(), topics.clone());
            let sink = MessageSink::new(
                producer.clone(),
                context.prefix(),
                context.schema_ids.clone(),
                AssignFrom::CheckedTail(tail),
            );
            (Validate::new(topics.clone(), settings.clone()), sink)
        })
        .collect();
    let limits = Limits {
        batch_positions: 5_000,
        batch_bytes: 4 * 1024 * 1024,
        linger: Duration::from_millis(2),
    };
    host(context, "validate", topics, limits, lanes, shutdown).await
}

/// Kinds that the store takes.
pub const STORED_KINDS: [Kind; 6] =
    [Kind::Trade, Kind::Ticker, Kind::Book, Kind::Candle, Kind::Anomaly, Kind::Gap];

async fn run_store(context: &Context, shutdown: CancellationToken) -> Result<()> {
    let config = &context.config;
    let mut database = crate::migrate::connect(&config.database.url).await?;
    crate::migrate::check(&mut database).await?;
    let topics = context.sink_topics(STORED_KINDS)?;
    let stored = topics
        .iter()
        .map(|topic| StoredTopic {
            name: topic.name.clone(),
            id: context.topic_id(&topic.name).unwrap_or_default().to_owned(),
        })
        .collect::<Vec<_>>();
    let lanes = (0..config.store.connections)
        .map(|_| {
            let mut settings =
                TimescaleSettings::new(&config.database.url, &config.pipeline.id, stored.clone());
            settings.takeover = Duration::from_millis(config.store.takeover_ms);
            let sink = TimescaleSink::new(settings).map_err(anyhow::Error::msg)?;
            Ok((Store::new(), sink))
        })
        .collect::<Result<Vec<_>>>()?;
    let limits = Limits {
        batch_positions: config.store.batch_rows,
        batch_bytes: config.store.batch_bytes,
        linger: Duration::from_millis(config.store.linger_ms),
    };
    host(context, "store", topics, limits, lanes, shutdown).await
}

/// Lanes of `validate`: deciding is cheap, one keeps a core busy.
const VALIDATE_LANES: usize = 1;

/// Runs one consumer group with its lanes until it ends; the first lane that fails ends it.
async fn host<St, Si>(
    context: &Context,
    name: &'static str,
    topics: Vec<Topic>,
    limits: Limits,
    lanes: Vec<(St, Si)>,
    shutdown: CancellationToken,
) -> Result<()>
where
    St: Stage + 'static,
    Si: Sink<St::Out> + 'static,
{
    let group = context.group(name);
    let kafka = &context.config.kafka;
    let mut config = kafka.consumer(Some(&group));
    group_settings(context, name, &mut config);
    let stop = shutdown.child_token();
    let options = ConsumerOptions { group, config, topics: topics.clone(), lanes: lanes.len() };
    let (sources, consumer) = start_consumer(options, stop.clone())?;
    let producer = Producer::new(kafka)?;
    let topics = Arc::new(topics);
    let mut running = JoinSet::new();
    for ((stage, sink), source) in lanes.into_iter().zip(sources) {
        let topics = Arc::clone(&topics);
        let limits = limits.clone();
        let schemas = RegistrySchemas(context.registry.clone());
        let quarantine = Quarantine::new(
            producer.clone(),
            context.prefix(),
            name,
            topics.to_vec(),
            context.schema_ids.clone(),
        );
        running.spawn(async move {
            flow::run(name, &topics, limits, stage, sink, quarantine, source, schemas).await
        });
    }
    let mut failed = None;
    while let Some(ended) = running.join_next().await {
        let ended = ended.map_err(|error| error.to_string()).and_then(|ended| ended);
        if let Err(reason) = ended {
            tracing::error!(stage = name, reason, "the stage cannot go on");
            failed.get_or_insert(reason);
            stop.cancel();
        }
    }
    stop.cancel();
    tokio::task::spawn_blocking(move || consumer.join()).await?;
    failed.map_or(Ok(()), |reason| bail!(reason))
}

fn group_settings(context: &Context, name: &str, config: &mut rdkafka::ClientConfig) {
    let group = &context.config.group;
    if let Some(instance) = &group.instance_id {
        config.set("group.instance.id", format!("{instance}-{name}"));
    }
    match group.protocol {
        GroupProtocol::Classic => {
            config
                .set("group.protocol", "classic")
                .set("partition.assignment.strategy", "cooperative-sticky")
                .set("session.timeout.ms", group.session_timeout_ms.to_string())
                .set("heartbeat.interval.ms", (group.session_timeout_ms / 3).max(1).to_string());
        }
        // The broker owns assignment and timeouts.
        GroupProtocol::Consumer => {
            config.set("group.protocol", "consumer");
        }
    }
}
