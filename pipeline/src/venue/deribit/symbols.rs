//! Deribit's names of instruments.

use tapeline_schemas::{Micros, OptionType};

use super::raw::Listed;
use crate::venue::civil::is_expiry;
use crate::venue::json::raw_figure;
use crate::venue::{Instrument, Market};

/// The currencies whose instruments are listed apart.
pub(super) const CURRENCIES: [&str; 4] = ["BTC", "ETH", "SOL", "USDC"];

/// An instrument by its kind and the form of its name; none for combinations.
pub(super) fn instrument(listed: &Listed<'_>) -> Option<Instrument> {
    let code = listed.instrument_name.as_ref();
    let (base, quote) = (listed.base_currency.as_ref(), listed.quote_currency.as_ref());
    let parts: Vec<&str> = code.split('-').collect();
    let instrument = match (listed.kind.as_ref(), parts.as_slice()) {
        ("spot", _) => Instrument::spot(base, quote, code),
        ("future", [_, "PERPETUAL"]) => Instrument::perpetual(base, quote, code),
        ("future", [_, expiry]) => Instrument::future(base, quote, expiry, code),
        ("option", [_, expiry, strike, letter]) => {
            let option_type = match *letter {
                "C" => OptionType::Call,
                "P" => OptionType::Put,
                _ => return None,
            };
            // A strike of 0.48 is written 0d48.
            let strike = strike.replace('d', ".");
            Instrument::option(base, quote, expiry, &strike, option_type, code)?
        }
        _ => return None,
    };
    let ends = instrument.market != Market::Perpetual && instrument.market != Market::Spot;
    Some(Instrument {
        settlement: listed.settlement_currency.as_deref().map(str::to_owned),
        listed: listed.creation_timestamp.map(Micros::from_millis),
        expiry: listed.expiration_timestamp.filter(|_| ends).map(Micros::from_millis),
        tick_size: raw_figure(listed.tick_size),
        lot_size: raw_figure(listed.min_trade_amount),
        min_size: raw_figure(listed.min_trade_amount),
        contract_size: raw_figure(listed.contract_size),
        status: listed
            .is_active
            .map(|active| if active { "active" } else { "inactive" }.to_owned()),
        ..instrument
    })
}

/// The currency under which `symbol` is listed: that of its quote where it is settled in it, else its base.
pub(super) fn currency_of(symbol: &str) -> &'static str {
    let mut parts = symbol.split('-');
    let base = parts.next().unwrap_or_default();
    let quote = parts.next().filter(|part| !is_expiry(part)).unwrap_or("USD");
    let known = |wanted: &str| CURRENCIES.into_iter().find(|currency| *currency == wanted);
    known(quote).filter(|_| quote != "BTC").or_else(|| known(base)).unwrap_or(CURRENCIES[0])
}
