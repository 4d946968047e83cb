//! Candles: invariants 4, 7 and 11, whatever order, repetition, restart or batching.

mod harness;
mod scenarios;

use std::collections::{BTreeMap, BTreeSet};

use harness::*;
use proptest::prelude::*;
use tapeline_schemas::*;
use tapeline_stages::candle::*;
use tapeline_stages::messages::{Message, OutTopic};

const VENUES: [&str; 3] = ["BINANCE", "KRAKEN", "UPBIT"];
const SYMBOLS: [&str; 2] = ["BTC-CHF", "ETH-EUR"];

#[derive(Debug, Clone)]
enum Op {
    Trade { venue: usize, symbol: usize, back_seconds: i64, price: i64 },
    Ahead { venue: usize, symbol: usize, minutes: i64 },
    Repeat { back: usize, flagged: bool },
    Complete { venue: usize, back_seconds: i64 },
    Gap { venue: usize, symbol: usize },
    Wait { seconds: i64 },
}

fn op() -> impl Strategy<Value = Op> {
    let (venue, symbol) = (0..VENUES.len(), 0..SYMBOLS.len());
    prop_oneof![
        20 => (venue.clone(), symbol.clone(), prop_oneof![4 => 0..4_i64, 1 => 0..400_i64], 1..1_000_i64)
            .prop_map(|(venue, symbol, back_seconds, price)| Op::Trade { venue, symbol, back_seconds, price }),
        1 => (venue.clone(), symbol.clone(), prop_oneof![1..70_i64, Just(100_000)])
            .prop_map(|(venue, symbol, minutes)| Op::Ahead { venue, symbol, minutes }),
        3 => (1..40_usize, any::<bool>()).prop_map(|(back, flagged)| Op::Repeat { back, flagged }),
        4 => (venue.clone(), 0..30_i64)
            .prop_map(|(venue, back_seconds)| Op::Complete { venue, back_seconds }),
        3 => (venue, symbol).prop_map(|(venue, symbol)| Op::Gap { venue, symbol }),
        10 => prop_oneof![20 => 1..40_i64, 2 => 300..4_000_i64, 1 => 90_000..400_000_i64]
            .prop_map(|seconds| Op::Wait { seconds }),
    ]
}

fn plan() -> impl Strategy<Value = Vec<(usize, End)>> {
    let end = prop_oneof![
        3 => Just(End::Committed),
        1 => Just(End::KilledBeforeCommit),
        1 => Just(End::KilledBeforeWrite),
    ];
    proptest::collection::vec((1..25_usize, end), 0..30)
}

/// The log that operations make.
fn log(ops: &[Op]) -> Vec<Logged> {
    let mut log: Vec<Logged> = Vec::new();
    let mut now = T0;
    let mut holes: BTreeMap<(usize, usize), GapChange> = BTreeMap::new();
    for (id, op) in (1_i64..).zip(ops) {
        match *op {
            Op::Wait { seconds } => now += seconds * 1_000_000,
            Op::Trade { venue, symbol, back_seconds, price } => {
                let time = now - back_seconds * 1_000_000;
                let trade = trade(VENUES[venue], SYMBOLS[symbol], id, time, price);
                log.push(of_trade(&trade, Flags::NONE, now));
            }
            Op::Ahead { venue, symbol, minutes } => {
                let time = now + minutes * MINUTE;
                let mut trade = trade(VENUES[venue], SYMBOLS[symbol], id, time, 7);
                trade.receive_time = Micros(now);
                let mut flags = Flags::NONE;
                flags.set(Flag::Future);
                log.push(of_trade(&trade, flags, now));
            }
            Op::Repeat { back, flagged } => {
                let Some(index) = log.len().checked_sub(back) else { continue };
                let mut again = Logged { append: now, ..log[index].clone() };
                if again.value.is_some() && flagged {
                    again.flags.set(Flag::Duplicate);
                    log.push(again);
                } else if again.value.is_some() {
                    log.push(again);
                }
            }
            Op::Complete { venue, back_seconds } => {
                let through = now - back_seconds * 1_000_000;
                log.push(of_control(&complete(VENUES[venue], through), now));
            }
            Op::Gap { venue, symbol } => {
                let (v, s) = (VENUES[venue], SYMBOLS[symbol]);
                let next = match holes.remove(&(venue, symbol)) {
                    None => gap(v, s, GapState::Opened, now - 10_000_000, None),
                    Some(hole) if hole.state == GapState::Opened => {
                        GapChange { state: GapState::Ended, to: Some(Micros(now)), ..hole }
                    }
                    Some(hole) => GapChange { state: GapState::Filled, ..hole },
                };
                log.push(of_control(&Control::Gap(next.clone()), now));
                if next.state != GapState::Filled {
                    holes.insert((venue, symbol), next);
                }
            }
        }
    }
    log
}

fn set(messages: &[(i64, Message)]) -> BTreeSet<String> {
    messages.iter().map(|(offset, message)| format!("{offset} {message:?}")).collect()
}

fn one_content_a_version(messages: &[&[(i64, Message)]]) {
    let mut contents = BTreeMap::new();
    for (_, message) in messages.iter().copied().flatten() {
        let (OutTopic::Of(Kind::Candle), Some(value)) = (message.topic, &message.value) else {
            continue;
        };
        let candle = Candle::decode(value).expect("ours");
        let (venue, symbol) = (candle.exchange.to_string(), candle.symbol.to_string());
        let window = (venue, symbol, candle.timeframe.to_string(), candle.open_time);
        let known = contents.entry((window, candle.revision)).or_insert(value);
        assert_eq!(*known, value, "two contents of one version: {candle:?}");
    }
}

/// Minutes, the revised ones among them at places of `spread`, longer ones, revised again.
fn play(log: &[Logged], plan: &[(usize, End)], spread: &[usize]) -> World {
    let mut world = World::store(log);
    let minutes = drive::<Minutes>(log, plan);
    assert_eq!(set(&minutes), set(&drive::<Minutes>(log, &[])), "a restart is seen in the output");
    one_content_a_version(&[&minutes]);
    world.take_candles(minutes.iter().map(|(_, message)| message));
    let candles = |(_, m): &&(i64, Message)| m.topic == OutTopic::Of(Kind::Candle);
    let mut upper: Vec<Message> =
        minutes.iter().filter(candles).map(|(_, message)| message.clone()).collect();
    let mut revised = Vec::new();
    for (index, (_, message)) in minutes.iter().enumerate() {
        let Some(dirty) = dirty_of(message) else { continue };
        let before = minutes[..index].iter().filter(candles).count();
        revised.extend(world.revise(&dirty).into_iter().map(|candle| (before, candle)));
    }
    let mut at = 0;
    for (index, (before, candle)) in revised.into_iter().enumerate() {
        let free = spread[index % spread.len()];
        at = at.max(before + index).max((before + index + free).min(upper.len()));
        upper.insert(at.min(upper.len()), candle);
        at += 1;
    }
    let upper: Vec<Logged> = upper.iter().map(of_message).collect();
    let longer = drive::<Longer>(&upper, plan);
    assert_eq!(set(&longer), set(&drive::<Longer>(&upper, &[])), "a restart is seen in the output");
    one_content_a_version(&[&longer]);
    world.take_candles(longer.iter().map(|(_, message)| message));
    for dirty in longer.iter().filter_map(|(_, message)| dirty_of(message)) {
        world.revise(&dirty);
    }
    world
}

fn final_candles_are_their_trades(world: &World) -> Result<(), TestCaseError> {
    for ((venue, symbol, frame, start), (bar, version)) in &world.candles {
        let end = frame.end(*start);
        let scratch = world.recomputed(venue, symbol, *start, end).expect("has trades");
        if version.is_final {
            let window = format!("{venue} {symbol} {frame} {start:?} {version:?}");
            prop_assert!(bar.same_figures(&scratch), "{window}: {bar:?} is not {scratch:?}");
        } else {
            prop_assert!(world.has_hole(venue, symbol, *start, end), "incomplete without a hole");
        }
    }
    Ok(())
}

/// Closes every window: each venue is complete through a day far ahead.
fn closed(mut log: Vec<Logged>) -> Vec<Logged> {
    let append = log.last().map_or(T0, |last| last.append);
    for venue in VENUES {
        log.push(of_control(&complete(venue, append + 200_000 * MINUTE), append));
    }
    log
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_final_candle_is_the_recomputation_of_its_trades_whatever_fails(
        ops in proptest::collection::vec(op(), 1..160),
        plan in plan(),
        spread in proptest::collection::vec(0..30_usize, 1..8),
    ) {
        let log = closed(log(&ops));
        let world = play(&log, &plan, &spread);
        final_candles_are_their_trades(&world)?;
        for frame in Timeframe::ALL {
            for (venue, symbol, start) in world.windows(frame) {
                let key = (venue, symbol, frame, start);
                prop_assert!(world.candles.contains_key(&key), "no candle for {:?}", key);
            }
        }
    }

    #[test]
    fn a_venue_gives_the_candles_it_gives_alone(
        ops in proptest::collection::vec(op(), 1..120), plan in plan(),
    ) {
        // The broker's clock, which bounds how long a silent venue holds the log, is shared; all
        // else is not.
        let mut together = log(&ops);
        together.iter_mut().for_each(|logged| logged.append = T0);
        let of = |venue: &str, messages: &[(i64, Message)]| -> Vec<Message> {
            let prefix = format!("{venue}:").into_bytes();
            let own = messages.iter().filter(|(_, m)| m.key.starts_with(&prefix));
            own.filter(|(_, m)| m.topic == OutTopic::Of(Kind::Candle)).map(|(_, m)| m.clone()).collect()
        };
        let mixed = drive::<Minutes>(&together, &[]);
        let restarted = drive::<Minutes>(&together, &plan);
        prop_assert_eq!(set(&mixed), set(&restarted));
        for (index, venue) in VENUES.iter().enumerate() {
            let own = together.iter().filter(|logged| venue_of(logged) == index);
            let alone: Vec<Logged> = own.cloned().collect();
            let alone = drive::<Minutes>(&alone, &[]);
            let (alone, mixed) = (of(venue, &alone), of(venue, &mixed));
            prop_assert_eq!(mixed, alone);
        }
    }
}

fn venue_of(logged: &Logged) -> usize {
    let name = match &logged.value {
        Some(value) => Trade::decode(&value[5..]).expect("ours").exchange.to_string(),
        None => {
            let venue = logged.headers.iter().find(|(name, _)| *name == headers::VENUE);
            String::from_utf8(venue.expect("has one").1.clone()).expect("text")
        }
    };
    VENUES.iter().position(|venue| **venue == *name).expect("known")
}
