//! Time as records carry it: microseconds since the Unix epoch, UTC (invariant 11).

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A moment: microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Micros(pub i64);

impl Micros {
    /// From milliseconds since the epoch, as most venues stamp; saturates.
    pub const fn from_millis(millis: i64) -> Micros {
        Micros(millis.saturating_mul(1_000))
    }

    /// Reads Unix seconds with up to any number of decimals (`1618678142.557535`), cut to microseconds.
    pub fn from_seconds_text(text: &str) -> Option<Micros> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let seconds: i64 = whole.parse().ok()?;
        let mut micros = 0_i64;
        let mut digits = 0;
        for byte in fraction.bytes() {
            if !byte.is_ascii_digit() {
                return None;
            }
            if digits < 6 {
                micros = micros * 10 + i64::from(byte - b'0');
                digits += 1;
            }
        }
        micros *= 10_i64.pow(6 - digits);
        seconds.checked_mul(1_000_000)?.checked_add(micros).map(Micros)
    }

    /// `self` plus `micros`, saturating.
    pub const fn plus(self, micros: i64) -> Micros {
        Micros(self.0.saturating_add(micros))
    }

    /// Microseconds from `earlier` to `self`, saturating.
    pub const fn since(self, earlier: Micros) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// RFC 3339 in UTC: `2021-04-17T16:49:02.557535Z`.
impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.0.div_euclid(86_400_000_000));
        let micros = self.0.rem_euclid(86_400_000_000);
        let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
    }
}

/// Year, month and day of a count of days since 1970-01-01.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
pub fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

impl Serialize for Micros {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0)
    }
}

/// The length of a candle's window. Windows start at multiples of their length since the epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Timeframe {
    /// One minute, built from trades.
    M1,
    /// Five minutes.
    M5,
    /// Fifteen minutes.
    M15,
    /// One hour.
    H1,
    /// Four hours.
    H4,
    /// One day, UTC.
    D1,
}

impl Timeframe {
    /// Every timeframe, shortest first.
    pub const ALL: [Timeframe; 6] =
        [Timeframe::M1, Timeframe::M5, Timeframe::M15, Timeframe::H1, Timeframe::H4, Timeframe::D1];

    /// The timeframes that are built from one-minute candles.
    pub const LONGER: [Timeframe; 5] =
        [Timeframe::M5, Timeframe::M15, Timeframe::H1, Timeframe::H4, Timeframe::D1];

    /// The name in events and tables: `1m`, `5m`, `15m`, `1h`, `4h`, `1d`.
    pub const fn name(self) -> &'static str {
        match self {
            Timeframe::M1 => "1m",
            Timeframe::M5 => "5m",
            Timeframe::M15 => "15m",
            Timeframe::H1 => "1h",
            Timeframe::H4 => "4h",
            Timeframe::D1 => "1d",
        }
    }

    /// The window's length in microseconds.
    pub const fn micros(self) -> i64 {
        let minutes = match self {
            Timeframe::M1 => 1,
            Timeframe::M5 => 5,
            Timeframe::M15 => 15,
            Timeframe::H1 => 60,
            Timeframe::H4 => 240,
            Timeframe::D1 => 1_440,
        };
        minutes * 60_000_000
    }

    /// The start of the window that holds `time`.
    pub const fn start(self, time: Micros) -> Micros {
        Micros(time.0 - time.0.rem_euclid(self.micros()))
    }

    /// The end (exclusive) of the window that starts at `start`.
    pub const fn end(self, start: Micros) -> Micros {
        start.plus(self.micros())
    }
}

impl fmt::Display for Timeframe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Timeframe {
    type Err = String;

    fn from_str(text: &str) -> Result<Timeframe, String> {
        Timeframe::ALL.into_iter().find(|frame| frame.name() == text).ok_or_else(|| {
            format!("unknown timeframe `{text}`, expected one of 1m, 5m, 15m, 1h, 4h, 1d")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_text_is_cut_to_microseconds_without_a_float() {
        assert_eq!(
            Micros::from_seconds_text("1618678142.557535"),
            Some(Micros(1_618_678_142_557_535))
        );
        assert_eq!(Micros::from_seconds_text("1618678142.5"), Some(Micros(1_618_678_142_500_000)));
        assert_eq!(Micros::from_seconds_text("1618678142"), Some(Micros(1_618_678_142_000_000)));
        assert_eq!(Micros::from_seconds_text("1.1234567"), Some(Micros(1_123_456)));
        assert_eq!(Micros::from_seconds_text("1.x"), None);
        assert_eq!(Micros::from_seconds_text(""), None);
    }

    #[test]
    fn days_are_named_by_the_gregorian_calendar() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (18_734, (2021, 4, 17)),
            (11_016, (2000, 2, 29)),
            (-1, (1969, 12, 31)),
            (-719_468, (0, 3, 1)),
        ] {
            assert_eq!(civil(days), date);
        }
        let time = Micros(1_618_678_142_557_535);
        assert_eq!(time.to_string(), "2021-04-17T16:49:02.557535Z");
        assert_eq!(Micros(-1).to_string(), "1969-12-31T23:59:59.999999Z");
    }

    #[test]
    fn windows_start_at_multiples_of_their_length_before_and_after_the_epoch() {
        assert_eq!(Timeframe::M1.start(Micros(61_000_000)), Micros(60_000_000));
        assert_eq!(Timeframe::M1.start(Micros(-1)), Micros(-60_000_000));
        assert_eq!(Timeframe::D1.end(Micros(0)), Micros(86_400_000_000));
    }
}
