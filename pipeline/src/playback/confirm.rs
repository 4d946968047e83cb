//! How venues confirm a subscription that comes in the middle of the tape; at its beginning the recording has its own.

use serde_json::{Value, json};

use super::filter::Protocol;

/// What the venue says to the client's `message`, which added `channels`.
pub(super) fn confirmations(protocol: Protocol, message: &str, channels: &[String]) -> Vec<String> {
    if channels.is_empty() {
        return Vec::new();
    }
    let split = |channel: &String| {
        let (kind, name) = channel.split_once(' ').unwrap_or((channel, ""));
        (kind.to_owned(), name.to_owned())
    };
    let replies: Vec<Value> = match protocol {
        // Neither answers a good one.
        Protocol::Binance | Protocol::Upbit => Vec::new(),
        Protocol::Bithumb => {
            vec![json!({"status": "0000", "resmsg": "Filter Registered Successfully"})]
        }
        Protocol::Coinbase => {
            let of = channels.iter().map(split);
            let of = of.map(|(kind, product)| json!({"name": kind, "product_ids": [product]}));
            vec![json!({"type": "subscriptions", "channels": of.collect::<Vec<_>>()})]
        }
        Protocol::Deribit => {
            let message: Value = serde_json::from_str(message).unwrap_or_default();
            let result = &message["params"]["channels"];
            vec![json!({"jsonrpc": "2.0", "id": message["id"], "result": result})]
        }
        Protocol::Kraken => channels.iter().map(split).map(kraken).collect(),
        Protocol::Okx => channels
            .iter()
            .map(split)
            .map(|(kind, name)| {
                json!({"event": "subscribe", "arg": {"channel": kind, "instId": name}})
            })
            .collect(),
    };
    replies.iter().map(Value::to_string).collect()
}

fn kraken((channel, pair): (String, String)) -> Value {
    let (name, setting) = channel.split_once('-').unwrap_or((&channel, ""));
    let mut subscription = json!({"name": name});
    if let Ok(setting) = setting.parse::<u64>() {
        let key = if name == "book" { "depth" } else { "interval" };
        subscription[key] = json!(setting);
    }
    json!({
        "channelID": 0, "channelName": channel, "event": "subscriptionStatus",
        "pair": pair, "status": "subscribed", "subscription": subscription,
    })
}
