//! The quality of feeds, out of the metrics that connectors serve: one place for each figure, whoever asks.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use tapeline_schemas::Micros;

/// A feed: one kind of events of one symbol.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Feed {
    /// Venue, upper case.
    pub venue: String,
    /// `BASE-QUOTE`.
    pub symbol: String,
    /// Kind of events.
    pub channel: String,
    /// Messages with such an event.
    pub messages: u64,
    /// Holes opened.
    pub gaps: u64,
    /// Times the book was resynchronised.
    pub resyncs: u64,
    /// Seconds since the last message; none before the first.
    pub stale_seconds: Option<f64>,
    /// Venue time to receive time, smoothed over the last messages; none where the venue gives no time.
    pub latency_seconds: Option<f64>,
}

/// What is said of a venue as a whole.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct VenueFeeds {
    /// The smallest receive time less venue time of the last minute: our clock less the venue's, plus the shortest
    /// way; none in the first minute.
    pub clock_offset_seconds: Option<f64>,
    /// Connections lost.
    pub disconnects: u64,
    /// Messages that gave no event, for whatever reason.
    pub errors: u64,
}

/// All feeds of some connectors at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Feeds {
    /// By venue, symbol and channel.
    pub feeds: Vec<Feed>,
    /// By name.
    pub venues: BTreeMap<String, VenueFeeds>,
}

/// Asks running connectors, each at its `/metrics`.
pub async fn ask(urls: &[String], now: Micros) -> Result<Feeds> {
    let mut found = Found::default();
    for url in urls {
        let response = reqwest::get(url).await.with_context(|| {
            format!("no answer from {url}; name the connector's metrics with --url")
        })?;
        let status = response.status();
        ensure!(status.is_success(), "{url} answers {status}");
        found.read(&response.text().await.with_context(|| url.clone())?, now);
    }
    Ok(found.feeds())
}

#[derive(Debug, Default)]
struct Found {
    feeds: BTreeMap<(String, String, String), Feed>,
    resyncs: BTreeMap<(String, String), u64>,
    venues: BTreeMap<String, VenueFeeds>,
}

impl Found {
    /// Takes in what a connector serves. Figures of two connectors on the same feed add up; the newer message
    /// counts.
    fn read(&mut self, text: &str, now: Micros) {
        for sample in text.lines().filter_map(Sample::read) {
            let Some(name) = sample.name.strip_prefix("tapeline_feed_") else { continue };
            let label = |key: &str| sample.labels.get(key).cloned().unwrap_or_default();
            let (venue, symbol, channel) = (label("venue"), label("symbol"), label("channel"));
            let count = sample.value as u64;
            match name {
                "clock_offset_seconds" => {
                    self.venues.entry(venue).or_default().clock_offset_seconds = Some(sample.value);
                    continue;
                }
                "disconnects_total" => {
                    self.venues.entry(venue).or_default().disconnects += count;
                    continue;
                }
                "errors_total" => {
                    self.venues.entry(venue).or_default().errors += count;
                    continue;
                }
                "resyncs_total" => {
                    *self.resyncs.entry((venue, symbol)).or_default() += count;
                    continue;
                }
                _ if symbol.is_empty() => continue,
                _ => {}
            }
            self.venues.entry(venue.clone()).or_default();
            let feed = self.feeds.entry((venue, symbol, channel)).or_default();
            match name {
                "messages_total" => feed.messages += count,
                "gaps_total" => feed.gaps += count,
                "last_message_timestamp_seconds" => {
                    let stale = now.0 as f64 / 1e6 - sample.value;
                    feed.stale_seconds = Some(feed.stale_seconds.map_or(stale, |s| s.min(stale)));
                }
                "latency_smoothed_seconds" => feed.latency_seconds = Some(sample.value),
                _ => {}
            }
        }
    }

    fn feeds(self) -> Feeds {
        let resyncs = self.resyncs;
        let named = |((venue, symbol, channel), feed): (_, Feed)| {
            let of_book = channel == tapeline_schemas::Kind::Book.name();
            let key = (venue, symbol);
            let resyncs = resyncs.get(&key).copied().filter(|_| of_book).unwrap_or_default();
            let (venue, symbol) = key;
            Feed { venue, symbol, channel, resyncs, ..feed }
        };
        Feeds { feeds: self.feeds.into_iter().map(named).collect(), venues: self.venues }
    }
}

/// One line of Prometheus' text format, version 0.0.4
/// (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
#[derive(Debug, PartialEq)]
struct Sample<'a> {
    name: &'a str,
    labels: BTreeMap<&'a str, String>,
    value: f64,
}

impl<'a> Sample<'a> {
    /// None of a comment, or of what is no sample.
    fn read(line: &'a str) -> Option<Sample<'a>> {
        let end = line.find(['{', ' '])?;
        let (name, rest) = line.split_at_checked(end)?;
        if name.is_empty() || name.starts_with('#') {
            return None;
        }
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest)?,
            None => (BTreeMap::new(), rest),
        };
        let value = rest.split_whitespace().next()?.parse().ok()?;
        Some(Sample { name, labels, value })
    }
}

/// Labels up to the closing brace, and what follows it.
fn labels(mut text: &str) -> Option<(BTreeMap<&str, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        text = text.trim_start_matches([',', ' ']);
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (key, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = rest.char_indices();
        loop {
            match chars.next()? {
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (at, '"') => {
                    text = rest.get(at + 1..)?;
                    break;
                }
                (_, other) => value.push(other),
            }
        }
        labels.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_connectors_are_read_as_they_are_served_and_added_up() {
        let text = r#"# TYPE tapeline_feed_messages_total counter
tapeline_feed_messages_total{venue="KRAKEN",channel="book",symbol="BTC-USD"} 7
tapeline_feed_gaps_total{venue="KRAKEN",channel="book",symbol="BTC-USD"} 2
tapeline_feed_last_message_timestamp_seconds{venue="KRAKEN",channel="book",symbol="BTC-USD"} 100.5
tapeline_feed_latency_smoothed_seconds{venue="KRAKEN",channel="book",symbol="BTC-USD"} 0.025
tapeline_feed_latency_seconds_bucket{venue="KRAKEN",channel="book",le="0.1"} 3
tapeline_feed_resyncs_total{venue="KRAKEN",symbol="BTC-USD"} 1
tapeline_feed_clock_offset_seconds{venue="KRAKEN"} -0.004
tapeline_feed_messages_total{venue="KRAKEN",channel="trade",symbol="BTC-USD"} 0
tapeline_feed_disconnects_total{venue="KRAKEN"} 3
tapeline_feed_errors_total{venue="KRAKEN",reason="a \"quoted\\\n} one"} 4
other_metric 1
broken{a="
"#;
        let mut found = Found::default();
        let now = Micros(102_000_000);
        found.read(text, now);
        found.read(&text.replace(" 100.5", " 101.5"), now);
        let Feeds { feeds, venues } = found.feeds();
        let book = Feed {
            venue: "KRAKEN".to_owned(),
            symbol: "BTC-USD".to_owned(),
            channel: "book".to_owned(),
            messages: 14,
            gaps: 4,
            resyncs: 2,
            stale_seconds: Some(0.5),
            latency_seconds: Some(0.025),
        };
        let quiet = Feed {
            channel: "trade".to_owned(),
            messages: 0,
            gaps: 0,
            resyncs: 0,
            stale_seconds: None,
            latency_seconds: None,
            ..book.clone()
        };
        assert_eq!(feeds, [book, quiet]);
        let kraken = VenueFeeds { clock_offset_seconds: Some(-0.004), disconnects: 6, errors: 8 };
        assert_eq!(venues, BTreeMap::from([("KRAKEN".to_owned(), kraken)]));
    }
}
