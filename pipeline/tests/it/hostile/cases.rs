//! Records as a broken or hostile client writes them, and good ones among them.

use std::collections::HashMap;

use tapeline_schemas::{
    Book, BookAction, Kind, Level, Micros, Money, Ticker, Trade, encode, partition_for, wire,
};

use crate::look::{Plain, Seeded, trade};

pub(super) const PARTITIONS: i32 = 4;
const START: i64 = 1_700_000_000_000_000;
const KEY: &str = "TEST:BTC-USD";
/// Digits that no float holds.
pub(super) const PRICE: &str = "30123.123456789012345678";

/// What must become of a record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Fate {
    Good,
    /// In quarantine, for this reason.
    Bad(&'static str),
    /// A flipped bit may still make a sound event: one or the other, never both or neither.
    Either,
}

pub(super) struct Case {
    pub(super) what: String,
    pub(super) kind: Kind,
    pub(super) record: Plain,
    pub(super) fate: Fate,
}

/// Makes cases, each record a good one but for what its test changes.
struct Cases {
    ids: HashMap<Kind, u32>,
    cases: Vec<Case>,
}

fn a_ticker(id: i64) -> Ticker<'static> {
    Ticker {
        exchange: "TEST".into(),
        symbol: "BTC-USD".into(),
        event_id: (id % 2 == 0).then(|| id.to_string().into()),
        last: Some(PRICE.parse().expect("price")),
        bid: Some("30123".parse().expect("price")),
        bid_volume: Some(Money::ONE),
        ask: Some("30124".parse().expect("price")),
        ask_volume: Some(Money::ONE),
        volume_24h: None,
        quote_volume_24h: None,
        price_change_24h: Some("-0.5".parse().expect("price")),
        price_change_percent_24h: None,
        venue_time: Micros(START),
        receive_time: Micros(START),
    }
}

fn levels(prices: &[&str]) -> Vec<Level> {
    let level = |text: &&str| Level { price: text.parse().expect("price"), amount: Money::ONE };
    prices.iter().map(level).collect()
}

fn a_book(id: i64) -> Book<'static> {
    Book {
        exchange: "TEST".into(),
        symbol: "BTC-USD".into(),
        action: BookAction::Top,
        event_id: Some(id.to_string().into()),
        bids: levels(&["99.000000000000000001", "98", "97"]),
        asks: levels(&["100", "101.5", "102"]),
        first_sequence: None,
        sequence: Some(id),
        checksum: None,
        venue_time: Micros(START),
        receive_time: Micros(START),
    }
}

fn a_trade(id: i64) -> Trade<'static> {
    trade("TEST", "BTC-USD", id, PRICE, START)
}

/// Every case, in an order of its own.
pub(super) fn all(ids: HashMap<Kind, u32>, seeded: &mut Seeded) -> Vec<Case> {
    let mut cases = Cases { ids, cases: Vec::new() };
    cases.good();
    cases.frames();
    cases.bytes();
    cases.rules();
    cases.controls();
    cases.flips(seeded);
    seeded.shuffle(&mut cases.cases);
    cases.cases
}

impl Cases {
    fn framed(&self, kind: Kind, payload: &[u8]) -> Vec<u8> {
        let mut value = Vec::new();
        wire::put_header(self.ids[&kind], &mut value);
        value.extend_from_slice(payload);
        value
    }

    fn add(
        &mut self,
        what: impl Into<String>,
        kind: Kind,
        value: Vec<u8>,
        fate: Fate,
    ) -> &mut Case {
        let record = Plain {
            partition: partition_for(KEY.as_bytes(), PARTITIONS),
            key: Some(KEY.into()),
            value: Some(value),
            headers: Vec::new(),
        };
        self.cases.push(Case { what: what.into(), kind, record, fate });
        self.cases.last_mut().expect("just pushed")
    }

    fn payload(&mut self, what: &str, kind: Kind, payload: &[u8], fate: Fate) -> &mut Case {
        let value = self.framed(kind, payload);
        self.add(what, kind, value, fate)
    }

    fn trade(&mut self, what: &str, fate: Fate, change: impl FnOnce(&mut Trade<'_>)) -> &mut Case {
        let mut trade = a_trade(9_000_000 + self.cases.len() as i64);
        change(&mut trade);
        self.payload(what, Kind::Trade, &encode(&trade), fate)
    }

    fn ticker(&mut self, what: &str, change: impl FnOnce(&mut Ticker<'_>)) {
        let mut ticker = a_ticker(9_000_000 + self.cases.len() as i64);
        change(&mut ticker);
        self.payload(what, Kind::Ticker, &encode(&ticker), Fate::Bad("range"));
    }

    fn book(&mut self, what: &str, change: impl FnOnce(&mut Book<'_>)) {
        let mut book = a_book(9_000_000 + self.cases.len() as i64);
        change(&mut book);
        self.payload(what, Kind::Book, &encode(&book), Fate::Bad("range"));
    }

    fn good(&mut self) {
        for id in 0..300 {
            self.payload("good trade", Kind::Trade, &encode(&a_trade(id)), Fate::Good);
        }
        for id in 0..60 {
            self.payload("good ticker", Kind::Ticker, &encode(&a_ticker(id)), Fate::Good);
            self.payload("good book", Kind::Book, &encode(&a_book(id)), Fate::Good);
        }
        // Headers in our names are not believed, and others' headers are nobody's business.
        let forged = [("tl-origin", "7"), ("tl-flags", "duplicate"), ("tl-outcome", "quarantined")];
        let case = self.trade("forged headers", Fate::Good, |_| {});
        case.record.headers = forged.map(|(name, text)| (name.to_owned(), text.into())).to_vec();
        let case = self.trade("headers that are no text", Fate::Good, |_| {});
        case.record.headers = vec![("x".to_owned(), vec![0xff, 0, 0xfe]), (String::new(), vec![])];
    }

    /// Not in the wire format, or in a schema that nobody knows or that is another kind's.
    fn frames(&mut self) {
        let wire = Fate::Bad("wire");
        let good = self.framed(Kind::Trade, &encode(&a_trade(1)));
        for magic in [1, 2, 0x7b, 0x80, 0xff] {
            let value = [&[magic], &good[1..]].concat();
            self.add(format!("magic byte {magic}"), Kind::Trade, value, wire);
        }
        for length in 0..5 {
            self.add(format!("{length} bytes"), Kind::Trade, good[..length].to_vec(), wire);
        }
        self.add("JSON", Kind::Ticker, b"{\"exchange\":\"TEST\",\"price\":1}".to_vec(), wire);
        let schema = Fate::Bad("schema");
        for id in [4_000_000_u32, 77_777, u32::MAX, 0x8000_0000] {
            for kind in Kind::raw() {
                let value = [&[0], &id.to_be_bytes()[..], &good[5..]].concat();
                self.add(format!("schema id {id}"), kind, value, schema);
            }
        }
        let ticker = self.framed(Kind::Ticker, &encode(&a_ticker(1)));
        // Of a kind that lacks what ours needs: the resolution says what is missing.
        self.add("a ticker among trades", Kind::Trade, ticker, Fate::Bad("decode"));
        self.add("a trade among books", Kind::Book, good, Fate::Bad("decode"));
    }

    /// Avro that ends early, goes on too long or speaks of lengths that are not there.
    fn bytes(&mut self) {
        let decode = Fate::Bad("decode");
        for kind in Kind::raw() {
            let payload = match kind {
                Kind::Trade => encode(&a_trade(1)),
                Kind::Ticker => encode(&a_ticker(2)),
                _ => encode(&a_book(3)),
            };
            for length in 0..payload.len() {
                let what = format!("{} cut after {length} bytes", kind.name());
                self.payload(&what, kind, &payload[..length], decode);
            }
            self.payload("a byte too many", kind, &[&payload[..], &[0]].concat(), decode);
            // The first field's length: huge, negative, a number that never ends.
            for length in [&[0xfe_u8, 0xff, 0xff, 0xff, 0x0f][..], &[1], &[0xff; 10], &[0xff; 40]] {
                let value = [length, &payload[1..]].concat();
                self.payload(&format!("length {length:x?}"), kind, &value, decode);
            }
        }
        let payload = encode(&a_trade(1));
        let letters = [&payload[..1], &[0xff, 0xfe, 0xc0, 0x80], &payload[5..]].concat();
        self.payload("a name that is no UTF-8", Kind::Trade, &letters, decode);
        // A book of four thousand million million levels in a record of few bytes.
        let mut book = encode(&Book { bids: vec![], asks: vec![], ..a_book(1) });
        let at = book.windows(2).rposition(|pair| pair == [0, 0]).expect("two empty arrays");
        book.splice(at..=at, [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
        self.payload("more levels than bytes", Kind::Book, &book, decode);
    }

    /// Sound records that break a rule.
    fn rules(&mut self) {
        let range = Fate::Bad("range");
        let routing = Fate::Bad("routing");
        let money = |text: &str| text.parse::<Money>().expect("money");
        self.trade("negative price", range, |trade| trade.price = money("-1"));
        self.trade("price zero", range, |trade| trade.price = Money::ZERO);
        self.trade("amount zero", range, |trade| trade.amount = Money::ZERO);
        self.trade("negative amount", range, |trade| trade.amount = money("-0.000000000000000001"));
        for time in [0, -1, i64::MIN, i64::MAX, 631_151_999_999_999, 7_258_118_400_000_000] {
            self.trade(&format!("venue time {time}"), range, |t| t.venue_time = Micros(time));
            self.trade(&format!("receive time {time}"), range, |t| t.receive_time = Micros(time));
            self.ticker(&format!("venue time {time}"), |ticker| ticker.venue_time = Micros(time));
            self.book(&format!("venue time {time}"), |book| book.venue_time = Micros(time));
        }
        let day_ahead = START + 2 * 86_400_000_000;
        self.trade("two days ahead", range, |trade| trade.venue_time = Micros(day_ahead));
        for text in ["", "a\0b", "\u{1}", "\u{7f}", "line\nbreak", &"x".repeat(101)] {
            let what = format!("{text:?} as");
            self.trade(&format!("{what} id"), range, |t| t.trade_id = text.to_owned().into());
            self.trade(&format!("{what} venue"), range, |t| t.exchange = text.to_owned().into());
            self.trade(&format!("{what} symbol"), range, |t| t.symbol = text.to_owned().into());
            self.trade(&format!("{what} type"), range, |t| t.kind = Some(text.to_owned().into()));
            let own = |t: &mut Trade<'_>| t.taker_or_maker = Some(text.to_owned().into());
            self.trade(&format!("{what} maker"), range, own);
            self.ticker(&format!("{what} id"), |t| t.event_id = Some(text.to_owned().into()));
            self.book(&format!("{what} id"), |b| b.event_id = Some(text.to_owned().into()));
        }
        self.trade("small letters", range, |trade| trade.exchange = "test".into());
        self.trade("a symbol of one part", range, |trade| trade.symbol = "BTCUSD".into());
        self.trade("another symbol", routing, |trade| trade.symbol = "ETH-USD".into());
        for (what, key) in [("no key", None), ("empty key", Some("")), ("half a key", Some("TEST"))]
        {
            let case = self.trade(what, routing, |_| {});
            case.record.key = key.map(Into::into);
        }
        self.trade("a key that is no text", routing, |_| {}).record.key = Some(vec![0xff, 0, 1]);
        for by in 1..PARTITIONS {
            let case = self.trade("misrouted", routing, |_| {});
            case.record.partition = (case.record.partition + by) % PARTITIONS;
        }
        for (what, text) in [("last", "-1"), ("last", "0")] {
            self.ticker(&format!("{what} {text}"), |ticker| ticker.last = Some(money(text)));
        }
        self.ticker("bid zero", |ticker| ticker.bid = Some(Money::ZERO));
        self.ticker("negative volume", |ticker| ticker.volume_24h = Some(money("-1")));
        self.book("unsorted bids", |book| book.bids = levels(&["98", "99"]));
        self.book("unsorted asks", |book| book.asks = levels(&["100", "103", "101"]));
        self.book("a price twice", |book| book.bids = levels(&["98", "98"]));
        self.book("negative level", |book| book.asks = levels(&["-100"]));
        self.book("an empty level", |book| book.bids[0].amount = Money::ZERO);
        let mut delta = Book { action: BookAction::Delta, ..a_book(1) };
        delta.asks[1].amount = money("-1");
        self.payload("negative delta", Kind::Book, &encode(&delta), range);
    }

    /// Empty values that are no control record, or a broken one.
    fn controls(&mut self) {
        let gap = [("tl-control", "gap-opened"), ("tl-venue", "TEST"), ("tl-symbol", "BTC-USD")];
        let gap = [&gap[..], &[("tl-channel", "trade"), ("tl-from", "1700000000000000")]].concat();
        let with = |more: &[(&'static str, &'static str)]| [&gap[..], more].concat();
        let through = |through| vec![("tl-control", "complete"), ("tl-venue", "T"), through];
        for (what, headers, fate) in [
            ("no value and no headers", vec![], "control"),
            ("unknown control", vec![("tl-control", "party")], "control"),
            ("complete through nothing", vec![("tl-control", "complete")], "control"),
            ("complete through a word", through(("tl-through", "soon")), "control"),
            ("complete beyond time", through(("tl-through", "9223372036854775807")), "range"),
            ("gap without a cause", with(&[]), "control"),
            ("gap with a NUL", with(&[("tl-cause", "a\0b")]), "range"),
            ("gap to before time", with(&[("tl-cause", "x"), ("tl-to", "-9e9")]), "control"),
            (
                "gap beyond time",
                with(&[("tl-cause", "x"), ("tl-to", "9223372036854775807")]),
                "range",
            ),
        ] {
            let case = self.add(what, Kind::Trade, Vec::new(), Fate::Bad(fate));
            case.record.value = None;
            let headers = headers.iter().map(|(name, text)| ((*name).to_owned(), (*text).into()));
            case.record.headers = headers.collect();
        }
        // A sound control record whose writer claims to be `validate`.
        let case = self.add("forged marker", Kind::Trade, Vec::new(), Fate::Good);
        case.record.value = None;
        let forged = [("tl-origin-first", "999999"), ("tl-origin", "0"), ("tl-outcome", "lost")];
        let headers = through(("tl-through", "1600000000000000")).into_iter().chain(forged);
        case.record.headers = headers.map(|(name, text)| (name.to_owned(), text.into())).collect();
    }

    /// Any bit of a good record may flip on its way.
    fn flips(&mut self, seeded: &mut Seeded) {
        for number in 0..150 {
            let mut payload = encode(&trade("TEST", "FLIP-USD", number, PRICE, START + number));
            let bit = seeded.below(payload.len() * 8);
            payload[bit / 8] ^= 1 << (bit % 8);
            let case = self.payload(&format!("bit {bit}"), Kind::Trade, &payload, Fate::Either);
            case.record.key = Some("TEST:FLIP-USD".into());
            case.record.partition = partition_for(b"TEST:FLIP-USD", PARTITIONS);
        }
    }
}
