//! Serves recordings: REST answers, and each client its run of the tape.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::Router;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{ConnectInfo, Path as UrlPath, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use super::faults::{Journal, Refusal};
use super::filter::Protocol;
use super::recording::Recording;
use super::run::{Run, Wiring};
use super::venue::Venue;
use super::wire::Fuse;
use super::{Handle, Options, PlaybackError, listen};
use crate::venue::driver::RECORDED_AT;

#[derive(Debug, Clone)]
struct App {
    venues: Arc<HashMap<String, Venue>>,
    options: Options,
    journal: Journal,
    clients: Arc<AtomicU64>,
    cancel: CancellationToken,
}

/// Serves the recordings of `venues` in `dir` on `addr` (port 0 takes a free one), each under its own
/// path: `http://ADDR/kraken`, `ws://ADDR/kraken`.
pub async fn serve(
    dir: &Path,
    venues: &[&str],
    addr: SocketAddr,
    options: impl Into<Options>,
) -> Result<Handle, PlaybackError> {
    let options = options.into();
    let mut tapes = HashMap::new();
    for name in venues {
        let recording = Recording::read(dir, name)?;
        let protocol = Protocol::of(&recording.venue)
            .ok_or_else(|| PlaybackError::UnknownVenue((*name).to_owned()))?;
        tapes.insert(name.to_ascii_lowercase(), Venue::new(protocol, recording, &options));
    }
    let (cancel, journal) = (CancellationToken::new(), Journal::default());
    let clients: Arc<AtomicU64> = Arc::default();
    let app = App {
        venues: Arc::new(tapes),
        options,
        journal: journal.clone(),
        clients: Arc::clone(&clients),
        cancel: cancel.clone(),
    };
    let router = Router::new()
        .route("/{venue}", get(root))
        .route("/{venue}/", get(root))
        .route("/{venue}/{*path}", get(below))
        .with_state(app);
    listen(addr, router, journal, clients, cancel).await
}

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

async fn root(
    State(app): State<App>,
    ConnectInfo(fuse): ConnectInfo<Fuse>,
    UrlPath(venue): UrlPath<String>,
    RawQuery(query): RawQuery,
    upgrade: Upgrade,
) -> Response {
    answer(app, fuse, &venue, "/", query, upgrade).await
}

async fn below(
    State(app): State<App>,
    ConnectInfo(fuse): ConnectInfo<Fuse>,
    UrlPath((venue, path)): UrlPath<(String, String)>,
    RawQuery(query): RawQuery,
    upgrade: Upgrade,
) -> Response {
    answer(app, fuse, &venue, &format!("/{path}"), query, upgrade).await
}

async fn answer(
    app: App,
    fuse: Fuse,
    name: &str,
    path: &str,
    query: Option<String>,
    upgrade: Upgrade,
) -> Response {
    let Some(venue) = app.venues.get(name) else {
        return (StatusCode::NOT_FOUND, format!("no recording of {name}")).into_response();
    };
    let query = query.unwrap_or_default();
    let Ok(upgrade) = upgrade else { return rest(&app, venue, path, &query).await };
    let name = name.to_owned();
    upgrade.on_upgrade(move |socket| async move {
        let Some(venue) = app.venues.get(&name) else { return };
        let wiring =
            Wiring { fuse, journal: app.journal.clone(), clients: Arc::clone(&app.clients) };
        let run = Run::play(venue, &app.options, wiring, &query, socket);
        // A client that went away needs nothing more.
        let _ = app.cancel.run_until_cancelled(run).await;
    })
}

async fn rest(app: &App, venue: &Venue, path: &str, query: &str) -> Response {
    match venue.refuses() {
        None => {}
        Some(Refusal::TooMany) => {
            let wait = [(header::RETRY_AFTER.as_str(), "1")];
            return (StatusCode::TOO_MANY_REQUESTS, wait, "too many requests").into_response();
        }
        Some(Refusal::Broken) => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
    let path = format!("{path}?{query}");
    if let Some(faults) = app.options.faults.filter(|_| venue.is_book(&path)) {
        tokio::time::sleep(faults.slow_snapshot()).await;
    }
    let json = [(header::CONTENT_TYPE.as_str(), "application/json".to_owned())];
    match venue.answer(&path, &app.options) {
        None => (StatusCode::NOT_FOUND, json, venue.protocol.not_found()).into_response(),
        Some((time, body)) => (json, [(RECORDED_AT, time.0.to_string())], body).into_response(),
    }
}
