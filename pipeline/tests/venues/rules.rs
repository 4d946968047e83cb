//! Each venue's rules on small messages of our own, in the shape its documentation gives.

use tapeline::venue::{Item, SnapshotOutcome, take_frame};
use tapeline_schemas::{BookAction, Control, GapState, Kind, Level, Micros, Money, Side};

use crate::common::{Collector, Published, books};
use crate::pure::{settle, small};

pub(crate) fn money(text: &str) -> Money {
    text.parse().unwrap()
}

/// State, start and cause of every hole of a book that was recorded.
pub(crate) fn gaps(all: &[Published]) -> Vec<(&'static str, i64, &str)> {
    let gap = |published| match published {
        &Published::Control(_, Control::Gap(ref gap)) => {
            Some((gap.state.name(), gap.from.0, gap.cause.as_str()))
        }
        _ => None,
    };
    all.iter().filter_map(gap).collect()
}

fn delta(first: i64, last: i64, price: &str) -> String {
    format!(
        r#"{{"stream":"btcusd@depth@100ms","data":{{"e":"depthUpdate","E":1500,"s":"BTCUSD","U":{first},"u":{last},"b":[["{price}","1.50"]],"a":[]}}}}"#
    )
}

fn snapshot(last: i64) -> String {
    format!(r#"{{"lastUpdateId":{last},"bids":[["9.0","1"]],"asks":[["10.0","2"]]}}"#)
}

#[test]
fn binance_deltas_wait_for_the_snapshot_and_join_it_where_it_ends() {
    let (mut connector, mut out, stats) = small("BINANCE");
    let collector = Collector::default();
    connector.opened(0, &mut out);
    assert_eq!(settle(&mut out, &collector), ["BTC-USD"]);
    for (first, last, price) in [(95, 99, "8.1"), (100, 104, "8.2"), (105, 105, "8.3")] {
        let frame = delta(first, last, price);
        take_frame(connector.as_mut(), 0, frame.as_bytes(), Micros(last), &mut out);
    }
    assert!(!connector.settled());
    assert_eq!(settle(&mut out, &collector), [""; 0]);
    assert_eq!(collector.take(), []);
    let mut apply = |last| {
        let body = snapshot(last);
        connector.decode_snapshot("BTC-USD", body.as_bytes(), Micros(200), &mut out).unwrap()
    };
    assert_eq!(apply(93), SnapshotOutcome::TooOld);
    assert_eq!(apply(102), SnapshotOutcome::Applied);
    assert!(connector.settled());
    settle(&mut out, &collector);
    let all = collector.take();
    let deltas = books(&all, BookAction::Delta);
    assert_eq!(deltas.iter().map(|d| d.sequence).collect::<Vec<_>>(), [Some(104), Some(105)]);
    assert_eq!(deltas[0].bids, [Level { price: money("8.2"), amount: money("1.5") }]);
    assert_eq!(deltas[0].receive_time, Micros(104));
    assert_eq!(deltas[0].venue_time, Micros(1_500_000));
    let report = stats.report();
    assert_eq!((report.books.updates_applied, report.books.updates_stale), (3, 1));
    // The snapshot that was too old, from the first delta that it did not reach.
    assert_eq!(gaps(&all), [("opened", 99, "stale"), ("ended", 99, "stale")]);
}

#[test]
fn binance_keeps_a_bounded_number_of_deltas_without_a_snapshot_and_asks_for_a_newer_one() {
    let (mut connector, mut out, stats) = small("BINANCE");
    for update in 1..=10_001 {
        let frame = delta(update, update, "8");
        take_frame(connector.as_mut(), 0, frame.as_bytes(), Micros(update), &mut out);
    }
    assert_eq!(stats.report().books.updates_stale, 10_000);
    let mut apply = |last| {
        let body = snapshot(last);
        connector.decode_snapshot("BTC-USD", body.as_bytes(), Micros(1), &mut out).unwrap()
    };
    assert_eq!(apply(9_999), SnapshotOutcome::TooOld);
    assert_eq!(apply(10_000), SnapshotOutcome::Applied);
    assert_eq!(stats.report().books.updates_applied, 2);
    let collector = Collector::default();
    settle(&mut out, &collector);
    let all = collector.take();
    assert_eq!(gaps(&all), [("opened", 1, "overflow"), ("ended", 1, "overflow")]);
}

#[test]
fn binance_records_a_break_in_the_sequence_before_it_resynchronises_that_symbol() {
    let (mut connector, mut out, stats) = small("BINANCE");
    let collector = Collector::default();
    let mut put = |frame: String, at: i64, out: &mut tapeline::venue::Output| {
        take_frame(connector.as_mut(), 0, frame.as_bytes(), Micros(at), out);
    };
    put(delta(101, 102, "8"), 10, &mut out);
    connector.decode_snapshot("BTC-USD", snapshot(100).as_bytes(), Micros(11), &mut out).unwrap();
    let mut put = |frame: String, at: i64, out: &mut tapeline::venue::Output| {
        take_frame(connector.as_mut(), 0, frame.as_bytes(), Micros(at), out);
    };
    put(delta(103, 103, "7"), 12, &mut out);
    settle(&mut out, &collector);
    let before = collector.take().len();
    put(delta(105, 106, "6"), 13, &mut out);
    assert_eq!(settle(&mut out, &collector), ["BTC-USD"]);
    put(delta(107, 107, "5"), 14, &mut out);
    connector.decode_snapshot("BTC-USD", snapshot(106).as_bytes(), Micros(15), &mut out).unwrap();
    settle(&mut out, &collector);
    let after = collector.take().split_off(before);
    let gap = |published: &Published| match published {
        Published::Control(Kind::Book, Control::Gap(gap)) => gap.clone(),
        other => panic!("{other:?}"),
    };
    let (opened, ended) = (gap(&after[0]), gap(&after[1]));
    assert_eq!((opened.state, opened.from, opened.to), (GapState::Opened, Micros(12), None));
    assert_eq!(opened.cause, "sequence");
    assert_eq!(
        (ended.state, ended.from, ended.to),
        (GapState::Ended, Micros(12), Some(Micros(15)))
    );
    let snapshots = books(&after, BookAction::Snapshot);
    assert_eq!(snapshots.len(), 1);
    let deltas = books(&after, BookAction::Delta);
    assert_eq!(deltas.iter().map(|d| d.sequence).collect::<Vec<_>>(), [Some(107)]);
    let report = stats.report();
    assert_eq!((report.books.resyncs, report.gaps_opened), (1, 1));
}

#[test]
fn binance_trades_and_tickers_keep_every_digit() {
    let (mut connector, mut out, _) = small("BINANCE");
    let collector = Collector::default();
    for frame in [
        r#"{"stream":"btcusd@aggTrade","data":{"e":"aggTrade","E":5,"s":"BTCUSD","a":12,"p":"57000.10","q":"0.00000001","f":1,"l":2,"T":1633998523960,"m":true,"M":true}}"#,
        r#"{"stream":"btcusd@bookTicker","data":{"u":400,"s":"BTCUSD","b":"57000.00","B":"1.5","a":"57000.10","A":"2"}}"#,
    ] {
        take_frame(connector.as_mut(), 0, frame.as_bytes(), Micros(7), &mut out);
    }
    settle(&mut out, &collector);
    let all = collector.take();
    let Published::Trade(trade) = &all[0] else { panic!("{all:?}") };
    assert_eq!((trade.trade_id.as_ref(), trade.sequence), ("12", Some(12)));
    assert_eq!((trade.price, trade.amount), (money("57000.1"), money("0.00000001")));
    assert_eq!((trade.side, trade.venue_time), (Side::Sell, Micros(1_633_998_523_960_000)));
    let Published::Ticker(ticker) = &all[1] else { panic!("{all:?}") };
    assert_eq!(ticker.event_id.as_deref(), Some("400"));
    assert_eq!((ticker.bid, ticker.ask_volume), (Some(money("57000")), Some(money("2"))));
    assert_eq!(ticker.venue_time, Micros(7));
}

#[test]
fn kraken_trades_without_ids_are_told_apart_by_what_they_are_and_an_ordinal() {
    let (mut connector, mut out, _) = small("KRAKEN");
    let collector = Collector::default();
    let row = r#"["354.110","0.50","1618678142.557535","s","l",""]"#;
    let other = r#"["354.110","0.50","1618678142.557535","b","m",""]"#;
    let bad = r#"["354.110","zero","1618678142.557535","s","l",""]"#;
    for rows in [[row, row, bad, other].join(","), row.to_owned()] {
        let frame = format!(r#"[1,[{rows}],"trade","XBT/USD"]"#);
        take_frame(connector.as_mut(), 0, frame.as_bytes(), Micros(1), &mut out);
    }
    settle(&mut out, &collector);
    let ids: Vec<String> = collector
        .take()
        .iter()
        .map(|published| match published {
            Published::Trade(trade) => trade.trade_id.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    let like = "1618678142557535-354.11-0.5";
    assert_eq!(ids, ["s-l-0", "s-l-1", "b-m-0", "s-l-2"].map(|end| format!("{like}-{end}")));
}

#[test]
fn kraken_resubscribes_one_pair_where_its_checksum_is_wrong() {
    let (mut connector, mut out, stats) = small("KRAKEN");
    let collector = Collector::default();
    let whole =
        r#"[1,{"as":[["2.0","1.5","1.0"]],"bs":[["1.0","1.5","2.5"]]},"book-1000","XBT/USD"]"#;
    // Digits of the asks, then of the bids: 25 15, 10 15.
    let crc = crc32fast::hash(b"25151015");
    let right = format!(
        r#"[1,{{"a":[["2.0","0.00","3.0"],["2.5","1.5","3.5","r"]]}},{{"b":[],"c":"{crc}"}},"book-1000","XBT/USD"]"#
    );
    let wrong = r#"[1,{"b":[["1.0","1.6","4.0"]],"c":"1"},"book-1000","XBT/USD"]"#;
    take_frame(connector.as_mut(), 2, whole.as_bytes(), Micros(1), &mut out);
    take_frame(connector.as_mut(), 2, right.as_bytes(), Micros(2), &mut out);
    settle(&mut out, &collector);
    assert_eq!(stats.report().books.checksums_verified, 1);
    let all = collector.take();
    let delta = books(&all, BookAction::Delta)[0];
    assert_eq!((delta.checksum, delta.venue_time), (Some(i64::from(crc)), Micros(3_500_000)));

    take_frame(connector.as_mut(), 2, wrong.as_bytes(), Micros(3), &mut out);
    let items: Vec<Item> = out.drain().collect();
    let [Item::Publish(gap), Item::Resubscribe { connection: 2, texts }] = items.as_slice() else {
        panic!("{items:?}")
    };
    let [leave, text] = texts.as_slice() else { panic!("{texts:?}") };
    collector.put(gap.clone());
    assert!(leave.contains(r#""event":"unsubscribe""#) && text.contains(r#""event":"subscribe""#));
    assert!(text.contains(r#""pair":["XBT/USD"]"#) && text.contains(r#""depth":1000"#), "{text}");
    // What was on its way is not applied; the new snapshot makes the book whole.
    take_frame(connector.as_mut(), 2, wrong.as_bytes(), Micros(4), &mut out);
    take_frame(connector.as_mut(), 2, whole.as_bytes(), Micros(5), &mut out);
    settle(&mut out, &collector);
    let all = collector.take();
    let gaps: Vec<_> = all
        .iter()
        .filter_map(|published| match published {
            Published::Control(_, Control::Gap(gap)) => {
                Some((gap.state, gap.from, gap.cause.as_str()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(
        gaps,
        [(GapState::Opened, Micros(2), "checksum"), (GapState::Ended, Micros(2), "checksum")]
    );
    let books = stats.report().books;
    assert_eq!((books.checksums_failed, books.resyncs, books.updates_stale), (1, 1, 1));
    assert_eq!(books.updates_applied, 3);
}

#[test]
fn kraken_tickers_have_only_what_is_exact() {
    let (mut connector, mut out, _) = small("KRAKEN");
    let collector = Collector::default();
    let frame = r#"[1,{"a":["56220.1",1,"1.5"],"b":["56218.3",0,"0.2"],"c":["56218.3","0.1"],"v":["10.5","20.25"],"o":["56000.0","55000.1"]},"ticker","XBT/USD"]"#;
    take_frame(connector.as_mut(), 1, frame.as_bytes(), Micros(1), &mut out);
    settle(&mut out, &collector);
    let all = collector.take();
    let [Published::Ticker(ticker)] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!(ticker.price_change_24h, Some(money("1218.2")));
    assert_eq!((ticker.volume_24h, ticker.ask_volume), (Some(money("20.25")), Some(money("1.5"))));
    assert_eq!((ticker.price_change_percent_24h, ticker.event_id.as_ref()), (None, None));
}

#[test]
fn upbit_numbers_are_taken_digit_for_digit_exponents_too() {
    let (mut connector, mut out, _) = small("UPBIT");
    let collector = Collector::default();
    for frame in [
        r#"{"ty":"trade","cd":"USD-BTC","ttms":1618678262000,"tp":6E-8,"tv":46.48838371,"ab":"ASK","sid":1618678262000003}"#,
        r#"{"ty":"ticker","cd":"USD-BTC","tp":12345678901234567.89,"atv24h":1.5,"atp24h":3e2,"tms":1618678262640}"#,
        r#"{"ty":"orderbook","cd":"USD-BTC","tms":1618678262640,"obu":[{"ap":2.0,"bp":1.0,"as":280.5,"bs":688.25},{"ap":3.0,"bp":0,"as":1,"bs":0}]}"#,
    ] {
        take_frame(connector.as_mut(), 0, frame.as_bytes(), Micros(1), &mut out);
    }
    settle(&mut out, &collector);
    let all = collector.take();
    let [
        Published::Trade(trade),
        Published::Ticker(ticker),
        Published::Book(book),
        Published::Book(top),
    ] = all.as_slice()
    else {
        panic!("{all:?}")
    };
    assert_eq!((trade.price, trade.amount), (money("0.00000006"), money("46.48838371")));
    assert_eq!((trade.side, trade.sequence), (Side::Sell, Some(1_618_678_262_000_003)));
    assert_eq!(ticker.last, Some(money("12345678901234567.89")));
    assert_eq!(ticker.quote_volume_24h, Some(money("300")));
    assert_eq!((book.action, book.bids.len(), book.asks.len()), (BookAction::Snapshot, 1, 2));
    assert_eq!(top.action, BookAction::Top);
}

#[test]
fn top_records_keep_their_pace_and_are_never_shown_crossed() {
    let (mut connector, mut out, stats) = small("UPBIT");
    let collector = Collector::default();
    let frame = |bid: u32, ask: u32| {
        format!(
            r#"{{"ty":"orderbook","cd":"USD-BTC","tms":1,"obu":[{{"ap":{ask},"bp":{bid},"as":1,"bs":1}}]}}"#
        )
    };
    let second = 1_000_000;
    for (at, bid, ask) in [(0, 1, 2), (second - 1, 1, 3), (second, 4, 3), (second + 5, 1, 4)] {
        let frame = frame(bid, ask);
        take_frame(connector.as_mut(), 0, frame.as_bytes(), Micros(at), &mut out);
    }
    // A book that goes quiet is shown once its time has come, by whatever is heard next.
    take_frame(connector.as_mut(), 0, frame(1, 5).as_bytes(), Micros(second + 6), &mut out);
    take_frame(connector.as_mut(), 0, br#"{"status":"UP"}"#, Micros(3 * second), &mut out);
    take_frame(connector.as_mut(), 0, br#"{"status":"UP"}"#, Micros(9 * second), &mut out);
    settle(&mut out, &collector);
    let all = collector.take();
    let tops: Vec<(Micros, Money)> =
        books(&all, BookAction::Top).iter().map(|b| (b.receive_time, b.asks[0].price)).collect();
    let at = |time, price| (Micros(time), money(price));
    assert_eq!(tops, [at(0, "2"), at(second + 5, "4"), at(3 * second, "5")]);
    assert_eq!(books(&all, BookAction::Top)[2].bids[0].price, money("1"));
    assert_eq!(stats.report().books.updates_applied, 5);
}
