//! Exact money: an `i128` mantissa at scale 18 (invariant 10).

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use serde::{Serialize, Serializer};
use thiserror::Error;

/// Digits after the decimal point that every [`Money`] keeps.
pub(crate) const SCALE: u32 = 18;
const ONE: i128 = 10_i128.pow(SCALE);
/// Largest magnitude of a mantissa: Avro `decimal` with precision 38.
const LIMIT: i128 = 10_i128.pow(38) - 1;

/// A price or an amount: a whole number of 10⁻¹⁸ units, at most 38 digits.
///
/// Trailing zeros are not kept: `1.10` and `1.1` are the same value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Money(i128);

/// Why a text or a number is not [`Money`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MoneyError {
    /// Not a decimal number.
    #[error("not a decimal number")]
    Syntax,
    /// More than 18 digits after the point that are not zero.
    #[error("more than 18 decimal places")]
    TooPrecise,
    /// The magnitude does not fit 38 digits.
    #[error("more than 38 digits")]
    TooLarge,
}

impl Money {
    /// Nothing.
    pub const ZERO: Money = Money(0);
    /// One unit.
    pub const ONE: Money = Money(ONE);

    /// The value of `mantissa` × 10⁻¹⁸; an error beyond 38 digits.
    pub fn from_mantissa(mantissa: i128) -> Result<Money, MoneyError> {
        if (-LIMIT..=LIMIT).contains(&mantissa) {
            Ok(Money(mantissa))
        } else {
            Err(MoneyError::TooLarge)
        }
    }

    /// The number of 10⁻¹⁸ units.
    #[inline]
    pub const fn mantissa(self) -> i128 {
        self.0
    }

    /// Whether the value is greater than zero.
    #[inline]
    pub const fn is_positive(self) -> bool {
        self.0 > 0
    }

    /// `self - other`, if it still fits 38 digits.
    pub fn checked_sub(self, other: Money) -> Option<Money> {
        Money::from_mantissa(self.0.checked_sub(other.0)?).ok()
    }

    /// `self + other`, if it still fits 38 digits.
    pub fn checked_add(self, other: Money) -> Option<Money> {
        Money::from_mantissa(self.0.checked_add(other.0)?).ok()
    }

    /// Reads a decimal number as venues write it: digits with an optional sign,
    /// point and exponent (`-12.50`, `1e-7`), straight from the bytes of a message.
    pub fn parse(text: &[u8]) -> Result<Money, MoneyError> {
        let (negative, digits) = match text.split_first() {
            Some((b'-', rest)) => (true, rest),
            Some((b'+', rest)) => (false, rest),
            _ => (false, text),
        };
        let mut mantissa: i128 = 0;
        let mut scale: i32 = 0;
        let mut seen = false;
        let mut point = false;
        let mut exponent = 0_i32;
        let mut pending_zeros = 0_i32;
        let mut rest = digits;
        while let Some((&byte, tail)) = rest.split_first() {
            rest = tail;
            match byte {
                b'0' if point => {
                    seen = true;
                    pending_zeros += 1;
                }
                b'0'..=b'9' => {
                    seen = true;
                    for _ in 0..pending_zeros {
                        mantissa = mantissa.checked_mul(10).ok_or(MoneyError::TooLarge)?;
                    }
                    mantissa = mantissa
                        .checked_mul(10)
                        .and_then(|m| m.checked_add(i128::from(byte - b'0')))
                        .ok_or(MoneyError::TooLarge)?;
                    if point {
                        scale += pending_zeros + 1;
                    }
                    pending_zeros = 0;
                }
                b'.' if !point => point = true,
                b'e' | b'E' if seen => {
                    exponent = parse_exponent(rest)?;
                    break;
                }
                _ => return Err(MoneyError::Syntax),
            }
        }
        if !seen {
            return Err(MoneyError::Syntax);
        }
        let mantissa = rescale(mantissa, SCALE as i32 - scale + exponent)?;
        Money::from_mantissa(if negative { -mantissa } else { mantissa })
    }

    /// As a [`Decimal`], if its 96-bit mantissa can hold every digit.
    pub fn to_decimal(self) -> Option<Decimal> {
        let mut mantissa = self.0;
        let mut scale = SCALE;
        while scale > 0 && mantissa % 10 == 0 {
            mantissa /= 10;
            scale -= 1;
        }
        Decimal::try_from_i128_with_scale(mantissa, scale).ok()
    }
}

fn parse_exponent(text: &[u8]) -> Result<i32, MoneyError> {
    let exponent: i32 =
        std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()).ok_or(MoneyError::Syntax)?;
    if exponent.abs() > 60 {
        return Err(if exponent > 0 { MoneyError::TooLarge } else { MoneyError::TooPrecise });
    }
    Ok(exponent)
}

fn rescale(mut mantissa: i128, shift: i32) -> Result<i128, MoneyError> {
    if mantissa == 0 {
        return Ok(0);
    }
    for _ in 0..shift.max(0) {
        mantissa = mantissa.checked_mul(10).ok_or(MoneyError::TooLarge)?;
    }
    for _ in 0..(-shift).max(0) {
        if mantissa % 10 != 0 {
            return Err(MoneyError::TooPrecise);
        }
        mantissa /= 10;
    }
    Ok(mantissa)
}

impl FromStr for Money {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Money, MoneyError> {
        Money::parse(text.as_bytes())
    }
}

impl TryFrom<Decimal> for Money {
    type Error = MoneyError;

    fn try_from(value: Decimal) -> Result<Money, MoneyError> {
        Money::from_mantissa(rescale(value.mantissa(), SCALE as i32 - value.scale() as i32)?)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.unsigned_abs();
        let whole = magnitude / ONE as u128;
        let mut fraction = magnitude % ONE as u128;
        if self.0 < 0 {
            f.write_str("-")?;
        }
        if fraction == 0 {
            return write!(f, "{whole}");
        }
        let mut digits = SCALE as usize;
        while fraction.is_multiple_of(10) {
            fraction /= 10;
            digits -= 1;
        }
        write!(f, "{whole}.{fraction:0digits$}")
    }
}

impl fmt::Debug for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Money is written to JSON as text, so that no reader turns it into a float.
impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn money(text: &str) -> Money {
        text.parse().expect("valid in this test")
    }

    #[test]
    fn no_digit_of_a_venues_text_is_lost() {
        for (text, shown) in [
            ("0.35210000", "0.3521"),
            ("354.11000000", "354.11"),
            ("127.0", "127"),
            ("-0.000000000000000001", "-0.000000000000000001"),
            ("1e-7", "0.0000001"),
            ("2.5E+3", "2500"),
            ("0.000000000000000000000", "0"),
            ("1.500000000000000000000000", "1.5"),
            ("99999999999999999999.999999999999999999", "99999999999999999999.999999999999999999"),
        ] {
            assert_eq!(money(text).to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_kept_exactly_is_refused() {
        for (text, error) in [
            ("", MoneyError::Syntax),
            ("-", MoneyError::Syntax),
            (".", MoneyError::Syntax),
            ("NaN", MoneyError::Syntax),
            ("1.2.3", MoneyError::Syntax),
            ("1e", MoneyError::Syntax),
            ("1,5", MoneyError::Syntax),
            ("0.0000000000000000001", MoneyError::TooPrecise),
            ("100000000000000000000", MoneyError::TooLarge),
            ("1e400", MoneyError::TooLarge),
        ] {
            assert_eq!(text.parse::<Money>(), Err(error), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn text_and_back_is_the_same_value(mantissa in -LIMIT..=LIMIT) {
            let value = Money::from_mantissa(mantissa).expect("in range");
            prop_assert_eq!(value.to_string().parse::<Money>(), Ok(value));
        }

        #[test]
        fn decimals_are_exact_or_refused(mantissa in any::<i128>(), scale in 0_u32..=28) {
            if let Ok(decimal) = Decimal::try_from_i128_with_scale(mantissa, scale)
                && let Ok(value) = Money::try_from(decimal)
            {
                prop_assert_eq!(value.to_string(), decimal.normalize().to_string());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Money::parse(&bytes);
        }
    }
}
