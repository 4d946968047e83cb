//! The figures of recordings, read by another way than the connectors': cut out of the text.

use std::collections::BTreeMap;

use tapeline::playback::Recording;
use tapeline_schemas::{Micros, Money};

/// Figures and receive times, by kind.
pub(crate) type Figures = BTreeMap<&'static str, Vec<(String, Micros)>>;

/// What a message tells where it contains the first text: a kind of events, and the keys of figures in each of
/// the parts that the second text begins.
type Rule = (&'static str, &'static str, &'static str, &'static [&'static str]);

const RULES: [Rule; 14] = [
    ("@aggTrade\"", "trade", "\"data\":", &["\"p\":", "\"q\":"]),
    ("@bookTicker\"", "ticker", "\"data\":", &["\"b\":", "\"a\":"]),
    ("@kline_", "candle", "\"k\":", &["\"o\":", "\"h\":", "\"l\":", "\"c\":", "\"v\":", "\"q\":"]),
    ("\"ty\":\"trade\"", "trade", "{", &["\"tp\":", "\"tv\":"]),
    (",\"ticker\",\"", "ticker", "{", &["\"b\":[", "\"a\":["]),
    ("\"type\":\"match\"", "trade", "{", &["\"price\":", "\"size\":"]),
    ("\"type\":\"last_match\"", "trade", "{", &["\"price\":", "\"size\":"]),
    ("\"type\":\"ticker\",\"seq", "ticker", "{", &["\"best_bid\":", "\"best_ask\":"]),
    ("\"channel\":\"trades\",\"instId\":", "trade", "\"tradeId\":", &["\"px\":", "\"sz\":"]),
    ("\"channel\":\"tickers\",\"instId\":", "ticker", "\"last\":", &["\"bidPx\":", "\"askPx\":"]),
    ("\"channel\":\"trades.", "trade", "\"trade_seq\":", &["\"price\":", "\"amount\":"]),
    ("\"channel\":\"ticker.", "ticker", "\"data\":", &["best_bid_price\":", "best_ask_price\":"]),
    (
        "\"channel\":\"ticker.",
        "option",
        "\"data\":",
        &["mark_iv\":", "delta\":", "gamma\":", "theta\":", "vega\":", "open_interest\":"],
    ),
    (
        "\"type\":\"transaction\",\"content\"",
        "trade",
        "\"buySellGb\":",
        &["\"contPrice\":", "\"contQty\":"],
    ),
];

/// What a recording holds, in order of receive times.
pub(crate) fn recorded_figures(recording: &Recording) -> Figures {
    let mut out = Figures::new();
    let frames = recording.connections.iter().flat_map(|connection| &connection.frames);
    for frame in frames {
        let text = String::from_utf8(frame.payload.as_bytes().to_vec()).expect("as recorded");
        for (mark, kind, begin, keys) in RULES.iter().filter(|rule| text.contains(rule.0)) {
            // Confirmations of subscriptions look alike and have no such part.
            let parts = text.split(mark).nth(1).map(|_| text.split(begin).skip(1));
            let parts: Vec<&str> = parts.into_iter().flatten().collect();
            let whole = *begin == "{";
            let parts = if whole { vec![text.as_str()] } else { parts };
            for part in parts {
                let figures: Vec<String> = keys.iter().map(|key| after(part, key)).collect();
                out.entry(kind).or_default().push((figures.join(" "), frame.time));
            }
        }
        if text.contains(",\"trade\",\"") {
            let inner = text
                .split_once(",[[")
                .expect("as recorded")
                .1
                .split_once("]],")
                .expect("as recorded")
                .0;
            for row in inner.split("],[") {
                let mut fields = row.split(',').map(|field| plain(field.trim_matches('"')));
                let figures =
                    [fields.next().expect("as recorded"), fields.next().expect("as recorded")];
                out.entry("trade").or_default().push((figures.join(" "), frame.time));
            }
        }
    }
    for list in out.values_mut() {
        list.sort_by_key(|(_, time)| *time);
    }
    out
}

fn after(text: &str, key: &str) -> String {
    let rest = text.split_once(key).expect("as recorded").1.trim_start_matches('"');
    plain(rest.split(['"', ',', '}', ']']).next().expect("as recorded"))
}

/// The text of a decimal number without the zeros that say nothing.
pub(crate) fn plain(text: &str) -> String {
    if text.contains(['e', 'E']) {
        let money: Money = text.parse().expect("a number");
        return money.to_string();
    }
    if !text.contains('.') {
        return text.to_owned();
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
