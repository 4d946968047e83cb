//! A connector whose holder of the lease was killed in a hole: what that left open in the log, the next one ends (C1).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{Message, WebSocket};
use axum::extract::{Path, State, WebSocketUpgrade};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tapeline::config::{Config, VenueConfig};
use tapeline_schemas::{Control, GapChange, GapState, Kind};

use crate::common::{Pipeline, Process, eventually};
use crate::look;
use crate::reload::LISTED;

const TICKER: &str = r#"{"stream":"aaausdt@bookTicker","data":{"u":1,"s":"AAAUSDT","b":"1.5","B":"1","a":"1.6","A":"1"}}"#;
/// Between two tickers.
const PACE: Duration = Duration::from_millis(20);

/// A venue that streams one ticker to everybody, until it is done with whoever asks as `a`.
#[derive(Clone, Default)]
struct Venue {
    done_with_a: Arc<AtomicBool>,
    streams_to_b: Arc<AtomicBool>,
}

impl Venue {
    async fn serve(&self) -> String {
        let router = Router::new()
            .route("/api/v3/exchangeInfo", get(|| std::future::ready(LISTED)))
            .route("/{who}/stream", get(subscribe))
            .with_state(self.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    fn refuses(&self, who: &str) -> bool {
        who == "a" && self.done_with_a.load(Ordering::Acquire)
    }

    async fn stream(self, who: String, mut socket: WebSocket) {
        while !self.refuses(&who) && socket.send(Message::text(TICKER)).await.is_ok() {
            self.streams_to_b.fetch_or(who == "b", Ordering::AcqRel);
            tokio::time::sleep(PACE).await;
        }
    }
}

async fn subscribe(
    Path(who): Path<String>,
    State(venue): State<Venue>,
    upgrade: WebSocketUpgrade,
) -> Response {
    if venue.refuses(&who) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    upgrade.on_upgrade(move |socket| venue.stream(who, socket))
}

/// One of two connectors of the same symbol.
fn twin(config: &mut Config, address: &str, name: &str) {
    name.clone_into(&mut config.connect.instance);
    config.connect.lease_ms = 1_000;
    config.connect.record.enabled = false;
    let venue = VenueConfig {
        symbols: vec!["AAA-USDT".to_owned()],
        channels: vec!["ticker".to_owned()],
        rest_url: Some(format!("http://{address}")),
        ws_url: Some(format!("ws://{address}/{name}")),
        ..VenueConfig::default()
    };
    config.connect.venues.insert("BINANCE".to_owned(), venue);
}

/// What the log says of the ticker's holes by disconnections, in order.
fn disconnections(pipeline: &Pipeline) -> Vec<GapChange> {
    let seen = look::read_topic(pipeline, &look::raw_topic(pipeline, Kind::Ticker));
    let gap = |seen: look::Seen| {
        let control = Control::from_headers(|name| seen.headers.get(name).map(String::as_str));
        match control {
            Ok(Control::Gap(gap)) if gap.cause == "disconnect" => Some(gap),
            _ => None,
        }
    };
    seen.into_iter().filter_map(gap).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hole_of_a_holder_that_was_killed_in_it_is_read_from_the_log_and_ended_by_the_next() {
    let venue = Venue::default();
    let address = venue.serve().await;
    let pipeline = Pipeline::new("takeover").await;
    let start = |name| {
        let mut command = pipeline.command(&["connect"], |config| twin(config, &address, name));
        Process(command.spawn().expect("connect"))
    };
    let one = start("a");
    let topic = look::raw_topic(&pipeline, Kind::Ticker);
    eventually("the first publishes", || async {
        look::read_topic(&pipeline, &topic).iter().any(|seen| seen.value.is_some())
    })
    .await;
    let other = start("b");
    eventually("the other is there", || async { venue.streams_to_b.load(Ordering::Acquire) }).await;

    venue.done_with_a.store(true, Ordering::Release);
    eventually("its hole is in the log", || async { !disconnections(&pipeline).is_empty() }).await;
    drop(one);
    eventually("the hole has ended", || async { disconnections(&pipeline).len() > 1 }).await;
    drop(other);

    let told = disconnections(&pipeline);
    let states: Vec<GapState> = told.iter().map(|gap| gap.state).collect();
    assert_eq!(states, [GapState::Opened, GapState::Ended], "{told:?}");
    assert_eq!(told[1].from, told[0].from);
    assert!(told[1].to.is_some_and(|to| to > told[1].from), "{told:?}");
    pipeline.finish().await;
}
