//! Recordings that nobody has seen: the same traffic at other times, with other ids, of other symbols.

use tapeline::playback::{Recording, Shift};
use tapeline::venue::{Instrument, StatsReport, SymbolTable, venue};

use crate::common::{Collector, Published, VENUES, recordings};
use crate::pure::play_as;

fn table(recording: &Recording) -> SymbolTable {
    let connector = (venue(&recording.venue).unwrap().connector)(recording.settings());
    let mut table = SymbolTable::new();
    for request in connector.symbols_requests() {
        let answer = recording.answers.iter().find(|a| a.path == request).unwrap();
        connector.decode_symbols(&request, answer.body.as_bytes(), &mut table).unwrap();
    }
    table
}

/// Other listed symbols for those of the recording, alike in kind, from a place in the list that `seed` says.
fn others(recording: &Recording, seed: usize) -> Vec<(Instrument, Instrument)> {
    let (table, settings) = (table(recording), recording.settings());
    let name = venue(&recording.venue).unwrap().name;
    let traded: Vec<Instrument> =
        settings.symbols.iter().map(|s| table.find(name, s).unwrap().clone()).collect();
    let mut free: Vec<&Instrument> = table.instruments().collect();
    free.sort_by(|a, b| a.symbol.cmp(&b.symbol));
    // A name that is part of another one could not be told from it in the text.
    let all: Vec<&Instrument> = free.clone();
    let apart = |code: &str| all.iter().filter(|other| other.code.contains(code)).count() == 1;
    free.retain(|other| apart(&other.code) && traded.iter().all(|of| of.code != other.code));
    let mut pairs = Vec::new();
    for of in traded {
        if !apart(&of.code) {
            continue;
        }
        let alike: Vec<usize> = (0..free.len()).filter(|i| free[*i].market == of.market).collect();
        if let Some(index) = alike.get(seed * 7 % alike.len().max(1)) {
            let other = free.remove(*index).clone();
            pairs.push((of, other));
        }
    }
    pairs
}

/// What was published, with neither names nor times nor ids in it.
fn shape(collector: &Collector) -> Vec<String> {
    let shape = |published: &Published| match published {
        Published::Trade(t) => format!("trade {} {} {:?}", t.price, t.amount, t.side),
        Published::Ticker(t) => format!("ticker {:?} {:?} {:?}", t.last, t.bid, t.ask),
        Published::Book(b) => format!("book {:?} {:?} {:?}", b.action, b.bids, b.asks),
        Published::Option(o) => format!("option {:?} {:?}", o.delta, o.open_interest),
        Published::Candle(c) => format!("candle {} {} {}", c.open, c.close, c.volume),
        Published::Control(kind, _) | Published::Broadcast(kind, _) => format!("control {kind:?}"),
    };
    collector.take().iter().map(shape).collect()
}

fn assert_same(
    recording: &Recording,
    seen: &(StatsReport, Collector),
    unseen: &(StatsReport, Collector),
) {
    assert_eq!(seen.0, unseen.0, "{}", recording.venue);
    assert_eq!(shape(&seen.1), shape(&unseen.1), "{}", recording.venue);
}

#[test]
fn recordings_of_other_times_with_other_ids_and_of_other_symbols_are_read_as_well() {
    let Some(dir) = recordings() else { return };
    for name in VENUES {
        let recording = Recording::read(&dir, name).unwrap();
        let settings = recording.settings();
        let seen = play_as(&recording, settings.clone());
        let years = 3 * 365 * 86_400_000_000;
        for shift in [
            Shift { micros: years + 1_020_000_000, ids: 1_000_000_000_000 },
            Shift { micros: -years - 44_400_000_000, ids: 1 },
        ] {
            let moved = recording.clone().moved(shift);
            assert_same(&recording, &seen, &play_as(&moved, settings.clone()));
        }
        for seed in 1..=3 {
            let pairs = others(&recording, seed);
            assert!(pairs.len() * 2 > settings.symbols.len(), "{name} {}", pairs.len());
            let mut renamed = settings.clone();
            for (of, other) in &pairs {
                for symbol in renamed.symbols.iter_mut().filter(|symbol| **symbol == of.symbol) {
                    symbol.clone_from(&other.symbol);
                }
            }
            let names: Vec<_> =
                pairs.iter().map(|(of, other)| (of.code.clone(), other.code.clone())).collect();
            let other = recording.clone().renamed(&names);
            assert_same(&recording, &seen, &play_as(&other, renamed));
        }
    }
}
