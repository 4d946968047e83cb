//! PostgreSQL's binary `numeric`, straight from the mantissa (invariant 10).
//!
//! Source: `numeric_recv` in PostgreSQL's `src/backend/utils/adt/numeric.c`: four 16-bit
//! numbers (count of digits, weight of the first, sign, decimals shown), then digits of
//! base 10,000.

use tapeline_schemas::{Money, Wide};

const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;
const BASE: u64 = 10_000;
const ONE: u128 = 10_u128.pow(18);
/// Digits of base 10,000 that hold the 18 decimals of [`Money`], the last one half used.
const MONEY_FRACTION: usize = 5;
/// Digits before and after the point of the largest [`Money`]: below 10²⁰.
const MONEY_DIGITS: usize = 5 + MONEY_FRACTION;
/// The same for [`Wide`]: below 10⁴⁰, with 36 decimals.
const WIDE_DIGITS: usize = 10 + 9;

/// Appends `value` as a field, with its length.
#[inline]
pub(super) fn put_money(value: Money, out: &mut Vec<u8>) {
    let magnitude = value.mantissa().unsigned_abs();
    let (whole, fraction) = match u64::try_from(magnitude) {
        Ok(small) => (u128::from(small / ONE as u64), small % ONE as u64),
        Err(_) => (magnitude / ONE, (magnitude % ONE) as u64),
    };
    let mut digits = [0_u16; MONEY_DIGITS];
    // 18 decimals are four digits of base 10,000 and a half: the last one stands for two more zeros.
    digits[MONEY_DIGITS - 1] = (fraction % 100 * 100) as u16;
    let mut rest = fraction / 100;
    for digit in digits[5..MONEY_DIGITS - 1].iter_mut().rev() {
        *digit = (rest % BASE) as u16;
        rest /= BASE;
    }
    put_whole(whole, &mut digits[..5]);
    put_digits(value.mantissa() < 0, &digits, 5, out);
}

/// Appends `value` as a field, with its length.
pub(super) fn put_wide(value: Wide, out: &mut Vec<u8>) {
    let mut rest = value.mantissa().unsigned_abs();
    let base = ethnum::U256::from(BASE);
    let mut digits = [0_u16; WIDE_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = (rest % base).as_u16();
        rest /= base;
    }
    put_digits(value.mantissa() < 0, &digits, 10, out);
}

#[inline]
fn put_whole(whole: u128, digits: &mut [u16]) {
    let (high, mut low) = match u64::try_from(whole) {
        Ok(low) => (0, low),
        // 10²⁰ is more than 64 bits hold: the upper four decimals go apart.
        Err(_) => ((whole / 10_u128.pow(16)) as u16, (whole % 10_u128.pow(16)) as u64),
    };
    if high > 0 {
        digits[0] = high;
    }
    let last = if high > 0 { 1 } else { 0 };
    for digit in digits[last..].iter_mut().rev() {
        if low == 0 {
            break;
        }
        *digit = (low % BASE) as u16;
        low /= BASE;
    }
}

/// `digits` of base 10,000, `whole` of them before the point.
#[inline]
fn put_digits(negative: bool, digits: &[u16], whole: usize, out: &mut Vec<u8>) {
    let last = digits.iter().rposition(|&digit| digit != 0).map_or(0, |last| last + 1);
    let first = digits[..last].iter().position(|&digit| digit != 0).unwrap_or(last);
    let shown = &digits[first..last];
    let weight = if shown.is_empty() { 0 } else { whole as i16 - 1 - first as i16 };
    let sign = if negative { NEGATIVE } else { POSITIVE };
    out.extend_from_slice(&(8 + 2 * shown.len() as u32).to_be_bytes());
    out.extend_from_slice(&(shown.len() as u16).to_be_bytes());
    out.extend_from_slice(&weight.to_be_bytes());
    out.extend_from_slice(&sign.to_be_bytes());
    out.extend_from_slice(&decimals(digits, whole, last).to_be_bytes());
    for digit in shown {
        out.extend_from_slice(&digit.to_be_bytes());
    }
}

/// Decimals to show: up to the last one that is not zero.
#[inline]
fn decimals(digits: &[u16], whole: usize, last: usize) -> u16 {
    if last <= whole {
        return 0;
    }
    let tail = digits[last - 1];
    let zeros = match tail {
        _ if !tail.is_multiple_of(10) => 0,
        _ if !tail.is_multiple_of(100) => 1,
        _ if !tail.is_multiple_of(1_000) => 2,
        _ => 3,
    };
    (last - whole) as u16 * 4 - zeros
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text PostgreSQL would print, from the fields alone.
    fn shown(bytes: &[u8]) -> String {
        let field = |at: usize| i16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let (count, weight, scale) = (field(4), field(6), field(10) as usize);
        let digit = |power: i16| {
            let index = weight - power;
            if (0..count).contains(&index) { field(12 + 2 * index as usize) } else { 0 }
        };
        let whole: String = (0..=weight.max(0)).rev().map(|p| format!("{:04}", digit(p))).collect();
        let fraction: String = (1..=20).map(|p| format!("{:04}", digit(-p))).collect();
        let whole = whole.trim_start_matches('0');
        let whole = if whole.is_empty() { "0" } else { whole };
        let sign = if field(8) != 0 { "-" } else { "" };
        let point = if scale > 0 { "." } else { "" };
        format!("{sign}{whole}{point}{}", &fraction[..scale])
    }

    #[test]
    fn the_encoding_shows_every_digit() {
        for text in [
            "0",
            "1",
            "-1",
            "10000",
            "100000000",
            "9999.9999",
            "0.000000000000000001",
            "-0.0000000000000001",
            "12345678.87654321",
            "60000",
            "1000000000000000000",
            "18446744073709551616",
            "99999999999999999999.999999999999999999",
            "10000000000000000000.00000000000000001",
        ] {
            let mut out = Vec::new();
            put_money(text.parse().expect("valid in this test"), &mut out);
            assert_eq!(shown(&out), text);
            assert_eq!(out.len() as u32 - 4, u32::from_be_bytes([out[0], out[1], out[2], out[3]]));
        }
    }

    #[test]
    fn the_encoding_shows_every_digit_of_a_turnover() {
        for text in ["0", "-0.000000000000000000000000000000000001", "10000", "123456789.5"] {
            let mut out = Vec::new();
            put_wide(Wide::parse(text).expect("valid in this test"), &mut out);
            assert_eq!(shown(&out), text);
        }
    }
}
