//! OKX's instruments by their names.

use std::borrow::Cow;

use tapeline_schemas::{Micros, OptionType};

use super::raw::Listed;
use crate::venue::Instrument;
use crate::venue::civil::Day;
use crate::venue::json::figure;

/// An instrument by the form of its name; none for what the pipeline has no name for.
pub(super) fn instrument(listed: &Listed<'_>) -> Option<Instrument> {
    let code = listed.inst_id.as_ref();
    let parts: Vec<&str> = code.split('-').collect();
    let expiry = |text| Day::from_yymmdd(text).map(Day::expiry);
    let instrument = match parts.as_slice() {
        [base, quote] => Instrument::spot(base, quote, code),
        [base, quote, "SWAP"] => Instrument::perpetual(base, quote, code),
        [base, quote, day] => Instrument::future(base, quote, &expiry(day)?, code),
        [base, quote, day, strike, letter] => {
            let option_type = match *letter {
                "C" => OptionType::Call,
                "P" => OptionType::Put,
                _ => return None,
            };
            Instrument::option(base, quote, &expiry(day)?, strike, option_type, code)?
        }
        _ => return None,
    };
    let text = |text: &Option<Cow<'_, str>>| {
        text.as_deref().filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let moment = |text: &Option<Cow<'_, str>>| {
        text.as_deref().and_then(|text| text.parse().ok()).map(Micros::from_millis)
    };
    Some(Instrument {
        settlement: text(&listed.settle_ccy),
        listed: moment(&listed.list_time),
        expiry: moment(&listed.exp_time),
        tick_size: figure(listed.tick_sz.as_deref()),
        lot_size: figure(listed.lot_sz.as_deref()),
        min_size: figure(listed.min_sz.as_deref()),
        contract_size: figure(listed.ct_val.as_deref()),
        status: text(&listed.state),
        ..instrument
    })
}
