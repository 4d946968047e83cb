//! The market as records for Kafka, with the faults that feeds have.

use tapeline_schemas::{Book, Field as _, Kind, Micros, Ticker, Trade, wire};

use super::{Drawn, Market, Settings, Taker};
use crate::random::{Chance, Random};

/// Records that a repetition is taken from: it comes this many records after the first at most.
const REMEMBERED: usize = 4_096;
/// A late event's venue time lies this far behind: more than `validate` finds usual.
const LATE_MICROS: i64 = 90_000_000;
/// An event out of order lies up to this far behind.
const DISORDER_MICROS: u64 = 2_000_000;

/// Shares of records with a fault, 0 to 1 each.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Sent again, byte for byte.
    pub(crate) duplicates: f64,
    /// With a venue time far behind the receive time.
    pub(crate) late: f64,
    /// With a venue time somewhat before that of the event before.
    pub(crate) out_of_order: f64,
    /// Not in the format, cut short, or under a wrong key.
    pub(crate) malformed: f64,
}

/// Counts of what a feed has given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// All records.
    pub(crate) records: u64,
    /// Trades, tickers and books of the market, each once.
    pub(crate) events: [u64; 3],
    /// Records sent again.
    pub(crate) duplicates: u64,
    /// Late events.
    pub(crate) late: u64,
    /// Events out of order.
    pub(crate) out_of_order: u64,
    /// Records that can only go to quarantine.
    pub(crate) malformed: u64,
}

/// A record for a raw topic.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FeedRecord<'f> {
    /// Kind of the raw topic.
    pub(crate) kind: Kind,
    /// Index of the symbol in [`Feed::keys`].
    pub(crate) symbol: usize,
    /// When it happened, by the venue's clock; of a repetition, now.
    pub(crate) time: Micros,
    /// The value, wire header included.
    pub(crate) value: &'f [u8],
}

/// Gives the market's records one after the other, without allocating.
pub(crate) struct Feed {
    pub(super) market: Market,
    random: Random,
    chances: [Chance; 4],
    ids: [u32; 3],
    value: Vec<u8>,
    remembered: Vec<(Drawn, Vec<u8>)>,
    counts: Counts,
}

impl Feed {
    /// A feed of `settings`' market; `ids` are the schema ids of trades, tickers and books.
    pub(crate) fn new(settings: &Settings, faults: Faults, ids: [u32; 3]) -> Feed {
        let shares = [faults.duplicates, faults.late, faults.out_of_order, faults.malformed];
        Feed {
            market: Market::new(settings),
            random: Random::new(settings.seed ^ 0x5eed),
            chances: shares.map(Chance::new),
            ids,
            value: Vec::with_capacity(1_024),
            remembered: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Kafka's keys, by index of the symbol.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.market.keys().map(str::to_owned).collect()
    }

    /// What it has given so far.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// The next record.
    #[inline]
    pub(crate) fn next(&mut self) -> FeedRecord<'_> {
        let [duplicates, late, out_of_order, malformed] = self.chances;
        self.counts.records += 1;
        if self.random.happens(duplicates) && !self.remembered.is_empty() {
            self.counts.duplicates += 1;
            let index = self.random.below(self.remembered.len() as u64) as usize;
            let (drawn, value) = &self.remembered[index];
            let time = self.market.clock;
            return FeedRecord { kind: drawn.kind, symbol: drawn.symbol, time, value };
        }
        let delay = if self.random.happens(late) {
            self.counts.late += 1;
            LATE_MICROS
        } else if self.random.happens(out_of_order) {
            self.counts.out_of_order += 1;
            1 + self.random.below(DISORDER_MICROS) as i64
        } else {
            0
        };
        self.value.clear();
        let mut encoder = Encoder { ids: &self.ids, out: &mut self.value };
        let mut drawn = self.market.next(delay, &mut encoder);
        self.counts.events[drawn.kind as usize] += 1;
        if self.random.happens(malformed) {
            self.counts.malformed += 1;
            self.spoil(&mut drawn);
        } else if duplicates != Chance::default() {
            self.remember(drawn);
        }
        let time = self.market.clock.plus(-delay);
        FeedRecord { kind: drawn.kind, symbol: drawn.symbol, time, value: &self.value }
    }

    /// Makes a record one that validation refuses.
    fn spoil(&mut self, drawn: &mut Drawn) {
        match self.random.below(3) {
            0 => self.value.truncate(wire::HEADER_BYTES + 7),
            1 => self.value[0] = b'{',
            // Of another symbol; a market of one has none.
            _ if self.market.symbols.len() > 1 => {
                drawn.symbol = (drawn.symbol + 1) % self.market.symbols.len();
            }
            _ => self.value.push(0),
        }
    }

    fn remember(&mut self, drawn: Drawn) {
        if self.remembered.len() < REMEMBERED {
            self.remembered.push((drawn, self.value.clone()));
            return;
        }
        let index = self.counts.records as usize % REMEMBERED;
        let (held, value) = &mut self.remembered[index];
        *held = drawn;
        value.clear();
        value.extend_from_slice(&self.value);
    }
}

/// Writes events in the wire format.
struct Encoder<'e> {
    ids: &'e [u32; 3],
    out: &'e mut Vec<u8>,
}

impl Taker for Encoder<'_> {
    #[inline]
    fn trade(&mut self, trade: Trade<'_>) {
        wire::put_header(self.ids[0], self.out);
        trade.put(self.out);
    }

    fn ticker(&mut self, ticker: Ticker<'_>) {
        wire::put_header(self.ids[1], self.out);
        ticker.put(self.out);
    }

    fn book(&mut self, book: &Book<'_>) {
        wire::put_header(self.ids[2], self.out);
        book.put(self.out);
    }
}
