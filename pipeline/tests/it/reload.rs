//! Another configuration for connectors that run, while the log cannot be read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::routing::get;
use tapeline::config::{Config, VenueConfig};
use tapeline::connect;
use tapeline::kafka::last_covered;
use tapeline::venue::driver::SystemClock;
use tapeline_schemas::Kind;
use tokio::sync::mpsc;

use crate::common::{Pipeline, eventually};
use crate::look;

/// A listing of one symbol, as Binance gives it.
pub(crate) const LISTED: &str = r#"{"symbols":[{"symbol":"AAAUSDT","status":"TRADING","baseAsset":"AAA","quoteAsset":"USDT"}]}"#;

/// Two venues that list a symbol each and stream nothing: their address, and how often each was asked.
async fn venues() -> (String, [Arc<AtomicUsize>; 2]) {
    let asked: [Arc<AtomicUsize>; 2] = Default::default();
    let listing = |asked: &Arc<AtomicUsize>, body: &'static str| {
        let asked = Arc::clone(asked);
        get(move || {
            asked.fetch_add(1, Ordering::Relaxed);
            std::future::ready(body)
        })
    };
    let router = Router::new()
        .route("/api/v3/exchangeInfo", listing(&asked[0], LISTED))
        .route("/v1/market/all", listing(&asked[1], r#"[{"market":"KRW-AAA"}]"#));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, asked)
}

fn add(config: &mut Config, address: &str, (venue, symbol, channel): (&str, &str, &str)) {
    let venue_config = VenueConfig {
        symbols: vec![symbol.to_owned()],
        channels: vec![channel.to_owned()],
        rest_url: Some(format!("http://{address}")),
        ws_url: Some(format!("ws://{address}")),
        ..VenueConfig::default()
    };
    config.connect.venues.insert(venue.to_owned(), venue_config);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_venue_whose_place_in_the_log_cannot_be_read_leaves_all_running_and_is_tried_again() {
    let (address, [running, added]) = venues().await;
    let asked = |of: &AtomicUsize| of.load(Ordering::Relaxed);
    let mut pipeline = Pipeline::with("reload", |config| {
        add(config, &address, ("BINANCE", "AAA-USDT", "trade"));
    })
    .await;
    let before = (*pipeline.context.config).clone();
    let mut after = before.clone();
    add(&mut after, &address, ("UPBIT", "AAA-KRW", "ticker"));

    let configured = connect::configured(&pipeline.context, &[]).await.expect("venues");
    let configured = configured.into_iter().map(|venue| (venue, Arc::default())).collect();
    let (changes, inbox) = mpsc::channel(1);
    let (context, stop) = (pipeline.context.clone(), pipeline.shutdown.clone());
    let connectors = tokio::spawn(async move {
        let clock = Arc::new(SystemClock::default());
        connect::run_with(&context, configured, clock, stop, inbox).await
    });
    eventually("the first has begun", || async { asked(&running) == 1 }).await;

    let topic = look::raw_topic(&pipeline, Kind::Ticker);
    look::delete(&pipeline, &topic).await;
    eventually("its topic is gone", || async {
        last_covered(&before.kafka, "UPBIT", &[Kind::Ticker], "").is_err()
    })
    .await;
    changes.send(connect::prepare(&after, &[]).await.expect("listed")).await.expect("taken");
    // The channel holds one: once the third is in it, the first has been dealt with.
    for _ in 0..2 {
        changes.send(connect::prepare(&before, &[]).await.expect("listed")).await.expect("taken");
    }
    assert!(!connectors.is_finished(), "the first goes on");
    assert_eq!((asked(&running), asked(&added)), (1 + 3, 1), "nobody has connected anew");

    look::create_again(&mut pipeline, &topic).await;
    changes.send(connect::prepare(&after, &[]).await.expect("listed")).await.expect("taken");
    eventually("the second has begun", || async { asked(&added) == 3 }).await;
    pipeline.shutdown.cancel();
    let reports = connectors.await.expect("joins").expect("ended well");
    assert_eq!(reports.keys().collect::<Vec<_>>(), ["BINANCE", "UPBIT"]);
    pipeline.finish().await;
}
