//! An HTTP front of the registry that answers as broken ones do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Largest request that is passed on.
const REQUEST_BYTES: usize = 4 * 1024 * 1024;
/// How long a slow answer takes: longer than the stages are told to wait.
const SLOW: Duration = Duration::from_secs(3);

/// How the registry behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(u8)]
pub(crate) enum Mood {
    Sound,
    /// Connections are closed without an answer.
    Down,
    /// The right answer, too late.
    Slow,
    /// 500, in the registry's own form.
    Broken,
    /// 404 with a page of somebody else's.
    Garbage,
}

impl Mood {
    pub(crate) const FAULTS: [Mood; 4] = [Mood::Down, Mood::Slow, Mood::Broken, Mood::Garbage];
}

struct Shared {
    mood: AtomicU8,
    asked: AtomicU64,
    target: String,
    client: reqwest::Client,
}

/// A running front.
pub(crate) struct Front {
    pub(crate) url: String,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

impl Front {
    /// Passes requests on to the registry at `target`.
    pub(crate) async fn start(target: &str) -> Result<Front> {
        let shared = Arc::new(Shared {
            mood: AtomicU8::new(Mood::Sound as u8),
            asked: AtomicU64::new(0),
            target: target.to_owned(),
            client: reqwest::Client::builder().no_proxy().build()?,
        });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let stop = CancellationToken::new();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let token = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                // Its end shows as a registry that is down.
                _ = axum::serve(listener, router).into_future() => {}
                () = token.cancelled() => {}
            }
        });
        Ok(Front { url, shared, _stop: stop.drop_guard() })
    }

    pub(crate) fn turn(&self, mood: Mood) {
        self.shared.mood.store(mood as u8, Ordering::SeqCst);
    }

    /// Requests so far.
    pub(crate) fn asked(&self) -> u64 {
        self.shared.asked.load(Ordering::SeqCst)
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    shared.asked.fetch_add(1, Ordering::SeqCst);
    let mood = shared.mood.load(Ordering::SeqCst);
    if mood == Mood::Down as u8 {
        // An error in the middle of the body makes the server close the connection.
        let broken = futures_util::stream::iter([Err::<&[u8], _>(std::io::Error::other("down"))]);
        return Response::new(Body::from_stream(broken));
    }
    if mood == Mood::Broken as u8 {
        let body = "{\"error_code\": 50001, \"message\": \"the store is down\"}";
        return (StatusCode::INTERNAL_SERVER_ERROR, body).into_response();
    }
    if mood == Mood::Garbage as u8 {
        return (StatusCode::NOT_FOUND, "<html>no such page</html>").into_response();
    }
    if mood == Mood::Slow as u8 {
        tokio::time::sleep(SLOW).await;
    }
    passed_on(&shared, request)
        .await
        .unwrap_or_else(|error| (StatusCode::BAD_GATEWAY, error.to_string()).into_response())
}

async fn passed_on(shared: &Shared, request: Request) -> Result<Response> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut onward = shared
        .client
        .request(parts.method, format!("{}{path}", shared.target))
        .body(to_bytes(body, REQUEST_BYTES).await?);
    if let Some(kind) = parts.headers.get("content-type") {
        onward = onward.header("content-type", kind);
    }
    let answer = onward.send().await?;
    let status = answer.status();
    Ok((status, answer.bytes().await?).into_response())
}
