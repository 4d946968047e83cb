//! Deribit's books: each change names the one before it.

use tapeline_schemas::{BookAction, Level, Micros, Money};

use super::raw::{RawBook, RawLevel};
use crate::venue::books::{LocalBook, Update};
use crate::venue::json::{checked_level, number};
use crate::venue::{DecodeError, Output};

/// What became of a message.
pub(super) enum Outcome {
    /// The book holds it.
    Applied {
        /// It was a whole book.
        snapshot: bool,
    },
    /// The book waits for a snapshot.
    Stale,
    /// The book holds it already.
    Repeated,
    /// Something before it is missing.
    WrongSequence,
}

fn levels(raw: &[RawLevel<'_>]) -> Result<Vec<Level>, DecodeError> {
    raw.iter()
        .map(|RawLevel(action, price, amount)| {
            let amount = match action.as_ref() {
                "new" | "change" => number(amount)?,
                "delete" => Money::ZERO,
                other => return Err(DecodeError::Malformed(format!("action `{other}`"))),
            };
            checked_level(Level { price: number(price)?, amount })
        })
        .collect()
}

/// Applies a snapshot, or a change that follows what the book holds.
pub(super) fn apply(
    book: &mut LocalBook,
    raw: &RawBook<'_>,
    at: Micros,
    out: &mut Output,
) -> Result<Outcome, DecodeError> {
    let snapshot = match raw.kind.as_ref() {
        "snapshot" => true,
        "change" => false,
        other => return Err(DecodeError::Malformed(format!("book of type `{other}`"))),
    };
    if !snapshot {
        if !book.whole() {
            return Ok(Outcome::Stale);
        }
        // Sent again: numbers only grow.
        if book.sequence().is_some_and(|known| raw.change_id <= known) {
            return Ok(Outcome::Repeated);
        }
        if raw.prev_change_id.is_none() || raw.prev_change_id != book.sequence() {
            return Ok(Outcome::WrongSequence);
        }
    }
    let (bids, asks) = (levels(&raw.bids)?, levels(&raw.asks)?);
    let (action, prefix) = if snapshot {
        book.levels.apply_snapshot(&bids, &asks);
        // A change may end at the same number, but is another event.
        (BookAction::Snapshot, "snapshot-")
    } else {
        book.levels.apply_delta(&bids, &asks);
        (BookAction::Delta, "")
    };
    let update = Update {
        first_sequence: raw.prev_change_id.filter(|_| !snapshot).map(|id| id.saturating_add(1)),
        sequence: Some(raw.change_id),
        event_id: Some(format!("{prefix}{}", raw.change_id)),
        ..Update::unnumbered(Micros::from_millis(raw.timestamp), at, bids, asks)
    };
    book.verified(action, update, out);
    Ok(Outcome::Applied { snapshot })
}
