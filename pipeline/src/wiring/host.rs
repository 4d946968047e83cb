//! One consumer group with its lanes.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::{Result, bail};
use tapeline_stages::flow::{self, Limits, Sink, Stage, Topic};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Context;
use super::incarnation::Incarnations;
use crate::config::GroupProtocol;
use crate::kafka::{ConsumerOptions, Membership, Producer, Quarantine, start_consumer};
use crate::schemas::RegistrySchemas;

/// Runs one consumer group with its lanes until it ends; the first lane that fails ends it.
pub(super) async fn host<St, Si>(
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
    host_as(context, Membership::Group, name, topics, limits, lanes, shutdown).await
}

/// The same for a group or for fixed ranges, which end by themselves.
pub(crate) async fn host_as<St, Si>(
    context: &Context,
    membership: Membership,
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
    let stop = shutdown.child_token();
    let in_group = matches!(membership, Membership::Group);
    let incarnations = match in_group {
        true => Some(Incarnations::known(context, name, &topics).await?),
        // Who asked for fixed ranges knows which incarnation they are of.
        false => None,
    };
    let options = ConsumerOptions {
        config: consumer_config(context, &membership, name),
        membership,
        group: context.group(name),
        protocol: context.config.group.protocol,
        ids: ids(context, &topics),
        topics: topics.clone(),
        lanes: lanes.len(),
        accept_loss: context.accept_loss,
        ready: context.readiness.component(name),
    };
    let (sources, consumer) = start_consumer(options, stop.clone())?;
    let producer = Producer::unordered(&context.config.kafka)?;
    let schemas = RegistrySchemas::new(context.registry.clone());
    let topics = Arc::new(topics);
    let mut running = JoinSet::new();
    for ((mut stage, sink), source) in lanes.into_iter().zip(sources) {
        // Registered when we started: records of ours need no registry from here on.
        for topic in topics.iter() {
            if let Some(&id) = context.schema_ids.get(&topic.kind) {
                stage.learn(topic.kind, id, Some(topic.kind.spec().schema));
            }
        }
        let topics = Arc::clone(&topics);
        let limits = limits.clone();
        let schemas = schemas.clone();
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
    let failed = until_ended(name, &mut running, incarnations.as_ref(), &stop).await;
    stop.cancel();
    tokio::task::spawn_blocking(move || consumer.join()).await?;
    failed.map_or(Ok(()), |reason| bail!(reason))
}

fn consumer_config(
    context: &Context,
    membership: &Membership,
    name: &str,
) -> rdkafka::ClientConfig {
    let kafka = &context.config.kafka;
    match membership {
        Membership::Group => {
            let mut config = kafka.consumer(Some(&context.group(name)));
            group_settings(context, name, &mut config);
            config
        }
        Membership::Fixed(_) => kafka.fixed_consumer(),
    }
}

/// Waits for all lanes to end; the first that fails stops the others. Why it did.
async fn until_ended(
    name: &'static str,
    running: &mut JoinSet<Result<(), String>>,
    incarnations: Option<&Incarnations>,
    stop: &CancellationToken,
) -> Option<String> {
    let mut failed = None;
    loop {
        let ended = tokio::select! {
            ended = running.join_next() => ended,
            reason = changed(incarnations), if failed.is_none() => Some(Ok(Err(reason))),
        };
        let Some(ended) = ended else { return failed };
        let ended = ended.map_err(|error| error.to_string()).and_then(|ended| ended);
        if let Err(reason) = ended {
            tracing::error!(stage = name, reason, "the stage cannot go on");
            failed.get_or_insert(reason);
            stop.cancel();
        }
    }
}

fn ids(context: &Context, topics: &[Topic]) -> HashMap<String, String> {
    let ids = topics
        .iter()
        .filter_map(|topic| Some((topic.name.clone(), context.topic_id(&topic.name)?.to_owned())));
    ids.collect()
}

async fn changed(incarnations: Option<&Incarnations>) -> String {
    match incarnations {
        Some(incarnations) => incarnations.changed().await,
        None => std::future::pending().await,
    }
}

/// The broker's assignor under the newer protocol. It shares each topic by itself; `uniform`, which balances the number of
/// partitions over all topics, may leave a member with those of quiet topics.
const REMOTE_ASSIGNOR: &str = "range";

/// A member hears with its next heartbeat that another has come or gone, and a cooperative group
/// needs two such rounds.
const HEARTBEAT_MS: u64 = 1_000;

/// Time between two heartbeats: three go into a session, and no change has to wait for long.
fn heartbeat_ms(session_timeout_ms: u64) -> u64 {
    (session_timeout_ms / 3).clamp(1, HEARTBEAT_MS)
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
                .set("heartbeat.interval.ms", heartbeat_ms(group.session_timeout_ms).to_string());
        }
        // The broker owns assignment and timeouts.
        GroupProtocol::Consumer => {
            config.set("group.protocol", "consumer");
            if config.get("group.remote.assignor").is_none() {
                config.set("group.remote.assignor", REMOTE_ASSIGNOR);
            }
        }
    }
}
