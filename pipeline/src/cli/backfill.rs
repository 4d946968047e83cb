//! `tapeline backfill`: filling holes from the venues' REST interfaces.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use tapeline_schemas::{Kind, Micros};
use tokio_util::sync::CancellationToken;

use crate::backfill::{KINDS, Line, Request, run as fill};
use crate::config::Config;
use crate::replay::parse_time;
use crate::venue::driver::{Clock, PlaybackClock, SystemClock};
use crate::wiring;

/// What to fill.
#[derive(Debug, Args)]
pub struct BackfillArgs {
    /// Every hole that nothing has filled (`tapeline gaps --open`). So it is without --from and --to, too.
    #[arg(long, conflicts_with_all = ["from", "to"])]
    pub gaps: bool,
    /// All that is missing from here (2024-01-02T03:04:05Z, or -2h), holes or not.
    #[arg(long, requires = "to", allow_hyphen_values = true)]
    pub from: Option<String>,
    /// Up to here.
    #[arg(long, requires = "from", allow_hyphen_values = true)]
    pub to: Option<String>,
    /// Of this venue only.
    #[arg(long)]
    pub venue: Option<String>,
    /// Of these symbols only.
    #[arg(long, value_delimiter = ',')]
    pub symbols: Vec<String>,
    /// Of these kinds only: trade, venue_candle.
    #[arg(long, value_delimiter = ',')]
    pub kinds: Vec<String>,
    /// The venues are a playback: take receive times from it.
    #[arg(long)]
    pub playback: bool,
    /// A JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// Fills it; fails where something may still be missing.
pub(super) async fn run(config: Config, args: BackfillArgs) -> Result<ExitCode> {
    let wall = SystemClock::default();
    let now = wall.receive_time(None).unwrap_or_default();
    let request = request(&args, now)?;
    let clock: Arc<dyn Clock> =
        if args.playback { Arc::new(PlaybackClock) } else { Arc::new(wall) };
    let context = wiring::Context::new(config, &CancellationToken::new()).await?;
    let (mut parts, mut left) = (0_usize, 0_usize);
    fill(&context, &request, clock, |line| {
        parts += 1;
        left += usize::from(line.doubt.is_some());
        if args.json {
            println!("{}", serde_json::to_string(&line)?);
        } else {
            println!("{}", text(&line));
        }
        Ok(())
    })
    .await?;
    if !args.json {
        println!("{parts} looked at, {left} of them left with something that may be missing");
    }
    Ok(super::code(left == 0))
}

fn request(args: &BackfillArgs, now: Micros) -> Result<Request> {
    let time = |text: &String| parse_time(text, now).map_err(anyhow::Error::msg);
    let range = match (&args.from, &args.to) {
        (Some(from), Some(to)) => {
            let (from, to) = (time(from).context("--from")?, time(to).context("--to")?);
            ensure!(from <= to, "--from {from} is after --to {to}");
            Some((from, to))
        }
        _ => None,
    };
    let mut kinds = Vec::new();
    for name in &args.kinds {
        match KINDS.into_iter().find(|kind: &Kind| kind.name() == name) {
            Some(kind) => kinds.push(kind),
            None => bail!("--kinds {name}: venues give the past of trade and venue_candle only"),
        }
    }
    if kinds.is_empty() {
        kinds = KINDS.to_vec();
    }
    Ok(Request { range, venue: args.venue.clone(), symbols: args.symbols.clone(), kinds })
}

fn text(line: &Line) -> String {
    let Line { venue, symbol, channel, from, to, counts, filled, stored, doubt } = line;
    let to = to.map_or_else(|| "open".to_owned(), |to| to.to_string());
    let end = match doubt {
        Some(doubt) => format!("STAYS: {doubt}"),
        None if *stored => format!("{filled} holes filled"),
        None => format!("{filled} holes filled, which the store has not taken yet"),
    };
    let (published, known) = (counts.published, counts.known);
    format!(
        "{venue} {symbol} {channel} {from} to {to}: {published} published, {known} known; {end}"
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: BackfillArgs,
    }

    #[test]
    fn what_is_to_be_filled_is_said_once_and_of_kinds_that_have_a_past() {
        let parse = |args: &[&str]| {
            let args = [&["backfill"][..], args].concat();
            let args = Cli::try_parse_from(args).map_err(|error| error.to_string())?.args;
            request(&args, Micros(0)).map_err(|error| format!("{error:#}"))
        };
        let all = parse(&[]).expect("everything");
        assert_eq!((all.range, all.kinds), (None, KINDS.to_vec()));
        let range = ["--from", "1970-01-01T00:00:01Z", "--to", "1970-01-01T00:00:02Z"];
        let range = parse(&range).expect("a range").range;
        assert_eq!(range, Some((Micros(1_000_000), Micros(2_000_000))));
        for wrong in [
            &["--from", "1970-01-01T00:00:01Z"][..],
            &["--gaps", "--from", "1970-01-01T00:00:01Z", "--to", "1970-01-01T00:00:02Z"],
            &["--from", "1970-01-01T00:00:03Z", "--to", "1970-01-01T00:00:02Z"],
            &["--from", "yesterday-ish", "--to", "1970-01-01T00:00:02Z"],
            &["--kinds", "ticker"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
