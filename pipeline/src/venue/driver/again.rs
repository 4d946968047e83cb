//! Decoding what was kept of a venue ([`crate::record`]) again: the same core takes the same things in the same order,
//! from files instead of connections.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tapeline_schemas::Micros;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::clock::PlaybackClock;
use super::connection::Event;
use super::core::Core;
use super::feed::feed;
use super::held::Held;
use super::reload::Subscriptions;
use super::unit::apply_snapshot;
use super::{DriverError, EVENTS, VenueConfig, lease, spec};
use crate::playback::configuration;
use crate::playback::recording::{Line, Lines, RecordingError, files, path_and_query};
use crate::record::Unit;
use crate::venue::{
    DecodeError, Publisher, Settings, StatsReport, SymbolTable, VenueSpec, VenueStats,
};

/// What a recording holds beside what connections bring.
#[derive(Debug)]
pub(super) enum Recorded {
    /// What is subscribed to from here on.
    Settings(Settings),
    /// Connections that were opened.
    Unit(Unit),
    /// Connections that were not needed any more, by the first of them.
    Closed(usize),
    /// A snapshot that was used.
    Answer { path: String, at: Micros, body: String },
    /// There is no more.
    Over,
}

impl<P: Publisher> Core<P> {
    /// Does what the recorded driver did.
    pub(super) fn recorded(&mut self, recorded: Recorded) -> Result<(), DriverError> {
        match recorded {
            Recorded::Settings(settings) => {
                self.subscriptions.settings = settings.clone();
                self.config.settings = settings;
            }
            Recorded::Unit(unit) => return self.open_recorded(unit),
            Recorded::Closed(first) => self.close_recorded(first),
            Recorded::Answer { path, at, body } => self.answer_recorded(&path, at, &body),
            Recorded::Over => self.is_over = true,
        }
        Ok(())
    }

    fn open_recorded(&mut self, unit: Unit) -> Result<(), DriverError> {
        let position = |first: usize| self.units.iter().position(|unit| unit.first_link == first);
        // Each file repeats what is open.
        if position(unit.first).is_some() {
            return Ok(());
        }
        let old = unit.takes.and_then(position);
        self.next_link = unit.first;
        match old {
            Some(old) => self.replace(old, unit.symbols),
            None => self.open(unit.symbols, None, true),
        }
    }

    /// What took over has taken everything by now: whatever of it was not ready yet is.
    fn close_recorded(&mut self, first: usize) {
        let Some(index) = self.units.iter().position(|unit| unit.first_link == first) else {
            return;
        };
        let number = self.units[index].number;
        let takes = |unit: &super::unit::Unit| {
            unit.takes.as_ref().is_some_and(|takes| takes.from == number)
        };
        if self.units.iter().any(takes) {
            self.units[index].reaches.iter_mut().for_each(|reach| reach.down = true);
            self.take_over();
        } else {
            self.close(index, |_| false);
        }
    }

    /// A snapshot for whoever waits for it; of two units that overlap it is the new one that asks.
    fn answer_recorded(&mut self, path: &str, at: Micros, body: &str) {
        let waiting = |(index, unit): (usize, &super::unit::Unit)| {
            let asks = |symbol: &&String| {
                unit.connector.snapshot_request(symbol).is_some_and(|request| request == path)
            };
            Some((index, unit.pending.keys().find(asks)?.clone()))
        };
        let Some((index, symbol)) = self.units.iter().enumerate().rev().find_map(waiting) else {
            return;
        };
        let unit = &mut self.units[index];
        let attempts = unit.pending.remove(&symbol).map_or(0, |pending| pending.attempts);
        if apply_snapshot(unit, &symbol, body.as_bytes(), at) {
            self.request_snapshot(index, symbol, attempts + 1);
        }
    }
}

/// Decodes what was kept of a venue in `dir` again, every run of it, and publishes it. Nobody is asked, no hole is
/// opened but those that are in the recording, and nothing is said about what came after it.
pub async fn again<P: Publisher>(
    config: VenueConfig,
    dir: &Path,
    publisher: Arc<P>,
    stats: Arc<VenueStats>,
    cancel: CancellationToken,
) -> Result<StatsReport, DriverError> {
    let spec = spec(&config.venue)?;
    for files in runs(dir, spec.name)?.into_values() {
        let (publisher, stats) = (Arc::clone(&publisher), Arc::clone(&stats));
        run(config.clone(), spec, files, publisher, stats, &cancel).await?;
        if cancel.is_cancelled() {
            break;
        }
    }
    Ok(stats.report())
}

/// The files of each run that a connector kept, in order, its tables first.
fn runs(dir: &Path, venue: &str) -> Result<BTreeMap<i64, Vec<PathBuf>>, RecordingError> {
    let mut runs: BTreeMap<i64, Vec<PathBuf>> = BTreeMap::new();
    for path in files(dir, venue)? {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let parts: Vec<&str> = name.split('.').collect();
        if let [_, run, _, "zst"] = parts.as_slice()
            && let Ok(run) = run.parse()
        {
            runs.entry(run).or_default().push(path);
        }
    }
    if runs.is_empty() {
        return Err(RecordingError::Absent { venue: venue.to_owned(), dir: dir.to_owned() });
    }
    Ok(runs)
}

async fn run<P: Publisher>(
    config: VenueConfig,
    spec: &'static VenueSpec,
    mut files: Vec<PathBuf>,
    publisher: Arc<P>,
    stats: Arc<VenueStats>,
    cancel: &CancellationToken,
) -> Result<(), DriverError> {
    let tables = files.remove(0);
    info!(venue = spec.name, tables = %tables.display(), files = files.len(), "decoding again");
    let subscriptions = subscriptions(spec, &tables)?;
    let settings = subscriptions.settings.clone();
    let config = VenueConfig {
        settings,
        finite: true,
        resume_from: BTreeMap::new(),
        left_open: Vec::new(),
        shared: None,
        lease: None,
        record: None,
        ..config
    };
    let rest = config
        .rest((spec.connector)(config.settings.clone()).as_ref())
        .map_err(|source| DriverError::Symbols { venue: spec.name, source })?;
    let (_says, holding) = lease::start(false);
    let (events, inbox) = mpsc::channel(EVENTS);
    let (_orders, orders) = mpsc::channel(1);
    let (clock, held) = (Arc::new(PlaybackClock), Held::new(holding));
    let sender = events.clone();
    let mut core =
        Core::new(config, spec, subscriptions, publisher, clock, stats, events, rest, held);
    core.is_again = true;
    let feeder = tokio::task::spawn_blocking(move || {
        let fed = feed(&files, &sender);
        // A core that is gone needs no end.
        let _ = sender.blocking_send(Event::Recorded(Recorded::Over));
        fed
    });
    let outcome = cancel.run_until_cancelled(core.run(inbox, orders)).await;
    let fed = feeder.await;
    outcome.unwrap_or(Ok(()))?;
    // It only reads files; a panic in it has been printed.
    fed.unwrap_or(Ok(()))?;
    Ok(())
}

/// The settings of a run and all symbols of its tables: what a reload found stands behind what the start did.
fn subscriptions(spec: &'static VenueSpec, tables: &Path) -> Result<Subscriptions, DriverError> {
    let (mut answers, mut settings) = (Vec::new(), None);
    for line in Lines::open(tables)? {
        let line = line?;
        match Line::read(&line.text).map_err(|reason| line.wrong(reason))? {
            Line::Answer { url, body, .. } => {
                let request = path_and_query(&url).ok_or_else(|| line.wrong("not an address"))?;
                answers.push((request, body.into_owned()));
            }
            Line::Configuration(json) => {
                settings = serde_json::from_str(&json)
                    .ok()
                    .and_then(|configuration: Value| configuration::settings(&configuration));
            }
            _ => {}
        }
    }
    let missing = |what: &str| DriverError::SymbolTable {
        venue: spec.name,
        source: DecodeError::Malformed(format!("{}: no {what}", tables.display())),
    };
    let settings: Settings = settings.ok_or_else(|| missing("settings of a connector"))?;
    let mut connector = (spec.connector)(settings.clone());
    let lacks = |request: &&String| !answers.iter().any(|(answered, _)| answered == *request);
    if let Some(request) = connector.symbols_requests().iter().find(lacks) {
        return Err(missing(request));
    }
    let mut table = SymbolTable::new();
    for (request, body) in &answers {
        connector
            .decode_symbols(request, body.as_bytes(), &mut table)
            .map_err(|source| DriverError::SymbolTable { venue: spec.name, source })?;
    }
    connector.configure(&table)?;
    Ok(Subscriptions { settings, table: Arc::new(table), tables: Vec::new() })
}
