//! The thread that writes.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime};

use tapeline_schemas::Micros;
use tracing::error;

use super::segment::{Segment, extend};
use super::{Entry, Limits, Line, Shared, kept, retention};

/// What a crash of the process can cost.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// A file is closed after this time even where it is small, so that retention by age has something to remove.
const ROLL_EVERY: Duration = Duration::from_secs(3_600);
/// Pause after the disk refused.
const RETRY: Duration = Duration::from_secs(10);

/// An open connection, as each file repeats it.
#[derive(Debug, Clone)]
struct Open {
    url: String,
    time: Micros,
    sent: Vec<String>,
}

pub(super) struct Writer {
    venue: String,
    run: Micros,
    limits: Limits,
    shared: Arc<Shared>,
    /// Tables that are not written yet, as lines, by their addresses.
    tables: BTreeMap<String, String>,
    number: u64,
    file: Option<(PathBuf, Segment, Instant)>,
    open: BTreeMap<usize, Open>,
    /// Units that are not closed, by first connection, and the newest configuration, as each file repeats them.
    units: BTreeMap<usize, String>,
    configuration: Option<String>,
    selected: Option<usize>,
    /// Missing things that are written down already.
    told: u64,
    flushed: Instant,
    /// When the disk is tried again, after it refused.
    pub(super) again: Option<Instant>,
    line: String,
}

impl Writer {
    pub(super) fn new(venue: &str, run: Micros, limits: Limits, shared: Arc<Shared>) -> Writer {
        Writer {
            venue: venue.to_owned(),
            run,
            limits,
            shared,
            tables: BTreeMap::new(),
            number: 0,
            file: None,
            open: BTreeMap::new(),
            units: BTreeMap::new(),
            configuration: None,
            selected: None,
            told: 0,
            flushed: Instant::now(),
            again: None,
            line: String::new(),
        }
    }

    /// Writes until nobody can give more.
    pub(super) fn run(mut self, entries: &Receiver<Entry>) {
        loop {
            match entries.recv_timeout(FLUSH_EVERY) {
                Ok(entry) => {
                    let bytes = entry.bytes();
                    self.take(entry);
                    self.shared.written(bytes);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.flushed.elapsed() >= FLUSH_EVERY {
                self.flushed = Instant::now();
                self.attempt(Writer::flush);
            }
        }
        self.attempt(Writer::finish);
        if self.number > 0 {
            self.attempt(Writer::write_tables);
        }
    }

    pub(super) fn take(&mut self, entry: Entry) {
        match &entry {
            Entry::Opened { connection, url, time, sent } => {
                let open = Open { url: url.clone(), time: *time, sent: sent.clone() };
                self.open.insert(*connection, open);
            }
            Entry::Lost { connection, .. } if !self.open.contains_key(connection) => return,
            // That it was opened is missing, and then nobody could tell what it is.
            Entry::Frame { connection, .. } | Entry::Alive { connection, .. }
                if !self.open.contains_key(connection) =>
            {
                return self.shared.miss(&self.venue, 1);
            }
            Entry::Unit { first, json } => {
                self.units.insert(*first, json.clone());
            }
            Entry::Closed { first } => self.close(*first),
            Entry::Configuration(json) => self.configuration = Some(json.clone()),
            Entry::Table { url, .. } => {
                let mut text = String::new();
                line(&entry).write(&mut text);
                self.tables.insert(url.clone(), text);
            }
            _ => {}
        }
        // These make no file: the first unit does, and finds them.
        let waits = self.number == 0
            && self.units.is_empty()
            && matches!(entry, Entry::Configuration(_) | Entry::Table { .. });
        if !waits {
            let refused = self.again.is_some_and(|again| Instant::now() < again);
            let written = !refused && self.attempt(|writer| writer.write(&entry));
            // Of the others the next file's first lines tell what has become.
            if !written && entry.may_be_missing() {
                self.shared.miss(&self.venue, 1);
            }
        }
        if let Entry::Lost { connection, .. } = entry {
            self.open.remove(&connection);
        }
    }

    /// Forgets a unit's connections: they are the ones up to the next unit's first.
    fn close(&mut self, first: usize) {
        self.units.remove(&first);
        let next = self.units.range(first..).next().map_or(usize::MAX, |(next, _)| *next);
        self.open.retain(|connection, _| !(first..next).contains(connection));
    }

    /// Whether it could be done. Where not, this file ends here and another one is begun later.
    pub(super) fn attempt(&mut self, deed: impl FnOnce(&mut Writer) -> io::Result<()>) -> bool {
        let Err(error) = deed(self) else { return true };
        error!(
            venue = self.venue, %error, dir = %self.limits.dir.display(),
            "raw frames cannot be written; trying again in {} s", RETRY.as_secs()
        );
        self.file = None;
        self.again = Some(Instant::now() + RETRY);
        false
    }

    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        self.again = None;
        if matches!(entry, Entry::Table { .. }) {
            return self.write_tables();
        }
        if self.file.is_none() {
            self.begin()?;
            // The new file says these already.
            if matches!(entry, Entry::Opened { .. } | Entry::Unit { .. } | Entry::Configuration(_))
            {
                return Ok(());
            }
        }
        let mut text = std::mem::take(&mut self.line);
        text.clear();
        self.tell_missing(&mut text);
        let connection = match entry {
            Entry::Opened { connection, .. }
            | Entry::Frame { connection, .. }
            | Entry::Alive { connection, .. }
            | Entry::Lost { connection, .. } => Some(*connection),
            _ => None,
        };
        if let Some(connection) = connection.filter(|c| self.selected != Some(*c)) {
            Line::Select(connection).write(&mut text);
            self.selected = Some(connection);
        }
        line(entry).write(&mut text);
        if let Entry::Opened { url, time, sent, .. } = entry {
            write_sent(url, *time, sent, &mut text);
        }
        let Some((_, file, begun)) = &mut self.file else { return Ok(()) };
        let written = file.write(&text);
        let full = file.bytes() >= self.limits.file_bytes || begun.elapsed() >= ROLL_EVERY;
        self.line = text;
        written?;
        metrics::counter!("tapeline_record_lines_total", "venue" => self.venue.clone())
            .increment(1);
        if full { self.finish() } else { Ok(()) }
    }

    fn tell_missing(&mut self, text: &mut String) {
        let missing = self.shared.missing.load(Ordering::Acquire);
        if missing > self.told {
            Line::Missing { count: missing - self.told }.write(text);
            self.told = missing;
        }
    }

    /// Writes the tables into the run's first file, behind those of before, which are still needed: so are they by every
    /// file of the run, and that one goes last.
    fn write_tables(&mut self) -> io::Result<()> {
        if self.number > 0 && self.tables.is_empty() {
            return Ok(());
        }
        std::fs::create_dir_all(&self.limits.dir)?;
        let mut text: String = self.tables.values().map(String::as_str).collect();
        if self.number == 0
            && let Some(json) = &self.configuration
        {
            Line::Configuration(json.as_str().into()).write(&mut text);
        }
        extend(&self.path(0), &text)?;
        self.tables.clear();
        self.number = self.number.max(1);
        Ok(())
    }

    fn path(&self, number: u64) -> PathBuf {
        retention::path(&self.limits.dir, &self.venue, self.run.0, number)
    }

    /// Begins a file with the connections that are open.
    fn begin(&mut self) -> io::Result<()> {
        std::fs::create_dir_all(&self.limits.dir)?;
        self.write_tables()?;
        let path = self.path(self.number);
        self.number += 1;
        let mut file = Segment::create(&path)?;
        let mut text = String::new();
        self.selected = None;
        if let Some(json) = &self.configuration {
            Line::Configuration(json.as_str().into()).write(&mut text);
        }
        for json in self.units.values() {
            Line::Unit(json.as_str().into()).write(&mut text);
        }
        for (connection, open) in &self.open {
            Line::Select(*connection).write(&mut text);
            let url = open.url.as_str().into();
            Line::Opened { url, time: open.time }.write(&mut text);
            write_sent(&open.url, open.time, &open.sent, &mut text);
            self.selected = Some(*connection);
        }
        file.write(&text)?;
        retention::enforce(&self.limits, &self.venue, now(), &path)?;
        self.file = Some((path, file, Instant::now()));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |(_, file, _)| file.flush())
    }

    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.selected = None;
        self.file.take().map_or(Ok(()), |(_, file, _)| file.finish())
    }
}

/// The age of files is not the age of data: only how long they have been there counts.
#[allow(clippy::disallowed_methods)]
fn now() -> SystemTime {
    SystemTime::now()
}

fn write_sent(url: &str, time: Micros, sent: &[String], text: &mut String) {
    for message in sent {
        Line::Sent { url: url.into(), time, text: message.as_str().into() }.write(text);
    }
}

fn line(entry: &Entry) -> Line<'_> {
    match entry {
        Entry::Configuration(json) => Line::Configuration(json.as_str().into()),
        Entry::Table { url, time, body } | Entry::Answer { url, time, body } => Line::Answer {
            url: url.as_str().into(),
            time: *time,
            body: String::from_utf8_lossy(body),
        },
        Entry::Unit { json, .. } => Line::Unit(json.as_str().into()),
        Entry::Closed { first } => Line::Closed(*first),
        Entry::Opened { url, time, .. } => Line::Opened { url: url.as_str().into(), time: *time },
        Entry::Frame { time, frame, .. } => Line::Frame { time: *time, payload: kept(frame) },
        Entry::Alive { time, .. } => Line::Alive { time: *time },
        Entry::Lost { reason, .. } => Line::Lost { reason: reason.as_str().into() },
    }
}
