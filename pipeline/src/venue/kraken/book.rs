//! Kraken's book messages: levels with the venue's own texts, and their checksum.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use tapeline_schemas::{BookAction, Level, Micros};
use tapeline_stages::book::{BookSide, OrderBook};

use crate::venue::books::{LocalBook, Update};
use crate::venue::json::{Text, level, malformed, seconds};
use crate::venue::{DecodeError, Output};

/// One dictionary of a book message: a snapshot's (`as`, `bs`) or an update's (`a`, `b`, `c`).
#[derive(Deserialize)]
pub(super) struct Sides<'a> {
    #[serde(borrow, rename = "as")]
    pub(super) all_asks: Option<Vec<RawLevel<'a>>>,
    #[serde(borrow, rename = "bs")]
    pub(super) all_bids: Option<Vec<RawLevel<'a>>>,
    #[serde(borrow, default)]
    a: Vec<RawLevel<'a>>,
    #[serde(borrow, default)]
    b: Vec<RawLevel<'a>>,
    #[serde(borrow)]
    c: Option<Cow<'a, str>>,
}

/// A level: price, amount, time, and what may follow.
pub(super) struct RawLevel<'a> {
    price: Text<'a>,
    amount: Text<'a>,
    time: Text<'a>,
}

impl<'de: 'a, 'a> Deserialize<'de> for RawLevel<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawLevel<'a>, D::Error> {
        deserializer.deserialize_seq(LevelVisitor)
    }
}

struct LevelVisitor;

impl<'de> Visitor<'de> for LevelVisitor {
    type Value = RawLevel<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a level of at least three fields")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut fields: A) -> Result<RawLevel<'de>, A::Error> {
        let mut next = |place| {
            let field = fields.next_element::<Text<'de>>()?;
            field.ok_or_else(|| A::Error::invalid_length(place, &self))
        };
        let level = RawLevel { price: next(0)?, amount: next(1)?, time: next(2)? };
        while fields.next_element::<IgnoredAny>()?.is_some() {}
        Ok(level)
    }
}

/// Puts levels with their texts into `book`; `newest` follows their times.
fn put_levels(
    book: &mut OrderBook,
    side: BookSide,
    raw: &[RawLevel<'_>],
    newest: &mut Option<Micros>,
) -> Result<Vec<Level>, DecodeError> {
    raw.iter()
        .map(|RawLevel { price, amount, time }| {
            let checked = level(&price.0, &amount.0)?;
            *newest = (*newest).max(Some(seconds(&time.0)?));
            book.set_with_text(side, checked, &price.0, &amount.0);
            Ok(checked)
        })
        .collect()
}

pub(super) fn apply_snapshot(
    book: &mut LocalBook,
    parts: &[Sides<'_>],
    at: Micros,
    out: &mut Output,
) -> Result<bool, DecodeError> {
    let mut newest = None;
    let (mut bids, mut asks) = (Vec::new(), Vec::new());
    book.levels.clear();
    for sides in parts {
        let levels = &mut book.levels;
        let raw = sides.all_bids.as_deref().unwrap_or_default();
        bids.extend(put_levels(levels, BookSide::Bid, raw, &mut newest)?);
        let raw = sides.all_asks.as_deref().unwrap_or_default();
        asks.extend(put_levels(levels, BookSide::Ask, raw, &mut newest)?);
    }
    let update = update(newest, at, None, bids, asks);
    book.verified(BookAction::Snapshot, update, out);
    Ok(true)
}

/// Applies an update; the answer says whether its checksum is right.
pub(super) fn apply_update(
    book: &mut LocalBook,
    parts: &[Sides<'_>],
    at: Micros,
    depth: usize,
    out: &mut Output,
) -> Result<bool, DecodeError> {
    let mut newest = None;
    let (mut bids, mut asks) = (Vec::new(), Vec::new());
    for sides in parts {
        let levels = &mut book.levels;
        bids.extend(put_levels(levels, BookSide::Bid, &sides.b, &mut newest)?);
        asks.extend(put_levels(levels, BookSide::Ask, &sides.a, &mut newest)?);
    }
    book.levels.truncate(depth);
    let sent = parts.iter().find_map(|sides| sides.c.as_deref());
    let sent = sent.ok_or_else(|| DecodeError::Malformed("update without checksum".to_owned()))?;
    let sent: u32 = sent.parse().map_err(|error| malformed(&error))?;
    if sent != book.levels.checksum() {
        out.stats().checksums_failed.add(1);
        return Ok(false);
    }
    out.stats().checksums_verified.add(1);
    let update = update(newest, at, Some(i64::from(sent)), bids, asks);
    book.verified(BookAction::Delta, update, out);
    Ok(true)
}

fn update(
    newest: Option<Micros>,
    at: Micros,
    checksum: Option<i64>,
    bids: Vec<Level>,
    asks: Vec<Level>,
) -> Update {
    Update {
        first_sequence: None,
        sequence: None,
        checksum,
        event_id: None,
        venue_time: newest.unwrap_or(at),
        receive_time: at,
        bids,
        asks,
    }
}
