//! The lines of a run as its driver's core heard them.
//!
//! Each file begins with the units and connections that are open, and the disk may have taken nothing for a while before
//! it. So what a file does not begin with has been closed, and what was opened again has been lost.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use bytes::Bytes;
use serde_json::Value;
use tapeline_schemas::Micros;
use tokio::sync::mpsc;
use tracing::warn;

use super::again::Recorded;
use super::connection::Event;
use crate::playback::configuration;
use crate::playback::recording::{Line, Lines, Payload, RecordingError, path_and_query};
use crate::record::Unit;

/// Gives the core what files hold, as fast as it takes it.
pub(super) fn feed(files: &[PathBuf], events: &mpsc::Sender<Event>) -> Result<(), RecordingError> {
    let mut reader = Reader::default();
    for path in files {
        reader.begin();
        for line in Lines::open(path)? {
            let line = line?;
            reader.read(&line.text).map_err(|reason| line.wrong(reason))?;
            for event in reader.heard.drain(..) {
                if events.blocking_send(event).is_err() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// Reads the lines of files, one after the other.
#[derive(Debug, Default)]
struct Reader {
    /// What the core is to hear of the newest line.
    heard: Vec<Event>,
    /// The connection that lines speak of.
    selected: Option<usize>,
    /// When each open connection was opened.
    opened: HashMap<usize, Micros>,
    /// First connections of the units that are open.
    units: BTreeSet<usize>,
    /// Those that the file begins with, while it says so.
    begins_with: Option<BTreeSet<usize>>,
}

impl Reader {
    /// The next file.
    fn begin(&mut self) {
        self.selected = None;
        self.begins_with = Some(BTreeSet::new());
    }

    fn read(&mut self, line: &str) -> Result<(), &'static str> {
        let line = Line::read(line)?;
        if !matches!(line, Line::Configuration(_) | Line::Unit(_)) {
            self.has_begun();
        }
        let connection = self.selected.ok_or("no connection is selected");
        match line {
            Line::Select(number) => self.selected = Some(number),
            Line::Configuration(json) => {
                let json: Value =
                    serde_json::from_str(&json).map_err(|_| "configuration is not JSON")?;
                let settings =
                    configuration::settings(&json).ok_or("no settings of a connector")?;
                self.hear(Recorded::Settings(settings));
            }
            Line::Unit(json) => self.unit(&json)?,
            Line::Closed(first) => self.closed(first),
            Line::Answer { url, time, body } => {
                let path = path_and_query(&url).ok_or("not an address")?;
                self.hear(Recorded::Answer { path, at: time, body: body.into_owned() });
            }
            Line::Opened { time, .. } => self.opened(connection?, time),
            Line::Frame { time, payload } => {
                let frame = match payload {
                    Payload::Text(text) => Bytes::from(text),
                    Payload::Binary(bytes) => bytes,
                };
                self.heard.push(Event::Frame { connection: connection?, frame, at: time });
            }
            Line::Alive { time } => {
                self.heard.push(Event::Alive { connection: connection?, at: time });
            }
            Line::Lost { reason } => self.lost(connection?, reason.into_owned()),
            Line::Missing { count } => warn!(count, "frames are missing here"),
            Line::Sent { .. } => {}
        }
        Ok(())
    }

    fn hear(&mut self, recorded: Recorded) {
        self.heard.push(Event::Recorded(recorded));
    }

    /// The file has said what is open: units that it did not name were closed while nothing was kept.
    fn has_begun(&mut self) {
        let Some(open) = self.begins_with.take() else { return };
        let closed: Vec<usize> = self.units.difference(&open).copied().collect();
        closed.into_iter().for_each(|first| self.closed(first));
    }

    fn unit(&mut self, json: &str) -> Result<(), &'static str> {
        let unit: Unit = serde_json::from_str(json).map_err(|_| "not a connection's symbols")?;
        if let Some(open) = &mut self.begins_with {
            open.insert(unit.first);
        }
        self.units.insert(unit.first);
        self.hear(Recorded::Unit(unit));
        Ok(())
    }

    fn closed(&mut self, first: usize) {
        self.units.remove(&first);
        self.hear(Recorded::Closed(first));
    }

    /// A connection was opened, unless this repeats what an earlier file said.
    fn opened(&mut self, connection: usize, time: Micros) {
        match self.opened.insert(connection, time) {
            Some(before) if before == time => return,
            Some(_) => {
                let reason = "nothing was kept when it was lost".to_owned();
                self.heard.push(Event::Lost { connection, reason });
            }
            None => {}
        }
        self.heard.push(Event::Opened { connection });
    }

    fn lost(&mut self, connection: usize, reason: String) {
        self.opened.remove(&connection);
        self.heard.push(Event::Lost { connection, reason });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the core hears of files with these lines.
    fn heard(files: &[&[&str]]) -> Vec<String> {
        let (mut reader, mut heard) = (Reader::default(), Vec::new());
        for file in files {
            reader.begin();
            for line in *file {
                reader.read(line).expect(line);
                heard.extend(reader.heard.drain(..).map(|event| match event {
                    Event::Opened { connection } => format!("opened {connection}"),
                    Event::Lost { connection, .. } => format!("lost {connection}"),
                    Event::Frame { connection, .. } => format!("frame of {connection}"),
                    Event::Recorded(Recorded::Unit(unit)) => format!("unit {}", unit.first),
                    Event::Recorded(Recorded::Closed(first)) => format!("closed {first}"),
                    other => format!("{other:?}"),
                }));
            }
        }
        heard
    }

    const A: &str = r#"+ {"first":0,"symbols":["A-B"],"takes":null}"#;
    const B: &str = r#"+ {"first":1,"symbols":["A-B"],"takes":0}"#;

    #[test]
    fn a_file_that_repeats_what_is_open_changes_nothing() {
        let first = [A, "@0", "wss://x/ <-> 1.0", "1.5: a"];
        let second = [A, "@0", "wss://x/ <-> 1.0", "1.6: b"];
        let expected = ["unit 0", "opened 0", "frame of 0", "unit 0", "frame of 0"];
        assert_eq!(heard(&[&first, &second]), expected);
    }

    #[test]
    fn what_was_closed_or_lost_while_nothing_was_kept_is_told_by_the_next_file() {
        let first = [A, "@0", "wss://x/ <-> 1.0", "1.5: a"];
        // Lost and opened again.
        let again = [A, "@0", "wss://x/ <-> 2.0", "2.5: b"];
        // Another one took over, and the old one was closed.
        let other = [B, "@1", "wss://x/ <-> 3.0", "3.5: c"];
        let expected = "unit 0, opened 0, frame of 0, unit 0, lost 0, opened 0, frame of 0, \
            unit 1, closed 0, opened 1, frame of 1";
        assert_eq!(heard(&[&first, &again, &other]).join(", "), expected);
    }
}
