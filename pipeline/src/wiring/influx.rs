//! The stage `influx`: a second target for market data (S5).

use std::time::Duration;

use anyhow::{Context as _, Result};
use tapeline_schemas::Kind;
use tapeline_stages::flow::Limits;
use tapeline_stages::influx::Influx;
use tapeline_stages::sinks::influx::{InfluxSettings, InfluxSink, InfluxTarget};
use tokio_util::sync::CancellationToken;

use super::Context;
use super::host::host;
use crate::config::InfluxConfig;
use crate::tls;

/// Kinds that it takes: what the market did, nothing of accounts.
pub(super) const KINDS: [Kind; 6] =
    [Kind::Trade, Kind::Ticker, Kind::Book, Kind::Candle, Kind::VenueCandle, Kind::Option];

pub(super) async fn run(context: &Context, shutdown: CancellationToken) -> Result<()> {
    let config = &context.config.influx;
    let sink = InfluxSink::new(settings(config)?).map_err(anyhow::Error::msg)?;
    let limits = Limits {
        batch_positions: config.batch_lines,
        batch_bytes: config.batch_bytes,
        linger: Duration::from_millis(config.linger_ms),
    };
    let topics = context.sink_topics(KINDS)?;
    host(context, "influx", topics, limits, vec![(Influx::new(), sink)], shutdown).await
}

fn settings(config: &InfluxConfig) -> Result<InfluxSettings> {
    let url = config.url.clone().context("influx.url is not set: say where InfluxDB is")?;
    let set = |value: &Option<String>| value.clone().unwrap_or_default();
    let target = match config.version {
        1 => InfluxTarget::V1 {
            database: set(&config.database),
            login: config.user.clone().zip(config.password.clone()),
        },
        _ => InfluxTarget::V2 {
            org: set(&config.org),
            bucket: set(&config.bucket),
            token: set(&config.token),
        },
    };
    let trusted = match &config.ca_file {
        Some(file) => tls::certificates("influx.ca_file", file)?,
        None => Vec::new(),
    };
    Ok(InfluxSettings { url, target, trusted, answer: Duration::from_millis(config.timeout_ms) })
}
