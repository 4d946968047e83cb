//! Which recorded frames a client gets: those of the channels and symbols it subscribed to.

use std::collections::HashSet;

use serde_json::{Value, json};

/// What a frame is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Topic {
    /// The connection as a whole: status, heartbeats.
    Connection,
    /// Channels, or channels and symbols, in the venue's terms.
    Channels(Vec<String>),
}

/// A venue's way to subscribe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Streams are named in the address.
    Binance,
    /// A message names one type and its symbols, once a connection.
    Bithumb,
    /// Messages name channels and products.
    Coinbase,
    /// JSON-RPC that lists channels.
    Deribit,
    /// Messages name channel and pairs.
    Kraken,
    /// Messages list pairs of channel and instrument.
    Okx,
    /// A message lists types with their codes.
    Upbit,
}

/// What a client's message changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) add: Vec<String>,
    pub(super) remove: Vec<String>,
    /// What the venue answers at once.
    pub(super) replies: Vec<String>,
}

impl Protocol {
    pub(super) fn of(venue: &str) -> Option<Protocol> {
        match venue {
            "BINANCE" => Some(Protocol::Binance),
            "BITHUMB" => Some(Protocol::Bithumb),
            "COINBASE" => Some(Protocol::Coinbase),
            "DERIBIT" => Some(Protocol::Deribit),
            "KRAKEN" => Some(Protocol::Kraken),
            "OKX" => Some(Protocol::Okx),
            "UPBIT" => Some(Protocol::Upbit),
            _ => None,
        }
    }

    /// Channels that are subscribed by the address of the connection.
    pub(super) fn in_address(self, query: &str) -> Vec<String> {
        if self != Protocol::Binance {
            return Vec::new();
        }
        let streams = query.split('&').find_map(|part| part.strip_prefix("streams="));
        streams.map_or_else(Vec::new, |s| s.split('/').map(str::to_owned).collect())
    }

    /// What a client's message asks for.
    pub(super) fn message(self, text: &str) -> Change {
        if self == Protocol::Okx && text == "ping" {
            return Change { replies: vec!["pong".to_owned()], ..Change::default() };
        }
        let Ok(message) = serde_json::from_str::<Value>(text) else {
            return self.refusal("message is not JSON");
        };
        match self {
            Protocol::Binance => Change::default(),
            Protocol::Bithumb => bithumb(&message),
            Protocol::Coinbase => coinbase(&message),
            Protocol::Deribit => deribit(&message),
            Protocol::Kraken => kraken(&message),
            Protocol::Okx => okx(&message),
            Protocol::Upbit => upbit(&message),
        }
    }

    fn refusal(self, why: &str) -> Change {
        let reply = match self {
            Protocol::Binance => json!({"error": {"code": 2, "msg": why}}),
            Protocol::Bithumb => json!({"status": "5100", "resmsg": why}),
            Protocol::Coinbase => json!({"type": "error", "message": why}),
            Protocol::Deribit => {
                json!({"jsonrpc": "2.0", "error": {"code": -32600, "message": why}})
            }
            Protocol::Kraken => json!({"event": "error", "errorMessage": why}),
            Protocol::Okx => json!({"event": "error", "code": "60012", "msg": why}),
            Protocol::Upbit => json!({"error": {"name": "WRONG_FORMAT", "message": why}}),
        };
        Change { replies: vec![reply.to_string()], ..Change::default() }
    }

    /// The answer to a REST request that was not recorded.
    pub(super) fn not_found(self) -> String {
        match self {
            Protocol::Binance => json!({"code": -1121, "msg": "Invalid symbol."}),
            Protocol::Bithumb => json!({"status": "5500", "message": "Invalid Parameter"}),
            Protocol::Coinbase => json!({"message": "NotFound"}),
            Protocol::Deribit => json!({"error": {"code": -32602, "message": "Invalid params"}}),
            Protocol::Kraken => json!({"error": ["EQuery:Unknown asset pair"]}),
            Protocol::Okx => json!({"code": "51000", "msg": "Parameter error", "data": []}),
            Protocol::Upbit => json!({"error": {"name": 404, "message": "Code not found"}}),
        }
        .to_string()
    }

    /// What a recorded frame is about.
    pub(super) fn topic(self, frame: &[u8]) -> Topic {
        let Ok(message) = serde_json::from_slice::<Value>(frame) else { return Topic::Connection };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let channel = match self {
            Protocol::Binance => message.get("stream").and_then(text),
            Protocol::Upbit => pair_of(message.get("ty"), message.get("cd")),
            Protocol::Kraken => match message.as_array().map(Vec::as_slice) {
                Some([.., channel, pair]) => pair_of(Some(channel), Some(pair)),
                _ => pair_of(message.get("channelName"), message.get("pair")),
            },
            Protocol::Okx => message.get("arg").and_then(okx_arg),
            Protocol::Coinbase => coinbase_topic(&message),
            Protocol::Deribit => {
                let channel = message.get("params").and_then(|params| params.get("channel"));
                channel.and_then(Value::as_str).map(deribit_channel)
            }
            // One message may speak of several symbols.
            Protocol::Bithumb => return bithumb_topic(&message),
        };
        channel.map_or(Topic::Connection, |channel| Topic::Channels(vec![channel]))
    }
}

fn pair_of(channel: Option<&Value>, symbol: Option<&Value>) -> Option<String> {
    Some(format!("{} {}", channel?.as_str()?, symbol?.as_str()?))
}

fn texts(list: Option<&Value>) -> impl Iterator<Item = &str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn kraken(message: &Value) -> Change {
    let mut change = Change::default();
    let subscription = message.get("subscription");
    let name = subscription.and_then(|s| s.get("name")).and_then(Value::as_str).unwrap_or_default();
    let setting = |key: &str, default: u64| {
        subscription.and_then(|s| s.get(key)).and_then(Value::as_u64).unwrap_or(default)
    };
    let channel = match name {
        "book" => format!("book-{}", setting("depth", 10)),
        "ohlc" => format!("ohlc-{}", setting("interval", 1)),
        other => other.to_owned(),
    };
    let topics = texts(message.get("pair")).map(|pair| format!("{channel} {pair}"));
    match message.get("event").and_then(Value::as_str) {
        Some("subscribe") => change.add = topics.collect(),
        Some("unsubscribe") => change.remove = topics.collect(),
        Some("ping") => change.replies = vec![json!({"event": "pong"}).to_string()],
        _ => return Protocol::Kraken.refusal("Unsupported event"),
    }
    change
}

fn upbit(message: &Value) -> Change {
    let mut change = Change::default();
    for part in message.as_array().into_iter().flatten() {
        if let Some(kind) = part.get("type").and_then(Value::as_str) {
            change.add.extend(texts(part.get("codes")).map(|code| format!("{kind} {code}")));
        }
    }
    if change.add.is_empty() {
        return Protocol::Upbit.refusal("no type with codes");
    }
    change
}

fn bithumb(message: &Value) -> Change {
    let Some(kind) = message.get("type").and_then(Value::as_str) else {
        return Protocol::Bithumb.refusal("Invalid Filter Syntax");
    };
    let add = texts(message.get("symbols")).map(|symbol| format!("{kind} {symbol}")).collect();
    Change { add, ..Change::default() }
}

fn bithumb_topic(message: &Value) -> Topic {
    let (Some(kind), Some(content)) =
        (message.get("type").and_then(Value::as_str), message.get("content"))
    else {
        return Topic::Connection;
    };
    let rows = content.get("list").and_then(Value::as_array).into_iter().flatten();
    let symbols = rows.chain([content]).filter_map(|row| row.get("symbol")?.as_str());
    Topic::Channels(symbols.map(|symbol| format!("{kind} {symbol}")).collect())
}

/// `level2` and its batches are one here: a recording has either.
fn coinbase_channel(name: &str) -> &str {
    if name == "level2_batch" { "level2" } else { name }
}

fn coinbase(message: &Value) -> Change {
    let channels: Vec<&str> = texts(message.get("channels")).map(coinbase_channel).collect();
    let products: Vec<&str> = texts(message.get("product_ids")).collect();
    let both = channels.iter().flat_map(|c| products.iter().map(move |p| format!("{c} {p}")));
    match message.get("type").and_then(Value::as_str) {
        Some("subscribe") => Change { add: both.collect(), ..Change::default() },
        Some("unsubscribe") => Change { remove: both.collect(), ..Change::default() },
        _ => Protocol::Coinbase.refusal("Type has to be either subscribe or unsubscribe"),
    }
}

fn coinbase_topic(message: &Value) -> Option<String> {
    let channel = match message.get("type")?.as_str()? {
        "match" | "last_match" => "matches",
        "snapshot" | "l2update" => "level2",
        other => other,
    };
    Some(format!("{channel} {}", message.get("product_id")?.as_str()?))
}

/// Without the interval: a recording has only one.
fn deribit_channel(name: &str) -> String {
    name.rsplit_once('.').map_or(name, |(channel, _)| channel).to_owned()
}

fn deribit(message: &Value) -> Change {
    let channels = || {
        let channels = message.get("params").and_then(|params| params.get("channels"));
        texts(channels).map(deribit_channel).collect()
    };
    match message.get("method").and_then(Value::as_str) {
        Some("public/subscribe") => Change { add: channels(), ..Change::default() },
        Some("public/unsubscribe") => Change { remove: channels(), ..Change::default() },
        Some("public/test") => {
            let id = message.get("id").cloned().unwrap_or_default();
            let reply = json!({"jsonrpc": "2.0", "id": id, "result": {"version": "playback"}});
            Change { replies: vec![reply.to_string()], ..Change::default() }
        }
        _ => Protocol::Deribit.refusal("Method not found"),
    }
}

fn okx_arg(arg: &Value) -> Option<String> {
    pair_of(arg.get("channel"), arg.get("instId"))
}

fn okx(message: &Value) -> Change {
    let args = message.get("args").and_then(Value::as_array).into_iter().flatten();
    let channels = args.filter_map(okx_arg);
    match message.get("op").and_then(Value::as_str) {
        Some("subscribe") => Change { add: channels.collect(), ..Change::default() },
        Some("unsubscribe") => Change { remove: channels.collect(), ..Change::default() },
        _ => Protocol::Okx.refusal("Invalid request"),
    }
}

/// What one client is subscribed to.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    channels: HashSet<String>,
}

impl Subscriptions {
    pub(super) fn apply(&mut self, change: &Change) {
        for channel in &change.remove {
            self.channels.remove(channel);
        }
        self.channels.extend(change.add.iter().cloned());
    }

    pub(super) fn wants(&self, topic: &Topic) -> bool {
        match topic {
            Topic::Connection => true,
            Topic::Channels(channels) => channels.iter().any(|c| self.channels.contains(c)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// Whether the client asked for this very channel.
    pub(super) fn names(&self, channel: &str) -> bool {
        self.channels.contains(channel)
    }
}

#[cfg(test)]
mod tests;
