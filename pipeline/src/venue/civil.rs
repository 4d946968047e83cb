//! Dates as venues write them, without a calendar library: proleptic Gregorian, UTC unless said otherwise.

use tapeline_schemas::Micros;

use super::DecodeError;

const SECOND: i64 = 1_000_000;
/// Korean time is nine hours ahead of UTC all year.
const KOREA: i64 = 9 * 3_600 * SECOND;
const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];

/// A day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Day {
    year: i64,
    /// 1 to 12.
    month: u32,
    /// 1 to 31.
    day: u32,
}

impl Day {
    /// The day, if there is one.
    pub(crate) fn new(year: i64, month: u32, day: u32) -> Option<Day> {
        let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        let days = match month {
            2 => 28 + u32::from(leap),
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return None,
        };
        ((1..=9_999).contains(&year) && (1..=days).contains(&day)).then_some(Day {
            year,
            month,
            day,
        })
    }

    /// From `220527`, as OKX writes expiries.
    pub(crate) fn from_yymmdd(text: &str) -> Option<Day> {
        let [year, month, day] = [text.get(0..2)?, text.get(2..4)?, text.get(4..)?].map(digits);
        (text.len() == 6).then_some(())?;
        Day::new(2_000 + i64::from(year?), month?, day?)
    }

    /// As the pipeline writes an expiry: `3JUN22`, the day without a leading zero.
    pub(crate) fn expiry(self) -> String {
        let month = MONTHS.get(self.month as usize - 1).copied().unwrap_or_default();
        format!("{}{month}{:02}", self.day, self.year.rem_euclid(100))
    }

    /// Days since 1970-01-01 (H. Hinnant, "chrono-compatible low-level date algorithms").
    fn number(self) -> i64 {
        let month = i64::from(self.month);
        let year = self.year - i64::from(month <= 2);
        let era = year.div_euclid(400);
        let of_era = year.rem_euclid(400);
        let of_year =
            (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + i64::from(self.day);
        era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 1 - 719_468
    }
}

/// Year, month and day of a day since 1970-01-01 (H. Hinnant, as above).
pub(crate) fn date(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// Whether a text is an expiry as the pipeline writes it.
pub(crate) fn is_expiry(text: &str) -> bool {
    let number = text.bytes().take_while(u8::is_ascii_digit).count();
    let month = text.get(number..number + 3).is_some_and(|month| MONTHS.contains(&month));
    (1..=2).contains(&number)
        && month
        && text.len() == number + 5
        && text.get(number + 3..).and_then(digits).is_some()
}

fn digits(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
    text.parse().ok()
}

/// A moment of day `date` (`2021-04-17` or `20210417`) at `time` (`16:43:30.244075` or `164330`); decimals of a
/// second beyond microseconds are cut off.
fn moment(date: &str, time: &str) -> Option<Micros> {
    let [date, time] = [(date, '-'), (time, ':')].map(|(text, separator)| {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        (whole.split(separator).collect::<String>(), fraction)
    });
    if date.0.len() != 8 || !date.1.is_empty() || time.0.len() != 6 {
        return None;
    }
    let year = i64::from(digits(date.0.get(0..4)?)?);
    let day = Day::new(year, digits(date.0.get(4..6)?)?, digits(date.0.get(6..8)?)?)?;
    let [hour, minute, second] =
        [time.0.get(0..2)?, time.0.get(2..4)?, time.0.get(4..6)?].map(digits);
    let (hour, minute, second) = (hour?, minute?, second?);
    // A leap second is the first of the next minute.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = day.number() * 86_400 + i64::from(hour * 3_600 + minute * 60 + second);
    let fraction = Micros::from_seconds_text(&format!("0.{}", time.1))?;
    Some(Micros(seconds * SECOND).plus(fraction.0))
}

fn malformed(text: &str) -> DecodeError {
    DecodeError::Malformed(format!("time `{text}`"))
}

/// From `2021-04-17T16:43:30.244075Z` (RFC 3339; no other zone than Z).
pub(crate) fn utc(text: &str) -> Result<Micros, DecodeError> {
    let parts = text.strip_suffix('Z').and_then(|text| text.split_once('T'));
    parts.and_then(|(date, time)| moment(date, time)).ok_or_else(|| malformed(text))
}

/// From a day and a time in Korea.
pub(crate) fn korean(date: &str, time: &str) -> Result<Micros, DecodeError> {
    let local = moment(date, time).ok_or_else(|| malformed(&format!("{date} {time}")))?;
    Ok(local.plus(-KOREA))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read_to_the_microsecond_in_their_zone() {
        assert_eq!(utc("1970-01-01T00:00:00Z"), Ok(Micros(0)));
        assert_eq!(utc("2021-04-17T16:43:30.244075Z"), Ok(Micros(1_618_677_810_244_075)));
        assert_eq!(utc("2000-02-29T23:59:59.9999999Z"), Ok(Micros(951_868_799_999_999)));
        let korean = |date, time| korean(date, time).expect("valid");
        assert_eq!(korean("2021-06-02", "08:43:34.555058"), Micros(1_622_591_014_555_058));
        assert_eq!(korean("20210602", "084334"), Micros(1_622_591_014_000_000));
        for wrong in [
            "2021-04-17T16:43:30.244075",
            "2021-02-29T00:00:00Z",
            "2021-13-01T00:00:00Z",
            "2021-01-01T24:00:00Z",
            "2021-01-01T00:00:00+09:00Z",
            "2021-1-01T000:00:00Z",
            "20é1-01-01T00:00:00Z",
            "",
            "Z",
        ] {
            assert!(utc(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn expiries_are_written_as_the_pipeline_does() {
        let day = Day::from_yymmdd("220603").expect("a day");
        assert_eq!(day.expiry(), "3JUN22");
        assert!(is_expiry("3JUN22") && is_expiry("25DEC26"));
        for wrong in ["JUN22", "325DEC26", "25DEZ26", "25DEC2", "25DEC266", "2５DEC26", ""] {
            assert!(!is_expiry(wrong), "{wrong}");
        }
        for number in [-1, 0, 59, 11_016, 20_812, 47_541] {
            let (year, month, day) = date(number);
            let day = Day::new(year, month as u32, day as u32).expect("a day");
            assert_eq!(day.number(), number);
        }
        for wrong in ["220631", "22063", "2206033", "aa0603", "２２０６"] {
            assert_eq!(Day::from_yymmdd(wrong), None, "{wrong}");
        }
    }
}
