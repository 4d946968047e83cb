//! The files of a recording, plain or compressed, line by line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use tracing::warn;

use super::RecordingError;

/// Longest line taken; a frame has at most 16 MiB, which escapes make four times as long, and tables are smaller.
const MAX_LINE_BYTES: u64 = 80 * 1024 * 1024;

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> RecordingError + use<> {
    let path = path.to_owned();
    move |source| RecordingError::Io { path, source }
}

/// The files of `venue` (upper case) in `dir`, in order; there is at least one.
pub fn files(dir: &Path, venue: &str) -> Result<Vec<PathBuf>, RecordingError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io_error(dir))? {
        let name = entry.map_err(io_error(dir))?.file_name();
        let Some(name) = name.to_str() else { continue };
        let Some(rest) = name.strip_prefix(venue).and_then(|rest| rest.strip_prefix('.')) else {
            continue;
        };
        let plain = rest == "0" || rest.starts_with("http.") || rest.starts_with("ws.");
        if plain || rest.ends_with(".zst") {
            found.push((numbers(rest), dir.join(name)));
        }
    }
    if found.is_empty() {
        return Err(RecordingError::Absent { venue: venue.to_owned(), dir: dir.to_owned() });
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Orders `ws.9.0` before `ws.10.0`.
fn numbers(name: &str) -> Vec<u64> {
    name.split('.').filter_map(|part| part.parse().ok()).collect()
}

/// A line and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileLine {
    /// The file.
    pub path: PathBuf,
    /// Number of the line, from 1.
    pub number: usize,
    /// The line without its end.
    pub text: String,
}

impl FileLine {
    /// The error that names it.
    pub fn wrong(&self, reason: &'static str) -> RecordingError {
        RecordingError::Line { path: self.path.clone(), line: self.number, reason }
    }
}

/// The lines of one file. A compressed one may be torn off by a crash: it ends there, which is logged.
pub struct Lines {
    path: PathBuf,
    number: usize,
    reader: Box<dyn BufRead + Send>,
    /// Whether an end in the middle is one.
    torn: bool,
}

impl Lines {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Lines, RecordingError> {
        let file = File::open(path).map_err(io_error(path))?;
        let torn = path.extension().is_some_and(|ending| ending == "zst");
        let reader: Box<dyn BufRead + Send> = if torn {
            let decoder = zstd::stream::read::Decoder::new(file).map_err(io_error(path))?;
            Box::new(BufReader::new(decoder))
        } else {
            Box::new(BufReader::new(file))
        };
        Ok(Lines { path: path.to_owned(), number: 0, reader, torn })
    }
}

impl Iterator for Lines {
    type Item = Result<FileLine, RecordingError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut text = Vec::new();
        let read = self.reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut text);
        self.number += 1;
        let whole = text.last() == Some(&b'\n');
        match read {
            Ok(0) => return None,
            Err(error) if self.torn && error.kind() == io::ErrorKind::UnexpectedEof => {
                warn!(file = %self.path.display(), lines = self.number - 1, "recording ends in the middle");
                return None;
            }
            Err(error) => return Some(Err(io_error(&self.path)(error))),
            // What a compressed file writes last has its end, unless it is torn.
            Ok(_) if self.torn && !whole => return None,
            Ok(_) => {}
        }
        if whole {
            text.pop();
        }
        let line = |text| FileLine { path: self.path.clone(), number: self.number, text };
        Some(match String::from_utf8(text) {
            Ok(text) => Ok(line(text)),
            Err(_) => Err(line(String::new()).wrong("not UTF-8")),
        })
    }
}
