//! `tapeline registry`: the Confluent schema registry's REST API for Avro, for installations
//! that have none. One instance, no high availability.
//!
//! Its state is the compacted topic `_schemas`, in the record format of Confluent's registry and
//! of Karapace: either can take over, and this one can take over from them. Writes happen one
//! at a time; one is answered only after its record was produced (`acks=all`) and came back
//! through our own reader of the topic.
//!
//! Not offered: references between schemas, JSON Schema and Protobuf (versions of these that are
//! in the topic already are served, and left alone), the mode IMPORT, contexts. As with
//! Confluent's registry, an id is free again once the newest schema was removed for good, the
//! topic was compacted and the registry started again: remove for good only what no record uses.

mod api;
mod compatibility;
mod errors;
mod log;
mod records;
mod schema_text;
mod service;
mod settings;
mod state;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use log::{Log, Reader, SharedState};

/// How long reading the topic to its end may take at start.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long requests under way may take at the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the registry listens and where it keeps its state.
#[derive(Clone)]
pub struct RegistryOptions {
    /// Kafka's brokers, `host:port`, separated by commas.
    pub brokers: String,
    /// Settings for librdkafka.
    pub properties: BTreeMap<String, String>,
    /// Address to listen on, `host:port`; port 0 takes a free one.
    pub listen: String,
    /// Topic of the schemas, `_schemas` for every known registry.
    pub topic: String,
    /// Replicas of the topic, where it has to be created.
    pub replication: i32,
}

impl Default for RegistryOptions {
    fn default() -> RegistryOptions {
        RegistryOptions {
            brokers: "127.0.0.1:9092".into(),
            properties: BTreeMap::new(),
            listen: "127.0.0.1:8081".into(),
            topic: "_schemas".into(),
            replication: 1,
        }
    }
}

/// A registry that has read its topic and listens.
#[derive(Debug)]
pub struct RunningRegistry {
    address: SocketAddr,
    serving: JoinHandle<anyhow::Result<()>>,
}

impl RunningRegistry {
    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, as clients want it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until it has stopped, by its shutdown or by an error.
    pub async fn stopped(self) -> anyhow::Result<()> {
        self.serving.await.context("the registry broke off")?
    }
}

/// Runs a registry until `shutdown`.
pub async fn serve(options: RegistryOptions, shutdown: CancellationToken) -> anyhow::Result<()> {
    start(options, shutdown).await?.stopped().await
}

/// Starts a registry: reads the topic to its end (creating it where it is missing), then listens.
pub fn start(
    options: RegistryOptions,
    shutdown: CancellationToken,
) -> BoxFuture<'static, anyhow::Result<RunningRegistry>> {
    // compiled once, here
    Box::pin(started(options, shutdown))
}

async fn started(
    options: RegistryOptions,
    shutdown: CancellationToken,
) -> anyhow::Result<RunningRegistry> {
    log::prepare_topic(&options).await?;
    let state = SharedState::default();
    let reader = {
        let (options, state) = (options.clone(), Arc::clone(&state));
        tokio::task::spawn_blocking(move || Reader::open(&options, state)).await??
    };
    let progress = reader.progress();
    // Stops with the caller, and by itself when either half fails.
    let stop = shutdown.child_token();
    // Whoever gives up below must not leave the reader behind.
    let stop_on_failure = stop.clone().drop_guard();
    let reading = {
        let stop = stop.clone();
        tokio::task::spawn_blocking(move || {
            let result = reader.run(&stop);
            stop.cancel();
            result
        })
    };
    read_to_the_end(progress.clone(), &stop).await?;
    let service = service::Service::new(state, Log::open(&options, progress)?);
    let listener = TcpListener::bind(&options.listen)
        .await
        .with_context(|| format!("cannot listen on {}; choose another address", options.listen))?;
    let address = listener.local_addr()?;
    tracing::info!(%address, topic = options.topic, "the schema registry listens");
    stop_on_failure.disarm();
    let serving = tokio::spawn(async move {
        let served = axum::serve(listener, api::router(Arc::new(service)))
            .with_graceful_shutdown(stop.clone().cancelled_owned())
            .into_future();
        // A client that holds its connection open must not hold the process.
        let overdue = async {
            stop.cancelled().await;
            tokio::time::sleep(DRAIN_TIMEOUT).await;
        };
        let served = tokio::select! {
            served = served => served,
            () = overdue => Ok(()),
        };
        stop.cancel();
        reading.await.context("the reader of the schemas topic broke off")??;
        served.context("the registry's listener failed")
    });
    Ok(RunningRegistry { address, serving })
}

async fn read_to_the_end(
    mut progress: watch::Receiver<Option<i64>>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    tokio::select! {
        () = stop.cancelled() => anyhow::bail!("stopped while the schemas topic was read"),
        read = tokio::time::timeout(START_TIMEOUT, progress.wait_for(Option::is_some)) => {
            read.context("the schemas topic was not read to its end in a minute; check kafka")?
                .context("the reader of the schemas topic broke off")?;
            Ok(())
        }
    }
}
