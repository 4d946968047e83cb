//! `decode`: recordings through each venue's connector, on one core, checksums verified.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tapeline::playback::Recording;
use tapeline::venue::{Connector, Output, SymbolTable, VENUES, VenueSpec, VenueStats, take_frame};
use tapeline_schemas::Micros;

use super::results::Results;
use super::{Bench, Sizes};
use crate::cpu;

/// Longer frames are snapshots of whole books. A connection gets one for each book, when it begins, and
/// a recording of a minute has far too many of them.
const LONGEST_UPDATE_BYTES: usize = 4_096;

/// Runs it; without recordings it says so and measures nothing.
pub(crate) fn run(bench: &Bench, sizes: &Sizes, results: &mut Results) -> Result<()> {
    let Some(dir) = std::env::var_os("TAPELINE_RECORDINGS").map(PathBuf::from) else {
        bench.say("decode: SKIPPED, TAPELINE_RECORDINGS names no recordings");
        results.notes.push("decode was skipped: there were no recordings".to_owned());
        return Ok(());
    };
    for spec in &VENUES {
        let recording = Recording::read(&dir, spec.name)?;
        let tape = Tape::new(spec, &recording)?;
        tape.play()?; // warms up
        for round in 0..sizes.decode_rounds {
            let rate = tape.measure(sizes.decode_time)?;
            results.add(&format!("decode.{}", spec.name), "messages/s", rate);
            bench.say(&format!("round {}: decode {} {rate:.0} messages/s", round + 1, spec.name));
        }
    }
    Ok(())
}

/// What arrives, in order.
enum Arrival<'r> {
    Frame(Micros, &'r [u8]),
    Snapshot(String, Micros, &'r [u8]),
}

impl Arrival<'_> {
    /// Whether it is timed and counted.
    fn is_of_the_feed(&self) -> bool {
        matches!(self, Arrival::Frame(_, bytes) if bytes.len() <= LONGEST_UPDATE_BYTES)
    }
}

/// A recording made ready, so that only the connector's work is timed.
struct Tape<'r> {
    spec: &'static VenueSpec,
    recording: &'r Recording,
    arrivals: Vec<Arrival<'r>>,
    frames: usize,
}

impl<'r> Tape<'r> {
    fn new(spec: &'static VenueSpec, recording: &'r Recording) -> Result<Tape<'r>> {
        let mut tape = Tape { spec, recording, arrivals: Vec::new(), frames: 0 };
        let (connector, mut out) = tape.connector()?;
        let mut arrivals: Vec<(Micros, Arrival<'r>)> = Vec::new();
        for item in out.drain() {
            let tapeline::venue::Item::RequestSnapshot { symbol } = item else { continue };
            let path = connector.snapshot_request(&symbol).context("no request for a snapshot")?;
            let answer = recording.answers.iter().find(|answer| answer.path == path);
            let answer = answer.with_context(|| format!("{path} is not in the recording"))?;
            let body = answer.body.as_bytes();
            arrivals.push((answer.time, Arrival::Snapshot(symbol, answer.time, body)));
        }
        for frame in recording.connections.iter().flat_map(|connection| &connection.frames) {
            let bytes = frame.payload.as_bytes();
            arrivals.push((frame.time, Arrival::Frame(frame.time, bytes)));
        }
        arrivals.sort_by_key(|(time, _)| *time);
        tape.arrivals = arrivals.into_iter().map(|(_, arrival)| arrival).collect();
        tape.frames = tape.arrivals.iter().filter(|arrival| arrival.is_of_the_feed()).count();
        Ok(tape)
    }

    fn connector(&self) -> Result<(Box<dyn Connector>, Output)> {
        let mut connector = (self.spec.connector)(self.recording.settings());
        let mut table = SymbolTable::default();
        for request in connector.symbols_requests() {
            let answer = self.recording.answers.iter().find(|answer| answer.path == request);
            let answer = answer.with_context(|| format!("{request} is not in the recording"))?;
            connector.decode_symbols(&request, answer.body.as_bytes(), &mut table)?;
        }
        connector.configure(&table)?;
        let mut out = Output::new(self.spec.name, Arc::new(VenueStats::default()));
        for connection in 0..connector.connections().len() {
            connector.opened(connection, &mut out);
        }
        Ok((connector, out))
    }

    /// Plays it once; the processor's time that the feed took.
    fn play(&self) -> Result<Duration> {
        let (mut connector, mut out) = self.connector()?;
        out.drain();
        let mut took = Duration::ZERO;
        let mut began = cpu::of_thread()?;
        for arrival in &self.arrivals {
            let is_timed = arrival.is_of_the_feed();
            if !is_timed {
                took += cpu::of_thread()? - began;
            }
            match arrival {
                Arrival::Frame(time, bytes) => {
                    take_frame(connector.as_mut(), 0, bytes, *time, &mut out);
                }
                Arrival::Snapshot(symbol, time, body) => {
                    connector.decode_snapshot(symbol, body, *time, &mut out)?;
                }
            }
            out.drain();
            if !is_timed {
                began = cpu::of_thread()?;
            }
        }
        took += cpu::of_thread()? - began;
        let report = out.stats().report();
        let wrong = report.decode_errors
            + report.unknown_messages
            + report.venue_errors
            + report.books.checksums_failed
            + report.books.resyncs;
        ensure!(wrong == 0, "{}: the recording is not read right: {report:?}", self.spec.name);
        Ok(took)
    }

    fn measure(&self, at_least: Duration) -> Result<f64> {
        let (mut messages, mut took) = (0, Duration::ZERO);
        while took < at_least {
            took += self.play()?;
            messages += self.frames;
        }
        Ok(messages as f64 / took.as_secs_f64())
    }
}
