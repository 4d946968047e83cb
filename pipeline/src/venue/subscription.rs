//! What a connector is subscribed to, spread over connections.

use std::collections::HashMap;

use tapeline_schemas::{Kind, Micros};

use super::books::LocalBook;
use super::{ConnectionPlan, Instrument, Output, Settings, SymbolTable, UnknownSymbol};

/// One subscribed symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subscribed {
    /// `BASE-QUOTE`.
    pub(super) symbol: String,
    /// The venue's name of it.
    pub(super) native: String,
    /// All that the venue's table says of it.
    pub(super) instrument: Instrument,
}

/// The subscribed symbols in order; their numbers are what books and connections refer to.
#[derive(Debug, Default)]
pub(super) struct Subscription {
    symbols: Vec<Subscribed>,
    by_native: HashMap<String, usize>,
    by_symbol: HashMap<String, usize>,
}

impl Subscription {
    /// Resolves the symbols of `settings`; one that is named twice is taken once.
    pub(super) fn new(
        venue: &'static str,
        settings: &Settings,
        table: &SymbolTable,
    ) -> Result<Subscription, UnknownSymbol> {
        let mut out = Subscription::default();
        for wanted in &settings.symbols {
            let instrument = table.find(venue, wanted)?.clone();
            let native = instrument.code.clone();
            let symbol = wanted.to_ascii_uppercase();
            if out.by_symbol.contains_key(&symbol) {
                continue;
            }
            let index = out.symbols.len();
            out.by_native.insert(native.clone(), index);
            out.by_symbol.insert(symbol.clone(), index);
            out.symbols.push(Subscribed { symbol, native, instrument });
        }
        Ok(out)
    }

    /// All, in order.
    pub(super) fn symbols(&self) -> &[Subscribed] {
        &self.symbols
    }

    /// Number and name of the venue's `native` symbol, if subscribed.
    pub(super) fn by_native(&self, native: &str) -> Option<(usize, &str)> {
        let index = *self.by_native.get(native)?;
        Some((index, self.symbols.get(index)?.symbol.as_str()))
    }

    /// One, by its number.
    pub(super) fn get(&self, index: usize) -> Option<&Subscribed> {
        self.symbols.get(index)
    }

    /// Number and the venue's name of `symbol`, if subscribed.
    pub(super) fn by_symbol(&self, symbol: &str) -> Option<(usize, &str)> {
        let index = *self.by_symbol.get(symbol)?;
        Some((index, self.symbols.get(index)?.native.as_str()))
    }
}

/// Feeds of some symbols.
pub(super) fn feeds(kinds: &[Kind], symbols: &[Subscribed]) -> Vec<(Kind, String)> {
    kinds.iter().flat_map(|kind| symbols.iter().map(move |s| (*kind, s.symbol.clone()))).collect()
}

/// The number of the connection that a feed comes on.
pub(super) fn carrying(plans: &[ConnectionPlan], kind: Kind, symbol: &str) -> Option<usize> {
    let is_it = |(k, s): &(Kind, String)| *k == kind && s == symbol;
    plans.iter().position(|plan| plan.feeds.iter().any(is_it))
}

/// Starts one silent feed anew by sending `texts`: of a book, which is not whole then, or of anything else.
pub(super) fn anew(
    plans: &[ConnectionPlan],
    books: &mut [LocalBook],
    (kind, symbol): (Kind, &str),
    at: Micros,
    texts: Vec<String>,
    out: &mut Output,
) {
    let book = books.iter_mut().find(|book| kind == Kind::Book && book.symbol == symbol);
    match (book, carrying(plans, kind, symbol)) {
        (Some(book), _) => book.resubscribe("stale", at, texts, out),
        (None, Some(number)) => out.resubscribe(number, texts),
        (None, None) => {}
    }
}
