//! A field of a binary COPY as text, as CSV and JSON lines show it.

use anyhow::{Context as _, Result, bail, ensure};

use super::batch::{fixed, texts};
use super::columns::ColumnType;
use super::day::Day;
use super::numeric;

/// Microseconds and days from 1970 to PostgreSQL's epoch, 2000-01-01.
pub(super) const EPOCH_MICROS: i64 = 946_684_800_000_000;
pub(super) const EPOCH_DAYS: i32 = 10_957;
pub(super) const JSONB_VERSION: u8 = 1;
const SECOND: i64 = 1_000_000;

/// The day that was written last, and its text: neighbouring rows are of the same day.
#[derive(Debug, Default)]
pub(super) struct DayText(Option<(Day, [u8; 10])>);

/// Appends the text of a field. Times are RFC 3339 with microseconds, numbers have all digits and
/// no trailing zeros.
pub(super) fn put_text(
    kind: ColumnType,
    field: &[u8],
    day: &mut DayText,
    out: &mut Vec<u8>,
) -> Result<()> {
    match kind {
        ColumnType::Text => out.extend_from_slice(field),
        ColumnType::Boolean => {
            let is_true = fixed::<1>("boolean", field)?[0] != 0;
            out.extend_from_slice(if is_true { b"true" } else { b"false" });
        }
        ColumnType::Smallint => put_integer(i16::from_be_bytes(fixed("smallint", field)?), out),
        ColumnType::Integer => put_integer(i32::from_be_bytes(fixed("integer", field)?), out),
        ColumnType::Bigint => put_integer(i64::from_be_bytes(fixed("bigint", field)?), out),
        ColumnType::Timestamp => {
            let micros = i64::from_be_bytes(fixed("timestamp", field)?);
            let micros = micros.checked_add(EPOCH_MICROS).context("an infinite time")?;
            put_moment(micros, day, out);
        }
        ColumnType::Date => {
            let days = i32::from_be_bytes(fixed("date", field)?);
            let days = days.checked_add(EPOCH_DAYS).context("an infinite date")?;
            out.extend_from_slice(Day(days).to_string().as_bytes());
        }
        ColumnType::Decimal | ColumnType::NumericText => {
            ensure!(numeric::put_digits(field, out), "a field that is no numeric");
        }
        ColumnType::Json => match field.split_first() {
            Some((&JSONB_VERSION, text)) => out.extend_from_slice(text),
            _ => bail!("a jsonb of an unknown version"),
        },
        ColumnType::Uuid => put_uuid(fixed("uuid", field)?, out),
        ColumnType::Texts => {
            for (index, text) in texts("text[]", field)?.into_iter().enumerate() {
                if index > 0 {
                    out.push(b' ');
                }
                out.extend_from_slice(text.as_bytes());
            }
        }
    }
    Ok(())
}

fn put_integer(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn put_moment(micros: i64, last: &mut DayText, out: &mut Vec<u8>) {
    let day = Day::of_micros(micros);
    match &last.0 {
        Some((known, text)) if *known == day => out.extend_from_slice(text),
        _ => {
            let text = day.to_string();
            out.extend_from_slice(text.as_bytes());
            last.0 = text.as_bytes().try_into().ok().map(|text| (day, text));
        }
    }
    let rest = micros - day.start_micros();
    let (seconds, mut fraction) = (rest / SECOND, rest % SECOND);
    let two = |value: i64| [b'0' + (value / 10) as u8, b'0' + (value % 10) as u8];
    let [hours, minutes, seconds] = [seconds / 3_600, seconds / 60 % 60, seconds % 60].map(two);
    let mut text = *b"T00:00:00.000000Z";
    text[1..3].copy_from_slice(&hours);
    text[4..6].copy_from_slice(&minutes);
    text[7..9].copy_from_slice(&seconds);
    for digit in text[10..16].iter_mut().rev() {
        *digit = b'0' + (fraction % 10) as u8;
        fraction /= 10;
    }
    out.extend_from_slice(&text);
}

/// Groups of 8, 4, 4, 4 and 12 hexadecimal digits (RFC 9562).
pub(super) fn put_uuid(bytes: [u8; 16], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (index, byte) in bytes.into_iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

/// The bytes of a UUID's text; `None` for any other text.
pub(super) fn uuid_bytes(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0_u8; 16];
    let digits = text.bytes().filter(|byte| *byte != b'-');
    let mut count = 0;
    for digit in digits {
        let value = char::from(digit).to_digit(16)? as u8;
        *bytes.get_mut(count / 2)? |= if count % 2 == 0 { value << 4 } else { value };
        count += 1;
    }
    (count == 32).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(kind: ColumnType, field: &[u8]) -> String {
        let mut out = Vec::new();
        put_text(kind, field, &mut DayText::default(), &mut out).expect("a field");
        String::from_utf8(out).expect("text")
    }

    proptest! {
        #[test]
        fn a_moment_is_written_as_it_is_read(micros in -30_000_000_000_000_000_i64..200_000_000_000_000_000) {
            let text = shown(ColumnType::Timestamp, &(micros - EPOCH_MICROS).to_be_bytes());
            prop_assert_eq!(super::super::parse_moment(&text), Ok(micros));
        }

        #[test]
        fn a_uuid_is_written_as_it_is_read(bytes: [u8; 16]) {
            prop_assert_eq!(uuid_bytes(&shown(ColumnType::Uuid, &bytes)), Some(bytes));
        }
    }

    #[test]
    fn a_time_of_the_same_day_takes_the_text_of_the_one_before() {
        let (mut day, mut out) = (DayText::default(), Vec::new());
        for micros in [1_i64, 86_399_999_999, 86_400_000_000] {
            let field = (micros - EPOCH_MICROS).to_be_bytes();
            put_text(ColumnType::Timestamp, &field, &mut day, &mut out).expect("a time");
            out.push(b' ');
        }
        assert_eq!(
            String::from_utf8_lossy(&out),
            "1970-01-01T00:00:00.000001Z 1970-01-01T23:59:59.999999Z 1970-01-02T00:00:00.000000Z "
        );
    }
}
