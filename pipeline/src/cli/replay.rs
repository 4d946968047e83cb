//! `tapeline replay`: what is asked for, and what is said about it.

use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Result, bail, ensure};
use clap::{Args, Subcommand};

use super::host::stopped_by_signal;
use crate::config::Config;
use crate::database::reader;
use crate::migrate;
use crate::replay::{self, DifferenceReport, Offset, Part, Place, Request, Target, Terminal};
use crate::venue::driver::{Clock as _, SystemClock};
use crate::wiring::Context;

/// What to replay, and where to.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ReplayArgs {
    /// Replays that are there already.
    #[command(subcommand)]
    pub action: Option<ReplayAction>,
    /// Kinds (`trade`) or topics (`md.trade`); several may be named.
    #[arg(long = "topic", value_delimiter = ',')]
    pub topics: Vec<String>,
    /// Where to begin, as kcat says it: beginning, end, N, -N (before the end), `s@<ms>`; `e@<ms>` says where to end.
    #[arg(long, short = 'o', allow_hyphen_values = true, conflicts_with = "from")]
    pub from_offset: Vec<Offset>,
    /// Begin with what was appended at this time or later: RFC 3339, or a time ago (`-2h`).
    #[arg(long, allow_hyphen_values = true, value_name = "TIME")]
    pub from: Option<String>,
    /// Only events of this time or later, by the venue's clock.
    #[arg(long, allow_hyphen_values = true, value_name = "TIME")]
    pub from_event_time: Option<String>,
    /// Where to end; this offset is not read.
    #[arg(long, allow_hyphen_values = true, conflicts_with = "to")]
    pub to_offset: Option<Offset>,
    /// End before what was appended at this time.
    #[arg(long, allow_hyphen_values = true, value_name = "TIME")]
    pub to: Option<String>,
    /// store, shadow:NAME or topic:NAME.
    #[arg(long)]
    pub into: Option<Target>,
    /// Only these partitions.
    #[arg(long = "partition", value_delimiter = ',')]
    pub only_partitions: Vec<i32>,
    /// Partitions of the topic that is created.
    #[arg(long)]
    pub partitions: Option<i32>,
    /// `N` times as fast as the records were appended, or `max`.
    #[arg(long, default_value = "max")]
    pub speed: Speed,
    /// Only these symbols: `BTC-USD`, or `KRAKEN:BTC-USD`.
    #[arg(long, value_delimiter = ',')]
    pub symbols: Vec<String>,
    /// Read raw records and judge them anew; into a shadow alone.
    #[arg(long)]
    pub revalidate: bool,
    /// Say what would be read, and touch nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Name of the replay; one is given to it otherwise. A shadow's is its own.
    #[arg(long, value_parser = name)]
    pub name: Option<String>,
    /// Go on with a replay that was stopped: with the only one, or with this one.
    #[arg(long, num_args = 0..=1, default_missing_value = "", value_name = "NAME",
        conflicts_with_all = ["topics", "from_offset", "from", "into", "dry_run"])]
    pub resume: Option<String>,
    /// Print as JSON.
    #[arg(long)]
    pub json: bool,
}

/// What to do with replays that are there.
#[derive(Debug, Subcommand)]
pub enum ReplayAction {
    /// Compare a finished shadow with the live tables again; exit 1 where they differ.
    Diff {
        /// Name of the shadow.
        name: String,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make the rows of a finished shadow the live ones of its range.
    Promote {
        /// Name of the shadow.
        name: String,
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove a shadow, or forget a replay that was stopped.
    Drop {
        /// Its name.
        name: String,
    },
    /// Say how each stands.
    List {
        /// Print as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// How fast.
#[derive(Debug, Clone, Copy)]
pub struct Speed(Option<f64>);

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Speed, String> {
        if text == "max" {
            return Ok(Speed(None));
        }
        let speed = text.parse::<f64>().ok().filter(|speed| speed.is_finite() && *speed > 0.0);
        speed
            .map(|speed| Speed(Some(speed)))
            .ok_or_else(|| format!("`{text}` is no speed: a number above 0, or max"))
    }
}

fn name(text: &str) -> Result<String, String> {
    replay::check_name(text).map(|()| text.to_owned())
}

impl ReplayArgs {
    fn request(&self) -> Result<Request> {
        let Some(into) = self.into.clone() else {
            bail!("say where to: --into store, --into shadow:NAME or --into topic:NAME")
        };
        // Times ago are counted from now.
        let now = SystemClock::default().receive_time(None).unwrap_or_default();
        let time = |text: &String| replay::parse_time(text, now).map_err(anyhow::Error::msg);
        let appended = |text: &String| {
            Ok::<_, anyhow::Error>(Place::Appended(time(text)?.0.div_euclid(1_000)))
        };
        let (mut begins, mut ends) = (Vec::new(), Vec::new());
        for offset in &self.from_offset {
            match *offset {
                Offset::Place(place) => begins.push(place),
                Offset::Ends(place) => ends.push(place),
            }
        }
        if let Some(text) = &self.from {
            begins.push(appended(text)?);
        }
        if let Some(Offset::Place(place) | Offset::Ends(place)) = self.to_offset {
            ends.push(place);
        }
        if let Some(text) = &self.to {
            ends.push(appended(text)?);
        }
        if begins.is_empty() && self.from_event_time.is_some() {
            begins.push(Place::Beginning);
        }
        ensure!(
            begins.len() == 1,
            "say where to begin, once: --from-offset (-o), --from or --from-event-time"
        );
        ensure!(ends.len() < 2, "say where to end once: --to-offset, --to or -o e@<ms>");
        Ok(Request {
            topics: self.topics.clone(),
            from: begins[0],
            to: ends.first().copied().unwrap_or(Place::End),
            from_event_time: self.from_event_time.as_ref().map(time).transpose()?.map(|t| t.0),
            into,
            partitions: self.only_partitions.clone(),
            new_partitions: self.partitions,
            speed: self.speed.0,
            symbols: self.symbols.clone(),
            revalidate: self.revalidate,
        })
    }
}

/// Runs the command.
pub(super) async fn run(config: Config, args: ReplayArgs) -> Result<ExitCode> {
    if let Some(action) = &args.action {
        return manage(config, action).await;
    }
    let shutdown = stopped_by_signal()?;
    let mut reporter = Terminal::default();
    let (context, ended) = if let Some(name) = &args.resume {
        let context = Context::new(config, &shutdown).await?;
        let name = Some(name.as_str()).filter(|name| !name.is_empty());
        let ended = replay::resume(&context, name, &mut reporter, shutdown).await?;
        (context, ended)
    } else {
        let request = args.request()?;
        request.check()?;
        let context = Context::new(config, &shutdown).await?;
        if args.dry_run {
            print_parts(&replay::preview(&context, &request).await?, args.json)?;
            return Ok(ExitCode::SUCCESS);
        }
        let name = args.name.as_deref();
        let ended = replay::start(&context, request, name, &mut reporter, shutdown).await?;
        (context, ended)
    };
    if !ended.complete {
        eprintln!("replay {0} was stopped: `tapeline replay --resume {0}` goes on", ended.name);
        return Ok(ExitCode::from(130));
    }
    eprintln!("replay {} is done", ended.name);
    if ended.is_shadow {
        print_report(&replay::differences(&context, &ended.name).await?, args.json)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print_report(report: &DifferenceReport, json: bool) -> Result<ExitCode> {
    if json {
        println!("{}", serde_json::to_string_pretty(report)?);
    } else {
        println!("{report}");
    }
    Ok(super::code(report.is_equal()))
}

fn print_parts(parts: &[Part], json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(parts)?);
        return Ok(());
    }
    for part in parts {
        let Part { topic, partition, from, to, .. } = part;
        println!("{topic} [{partition}] from {from} to {to}: {}", part.count());
    }
    println!("{} offsets", parts.iter().map(Part::count).sum::<i64>());
    Ok(())
}

async fn manage(config: Config, action: &ReplayAction) -> Result<ExitCode> {
    if let ReplayAction::List { json } = action {
        return list(&config, *json).await;
    }
    let context = Context::new(config, &stopped_by_signal()?).await?;
    match action {
        ReplayAction::Diff { name, json } => {
            print_report(&replay::differences(&context, name).await?, *json)
        }
        ReplayAction::Promote { name, json } => {
            print_report(&replay::promote(&context, name).await?, *json)
        }
        ReplayAction::Drop { name } => {
            replay::remove(&context, name).await?;
            Ok(ExitCode::SUCCESS)
        }
        ReplayAction::List { .. } => Ok(ExitCode::SUCCESS),
    }
}

async fn list(config: &Config, json: bool) -> Result<ExitCode> {
    let mut database = reader(&config.database).await?;
    migrate::check(&mut database).await?;
    let entries = replay::list(&mut database, &config.pipeline.id).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&entries)?);
        return Ok(ExitCode::SUCCESS);
    }
    for entry in entries {
        let Request { topics, from, to, into, .. } = &entry.settings;
        let (name, state, step) = (&entry.name, &entry.state, entry.step + 1);
        print!("{name}: {} from {from} to {to} into {into}, {state}", topics.join(","));
        let left: i64 = entry.positions.iter().map(|part| part.to - part.next).sum();
        println!(
            "{}",
            if left > 0 { format!(", {left} offsets left of step {step}") } else { String::new() }
        );
    }
    Ok(ExitCode::SUCCESS)
}
