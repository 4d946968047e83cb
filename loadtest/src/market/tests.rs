use std::collections::HashMap;

use tapeline_schemas::{Record as _, wire};

use super::*;

/// Every event with its number within its key, as decoding gives it back.
fn numbers(settings: &Settings, faults: Faults, count: usize) -> (Vec<(Kind, usize, u64)>, Feed) {
    let mut feed = Feed::new(settings, faults, [1, 2, 3]);
    let given = (0..count)
        .map(|_| {
            let record = feed.next();
            let (id, payload) = wire::split(record.value).expect("wire format");
            assert_eq!(id, record.kind as u32 + 1);
            let number = match record.kind {
                Kind::Trade => verify_trade(&Trade::decode(payload).expect("trade")),
                Kind::Ticker => verify_ticker(&Ticker::decode(payload).expect("ticker")),
                _ => verify_book(&Book::decode(payload).expect("book")),
            };
            (record.kind, record.symbol, number.expect("its sum is right"))
        })
        .collect();
    (given, feed)
}

#[test]
fn the_same_seed_gives_the_same_records() {
    let records = |seed| {
        let settings = Settings { seed, mix: Mix::MIXED, ..Settings::default() };
        let faults = Faults { duplicates: 0.1, late: 0.1, out_of_order: 0.1, malformed: 0.1 };
        let mut feed = Feed::new(&settings, faults, [1, 2, 3]);
        (0..5_000)
            .map(|_| {
                let record = feed.next();
                (record.kind, record.symbol, record.value.to_vec())
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(records(7), records(7));
    assert_ne!(records(7), records(8));
}

#[test]
fn every_event_tells_its_number_and_whether_it_is_whole() {
    let settings = Settings { mix: Mix::MIXED, ..Settings::default() };
    let (given, feed) = numbers(&settings, Faults::default(), 20_000);
    let mut last: HashMap<(Kind, usize), u64> = HashMap::new();
    for (kind, symbol, number) in given {
        let last = last.entry((kind, symbol)).or_default();
        assert_eq!(number, *last + 1, "numbers of a key have no hole");
        *last = number;
    }
    let events = feed.counts().events;
    assert!(events[0] > events[1] && events[1] > events[2] && events[2] > 0, "{events:?}");
}

#[test]
fn a_changed_trade_is_not_whole() {
    struct Changed(bool);
    impl Taker for Changed {
        fn trade(&mut self, trade: Trade<'_>) {
            assert!(verify_trade(&trade).is_some());
            let price = trade.price.checked_add(Money::ONE).expect("small");
            self.0 = verify_trade(&Trade { price, ..trade }).is_some();
        }
        fn ticker(&mut self, _: Ticker<'_>) {}
        fn book(&mut self, _: &Book<'_>) {}
    }
    let mut market = Market::new(&Settings::default());
    let mut passed = 0;
    for _ in 0..1_000 {
        let mut changed = Changed(false);
        market.next(0, &mut changed);
        passed += u32::from(changed.0);
    }
    assert_eq!(passed, 0);
}

#[test]
fn faults_come_as_often_as_asked() {
    let faults = Faults { duplicates: 0.5, late: 0.01, out_of_order: 0.02, malformed: 0.0 };
    let (given, feed) = numbers(&Settings::default(), faults, 40_000);
    let counts = feed.counts();
    assert!((19_000..21_000).contains(&counts.duplicates), "{counts:?}");
    assert!((100..300).contains(&counts.late), "{counts:?}");
    assert!((250..550).contains(&counts.out_of_order), "{counts:?}");
    let distinct: std::collections::HashSet<_> = given.iter().collect();
    assert_eq!(distinct.len() as u64, counts.records - counts.duplicates);
}

#[test]
fn activity_is_skewed_and_time_passes_at_its_pace() {
    let settings = Settings { pace: 1_000, ..Settings::default() };
    let (given, feed) = numbers(&settings, Faults::default(), 50_000);
    let first = given.iter().filter(|(_, symbol, _)| *symbol == 0).count();
    let last = given.iter().filter(|(_, symbol, _)| *symbol == 199).count();
    assert!(first > 10 * last, "{first} {last}");
    let seconds = feed.market.clock.since(settings.start) / 1_000_000;
    // The trades of a sweep share their moment.
    assert!((30..=50).contains(&seconds), "{seconds}");
}

#[test]
fn a_mix_is_read_or_refused_by_name() {
    assert_eq!("trade=80,ticker=15,book=5".parse(), Ok(Mix::MIXED));
    assert_eq!("trade=1".parse(), Ok(Mix::TRADES));
    for wrong in ["", "trade", "candle=1", "trade=-1", "trade=x", "trade=0"] {
        assert!(wrong.parse::<Mix>().is_err(), "{wrong}");
    }
}
