//! The tape of a simulated venue: made whole before it runs, from a seed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::json;
use tapeline_schemas::Micros;

use super::{Config, Fault, Report};
use crate::playback::random::Random;

/// How far from the middle levels are set, in ticks.
const REACH_TICKS: u64 = 40;
/// How long before its receive time an event happened at the venue.
const TRANSIT_MICROS: i64 = 5_000;

/// Prices in ticks of 0.01 and amounts in lots of 0.0001.
type Side = BTreeMap<u64, u64>;

/// One change of a book.
#[derive(Debug, Clone, Default)]
pub(super) struct Delta {
    pub(super) last: u64,
    bids: Vec<(u64, u64)>,
    asks: Vec<(u64, u64)>,
}

/// A simulated book.
#[derive(Debug, Clone, Default)]
pub(super) struct SimBook {
    pub(super) last: u64,
    bids: Side,
    asks: Side,
}

impl SimBook {
    pub(super) fn apply(&mut self, delta: &Delta) {
        self.last = delta.last;
        for (side, changes) in [(&mut self.bids, &delta.bids), (&mut self.asks, &delta.asks)] {
            for (price, amount) in changes {
                if *amount == 0 {
                    side.remove(price);
                } else {
                    side.insert(*price, *amount);
                }
            }
        }
    }

    /// As the venue's REST interface gives it.
    pub(super) fn snapshot(&self, limit: usize) -> String {
        let bids: Vec<[String; 2]> = self.bids.iter().rev().take(limit).map(pair).collect();
        let asks: Vec<[String; 2]> = self.asks.iter().take(limit).map(pair).collect();
        json!({"lastUpdateId": self.last, "bids": bids, "asks": asks}).to_string()
    }

    /// The best levels: price and amount of bids, then of asks.
    pub(super) fn top(&self, count: usize) -> [Vec<[String; 2]>; 2] {
        let bids = self.bids.iter().rev().take(count).map(pair).collect();
        [bids, self.asks.iter().take(count).map(pair).collect()]
    }
}

pub(super) fn price(ticks: u64) -> String {
    format!("{}.{:02}", ticks / 100, ticks % 100)
}

pub(super) fn amount(lots: u64) -> String {
    format!("{}.{:04}", lots / 10_000, lots % 10_000)
}

fn pair((ticks, lots): (&u64, &u64)) -> [String; 2] {
    [price(*ticks), amount(*lots)]
}

/// One place of the tape.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) time: Micros,
    /// Number of the symbol.
    pub(super) symbol: usize,
    /// Name of the stream, as clients subscribe to it.
    pub(super) stream: String,
    /// What goes out; nothing where a delta is withheld.
    pub(super) text: Option<String>,
    /// What it does to the venue's own book.
    pub(super) delta: Option<Delta>,
    /// The client has to resynchronise before this goes out.
    pub(super) after_gap: bool,
}

/// A trade as the venue keeps it, sent or not.
#[derive(Debug)]
pub(super) struct PastTrade {
    /// Number of the symbol.
    pub(super) symbol: usize,
    pub(super) id: u64,
    pub(super) millis: i64,
    pub(super) ticks: u64,
    pub(super) lots: u64,
    pub(super) maker: bool,
}

struct Symbol {
    native: String,
    name: String,
    middle: u64,
    update: u64,
    trade: u64,
    gap_open: bool,
    book: SimBook,
}

/// The tape and what was put into it.
pub(super) struct Tape {
    pub(super) events: Vec<Event>,
    pub(super) natives: Vec<String>,
    /// Every trade, in order.
    pub(super) past: Vec<PastTrade>,
    /// Each symbol's book before the first event.
    pub(super) opening: Vec<SimBook>,
    pub(super) report: Report,
}

/// What happens at one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Trade,
    Ticker,
    Depth,
    DuplicateTrade,
    BadTick,
    CrossedBook,
    Gap,
    Malformed,
}

const FAULTS: [Step; 5] =
    [Step::DuplicateTrade, Step::BadTick, Step::CrossedBook, Step::Gap, Step::Malformed];

struct Maker {
    random: Random,
    symbols: Vec<Symbol>,
    events: Vec<Event>,
    past: Vec<PastTrade>,
    report: Report,
    now: Micros,
    /// Whether the stream loses its trades now.
    losing: bool,
}

pub(super) fn make(config: &Config) -> Tape {
    let mut maker = Maker {
        random: Random::new(config.seed),
        symbols: Vec::new(),
        events: Vec::with_capacity(config.events),
        past: Vec::new(),
        report: Report::default(),
        now: config.start,
        losing: false,
    };
    for (base, quote) in &config.symbols {
        maker.list(base, quote);
    }
    let opening = maker.symbols.iter().map(|s| s.book.clone()).collect();
    let between = 1_000_000 / i64::from(config.events_per_second.max(1));
    let plan = plan(config, &mut maker.random);
    for step in 0..config.events {
        maker.now = config.start.plus(between.saturating_mul(step as i64));
        maker.losing = config.trades_lost.contains(&step);
        let fault = plan.get(&step).copied();
        maker.step(fault);
    }
    // The last word of each book, so that a gap before it is noticed and the end can be compared.
    for symbol in 0..maker.symbols.len() {
        maker.now = maker.now.plus(between);
        maker.depth(symbol, false);
    }
    for symbol in &maker.symbols {
        maker
            .report
            .final_books
            .insert(symbol.name.clone(), symbol.book.top(super::REPORTED_LEVELS));
    }
    let natives = maker.symbols.iter().map(|s| s.native.clone()).collect();
    Tape { events: maker.events, natives, past: maker.past, opening, report: maker.report }
}

/// Faults at places of their own, away from the start, where nothing is known yet.
fn plan(config: &Config, random: &mut Random) -> BTreeMap<usize, Step> {
    let mut plan = BTreeMap::new();
    let first = config.events / 10;
    let wanted = config.faults_each * FAULTS.len();
    let room = config.events.saturating_sub(first);
    for index in 0..wanted.min(room) {
        let mut place = first + random.below(room as u64) as usize;
        while plan.contains_key(&place) {
            place = first + (place + 1 - first) % room;
        }
        if let Some(fault) = FAULTS.get(index % FAULTS.len()) {
            plan.insert(place, *fault);
        }
    }
    plan
}

impl Maker {
    fn list(&mut self, base: &str, quote: &str) {
        let middle = 10_000 + self.random.below(5_000_000);
        let update = 1_000 + self.random.below(1_000_000);
        let mut book = SimBook { last: update, ..SimBook::default() };
        for offset in 1..=REACH_TICKS {
            book.bids.insert(middle - offset, 1 + self.random.below(100_000));
            book.asks.insert(middle + offset, 1 + self.random.below(100_000));
        }
        self.symbols.push(Symbol {
            native: format!("{base}{quote}").to_ascii_uppercase(),
            name: format!("{base}-{quote}").to_ascii_uppercase(),
            middle,
            update,
            trade: 1 + self.random.below(1_000_000),
            gap_open: false,
            book,
        });
    }

    fn step(&mut self, fault: Option<Step>) {
        let step = fault.unwrap_or_else(|| match self.random.below(10) {
            0..=3 => Step::Trade,
            4..=6 => Step::Ticker,
            _ => Step::Depth,
        });
        let symbol = self.random.below(self.symbols.len() as u64) as usize;
        match step {
            Step::Trade => self.trade(symbol, false, false),
            Step::DuplicateTrade => self.trade(symbol, true, false),
            Step::BadTick => self.trade(symbol, false, true),
            Step::Ticker => self.ticker(symbol, false),
            Step::CrossedBook => self.ticker(symbol, true),
            Step::Depth => self.depth(symbol, false),
            Step::Gap => self.depth(symbol, true),
            Step::Malformed => self.malformed(symbol),
        }
    }

    fn venue_millis(&self) -> i64 {
        self.now.plus(-TRANSIT_MICROS).0.div_euclid(1_000)
    }

    fn put(&mut self, symbol: usize, channel: &str, data: &serde_json::Value) {
        let Some(state) = self.symbols.get(symbol) else { return };
        let stream = format!("{}@{channel}", state.native.to_ascii_lowercase());
        let text = Some(json!({"stream": stream, "data": data}).to_string());
        let time = self.now;
        self.events.push(Event { time, symbol, stream, text, delta: None, after_gap: false });
    }

    fn trade(&mut self, symbol: usize, twice: bool, bad: bool) {
        let millis = self.venue_millis();
        let lots = 1 + self.random.below(50_000);
        let maker = self.random.below(2) == 0;
        let Some(state) = self.symbols.get_mut(symbol) else { return };
        state.trade += 1;
        let ticks = if bad { state.middle * 10 } else { state.middle };
        let (id, name) = (state.trade, state.name.clone());
        let data = json!({
            "e": "aggTrade", "E": millis, "s": state.native, "a": id, "p": price(ticks),
            "q": amount(lots), "f": id, "l": id, "T": millis, "m": maker, "M": true,
        });
        self.past.push(PastTrade { symbol, id, millis, ticks, lots, maker });
        self.put(symbol, "aggTrade", &data);
        if self.losing {
            if let Some(event) = self.events.last_mut() {
                event.text = None;
            }
            self.report.trades_lost += 1;
            return;
        }
        self.report.trades += 1;
        if twice {
            self.put(symbol, "aggTrade", &data);
            self.report.trades += 1;
            self.report.faults.push(Fault::DuplicateTrade { symbol: name.clone(), trade_id: id });
        }
        if bad {
            self.report.faults.push(Fault::BadTick { symbol: name, trade_id: id });
        }
    }

    fn ticker(&mut self, symbol: usize, crossed: bool) {
        let Some(state) = self.symbols.get_mut(symbol) else { return };
        let (Some(bid), Some(ask)) =
            (state.book.bids.last_key_value(), state.book.asks.first_key_value())
        else {
            return;
        };
        state.update += 1;
        let (mut bid, mut ask) = (pair(bid), pair(ask));
        if crossed {
            std::mem::swap(&mut bid, &mut ask);
            let symbol = state.name.clone();
            self.report.faults.push(Fault::CrossedBook { symbol, event_id: state.update });
        }
        let data = json!({
            "u": state.update, "s": state.native, "b": bid[0], "B": bid[1], "a": ask[0], "A": ask[1],
        });
        self.put(symbol, "bookTicker", &data);
        self.report.tickers += 1;
    }

    /// Moves the market by at most a tick and sets some levels around it.
    fn depth(&mut self, symbol: usize, withheld: bool) {
        let millis = self.venue_millis();
        let Some(state) = self.symbols.get_mut(symbol) else { return };
        state.middle = (state.middle + self.random.below(3)).saturating_sub(1).max(1_000);
        let middle = state.middle;
        let mut delta = Delta::default();
        delta.bids.extend(state.book.bids.range(middle..).map(|(p, _)| (*p, 0)));
        delta.asks.extend(state.book.asks.range(..=middle).map(|(p, _)| (*p, 0)));
        delta.bids.push((middle - 1, 1 + self.random.below(100_000)));
        delta.asks.push((middle + 1, 1 + self.random.below(100_000)));
        for _ in 0..self.random.below(4) {
            let offset = 2 + self.random.below(REACH_TICKS);
            // One in ten takes a level away.
            let lots = if self.random.below(10) == 0 { 0 } else { self.random.below(100_000) };
            if self.random.below(2) == 0 {
                delta.bids.push((middle - offset, lots));
            } else {
                delta.asks.push((middle + offset, lots));
            }
        }
        state.update += (delta.bids.len() + delta.asks.len()) as u64;
        let first = state.book.last + 1;
        delta.last = state.update;
        state.book.apply(&delta);
        let levels = |side: &[(u64, u64)]| -> Vec<[String; 2]> {
            side.iter().map(|(p, a)| pair((p, a))).collect()
        };
        let data = json!({
            "e": "depthUpdate", "E": millis, "s": state.native, "U": first, "u": delta.last,
            "b": levels(&delta.bids), "a": levels(&delta.asks),
        });
        let was_open = std::mem::replace(&mut state.gap_open, withheld);
        let (after_gap, new_gap) = (was_open && !withheld, withheld && !was_open);
        let name = state.name.clone();
        if withheld {
            self.report.withheld_updates += 1;
        } else {
            self.report.depth_updates += 1;
        }
        if new_gap {
            self.report.faults.push(Fault::Gap { symbol: name, first, last: delta.last });
        }
        self.put(symbol, "depth@100ms", &data);
        if let Some(event) = self.events.last_mut() {
            event.text = event.text.take().filter(|_| !withheld);
            event.delta = Some(delta);
            event.after_gap = after_gap;
        }
    }

    /// A frame that no reader should take: cut off, or with a price beyond any decimal.
    fn malformed(&mut self, symbol: usize) {
        let Some(state) = self.symbols.get(symbol) else { return };
        let stream = format!("{}@aggTrade", state.native.to_ascii_lowercase());
        let mut text = String::new();
        let cut = self.random.below(2) == 0;
        let digits = "9".repeat(60);
        // Writing to a text cannot fail.
        let _ = write!(
            text,
            r#"{{"stream":"{stream}","data":{{"e":"aggTrade","s":"{}","a":1,"p":"{digits}","q":"1","T":1,"m":true}}}}"#,
            state.native
        );
        if cut {
            text.truncate(text.len() / 2);
        }
        self.report.faults.push(Fault::Malformed { start: text.chars().take(40).collect() });
        let (time, text) = (self.now, Some(text));
        self.events.push(Event { time, symbol, stream, text, delta: None, after_gap: false });
    }
}
