//! Control records: what connectors write into the raw partitions beside events.
//! The value is empty and all is in headers, so that other clients see tombstones.

use thiserror::Error;

pub use crate::event::GapState;
use crate::{Micros, headers};

/// A control record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// Every event of the venue with a time up to `through` has been published to this partition before.
    Complete {
        /// Venue, upper case.
        venue: String,
        /// Covered up to here, inclusive.
        through: Micros,
    },
    /// A hole in a symbol's feed changed.
    Gap(GapChange),
}

/// One change in the life of a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GapChange {
    /// Venue, upper case.
    pub venue: String,
    /// `BASE-QUOTE`.
    pub symbol: String,
    /// Kind of events: `trade`, `ticker`, `book`.
    pub channel: String,
    /// What happened.
    pub state: GapState,
    /// Last moment known to be covered before the hole; with venue, symbol and channel the hole's identity.
    pub from: Micros,
    /// Moment from which the feed is whole again; known once it ended.
    pub to: Option<Micros>,
    /// Why it opened.
    pub cause: String,
    /// What filled it.
    pub filled_by: Option<String>,
}

/// Why headers are no control record.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ControlError {
    /// A record without a value must be a control record.
    #[error("an empty value without the header {}", headers::CONTROL)]
    Absent,
    /// The header's value is unknown.
    #[error("unknown control record `{0}`")]
    Unknown(String),
    /// A header that this control record needs is missing or unreadable.
    #[error("control record without a valid header {0}")]
    Header(&'static str),
}

const COMPLETE: &str = "complete";
const GAP_PREFIX: &str = "gap-";

impl Control {
    /// The record's headers, as written.
    pub fn to_headers(&self) -> Vec<(&'static str, String)> {
        match self {
            Control::Complete { venue, through } => vec![
                (headers::CONTROL, COMPLETE.to_owned()),
                (headers::VENUE, venue.clone()),
                (headers::THROUGH, through.0.to_string()),
            ],
            Control::Gap(gap) => {
                let mut out = vec![
                    (headers::CONTROL, format!("{GAP_PREFIX}{}", gap.state.name())),
                    (headers::VENUE, gap.venue.clone()),
                    (headers::SYMBOL, gap.symbol.clone()),
                    (headers::CHANNEL, gap.channel.clone()),
                    (headers::FROM, gap.from.0.to_string()),
                    (headers::CAUSE, gap.cause.clone()),
                ];
                out.extend(gap.to.map(|to| (headers::TO, to.0.to_string())));
                out.extend(gap.filled_by.clone().map(|by| (headers::FILLED_BY, by)));
                out
            }
        }
    }

    /// Reads a control record; `get` finds a header's value by its name.
    pub fn from_headers<'a>(
        get: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<Control, ControlError> {
        let text = |name: &'static str| {
            get(name).filter(|v| !v.is_empty()).map(str::to_owned).ok_or(ControlError::Header(name))
        };
        let time = |name: &'static str| {
            get(name).and_then(|v| v.parse().ok()).map(Micros).ok_or(ControlError::Header(name))
        };
        let what = get(headers::CONTROL).ok_or(ControlError::Absent)?;
        if what == COMPLETE {
            return Ok(Control::Complete {
                venue: text(headers::VENUE)?,
                through: time(headers::THROUGH)?,
            });
        }
        let state = what
            .strip_prefix(GAP_PREFIX)
            .and_then(GapState::from_name)
            .ok_or_else(|| ControlError::Unknown(what.to_owned()))?;
        let to = match get(headers::TO) {
            Some(_) => Some(time(headers::TO)?),
            None if state == GapState::Opened => None,
            None => return Err(ControlError::Header(headers::TO)),
        };
        Ok(Control::Gap(GapChange {
            venue: text(headers::VENUE)?,
            symbol: text(headers::SYMBOL)?,
            channel: text(headers::CHANNEL)?,
            state,
            from: time(headers::FROM)?,
            to,
            cause: text(headers::CAUSE)?,
            filled_by: get(headers::FILLED_BY).map(str::to_owned),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(written: &[(&'static str, String)]) -> Result<Control, ControlError> {
        Control::from_headers(|name| {
            written.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str())
        })
    }

    #[test]
    fn every_control_record_is_read_as_written() {
        let gap = GapChange {
            venue: "KRAKEN".to_owned(),
            symbol: "BTC-CHF".to_owned(),
            channel: "trade".to_owned(),
            state: GapState::Opened,
            from: Micros(1),
            to: None,
            cause: "disconnect".to_owned(),
            filled_by: None,
        };
        let ended = GapChange { state: GapState::Ended, to: Some(Micros(2)), ..gap.clone() };
        let filled = GapChange {
            state: GapState::Filled,
            filled_by: Some("backfill".to_owned()),
            ..ended.clone()
        };
        let complete = Control::Complete { venue: "UPBIT".to_owned(), through: Micros(-5) };
        for control in [complete, Control::Gap(gap), Control::Gap(ended), Control::Gap(filled)] {
            assert_eq!(read(&control.to_headers()), Ok(control));
        }
    }

    #[test]
    fn an_empty_value_that_is_no_control_record_is_refused() {
        assert_eq!(read(&[]), Err(ControlError::Absent));
        let bad = [(headers::CONTROL, "complete".to_owned())];
        assert_eq!(read(&bad), Err(ControlError::Header(headers::VENUE)));
        let bad = [(headers::CONTROL, "party".to_owned())];
        assert_eq!(read(&bad), Err(ControlError::Unknown("party".to_owned())));
    }
}
