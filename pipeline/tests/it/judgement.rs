//! What is odd is flagged once, let through, and never judged again.

use std::collections::BTreeMap;

use tapeline::wiring::StageName;
use tapeline_schemas::{
    Anomaly, Book, BookAction, Kind, Level, Micros, Money, Record as _, Ticker, Trade, encode,
    headers, partition_for, wire,
};

use crate::common::{Pipeline, eventually};
use crate::look::{self, Plain, trade};

/// Kinds of the events that are sent.
const KINDS: [Kind; 3] = [Kind::Trade, Kind::Ticker, Kind::Book];
const PARTITIONS: i32 = 4;
const START: i64 = 1_700_000_000_000_000;
const SECOND: i64 = 1_000_000;

/// A raw event with the flags it must get.
struct Odd {
    kind: Kind,
    key: String,
    payload: Vec<u8>,
    flags: &'static str,
}

fn odd_trade(event: &Trade<'_>, flags: &'static str) -> Odd {
    let key = format!("{}:{}", event.exchange, event.symbol);
    Odd { kind: Kind::Trade, key, payload: encode(event), flags }
}

fn trades() -> Vec<Odd> {
    let at =
        |symbol, id, price, second: i64| trade("TEST", symbol, id, price, START + second * SECOND);
    let mut odd = vec![
        odd_trade(&at("DUP-USD", 1, "100", 0), ""),
        // Another connector of the same venue saw it later: the same event.
        odd_trade(
            &Trade { receive_time: Micros(START + 9_000), ..at("DUP-USD", 1, "100", 0) },
            "duplicate",
        ),
        odd_trade(&at("DUP-USD", 1, "100.5", 0), "conflict"),
        odd_trade(&at("DUP-USD", 1, "100", 0), "duplicate"),
        odd_trade(&at("DUP-USD", 2, "100", 1), ""),
    ];
    for id in 0..10 {
        odd.push(odd_trade(&at("JUMP-USD", id, "1000", id), ""));
    }
    odd.push(odd_trade(&at("JUMP-USD", 10, "10000", 10), "price_jump"));
    odd.push(odd_trade(&at("JUMP-USD", 11, "1000.5", 11), ""));
    let shifted = |id, second, by| Trade {
        receive_time: Micros(START + (second - by) * SECOND),
        ..at("TIME-USD", id, "5", second)
    };
    odd.push(odd_trade(&shifted(1, 100, 0), ""));
    odd.push(odd_trade(&shifted(2, 200, 6), "future"));
    // What was ahead makes nothing after it look late.
    odd.push(odd_trade(&shifted(3, 101, 0), ""));
    odd.push(odd_trade(&shifted(4, 102, -61), "late"));
    odd.push(odd_trade(&shifted(5, 99, -1), "out_of_order"));
    odd.push(odd_trade(&shifted(6, 98, -90), "late,out_of_order"));
    odd
}

fn book(id: i64, bid: &str, ask: &str, flags: &'static str) -> Odd {
    let level =
        |text: &str| vec![Level { price: text.parse().expect("price"), amount: Money::ONE }];
    let event = Book {
        exchange: "TEST".into(),
        symbol: "BOOK-USD".into(),
        action: BookAction::Top,
        event_id: Some(id.to_string().into()),
        bids: level(bid),
        asks: level(ask),
        first_sequence: None,
        sequence: Some(id),
        checksum: None,
        venue_time: Micros(START + id),
        receive_time: Micros(START + id),
    };
    Odd { kind: Kind::Book, key: "TEST:BOOK-USD".to_owned(), payload: encode(&event), flags }
}

fn ticker(id: i64, bid: &str, ask: &str, flags: &'static str) -> Odd {
    let price = |text: &str| Some(text.parse::<Money>().expect("price"));
    let event = Ticker {
        exchange: "TEST".into(),
        symbol: "TICK-USD".into(),
        event_id: Some(id.to_string().into()),
        last: price("10"),
        bid: price(bid),
        bid_volume: None,
        ask: price(ask),
        ask_volume: None,
        volume_24h: None,
        quote_volume_24h: None,
        price_change_24h: None,
        price_change_percent_24h: None,
        venue_time: Micros(START + id),
        receive_time: Micros(START + id),
    };
    Odd { kind: Kind::Ticker, key: "TEST:TICK-USD".to_owned(), payload: encode(&event), flags }
}

fn everything() -> Vec<Odd> {
    let mut all = trades();
    all.extend([
        book(1, "99", "100", ""),
        book(2, "100", "99", "crossed"),
        book(3, "100", "100", "locked"),
        book(3, "100", "100", "duplicate"),
        book(3, "99", "100", "conflict"),
        ticker(1, "9", "11", ""),
        ticker(2, "11", "9", "crossed"),
        ticker(3, "10", "10", "locked"),
        ticker(3, "10", "10", "duplicate"),
    ]);
    all
}

async fn push(pipeline: &Pipeline, events: &[Odd]) -> Vec<i64> {
    let records: Vec<_> = events
        .iter()
        .map(|odd| {
            let mut value = Vec::new();
            wire::put_header(pipeline.context.schema_ids[&odd.kind], &mut value);
            value.extend_from_slice(&odd.payload);
            let partition = partition_for(odd.key.as_bytes(), PARTITIONS);
            let key = Some(odd.key.clone().into_bytes());
            let plain = Plain { partition, key, value: Some(value), headers: vec![] };
            (look::raw_topic(pipeline, odd.kind), plain)
        })
        .collect();
    look::push(pipeline, &records).await
}

/// Topic, partition and offset of a raw record.
type Origin = (String, i32, i64);

/// What the events must be judged as.
fn expected(pipeline: &Pipeline, events: &[Odd], offsets: &[i64]) -> BTreeMap<Origin, String> {
    let odd = events.iter().zip(offsets).filter(|(odd, _)| !odd.flags.is_empty());
    odd.map(|(odd, offset)| {
        let partition = partition_for(odd.key.as_bytes(), PARTITIONS);
        ((look::raw_topic(pipeline, odd.kind), partition, *offset), odd.flags.to_owned())
    })
    .collect()
}

/// What the headers of the checked records say.
fn judged(pipeline: &Pipeline) -> BTreeMap<Origin, String> {
    let mut judged = BTreeMap::new();
    for kind in KINDS {
        for seen in look::read_kind(pipeline, kind) {
            assert!(seen.value.is_some(), "nothing that is only odd is refused: {seen:?}");
            let origin = seen.headers[headers::ORIGIN].parse().expect("an origin");
            if let Some(flags) = seen.headers.get(headers::FLAGS) {
                let place = (look::raw_topic(pipeline, kind), seen.partition, origin);
                judged.insert(place, flags.clone());
            }
        }
    }
    judged
}

async fn anomaly_rows(pipeline: &Pipeline) -> BTreeMap<Origin, String> {
    let sql = "select origin_topic, origin_partition, origin, array_to_string(flags, ',') as flags \
        from market_data_anomalies where detail <> '' and exchange = 'TEST'";
    let number = |text: &str| text.parse::<i64>().expect("a number");
    let rows = look::rows(pipeline, sql).await;
    rows.into_iter()
        .map(|row| ((row[0].clone(), number(&row[1]) as i32, number(&row[2])), row[3].clone()))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_odd_is_flagged_and_told_by_origin_and_repeats_are_counted_not_stored_invariant_4()
{
    let pipeline = Pipeline::new("judgement").await;
    let (validate, store) = (pipeline.start(StageName::Validate), pipeline.start(StageName::Store));
    let events = everything();
    let offsets = push(&pipeline, &events).await;
    let audit = look::all_accounted(&pipeline, events.len() as i64).await;
    let expected = expected(&pipeline, &events, &offsets);
    assert_eq!(judged(&pipeline), expected);
    eventually("the anomalies are stored", || async {
        anomaly_rows(&pipeline).await.len() >= expected.len()
    })
    .await;
    assert_eq!(anomaly_rows(&pipeline).await, expected);
    // One message each, with the origin as its key: whoever reads it twice sees it once.
    for seen in look::read_kind(&pipeline, Kind::Anomaly) {
        let value = seen.value.expect("a value");
        let event = Anomaly::decode(&value[wire::HEADER_BYTES..]).expect("an anomaly");
        let place = (event.origin_topic.to_string(), event.origin_partition, event.origin_offset);
        assert_eq!(expected[&place], event.flags.join(","));
        let key = format!("{}/{}/{}", place.0, place.1, place.2);
        assert_eq!(seen.key.as_deref(), Some(key.as_bytes()));
    }
    let count = |flag: &str| expected.values().filter(|flags| *flags == flag).count() as i64;
    assert_eq!(audit.outcomes["duplicate"], count("duplicate"));
    assert_eq!(audit.outcomes["conflict"], count("conflict"));
    assert_eq!(
        audit.outcomes["stored"],
        events.len() as i64 - count("duplicate") - count("conflict")
    );
    let sql = "select trade_id, price, receive_time = time + interval '500 microseconds' as first \
        from market_data_trades where symbol = 'DUP-USD' order by trade_id";
    let first = |id: &str| {
        ["100", "true"].map(str::to_owned).into_iter().fold(vec![id.to_owned()], |mut row, text| {
            row.push(text);
            row
        })
    };
    assert_eq!(look::rows(&pipeline, sql).await, [first("1"), first("2")]);
    validate.stop().await;
    store.stop().await;
    pipeline.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_of_validate_never_change_what_was_judged_invariant_4() {
    let pipeline = Pipeline::new("judged_once").await;
    let events = everything();
    let mut known = BTreeMap::new();
    let mut passed = Vec::new();
    // Stopped as soon as something was judged, each time somewhere else.
    for (round, part) in events.chunks(events.len() / 3 + 1).enumerate() {
        let validate = pipeline.start(StageName::Validate);
        push(&pipeline, part).await;
        let before = passed.len();
        let checked = || {
            KINDS.into_iter().flat_map(|kind| look::read_kind(&pipeline, kind)).collect::<Vec<_>>()
        };
        eventually("something is judged", || async { checked().len() > before }).await;
        validate.stop().await;
        let judged = judged(&pipeline);
        assert!(
            known.iter().all(|(place, flags)| judged.get(place) == Some(flags)),
            "round {round}"
        );
        known = judged;
        let now = checked();
        assert!(passed.iter().all(|seen| now.contains(seen)), "round {round}");
        passed = now;
    }
    let (validate, store) = (pipeline.start(StageName::Validate), pipeline.start(StageName::Store));
    look::all_accounted(&pipeline, events.len() as i64).await;
    let all: Vec<_> = KINDS.into_iter().flat_map(|kind| look::read_kind(&pipeline, kind)).collect();
    assert!(passed.iter().all(|seen| all.contains(seen)), "the last start");
    assert_eq!(all.len(), events.len(), "one checked record a raw one");
    let judged = judged(&pipeline);
    eventually("the anomalies are stored", || async { anomaly_rows(&pipeline).await == judged })
        .await;
    validate.stop().await;
    store.stop().await;
    pipeline.finish().await;
}
