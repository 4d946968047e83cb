//! Reading JSON without floats: numbers keep the venue's own digits.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use tapeline_schemas::{Level, Micros, Money};

use super::DecodeError;

/// A text inside a list, borrowed from the message where it has no escapes.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

impl AsRef<str> for Text<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Reads a value of `T` from a message.
pub(super) fn parse<'a, T: Deserialize<'a>>(message: &'a [u8]) -> Result<T, DecodeError> {
    // Once for the whole message, not for each text in it.
    let text = std::str::from_utf8(message).map_err(|error| malformed(&error))?;
    serde_json::from_str(text).map_err(|error| malformed(&error))
}

/// Reads a value of `T` from a part of a message.
pub(super) fn part<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Result<T, DecodeError> {
    serde_json::from_str(raw.get()).map_err(|error| malformed(&error))
}

/// As [`DecodeError::Malformed`].
pub(super) fn malformed(error: &dyn std::fmt::Display) -> DecodeError {
    DecodeError::Malformed(error.to_string())
}

/// An exact number from its text.
pub(super) fn money(text: &str) -> Result<Money, DecodeError> {
    Money::parse(text.as_bytes()).map_err(|error| malformed(&error))
}

/// An exact number from JSON, written as a number or as a text, digit for digit.
pub(super) fn number(raw: &RawValue) -> Result<Money, DecodeError> {
    let text = raw.get();
    let text = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
    money(text)
}

/// A number of a table of symbols; none where it is absent or no number, which the table's other rows survive.
pub(super) fn figure(text: Option<&str>) -> Option<Money> {
    Money::parse(text?.as_bytes()).ok()
}

/// The same from JSON, written as a number or as a text.
pub(super) fn raw_figure(raw: Option<&RawValue>) -> Option<Money> {
    number(raw?).ok()
}

/// A level from its texts; prices are positive and amounts not negative in any book.
pub(super) fn level(price: &str, amount: &str) -> Result<Level, DecodeError> {
    checked_level(Level { price: money(price)?, amount: money(amount)? })
}

/// A level, if a book can hold it.
pub(super) fn checked_level(level: Level) -> Result<Level, DecodeError> {
    if level.price.is_positive() && level.amount >= Money::ZERO {
        Ok(level)
    } else {
        Err(DecodeError::Malformed(format!("level {} at {}", level.amount, level.price)))
    }
}

/// A number that may be left out or empty.
pub(super) fn optional(text: Option<&str>) -> Result<Option<Money>, DecodeError> {
    text.filter(|text| !text.is_empty()).map(money).transpose()
}

/// A moment from a text of milliseconds.
pub(super) fn millis(text: &str) -> Result<Micros, DecodeError> {
    let millis = text.parse().ok();
    millis.map(Micros::from_millis).ok_or_else(|| DecodeError::Malformed(format!("time `{text}`")))
}

/// A moment from a text of seconds with decimals.
pub(super) fn seconds(text: &str) -> Result<Micros, DecodeError> {
    Micros::from_seconds_text(text).ok_or_else(|| DecodeError::Malformed(format!("time `{text}`")))
}
