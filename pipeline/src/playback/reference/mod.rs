//! The books of a recording, kept from its own frames and by none of the connectors' code: what a client gets that
//! subscribes, or asks, in the middle of the tape.

use std::collections::{BTreeMap, HashMap};

use tapeline_schemas::Money;

use super::filter::Protocol;
use super::recording::Payload;

mod read;
#[cfg(test)]
mod tests;
mod write;

/// Levels a side of OKX's channel `books`.
const OKX_DEPTH: usize = 400;

/// One price of a side: the level as a snapshot writes it, in the venue's own digits; none where it is taken away.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    price: Money,
    text: Option<Box<str>>,
}

/// What a frame says of a book.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// The channel as clients subscribe to it; of Binance the symbol, in small letters.
    book: String,
    /// It replaces the book.
    whole: bool,
    bids: Vec<Row>,
    asks: Vec<Row>,
    mark: Mark,
}

/// Where a frame puts its book.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Mark {
    /// Number in the venue's sequence.
    last: Option<i64>,
    /// The venue's own time, as JSON.
    stamp: String,
    /// What the venue calls the channel: its name on the tape, or Kraken's number.
    label: String,
    /// Whether its messages carry a checksum that counts.
    checksum: bool,
    /// The message itself, where every message is a whole book.
    frame: Option<Payload>,
}

impl Change {
    /// What `frame` says of a book, if it is about one.
    pub(super) fn read(protocol: Protocol, frame: &Payload) -> Option<Change> {
        read::change(protocol, frame)
    }

    /// The opening book of a recorded answer to a request for one.
    pub(super) fn opening(protocol: Protocol, path: &str, body: &str) -> Option<Change> {
        read::opening(protocol, path, body)
    }

    /// The book it is about.
    pub(super) fn book(&self) -> &str {
        &self.book
    }

    /// Whether it is a whole book.
    pub(super) fn is_whole(&self) -> bool {
        self.whole
    }
}

#[derive(Debug, Clone, Default)]
struct Book {
    bids: BTreeMap<Money, Box<str>>,
    asks: BTreeMap<Money, Box<str>>,
    mark: Mark,
}

/// Every book at one place of the tape. One that had no snapshot yet is not there.
#[derive(Debug, Clone, Default)]
pub(super) struct Books {
    books: HashMap<String, Book>,
}

impl Books {
    /// Takes what the next frame of the tape says.
    pub(super) fn apply(&mut self, protocol: Protocol, change: &Change) {
        let book = if change.whole {
            self.books.insert(change.book.clone(), Book::default());
            self.books.get_mut(&change.book)
        } else {
            self.books.get_mut(&change.book)
        };
        let Some(book) = book else { return };
        // An opening book that was asked for beside the stream may hold it already.
        if !change.whole && protocol == Protocol::Binance && change.mark.last <= book.mark.last {
            return;
        }
        for (side, rows) in [(&mut book.bids, &change.bids), (&mut book.asks, &change.asks)] {
            for row in rows {
                match &row.text {
                    Some(text) => side.insert(row.price, text.clone()),
                    None => side.remove(&row.price),
                };
            }
        }
        let depth = depth(protocol, &change.book);
        while book.bids.len() > depth {
            book.bids.pop_first();
        }
        while book.asks.len() > depth {
            book.asks.pop_last();
        }
        book.mark = change.mark.clone();
    }

    /// Whether what `change` says is within the best `levels` of its book, as it stands after it.
    pub(super) fn within(&self, change: &Change, levels: usize) -> bool {
        let Some(book) = self.books.get(&change.book) else { return false };
        let last = |side: Option<&Money>| side.copied();
        let bid = last(book.bids.keys().rev().nth(levels.saturating_sub(1)));
        let ask = last(book.asks.keys().nth(levels.saturating_sub(1)));
        change.bids.iter().any(|row| bid.is_none_or(|bid| row.price >= bid))
            || change.asks.iter().any(|row| ask.is_none_or(|ask| row.price <= ask))
    }

    /// The snapshot that a new subscription to `channel` gets, if its book is known by now.
    pub(super) fn snapshot(&self, protocol: Protocol, channel: &str) -> Option<Payload> {
        write::snapshot(protocol, channel, self.books.get(channel)?)
    }

    /// Whether `path` asks for a book.
    pub(super) fn asked(protocol: Protocol, path: &str) -> bool {
        read::asked(protocol, path).is_some()
    }

    /// The answer to a request for a book, if `path` is one and the book is known.
    pub(super) fn answer(&self, protocol: Protocol, path: &str) -> Option<String> {
        let (symbol, limit) = read::asked(protocol, path)?;
        Some(write::depth(self.books.get(&symbol)?, limit))
    }
}

/// How many levels a side the venue speaks of.
fn depth(protocol: Protocol, channel: &str) -> usize {
    match protocol {
        Protocol::Kraken => {
            let name = channel.split(' ').next().unwrap_or_default();
            let depth = name.strip_prefix("book-").and_then(|depth| depth.parse().ok());
            depth.unwrap_or(usize::MAX)
        }
        Protocol::Okx => OKX_DEPTH,
        _ => usize::MAX,
    }
}
