//! Raw frames as they came, kept beside the feed so that a decoder's bug can be repaired: the lines of recordings
//! ([`crate::playback::recording`]), compressed, rolling.
//!
//! A driver's core gives what it takes, in the order in which it takes it, to a thread of its own through a bounded queue.
//! The feed never waits: what the queue cannot hold is counted, logged, and written down as missing. Frames give way to
//! what the rest could not be read without, which has room of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tapeline_schemas::Micros;
use tokio::sync::oneshot;
use tracing::{error, info};

use crate::playback::recording::{Line, kept};

mod retention;
mod segment;
#[cfg(test)]
mod tests;
mod thread;

use self::thread::Writer;

/// Frames waiting to be written, and the like.
const QUEUE: usize = 16_384;
/// Bytes of them.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// Things beyond these that may wait where they are no frames.
const RESERVED: usize = 4_096;
/// Bytes of those.
const RESERVED_BYTES: usize = 64 * 1024 * 1024;
/// Longest wait for the thread to write what it has.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// Of things that are missing every so many are logged, beside the first.
const LOGGED_MISSING: u64 = 10_000;

/// Where and how much to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Directory of the files; it is made.
    pub dir: PathBuf,
    /// Compressed size at which a file is closed and the next begun.
    pub file_bytes: u64,
    /// All files of a venue together; the oldest go first.
    pub max_bytes: u64,
    /// Age by the file's time at which one goes.
    pub max_age: Duration,
}

/// Connections that are opened together for a share of the symbols.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Number of its first connection; the others follow it.
    pub first: usize,
    /// Its symbols.
    pub symbols: Vec<String>,
    /// First connection of those that it takes over from.
    pub takes: Option<usize>,
}

/// What is handed to the thread.
#[derive(Debug)]
enum Entry {
    Configuration(String),
    Table { url: String, time: Micros, body: Bytes },
    Answer { url: String, time: Micros, body: Bytes },
    Unit { first: usize, json: String },
    Closed { first: usize },
    Opened { connection: usize, url: String, time: Micros, sent: Vec<String> },
    Frame { connection: usize, time: Micros, frame: Bytes },
    Alive { connection: usize, time: Micros },
    Lost { connection: usize, reason: String },
}

impl Entry {
    fn bytes(&self) -> usize {
        match self {
            Entry::Configuration(text) => text.len(),
            Entry::Table { body, .. } | Entry::Answer { body, .. } => body.len(),
            Entry::Opened { url, sent, .. } => {
                url.len() + sent.iter().map(String::len).sum::<usize>()
            }
            Entry::Frame { frame, .. } => frame.len(),
            Entry::Lost { reason, .. } => reason.len(),
            Entry::Unit { json, .. } => json.len(),
            Entry::Alive { .. } | Entry::Closed { .. } => 0,
        }
    }

    /// Whether it may be missing: whoever decodes the recording loses that much and goes on behind it. Without the others
    /// nobody could tell what the rest is.
    fn may_be_missing(&self) -> bool {
        matches!(self, Entry::Frame { .. } | Entry::Alive { .. } | Entry::Answer { .. })
    }

    /// How many things and bytes may wait, this one included.
    fn room(&self) -> (usize, usize) {
        match self {
            Entry::Frame { .. } | Entry::Alive { .. } => (QUEUE, QUEUE_BYTES),
            _ => (QUEUE + RESERVED, QUEUE_BYTES + RESERVED_BYTES),
        }
    }
}

/// What queue and thread share.
#[derive(Debug, Default)]
struct Shared {
    waiting: AtomicUsize,
    waiting_bytes: AtomicUsize,
    /// Something is missing that the rest cannot be read without: nothing is kept any more.
    is_over: AtomicBool,
    missing: AtomicU64,
}

/// Keeps one venue's frames, until it is closed. Where it is dropped instead, nobody waits for the thread to write what
/// it has.
#[derive(Debug)]
pub struct Recorder {
    venue: String,
    queue: SyncSender<Entry>,
    shared: Arc<Shared>,
    /// Ends when the thread has.
    ended: oneshot::Receiver<()>,
}

impl Recorder {
    /// Begins to keep what comes of `venue`; `started` names the run's files. Neither a missing directory nor a full
    /// disk is an error here: both are logged and tried again.
    pub fn start(venue: &str, started: Micros, limits: Limits) -> Recorder {
        info!(venue, dir = %limits.dir.display(), "keeping raw frames");
        let (recorder, entries, running) = Recorder::waiting(venue);
        let writer = Writer::new(venue, started, limits, Arc::clone(&recorder.shared));
        let thread = std::thread::Builder::new()
            .name(format!("record-{}", venue.to_ascii_lowercase()))
            .spawn(move || {
                writer.run(&entries);
                drop(running);
            });
        if let Err(error) = thread {
            error!(venue, %error, "no thread to keep frames");
        }
        recorder
    }

    /// One whose entries wait for a writer; the last part is dropped when that has ended.
    fn waiting(venue: &str) -> (Recorder, Receiver<Entry>, oneshot::Sender<()>) {
        let (queue, entries) = sync_channel(QUEUE + RESERVED);
        let (running, ended) = oneshot::channel();
        let (venue, shared) = (venue.to_owned(), Arc::default());
        (Recorder { venue, queue, shared, ended }, entries, running)
    }

    /// Waits until everything is written, but not for a disk that takes nothing: the process must not hang on it.
    pub async fn close(self) {
        let Recorder { venue, queue, shared, ended } = self;
        drop(queue);
        if tokio::time::timeout(LAST_WORDS, ended).await.is_err() {
            let waiting = shared.waiting.load(Ordering::Acquire);
            error!(venue, waiting, "the disk does not take the last raw frames in time");
        }
    }

    /// What is subscribed, as JSON.
    pub fn configuration(&self, json: String) {
        self.put(Entry::Configuration(json));
    }

    /// A table of symbols, or a part of one, in which what is subscribed to was found.
    pub fn table(&self, url: String, time: Micros, body: Bytes) {
        self.put(Entry::Table { url, time, body });
    }

    /// A REST answer that was used.
    pub fn answer(&self, url: String, time: Micros, body: Bytes) {
        self.put(Entry::Answer { url, time, body });
    }

    /// Connections are about to be opened.
    pub fn unit(&self, unit: &Unit) {
        // A text and numbers: this cannot fail.
        if let Ok(json) = serde_json::to_string(unit) {
            self.put(Entry::Unit { first: unit.first, json });
        }
    }

    /// Connections, the first of which is `first`, are not needed any more.
    pub fn closed(&self, first: usize) {
        self.put(Entry::Closed { first });
    }

    /// A connection was opened and subscribed.
    pub fn opened(&self, connection: usize, url: String, time: Micros, sent: Vec<String>) {
        self.put(Entry::Opened { connection, url, time, sent });
    }

    /// A frame was taken.
    pub fn frame(&self, connection: usize, time: Micros, frame: Bytes) {
        self.put(Entry::Frame { connection, time, frame });
    }

    /// A ping or its answer was heard.
    pub fn alive(&self, connection: usize, time: Micros) {
        self.put(Entry::Alive { connection, time });
    }

    /// A connection was lost.
    pub fn lost(&self, connection: usize, reason: String) {
        self.put(Entry::Lost { connection, reason });
    }

    /// How many things could not be kept.
    pub fn missing(&self) -> u64 {
        self.shared.missing.load(Ordering::Relaxed)
    }

    fn put(&self, entry: Entry) {
        if self.shared.is_over.load(Ordering::Acquire) {
            return self.shared.miss(&self.venue, 1);
        }
        let (bytes, needed) = (entry.bytes(), !entry.may_be_missing());
        if self.shared.admit(&entry) {
            match self.queue.try_send(entry) {
                Ok(()) => return,
                Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
            }
            self.shared.written(bytes);
        }
        self.shared.miss(&self.venue, 1);
        if needed && !self.shared.is_over.swap(true, Ordering::AcqRel) {
            error!(
                venue = self.venue,
                "the disk takes nothing for too long: the recording of this run ends here, and the next start begins another"
            );
        }
    }
}

impl Shared {
    /// Counts an entry among those that wait, if there is room for it.
    fn admit(&self, entry: &Entry) -> bool {
        let (bytes, (most, most_bytes)) = (entry.bytes(), entry.room());
        let waiting = self.waiting.fetch_add(1, Ordering::AcqRel);
        let waiting_bytes = self.waiting_bytes.fetch_add(bytes, Ordering::AcqRel);
        // One that is larger than all that may wait is taken alone.
        let room = waiting < most && (waiting_bytes == 0 || waiting_bytes + bytes <= most_bytes);
        if !room {
            self.written(bytes);
        }
        room
    }

    /// One of so many bytes does not wait any more.
    fn written(&self, bytes: usize) {
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        self.waiting_bytes.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Counts what could not be kept, and says so.
    fn miss(&self, venue: &str, count: u64) {
        let before = self.missing.fetch_add(count, Ordering::AcqRel);
        metrics::counter!("tapeline_record_missing_total", "venue" => venue.to_owned())
            .increment(count);
        if before == 0 || before / LOGGED_MISSING != (before + count) / LOGGED_MISSING {
            error!(
                venue,
                missing = before + count,
                "raw frames are not kept: the disk is too slow, full or gone"
            );
        }
    }
}
