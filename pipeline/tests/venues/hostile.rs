//! What no venue should send, to the decoder of each: counted, never a panic, never the end of the feed.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value;
use tapeline::venue::{Connector, Output, VenueStats, take_frame, venue};
use tapeline_schemas::Micros;

use crate::common::{Collector, VENUES};
use crate::pure::{instrument, settle, small};

/// Frames of every channel of a venue in the form of its documents; the first is a trade.
const FRAMES: [(&str, &[&str]); 7] = [
    (
        "BINANCE",
        &[
            r#"{"stream":"btcusd@aggTrade","data":{"s":"BTCUSD","a":1,"p":"1.5","q":"2","T":3,"m":true}}"#,
            r#"{"stream":"btcusd@bookTicker","data":{"u":1,"s":"BTCUSD","b":"1","B":"2","a":"3","A":"4"}}"#,
            r#"{"stream":"btcusd@depth@100ms","data":{"E":1,"s":"BTCUSD","U":1,"u":2,"b":[["1","2"]],"a":[]}}"#,
            r#"{"stream":"btcusd@kline_1m","data":{"s":"BTCUSD","k":{"t":60000,"i":"1m","o":"1","c":"1","h":"2","l":"1","v":"3","n":9,"x":false,"q":"4.5"}}}"#,
        ],
    ),
    (
        "BITHUMB",
        &[
            r#"{"type":"transaction","content":{"list":[{"buySellGb":"2","contPrice":"3.9","contQty":"12","contDtm":"2021-06-02 08:43:34.555058","symbol":"BTC_USD"}]}}"#,
            r#"{"type":"ticker","content":{"symbol":"BTC_USD","date":"20210602","time":"084334","closePrice":"2317","value":"2831.5","volume":"1.25"}}"#,
            r#"{"type":"orderbooksnapshot","content":{"symbol":"BTC_USD","datetime":"1622591014555058","asks":[["2318","1.5"]],"bids":[["2317","0.25"]]}}"#,
            r#"{"status":"0000","resmsg":"Filter Registered Successfully"}"#,
        ],
    ),
    (
        "COINBASE",
        &[
            r#"{"type":"match","trade_id":2,"side":"sell","size":"9","price":"0.5","product_id":"BTC-USD","time":"2021-04-17T16:43:37.089723Z"}"#,
            r#"{"type":"ticker","sequence":17,"product_id":"BTC-USD","price":"0.5","open_24h":"0.4","volume_24h":"94","best_bid":"0.4","best_ask":"0.6","time":"2021-04-17T16:43:37.089723Z"}"#,
            r#"{"type":"snapshot","product_id":"BTC-USD","asks":[["0.6","12.5"]],"bids":[["0.4","3"]]}"#,
            r#"{"type":"l2update","product_id":"BTC-USD","changes":[["sell","0.6","0.0"]],"time":"2021-04-17T16:43:38.000000Z"}"#,
            r#"{"type":"subscriptions","channels":[{"name":"matches","product_ids":["BTC-USD"]}]}"#,
        ],
    ),
    (
        "DERIBIT",
        &[
            r#"{"method":"subscription","params":{"channel":"trades.BTC-25DEC26-100000-C.raw","data":[{"trade_seq":12,"trade_id":"4","timestamp":1626993724318,"price":0.0015,"instrument_name":"BTC-25DEC26-100000-C","direction":"sell","amount":10.0}]}}"#,
            r#"{"method":"subscription","params":{"channel":"book.BTC-25DEC26-100000-C.raw","data":{"type":"snapshot","timestamp":1,"instrument_name":"BTC-25DEC26-100000-C","change_id":100,"bids":[["new",0.0015,4714.0]],"asks":[["new",0.0025,873.0]]}}}"#,
            r#"{"method":"subscription","params":{"channel":"book.BTC-25DEC26-100000-C.raw","data":{"type":"change","timestamp":2,"prev_change_id":100,"instrument_name":"BTC-25DEC26-100000-C","change_id":105,"bids":[],"asks":[["delete",0.0025,0.0]]}}}"#,
            r#"{"method":"subscription","params":{"channel":"ticker.BTC-25DEC26-100000-C.raw","data":{"underlying_price":32185.65,"timestamp":1626993722929,"stats":{"volume":193.4,"price_change":null},"open_interest":572.5,"mark_price":0.002,"mark_iv":116.77,"last_price":0.0025,"interest_rate":0.0,"instrument_name":"BTC-25DEC26-100000-C","index_price":32201.67,"greeks":{"vega":3.3,"theta":-26.0,"rho":-0.2,"gamma":0.00001,"delta":-0.03},"bid_iv":114.55,"best_bid_price":0.002,"best_bid_amount":91.6,"best_ask_price":0.0,"best_ask_amount":0.0,"ask_iv":0.0}}}"#,
            r#"{"id":1,"result":["trades.BTC-25DEC26-100000-C.raw"]}"#,
            r#"{"method":"heartbeat","params":{"type":"test_request"}}"#,
        ],
    ),
    (
        "KRAKEN",
        &[
            r#"[1,[["354.1","0.8","1618678142.557535","s","l",""]],"trade","XBT/USD"]"#,
            r#"[1,{"a":["1",1,"2"],"b":["1",1,"2"],"c":["1","2"],"v":["1","2"],"o":["1","2"]},"ticker","XBT/USD"]"#,
            r#"[1,{"as":[["2","1","1.5"]],"bs":[["1","1","1.5"]]},"book-1000","XBT/USD"]"#,
            r#"[1,{"a":[["2","1","1.5"]]},{"b":[["1","1","1.5","r"]],"c":"1"},"book-1000","XBT/USD"]"#,
            r#"{"channelName":"trade","event":"subscriptionStatus","pair":"XBT/USD","status":"subscribed","subscription":{"name":"trade"}}"#,
        ],
    ),
    (
        "OKX",
        &[
            r#"{"arg":{"channel":"trades","instId":"BTC-USD"},"data":[{"instId":"BTC-USD","tradeId":"7849","px":"30218.8","sz":"1","side":"buy","ts":"1652459199958"}]}"#,
            r#"{"arg":{"channel":"tickers","instId":"BTC-USD"},"data":[{"instType":"SPOT","instId":"BTC-USD","last":"30227.6","askPx":"30230.3","askSz":"1.9","bidPx":"","bidSz":"0.4","open24h":"29700.4","volCcy24h":"5","vol24h":"6","ts":"1652459235637"}]}"#,
            r#"{"arg":{"channel":"books","instId":"BTC-USD"},"action":"snapshot","data":[{"asks":[["2","1","0","1"]],"bids":[["1","1","0","1"]],"ts":"1597026383085","checksum":0,"prevSeqId":-1,"seqId":1}]}"#,
            r#"{"arg":{"channel":"books","instId":"BTC-USD"},"action":"update","data":[{"asks":[["2","0","0","0"]],"bids":[],"ts":"1597026383085","checksum":0,"prevSeqId":1,"seqId":2}]}"#,
            r#"{"event":"subscribe","arg":{"channel":"trades","instId":"BTC-USD"}}"#,
        ],
    ),
    (
        "UPBIT",
        &[
            r#"{"ty":"trade","cd":"USD-BTC","ttms":1,"tp":1.5,"tv":6E-8,"ab":"BID","sid":1}"#,
            r#"{"ty":"orderbook","cd":"USD-BTC","tms":1,"obu":[{"ap":2.0,"bp":1.0,"as":1.0,"bs":0.0}]}"#,
            r#"{"ty":"ticker","cd":"USD-BTC","tp":1.5,"atv24h":1,"atp24h":2,"tms":1}"#,
        ],
    ),
];

fn frames(name: &str) -> &'static [&'static str] {
    FRAMES.iter().find(|(venue, _)| *venue == name).unwrap().1
}

fn counted(stats: &VenueStats) -> u64 {
    let report = stats.report();
    report.decode_errors + report.unknown_messages + report.venue_errors
}

/// A trade that comes after everything else still is one.
fn assert_goes_on(
    name: &str,
    connector: &mut dyn Connector,
    out: &mut Output,
    stats: &Arc<VenueStats>,
) {
    let (trades, odd) = (stats.report().trade.received, counted(stats));
    take_frame(connector, 0, frames(name)[0].as_bytes(), Micros(9), out);
    assert_eq!(stats.report().trade.received, trades + 1, "{name} goes on");
    assert_eq!(counted(stats), odd, "{name} goes on");
}

#[test]
fn every_documented_frame_is_understood() {
    for name in VENUES {
        let (mut connector, mut out, stats) = small(name);
        for frame in frames(name) {
            take_frame(connector.as_mut(), 0, frame.as_bytes(), Micros(1), &mut out);
        }
        // The checksum of the update is made up.
        let report = stats.report();
        assert_eq!(counted(&stats), 0, "{name} {report:?}");
        assert_eq!(report.trade.received, 1, "{name}");
    }
}

#[test]
fn hostile_messages_are_counted_each_and_nothing_is_published() {
    let deep = ["[".repeat(200_000), r#"{"a":"#.repeat(200_000)];
    let digits = format!(r#"{{"stream":"btcusd@aggTrade","data":{}}}"#, "9".repeat(1_000_000));
    let text = format!(r#"{{"type":"{}"}}"#, "x".repeat(1_000_000));
    for name in VENUES {
        let (mut connector, mut out, stats) = small(name);
        let hostile: [&[u8]; 12] = [
            b"",
            b"{",
            b"\xff\xfe\x00",
            b"{\"type\":\"\xff\"}",
            b"null",
            b"[1e999,2,3]",
            br#"{"error":{"code":-1,"name":"x","message":"no"},"event":"error","type":"error","status":"5100"}"#,
            br#"{"stream":"btcusd@party","data":{},"event":"party","ty":"party","cd":"USD-BTC","type":"party","product_id":"BTC-USD","content":{},"method":"party"}"#,
            deep[0].as_bytes(),
            deep[1].as_bytes(),
            digits.as_bytes(),
            text.as_bytes(),
        ];
        for frame in hostile {
            take_frame(connector.as_mut(), 0, frame, Micros(1), &mut out);
        }
        let report = stats.report();
        assert_eq!(counted(&stats), hostile.len() as u64, "{name} {report:?}");
        assert_eq!(report.venue_errors, 1, "{name}");
        assert_eq!(out.drain().count(), 0, "{name}");
        assert_goes_on(name, connector.as_mut(), &mut out, &stats);
    }
}

#[test]
fn numbers_beyond_any_range_are_counted_and_the_next_trade_comes_through() {
    for name in VENUES {
        for wild in ["1e400", "-1", "99999999999999999999999999", "1e-30", "\"NaN\"", "\"\""] {
            let (mut connector, mut out, stats) = small(name);
            let sound: Value = serde_json::from_str(frames(name)[0]).unwrap();
            let bare = wild.trim_matches('"');
            for index in 0..leaves(&sound) {
                for replacement in [wild.to_owned(), format!("\"{bare}\"")] {
                    let frame = with_leaf(&sound, index, &replacement);
                    take_frame(connector.as_mut(), 0, frame.as_bytes(), Micros(1), &mut out);
                }
            }
            let collector = Collector::default();
            settle(&mut out, &collector);
            assert_goes_on(name, connector.as_mut(), &mut out, &stats);
        }
    }
}

/// Number of values that are neither lists nor objects.
fn leaves(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(leaves).sum(),
        Value::Object(members) => members.values().map(leaves).sum(),
        _ => 1,
    }
}

/// The text of `value` with one of its leaves replaced by `text`, which need not be JSON.
fn with_leaf(value: &Value, index: usize, text: &str) -> String {
    fn put(value: &Value, left: &mut usize, text: &str, out: &mut String) {
        match value {
            Value::Array(items) => {
                out.push('[');
                for (place, item) in items.iter().enumerate() {
                    out.push_str(if place > 0 { "," } else { "" });
                    put(item, left, text, out);
                }
                out.push(']');
            }
            Value::Object(members) => {
                out.push('{');
                for (place, (name, member)) in members.iter().enumerate() {
                    out.push_str(if place > 0 { "," } else { "" });
                    out.push_str(&format!("{name:?}:"));
                    put(member, left, text, out);
                }
                out.push('}');
            }
            leaf => {
                let here = *left == 0;
                *left = left.wrapping_sub(1);
                out.push_str(&if here { text.to_owned() } else { leaf.to_string() });
            }
        }
    }
    let (mut left, mut out) = (index, String::new());
    put(value, &mut left, text, &mut out);
    out
}

fn wild_value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<i64>().prop_map(|n| format!("\"{n}\"")),
        any::<f64>().prop_map(|n| format!("\"{n:e}\"")),
        "[-+0-9.eE]{1,60}".prop_map(|text| format!("\"{text}\"")),
        "[-0-9.eE]{1,60}",
        "\\PC{0,30}".prop_map(|text| Value::String(text).to_string()),
        "[0-9T:. Z-]{10,30}".prop_map(|text| format!("\"{text}\"")),
        prop::sample::select(
            &["null", "true", "[]", "{}", "[[]]", "{\"a\":[1]}", "\"\\u0000\"", "1e400"][..]
        )
        .prop_map(str::to_owned),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_counted_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for name in VENUES {
            let (mut connector, mut out, stats) = small(name);
            take_frame(connector.as_mut(), 0, &bytes, Micros(1), &mut out);
            let symbol = instrument(name).symbol;
            let _ = connector.decode_snapshot(&symbol, &bytes, Micros(1), &mut out);
            for request in connector.symbols_requests() {
                let _ = connector.decode_symbols(&request, &bytes, &mut Default::default());
            }
            prop_assert!(counted(&stats) <= 1);
            assert_goes_on(name, connector.as_mut(), &mut out, &stats);
        }
    }

    #[test]
    fn a_broken_frame_is_an_event_or_a_count_but_no_panic(
        frame in any::<prop::sample::Index>(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        for name in VENUES {
            let sound = frames(name)[frame.index(frames(name).len())].as_bytes();
            let mut bytes = sound.to_vec();
            for (place, byte) in &edits {
                let place = place.index(bytes.len());
                bytes[place] = *byte;
            }
            if edits.len() == 3 {
                bytes.truncate(cut.index(bytes.len()));
            }
            let (mut connector, mut out, _) = small(name);
            take_frame(connector.as_mut(), 0, &bytes, Micros(1), &mut out);
            take_frame(connector.as_mut(), 0, sound, Micros(2), &mut out);
        }
    }

    #[test]
    fn wild_values_anywhere_in_a_stream_leave_the_feed_alive(
        changes in proptest::collection::vec(
            (any::<prop::sample::Index>(), any::<prop::sample::Index>(), wild_value()), 1..12),
    ) {
        for name in VENUES {
            let (mut connector, mut out, stats) = small(name);
            for (at, (frame, leaf, text)) in changes.iter().enumerate() {
                let sound = frames(name)[frame.index(frames(name).len())];
                let value: Value = serde_json::from_str(sound).unwrap();
                let wild = with_leaf(&value, leaf.index(leaves(&value)), text);
                let time = Micros(at as i64);
                take_frame(connector.as_mut(), 0, wild.as_bytes(), time, &mut out);
                take_frame(connector.as_mut(), 0, sound.as_bytes(), time, &mut out);
                connector.flush_tops(0, time, true, &mut out);
            }
            connector.closed(0);
            connector.opened(0, &mut out);
            assert_goes_on(name, connector.as_mut(), &mut out, &stats);
        }
    }

    #[test]
    fn wild_values_in_a_table_of_symbols_are_left_out_or_refused(
        leaf in any::<prop::sample::Index>(), text in wild_value(),
    ) {
        for (name, table) in crate::symbols::TABLES {
            let value: Value = serde_json::from_str(table).unwrap();
            let wild = with_leaf(&value, leaf.index(leaves(&value)), &text);
            let connector = (venue(name).unwrap().connector)(tapeline::venue::Settings::new(vec![], vec![]));
            let request = connector.symbols_requests().remove(0);
            let _ = connector.decode_symbols(&request, wild.as_bytes(), &mut Default::default());
        }
    }
}
