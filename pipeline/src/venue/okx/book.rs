//! OKX's books: sequence where it is given, checksum where it is given.

use tapeline_schemas::{BookAction, Kind, Level, Micros};
use tapeline_stages::book::{BookSide, OrderBook};

use super::raw::RawBook;
use crate::venue::books::{LocalBook, Update};
use crate::venue::json::{Text, level, millis};
use crate::venue::{DecodeError, Output};

/// Levels a side of the channel `books`. The venue speaks of no others.
const DEPTH: usize = 400;

/// What became of a message.
pub(super) enum Outcome {
    /// The book holds it.
    Applied,
    /// It only says that nothing has changed.
    Nothing,
    /// Something before it is missing.
    WrongSequence,
    /// The book is not what the venue has.
    WrongChecksum,
}

fn put_levels(
    book: &mut OrderBook,
    side: BookSide,
    raw: &[Vec<Text<'_>>],
) -> Result<Vec<Level>, DecodeError> {
    raw.iter()
        .map(|fields| {
            let [price, amount, ..] = fields.as_slice() else {
                return Err(DecodeError::Malformed("level of fewer than two fields".to_owned()));
            };
            let checked = level(&price.0, &amount.0)?;
            book.set_with_pair(side, checked, &price.0, &amount.0);
            Ok(checked)
        })
        .collect()
}

/// Applies a snapshot or an update and verifies all that it brings to verify it by.
pub(super) fn apply(
    book: &mut LocalBook,
    raw: &RawBook<'_>,
    snapshot: bool,
    at: Micros,
    out: &mut Output,
) -> Result<Outcome, DecodeError> {
    if !snapshot
        && let (Some(known), Some(previous)) = (book.sequence(), raw.prev_seq_id)
        && known != previous
    {
        out.stats().received(Kind::Book);
        // Sent again.
        if raw.seq_id == Some(known) {
            out.stats().updates_stale.add(1);
            return Ok(Outcome::Nothing);
        }
        return Ok(Outcome::WrongSequence);
    }
    // Sent once a minute of a book that nobody moves.
    let empty = raw.asks.is_empty() && raw.bids.is_empty();
    if !snapshot && empty && raw.seq_id.is_some() && raw.seq_id == raw.prev_seq_id {
        return Ok(Outcome::Nothing);
    }
    out.stats().received(Kind::Book);
    let venue_time = millis(&raw.ts)?;
    if snapshot {
        book.levels.clear();
    }
    let bids = put_levels(&mut book.levels, BookSide::Bid, &raw.bids)?;
    let asks = put_levels(&mut book.levels, BookSide::Ask, &raw.asks)?;
    book.levels.truncate(DEPTH);
    // 0 beside a sequence is what the venue sends since it gave checksums up.
    let sent = raw.checksum.filter(|sent| *sent != 0 || raw.seq_id.is_none());
    if let Some(sent) = sent {
        // Sent as a signed number of 32 bits.
        if i64::from(book.levels.checksum_of_pairs().cast_signed()) != sent {
            out.stats().checksums_failed.add(1);
            return Ok(Outcome::WrongChecksum);
        }
        out.stats().checksums_verified.add(1);
    } else if raw.seq_id.is_none() {
        return Err(DecodeError::Malformed("book with neither checksum nor sequence".to_owned()));
    }
    let action = if snapshot { BookAction::Snapshot } else { BookAction::Delta };
    let prefix = if snapshot { "snapshot-" } else { "" };
    let update = Update {
        first_sequence: raw.prev_seq_id.filter(|_| !snapshot).map(|id| id.saturating_add(1)),
        sequence: raw.seq_id,
        checksum: sent,
        event_id: raw.seq_id.map(|id| format!("{prefix}{id}")),
        ..Update::unnumbered(venue_time, at, bids, asks)
    };
    book.verified(action, update, out);
    Ok(Outcome::Applied)
}
