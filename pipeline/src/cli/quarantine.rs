//! `tapeline quarantine`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::code;
use super::host::stopped_by_signal;
use crate::config::Config;
use crate::quarantine::{
    Entry, Filter, Kept, Place, RetryOptions, discard, find, json_line, kept, list, retry,
    write_files,
};
use crate::venue::driver::{Clock as _, SystemClock};
use crate::wiring::Context;

/// Bytes of a key, value or header that `show` prints.
const SHOWN_BYTES: usize = 1_024;

/// What to do with records in quarantine.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// List them, oldest first, with counts by reason.
    List {
        #[command(flatten)]
        chosen: Chosen,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Show one: why, and all it was made of.
    Show {
        /// `TOPIC/PARTITION/OFFSET` where it was read, or `PARTITION:OFFSET` in quarantine.
        record: String,
        /// One line of JSON, as in an export.
        #[arg(long)]
        json: bool,
    },
    /// Write them out with every byte they had.
    Export {
        #[command(flatten)]
        chosen: Chosen,
        /// Where to: a file of JSON lines (standard output where not given), or a directory.
        #[arg(long, value_name = "PATH")]
        to: Option<PathBuf>,
        /// As JSON lines, or as files with the bytes themselves.
        #[arg(long, value_enum, default_value_t = Format::Json)]
        format: Format,
    },
    /// Send them through validate again; exit 1 where one could not be sent.
    Retry {
        #[command(flatten)]
        chosen: Chosen,
        /// Also those that were sent again or discarded before.
        #[arg(long)]
        again: bool,
        /// Only say which.
        #[arg(long)]
        dry_run: bool,
        /// One JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Mark them as dealt with otherwise. Nothing is deleted before its time.
    Discard {
        #[command(flatten)]
        chosen: Chosen,
        /// Why.
        #[arg(long)]
        why: String,
    },
}

/// Which records.
#[derive(Debug, Args)]
pub struct Chosen {
    /// These: `TOPIC/PARTITION/OFFSET` where they were read.
    #[arg(value_name = "RECORD")]
    places: Vec<Place>,
    /// Refused by this stage.
    #[arg(long)]
    stage: Option<String>,
    /// Refused for this reason.
    #[arg(long)]
    reason: Option<String>,
    /// Read from this topic.
    #[arg(long)]
    topic: Option<String>,
    /// In quarantine for no longer than this: `90s`, `15m`, `2h`, `7d`.
    #[arg(long, value_parser = age)]
    since: Option<Duration>,
    /// Only so many, the oldest.
    #[arg(long)]
    limit: Option<usize>,
    /// In this state: open, retrying, retried, discarded.
    #[arg(long, value_delimiter = ',', value_parser = ["open", "retrying", "retried", "discarded"])]
    state: Vec<String>,
}

/// How an export is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A JSON object a line.
    Json,
    /// Files in a directory: key, value, and the rest as JSON.
    Raw,
}

fn age(text: &str) -> Result<Duration, String> {
    let expected = || format!("'{text}' is no age, expected a number with s, m, h or d");
    let (unit, seconds) = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)]
        .into_iter()
        .find(|(unit, _)| text.ends_with(*unit))
        .ok_or_else(expected)?;
    let number: u64 = text.trim_end_matches(unit).parse().map_err(|_| expected())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(expected)
}

impl Chosen {
    fn filter(self) -> Result<Filter> {
        let since = match self.since {
            Some(age) => {
                let now = SystemClock::default().receive_time(None).unwrap_or_default();
                Some(now.plus(-i64::try_from(age.as_micros())?))
            }
            None => None,
        };
        Ok(Filter {
            stage: self.stage,
            reason: self.reason,
            topic: self.topic,
            since,
            states: self.state,
            places: self.places,
            limit: self.limit,
        })
    }

    /// Names something: what changes records must not mean all of them by default.
    fn is_narrowed(&self) -> bool {
        !self.places.is_empty()
            || self.limit.is_some()
            || self.since.is_some()
            || [&self.stage, &self.reason, &self.topic].iter().any(|value| value.is_some())
    }
}

/// Runs one of them.
pub(super) async fn run(config: Config, action: Action) -> Result<ExitCode> {
    let context = Context::new(config, &stopped_by_signal()?).await?;
    match action {
        Action::List { chosen, json } => {
            let entries = list(&context, &chosen.filter()?).await?;
            print_list(&entries, json)?;
        }
        Action::Show { record, json } => {
            let entry = find(&context, &record).await?;
            let mut records = kept(&context, &[entry]).await?;
            let record = records.recv().await.context("the record is gone")??;
            if json { println!("{}", json_line(&record)?) } else { print_record(&record) }
        }
        Action::Export { chosen, to, format } => {
            let entries = list(&context, &chosen.filter()?).await?;
            export(&context, &entries, to, format).await?;
        }
        Action::Retry { chosen, again, dry_run, json } => {
            let options = RetryOptions { again, dry_run, ..RetryOptions::default() };
            let report = retry(&context, &chosen.filter()?, &options).await?;
            if json {
                println!("{}", serde_json::to_string(&report)?);
            } else {
                for (place, to) in &report.sent {
                    let to = to
                        .as_ref()
                        .map_or_else(|| "would be sent".to_owned(), |to| format!("sent as {to}"));
                    println!("{place}: {to}");
                }
                for (place, why) in report.left.iter().chain(&report.failed) {
                    println!("{place}: {why}");
                }
                let (sent, left, failed) =
                    (report.sent.len(), report.left.len(), report.failed.len());
                println!("{sent} sent, {left} left alone, {failed} failed");
            }
            return Ok(code(report.failed.is_empty()));
        }
        Action::Discard { chosen, why } => {
            anyhow::ensure!(
                chosen.is_narrowed(),
                "say which records: by name, --reason, --topic, --stage, --since or --limit"
            );
            let places = discard(&context, &chosen.filter()?, &why).await?;
            places.iter().for_each(|place| println!("{place}: discarded"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print_list(entries: &[Entry], json: bool) -> Result<()> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in entries {
        *counts.entry(entry.reason.as_str()).or_default() += 1;
    }
    if json {
        println!("{}", json!({"records": entries, "reasons": counts}));
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    for entry in entries {
        let Entry { place, quarantined, stage, reason, detail, state, .. } = entry;
        writeln!(out, "{quarantined} {place} {stage} {reason} {}: {detail}", state.name())?;
    }
    for (reason, count) in counts {
        writeln!(out, "{reason}: {count}")?;
    }
    writeln!(out, "{} records", entries.len())?;
    Ok(())
}

fn print_record(record: &Kept) {
    let entry = &record.entry;
    println!("{}", entry.place);
    println!("  appended     {}", entry.time);
    println!("  quarantined  {} at {}:{}", entry.quarantined, entry.kept_at.0, entry.kept_at.1);
    println!("  stage        {}", entry.stage);
    println!("  reason       {}", entry.reason);
    println!("  detail       {}", record.detail);
    println!("  state        {}", serde_json::to_string(&entry.state).unwrap_or_default());
    println!("  key          {}", shown(record.key.as_deref()));
    println!("  value        {}", shown(record.value.as_deref()));
    for (name, value) in &record.headers {
        println!("  header       {name}: {}", shown(value.as_deref()));
    }
}

/// Text as text, anything else in hexadecimal digits.
fn shown(bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else { return "none".to_owned() };
    let cut = &bytes[..bytes.len().min(SHOWN_BYTES)];
    let text = std::str::from_utf8(cut).ok().filter(|text| !text.contains(char::is_control));
    let mut shown = text.map_or_else(
        || cut.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        |text| format!("\"{text}\""),
    );
    if cut.len() < bytes.len() {
        shown.push_str(&format!("… ({} bytes; export has all)", bytes.len()));
    }
    shown
}

async fn export(
    context: &Context,
    entries: &[Entry],
    to: Option<PathBuf>,
    format: Format,
) -> Result<()> {
    let mut records = kept(context, entries).await?;
    if format == Format::Raw {
        let directory = to.context("--to DIRECTORY says where the files go")?;
        std::fs::create_dir_all(&directory)
            .with_context(|| format!("{} cannot be made", directory.display()))?;
        while let Some(record) = records.recv().await {
            write_files(&record?, &directory)?;
        }
        return Ok(());
    }
    let mut out: Box<dyn std::io::Write> = match &to {
        Some(path) => {
            let file = std::fs::File::create(path);
            let file = file.with_context(|| format!("{} cannot be written", path.display()))?;
            Box::new(std::io::BufWriter::new(file))
        }
        None => Box::new(std::io::stdout()),
    };
    while let Some(record) = records.recv().await {
        writeln!(out, "{}", json_line(&record?)?)?;
    }
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_a_unit_and_anything_else_is_refused() {
        assert_eq!(age("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(age("2h"), Ok(Duration::from_secs(7_200)));
        for text in ["", "9", "h", "-1h", "1.5h", "99999999999999999999d", "18446744073709551615d"]
        {
            assert!(age(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_are_shown_as_text_only_where_they_are() {
        assert_eq!(shown(Some(b"KRAKEN:BTC-CHF")), "\"KRAKEN:BTC-CHF\"");
        assert_eq!(shown(Some(&[0, 0xff])), "00ff");
        assert_eq!(shown(None), "none");
    }
}
