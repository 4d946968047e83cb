//! The venues' past: what REST answers give is what the feed gives, and pages follow each other to the end.

use proptest::prelude::*;
use tapeline::venue::{Ask, History, Next, Past, take_frame, venue};
use tapeline_schemas::{Kind, Micros, Timeframe, Trade};

use crate::common::{Collector, Published};
use crate::pure::{instrument, settle, small};

const NOW: Micros = Micros(1_700_000_000_000_000);

/// A trade as each venue's feed writes it, and the answer with the same trade: name, frame, answer.
const SAME: [(&str, &str, &str); 6] = [
    (
        "BINANCE",
        r#"{"stream":"btcusd@aggTrade","data":{"e":"aggTrade","E":1633998523963,"s":"BTCUSD","a":12,"p":"57000.10","q":"0.5","f":1,"l":2,"T":1633998523960,"m":false,"M":true}}"#,
        r#"[{"a":12,"p":"57000.10000000","q":"0.50000000","f":1,"l":2,"T":1633998523960,"m":false,"M":true}]"#,
    ),
    (
        "COINBASE",
        r#"{"type":"match","trade_id":73,"side":"sell","size":"0.01","price":"57000.10","product_id":"BTC-USD","sequence":17,"time":"2021-10-11T23:11:19.028459Z"}"#,
        r#"[{"time":"2021-10-11T23:11:19.028459Z","trade_id":73,"price":"57000.10000000","size":"0.01000000","side":"sell"}]"#,
    ),
    (
        "DERIBIT",
        r#"{"method":"subscription","params":{"channel":"trades.BTC-25DEC26-100000-C.100ms","data":[{"trade_seq":12,"trade_id":"4","timestamp":1626993724318,"price":0.0015,"instrument_name":"BTC-25DEC26-100000-C","direction":"sell","amount":10.0}]}}"#,
        r#"{"jsonrpc":"2.0","result":{"trades":[{"trade_seq":12,"trade_id":"4","timestamp":1626993724318,"tick_direction":2,"price":0.0015,"mark_price":0.0014,"iv":50.1,"instrument_name":"BTC-25DEC26-100000-C","index_price":8955.88,"direction":"sell","amount":10.0}],"has_more":false},"usIn":1,"usOut":2}"#,
    ),
    (
        "KRAKEN",
        r#"[1,[["30243.4","0.34507674","1688669597.827736","b","m",""]],"trade","XBT/USD"]"#,
        r#"{"error":[],"result":{"XXBTZUSD":[["30243.40000","0.34507674",1688669597.8277369,"b","m","",61044952]],"last":"1688669597827736900"}}"#,
    ),
    (
        "OKX",
        r#"{"arg":{"channel":"trades","instId":"BTC-USD"},"data":[{"instId":"BTC-USD","tradeId":"7849","px":"30218.8","sz":"1","side":"buy","ts":"1652459199958","count":"1"}]}"#,
        r#"{"code":"0","msg":"","data":[{"instId":"BTC-USD","side":"buy","sz":"1","px":"30218.8","source":"0","tradeId":"7849","ts":"1652459199958"}]}"#,
    ),
    (
        "UPBIT",
        r#"{"ty":"trade","cd":"USD-BTC","ttms":1618678262000,"tp":76580000.0,"tv":6E-8,"ab":"BID","sid":1618678262000003}"#,
        r#"[{"market":"USD-BTC","trade_date_utc":"2021-04-17","trade_time_utc":"16:51:02","timestamp":1618678262000,"trade_price":76580000.0,"trade_volume":6E-8,"prev_closing_price":1.0,"change_price":-1.0,"ask_bid":"BID","sequential_id":1618678262000003}]"#,
    ),
];

fn ask(name: &str, from: Micros, to: Micros) -> Ask {
    let listed = instrument(name);
    Ask { symbol: listed.symbol, native: listed.code, from, to, now: NOW, after: None }
}

fn history(name: &str, kind: Kind) -> Box<dyn History> {
    let offers = venue(name).unwrap().history;
    (offers.iter().find(|offer| offer.kind == kind).unwrap().history)()
}

/// The trade that the feed gives of a frame.
fn of_the_feed(name: &str, frame: &str) -> Trade<'static> {
    let (mut connector, mut out, _) = small(name);
    let collector = Collector::default();
    take_frame(connector.as_mut(), 0, frame.as_bytes(), NOW, &mut out);
    settle(&mut out, &collector);
    match collector.take().into_iter().find(|one| matches!(one, Published::Trade(_))) {
        Some(Published::Trade(trade)) => trade,
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn a_trade_of_the_past_is_the_trade_of_the_feed_in_every_field() {
    for (name, frame, body) in SAME {
        let feed = of_the_feed(name, frame);
        let around = ask(name, feed.venue_time.plus(-1), feed.venue_time.plus(1));
        let mut history = history(name, Kind::Trade);
        history.first(&around);
        let page = history.decode(&around, body.as_bytes(), NOW).unwrap();
        assert_eq!(page.events, [Past::Trade(feed.clone())], "{name}");
        // Nothing outside of what was asked for.
        let elsewhere = ask(name, feed.venue_time.plus(1), feed.venue_time.plus(2));
        let page = history.decode(&elsewhere, body.as_bytes(), NOW).unwrap();
        assert_eq!(page.events, [], "{name}");
    }
    assert!(venue("BITHUMB").unwrap().history.is_empty(), "times to the second, no ids");
}

#[test]
fn binance_goes_by_time_to_the_first_trade_and_by_number_from_there() {
    let hour = Timeframe::H1.micros();
    let ask = ask("BINANCE", NOW, NOW.plus(2 * hour));
    let mut history = history("BINANCE", Kind::Trade);
    let first = history.first(&ask);
    assert_eq!(
        first,
        "/api/v3/aggTrades?symbol=BTCUSD&startTime=1700000000000&endTime=1700003599999&limit=1000"
    );
    // A quiet hour.
    let Next::Page(second) = history.decode(&ask, b"[]", NOW).unwrap().next else { panic!() };
    assert!(second.contains("startTime=1700003600000&endTime=1700007199999"), "{second}");
    let row = |id: u32, at: i64| {
        format!(r#"[{{"a":{id},"p":"1","q":"1","f":1,"l":1,"T":{at},"m":false}}]"#)
    };
    let page = history.decode(&ask, row(7, 1_700_003_700_000).as_bytes(), NOW).unwrap();
    let third = "/api/v3/aggTrades?symbol=BTCUSD&fromId=8&limit=1000".to_owned();
    assert_eq!((page.events.len(), page.next), (1, Next::Page(third)));
    let page = history.decode(&ask, row(8, 1_700_003_700_000).as_bytes(), NOW).unwrap();
    assert_eq!(
        (page.events.len(), page.next),
        (1, Next::Done),
        "a page that is not full is the last"
    );
}

#[test]
fn binance_candles_of_the_past_are_those_that_are_closed() {
    let minute = Timeframe::M1.micros();
    let from = Timeframe::M1.start(NOW).plus(-minute);
    let ask = ask("BINANCE", from, NOW.plus(minute));
    let mut history = history("BINANCE", Kind::VenueCandle);
    assert!(history.first(&ask).starts_with("/api/v3/klines?symbol=BTCUSD&interval=1m&startTime="));
    let row = |open: i64| {
        format!(r#"[{open},"2","3","1","2.5","7",{},"15.5",9,"1","2","0"]"#, open + 59_999)
    };
    let open = from.0 / 1_000;
    let body = format!("[{},{}]", row(open), row(open + 60_000));
    let page = history.decode(&ask, body.as_bytes(), NOW).unwrap();
    assert_eq!((page.events.len(), page.next), (1, Next::Done));
    let Past::Candle(candle) = &page.events[0] else { panic!() };
    assert_eq!((candle.open_time, candle.is_final, candle.revision), (from, true, 9));
    assert_eq!((candle.trades_count, candle.quote_volume.to_string()), (9, "15.5".to_owned()));
}

#[test]
fn pages_go_back_until_the_time_asked_for_or_until_the_venue_has_no_more() {
    let second = 1_000_000;
    let row = |time: &str, id: u32| {
        format!(r#"[{{"time":"{time}","trade_id":{id},"price":"1","size":"1","side":"buy"}}]"#)
    };
    let from = Micros(1_633_993_879_000_000);
    let coinbase = Ask { after: Some(99), ..ask("COINBASE", from, from.plus(9 * second)) };
    let mut history = history("COINBASE", Kind::Trade);
    assert_eq!(history.first(&coinbase), "/products/BTC-USD/trades?limit=1000&after=99");
    let page = history.decode(&coinbase, row("2021-10-11T23:11:20Z", 98).as_bytes(), NOW).unwrap();
    let next = Next::Page("/products/BTC-USD/trades?limit=1000&after=98".to_owned());
    assert_eq!((page.events.len(), page.next), (1, next));
    let page = history.decode(&coinbase, row("2021-10-11T23:11:18Z", 97).as_bytes(), NOW).unwrap();
    assert_eq!((page.events.len(), page.next), (0, Next::Done));
    let page = history.decode(&coinbase, b"[]", NOW).unwrap();
    assert!(matches!(page.next, Next::Exhausted(_)));

    // A day at a time, of seven.
    let day = Timeframe::D1.micros();
    let midnight = Timeframe::D1.start(NOW);
    let upbit = ask("UPBIT", midnight.plus(-day - second), midnight.plus(5 * second));
    let mut history = self::history("UPBIT", Kind::Trade);
    assert_eq!(history.first(&upbit), "/v1/trades/ticks?market=USD-BTC&count=500&to=00:00:06");
    for days in [1, 2] {
        let Next::Page(next) = history.decode(&upbit, b"[]", NOW).unwrap().next else { panic!() };
        assert_eq!(next, format!("/v1/trades/ticks?market=USD-BTC&count=500&days_ago={days}"));
    }
    assert_eq!(history.decode(&upbit, b"[]", NOW).unwrap().next, Next::Done);
    let old = ask("UPBIT", midnight.plus(-9 * day), midnight.plus(-9 * day + second));
    history.first(&old);
    for body in ["[]", SAME[5].2] {
        let page = history.decode(&old, body.as_bytes(), NOW).unwrap();
        assert!(matches!(page.next, Next::Exhausted(_)), "{body}");
    }

    // Deribit keeps a day: an empty answer about last week proves nothing.
    let nothing = br#"{"result":{"trades":[],"has_more":false}}"#;
    let old = ask("DERIBIT", NOW.plus(-7 * day), NOW.plus(-7 * day + second));
    let mut history = self::history("DERIBIT", Kind::Trade);
    history.first(&old);
    assert!(matches!(history.decode(&old, nothing, NOW).unwrap().next, Next::Exhausted(_)));
    let young = ask("DERIBIT", NOW.plus(-second), NOW);
    assert_eq!(history.decode(&young, nothing, NOW).unwrap().next, Next::Done);
}

#[test]
fn without_numbers_an_answer_shows_up_to_when_it_is_whole() {
    let second = 1_000_000;
    // Kraken's goes on to now: it is whole up to its newest trade, whether that was asked for or not.
    let traded = Micros(1_688_669_597_827_736);
    for to in [traded.plus(-second), traded.plus(second)] {
        let kraken = ask("KRAKEN", traded.plus(-9 * second), to);
        let mut history = history("KRAKEN", Kind::Trade);
        history.first(&kraken);
        let page = history.decode(&kraken, SAME[3].2.as_bytes(), NOW).unwrap();
        assert_eq!(page.through, Some(traded));
        let nothing = br#"{"error":[],"result":{"XXBTZUSD":[],"last":"1688669597827736900"}}"#;
        assert_eq!(history.decode(&kraken, nothing, NOW).unwrap().through, None);
    }
    // Upbit's begins where it is told to, by its own clock; but one without a trade may be no answer at all.
    let to = Micros(1_618_678_292_000_000);
    let upbit = Ask { now: to.plus(9 * second), ..ask("UPBIT", to.plus(-60 * second), to) };
    let mut history = history("UPBIT", Kind::Trade);
    history.first(&upbit);
    let page = history.decode(&upbit, SAME[5].2.as_bytes(), upbit.now).unwrap();
    assert_eq!((page.events.len(), page.through), (1, Some(to)));
    assert_eq!(history.decode(&upbit, b"[]", upbit.now).unwrap().through, None);
}

#[test]
fn a_venues_error_in_place_of_trades_is_an_error() {
    for (name, body) in [
        ("KRAKEN", r#"{"error":["EGeneral:Too many requests"]}"#),
        ("OKX", r#"{"code":"51001","msg":"Instrument ID does not exist","data":[]}"#),
        ("BINANCE", r#"{"code":-1121,"msg":"Invalid symbol."}"#),
        ("COINBASE", r#"{"message":"NotFound"}"#),
        ("DERIBIT", r#"{"error":{"code":-32602,"message":"Invalid params"}}"#),
        ("UPBIT", r#"{"error":{"name":404,"message":"Code not found"}}"#),
    ] {
        let ask = ask(name, Micros(0), NOW);
        let mut history = history(name, Kind::Trade);
        history.first(&ask);
        assert!(history.decode(&ask, body.as_bytes(), NOW).is_err(), "{name}");
    }
}

proptest! {
    #[test]
    fn no_answer_makes_a_reader_of_the_past_panic(
        which in 0..SAME.len(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        noise in prop::collection::vec(any::<u8>(), 0..64),
        from in any::<i64>(),
        to in any::<i64>(),
    ) {
        let (name, _, body) = SAME[which];
        let mut changed = body.as_bytes().to_vec();
        let place = at.index(changed.len());
        changed[place] = byte;
        for offer in venue(name).unwrap().history {
            let ask = ask(name, Micros(from), Micros(to));
            let mut history = (offer.history)();
            history.first(&ask);
            for body in [&changed, &noise] {
                // Whether it is read does not matter.
                let _ = history.decode(&ask, body, NOW);
            }
        }
    }
}
