//! `store` against a real TimescaleDB: rows, duplicates, conflicts, refused rows.

mod common;

use std::borrow::Cow;

use common::{Database, Kept, at, event, gather, sink, store, store_batch, taught, trade, trades};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tapeline_schemas::{
    Anomaly, BookAction, Candle, CandleSource, Flag, Gap, GapState, Kind, Micros, Money, Wide,
};
use tapeline_stages::flow::{Marker, Outcome, Resume, Sink, Start, flush};
use tapeline_stages::store::Store;

#[tokio::test]
async fn every_kind_of_event_becomes_the_row_it_is() {
    let database = Database::new().await;
    let mut sink = sink(&database.url);
    let kinds = [Kind::Trade, Kind::Ticker, Kind::Book, Kind::Anomaly];
    sink.assign(&kinds.map(|kind| at(kind, 3))).await.expect("assigned");
    let anomaly = Anomaly {
        origin_topic: Cow::Borrowed("md.trade.raw"),
        origin_partition: 3,
        origin_offset: 9,
        exchange: Cow::Borrowed("KRAKEN"),
        symbol: Cow::Borrowed("BTC-USD"),
        kind: Cow::Borrowed("trade"),
        flags: vec![Cow::Borrowed("late"), Cow::Borrowed("price_jump")],
        detail: Cow::Borrowed("too far"),
        venue_time: Micros(common::NOON),
        receive_time: Micros(common::NOON),
    };
    let events = [
        event(Kind::Trade, 3, 5, &trade("BTC-USD", 1, "-0.000000000000000001")),
        event(Kind::Ticker, 3, 6, &common::ticker("BTC-USD", "60000", common::NOON)),
        event(Kind::Book, 3, 7, &common::book("BTC-USD", BookAction::Top, common::NOON)),
        event(Kind::Book, 3, 8, &common::book("BTC-USD", BookAction::Delta, common::NOON)),
        event(Kind::Anomaly, 3, 2, &anomaly),
    ];
    let spans = store(&mut sink, &events).await.expect("written");
    assert_eq!(spans[2].count(Outcome::NotStored), 1, "a delta is not stored");
    let row = |table: &str| format!("select to_jsonb(t)::text from {table} t");
    assert_eq!(
        database.text(&row("market_data_trades")).await,
        r#"{"side": "buy", "time": "2021-04-17T15:00:00.001+00:00", "type": "limit", "price": -0.000000000000000001, "amount": 0.5, "origin": 5, "symbol": "BTC-USD", "exchange": "KRAKEN", "sequence": 1, "trade_id": "1", "receive_time": "2021-04-17T15:00:00.001007+00:00", "taker_or_maker": null, "origin_partition": 3}"#
    );
    assert_eq!(
        database.text("select event_id || ' ' || last_price || ' ' || price_change_percent_24h || ' ' || (bid_price is null) from market_data_ticker").await,
        "3-6 60000 -1.25 true"
    );
    assert_eq!(
        database
            .text("select bids::text || ' ' || asks::text || ' ' || timestamp_ms from market_data_orderbook")
            .await,
        r#"[["10.5", "0.000000000000000001"], ["10", "0.000000000000000001"]] [] 1618671600000"#
    );
    assert_eq!(
        database.text("select flags::text || detail || origin from market_data_anomalies").await,
        "{late,price_jump}too far9"
    );
}

fn any_money() -> impl Strategy<Value = Money> {
    let mantissa = prop_oneof![
        Just(0_i128),
        -100_000..100_000_i128,
        any::<i64>().prop_map(i128::from),
        (any::<i64>(), 0_u32..19).prop_map(|(m, p)| i128::from(m) * 10_i128.pow(p)),
        -(10_i128.pow(38) - 1)..10_i128.pow(38),
    ];
    mantissa.prop_map(|mantissa| Money::from_mantissa(mantissa).expect("at most 38 digits"))
}

/// Invariant 10: what PostgreSQL prints is what was sent, digit for digit.
#[tokio::test]
async fn no_digit_is_lost_on_the_way_to_numeric() {
    let database = Database::new().await;
    let mut sink = sink(&database.url);
    sink.assign(&[at(Kind::Trade, 0), at(Kind::Candle, 0)]).await.expect("assigned");
    let mut runner = TestRunner::deterministic();
    let mut draw = || any_money().new_tree(&mut runner).expect("a value").current();
    let mut events = Vec::new();
    let (mut sent, mut turnovers) = (Vec::new(), Vec::new());
    for id in 0..3_000 {
        let (price, amount) = (draw(), draw());
        sent.push(format!("{price} {amount}"));
        let turnover = Wide::product(price, amount);
        turnovers.push(turnover.to_string());
        events.push(event(
            Kind::Trade,
            0,
            id,
            &tapeline_schemas::Trade { price, amount, ..trade("BTC-USD", id, "1") },
        ));
        events.push(event(
            Kind::Candle,
            0,
            id,
            &Candle { quote_volume: turnover, ..candle(id, true, 0) },
        ));
    }
    store(&mut sink, &events).await.expect("written");
    let found = database
        .text("select string_agg(price || ' ' || amount, ',' order by origin) from market_data_trades")
        .await;
    assert_same(&found, &sent);
    let found = database
        .text("select string_agg(quote_volume::text, ',' order by time) from market_data_ohlcv")
        .await;
    assert_same(&found, &turnovers);
    // The same value, digits spelt otherwise, would be another row for a comparison of bytes.
    let odd = "select count(*)::text from market_data_trades where numeric_send(price) <> numeric_send(price::text::numeric)";
    assert_eq!(database.text(odd).await, "0");
}

fn assert_same(found: &str, sent: &[String]) {
    assert_eq!(found.split(',').count(), sent.len());
    for (found, sent) in found.split(',').zip(sent) {
        assert_eq!(found, sent, "digit for digit");
    }
}

fn candle(minute: i64, is_final: bool, revision: i32) -> Candle<'static> {
    let one = Money::ONE;
    let open_time = Micros(common::NOON + minute * 60_000_000);
    Candle {
        exchange: Cow::Borrowed("KRAKEN"),
        symbol: Cow::Borrowed("BTC-USD"),
        timeframe: Cow::Borrowed("1m"),
        source: CandleSource::Tapeline,
        open_time,
        close_time: open_time.plus(60_000_000),
        open: one,
        high: one,
        low: one,
        close: one,
        volume: one,
        quote_volume: Wide::ZERO,
        trades_count: 1,
        is_final,
        revision,
        receive_time: open_time,
    }
}

#[tokio::test]
async fn a_candle_is_replaced_only_by_a_higher_version_in_any_order() {
    let database = Database::new().await;
    let mut sink = sink(&database.url);
    sink.assign(&[at(Kind::Candle, 0)]).await.expect("assigned");
    // A hole that was opened after the window had closed makes a later revision incomplete: the
    // older content does not come back for having been called final.
    let versions = [(true, 1), (false, 0), (true, 0), (false, 3), (true, 2), (true, 3)];
    let one = |(offset, (is_final, revision)): (usize, (bool, i32))| {
        event(Kind::Candle, 0, offset as i64, &candle(0, is_final, revision))
    };
    let mut events: Vec<_> = versions.into_iter().enumerate().map(one).collect();
    // Half of them in one batch, the rest one by one.
    let rest = events.split_off(3);
    let spans = store(&mut sink, &events).await.expect("written");
    assert_eq!((spans[0].count(Outcome::Taken), spans[0].count(Outcome::Duplicate)), (1, 2));
    let version = "select final || ' ' || revision from market_data_ohlcv";
    assert_eq!(database.text(version).await, "true 1");
    for (event, shown) in rest.into_iter().zip(["false 3", "false 3", "true 3"]) {
        store(&mut sink, &[event]).await.expect("written");
        assert_eq!(database.text(version).await, shown);
    }
    // The ledger's days add up to the table, not to the messages.
    let sum = "select sum((by_day ->> '2021-04-17')::bigint)::text from tapeline_ledger";
    assert_eq!(database.text(sum).await, "1");
}

#[tokio::test]
async fn a_gap_only_moves_forward() {
    let database = Database::new().await;
    let mut sink = sink(&database.url);
    sink.assign(&[at(Kind::Gap, 0)]).await.expect("assigned");
    let gap = |offset: i64, state: GapState| {
        event(
            Kind::Gap,
            0,
            offset,
            &Gap {
                exchange: Cow::Borrowed("KRAKEN"),
                symbol: Cow::Borrowed("BTC-USD"),
                channel: Cow::Borrowed("trade"),
                state,
                from_time: Micros(common::NOON),
                to_time: (state != GapState::Opened).then_some(Micros(common::NOON + 5)),
                cause: Cow::Borrowed("disconnect"),
                filled_by: (state == GapState::Filled).then_some(Cow::Borrowed("backfill")),
                origin_topic: Cow::Borrowed("md.trade.raw"),
                origin_partition: 0,
                origin_offset: offset,
            },
        )
    };
    use GapState::{Ended, Filled, Opened};
    let steps = [
        (Opened, "opened"),
        (Ended, "ended"),
        (Opened, "ended"),
        (Filled, "filled"),
        (Ended, "filled"),
    ];
    for (offset, (state, shown)) in steps.into_iter().enumerate() {
        store(&mut sink, &[gap(offset as i64, state)]).await.expect("written");
        assert_eq!(database.text("select state from market_data_gaps").await, shown);
    }
    assert_eq!(
        database.text("select filled_by || origin from market_data_gaps").await,
        "backfill3"
    );
}

/// Invariants 4 and 5, and "one conflicting row already in the table".
#[tokio::test]
async fn what_is_there_already_is_counted_and_left_alone() {
    let database = Database::new().await;
    let mut sink = sink(&database.url);
    sink.assign(&[at(Kind::Trade, 0)]).await.expect("assigned");
    store(&mut sink, &trades(0, 100)).await.expect("written");
    let before = database.md5("market_data_trades where origin < 100").await;
    // 50 again under new offsets, one of them with another price, 50 new, and one twice in the batch.
    let mut events: Vec<_> = (50..150)
        .map(|id| {
            let price = if id == 60 { "13" } else { "12.5" };
            event(Kind::Trade, 0, id + 50, &trade(&format!("C{}-USD", id % 7), id, price))
        })
        .collect();
    events.push(event(Kind::Trade, 0, 200, &trade("C2-USD", 149, "12.5")));
    let spans = store(&mut sink, &events).await.expect("written");
    let counts = [Outcome::Taken, Outcome::Duplicate, Outcome::Conflict].map(|o| spans[0].count(o));
    assert_eq!(counts, [50, 50, 1]);
    assert_eq!(database.count("market_data_trades").await, 150);
    assert_eq!(database.md5("market_data_trades where origin < 100").await, before);
    let ledger = "select string_agg(concat_ws(' ', first_offset, last_offset, stored, duplicate, conflict, by_day, rules), ';' order by id) from tapeline_ledger";
    assert_eq!(
        database.text(ledger).await,
        r#"0 99 100 0 0 {"2021-04-17": 100} 7;100 200 50 50 1 {"2021-04-17": 50} 7"#
    );
    // The careful way and back: nothing is lost on either.
    for batch in 0..8 {
        store(&mut sink, &trades(201 + batch * 10, 211 + batch * 10)).await.expect("written");
    }
    assert_eq!(database.count("market_data_trades").await, 230);
}

/// Invariant 5: another pipeline's replay of the same range changes no table.
#[tokio::test]
async fn replaying_a_range_leaves_the_tables_byte_equal() {
    let database = Database::new().await;
    let mut live = sink(&database.url);
    live.assign(&[at(Kind::Trade, 0)]).await.expect("assigned");
    store(&mut live, &trades(0, 500)).await.expect("written");
    let before = database.md5("market_data_trades").await;
    let mut settings = common::settings(&database.url);
    settings.pipeline = "replay".to_owned();
    let mut replay =
        tapeline_stages::sinks::timescale::TimescaleSink::new(settings).expect("valid");
    let resumes = replay.assign(&[at(Kind::Trade, 0)]).await.expect("assigned");
    assert_eq!(resumes[0].start, Start::Beginning, "a fence of its own");
    for range in [(100, 400), (400, 500)] {
        let spans = store(&mut replay, &trades(range.0, range.1)).await.expect("written");
        assert_eq!(spans[0].count(Outcome::Duplicate), (range.1 - range.0) as u64);
    }
    assert_eq!(database.md5("market_data_trades").await, before);
}

#[tokio::test]
async fn flagged_events_and_markers_are_counted_and_make_no_row() {
    let database = Database::new().await;
    let mut sink = sink(&database.url);
    sink.assign(&[at(Kind::Trade, 0)]).await.expect("assigned");
    let mut events = trades(0, 7);
    events[1].flags.set(Flag::Duplicate);
    events[2].flags.set(Flag::Conflict);
    events[3].marker = Some(Marker::Quarantined);
    events[4].marker = Some(Marker::Control);
    events[5].marker = Some(Marker::Skipped);
    let spans = store(&mut sink, &events).await.expect("written");
    assert_eq!(spans[0].counts, [2, 1, 1, 0, 1, 1, 1, 0, 0]);
    assert_eq!(database.count("market_data_trades").await, 2);
    let again = sink.assign(&[at(Kind::Trade, 0)]).await.expect("assigned");
    let resume = Resume { at: at(Kind::Trade, 0), start: Start::At(7), held_origin: Some(6) };
    assert_eq!(again, [resume]);
}

/// Only what the database refuses goes to quarantine, with its original bytes.
#[tokio::test]
async fn rows_only_the_database_refuses_are_the_only_ones_rejected() {
    let database = Database::new().await;
    let mut sink = sink(&database.url);
    sink.assign(&[at(Kind::Trade, 0)]).await.expect("assigned");
    let mut events = trades(0, 300);
    let poison = [
        (
            17,
            tapeline_schemas::Trade { trade_id: Cow::Borrowed("nul\0"), ..trade("X-USD", 17, "1") },
        ),
        (18, tapeline_schemas::Trade { venue_time: Micros(i64::MAX), ..trade("X-USD", 18, "1") }),
        (
            299,
            tapeline_schemas::Trade {
                trade_id: Cow::Owned(noise(9_000)),
                ..trade("X-USD", 299, "1")
            },
        ),
    ];
    for (offset, trade) in &poison {
        events[*offset as usize] = event(Kind::Trade, 0, *offset, trade);
    }
    let mut quarantine = Kept::default();
    let durable = flush("store", &mut sink, &mut quarantine, &mut store_batch(&events)).await;
    let spans = durable.expect("durable").spans().to_vec();
    let counts = [Outcome::Taken, Outcome::Quarantined].map(|outcome| spans[0].count(outcome));
    assert_eq!(counts, [297, 3]);
    let mut offsets: Vec<i64> = quarantine.0.iter().map(|rejected| rejected.offset).collect();
    offsets.sort_unstable();
    assert_eq!(offsets, [17, 18, 299]);
    for rejected in &quarantine.0 {
        let value = &events[rejected.offset as usize].value;
        assert_eq!(rejected.value.as_ref(), Some(value), "the original bytes");
        assert_eq!(
            (rejected.key.as_deref(), rejected.reject.reason),
            (Some(&b"K"[..]), "database")
        );
        assert_eq!(rejected.headers, [("tl-rules".to_owned(), Some(b"7".to_vec()))]);
    }
    assert_eq!(database.count("market_data_trades").await, 297);
    assert_eq!(
        database.text("select stored || ' ' || quarantined || ' ' || (max_event_time = (select max(time) from market_data_trades)) from tapeline_ledger").await,
        "297 3 true"
    );
}

/// Text that does not compress: too long for a key of an index.
fn noise(length: usize) -> String {
    let mut state = 1_u64;
    std::iter::repeat_with(|| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + (state >> 40) as u8 % 90)
    })
    .take(length)
    .collect()
}

#[tokio::test]
async fn a_time_that_would_be_an_infinity_is_refused_by_the_stage() {
    let odd = tapeline_schemas::Trade { venue_time: Micros(i64::MIN), ..trade("X-USD", 1, "1") };
    let mut stage = taught(Store::new());
    let mut batcher =
        tapeline_stages::flow::Batcher::<tapeline_stages::store::CopyBuffers>::default();
    let odd = event(Kind::Trade, 0, 0, &odd);
    let mut chunk = tapeline_stages::flow::Chunk::new(odd.at);
    chunk.push(0, Micros(0), None, Some(&odd.value), std::iter::empty());
    let input = tapeline_stages::flow::In {
        record: chunk.record(0),
        kind: Kind::Trade,
        origin: 0,
        origin_first: 0,
        flags: odd.flags,
        marker: None,
    };
    use tapeline_stages::flow::{Output, Stage};
    assert!(stage.apply(&input, batcher.out()).is_err());
    assert_eq!((batcher.out().len(), batcher.out().byte_len()), (0, 0), "nothing was added");
    let _ = gather(&mut stage, &trades(0, 1));
}
