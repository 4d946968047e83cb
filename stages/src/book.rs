//! Order books: levels keyed by price, kept from snapshots and deltas (invariant 9).

use std::collections::BTreeMap;

use tapeline_schemas::{Level, Money};

/// How many levels of each side Kraken's checksum covers.
const CHECKSUM_LEVELS: usize = 10;
/// Room for what Kraken's checksum usually covers.
const CHECKSUM_BYTES: usize = 512;
/// How many levels of each side OKX's checksum covers.
const PAIR_LEVELS: usize = 25;

/// Which side of the book a level is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BookSide {
    /// Buyers, best is highest.
    Bid,
    /// Sellers, best is lowest.
    Ask,
}

/// What the book keeps of one price.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    amount: Money,
    /// What a checksum covers of the level, from price and amount as the venue wrote them.
    digits: Option<Box<str>>,
}

/// An order book of one symbol.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrderBook {
    bids: BTreeMap<Money, Entry>,
    asks: BTreeMap<Money, Entry>,
}

impl OrderBook {
    /// An empty book.
    pub fn new() -> OrderBook {
        OrderBook::default()
    }

    /// Forgets every level.
    pub fn clear(&mut self) {
        self.bids.clear();
        self.asks.clear();
    }

    /// Replaces the whole book. Levels without an amount are left out, so none can haunt the book.
    pub fn apply_snapshot(&mut self, bids: &[Level], asks: &[Level]) {
        self.clear();
        self.apply_delta(bids, asks);
    }

    /// Sets the amounts of some levels; zero removes a level.
    pub fn apply_delta(&mut self, bids: &[Level], asks: &[Level]) {
        for level in bids {
            self.set(BookSide::Bid, *level, None);
        }
        for level in asks {
            self.set(BookSide::Ask, *level, None);
        }
    }

    /// Sets one level with the venue's own texts of price and amount, as [`OrderBook::checksum`] needs them.
    pub fn set_with_text(&mut self, side: BookSide, level: Level, price: &str, amount: &str) {
        self.set(side, level, Some(checksum_digits(price, amount)));
    }

    /// Sets one level with the venue's own texts, as [`OrderBook::checksum_of_pairs`] needs them.
    pub fn set_with_pair(&mut self, side: BookSide, level: Level, price: &str, amount: &str) {
        self.set(side, level, Some(format!("{price}:{amount}").into_boxed_str()));
    }

    fn set(&mut self, side: BookSide, level: Level, digits: Option<Box<str>>) {
        let levels = match side {
            BookSide::Bid => &mut self.bids,
            BookSide::Ask => &mut self.asks,
        };
        if level.amount == Money::ZERO {
            levels.remove(&level.price);
        } else {
            levels.insert(level.price, Entry { amount: level.amount, digits });
        }
    }

    /// Keeps the best `depth` levels of each side. A venue that sends a window of its book
    /// says nothing more of levels that fell out of it, so keeping them would keep ghosts.
    pub fn truncate(&mut self, depth: usize) {
        while self.bids.len() > depth {
            self.bids.pop_first();
        }
        while self.asks.len() > depth {
            self.asks.pop_last();
        }
    }

    /// Highest bid.
    pub fn best_bid(&self) -> Option<Level> {
        self.bids.last_key_value().map(level)
    }

    /// Lowest ask.
    pub fn best_ask(&self) -> Option<Level> {
        self.asks.first_key_value().map(level)
    }

    /// Whether the best bid is above the best ask, which no working venue shows.
    pub fn crossed(&self) -> bool {
        self.spread().is_some_and(|(bid, ask)| bid > ask)
    }

    /// Whether the best bid is the best ask: legal where orders of one owner do not meet each other.
    pub fn locked(&self) -> bool {
        self.spread().is_some_and(|(bid, ask)| bid == ask)
    }

    fn spread(&self) -> Option<(Money, Money)> {
        let (bid, _) = self.bids.last_key_value()?;
        let (ask, _) = self.asks.first_key_value()?;
        Some((*bid, *ask))
    }

    /// Number of levels: bids, asks.
    pub fn depth(&self) -> (usize, usize) {
        (self.bids.len(), self.asks.len())
    }

    /// The best `count` levels: bids and asks, best first.
    pub fn top(&self, count: usize) -> (Vec<Level>, Vec<Level>) {
        (
            self.bids.iter().rev().take(count).map(level).collect(),
            self.asks.iter().take(count).map(level).collect(),
        )
    }

    /// Kraken's CRC32 of the ten best asks, then bids: price and amount as sent, without point and
    /// leading zeros. Levels that came without their text count nothing, so such a book never verifies.
    pub fn checksum(&self) -> u32 {
        let asks = self.asks.values().take(CHECKSUM_LEVELS);
        let bids = self.bids.values().rev().take(CHECKSUM_LEVELS);
        // One long text is hashed much faster than twenty short ones.
        let mut text = Vec::with_capacity(CHECKSUM_BYTES);
        for digits in asks.chain(bids).filter_map(|entry| entry.digits.as_deref()) {
            text.extend_from_slice(digits.as_bytes());
        }
        crc32fast::hash(&text)
    }
}

impl OrderBook {
    /// OKX's CRC32 of the 25 best levels: `price:amount` of a bid and of an ask in turns, joined by colons; where one
    /// side has fewer, those of the other follow each other.
    pub fn checksum_of_pairs(&self) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        let mut bids = self.bids.values().rev().take(PAIR_LEVELS);
        let mut asks = self.asks.values().take(PAIR_LEVELS);
        let mut separator: &[u8] = b"";
        loop {
            let (bid, ask) = (bids.next(), asks.next());
            if bid.is_none() && ask.is_none() {
                return crc.finalize();
            }
            for pair in [bid, ask].into_iter().flatten().filter_map(|e| e.digits.as_deref()) {
                crc.update(separator);
                crc.update(pair.as_bytes());
                separator = b":";
            }
        }
    }
}

fn level((price, entry): (&Money, &Entry)) -> Level {
    Level { price: *price, amount: entry.amount }
}

fn checksum_digits(price: &str, amount: &str) -> Box<str> {
    let mut digits = String::with_capacity(price.len() + amount.len());
    for text in [price, amount] {
        let start = digits.len();
        for part in text.split('.') {
            // Leading zeros are those before the first other digit, on either side of the point.
            let is_leading = digits.len() == start;
            digits.push_str(if is_leading { part.trim_start_matches('0') } else { part });
        }
    }
    digits.into_boxed_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(text: &str) -> Money {
        text.parse().expect("valid in this test")
    }

    fn levels(texts: &[(&str, &str)]) -> Vec<Level> {
        texts.iter().map(|(p, a)| Level { price: money(p), amount: money(a) }).collect()
    }

    #[test]
    fn a_delta_sets_adds_and_removes_levels_and_a_snapshot_leaves_no_ghosts() {
        let mut book = OrderBook::new();
        book.apply_snapshot(
            &levels(&[("9", "1"), ("8", "2")]),
            &levels(&[("10", "3"), ("11", "0")]),
        );
        assert_eq!(book.depth(), (2, 1));
        book.apply_delta(&levels(&[("9", "0"), ("8", "5"), ("7", "1")]), &levels(&[("9.5", "4")]));
        assert_eq!(
            book.top(2),
            (levels(&[("8", "5"), ("7", "1")]), levels(&[("9.5", "4"), ("10", "3")]))
        );
        book.apply_snapshot(&levels(&[("1", "1")]), &[]);
        assert_eq!(book.top(5), (levels(&[("1", "1")]), vec![]));
    }

    #[test]
    fn a_book_is_locked_where_its_best_bid_is_its_best_ask_and_crossed_beyond() {
        let mut book = OrderBook::new();
        assert!(!book.crossed());
        book.apply_snapshot(&levels(&[("9", "1")]), &levels(&[("10", "1")]));
        assert!(!book.crossed());
        book.apply_delta(&levels(&[("10", "1")]), &[]);
        assert!(book.locked() && !book.crossed());
        book.apply_delta(&levels(&[("10.5", "1")]), &[]);
        assert!(book.crossed() && !book.locked());
    }

    #[test]
    fn what_falls_out_of_the_venues_window_is_forgotten() {
        let mut book = OrderBook::new();
        book.apply_snapshot(
            &levels(&[("9", "1"), ("8", "1"), ("7", "1")]),
            &levels(&[("10", "1"), ("11", "1"), ("12", "1")]),
        );
        book.truncate(2);
        assert_eq!(
            book.top(9),
            (levels(&[("9", "1"), ("8", "1")]), levels(&[("10", "1"), ("11", "1")]))
        );
    }

    /// The two cases of OKX's documentation: equal sides, and one side that ends before the other. Their texts are
    /// joined here by hand.
    #[test]
    fn the_checksum_of_pairs_takes_the_sides_in_turns() {
        let mut book = OrderBook::new();
        let mut put = |side, price, amount| {
            let level = Level { price: money(price), amount: money(amount) };
            book.set_with_pair(side, level, price, amount);
        };
        put(BookSide::Bid, "3366.1", "7");
        put(BookSide::Ask, "3366.8", "9");
        put(BookSide::Ask, "3368", "8");
        put(BookSide::Ask, "3372", "8.50");
        let text = "3366.1:7:3366.8:9:3368:8:3372:8.50";
        assert_eq!(book.checksum_of_pairs(), crc32fast::hash(text.as_bytes()));
        let level = Level { price: money("3366"), amount: money("6") };
        book.set_with_pair(BookSide::Bid, level, "3366", "6");
        let text = "3366.1:7:3366.8:9:3366:6:3368:8:3372:8.50";
        assert_eq!(book.checksum_of_pairs(), crc32fast::hash(text.as_bytes()));
    }

    /// The worked example of Kraken's documentation of the version 1 checksum.
    #[test]
    fn the_checksum_is_that_of_krakens_documentation() {
        let mut book = OrderBook::new();
        let sides = [
            (BookSide::Ask, ["0.05005", "0.05010", "0.05015", "0.05020", "0.05025"]),
            (BookSide::Ask, ["0.05030", "0.05035", "0.05040", "0.05045", "0.05050"]),
            (BookSide::Bid, ["0.05000", "0.04995", "0.04990", "0.04980", "0.04975"]),
            (BookSide::Bid, ["0.04970", "0.04965", "0.04960", "0.04955", "0.04950"]),
        ];
        for (side, prices) in sides {
            for price in prices {
                let amount = "0.00000500";
                let level = Level { price: money(price), amount: money(amount) };
                book.set_with_text(side, level, price, amount);
            }
        }
        assert_eq!(book.checksum(), 974_947_235);
    }
}
