//! Which recorded frames a client gets: those of the channels and symbols it subscribed to.

use std::collections::HashSet;

use serde_json::{Value, json};

/// What a frame is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Topic {
    /// The connection as a whole: status, heartbeats.
    Connection,
    /// One channel, or channel and symbol, in the venue's terms.
    Channel(String),
}

/// A venue's way to subscribe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Streams are named in the address.
    Binance,
    /// Messages name channel and pairs.
    Kraken,
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
            "KRAKEN" => Some(Protocol::Kraken),
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
        let Ok(message) = serde_json::from_str::<Value>(text) else {
            return self.refusal("message is not JSON");
        };
        match self {
            Protocol::Binance => Change::default(),
            Protocol::Kraken => kraken(&message),
            Protocol::Upbit => upbit(&message),
        }
    }

    fn refusal(self, why: &str) -> Change {
        let reply = match self {
            Protocol::Binance => json!({"error": {"code": 2, "msg": why}}),
            Protocol::Kraken => json!({"event": "error", "errorMessage": why}),
            Protocol::Upbit => json!({"error": {"name": "WRONG_FORMAT", "message": why}}),
        };
        Change { replies: vec![reply.to_string()], ..Change::default() }
    }

    /// The answer to a REST request that was not recorded.
    pub(super) fn not_found(self) -> String {
        match self {
            Protocol::Binance => json!({"code": -1121, "msg": "Invalid symbol."}),
            Protocol::Kraken => json!({"error": ["EQuery:Unknown asset pair"]}),
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
        };
        channel.map_or(Topic::Connection, Topic::Channel)
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
            Topic::Channel(channel) => self.channels.contains(channel),
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
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_what_it_subscribed_to_in_its_venues_way() {
        let binance = Protocol::Binance;
        assert_eq!(binance.in_address("streams=a@aggTrade/b@depth@100ms").len(), 2);
        let depth = binance.topic(br#"{"stream":"b@depth@100ms","data":{}}"#);
        assert_eq!(depth, Topic::Channel("b@depth@100ms".to_owned()));

        let kraken = Protocol::Kraken;
        let change = kraken.message(
            r#"{"event":"subscribe","pair":["XBT/USD"],"subscription":{"name":"book","depth":1000}}"#,
        );
        let mut subscriptions = Subscriptions::default();
        subscriptions.apply(&change);
        for (frame, wanted) in [
            (r#"[1,{"b":[]},"book-1000","XBT/USD"]"#, true),
            (r#"[1,{"a":[]},{"b":[]},"book-1000","XBT/USD"]"#, true),
            (r#"[1,{"b":[]},"book-10","XBT/USD"]"#, false),
            (r#"[1,[],"trade","XBT/USD"]"#, false),
            (r#"{"event":"heartbeat"}"#, true),
            (r#"{"channelName":"trade","event":"subscriptionStatus","pair":"XBT/USD"}"#, false),
        ] {
            assert_eq!(subscriptions.wants(&kraken.topic(frame.as_bytes())), wanted, "{frame}");
        }

        let upbit = Protocol::Upbit;
        let change = upbit.message(r#"[{"ticket":"x"},{"type":"trade","codes":["KRW-BTC"]}]"#);
        assert_eq!(change.add, ["trade KRW-BTC"]);
        let topic = upbit.topic(br#"{"ty":"trade","cd":"KRW-BTC"}"#);
        assert_eq!(topic, Topic::Channel("trade KRW-BTC".to_owned()));
    }

    #[test]
    fn nonsense_is_answered_as_the_venue_would() {
        for protocol in [Protocol::Binance, Protocol::Kraken, Protocol::Upbit] {
            assert_eq!(protocol.message("{").replies.len(), 1);
            assert!(serde_json::from_str::<Value>(&protocol.not_found()).is_ok());
        }
        assert_eq!(Protocol::Kraken.message("{}").replies.len(), 1);
        assert_eq!(Protocol::Upbit.message("[]").replies.len(), 1);
    }
}
