//! A day of the calendar, UTC.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

const MICROS: i64 = 86_400_000_000;

/// A UTC day: days since 1970-01-01. Written `YYYY-MM-DD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Day(pub i32);

impl Day {
    /// The day that holds a moment, in microseconds since the epoch.
    pub fn of_micros(micros: i64) -> Day {
        Day(micros.div_euclid(MICROS) as i32)
    }

    /// Its first moment, in microseconds since the epoch.
    pub fn start_micros(self) -> i64 {
        i64::from(self.0) * MICROS
    }

    /// The day after.
    pub fn next(self) -> Day {
        Day(self.0 + 1)
    }
}

/// Source of both conversions: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms",
/// `civil_from_days` and `days_from_civil`.
impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = i64::from(self.0) + 719_468;
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted + 2) / 5 + 1;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        write!(f, "{year:04}-{month:02}-{day:02}")
    }
}

impl FromStr for Day {
    type Err = String;

    fn from_str(text: &str) -> Result<Day, String> {
        let wrong = || format!("'{text}' is not a day: expected YYYY-MM-DD");
        let mut parts = text.splitn(3, '-').map(|part| part.parse::<i64>().map_err(|_| wrong()));
        let mut next = || parts.next().ok_or_else(wrong)?;
        let (year, month, day) = (next()?, next()?, next()?);
        if !(1_000..=9_999).contains(&year) || !(1..=12).contains(&month) {
            return Err(wrong());
        }
        let shifted_year = year - i64::from(month <= 2);
        let era = shifted_year.div_euclid(400);
        let year_of_era = shifted_year.rem_euclid(400);
        let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let found = Day((era * 146_097 + day_of_era - 719_468) as i32);
        // the 31st of a shorter month is no day
        if found.to_string() == text { Ok(found) } else { Err(wrong()) }
    }
}

/// A moment, `YYYY-MM-DD` or `YYYY-MM-DDTHH:MM:SS[.ffffff]Z`, in microseconds since the epoch.
pub fn parse_moment(text: &str) -> Result<i64, String> {
    let wrong =
        || format!("'{text}' is not a time: expected YYYY-MM-DD or YYYY-MM-DDTHH:MM:SS[.ffffff]Z");
    let Some((day, time)) = text.split_once('T') else {
        return text.parse().map(Day::start_micros).map_err(|_| wrong());
    };
    let day: Day = day.parse().map_err(|_| wrong())?;
    let time = time.strip_suffix('Z').ok_or_else(wrong)?;
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = clock.split(':').map(|part| part.parse::<u32>().map_err(|_| wrong()));
    let mut next = |limit: u32| {
        parts
            .next()
            .ok_or_else(wrong)?
            .map_err(|_| wrong())
            .and_then(|part| if part < limit { Ok(i64::from(part)) } else { Err(wrong()) })
    };
    let seconds = next(24)? * 3_600 + next(60)? * 60 + next(60)?;
    let digits = fraction.len();
    if !(1..=6).contains(&digits) || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let fraction: i64 = format!("{fraction:0<6}").parse().map_err(|_| wrong())?;
    Ok(day.start_micros() + seconds * 1_000_000 + fraction)
}

impl TryFrom<String> for Day {
    type Error = String;

    fn try_from(text: String) -> Result<Day, String> {
        text.parse()
    }
}

impl From<Day> for String {
    fn from(day: Day) -> String {
        day.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_day_reads_as_it_is_written(days in -354_285_i32..2_932_896) {
            prop_assert_eq!(Day(days).to_string().parse(), Ok(Day(days)));
            prop_assert_eq!(Day::of_micros(Day(days).start_micros()), Day(days));
            prop_assert_eq!(Day::of_micros(Day(days).next().start_micros() - 1), Day(days));
        }
    }

    #[test]
    fn a_moment_is_read_to_the_microsecond() {
        assert_eq!(parse_moment("1970-01-02"), Ok(86_400_000_000));
        assert_eq!(parse_moment("1970-01-01T01:02:03Z"), Ok(3_723_000_000));
        assert_eq!(parse_moment("1970-01-01T00:00:00.25Z"), Ok(250_000));
        for text in ["1970-01-01T24:00:00Z", "1970-01-01T00:00:00", "1970-01-01T00:00:00.Z", "now"]
        {
            assert!(parse_moment(text).is_err(), "{text}");
        }
    }

    #[test]
    fn days_are_those_of_the_calendar() {
        assert_eq!(Day(0).to_string(), "1970-01-01");
        assert_eq!("2024-02-29".parse(), Ok(Day(19_782)));
        for text in ["2023-02-29", "2023-13-01", "2023-1-1", "yesterday", "", "2023-04-31"] {
            assert!(text.parse::<Day>().is_err(), "{text}");
        }
    }
}
