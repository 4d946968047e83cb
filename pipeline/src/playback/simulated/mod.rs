//! A simulated venue: speaks Binance's protocol over real sockets and makes the mistakes that real
//! venues make, so that everything can be shown without recordings and compared with what was put in.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{Query, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tapeline_schemas::Micros;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::tape::{SimBook, Tape};
use super::filter::Protocol;
use super::recording::{Frame, Payload};
use super::socket::{self, Pace};
use super::{Handle, Journal, PlaybackError, Speed, listen};
use crate::venue::driver::RECORDED_AT;

mod past;
mod tape;

/// Levels a side of [`Report::final_books`].
pub const REPORTED_LEVELS: usize = 10;
/// How long the tape waits for a client to fetch a snapshot before it goes on without.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(5);

/// What to simulate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The same seed gives the same tape.
    pub seed: u64,
    /// Base and quote of each symbol.
    pub symbols: Vec<(String, String)>,
    /// Steps of the tape: a trade, a ticker, a change of a book, or a fault each.
    pub events: usize,
    /// Steps in a second of the tape's own time.
    pub events_per_second: u32,
    /// Receive time of the first.
    pub start: Micros,
    /// How many of each fault are put in.
    pub faults_each: usize,
    /// Steps whose trades are not sent, and are in the venue's past alone.
    pub trades_lost: std::ops::Range<usize>,
}

impl Default for Config {
    /// Twenty seconds of three symbols from 2024-01-02T03:04:00Z, with two of each fault.
    fn default() -> Config {
        let symbols = ["BTC", "ETH", "SOL"];
        Config {
            seed: 1,
            symbols: symbols.map(|base| (base.to_owned(), "USDT".to_owned())).to_vec(),
            events: 2_000,
            events_per_second: 100,
            start: Micros(1_704_164_640_000_000),
            faults_each: 2,
            trades_lost: 0..0,
        }
    }
}

/// A mistake on the tape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// Updates `first` to `last` of a book were never sent.
    Gap {
        /// The symbol.
        symbol: String,
        /// First update of the first missing message.
        first: u64,
        /// Last update of the first missing message.
        last: u64,
    },
    /// A trade was sent twice.
    DuplicateTrade {
        /// The symbol.
        symbol: String,
        /// Its id.
        trade_id: u64,
    },
    /// A ticker has its bid above its ask.
    CrossedBook {
        /// The symbol.
        symbol: String,
        /// Its update.
        event_id: u64,
    },
    /// A trade's price is ten times the market's.
    BadTick {
        /// The symbol.
        symbol: String,
        /// Its id.
        trade_id: u64,
    },
    /// A frame that cannot be read.
    Malformed {
        /// Its start.
        start: String,
    },
}

/// What the tape holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Trades sent, duplicates too.
    pub trades: u64,
    /// Trades not sent.
    pub trades_lost: u64,
    /// Tickers sent, crossed ones too.
    pub tickers: u64,
    /// Changes of books sent.
    pub depth_updates: u64,
    /// Changes of books not sent.
    pub withheld_updates: u64,
    /// The mistakes, in order.
    pub faults: Vec<Fault>,
    /// The best levels of each symbol's book at the end: price and amount of bids, then of asks.
    pub final_books: BTreeMap<String, [Vec<[String; 2]>; 2]>,
}

/// A running simulated venue.
#[derive(Debug)]
pub struct Simulated {
    /// The server; its addresses are those of `binance`.
    pub handle: Handle,
    /// What every client will get.
    pub report: Report,
}

struct App {
    tape: Tape,
    speed: Speed,
    cancel: CancellationToken,
    /// How far the newest client's run has come: snapshots are right at this place.
    place: AtomicUsize,
    /// Snapshots given of each symbol.
    snapshots: watch::Sender<Vec<usize>>,
}

/// Serves a simulated venue on `addr` (port 0 takes a free one) under the path `/binance`.
///
/// At the start and behind each gap the tape waits a while for the client's snapshot, so that at any
/// speed every fault meets a book that is whole.
pub async fn serve(
    config: &Config,
    addr: SocketAddr,
    speed: Speed,
) -> Result<Simulated, PlaybackError> {
    let tape = tape::make(config);
    let report = tape.report.clone();
    let cancel = CancellationToken::new();
    let (snapshots, _) = watch::channel(vec![0; tape.natives.len()]);
    let (config, place) = (config.clone(), AtomicUsize::new(0));
    let app = Arc::new(App { tape, speed, cancel: cancel.clone(), place, snapshots });
    let router = Router::new()
        .route("/binance/api/v3/exchangeInfo", get(move || async move { exchange_info(&config) }))
        .route("/binance/api/v3/depth", get(depth))
        .route("/binance/api/v3/aggTrades", get(past::trades))
        .route("/binance/api/v3/klines", get(past::candles))
        .route("/binance/stream", get(stream))
        .with_state(app);
    let handle = listen(addr, router, Journal::default(), Arc::default(), cancel).await?;
    Ok(Simulated { handle, report })
}

fn recorded_json(at: Micros, body: String) -> Response {
    let json = [(header::CONTENT_TYPE.as_str(), "application/json".to_owned())];
    (json, [(RECORDED_AT, at.0.to_string())], body).into_response()
}

fn exchange_info(config: &Config) -> Response {
    let symbols = config.symbols.iter().map(|(base, quote)| {
        let symbol = format!("{base}{quote}").to_ascii_uppercase();
        json!({"symbol": symbol, "status": "TRADING", "baseAsset": base, "quoteAsset": quote})
    });
    let body = json!({"timezone": "UTC", "symbols": symbols.collect::<Vec<_>>()});
    recorded_json(config.start, body.to_string())
}

#[derive(Deserialize)]
struct DepthQuery {
    symbol: String,
    limit: Option<usize>,
}

async fn depth(State(app): State<Arc<App>>, Query(query): Query<DepthQuery>) -> Response {
    let Some(symbol) = app.tape.natives.iter().position(|native| *native == query.symbol) else {
        return (StatusCode::BAD_REQUEST, Protocol::Binance.not_found()).into_response();
    };
    let (book, at) = app.book(symbol);
    app.snapshots.send_modify(|given| {
        if let Some(count) = given.get_mut(symbol) {
            *count += 1;
        }
    });
    recorded_json(at, book.snapshot(query.limit.unwrap_or(100)))
}

async fn stream(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    upgrade: WebSocketUpgrade,
) -> Response {
    let streams = Protocol::Binance.in_address(&query.unwrap_or_default());
    upgrade.on_upgrade(move |socket| async move {
        let run = app.play(streams.into_iter().collect(), socket);
        // A client that went away needs nothing more.
        let _ = app.cancel.run_until_cancelled(run).await;
    })
}

impl App {
    /// The venue's own book at the newest client's place, and the time there.
    fn book(&self, symbol: usize) -> (SimBook, Micros) {
        let place = self.place.load(Ordering::Acquire);
        let mut book = self.tape.opening.get(symbol).cloned().unwrap_or_default();
        let passed = self.tape.events.iter().take(place);
        for delta in passed.filter(|e| e.symbol == symbol).filter_map(|e| e.delta.as_ref()) {
            book.apply(delta);
        }
        let before = self.tape.events.get(place.saturating_sub(1));
        (book, before.map(|event| event.time).unwrap_or_default())
    }

    async fn play(&self, streams: HashSet<String>, socket: WebSocket) -> Result<(), axum::Error> {
        let (mut out, mut incoming) = socket::Tape::split(socket);
        let mut given = self.snapshots.subscribe();
        self.place.store(0, Ordering::Release);
        let mut seen = given.borrow_and_update().clone();
        for (symbol, native) in self.tape.natives.iter().enumerate() {
            if streams.contains(&format!("{}@depth@100ms", native.to_ascii_lowercase())) {
                wait_for_snapshot(&mut given, &mut seen, symbol).await;
            }
        }
        let mut pace = Pace::new(self.speed);
        for (index, event) in self.tape.events.iter().enumerate() {
            if let Some(due) = pace.due(event.time) {
                out.flush().await?;
                tokio::time::sleep_until(due).await;
            }
            if let Some(text) = event.text.as_ref().filter(|_| streams.contains(&event.stream)) {
                let frame = Frame { time: event.time, payload: Payload::Text(text.clone()) };
                // The client's pongs are taken while the frame waits for room.
                let send = out.frame(&frame);
                tokio::pin!(send);
                loop {
                    tokio::select! {
                        biased;
                        sent = &mut send => break sent?,
                        Some(Ok(_)) = incoming.next() => {}
                    }
                }
            }
            self.place.store(index + 1, Ordering::Release);
            if event.after_gap && streams.contains(&event.stream) {
                out.flush().await?;
                wait_for_snapshot(&mut given, &mut seen, event.symbol).await;
            }
        }
        out.flush().await?;
        out.end(&mut incoming).await;
        Ok(())
    }
}

/// Waits until one more snapshot of the symbol was given. A client that keeps no books is waited for
/// in vain, but not for long.
async fn wait_for_snapshot(
    given: &mut watch::Receiver<Vec<usize>>,
    seen: &mut [usize],
    symbol: usize,
) {
    let Some(seen) = seen.get_mut(symbol) else { return };
    let more = given.wait_for(|counts| counts.get(symbol).is_some_and(|count| count > seen));
    if let Ok(Ok(counts)) = tokio::time::timeout(SNAPSHOT_PATIENCE, more).await {
        *seen = counts.get(symbol).copied().unwrap_or(*seen);
    }
}
