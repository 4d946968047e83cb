//! Coinbase's and Bithumb's rules, and Binance's candles and trade ids, on small messages of our own.

use tapeline::venue::take_frame;
use tapeline_schemas::{BookAction, CandleSource, Micros, Side};

use crate::common::{Collector, Published, books};
use crate::pure::{settle, small};
use crate::rules::{gaps, money};

fn a_match(kind: &str, id: u32) -> String {
    format!(
        r#"{{"type":"{kind}","trade_id":{id},"maker_order_id":"a","taker_order_id":"b","side":"sell","size":"985.10","price":"0.00001305","product_id":"BTC-USD","sequence":17,"time":"2021-04-17T16:43:37.089723Z"}}"#
    )
}

#[test]
fn coinbase_trades_are_the_takers_counted_once_and_a_number_left_out_is_a_hole() {
    let (mut connector, mut out, stats) = small("COINBASE");
    let collector = Collector::default();
    let ticker = r#"{"type":"ticker","sequence":18,"product_id":"BTC-USD","price":"0.5","open_24h":"0.40","volume_24h":"94.25000000","best_bid":"0","best_ask":"0.6","side":"buy","time":"2021-04-17T16:43:37.089723Z","trade_id":7,"last_size":"985"}"#;
    for (at, frame) in [
        (1, a_match("last_match", 7)),
        (2, ticker.to_owned()),
        (3, a_match("match", 8)),
        (4, a_match("match", 10)),
        (5, a_match("last_match", 10)),
        (6, a_match("match", 11)),
    ] {
        take_frame(connector.as_mut(), 0, frame.as_bytes(), Micros(at), &mut out);
    }
    settle(&mut out, &collector);
    let all = collector.take();
    let Published::Trade(trade) = &all[0] else { panic!("{all:?}") };
    assert_eq!((trade.trade_id.as_ref(), trade.sequence), ("7", Some(7)));
    assert_eq!((trade.price, trade.amount), (money("0.00001305"), money("985.1")));
    // `side` is the maker's.
    assert_eq!((trade.side, trade.venue_time), (Side::Buy, Micros(1_618_677_817_089_723)));
    let Published::Ticker(ticker) = &all[1] else { panic!("{all:?}") };
    assert_eq!((ticker.bid, ticker.ask), (None, Some(money("0.6"))));
    assert_eq!(ticker.price_change_24h, Some(money("0.1")));
    assert_eq!(ticker.event_id.as_deref(), Some("18"));
    assert_eq!(gaps(&all), [("opened", 3, "sequence"), ("ended", 3, "sequence")]);
    assert_eq!((stats.report().trade.received, stats.report().ticker.received), (5, 1));
}

#[test]
fn coinbase_books_follow_their_changes_and_one_that_stays_crossed_starts_anew() {
    let (mut connector, mut out, stats) = small("COINBASE");
    let collector = Collector::default();
    let whole =
        r#"{"type":"snapshot","product_id":"BTC-USD","asks":[["2","1"]],"bids":[["1","1"]]}"#;
    let change = |side: &str, price: &str, amount: &str| {
        format!(
            r#"{{"type":"l2update","product_id":"BTC-USD","changes":[["{side}","{price}","{amount}"]],"time":"2021-04-17T16:43:38.000000Z"}}"#
        )
    };
    let second = 1_000_000;
    for (at, frame) in [
        (0, change("buy", "9", "9")),
        (1, whole.to_owned()),
        (second, change("sell", "2", "0.0")),
        (2 * second, change("sell", "3", "4")),
        // Crossed for less than five seconds, then for longer.
        (3 * second, change("buy", "3.5", "1")),
        (7 * second, change("buy", "3.5", "0")),
        (8 * second, change("buy", "4", "1")),
        (14 * second, change("buy", "1", "2")),
        (15 * second, change("buy", "1", "3")),
        (16 * second, whole.to_owned()),
    ] {
        take_frame(connector.as_mut(), 0, frame.as_bytes(), Micros(at), &mut out);
    }
    settle(&mut out, &collector);
    let all = collector.take();
    assert_eq!(gaps(&all), [("opened", 8 * second, "crossed"), ("ended", 8 * second, "crossed")]);
    for top in books(&all, BookAction::Top) {
        let (bid, ask) = (top.bids.first(), top.asks.first());
        assert!(bid.zip(ask).is_none_or(|(bid, ask)| bid.price < ask.price), "{top:?}");
    }
    let report = stats.report().books;
    assert_eq!((report.resyncs, report.updates_stale, report.updates_applied), (1, 2, 7));
}

#[test]
fn bithumbs_local_times_become_utc_and_equal_trades_are_told_apart() {
    let (mut connector, mut out, _) = small("BITHUMB");
    let collector = Collector::default();
    let row = |side: u32, symbol: &str| {
        format!(
            r#"{{"buySellGb":"{side}","contPrice":"3.9080","contQty":"12365.191","contAmt":"48323.166","contDtm":"2021-06-02 08:43:34.555058","updn":"dn","symbol":"{symbol}"}}"#
        )
    };
    let rows = [row(2, "BTC_USD"), row(2, "BTC_USD"), row(3, "BTC_USD"), row(1, "BTC_USD")];
    let frame = format!(r#"{{"type":"transaction","content":{{"list":[{}]}}}}"#, rows.join(","));
    take_frame(connector.as_mut(), 0, frame.as_bytes(), Micros(1), &mut out);
    let ticker = r#"{"type":"ticker","content":{"symbol":"BTC_USD","tickType":"24H","date":"20210101","time":"084334","openPrice":"2302","closePrice":"2317","lowPrice":"2272","highPrice":"2344","value":"2831915078.07065789","volume":"1222314.51355788","prevClosePrice":"2326","chgRate":"0.65","chgAmt":"15"}}"#;
    take_frame(connector.as_mut(), 1, ticker.as_bytes(), Micros(2), &mut out);
    let book = r#"{"type":"orderbooksnapshot","content":{"symbol":"BTC_USD","datetime":"1622591014555058","asks":[["2318","1.5"]],"bids":[["2317","0.25"]]}}"#;
    take_frame(connector.as_mut(), 2, book.as_bytes(), Micros(3), &mut out);
    settle(&mut out, &collector);
    let all = collector.take();
    let [
        Published::Trade(first),
        Published::Trade(second),
        Published::Trade(third),
        Published::Ticker(ticker),
        Published::Book(book),
        Published::Book(top),
    ] = all.as_slice()
    else {
        panic!("{all:?}")
    };
    // Nine hours before what it says.
    let time = Micros(1_622_591_014_555_058);
    assert_eq!((first.venue_time, first.side), (time, Side::Buy));
    let like = "1622591014555058-3.908-12365.191";
    assert_eq!(first.trade_id, format!("{like}-b-0"));
    assert_eq!(second.trade_id, format!("{like}-b-1"));
    assert_eq!((third.trade_id.as_ref(), third.side), (format!("{like}-s-0").as_str(), Side::Sell));
    // On New Year's morning in Korea the year before has not ended.
    assert_eq!(ticker.venue_time, Micros(1_609_458_214_000_000));
    assert_eq!(ticker.quote_volume_24h, Some(money("2831915078.07065789")));
    assert_eq!(
        (book.action, book.venue_time, top.action),
        (BookAction::Snapshot, time, BookAction::Top)
    );
}

#[test]
fn bithumb_reports_a_refused_filter_as_the_venues_error() {
    let (mut connector, mut out, stats) = small("BITHUMB");
    for frame in [
        r#"{"status":"0000","resmsg":"Connected Successfully"}"#,
        r#"{"status":"5100","resmsg":"Invalid Filter Syntax"}"#,
    ] {
        take_frame(connector.as_mut(), 0, frame.as_bytes(), Micros(1), &mut out);
    }
    assert_eq!(stats.report().venue_errors, 1);
}

#[test]
fn binances_candles_are_the_venues_own_and_each_says_how_far_its_window_has_come() {
    let (mut connector, mut out, _) = small("BINANCE");
    let collector = Collector::default();
    let frame = |trades: u32, closed: bool| {
        format!(
            r#"{{"stream":"btcusd@kline_1m","data":{{"e":"kline","E":1633998523963,"s":"BTCUSD","k":{{"t":1633998480000,"T":1633998539999,"s":"BTCUSD","i":"1m","f":1,"L":9,"o":"0.35270000","c":"0.35280000","h":"0.35290000","l":"0.35220000","v":"25877.00000000","n":{trades},"x":{closed},"q":"9116.04600000","V":"58","Q":"20","B":"0"}}}}}}"#
        )
    };
    for (at, trades, closed) in [(1, 30, false), (2, 31, true)] {
        take_frame(connector.as_mut(), 0, frame(trades, closed).as_bytes(), Micros(at), &mut out);
    }
    // A timeframe that is none of ours.
    let other = frame(1, false).replace("1m", "3m");
    take_frame(connector.as_mut(), 0, other.as_bytes(), Micros(3), &mut out);
    settle(&mut out, &collector);
    let all = collector.take();
    let [Published::Candle(open), Published::Candle(closed)] = all.as_slice() else {
        panic!("{all:?}")
    };
    assert_eq!((open.source, open.timeframe.as_ref()), (CandleSource::Venue, "1m"));
    assert_eq!(open.open_time, Micros(1_633_998_480_000_000));
    assert_eq!(open.close_time, Micros(1_633_998_540_000_000));
    assert_eq!((open.low, open.high), (money("0.3522"), money("0.3529")));
    assert_eq!(open.quote_volume.to_string(), "9116.046");
    assert_eq!((open.is_final, open.revision, open.trades_count), (false, 30, 30));
    assert_eq!((closed.is_final, closed.revision), (true, 31));
}

#[test]
fn binance_trades_that_are_missing_are_a_hole_that_ends_with_the_next() {
    let (mut connector, mut out, stats) = small("BINANCE");
    let collector = Collector::default();
    for (at, id) in [(1, 5), (2, 6), (3, 6), (4, 9), (5, 8), (6, 10)] {
        let frame = format!(
            r#"{{"stream":"btcusd@aggTrade","data":{{"s":"BTCUSD","a":{id},"p":"1","q":"1","T":3,"m":true}}}}"#
        );
        take_frame(connector.as_mut(), 0, frame.as_bytes(), Micros(at), &mut out);
    }
    settle(&mut out, &collector);
    assert_eq!(gaps(&collector.take()), [("opened", 2, "sequence"), ("ended", 2, "sequence")]);
    assert_eq!(stats.report().trade.received, 6);
}
