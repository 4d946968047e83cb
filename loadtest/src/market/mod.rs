//! A market whose every event follows from its seed: symbols of skewed activity, prices that walk on
//! tick grids, sweeps through several levels at one moment, and symbols that are hot for a while.

mod feed;
mod identity;
mod weighted;

use std::borrow::Cow;

use tapeline_schemas::{Book, BookAction, Kind, Level, Micros, Money, Side, Ticker, Trade};

pub(crate) use self::feed::{Faults, Feed, FeedRecord};
pub(crate) use self::identity::verify_trade;
#[cfg(test)]
pub(crate) use self::identity::{verify_book, verify_ticker};
pub(crate) use self::weighted::Weighted;
use crate::random::{Chance, Random};

/// The venue of every event.
pub(crate) const VENUE: &str = "LOADTEST";
/// Units of 10⁻¹⁸ in the smallest amount, 0.0001.
const AMOUNT_STEP: i128 = 10_i128.pow(14);
/// Tick sizes that symbols have in turn, in units of 10⁻¹⁸: 0.01, 0.5, 0.0001, 0.00000001.
const TICKS: [i128; 4] = [10_i128.pow(16), 5 * 10_i128.pow(17), 10_i128.pow(14), 10_i128.pow(10)];
/// Lowest price in ticks: one tick is then never a jump.
const LOWEST_TICKS: i64 = 5_000;
/// Trades a sweep takes at most, at one moment and each a tick further.
const SWEEP: u32 = 8;
/// Share of trades that begin a sweep.
const SWEEPS: f64 = 0.08;
/// Share of events that a hot symbol takes.
const HEAT: f64 = 0.2;
/// Events that a symbol stays hot.
const HOT_EVENTS: u32 = 5_000;

/// What a market is like.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The same seed gives the same events.
    pub(crate) seed: u64,
    /// Number of symbols.
    pub(crate) symbols: u32,
    /// Exponent of Zipf's law: 0 makes all symbols equally active.
    pub(crate) skew: f64,
    /// Weights of trades, tickers and books.
    pub(crate) mix: Mix,
    /// Levels a side of a book.
    pub(crate) depth: usize,
    /// Time of the first event.
    pub(crate) start: Micros,
    /// Events a second of the market's own time.
    pub(crate) pace: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            seed: 1,
            symbols: 200,
            skew: 1.0,
            mix: Mix::TRADES,
            depth: 10,
            start: Micros(1_700_000_000_000_000),
            pace: 5_000,
        }
    }
}

/// Weights of the kinds that are produced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mix {
    /// Of trades.
    pub(crate) trade: f64,
    /// Of tickers.
    pub(crate) ticker: f64,
    /// Of books.
    pub(crate) book: f64,
}

impl Mix {
    /// Trades alone.
    pub(crate) const TRADES: Mix = Mix { trade: 1.0, ticker: 0.0, book: 0.0 };
    /// What a feed of best levels once a second looks like beside its trades.
    pub(crate) const MIXED: Mix = Mix { trade: 80.0, ticker: 15.0, book: 5.0 };

    const KINDS: [Kind; 3] = [Kind::Trade, Kind::Ticker, Kind::Book];

    fn weights(self) -> [f64; 3] {
        [self.trade, self.ticker, self.book]
    }
}

impl std::str::FromStr for Mix {
    type Err = String;

    /// `trade=80,ticker=15,book=5`; what is not named has no weight.
    fn from_str(text: &str) -> Result<Mix, String> {
        let mut mix = Mix { trade: 0.0, ticker: 0.0, book: 0.0 };
        for part in text.split(',') {
            let (kind, weight) =
                part.split_once('=').ok_or_else(|| format!("'{part}': expected kind=weight"))?;
            let slot = match kind.trim() {
                "trade" => &mut mix.trade,
                "ticker" => &mut mix.ticker,
                "book" => &mut mix.book,
                other => return Err(format!("'{other}': expected trade, ticker or book")),
            };
            *slot = weight
                .trim()
                .parse()
                .ok()
                .filter(|weight: &f64| weight.is_finite() && *weight >= 0.0)
                .ok_or_else(|| format!("'{weight}': expected a weight of 0 or more"))?;
        }
        if mix.weights().iter().sum::<f64>() > 0.0 {
            Ok(mix)
        } else {
            Err("all weights are 0".into())
        }
    }
}

/// One symbol.
#[derive(Debug)]
struct Symbol {
    name: String,
    key: String,
    tick: i128,
    ticks: i64,
    volume: i128,
    numbers: [u64; 3],
}

impl Symbol {
    fn new(number: u32) -> Symbol {
        let name = format!("S{number:03}-USD");
        let key = format!("{VENUE}:{name}");
        let tick = TICKS[number as usize % TICKS.len()];
        let ticks = LOWEST_TICKS * 2 + i64::from(number) * 700;
        Symbol { name, key, tick, ticks, volume: 0, numbers: [0; 3] }
    }

    fn price(&self, away: i64) -> Money {
        // Far below the limit of 38 digits.
        Money::from_mantissa(i128::from(self.ticks + away) * self.tick).unwrap_or_default()
    }
}

fn amount(units: u32) -> Money {
    Money::from_mantissa(i128::from(units) * AMOUNT_STEP).unwrap_or_default()
}

/// The trades of one taker's order through several levels.
#[derive(Debug, Clone, Copy)]
struct Sweep {
    symbol: usize,
    left: u32,
    up: bool,
}

/// What was drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Drawn {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Index of its symbol.
    pub(crate) symbol: usize,
}

/// Takes each event of a [`Market`] while it is there.
pub(crate) trait Taker {
    /// Takes a trade.
    fn trade(&mut self, trade: Trade<'_>);
    /// Takes a ticker.
    fn ticker(&mut self, ticker: Ticker<'_>);
    /// Takes a book.
    fn book(&mut self, book: &Book<'_>);
}

/// The market.
#[derive(Debug)]
pub(crate) struct Market {
    random: Random,
    symbols: Vec<Symbol>,
    activity: Weighted,
    kinds: Weighted,
    depth: usize,
    /// The step to the next event, in 1/65536 microseconds, and what is left of one.
    step: u64,
    rest: u64,
    clock: Micros,
    sweep: Option<Sweep>,
    sweeps: Chance,
    heat: Chance,
    hot: (usize, u32),
    levels: (Vec<Level>, Vec<Level>),
}

impl Market {
    /// A market at its start.
    pub(crate) fn new(settings: &Settings) -> Market {
        let count = settings.symbols.max(1);
        Market {
            random: Random::new(settings.seed),
            symbols: (0..count).map(Symbol::new).collect(),
            activity: Weighted::zipf(count, settings.skew),
            kinds: Weighted::new(&settings.mix.weights()),
            depth: settings.depth,
            step: (1_000_000 << 16) / u64::from(settings.pace.max(1)),
            rest: 0,
            clock: settings.start,
            sweep: None,
            // Without skew nothing is hot either: every partition then gets the same.
            sweeps: Chance::new(if settings.skew > 0.0 { SWEEPS } else { 0.0 }),
            heat: Chance::new(if settings.skew > 0.0 { HEAT } else { 0.0 }),
            hot: (0, 0),
            levels: (Vec::new(), Vec::new()),
        }
    }

    /// Kafka's keys of the symbols.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.symbols.iter().map(|symbol| symbol.key.as_str())
    }

    /// Draws the next event; `delay` is how far its venue time lies behind (late, out of order).
    #[inline]
    pub(crate) fn next(&mut self, delay: i64, taker: &mut impl Taker) -> Drawn {
        if let Some(sweep) = self.sweep.take() {
            let left = sweep.left - 1;
            self.sweep = (left > 0).then_some(Sweep { left, ..sweep });
            self.trade(sweep.symbol, if sweep.up { 1 } else { -1 }, delay, taker);
            return Drawn { kind: Kind::Trade, symbol: sweep.symbol };
        }
        // Between half and one and a half of the mean step.
        self.rest += self.step / 2 + ((self.step * (self.random.draw() >> 48)) >> 16);
        self.clock = self.clock.plus((self.rest >> 16) as i64);
        self.rest &= 0xffff;
        let symbol = self.symbol();
        let kind = Mix::KINDS[self.kinds.draw(&mut self.random)];
        match kind {
            Kind::Ticker => self.ticker(symbol, delay, taker),
            Kind::Book => self.book(symbol, delay, taker),
            _ => {
                let walk = [-1, 0, 0, 1][self.random.below(4) as usize];
                if self.random.happens(self.sweeps) {
                    let left = 1 + self.random.below(u64::from(SWEEP) - 1) as u32;
                    self.sweep = Some(Sweep { symbol, left, up: walk >= 0 });
                }
                self.trade(symbol, walk, delay, taker);
            }
        }
        Drawn { kind, symbol }
    }

    fn symbol(&mut self) -> usize {
        if self.hot.1 == 0 {
            self.hot = (self.random.below(self.symbols.len() as u64) as usize, HOT_EVENTS);
        }
        self.hot.1 -= 1;
        if self.random.happens(self.heat) {
            return self.hot.0;
        }
        self.activity.draw(&mut self.random)
    }

    /// When a venue's event happened and when it was received.
    fn times(&mut self, delay: i64) -> (Micros, Micros) {
        let receive = self.clock.plus(500 + self.random.below(2_000) as i64);
        (self.clock.plus(-delay), receive)
    }

    fn trade(&mut self, index: usize, walk: i64, delay: i64, taker: &mut impl Taker) {
        let (venue_time, receive_time) = self.times(delay);
        let bits = self.random.draw();
        let symbol = &mut self.symbols[index];
        symbol.ticks = (symbol.ticks + walk).max(LOWEST_TICKS);
        symbol.numbers[0] += 1;
        // Many small ones and few large ones.
        let units = 1 + ((bits as u32) >> (12 + (bits >> 32) % 16));
        symbol.volume += i128::from(units);
        let side = match walk {
            0 if bits >> 63 == 0 => Side::Sell,
            -1 => Side::Sell,
            _ => Side::Buy,
        };
        let mut trade = Trade {
            exchange: VENUE.into(),
            symbol: symbol.name.as_str().into(),
            trade_id: Cow::Borrowed(""),
            price: symbol.price(0),
            amount: amount(units),
            side,
            kind: None,
            taker_or_maker: None,
            sequence: Some(symbol.numbers[0] as i64),
            venue_time,
            receive_time,
        };
        let id = identity::identity(symbol.numbers[0], identity::trade_sum(&trade));
        let mut text = itoa::Buffer::new();
        trade.trade_id = text.format(id).into();
        taker.trade(trade);
    }

    fn ticker(&mut self, index: usize, delay: i64, taker: &mut impl Taker) {
        let (venue_time, receive_time) = self.times(delay);
        let bits = self.random.draw();
        let symbol = &mut self.symbols[index];
        symbol.numbers[1] += 1;
        let volume = |scale: i128| Money::from_mantissa(symbol.volume * scale).ok();
        let mut ticker = Ticker {
            exchange: VENUE.into(),
            symbol: symbol.name.as_str().into(),
            event_id: None,
            last: Some(symbol.price(0)),
            bid: Some(symbol.price(-1)),
            bid_volume: Some(amount(1 + (bits as u32 >> 14))),
            ask: Some(symbol.price(1)),
            ask_volume: Some(amount(1 + ((bits >> 46) as u32))),
            volume_24h: volume(AMOUNT_STEP),
            quote_volume_24h: volume(AMOUNT_STEP * 100),
            price_change_24h: None,
            price_change_percent_24h: None,
            venue_time,
            receive_time,
        };
        let id = identity::identity(symbol.numbers[1], identity::ticker_sum(&ticker));
        let mut text = itoa::Buffer::new();
        ticker.event_id = Some(text.format(id).into());
        taker.ticker(ticker);
    }

    fn book(&mut self, index: usize, delay: i64, taker: &mut impl Taker) {
        let (venue_time, receive_time) = self.times(delay);
        let (mut bids, mut asks) = std::mem::take(&mut self.levels);
        bids.clear();
        asks.clear();
        let symbol = &mut self.symbols[index];
        symbol.numbers[2] += 1;
        for away in 1..=self.depth as i64 {
            let bits = self.random.draw();
            let level = |away, bits: u64| Level {
                price: symbol.price(away),
                amount: amount(1 + (bits as u32 >> 14)),
            };
            bids.push(level(-away, bits));
            asks.push(level(away, bits >> 32));
        }
        let mut book = Book {
            exchange: VENUE.into(),
            symbol: symbol.name.as_str().into(),
            action: BookAction::Top,
            event_id: None,
            bids,
            asks,
            first_sequence: None,
            sequence: Some(symbol.numbers[2] as i64),
            checksum: None,
            venue_time,
            receive_time,
        };
        let id = identity::identity(symbol.numbers[2], identity::book_sum(&book));
        let mut text = itoa::Buffer::new();
        book.event_id = Some(text.format(id).into());
        taker.book(&book);
        self.levels = (book.bids, book.asks);
    }
}

#[cfg(test)]
mod tests;
