//! A hole where the venue gives no numbers: filled once its answer reaches the hole's end, and not before.

use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::Value;
use tapeline::config::VenueConfig;
use tapeline::venue::driver::RECORDED_AT;
use tapeline::wiring::StageName;
use tapeline_schemas::{GapState, Kind, Micros};
use tokio_util::sync::CancellationToken;

use crate::common::{Pipeline, eventually};
use crate::look;

/// Start of the hole, in seconds; it is ten of them long.
const START: i64 = 1_618_678_140;
const SECOND: i64 = 1_000_000;

fn recorded(body: String) -> impl IntoResponse {
    ([(RECORDED_AT, ((START + 600) * SECOND).to_string())], body)
}

async fn pairs() -> impl IntoResponse {
    recorded(r#"{"error":[],"result":{"XXBTZUSD":{"wsname":"XBT/USD","status":"online"}}}"#.into())
}

/// A trade of the hole, and one of behind it where the market has gone on.
async fn trades(State(has_gone_on): State<Arc<AtomicBool>>) -> impl IntoResponse {
    let row = |second: i64| format!(r#"["30243.4","0.5",{second}.5,"b","m",""]"#);
    let mut rows = vec![row(START + 1)];
    if has_gone_on.load(Ordering::SeqCst) {
        rows.push(row(START + 10));
    }
    let rows = rows.join(",");
    recorded(format!(r#"{{"error":[],"result":{{"XXBTZUSD":[{rows}],"last":"1"}}}}"#))
}

async fn backfill(pipeline: &Pipeline, url: &str) -> (Output, Value) {
    let mut command = pipeline.command(&["backfill", "--gaps", "--playback", "--json"], |config| {
        let venue = VenueConfig { rest_url: Some(url.to_owned()), ..VenueConfig::default() };
        config.connect.venues.insert("KRAKEN".to_owned(), venue);
    });
    command.stdout(Stdio::piped());
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("joins");
    let output = output.expect("the binary starts");
    let line = String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| serde_json::from_str(line).ok())
        .unwrap_or_default();
    (output, line)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_numbers_a_hole_stays_until_the_venues_answer_reaches_its_end() {
    let has_gone_on = Arc::new(AtomicBool::new(false));
    let router = Router::new()
        .route("/0/public/AssetPairs", get(pairs))
        .route("/0/public/Trades", get(trades))
        .with_state(Arc::clone(&has_gone_on));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let stop = CancellationToken::new();
    let (until, _stops) = (stop.clone(), stop.drop_guard());
    tokio::spawn(async move {
        until.run_until_cancelled(axum::serve(listener, router).into_future()).await
    });

    let pipeline = Pipeline::new("reach").await;
    let stages = [StageName::Validate, StageName::Store].map(|stage| pipeline.start(stage));
    let end = Micros((START + 10) * SECOND);
    for (state, to) in [(GapState::Opened, None), (GapState::Ended, Some(end))] {
        let feed = ("KRAKEN", "BTC-USD", Kind::Trade);
        look::gap(&pipeline, feed, state, Micros(START * SECOND), to).await;
    }
    let ended = "select count(*) from market_data_gaps where state = 'ended'";
    eventually("the hole is recorded", || async { pipeline.count(ended).await == 1 }).await;

    let (output, line) = backfill(&pipeline, &url).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let doubt = line["doubt"].as_str().unwrap_or_default();
    assert!(doubt.contains(&format!("whole up to {end}")), "{line}");
    assert!(line["counts"]["published"] == 1 && line["filled"] == 0, "{line}");
    assert_eq!(pipeline.count(ended).await, 1, "it stays");

    has_gone_on.store(true, Ordering::SeqCst);
    let (output, line) = backfill(&pipeline, &url).await;
    assert!(output.status.success() && line["filled"] == 1, "{output:?}");
    assert!(line["counts"]["published"] == 1 && line["counts"]["known"] == 1, "{line}");
    eventually("it is filled", || async { pipeline.count(ended).await == 0 }).await;
    let stored = "select count(*) from market_data_trades";
    assert_eq!(pipeline.count(stored).await, 2);
    for stage in stages {
        stage.stop().await;
    }
    pipeline.finish().await;
}
