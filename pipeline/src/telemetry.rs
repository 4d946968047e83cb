//! Logs, metrics and health, the same for every stage.

mod health;
mod process;

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::config::{LogConfig, LogFormat};

pub use health::{Component, Readiness, health_client};

/// Upper bounds of the buckets of `…_seconds`: from a cache write to a database that was down.
const SECONDS_BUCKETS: [f64; 16] = [
    0.000_1, 0.000_25, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
    30.0, 120.0,
];
/// How often the recorder folds what histograms have collected. Without it they grow.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How long requests under way may take at the end.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends the logs to standard error: for people on a terminal, JSON otherwise, unless the
/// configuration says which. Once a process.
pub fn init_logs(config: &LogConfig) -> anyhow::Result<()> {
    // PostgreSQL's notices ("already exists, skipping") say nothing to anyone; the level can name
    // them again.
    let filter = EnvFilter::try_new(format!("sqlx::postgres::notice=warn,{}", config.level))
        .with_context(|| format!("log.level: '{}' is no level", config.level))?;
    let human = match config.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let installed = match human {
        true => logs.with_ansi(std::io::stderr().is_terminal()).try_init(),
        false => logs.json().flatten_event(true).with_current_span(false).try_init(),
    };
    installed.map_err(|error| anyhow::anyhow!("the logs are set up already: {error}"))
}

/// Installs the recorder of metrics, the first time; later calls give the same.
pub fn metrics_handle() -> anyhow::Result<PrometheusHandle> {
    static HANDLE: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    let install = || {
        let builder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)
            .and_then(PrometheusBuilder::install_recorder);
        builder.inspect(|_| process::describe()).map_err(|error| error.to_string())
    };
    let handle = HANDLE.get_or_init(install).clone();
    handle.map_err(|error| anyhow::anyhow!("the recorder of metrics cannot be installed: {error}"))
}

/// The server of metrics and health, while it runs.
#[derive(Debug)]
pub struct RunningTelemetry {
    address: SocketAddr,
    serving: JoinHandle<anyhow::Result<()>>,
}

impl RunningTelemetry {
    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it has stopped.
    pub async fn stopped(self) -> anyhow::Result<()> {
        self.serving.await.context("the server of metrics and health broke off")?
    }
}

/// Serves `/metrics`, `/health/live` and `/health/ready` on `listen` (`host:port`; port 0 takes a
/// free one) until `shutdown`.
pub async fn serve(
    listen: &str,
    readiness: Readiness,
    shutdown: CancellationToken,
) -> anyhow::Result<RunningTelemetry> {
    let handle = metrics_handle()?;
    let listener = TcpListener::bind(listen).await.with_context(|| {
        format!("cannot listen on {listen}; set http.listen to another address")
    })?;
    let address = listener.local_addr()?;
    tracing::info!(%address, "metrics and health are served");
    let app = router(handle.clone(), readiness);
    let serving = tokio::spawn(async move {
        let served = axum::serve(listener, app)
            .with_graceful_shutdown(shutdown.clone().cancelled_owned())
            .into_future();
        // A scraper that holds its connection open must not hold the process.
        let overdue = async {
            shutdown.cancelled().await;
            tokio::time::sleep(DRAIN_TIMEOUT).await;
        };
        tokio::select! {
            served = served => served.context("the server of metrics and health failed"),
            () = overdue => Ok(()),
            () = upkeep(&handle) => Ok(()),
        }
    });
    Ok(RunningTelemetry { address, serving })
}

async fn upkeep(handle: &PrometheusHandle) {
    let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        interval.tick().await;
        handle.run_upkeep();
    }
}

fn router(handle: PrometheusHandle, readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(render).with_state(handle))
        .route("/health/live", get(async || "live\n"))
        .route("/health/ready", get(ready).with_state(readiness))
}

async fn render(State(handle): State<PrometheusHandle>) -> impl IntoResponse {
    process::record();
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], handle.render())
}

async fn ready(State(readiness): State<Readiness>) -> Response {
    let status = match readiness.is_ready() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, axum::Json(readiness.report())).into_response()
}

#[cfg(test)]
mod tests;
