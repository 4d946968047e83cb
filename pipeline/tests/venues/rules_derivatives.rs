//! OKX's and Deribit's rules on small messages of our own.

use tapeline::venue::{Item, Output, take_frame};
use tapeline_schemas::{BookAction, Micros, OptionType, Side};

use crate::common::{Collector, Published, books};
use crate::pure::{settle, small};
use crate::rules::{gaps, money};

fn okx_book(action: &str, body: &str) -> String {
    format!(
        r#"{{"arg":{{"channel":"books","instId":"BTC-USD"}},"action":"{action}","data":[{{{body},"ts":"1500"}}]}}"#
    )
}

/// The texts that are to be sent, among what is to be done: those that start one feed anew, or a reply.
fn texts_to_send(out: &mut Output, collector: &Collector) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for item in out.drain() {
        match item {
            Item::Publish(outgoing) => collector.put(outgoing),
            Item::Resubscribe { texts, .. } => all.push(texts),
            Item::Reply { text, .. } => all.push(vec![text.to_owned()]),
            Item::RequestSnapshot { symbol } => panic!("{symbol}"),
        }
    }
    all
}

#[test]
fn okx_verifies_every_checksum_and_resubscribes_one_book_where_one_is_wrong() {
    let (mut connector, mut out, stats) = small("OKX");
    let collector = Collector::default();
    let crc = |text: &str| crc32fast::hash(text.as_bytes()).cast_signed();
    let sides = r#""asks":[["2.50","1","0","1"]],"bids":[["1.0","7","0","1"]]"#;
    let whole = okx_book("snapshot", &format!(r#"{sides},"checksum":{}"#, crc("1.0:7:2.50:1")));
    let right = r#""asks":[["2.50","0","0","0"],["3","4","0","1"]],"bids":[]"#;
    let right = okx_book("update", &format!(r#"{right},"checksum":{}"#, crc("1.0:7:3:4")));
    let wrong = okx_book("update", r#""asks":[],"bids":[["1.0","8","0","1"]],"checksum":1"#);
    for (at, frame) in [(1, &whole), (2, &right), (3, &wrong), (4, &wrong)] {
        take_frame(connector.as_mut(), 0, frame.as_bytes(), Micros(at), &mut out);
    }
    let texts = texts_to_send(&mut out, &collector);
    let [texts] = texts.as_slice() else { panic!("{texts:?}") };
    assert!(texts[0].contains("unsubscribe") && texts[1].contains(r#""instId":"BTC-USD""#));
    take_frame(connector.as_mut(), 0, whole.as_bytes(), Micros(5), &mut out);
    settle(&mut out, &collector);
    let all = collector.take();
    assert_eq!(gaps(&all), [("opened", 2, "checksum"), ("ended", 2, "checksum")]);
    let delta = books(&all, BookAction::Delta)[0];
    assert_eq!(delta.checksum, Some(i64::from(crc("1.0:7:3:4"))));
    assert_eq!((delta.venue_time, delta.receive_time), (Micros(1_500_000), Micros(2)));
    let report = stats.report().books;
    assert_eq!((report.checksums_verified, report.checksums_failed), (3, 1));
    assert_eq!((report.resyncs, report.updates_stale, report.updates_applied), (1, 1, 3));
}

#[test]
fn okx_follows_its_sequence_where_it_gives_one_and_needs_no_checksum_then() {
    let (mut connector, mut out, stats) = small("OKX");
    let collector = Collector::default();
    let body = |previous: i64, id: i64, bids: &str| {
        format!(r#""asks":[],"bids":[{bids}],"checksum":0,"prevSeqId":{previous},"seqId":{id}"#)
    };
    let level = r#"["1","2","0","1"]"#;
    for (at, frame) in [
        (1, okx_book("snapshot", &body(-1, 10, level))),
        (2, okx_book("update", &body(10, 15, level))),
        // Nothing has happened for a minute; then the venue starts to count anew.
        (3, okx_book("update", &body(15, 15, ""))),
        (4, okx_book("update", &body(15, 3, level))),
        (5, okx_book("update", &body(3, 5, level))),
        (6, okx_book("update", &body(6, 7, level))),
    ] {
        take_frame(connector.as_mut(), 0, frame.as_bytes(), Micros(at), &mut out);
    }
    assert_eq!(texts_to_send(&mut out, &collector).len(), 1);
    let all = collector.take();
    let deltas = books(&all, BookAction::Delta);
    let spans: Vec<_> = deltas.iter().map(|d| (d.first_sequence, d.sequence)).collect();
    assert_eq!(spans, [(Some(11), Some(15)), (Some(16), Some(3)), (Some(4), Some(5))]);
    assert_eq!(gaps(&all), [("opened", 5, "sequence")]);
    assert_eq!(stats.report().books.checksums_verified, 0);
    // A book with nothing to verify it by is not taken.
    let (mut connector, mut out, stats) = small("OKX");
    let bare = okx_book("snapshot", &format!(r#""asks":[],"bids":[{level}]"#));
    take_frame(connector.as_mut(), 0, bare.as_bytes(), Micros(1), &mut out);
    assert_eq!((stats.report().decode_errors, stats.report().books.updates_applied), (1, 0));
}

#[test]
fn okx_trades_that_are_missing_are_a_hole_also_where_several_are_put_together() {
    let (mut connector, mut out, stats) = small("OKX");
    let collector = Collector::default();
    let trade = |id: u32, count: &str| {
        format!(
            r#"{{"arg":{{"channel":"trades","instId":"BTC-USD"}},"data":[{{"instId":"BTC-USD","tradeId":"{id}","px":"30218.80","sz":"1","side":"sell","ts":"1652459199958"{count}}}]}}"#
        )
    };
    for (at, id, count) in [(1, 7, ""), (2, 10, r#","count":"3""#), (3, 12, ""), (4, 13, "")] {
        take_frame(connector.as_mut(), 0, trade(id, count).as_bytes(), Micros(at), &mut out);
    }
    settle(&mut out, &collector);
    let all = collector.take();
    assert_eq!(gaps(&all), [("opened", 2, "sequence"), ("ended", 2, "sequence")]);
    let Published::Trade(trade) = &all[0] else { panic!("{all:?}") };
    assert_eq!((trade.price, trade.side), (money("30218.8"), Side::Sell));
    assert_eq!(trade.venue_time, Micros(1_652_459_199_958_000));
    assert_eq!(stats.report().trade.received, 4);
}

#[test]
fn okx_tickers_count_volumes_in_the_base_currency_whatever_is_traded() {
    let (mut connector, mut out, _) = small("OKX");
    let collector = Collector::default();
    for kind in ["SPOT", "SWAP"] {
        let frame = format!(
            r#"{{"arg":{{"channel":"tickers","instId":"BTC-USD"}},"data":[{{"instType":"{kind}","last":"30.5","askPx":"","askSz":"","bidPx":"30","bidSz":"2","open24h":"29","volCcy24h":"5","vol24h":"6","ts":"1"}}]}}"#
        );
        take_frame(connector.as_mut(), 0, frame.as_bytes(), Micros(1), &mut out);
    }
    settle(&mut out, &collector);
    let all = collector.take();
    let [Published::Ticker(spot), Published::Ticker(swap)] = all.as_slice() else {
        panic!("{all:?}")
    };
    assert_eq!((spot.volume_24h, spot.quote_volume_24h), (Some(money("6")), Some(money("5"))));
    assert_eq!((swap.volume_24h, swap.quote_volume_24h), (Some(money("5")), None));
    assert_eq!((spot.ask, spot.bid), (None, Some(money("30"))));
    assert_eq!(spot.price_change_24h, Some(money("1.5")));
}

const NAME: &str = "BTC-25DEC26-100000-C";

fn deribit(channel: &str, data: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"subscription","params":{{"channel":"{channel}.{NAME}.100ms","data":{data}}}}}"#
    )
}

fn change(kind: &str, previous: &str, id: u32, asks: &str) -> String {
    deribit(
        "book",
        &format!(
            r#"{{"type":"{kind}","timestamp":1500,"instrument_name":"{NAME}","change_id":{id}{previous},"bids":[],"asks":[{asks}]}}"#
        ),
    )
}

#[test]
fn deribit_follows_its_chain_and_resubscribes_one_book_where_it_breaks() {
    let (mut connector, mut out, stats) = small("DERIBIT");
    let collector = Collector::default();
    let after = |id: u32| format!(r#","prev_change_id":{id}"#);
    for (at, frame) in [
        (1, change("change", &after(90), 95, r#"["new",0.1,9.0]"#)),
        (2, change("snapshot", "", 100, r#"["new",0.0025,873.0],["new",0.003,1.0]"#)),
        (3, change("change", &after(100), 105, r#"["delete",0.0025,0.0],["change",0.003,2.5]"#)),
        (4, change("change", &after(106), 107, r#"["new",0.5,1.0]"#)),
        (5, change("change", &after(107), 108, r#"["new",0.5,1.0]"#)),
        (6, change("snapshot", "", 110, r#"["new",0.004,1.0]"#)),
    ] {
        take_frame(connector.as_mut(), 0, frame.as_bytes(), Micros(at), &mut out);
    }
    let texts = texts_to_send(&mut out, &collector);
    let [texts] = texts.as_slice() else { panic!("{texts:?}") };
    assert!(texts[0].contains("public/unsubscribe") && texts[1].contains(&format!("book.{NAME}")));
    let all = collector.take();
    assert_eq!(gaps(&all), [("opened", 3, "sequence"), ("ended", 3, "sequence")]);
    let delta = books(&all, BookAction::Delta)[0];
    assert_eq!((delta.first_sequence, delta.sequence), (Some(101), Some(105)));
    let report = stats.report().books;
    assert_eq!((report.updates_applied, report.updates_stale, report.resyncs), (3, 2, 1));
    let last = books(&all, BookAction::Top).pop().unwrap();
    assert_eq!((last.asks.len(), last.asks[0].price), (1, money("0.004")));
}

#[test]
fn deribits_ticker_of_an_option_gives_a_ticker_and_the_options_figures_digit_for_digit() {
    let (mut connector, mut out, stats) = small("DERIBIT");
    let collector = Collector::default();
    let data = r#"{"underlying_price":32185.65,"underlying_index":"BTC-25DEC26","timestamp":1626993722929,"stats":{"volume":193.4,"price_change":-28.5714,"low":null,"high":null},"state":"open","settlement_price":0.0,"open_interest":572.5,"mark_price":0.00222014,"mark_iv":116.77,"last_price":null,"interest_rate":0.0,"instrument_name":"BTC-25DEC26-100000-C","index_price":32201.67,"greeks":{"vega":3.30195,"theta":-26.09543,"rho":-0.22411,"gamma":1.0e-5,"delta":-0.03218},"bid_iv":0.0,"best_bid_price":0.0,"best_bid_amount":0.0,"best_ask_price":0.0025,"best_ask_amount":13.7,"ask_iv":119.4}"#;
    take_frame(connector.as_mut(), 0, deribit("ticker", data).as_bytes(), Micros(5), &mut out);
    settle(&mut out, &collector);
    let all = collector.take();
    let [Published::Ticker(ticker), Published::Option(option)] = all.as_slice() else {
        panic!("{all:?}")
    };
    assert_eq!((ticker.last, ticker.bid, ticker.ask), (None, None, Some(money("0.0025"))));
    assert_eq!(ticker.price_change_percent_24h, Some(money("-28.5714")));
    let some = |text: &str| Some(money(text));
    assert_eq!(
        (option.iv, option.bid_iv, option.ask_iv),
        (some("116.77"), some("0"), some("119.4"))
    );
    assert_eq!((option.delta, option.gamma), (some("-0.03218"), some("0.00001")));
    assert_eq!(
        (option.theta, option.vega, option.rho),
        (some("-26.09543"), some("3.30195"), some("-0.22411"))
    );
    assert_eq!((option.open_interest, option.mark_price), (some("572.5"), some("0.00222014")));
    assert_eq!((option.underlying.as_ref(), option.strike), ("BTC", money("100000")));
    assert_eq!(
        (option.option_type, option.expiry),
        (OptionType::Call, Micros(1_798_185_600_000_000))
    );
    assert_eq!((stats.report().ticker.received, stats.report().option.received), (1, 1));
}

#[test]
fn deribit_answers_a_test_and_notices_trades_that_are_missing() {
    let (mut connector, mut out, _) = small("DERIBIT");
    let collector = Collector::default();
    let test = br#"{"jsonrpc":"2.0","method":"heartbeat","params":{"type":"test_request"}}"#;
    take_frame(connector.as_mut(), 0, test, Micros(1), &mut out);
    let texts = texts_to_send(&mut out, &collector);
    assert!(texts.len() == 1 && texts[0][0].contains("public/test"));
    let row = |seq: u32| {
        format!(
            r#"{{"trade_seq":{seq},"trade_id":"ETH-{seq}","timestamp":1626993724318,"price":0.00150,"instrument_name":"{NAME}","direction":"buy","amount":10.0}}"#
        )
    };
    for (at, rows) in [(2, [row(5), row(6)]), (3, [row(8), row(9)])] {
        let frame = deribit("trades", &format!("[{}]", rows.join(",")));
        take_frame(connector.as_mut(), 0, frame.as_bytes(), Micros(at), &mut out);
    }
    settle(&mut out, &collector);
    let all = collector.take();
    assert_eq!(gaps(&all), [("opened", 2, "sequence"), ("ended", 2, "sequence")]);
    let Published::Trade(trade) = &all[0] else { panic!("{all:?}") };
    assert_eq!((trade.trade_id.as_ref(), trade.sequence), ("ETH-5", Some(5)));
    assert_eq!((trade.price, trade.amount), (money("0.0015"), money("10")));
}
