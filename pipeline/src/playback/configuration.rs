//! What a recording was made with.

use std::borrow::Cow;

use serde_json::{Map, Value, json};
use tapeline_schemas::Kind;

use super::Recording;
use crate::venue::{Market, Settings};

/// Names of channels in a recording's configuration.
const CHANNELS: [(&str, Kind); 4] = [
    ("trades", Kind::Trade),
    ("ticker", Kind::Ticker),
    ("l2_book", Kind::Book),
    ("candles", Kind::VenueCandle),
];

/// The letters that futures exchanges give to the months, from January.
const MONTHS: &str = "FGHJKMNQUVXZ";
const MONTH_NAMES: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];

/// A connector's settings as a recording's configuration, for [`settings`] and whoever reads recordings of others.
pub fn configuration(settings: &Settings) -> String {
    let mut all = Map::new();
    for (name, _) in CHANNELS.iter().filter(|(_, kind)| settings.channels.contains(kind)) {
        all.insert((*name).to_owned(), json!(settings.symbols));
    }
    let channels: Vec<&str> = settings.channels.iter().map(|kind| kind.name()).collect();
    let exact = json!({
        "symbols": settings.symbols,
        "channels": channels,
        "top_levels": settings.top_levels,
        "top_every_micros": settings.top_every_micros,
        "book_depth": settings.book_depth,
    });
    all.insert("settings".to_owned(), exact);
    Value::Object(all).to_string()
}

/// The settings in a configuration that a connector wrote.
pub fn settings(configuration: &Value) -> Option<Settings> {
    let exact = configuration.get("settings")?;
    let texts = |key: &str| -> Option<Vec<&str>> {
        exact.get(key)?.as_array()?.iter().map(Value::as_str).collect()
    };
    let (symbols, channels) = (texts("symbols")?, texts("channels")?);
    let number = |key: &str| -> Option<usize> { exact.get(key)?.as_u64()?.try_into().ok() };
    Some(Settings {
        symbols: symbols.into_iter().map(str::to_owned).collect(),
        channels: channels.into_iter().map(Kind::from_name).collect::<Option<_>>()?,
        top_levels: number("top_levels")?,
        top_every_micros: exact.get("top_every_micros")?.as_i64()?,
        book_depth: number("book_depth")?,
    })
}

impl Recording {
    /// Symbols and channels that were subscribed, as a connector's settings.
    pub fn settings(&self) -> Settings {
        if let Some(exact) = settings(&self.configuration) {
            return exact;
        }
        let mut symbols: Vec<String> = Vec::new();
        let mut channels = Vec::new();
        for (name, kind) in CHANNELS {
            let Some(list) = self.configuration[name].as_array() else { continue };
            channels.push(kind);
            for symbol in list.iter().filter_map(Value::as_str).map(ours) {
                if !symbols.contains(&symbol) {
                    symbols.push(symbol);
                }
            }
        }
        let option = |symbol: &String| Market::of_symbol(symbol) == Market::Option;
        if channels.contains(&Kind::Ticker) && symbols.iter().any(option) {
            channels.push(Kind::Option);
        }
        Settings::new(symbols, channels)
    }
}

/// An expiry as the recorder writes it, `22K27`, as ours: `27MAY22`.
fn expiry(text: &str) -> Option<String> {
    let (year, month, day) = (text.get(0..2)?, text.get(2..3)?, text.get(3..5)?);
    let number =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?;
    let (year, day): (u32, u32) = (number(year)?, number(day)?);
    let name = MONTH_NAMES.get(MONTHS.find(month)?)?;
    (text.len() == 5).then(|| format!("{day}{name}{year:02}"))
}

/// The recorder's name of an instrument as ours. It writes options `BTC-8000-21U24-put` and
/// `BTC-USD-8000-21U24-put`, futures `BTC-USD-22K27`.
fn ours(name: &str) -> String {
    let parts: Vec<&str> = name.split('-').collect();
    let dated = |text: &str| expiry(text).map(Cow::Owned);
    let renamed: Option<Vec<Cow<'_, str>>> = match parts.as_slice() {
        [names @ .., strike, day, kind @ ("put" | "call")] => dated(day).map(|day| {
            let base = names.first().copied().unwrap_or_default();
            let mut parts: Vec<Cow<'_, str>> = vec![base.into()];
            let quote = names.get(1).copied().filter(|quote| *quote != base && *quote != "USD");
            parts.extend(quote.map(Cow::Borrowed));
            let letter = if *kind == "put" { "P" } else { "C" };
            parts.extend([day, (*strike).into(), letter.into()]);
            parts
        }),
        [base, quote, day] => dated(day).map(|day| vec![(*base).into(), (*quote).into(), day]),
        _ => None,
    };
    renamed.map_or_else(|| name.to_owned(), |parts| parts.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_a_connector_wrote_are_read_as_they_were() {
        let mut written = Settings::new(vec!["A-B".to_owned()], vec![Kind::Book, Kind::Option]);
        written.top_levels = 7;
        let configuration = serde_json::from_str(&configuration(&written)).expect("JSON");
        assert_eq!(settings(&configuration), Some(written));
        assert_eq!(configuration["l2_book"][0], "A-B");
        assert_eq!(settings(&json!({"trades": ["A-B"]})), None);
    }

    #[test]
    fn the_recorders_names_become_ours() {
        for (theirs, name) in [
            ("BTC-USDT", "BTC-USDT"),
            ("UNI-USD-PERP", "UNI-USD-PERP"),
            ("BTC-USD-22K27", "BTC-USD-27MAY22"),
            ("BTC-USD-22M03", "BTC-USD-3JUN22"),
            ("BTC-8000-21U24-put", "BTC-24SEP21-8000-P"),
            ("BTC-USD-8000-21U24-call", "BTC-24SEP21-8000-C"),
            ("XRP-USDC-0.48-21U24-call", "XRP-USDC-24SEP21-0.48-C"),
            ("A-B-22A27", "A-B-22A27"),
            ("put", "put"),
            ("", ""),
        ] {
            assert_eq!(ours(theirs), name, "{theirs}");
        }
    }
}
