//! Symbols as the pipeline writes them (`BASE-QUOTE`) and as a venue does.

use std::collections::{BTreeMap, HashMap};

use thiserror::Error;

use super::instrument::Instrument;

/// How many near matches an error names.
const NEAR_MATCHES: usize = 5;

/// A symbol the venue does not list.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{venue} lists no symbol `{symbol}`{}", hint(.near))]
pub struct UnknownSymbol {
    /// The venue.
    pub venue: &'static str,
    /// What was asked for.
    pub symbol: String,
    /// Symbols that look like it, nearest first.
    pub near: Vec<String>,
}

fn hint(near: &[String]) -> String {
    if near.is_empty() {
        ", see the venue's list of symbols".to_owned()
    } else {
        format!(", did you mean {}?", near.join(", "))
    }
}

/// A venue's symbols, both ways.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SymbolTable {
    instruments: BTreeMap<String, Instrument>,
    symbols: HashMap<String, String>,
}

impl SymbolTable {
    /// An empty table.
    pub fn new() -> SymbolTable {
        SymbolTable::default()
    }

    /// Adds an instrument; of two with the same symbol the later one counts.
    pub fn insert(&mut self, instrument: Instrument) {
        self.symbols.insert(instrument.code.clone(), instrument.symbol.clone());
        self.instruments.insert(instrument.symbol.clone(), instrument);
    }

    /// What `symbol` names; the error names near matches.
    pub fn find(&self, venue: &'static str, symbol: &str) -> Result<&Instrument, UnknownSymbol> {
        let wanted = symbol.to_ascii_uppercase();
        self.instruments.get(&wanted).ok_or_else(|| UnknownSymbol {
            venue,
            symbol: symbol.to_owned(),
            near: self.near(&wanted),
        })
    }

    /// Every instrument, by symbol.
    pub fn instruments(&self) -> impl Iterator<Item = &Instrument> {
        self.instruments.values()
    }

    /// The pipeline's name of the venue's `native` symbol.
    pub fn symbol(&self, native: &str) -> Option<&str> {
        self.symbols.get(native).map(String::as_str)
    }

    /// Number of symbols.
    pub fn len(&self) -> usize {
        self.instruments.len()
    }

    /// Whether there is no symbol.
    pub fn is_empty(&self) -> bool {
        self.instruments.is_empty()
    }

    /// The same pair the other way round or without its dash comes first, then by distance.
    fn near(&self, wanted: &str) -> Vec<String> {
        let reversed = wanted.split_once('-').map(|(base, quote)| format!("{quote}-{base}"));
        let bare: String = wanted.chars().filter(char::is_ascii_alphanumeric).collect();
        let mut ranked: Vec<(usize, &String)> = self
            .instruments
            .iter()
            .filter_map(|(symbol, instrument)| {
                let same_letters = symbol.chars().filter(|c| *c != '-').eq(bare.chars());
                let distance = if reversed.as_deref() == Some(symbol)
                    || same_letters
                    || instrument.code.eq_ignore_ascii_case(wanted)
                {
                    0
                } else {
                    edits(wanted, symbol)
                };
                (distance <= 2).then_some((distance, symbol))
            })
            .collect();
        ranked.sort();
        ranked.into_iter().take(NEAR_MATCHES).map(|(_, symbol)| symbol.clone()).collect()
    }
}

/// Levenshtein's distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row.get(j + 1).copied().unwrap_or(usize::MAX - 1);
            let best = (diagonal + usize::from(x != *y)).min(above + 1).min(left + 1);
            diagonal = above;
            if let Some(cell) = row.get_mut(j) {
                *cell = left;
            }
            left = best;
        }
        if let Some(cell) = row.last_mut() {
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_symbol_is_answered_with_near_matches() {
        let mut table = SymbolTable::new();
        for (base, quote, native) in
            [("BTC", "USDT", "BTCUSDT"), ("BTC", "USDC", "BTCUSDC"), ("ETH", "EUR", "ETHEUR")]
        {
            table.insert(Instrument::spot(base, quote, native));
        }
        assert_eq!(table.find("X", "btc-usdt").expect("listed").code, "BTCUSDT");
        assert_eq!(table.symbol("ETHEUR"), Some("ETH-EUR"));
        for (wanted, near) in [
            ("BTC-USD", vec!["BTC-USDC", "BTC-USDT"]),
            ("EUR-ETH", vec!["ETH-EUR"]),
            ("BTCUSDT", vec!["BTC-USDT", "BTC-USDC"]),
            ("SOMETHING", vec![]),
        ] {
            assert_eq!(table.find("X", wanted).expect_err(wanted).near, near, "{wanted}");
        }
        let error = table.find("X", "BTC-USD").expect_err("unknown").to_string();
        assert_eq!(error, "X lists no symbol `BTC-USD`, did you mean BTC-USDC, BTC-USDT?");
    }

    #[test]
    fn distance_counts_single_letters() {
        for (a, b, distance) in
            [("", "", 0), ("a", "", 1), ("abc", "abd", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!(edits(a, b), distance, "{a} {b}");
        }
    }
}
