//! A venue that compresses what it sends (permessage-deflate, RFC 7692).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures_util::SinkExt;
use tapeline::playback::{self, Recording, Speed};
use tapeline::venue::driver::VenueConfig;
use tapeline_schemas::Kind;
use tokio::net::{TcpListener, TcpStream};
use yawc::{Frame, IncomingUpgrade, OpCode, Options, WebSocket};

use crate::common::{VENUES, assert_counts, recordings};
use crate::figures::published_figures;
use crate::going_on::Run;
use crate::recorded::recorded_figures;
use crate::sockets::run;
use crate::stage::{Stage, eventually};

/// Books of venues are large.
const LIMIT: usize = 32 << 20;

/// Stands before a venue that does not compress.
#[derive(Clone)]
struct Front {
    /// The venue's host and port.
    behind: Arc<str>,
    /// Connections that clients asked to be compressed.
    compressed: Arc<AtomicUsize>,
    /// Bytes of each message that is sent in place of the venue's; none for these themselves.
    bomb: Option<usize>,
}

impl Front {
    /// Opens it; its own host and port.
    async fn open(behind: &str, bomb: Option<usize>) -> (Front, String) {
        let front = Front { behind: behind.into(), compressed: Arc::default(), bomb };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = Router::new().fallback(answer).with_state(front.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (front, address)
    }

    fn compressed(&self) -> usize {
        self.compressed.load(Ordering::Relaxed)
    }
}

async fn answer(
    State(front): State<Front>,
    uri: Uri,
    headers: HeaderMap,
    upgrade: Result<IncomingUpgrade, StatusCode>,
) -> Response {
    let path = uri.path_and_query().unwrap().to_string();
    let Ok(upgrade) = upgrade else {
        let answer = reqwest::get(format!("http://{}{path}", front.behind)).await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        return (status, headers, answer.bytes().await.unwrap()).into_response();
    };
    let asked = headers.get(header::SEC_WEBSOCKET_EXTENSIONS);
    if asked.is_some_and(|asked| asked.to_str().unwrap().contains("permessage-deflate")) {
        front.compressed.fetch_add(1, Ordering::Relaxed);
    }
    let (response, upgraded) =
        upgrade.upgrade(Options::default().with_low_latency_compression()).unwrap();
    tokio::spawn(async move {
        let mut client = upgraded.await.unwrap();
        let url = format!("ws://{}{path}", front.behind).parse().unwrap();
        let stream = TcpStream::connect(&*front.behind).await.unwrap();
        let options = Options::default().with_limits(LIMIT, LIMIT);
        let mut venue = WebSocket::handshake(url, stream, options).await.unwrap();
        loop {
            let said = tokio::select! {
                frame = venue.next_frame() => {
                    let Ok(frame) = frame else { return };
                    let (is_last, is_text) = (frame.opcode() == OpCode::Close, frame.opcode() == OpCode::Text);
                    let frame = match front.bomb {
                        Some(bytes) if is_text => Frame::text(Bytes::from(vec![b' '; bytes])),
                        _ => frame,
                    };
                    let said = client.send(frame).await;
                    if is_last {
                        // Closing on what is unread would reset what is under way.
                        while client.next_frame().await.is_ok() {}
                        return;
                    }
                    said
                }
                frame = client.next_frame() => match frame {
                    Ok(frame) if frame.opcode() == OpCode::Text => venue.send(frame).await,
                    Ok(_) => Ok(()),
                    Err(_) => return,
                },
            };
            if said.is_err() {
                return;
            }
        }
    });
    response.map(|_| Body::empty())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_venue_that_compresses_gives_the_same_events_as_one_that_does_not() {
    let Some(dir) = recordings() else { return };
    let addr = "127.0.0.1:0".parse().unwrap();
    let server = playback::serve(&dir, &VENUES, addr, Speed::Max).await.unwrap();
    let behind =
        server.rest_url("x").trim_start_matches("http://").trim_end_matches("/x").to_owned();
    let (front, address) = Front::open(&behind, None).await;
    for venue in VENUES {
        let recording = Recording::read(&dir, venue).unwrap();
        let at = |url: String| url.replace(&behind, &address);
        let (rest, ws) = (at(server.rest_url(venue)), at(server.ws_url(venue)));
        let config = VenueConfig::playback(venue, recording.settings(), rest, ws).unwrap();
        let before = front.compressed();
        let (stats, published) = run(config).await;
        assert!(front.compressed() > before, "{venue}: compression was asked for");
        assert_counts(&recording, &stats);
        assert_eq!(published_figures(&published), recorded_figures(&recording), "{venue}");
    }
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connector_that_may_not_have_compression_asks_for_none() {
    let stage = Stage::open(&["AAA"]).await;
    let (front, address) = Front::open(stage.address(), None).await;
    let config = stage.config(&["AAA"], &[Kind::Trade]);
    let config = VenueConfig {
        network: config.network.with_compression(false),
        ws_url: format!("ws://{address}"),
        ..config
    };
    let run = Run::start(config);
    eventually("connected", || stage.came() == 1).await;
    let id = stage.trade("AAA");
    eventually("a trade", || run.trades("AAA") == [id]).await;
    assert_eq!(front.compressed(), 0);
    run.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_unfolds_beyond_the_limit_ends_its_connection_and_another_follows() {
    let stage = Stage::open(&["AAA"]).await;
    // 64 MiB of spaces: some 64 KiB on the wire.
    let (front, address) = Front::open(stage.address(), Some(64 << 20)).await;
    let config = stage.config(&["AAA"], &[Kind::Trade]);
    let run = Run::start(VenueConfig { ws_url: format!("ws://{address}"), ..config });
    eventually("connected", || stage.came() == 1).await;
    stage.trade("AAA");
    eventually("connected again", || stage.came() >= 2).await;
    assert!(front.compressed() >= 2 && run.trades("AAA").is_empty());
    run.end().await;
}
