//! PostgreSQL's binary `numeric`, read and written.
//!
//! Source: `numeric_send` and `numeric_recv` in PostgreSQL's `src/backend/utils/adt/numeric.c`:
//! count of digits, weight of the first, sign, decimals shown, then digits of base 10,000.

const HEADER_BYTES: usize = 8;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
/// Decimals of the Parquet column, and digits in all: what DuckDB, pandas and Spark all read.
pub(super) const SCALE: i8 = 18;
pub(super) const PRECISION: u8 = 38;
const LIMIT: u128 = 10_u128.pow(PRECISION as u32);
const BASE_DIGITS: i32 = 4;

/// The fields of a `numeric` on the wire.
struct Parts<'a> {
    weight: i32,
    sign: u16,
    digits: &'a [u8],
}

fn parts(field: &[u8]) -> Option<Parts<'_>> {
    let number = |at: usize| Some(u16::from_be_bytes([*field.get(at)?, *field.get(at + 1)?]));
    let count = usize::from(number(0)?);
    let (weight, sign) = (i32::from(number(2)?.cast_signed()), number(4)?);
    let digits = field.get(HEADER_BYTES..HEADER_BYTES + 2 * count)?;
    Some(Parts { weight, sign, digits })
}

impl Parts<'_> {
    fn digits(&self) -> impl ExactSizeIterator<Item = u16> {
        self.digits.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
    }
}

/// What tells two numbers apart: all of the field but the count of decimals shown.
pub(super) fn identity(field: &[u8]) -> [&[u8]; 2] {
    match field.len() {
        0..HEADER_BYTES => [field, &[]],
        _ => [&field[..6], &field[HEADER_BYTES..]],
    }
}

/// Powers of ten that fit 128 bits.
const POWERS: [u128; 39] = {
    let mut powers = [1; 39];
    let mut index = 1;
    while index < powers.len() {
        powers[index] = powers[index - 1] * 10;
        index += 1;
    }
    powers
};

/// The mantissa at scale 18; `None` where the number needs more decimals, more than 38 digits,
/// or is none.
pub(super) fn mantissa(field: &[u8]) -> Option<i128> {
    let parts = parts(field)?;
    if !matches!(parts.sign, 0 | NEGATIVE) {
        return None;
    }
    let mut sum = 0_u128;
    for (index, digit) in parts.digits().enumerate() {
        let power = BASE_DIGITS * (parts.weight - index as i32) + i32::from(SCALE);
        let digit = u128::from(digit);
        let value = match power {
            0.. => digit.checked_mul(*POWERS.get(power.unsigned_abs() as usize)?)?,
            -3..=-1 if digit.is_multiple_of(POWERS[power.unsigned_abs() as usize]) => {
                digit / POWERS[power.unsigned_abs() as usize]
            }
            _ if digit == 0 => 0,
            _ => return None,
        };
        sum = sum.checked_add(value)?;
    }
    if sum >= LIMIT {
        return None;
    }
    let sum = sum.cast_signed();
    Some(if parts.sign == NEGATIVE { -sum } else { sum })
}

/// The number as text with every digit, no trailing zeros; `NaN` and infinities by name.
pub(super) fn text(field: &[u8]) -> Option<String> {
    let mut out = Vec::new();
    if !put_digits(field, &mut out) {
        return None;
    }
    String::from_utf8(out).ok()
}

/// Appends the text of [`text`]; false where the field is no number.
pub(super) fn put_digits(field: &[u8], out: &mut Vec<u8>) -> bool {
    let Some(parts) = parts(field) else { return false };
    let special: &[u8] = match parts.sign {
        0 | NEGATIVE => &[],
        NAN => b"NaN",
        0xD000 => b"Infinity",
        0xF000 => b"-Infinity",
        _ => return false,
    };
    if !special.is_empty() {
        out.extend_from_slice(special);
        return true;
    }
    if parts.sign == NEGATIVE {
        out.push(b'-');
    }
    let start = out.len();
    let digit = |place: i32| {
        let index = usize::try_from(parts.weight - place).ok();
        index.and_then(|index| parts.digits().nth(index)).unwrap_or(0)
    };
    for place in (0..=parts.weight).rev() {
        put_four(digit(place), out.len() == start, out);
    }
    if out.len() == start {
        out.push(b'0');
    }
    let point = out.len();
    out.push(b'.');
    let last = parts.weight - parts.digits().len() as i32 + 1;
    for place in (last..0).rev() {
        put_four(digit(place), false, out);
    }
    while out.len() > point && matches!(out.last(), Some(b'0' | b'.')) {
        out.pop();
    }
    true
}

/// Four digits; without leading zeros, and none of nothing, at the beginning of a number.
fn put_four(value: u16, leading: bool, out: &mut Vec<u8>) {
    let mut begun = !leading;
    for power in [1_000, 100, 10, 1] {
        let digit = (value / power % 10) as u8;
        begun |= digit != 0;
        if begun {
            out.push(b'0' + digit);
        }
    }
}

/// Appends the number that a text of [`text`]'s form says, with its length; false for any other.
pub(super) fn put_text(text: &str, out: &mut Vec<u8>) -> bool {
    let special = match text {
        "NaN" => Some(NAN),
        "Infinity" => Some(0xD000),
        "-Infinity" => Some(0xF000),
        _ => None,
    };
    if let Some(sign) = special {
        put_parts(&[], 0, sign, 0, out);
        return true;
    }
    let (negative, plain) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = plain.split_once('.').unwrap_or((plain, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return false;
    }
    let lead = (4 - whole.len() % 4) % 4;
    let tail = (4 - fraction.len() % 4) % 4;
    let padded = [&"0".repeat(lead), whole, fraction, &"0".repeat(tail)].concat();
    let groups: Vec<u16> = padded
        .as_bytes()
        .chunks(4)
        .map(|four| four.iter().fold(0, |n, b| n * 10 + u16::from(b - b'0')))
        .collect();
    let first = groups.iter().position(|&group| group != 0).unwrap_or(groups.len());
    let last = groups.iter().rposition(|&group| group != 0).map_or(first, |last| last + 1);
    let weight = ((whole.len() + lead) / 4) as i16 - 1 - first as i16;
    let shown = &groups[first..last];
    let weight = if shown.is_empty() { 0 } else { weight };
    let sign = if negative { NEGATIVE } else { 0 };
    put_parts(shown, weight, sign, fraction.trim_end_matches('0').len() as u16, out);
    true
}

fn put_parts(digits: &[u16], weight: i16, sign: u16, decimals: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&((HEADER_BYTES + 2 * digits.len()) as u32).to_be_bytes());
    out.extend_from_slice(&(digits.len() as u16).to_be_bytes());
    out.extend_from_slice(&weight.to_be_bytes());
    out.extend_from_slice(&sign.to_be_bytes());
    out.extend_from_slice(&decimals.to_be_bytes());
    for digit in digits {
        out.extend_from_slice(&digit.to_be_bytes());
    }
}

/// Appends the number of `mantissa` × 10⁻¹⁸, with its length, in the fewest digits.
pub(super) fn put_mantissa(mantissa: i128, out: &mut Vec<u8>) {
    const ONE: u128 = 10_u128.pow(SCALE as u32);
    const FOUR_GROUPS: u128 = 10_u128.pow(16);
    let magnitude = mantissa.unsigned_abs();
    let whole = magnitude / ONE;
    let fraction = (magnitude - whole * ONE) as u64;
    // Five groups before the point; five after it, of which the last holds two decimals. Dividing 64 bits by a
    // constant is many times as fast as 128.
    let mut digits = [0_u16; 10];
    if whole < FOUR_GROUPS {
        put_groups(whole as u64, &mut digits[1..5]);
    } else {
        digits[0] = (whole / FOUR_GROUPS) as u16;
        put_groups((whole % FOUR_GROUPS) as u64, &mut digits[1..5]);
    }
    put_groups(fraction / 100, &mut digits[5..9]);
    digits[9] = (fraction % 100 * 100) as u16;
    let first = digits.iter().position(|&digit| digit != 0).unwrap_or(10);
    let last = digits.iter().rposition(|&digit| digit != 0).map_or(first, |last| last + 1);
    let shown = &digits[first..last];
    let weight = if shown.is_empty() { 0 } else { 4 - first as i16 };
    let sign = if mantissa < 0 { NEGATIVE } else { 0 };
    let zeros = shown.last().map_or(0, |&digit| match digit {
        _ if !digit.is_multiple_of(10) => 0,
        _ if !digit.is_multiple_of(100) => 1,
        _ if !digit.is_multiple_of(1_000) => 2,
        _ => 3,
    });
    let decimals = if shown.is_empty() { 0 } else { (last.saturating_sub(5) * 4) as u16 };
    let decimals = decimals.saturating_sub(zeros);
    put_parts(shown, weight, sign, decimals, out);
}

fn put_groups(mut number: u64, groups: &mut [u16]) {
    for group in groups.iter_mut().rev() {
        *group = (number % 10_000) as u16;
        number /= 10_000;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tapeline_schemas::Money;

    use super::*;

    fn field(text: &str) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(put_text(text, &mut out), "{text}");
        out.split_off(4)
    }

    proptest! {
        #[test]
        fn a_number_survives_the_way_to_parquet_and_back_invariant_10(
            mantissa in -(LIMIT as i128 - 1)..LIMIT as i128,
            shift in 0_u32..38,
        ) {
            let number = mantissa / 10_i128.pow(shift);
            let mut out = Vec::new();
            put_mantissa(number, &mut out);
            let binary = &out[4..];
            prop_assert_eq!(super::mantissa(binary), Some(number));
            let text = super::text(binary).expect("a number");
            prop_assert_eq!(field(&text), binary.to_vec(), "{}", text);
            let money = Money::from_mantissa(number).expect("38 digits").to_string();
            prop_assert_eq!(text, money);
        }

        #[test]
        fn any_text_of_digits_survives(whole in "(0|[1-9][0-9]{0,50})", fraction in "([0-9]{0,40}[1-9])?") {
            let text = if fraction.is_empty() { whole } else { format!("{whole}.{fraction}") };
            prop_assert_eq!(super::text(&field(&text)), Some(text));
        }
    }

    #[test]
    fn nothing_is_shown_of_nothing() {
        let mut out = Vec::new();
        put_mantissa(0, &mut out);
        assert_eq!(out[4..], field("0")[..]);
    }

    #[test]
    fn what_a_decimal_of_38_digits_cannot_hold_is_said_so() {
        for text in ["0.0000000000000000001", "100000000000000000000", "NaN", "Infinity"] {
            assert_eq!(mantissa(&field(text)), None, "{text}");
            assert_eq!(super::text(&field(text)).as_deref(), Some(text));
        }
    }
}
