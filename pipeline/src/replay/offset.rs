//! Where a replay begins and ends: offsets in kcat's syntax, and times.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tapeline_schemas::Micros;

/// A place in each partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// The oldest record that the log has.
    Beginning,
    /// Behind the newest record.
    End,
    /// This offset.
    At(i64),
    /// This many offsets before the end; the beginning where there are fewer.
    BeforeEnd(i64),
    /// The first record appended at this time or later, in milliseconds since the epoch.
    Appended(i64),
}

/// An offset as kcat takes it: a place to begin at, or (`e@`) one to end at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offset {
    /// Begins, or ends, as the option says.
    Place(Place),
    /// `e@<ms>`: ends before the first record appended then or later.
    Ends(Place),
}

const SYNTAX: &str = "beginning, end, N, -N (N before the end), s@<ms> or e@<ms> (first appended at that time, in milliseconds since the epoch)";

impl FromStr for Offset {
    type Err = String;

    fn from_str(text: &str) -> Result<Offset, String> {
        let refused = || format!("`{text}` is no offset, expected {SYNTAX}");
        let millis = |digits: &str| match digits.parse::<i64>() {
            Ok(millis) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok(millis),
            _ => Err(refused()),
        };
        if let Some(rest) = text.strip_prefix("s@") {
            return Ok(Offset::Place(Place::Appended(millis(rest)?)));
        }
        if let Some(rest) = text.strip_prefix("e@") {
            return Ok(Offset::Ends(Place::Appended(millis(rest)?)));
        }
        Ok(Offset::Place(match (text, text.strip_prefix('-')) {
            ("beginning", _) => Place::Beginning,
            ("end", _) => Place::End,
            (_, Some(rest)) => Place::BeforeEnd(millis(rest)?),
            (_, None) => Place::At(millis(text)?),
        }))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Offset::Ends(Place::Appended(millis)) => write!(f, "e@{millis}"),
            Offset::Ends(place) | Offset::Place(place) => write!(f, "{place}"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Beginning => f.write_str("beginning"),
            Place::End => f.write_str("end"),
            Place::At(offset) => write!(f, "{offset}"),
            Place::BeforeEnd(count) => write!(f, "-{count}"),
            Place::Appended(millis) => write!(f, "s@{millis}"),
        }
    }
}

const TIME_SYNTAX: &str = "RFC 3339 (2021-04-17T12:00:00Z, 2021-04-17T14:00:00.5+02:00) or a time ago (-2h, -90m, -30s, -7d)";

/// Reads a time, to the microsecond; one that is so long ago, counted from `now`.
pub fn parse_time(text: &str, now: Micros) -> Result<Micros, String> {
    let refused = || format!("`{text}` is no time, expected {TIME_SYNTAX}");
    if let Some(ago) = text.strip_prefix('-') {
        let (digits, unit) =
            ago.split_at(ago.trim_end_matches(|c: char| !c.is_ascii_digit()).len());
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            _ => return Err(refused()),
        };
        let count = number(digits).ok_or_else(refused)?;
        let micros = count.checked_mul(seconds).and_then(|s| s.checked_mul(1_000_000));
        return Ok(now.plus(-micros.ok_or_else(refused)?));
    }
    rfc3339(text).ok_or_else(refused)
}

fn number(digits: &str) -> Option<i64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

fn rfc3339(text: &str) -> Option<Micros> {
    let (date, rest) = (text.get(..10)?, text.get(11..)?);
    if !matches!(text.as_bytes()[10], b'T' | b't' | b' ') {
        return None;
    }
    let days = days(date)?;
    let (time, zone_micros) = match rest.strip_suffix(['Z', 'z']) {
        Some(time) => (time, 0),
        None => {
            let at = rest.rfind(['+', '-'])?;
            let (hours, minutes) = rest[at + 1..].split_once(':')?;
            let minutes = two(hours, 23)? * 60 + two(minutes, 59)?;
            let sign = if rest.as_bytes()[at] == b'-' { -1 } else { 1 };
            (&rest[..at], sign * minutes * 60_000_000)
        }
    };
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut parts = clock.split(':');
    let (hour, minute, second) =
        (two(parts.next()?, 23)?, two(parts.next()?, 59)?, two(parts.next()?, 59)?);
    number(fraction)?;
    let micros = fraction.bytes().chain(std::iter::repeat(b'0')).take(6);
    let micros = micros.fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
    parts.next().is_none().then_some(Micros(seconds * 1_000_000 + micros - zone_micros))
}

fn two(digits: &str, largest: i64) -> Option<i64> {
    (digits.len() == 2).then(|| number(digits)).flatten().filter(|&value| value <= largest)
}

/// Days since 1970-01-01 of `YYYY-MM-DD`.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `days_from_civil`.
fn days(date: &str) -> Option<i64> {
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let (year, month, day) = (number(year)?, two(month, 12)?, two(day, 31)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if parts.next().is_some() || month == 0 || day == 0 || day > longest {
        return None;
    }
    let shifted_year = year - i64::from(month <= 2);
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Micros = Micros(1_700_000_000_000_000);

    #[test]
    fn offsets_are_those_of_kcat() {
        for (text, offset) in [
            ("beginning", Offset::Place(Place::Beginning)),
            ("end", Offset::Place(Place::End)),
            ("0", Offset::Place(Place::At(0))),
            ("-2000", Offset::Place(Place::BeforeEnd(2_000))),
            ("s@1618678142557", Offset::Place(Place::Appended(1_618_678_142_557))),
            ("e@1618678142557", Offset::Ends(Place::Appended(1_618_678_142_557))),
        ] {
            assert_eq!(text.parse(), Ok(offset), "{text}");
        }
        for text in
            ["", "-", "--1", "+1", "1.5", "s@", "s@-1", "e@x", "Beginning", "9223372036854775808"]
        {
            let refused = text.parse::<Offset>().expect_err(text);
            assert!(refused.contains(&format!("`{text}`")) && refused.contains("-N"), "{refused}");
        }
    }

    #[test]
    fn times_are_rfc_3339_or_ago() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2021-04-17T12:00:00Z", 1_618_660_800_000_000),
            ("2021-04-17 14:00:00.25+02:00", 1_618_660_800_250_000),
            ("2020-02-29t23:59:59.999999999-01:30", 1_583_026_199_999_999),
            ("1969-12-31T23:59:59.5Z", -500_000),
            ("-2h", NOW.0 - 7_200_000_000),
            ("-7d", NOW.0 - 7 * 86_400_000_000),
        ] {
            assert_eq!(parse_time(text, NOW), Ok(Micros(micros)), "{text}");
        }
        for text in [
            "",
            "now",
            "-2",
            "-h",
            "-2w",
            "2h",
            "2021-04-17",
            "2021-04-17T12:00:00",
            "2021-02-29T00:00:00Z",
            "2021-04-31T00:00:00Z",
            "2021-13-01T00:00:00Z",
            "2021-04-17T24:00:00Z",
            "2021-04-17T12:00Z",
            "2021-04-17T12:00:00.Z",
            "2021-04-17T12:00:00+2:00",
            "-9223372036854775807d",
            "ä021-04-17T12:00:00Z",
        ] {
            let refused = parse_time(text, NOW).expect_err(text);
            assert!(refused.contains("RFC 3339"), "{refused}");
        }
    }

    fn any_offset() -> impl Strategy<Value = Offset> {
        let number = 0..=i64::MAX;
        prop_oneof![
            Just(Offset::Place(Place::Beginning)),
            Just(Offset::Place(Place::End)),
            number.clone().prop_map(|n| Offset::Place(Place::At(n))),
            number.clone().prop_map(|n| Offset::Place(Place::BeforeEnd(n))),
            number.clone().prop_map(|n| Offset::Place(Place::Appended(n))),
            number.prop_map(|n| Offset::Ends(Place::Appended(n))),
        ]
    }

    proptest! {
        #[test]
        fn an_offset_is_read_as_it_is_written(offset in any_offset()) {
            prop_assert_eq!(offset.to_string().parse(), Ok(offset));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in "\\PC*") {
            let _ = text.parse::<Offset>();
            let _ = parse_time(&text, NOW);
        }

        #[test]
        fn text_of_the_alphabet_is_an_offset_only_if_it_says_so_again(text in "[se]?@?-?[0-9]{0,20}") {
            if let Ok(offset) = text.parse::<Offset>() {
                let digits = |text: &str| text.trim_start_matches(|c: char| !c.is_ascii_digit()).trim_start_matches('0').to_owned();
                prop_assert_eq!(digits(&offset.to_string()), digits(&text));
            }
        }

        #[test]
        fn every_date_follows_the_one_before(day in -700_000_i64..2_900_000) {
            // Against an independent count: months by their lengths.
            let (mut year, mut left) = (0_i64, day + 719_528);
            let length = |year: i64| if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) { 366 } else { 365 };
            while left >= length(year) {
                left -= length(year);
                year += 1;
            }
            let mut month = 1;
            let lengths = |month| match month { 2 => length(year) - 337, 4 | 6 | 9 | 11 => 30, _ => 31 };
            while left >= lengths(month) {
                left -= lengths(month);
                month += 1;
            }
            prop_assert_eq!(days(&format!("{year:04}-{month:02}-{:02}", left + 1)), Some(day));
        }
    }
}
