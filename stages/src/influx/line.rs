//! InfluxDB's line protocol: `measurement,tag=value field=value,field="text" nanoseconds`.
//!
//! <https://docs.influxdata.com/influxdb/v1/write_protocols/line_protocol_reference/>

use std::fmt::{Display, Write as _};

use tapeline_schemas::Micros;
use xxhash_rust::xxh3::xxh3_64;

use crate::flow::Reject;

/// What a record that the line protocol cannot express is refused as.
const LINE: &str = "line_protocol";

/// Nanoseconds in a microsecond: places for events of one microsecond.
const PLACES: u64 = 1_000;
/// Lanes of ids that are numbers, which count up: events of one symbol and microsecond share a
/// point only if their ids are a multiple of 16,000 apart.
const NUMBER_LANES: u64 = 16;
/// Lanes of ids that are text, whose hash says the place: two events of one symbol and
/// microsecond share a point with a chance of one in 4,096,000.
const TEXT_LANES: u64 = 4_096;

/// Where an event of a microsecond goes, so that others of the same one are not replaced by it.
/// It is a function of the event's identity alone: the same event always makes the same point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Added to the time, 0 to 999 ns.
    pub(super) nanos: u64,
    /// A tag, so that there are more than 1,000 places without a series for each event.
    pub(super) lane: u64,
}

impl Place {
    /// By the venue's id, or by the raw offset of an event that has none.
    pub(super) fn of(id: Option<&str>, origin: i64) -> Place {
        let (number, lanes) = match id {
            None => (origin.unsigned_abs(), NUMBER_LANES),
            // A book's best levels are named after the update they show.
            Some(id) => match number(id.strip_prefix("top-").unwrap_or(id)) {
                Some(number) => (number, NUMBER_LANES),
                None => (xxh3_64(id.as_bytes()), TEXT_LANES),
            },
        };
        Place { nanos: number % PLACES, lane: number / PLACES % lanes }
    }
}

/// Digits without leading zeros: `7` and `07` are two ids.
fn number(id: &str) -> Option<u64> {
    let digits = id.bytes().all(|byte| byte.is_ascii_digit());
    (digits && (id == "0" || !id.starts_with('0'))).then(|| id.parse().ok()).flatten()
}

/// One line being written: the measurement, tags, fields, and the time at last.
pub(super) struct Line<'b> {
    out: &'b mut String,
    has_field: bool,
}

impl<'b> Line<'b> {
    pub(super) fn begin(measurement: &str, out: &'b mut String) -> Line<'b> {
        out.push_str(measurement);
        Line { out, has_field: false }
    }

    /// A tag. Backslashes and control characters cannot be told from what they escape or end.
    pub(super) fn tag(&mut self, name: &str, value: &str) -> Result<(), Reject> {
        if value.is_empty() || value.bytes().any(|byte| byte == b'\\' || byte < b' ') {
            let detail = format!(
                "{name} {value:?} cannot be a tag: it is empty or has a backslash or a control character"
            );
            return Err(Reject::new(LINE, detail));
        }
        self.out.push(',');
        self.out.push_str(name);
        self.out.push('=');
        for character in value.chars() {
            if matches!(character, ',' | '=' | ' ') {
                self.out.push('\\');
            }
            self.out.push(character);
        }
        Ok(())
    }

    /// The lane as a tag.
    pub(super) fn lane(&mut self, place: Place) {
        // Writing to memory cannot fail.
        let _ = write!(self.out, ",lane={}", place.lane);
    }

    fn field(&mut self, name: &str, value: impl Display) {
        let before = if self.has_field { ',' } else { ' ' };
        self.has_field = true;
        let _ = write!(self.out, "{before}{name}={value}");
    }

    /// A number, digit for digit; the server keeps the nearest double.
    pub(super) fn float(&mut self, name: &str, value: impl Display) {
        self.field(name, value);
    }

    /// The same, where there is one.
    pub(super) fn float_if(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.float(name, value);
        }
    }

    /// A whole number of 64 bits.
    pub(super) fn integer(&mut self, name: &str, value: i64) {
        self.field(name, format_args!("{value}i"));
    }

    /// The same, where there is one.
    pub(super) fn integer_if(&mut self, name: &str, value: Option<i64>) {
        if let Some(value) = value {
            self.integer(name, value);
        }
    }

    /// True or false.
    pub(super) fn boolean(&mut self, name: &str, value: bool) {
        self.field(name, value);
    }

    /// Text.
    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.field(name, "\"");
        for character in value.chars() {
            if matches!(character, '"' | '\\') {
                self.out.push('\\');
            }
            self.out.push(character);
        }
        self.out.push('"');
    }

    /// The same, where there is one.
    pub(super) fn text_if(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(name, value);
        }
    }

    /// The time, and with it the end of the line.
    pub(super) fn end(self, time: Micros, nanos: u64) -> Result<(), Reject> {
        let time = time.0.checked_mul(1_000).and_then(|time| time.checked_add_unsigned(nanos));
        let time = time.ok_or_else(|| Reject::new(LINE, "time is out of range of nanoseconds"))?;
        let _ = writeln!(self.out, " {time}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_separates_is_escaped_and_what_cannot_be_is_refused() {
        let mut out = String::new();
        let mut line = Line::begin("trade", &mut out);
        line.tag("symbol", "A B,C=D-É").expect("can be escaped");
        line.text("note", "a \"b\" \\ c");
        line.float_if("none", None::<i64>);
        line.integer("count", -3);
        line.boolean("final", true);
        line.end(Micros(1_000_000), 999).expect("in range");
        let expected = "trade,symbol=A\\ B\\,C\\=D-É note=\"a \\\"b\\\" \\\\ c\",count=-3i,final=true 1000000999\n";
        assert_eq!(out, expected);
        for value in ["", "a\\", "a\nb"] {
            let mut out = String::new();
            let refused = Line::begin("trade", &mut out).tag("symbol", value).expect_err("refused");
            assert!(refused.detail.contains("symbol"), "{}", refused.detail);
        }
        assert!(Line::begin("trade", &mut out).end(Micros(i64::MAX), 0).is_err());
    }

    #[test]
    fn ids_that_look_alike_have_places_of_their_own() {
        let ids = ["7", "07", "007", "1618678142557535-354.11-0.89594024-s-l-0", "x7"];
        let places: HashSet<_> = ids
            .iter()
            .map(|id| Place::of(Some(id), 0))
            .map(|place| (place.nanos, place.lane))
            .collect();
        assert_eq!(places.len(), ids.len());
        assert_eq!(Place::of(Some("top-16001"), 5), Place { nanos: 1, lane: 0 });
        assert_eq!(Place::of(None, 15_999), Place { nanos: 999, lane: 15 });
    }

    proptest! {
        /// S5: as many trades of one microsecond as no venue ever sent stay apart.
        #[test]
        fn ids_that_count_up_stay_apart_within_16000(first in 0_u64..=u64::MAX / 2, apart in 1_u64..16_000) {
            let place = |id: u64| Place::of(Some(&id.to_string()), 0);
            prop_assert_ne!(place(first), place(first + apart));
        }
    }
}
