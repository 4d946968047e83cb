//! What can be traded at a venue, with its name here and there (T12).
//!
//! | market | symbol |
//! |---|---|
//! | spot | `BTC-USDT` |
//! | perpetual | `BTC-USD-PERP` |
//! | future | `BTC-USD-25DEC26` |
//! | option | `BTC-25DEC26-100000-C`; `XRP-USDC-25DEC26-0.48-P` where the quote is neither the base nor USD |

use serde::Serialize;
use tapeline_schemas::{Micros, Money, OptionType};

use super::civil::is_expiry;

/// What kind of thing it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Market {
    /// A currency for another.
    Spot,
    /// A future without an expiry.
    Perpetual,
    /// A future.
    Future,
    /// An option.
    Option,
}

impl Market {
    /// The name in the table of instruments.
    pub const fn name(self) -> &'static str {
        match self {
            Market::Spot => "spot",
            Market::Perpetual => "perpetual",
            Market::Future => "future",
            Market::Option => "option",
        }
    }

    /// What a symbol looks like.
    pub fn of_symbol(symbol: &str) -> Market {
        let parts: Vec<&str> = symbol.split('-').collect();
        match parts.as_slice() {
            [_, .., expiry, _, "C" | "P"] if is_expiry(expiry) => Market::Option,
            [_, _, "PERP"] => Market::Perpetual,
            [_, _, expiry] if is_expiry(expiry) => Market::Future,
            _ => Market::Spot,
        }
    }
}

/// What an option gives the right to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OptionTerms {
    /// The part of the symbol before the expiry.
    pub underlying: String,
    /// Strike price.
    pub strike: Money,
    /// Call or put.
    pub option_type: OptionType,
}

/// One row of a venue's table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Instrument {
    /// As the pipeline writes it.
    pub symbol: String,
    /// As the venue writes it.
    pub code: String,
    /// What kind of thing it is.
    pub market: Market,
    /// Currency that is traded.
    pub base: String,
    /// Currency of the price.
    pub quote: String,
    /// For people, where the venue gives a name.
    pub name: Option<String>,
    /// Currency in which a derivative is settled.
    pub settlement: Option<String>,
    /// When trading began.
    pub listed: Option<Micros>,
    /// When a future or option ends.
    pub expiry: Option<Micros>,
    /// Of an option.
    pub option: Option<OptionTerms>,
    /// Smallest step of the price.
    pub tick_size: Option<Money>,
    /// Smallest step of the amount.
    pub lot_size: Option<Money>,
    /// Smallest amount of an order.
    pub min_size: Option<Money>,
    /// What one contract of a derivative stands for.
    pub contract_size: Option<Money>,
    /// In the venue's words.
    pub status: Option<String>,
}

impl Instrument {
    fn new(symbol: String, code: &str, market: Market, base: &str, quote: &str) -> Instrument {
        Instrument {
            symbol: symbol.to_ascii_uppercase(),
            code: code.to_owned(),
            market,
            base: base.to_ascii_uppercase(),
            quote: quote.to_ascii_uppercase(),
            name: None,
            settlement: None,
            listed: None,
            expiry: None,
            option: None,
            tick_size: None,
            lot_size: None,
            min_size: None,
            contract_size: None,
            status: None,
        }
    }

    /// A pair of currencies.
    pub fn spot(base: &str, quote: &str, code: &str) -> Instrument {
        Instrument::new(format!("{base}-{quote}"), code, Market::Spot, base, quote)
    }

    /// A future without an expiry.
    pub fn perpetual(base: &str, quote: &str, code: &str) -> Instrument {
        Instrument::new(format!("{base}-{quote}-PERP"), code, Market::Perpetual, base, quote)
    }

    /// A future; `expiry` as the pipeline writes it.
    pub fn future(base: &str, quote: &str, expiry: &str, code: &str) -> Instrument {
        Instrument::new(format!("{base}-{quote}-{expiry}"), code, Market::Future, base, quote)
    }

    /// An option; `expiry` as the pipeline writes it, `strike` as the venue does. None where the strike is no number.
    pub fn option(
        base: &str,
        quote: &str,
        expiry: &str,
        strike: &str,
        option_type: OptionType,
        code: &str,
    ) -> Option<Instrument> {
        let underlying = underlying(base, quote).to_ascii_uppercase();
        let letter = if option_type == OptionType::Call { 'C' } else { 'P' };
        let symbol = format!("{underlying}-{expiry}-{strike}-{letter}");
        let mut option = Instrument::new(symbol, code, Market::Option, base, quote);
        let strike = strike.parse().ok().filter(|strike: &Money| strike.is_positive())?;
        option.option = Some(OptionTerms { underlying, strike, option_type });
        Some(option)
    }
}

/// What an option is on: its base, with the quote where that is neither the base nor USD.
pub(crate) fn underlying(base: &str, quote: &str) -> String {
    if quote == base || quote == "USD" { base.to_owned() } else { format!("{base}-{quote}") }
}

/// A step of so many decimals: 2 gives 0.01.
pub(crate) fn step(decimals: u32) -> Option<Money> {
    let power = 18_u32.checked_sub(decimals)?;
    Money::from_mantissa(10_i128.checked_pow(power)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_say_what_they_are() {
        let option = |base, quote, strike| {
            Instrument::option(base, quote, "25DEC26", strike, OptionType::Call, "X")
        };
        let symbol = |base, quote, strike| option(base, quote, strike).expect("valid").symbol;
        assert_eq!(symbol("BTC", "BTC", "100000"), "BTC-25DEC26-100000-C");
        assert_eq!(symbol("BTC", "USD", "100000"), "BTC-25DEC26-100000-C");
        assert_eq!(symbol("XRP", "USDC", "0.48"), "XRP-USDC-25DEC26-0.48-C");
        assert_eq!(option("BTC", "USD", "x"), None);
        for (symbol, market) in [
            ("BTC-25DEC26-100000-C", Market::Option),
            ("XRP-USDC-25DEC26-0.48-P", Market::Option),
            ("BTC-USD-PERP", Market::Perpetual),
            ("BTC-USD-25DEC26", Market::Future),
            ("BTC-USD", Market::Spot),
            ("C-P", Market::Spot),
        ] {
            assert_eq!(Market::of_symbol(symbol), market, "{symbol}");
        }
        assert_eq!(step(2).expect("a step").to_string(), "0.01");
        assert_eq!(step(0), Some(Money::ONE));
        assert_eq!(step(19), None);
    }
}
