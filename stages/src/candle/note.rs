//! The note that a partition's owner leaves with its commit.
//!
//! State is the log itself: the commit goes back to the first record of the oldest open window,
//! and the next owner reads on from there. The note says what the last owner knew besides: which
//! records it had taken, how far each venue was, which holes were open.

use serde::{Deserialize, Serialize};
use tapeline_schemas::Micros;

use super::holes::Hole;
use super::loss::Losses;

/// Version of the form; a note of another one is not read.
const VERSION: u32 = 1;
/// Largest note that Kafka's commit metadata is sure to take, in bytes.
pub(super) const NOTE_BYTES: usize = 4_000;
/// Bytes of a venue's entry besides its name: punctuation and an `i64`.
const VENUE_BYTES: usize = 27;
/// Bytes kept free for the numbers and names around the venues, losses included.
const FRAME_BYTES: usize = 300;

/// What one owner tells the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    #[serde(rename = "v")]
    version: u32,
    /// Records before this offset have been taken: they fill windows that are still open again,
    /// and do nothing else.
    pub(super) next: i64,
    /// Last origin taken.
    pub(super) origin: i64,
    /// Newest watermark among the venues that found no place in the note.
    pub(super) rest: Option<i64>,
    /// Watermarks.
    pub(super) venues: Vec<(String, Option<i64>)>,
    /// The holes; `None` where they found no place: then the commit goes back to the record that
    /// opened the oldest of them.
    pub(super) holes: Option<Vec<NotedHole>>,
    /// What was lost, as long as a window may lack it.
    #[serde(default, skip_serializing_if = "Losses::is_empty")]
    pub(super) losses: Losses,
}

/// Venue, symbol, start, end and offset of a hole.
pub(super) type NotedHole = (String, String, i64, Option<i64>, i64);

/// A hole as a note holds it.
pub(super) fn noted(venue: &str, symbol: &str, hole: &Hole) -> NotedHole {
    (venue.to_owned(), symbol.to_owned(), hole.from.0, hole.to.map(|to| to.0), hole.offset)
}

impl Note {
    /// Writes a note that fits; says whether the holes found a place in it.
    pub(super) fn write(
        next: i64,
        origin: i64,
        rest: Option<Micros>,
        venues: Vec<(String, Option<i64>)>,
        holes: Option<Vec<NotedHole>>,
        losses: Losses,
    ) -> (String, bool) {
        let rest = rest.map(|rest| rest.0);
        let mut note = Note { version: VERSION, next, origin, rest, venues, holes, losses };
        if note.holes.is_some() {
            let text = note.text();
            if text.len() <= NOTE_BYTES {
                return (text, true);
            }
            note.holes = None;
        }
        note.drop_oldest_venues();
        (note.text(), false)
    }

    /// Drops the venues that are furthest behind where there are too many, and keeps the newest
    /// watermark among them in `rest`. Whoever takes over treats each of them as if it had come
    /// that far: what it cannot know to be new or counted becomes dirty, and is computed from the
    /// store. More work, never another result (invariant 7).
    fn drop_oldest_venues(&mut self) {
        self.venues.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let mut room = NOTE_BYTES - FRAME_BYTES;
        let fits = |(name, _): &(String, Option<i64>)| {
            // A name may hold characters that JSON escapes, six bytes at most for one.
            let bytes = VENUE_BYTES + name.chars().map(escaped_len).sum::<usize>();
            let fits = bytes <= room;
            room = if fits { room - bytes } else { 0 };
            fits
        };
        let kept = self.venues.iter().map(fits).take_while(|&fits| fits).count();
        let dropped = self.venues.split_off(kept);
        self.rest = dropped.into_iter().filter_map(|(_, watermark)| watermark).max().max(self.rest);
    }

    /// Reads a note; `None` where it has none or is not of this version.
    pub(super) fn read(text: &str) -> Option<Note> {
        serde_json::from_str::<Note>(text).ok().filter(|note| note.version == VERSION)
    }

    fn text(&self) -> String {
        // Texts and numbers always have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn escaped_len(letter: char) -> usize {
    if letter.is_ascii_control() || letter == '"' || letter == '\\' { 6 } else { letter.len_utf8() }
}

/// The offset before which a partition's records have been taken, by its owner's last commit and
/// the note in it: the commit itself goes back to the oldest open window.
pub fn taken_before(committed: i64, note: &str) -> i64 {
    Note::read(note).map_or(committed, |note| note.next.max(committed))
}

#[cfg(test)]
mod tests {
    use super::super::loss::Loss;
    use super::*;

    #[test]
    fn a_note_is_read_as_written_and_drops_the_oldest_venues_where_there_are_too_many() {
        let venues = |number: i64| -> Vec<_> {
            (0..number).map(|n| (format!("VENUE\"{n}"), Some(1_600_000_000_000_000 + n))).collect()
        };
        let hole = ("KRAKEN".to_owned(), "BTC-CHF".to_owned(), 1, None, 7);
        let (text, holes_fit) =
            Note::write(9, 8, None, venues(3), Some(vec![hole.clone()]), Losses::default());
        let note = Note::read(&text).expect("readable");
        assert_eq!(
            (note.holes, note.venues, note.rest),
            (Some(vec![hole.clone()]), venues(3), None)
        );
        assert!(holes_fit);

        let mut losses = Losses::default();
        losses.widen(Loss::Own, Micros(i64::MIN));
        losses.widen(Loss::Everywhere, Micros(i64::MIN));
        let (text, holes_fit) =
            Note::write(i64::MIN, i64::MIN, None, venues(500), Some(vec![hole]), losses);
        assert!(text.len() <= NOTE_BYTES && !holes_fit);
        let note = Note::read(&text).expect("readable");
        let kept = note.venues.len() as i64;
        assert!(kept > 50, "{kept}");
        assert_eq!(note.rest, Some(1_600_000_000_000_000 + 499 - kept));
        assert_eq!(Note::read("{\"v\":2}"), None);
    }
}
