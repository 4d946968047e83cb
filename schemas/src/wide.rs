//! Products and sums of money, exact in 256 bits (invariant 10).

use std::fmt;

use ethnum::I256;
use serde::{Serialize, Serializer};

use crate::Money;

/// Digits after the decimal point that every [`Wide`] keeps: a product of two [`Money`].
const SCALE: u32 = 36;

/// A turnover: a whole number of 10⁻³⁶ units, at most 76 digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Wide(I256);

impl Wide {
    /// Nothing.
    pub const ZERO: Wide = Wide(I256::ZERO);

    /// `a × b`, exact: two 38-digit mantissas make at most 76 digits.
    pub fn product(a: Money, b: Money) -> Wide {
        Wide(I256::from(a.mantissa()) * I256::from(b.mantissa()))
    }

    /// `self + other`, if it still fits 76 digits.
    pub fn checked_add(self, other: Wide) -> Option<Wide> {
        self.0.checked_add(other.0).filter(|sum| sum.unsigned_abs() < limit()).map(Wide)
    }

    /// The value of `mantissa` × 10⁻³⁶, if it has at most 76 digits.
    pub fn from_mantissa(mantissa: I256) -> Option<Wide> {
        (mantissa.unsigned_abs() < limit()).then_some(Wide(mantissa))
    }

    /// The number of 10⁻³⁶ units.
    pub const fn mantissa(self) -> I256 {
        self.0
    }

    /// Reads what [`Wide`]'s own `Display` and PostgreSQL's `numeric` print; `None` for anything else.
    pub fn parse(text: &str) -> Option<Wide> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let fraction = fraction.trim_end_matches('0');
        if whole.is_empty() || fraction.len() > SCALE as usize {
            return None;
        }
        let mut mantissa = I256::ZERO;
        let padding = std::iter::repeat_n(b'0', SCALE as usize - fraction.len());
        for byte in whole.bytes().chain(fraction.bytes()).chain(padding) {
            if !byte.is_ascii_digit() {
                return None;
            }
            mantissa = mantissa.checked_mul(I256::new(10))?.checked_add(I256::from(byte - b'0'))?;
        }
        Wide::from_mantissa(if negative { -mantissa } else { mantissa })
    }
}

fn limit() -> ethnum::U256 {
    ethnum::U256::new(10).pow(76)
}

impl fmt::Display for Wide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = ethnum::U256::new(10).pow(SCALE);
        let magnitude = self.0.unsigned_abs();
        let fraction = format!("{:0>1$}", (magnitude % one).to_string(), SCALE as usize);
        let fraction = fraction.trim_end_matches('0');
        let sign = if self.0 < 0 { "-" } else { "" };
        let point = if fraction.is_empty() { "" } else { "." };
        write!(f, "{sign}{}{point}{fraction}", magnitude / one)
    }
}

impl fmt::Debug for Wide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Wide {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_turnover_keeps_every_digit_of_its_factors() {
        let price = Money::parse(b"99999999999999999999.999999999999999999").expect("valid");
        let product = Wide::product(price, price);
        // (10^38 - 1)^2 = 10^76 - 2 * 10^38 + 1
        let digits = format!("{}8{}1", "9".repeat(37), "0".repeat(37));
        assert_eq!(product.to_string().replace('.', ""), digits);
        assert_eq!(Wide::parse(&product.to_string()), Some(product));
        assert_eq!(product.checked_add(product), None, "77 digits do not fit");
    }

    proptest! {
        #[test]
        fn text_and_back_is_the_same_value(a in any::<i64>(), b in any::<i64>()) {
            let product = Wide::product(
                Money::from_mantissa(i128::from(a)).expect("small"),
                Money::from_mantissa(i128::from(b)).expect("small"),
            );
            prop_assert_eq!(Wide::parse(&product.to_string()), Some(product));
        }
    }
}
