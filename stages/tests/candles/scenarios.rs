//! Single courses of events.

use tapeline_schemas::*;
use tapeline_stages::candle::*;

use super::harness::*;

const KRAKEN: &str = "KRAKEN";
const BTC: &str = "BTC-CHF";
const SECOND: i64 = 1_000_000;

fn at(id: i64, seconds: i64) -> Logged {
    of_trade(&trade(KRAKEN, BTC, id, T0 + seconds * SECOND, 5), Flags::NONE, T0)
}

fn control(control: Control) -> Logged {
    of_control(&control, T0)
}

fn one_minute(minute: i64, is_final: bool, trades: i64) -> (String, i64, bool, i64) {
    ("1m".to_owned(), minute, is_final, trades)
}

#[test]
fn a_trade_that_is_flagged_as_ahead_closes_nobodys_candle_and_counts_in_its_own() {
    let mut ahead = trade(KRAKEN, BTC, 2, T0 + 3_600 * SECOND, 5);
    ahead.receive_time = Micros(T0 + 300 * SECOND);
    let mut flags = Flags::NONE;
    flags.set(Flag::Future);
    let mut log = vec![at(1, 10), of_trade(&ahead, flags, T0)];
    assert_eq!(candles_of(&drive::<Minutes>(&log, &[])), []);
    log.push(control(complete(KRAKEN, T0 + 3_660 * SECOND)));
    let expected = [one_minute(0, true, 1), one_minute(60, true, 1)];
    assert_eq!(candles_of(&drive::<Minutes>(&log, &[])), expected);
}

#[test]
fn a_venue_of_2021_and_one_of_2024_in_one_partition_do_not_close_each_others_windows() {
    let later = T0 + 3 * 365 * 86_400 * SECOND;
    let other = |id, seconds| {
        of_trade(&trade("BINANCE", BTC, id, later + seconds * SECOND, 5), Flags::NONE, T0)
    };
    let log = [at(1, 10), other(1, 10), at(2, 20), other(2, 80), at(3, 80)];
    let candles = drive::<Minutes>(&log, &[]);
    let counts: Vec<_> = candles_of(&candles).into_iter().map(|candle| candle.3).collect();
    assert_eq!(counts, [1, 2]);
}

#[test]
fn over_an_open_hole_a_candle_is_incomplete_and_filling_it_makes_it_dirty_until_it_is_final() {
    let (from, to) = (T0 + 70 * SECOND, T0 + 100 * SECOND);
    let mut log = vec![
        at(1, 10),
        at(2, 65),
        control(Control::Gap(gap(KRAKEN, BTC, GapState::Opened, from, None))),
        control(complete(KRAKEN, T0 + 130 * SECOND)),
        control(Control::Gap(gap(KRAKEN, BTC, GapState::Ended, from, Some(to)))),
        control(complete(KRAKEN, T0 + 600 * SECOND)),
    ];
    let minutes = drive::<Minutes>(&log, &[]);
    assert_eq!(candles_of(&minutes), [one_minute(0, true, 1), one_minute(1, false, 1)]);
    let upper: Vec<Logged> = minutes.iter().map(|(_, message)| of_message(message)).collect();
    let longer = candles_of(&drive::<Longer>(&upper, &[]));
    assert_eq!(longer, [("5m".to_owned(), 0, false, 2)]);

    log.push(at(3, 80));
    log.push(control(Control::Gap(gap(KRAKEN, BTC, GapState::Filled, from, Some(to)))));
    let mut minutes = drive::<Minutes>(&log, &[]);
    let dirty: Vec<_> = minutes.iter().filter_map(|(_, message)| dirty_of(message)).collect();
    let places: Vec<_> = dirty.iter().map(|d| (d.from - T0, d.to - T0, d.offset)).collect();
    assert_eq!(places, [(MINUTE, 2 * MINUTE, 6), (MINUTE, 2 * MINUTE, 7)]);
    assert_eq!(dirty.iter().map(|d| d.filled_from).collect::<Vec<_>>(), [None, Some(from)]);

    let mut world = World::store(&log);
    world.take_candles(minutes.iter().map(|(_, message)| message));
    minutes.retain(|(_, message)| dirty_of(message).is_none());
    for dirty in &dirty {
        minutes.extend(world.revise(dirty).into_iter().map(|message| (0, message)));
    }
    let upper: Vec<Logged> = minutes.iter().map(|(_, message)| of_message(message)).collect();
    let longer = drive::<Longer>(&upper, &[]);
    world.take_candles(longer.iter().map(|(_, message)| message));
    for dirty in longer.iter().filter_map(|(_, message)| dirty_of(message)) {
        world.revise(&dirty);
    }
    let key =
        |frame: Timeframe| (KRAKEN.to_owned(), BTC.to_owned(), frame, frame.start(Micros(from)));
    for (frame, trades) in [(Timeframe::M1, 2), (Timeframe::M5, 3)] {
        let (bar, version) = world.candles[&key(frame)];
        assert!(version.is_final && version.revision >= 1, "{frame}: {version:?}");
        assert_eq!(bar.trades_count, trades, "{frame}");
    }
}

#[test]
fn a_late_trade_makes_its_window_dirty_and_no_second_candle() {
    let log = [at(1, 10), at(2, 70), at(3, 20), at(4, 140)];
    let messages = drive::<Minutes>(&log, &[]);
    assert_eq!(candles_of(&messages), [one_minute(0, true, 1), one_minute(1, true, 1)]);
    let dirty: Vec<_> = messages.iter().filter_map(|(_, message)| dirty_of(message)).collect();
    assert_eq!((dirty.len(), dirty[0].from, dirty[0].offset), (1, T0, 2));
}

#[test]
fn a_venue_that_stops_without_a_word_does_not_hold_the_log_for_ever() {
    let later = T0 + HOLD_MICROS + 2 * MINUTE;
    let other = |append| of_trade(&trade("BINANCE", BTC, 1, append, 5), Flags::NONE, append);
    let log = [at(1, 10), other(later), other(later + MINUTE)];
    let expected = [one_minute(0, true, 1)];
    let candles = candles_of(&drive::<Minutes>(&log, &[]));
    assert_eq!(candles[..1], expected);
    let restarted = drive::<Minutes>(&log, &[(1, End::Committed), (1, End::KilledBeforeWrite)]);
    assert_eq!(candles_of(&restarted), candles);
}

#[test]
fn two_hundred_venues_in_one_partition_restart_without_a_wrong_candle() {
    let venue = |n: i64| format!("VENUE-WITH-A-LONG-NAME-{n}");
    let mut log: Vec<Logged> = Vec::new();
    for round in 0..3 {
        for n in 0..200 {
            let time = T0 + (round * 40 + n % 50) * SECOND;
            log.push(of_trade(&trade(&venue(n), BTC, round, time, 5 + n), Flags::NONE, T0));
        }
    }
    for n in 0..200 {
        log.push(control(complete(&venue(n), T0 + 10 * MINUTE)));
    }
    let mut world = World::store(&log);
    let plan = [(230, End::Committed), (100, End::KilledBeforeCommit), (190, End::Committed)];
    let plan = plan.into_iter().chain([(30, End::KilledBeforeWrite)]).collect::<Vec<_>>();
    let messages = drive::<Minutes>(&log, &plan);
    world.take_candles(messages.iter().map(|(_, message)| message));
    for dirty in messages.iter().filter_map(|(_, message)| dirty_of(message)) {
        world.revise(&dirty);
    }
    for (venue, symbol, start) in world.windows(Timeframe::M1) {
        let scratch = world.recomputed(&venue, &symbol, start, Timeframe::M1.end(start));
        let row = world.candles.get(&(venue, symbol, Timeframe::M1, start)).expect("a candle");
        assert!(row.1.is_final && row.0.same_figures(&scratch.expect("has trades")));
    }
}
