//! `tapeline feeds`: how good the feeds of running connectors are.

use anyhow::{Context as _, Result};
use clap::Args;
use serde_json::json;

use super::host::{clear, look};
use crate::config::Config;
use crate::feeds::{Feed, Feeds, ask};
use crate::venue::driver::{Clock as _, SystemClock};

/// Whom to ask, and how to show it.
#[derive(Debug, Args)]
pub struct FeedsArgs {
    /// Where connectors serve their metrics; `http.listen` of the configuration where none is named.
    #[arg(long, value_delimiter = ',')]
    pub url: Vec<String>,
    /// One JSON object (a line each time, with --watch).
    #[arg(long)]
    pub json: bool,
    /// Look again every two seconds, until stopped.
    #[arg(long)]
    pub watch: bool,
}

/// Prints the feeds, once or until a signal.
pub(super) async fn run(config: &Config, args: FeedsArgs) -> Result<()> {
    let clock = SystemClock::default();
    let urls = if args.url.is_empty() {
        let listen = config.http.listen.as_ref();
        let listen =
            listen.context("http.listen is none: name a connector's metrics with --url")?;
        vec![format!("http://{listen}/metrics")]
    } else {
        args.url
    };
    let FeedsArgs { json, watch, .. } = args;
    look(watch, async || {
        let now = clock.receive_time(None).unwrap_or_default();
        let Feeds { feeds, venues } = ask(&urls, now).await?;
        if json {
            println!("{}", json!({"time": now, "feeds": feeds, "venues": venues}));
            return Ok(());
        }
        if watch {
            clear(now);
        }
        print!("{}", table(&Feeds { feeds, venues }));
        Ok(())
    })
    .await
}

fn millis(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{:.1} ms", seconds * 1_000.0))
}

fn table(found: &Feeds) -> String {
    let mut out = format!(
        "{:<9} {:<24} {:<12} {:>12} {:>6} {:>8} {:>12} {:>12}\n",
        "venue", "symbol", "channel", "messages", "gaps", "resyncs", "last", "latency"
    );
    for feed in &found.feeds {
        let Feed { venue, symbol, channel, messages, gaps, resyncs, .. } = feed;
        let last = feed
            .stale_seconds
            .map_or_else(|| "never".to_owned(), |seconds| format!("{seconds:.1} s ago"));
        let latency = millis(feed.latency_seconds);
        out.push_str(&format!(
            "{venue:<9} {symbol:<24} {channel:<12} {messages:>12} {gaps:>6} {resyncs:>8} {last:>12} {latency:>12}\n"
        ));
    }
    for (venue, of) in &found.venues {
        let offset = millis(of.clock_offset_seconds);
        out.push_str(&format!(
            "{venue}: clock offset and shortest way {offset}, {} connections lost, {} messages not understood\n",
            of.disconnects, of.errors
        ));
    }
    if found.feeds.is_empty() {
        out.push_str("no connector serves feeds there\n");
    }
    out
}
