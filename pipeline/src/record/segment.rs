//! One file: compressed as it is written, readable up to the last flush after a crash.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// Fast, and a fifth to a tenth of the text.
const LEVEL: i32 = 3;

/// Counts what reaches the file.
#[derive(Debug)]
struct Counted {
    file: File,
    bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let written = self.file.write(from)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A file being written.
pub(super) struct Segment {
    encoder: zstd::stream::write::Encoder<'static, Counted>,
}

impl Segment {
    /// A new file; one that is there already is an error.
    pub(super) fn create(path: &Path) -> io::Result<Segment> {
        Segment::of(OpenOptions::new().write(true).create_new(true).open(path)?)
    }

    fn of(file: File) -> io::Result<Segment> {
        let encoder = zstd::stream::write::Encoder::new(Counted { file, bytes: 0 }, LEVEL)?;
        Ok(Segment { encoder })
    }

    pub(super) fn write(&mut self, text: &str) -> io::Result<()> {
        self.encoder.write_all(text.as_bytes())
    }

    /// Everything so far can be read from the file.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }

    /// Compressed bytes so far.
    pub(super) fn bytes(&self) -> u64 {
        self.encoder.get_ref().bytes
    }

    /// Ends the file.
    pub(super) fn finish(self) -> io::Result<()> {
        self.encoder.finish()?.file.sync_all()
    }
}

/// Adds `text` to a file that has been ended, or makes one of it: as a whole or not at all.
pub(super) fn extend(path: &Path, text: &str) -> io::Result<()> {
    let part = path.with_extension("part");
    let whole = || {
        let mut file = File::create(&part)?;
        if path.exists() {
            io::copy(&mut File::open(path)?, &mut file)?;
        }
        let mut added = Segment::of(file)?;
        added.write(text)?;
        added.finish()?;
        fs::rename(&part, path)
    };
    whole().inspect_err(|_| drop(fs::remove_file(&part)))
}
