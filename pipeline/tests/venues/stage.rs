//! A venue whose every word is the test's: Binance's protocol over real sockets, all clients at the same place.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, RawQuery, State};
use axum::response::IntoResponse;
use axum::routing::get;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tapeline::venue::Settings;
use tapeline::venue::driver::{ANNOUNCEMENT, RECORDED_AT, VenueConfig};
use tapeline_schemas::Kind;
use tokio::sync::mpsc;

const BEGINNING: i64 = 1_704_164_640_000_000;

struct Client {
    streams: HashSet<String>,
    outbox: mpsc::Sender<Message>,
}

#[derive(Default)]
struct Told {
    now: i64,
    symbols: Vec<String>,
    clients: Vec<Option<Client>>,
    heard: Vec<(Instant, String)>,
    updates: i64,
    /// The last trade of each symbol: the venue numbers them one by one.
    trades: HashMap<String, i64>,
}

/// The venue.
#[derive(Clone)]
pub(crate) struct Stage {
    told: Arc<Mutex<Told>>,
    address: String,
}

/// Waits until `holds`.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..3_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

impl Stage {
    /// Opens the venue with these symbols, `BASE-USDT` each.
    pub(crate) async fn open(bases: &[&str]) -> Stage {
        let symbols = bases.iter().map(|base| (*base).to_owned()).collect();
        let told = Told { now: BEGINNING, symbols, ..Told::default() };
        let told = Arc::new(Mutex::new(told));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stage = Stage { told, address };
        let router = Router::new()
            .route("/api/v3/exchangeInfo", get(listed))
            .route("/api/v3/depth", get(depth))
            .route("/stream", get(stream))
            .with_state(stage.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        stage
    }

    /// Its host and port.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap()
    }

    /// The venue as a driver connects to it.
    pub(crate) fn config(&self, bases: &[&str], kinds: &[Kind]) -> VenueConfig {
        let symbols = bases.iter().map(|base| format!("{base}-USDT")).collect();
        let (rest, ws) = (format!("http://{}", self.address), format!("ws://{}", self.address));
        let settings = Settings::new(symbols, kinds.to_vec());
        let config = VenueConfig::playback("BINANCE", settings, rest, ws).unwrap();
        VenueConfig { finite: false, ..config }
    }

    /// Lists another symbol.
    pub(crate) fn list(&self, base: &str) {
        self.told().symbols.push(base.to_owned());
    }

    /// Time passes.
    pub(crate) fn pass(&self, micros: i64) {
        self.told().now += micros;
    }

    pub(crate) fn now(&self) -> i64 {
        self.told().now
    }

    /// How many clients have come so far.
    pub(crate) fn came(&self) -> usize {
        self.told().clients.len()
    }

    /// The clients that are connected, by their number, with how many streams they have.
    pub(crate) fn connected(&self) -> Vec<(usize, usize)> {
        let told = self.told();
        let clients = told.clients.iter().enumerate();
        clients.filter_map(|(i, c)| Some((i, c.as_ref()?.streams.len()))).collect()
    }

    /// What clients asked for on their connections.
    pub(crate) fn heard(&self) -> Vec<String> {
        self.told().heard.iter().map(|(_, text)| text.clone()).collect()
    }

    /// When they asked for it.
    pub(crate) fn heard_at(&self) -> Vec<Instant> {
        self.told().heard.iter().map(|(at, _)| *at).collect()
    }

    fn say(&self, stream: Option<&str>, message: impl Fn() -> Message) {
        let mut told = self.told();
        let announcement = [ANNOUNCEMENT, told.now.to_string().as_bytes()].concat();
        for slot in &mut told.clients {
            let Some(client) = slot else { continue };
            if stream.is_none_or(|stream| client.streams.contains(stream)) {
                let time = client.outbox.try_send(Message::Ping(announcement.clone().into()));
                if time.and_then(|()| client.outbox.try_send(message())).is_err() {
                    *slot = None;
                }
            }
        }
    }

    /// A sign of life on every connection.
    pub(crate) fn pulse(&self) {
        self.say(None, || Message::Ping(Vec::new().into()));
    }

    fn event(&self, stream: &str, data: &Value) {
        let text = json!({"stream": stream, "data": data}).to_string();
        self.say(Some(stream), || Message::Text(text.clone().into()));
    }

    /// A trade; answers its id.
    pub(crate) fn trade(&self, base: &str) -> i64 {
        let (id, millis) = {
            let mut told = self.told();
            let last = told.trades.entry(base.to_owned()).or_default();
            *last += 1;
            (*last, told.now / 1_000)
        };
        let symbol = format!("{base}USDT");
        let data = json!({"e": "aggTrade", "E": millis, "s": symbol, "a": id, "p": "10", "q": "1",
            "f": id, "l": id, "T": millis, "m": false, "M": true});
        self.event(&format!("{}@aggTrade", symbol.to_lowercase()), &data);
        id
    }

    /// A change of a book, to which the bids' amount is the number of the update.
    pub(crate) fn change(&self, base: &str) {
        let (id, millis) = {
            let mut told = self.told();
            told.updates += 1;
            (told.updates, told.now / 1_000)
        };
        let symbol = format!("{base}USDT");
        let data = json!({"e": "depthUpdate", "E": millis, "s": symbol, "U": id, "u": id,
            "b": [["10", id.to_string()]], "a": []});
        self.event(&format!("{}@depth@100ms", symbol.to_lowercase()), &data);
    }

    /// Cuts every connection.
    pub(crate) fn cut(&self) {
        self.told().clients.iter_mut().for_each(|client| *client = None);
    }
}

async fn listed(State(stage): State<Stage>) -> impl IntoResponse {
    let told = stage.told();
    let symbols = told.symbols.iter().map(|base| {
        json!({"symbol": format!("{base}USDT"), "status": "TRADING", "baseAsset": base, "quoteAsset": "USDT"})
    });
    let body = json!({"symbols": symbols.collect::<Vec<_>>()}).to_string();
    ([(RECORDED_AT, told.now.to_string())], body)
}

async fn depth(
    State(stage): State<Stage>,
    Query(_): Query<HashMap<String, String>>,
) -> impl IntoResponse {
    let told = stage.told();
    let body = json!({"lastUpdateId": told.updates, "bids": [["10", (told.updates + 1).to_string()]], "asks": [["11", "1"]]});
    ([(RECORDED_AT, told.now.to_string())], body.to_string())
}

async fn stream(
    State(stage): State<Stage>,
    RawQuery(query): RawQuery,
    upgrade: WebSocketUpgrade,
) -> impl IntoResponse {
    let query = query.unwrap_or_default();
    let streams = query.strip_prefix("streams=").unwrap_or_default().split('/');
    let streams = streams.map(str::to_owned).collect();
    upgrade.on_upgrade(move |socket| serve(stage, streams, socket))
}

async fn serve(stage: Stage, streams: HashSet<String>, socket: WebSocket) {
    let (outbox, mut queue) = mpsc::channel(4_096);
    let answers = outbox.downgrade();
    let number = {
        let mut told = stage.told();
        told.clients.push(Some(Client { streams, outbox }));
        told.clients.len() - 1
    };
    let (mut sink, mut incoming) = socket.split();
    loop {
        tokio::select! {
            message = queue.recv() => match message {
                Some(message) => if sink.send(message).await.is_err() { break },
                None => return,
            },
            message = incoming.next() => match message {
                Some(Ok(Message::Text(text))) => {
                    let request: Value = serde_json::from_str(&text).unwrap();
                    stage.told().heard.push((Instant::now(), text.to_string()));
                    let answer = json!({"result": null, "id": request["id"]}).to_string();
                    if let Some(answers) = answers.upgrade() {
                        let _ = answers.send(Message::Text(answer.into())).await;
                    }
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
        }
    }
    stage.told().clients[number] = None;
}
