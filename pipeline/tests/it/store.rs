//! Rows and position move together, whatever happens to the process.

use tapeline::wiring::StageName;
use tapeline_schemas::{Kind, Micros, Money, Side, Trade, encode, headers, wire};

use crate::common::{Pipeline, Process, eventually};
use crate::look::{self, Plain};

fn trade(id: u32) -> Trade<'static> {
    Trade {
        exchange: "TEST".into(),
        symbol: format!("S{}-USD", id % 17).into(),
        trade_id: id.to_string().into(),
        price: format!("{}.{:04}", 100 + id % 10, id % 10_000).parse().expect("price"),
        amount: Money::ONE,
        side: Side::Sell,
        kind: None,
        taker_or_maker: None,
        sequence: Some(i64::from(id)),
        venue_time: Micros(1_700_000_000_000_000 + i64::from(id) * 1_000),
        receive_time: Micros(1_700_000_000_000_500 + i64::from(id) * 1_000),
    }
}

pub(crate) async fn publish(pipeline: &Pipeline, ids: std::ops::Range<u32>) {
    let publisher = pipeline.context.publisher().expect("publisher");
    for id in ids {
        let trade = trade(id);
        let key = format!("{}:{}", trade.exchange, trade.symbol);
        publisher.event(Kind::Trade, &key, &encode(&trade)).await.expect("published");
    }
    publisher.delivered().await.expect("delivered");
}

/// A stage in a process of its own, so that it can be killed.
fn spawn(pipeline: &Pipeline, stage: &str, failpoints: &str) -> Process {
    let mut command = pipeline.command(&[stage], |_| {});
    Process(command.env("TAPELINE_FAILPOINTS", failpoints).spawn().expect("the binary starts"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_killed_at_any_point_of_its_batch_loses_and_doubles_nothing_invariants_1_and_2() {
    let pipeline = Pipeline::new("kill_store").await;
    let validate = pipeline.start(StageName::Validate);
    let mut sent = 0;
    for place in
        ["store.before_copy", "store.mid_copy", "store.before_commit", "store.after_commit"]
    {
        publish(&pipeline, sent..sent + 3_000).await;
        sent += 3_000;
        let status = spawn(&pipeline, "store", place).ended().await;
        assert!(!status.success(), "{place}: it must have killed itself");
    }
    let store = pipeline.start(StageName::Store);
    let expected = i64::from(sent);
    eventually("all trades are stored", || async {
        pipeline.count("select count(*) from market_data_trades").await >= expected
    })
    .await;
    store.stop().await;
    validate.stop().await;
    assert_eq!(pipeline.count("select count(*) from market_data_trades").await, expected);
    let distinct = "select count(distinct trade_id) from market_data_trades";
    assert_eq!(pipeline.count(distinct).await, expected);
    let ledger =
        "select coalesce(sum(stored), 0)::bigint from tapeline_ledger where topic like '%.trade'";
    assert_eq!(pipeline.count(ledger).await, expected, "the ledger's sum equals the table");
    pipeline.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_store_takes_half_and_killing_either_loses_nothing_invariant_2() {
    let pipeline = Pipeline::new("two_stores").await;
    let validate = pipeline.start(StageName::Validate);
    let first = spawn(&pipeline, "store", "");
    publish(&pipeline, 0..2_000).await;
    let stored = || pipeline.count("select count(*) from market_data_trades");
    eventually("the first stores", || async { stored().await >= 2_000 }).await;
    let second = spawn(&pipeline, "store", "");
    // A fence's epoch rises when it changes hands: half of all partitions move.
    let moved = "select count(*) - 2 * (count(*) filter (where epoch > 1)) from tapeline_fence";
    eventually("the second takes half", || async { pipeline.count(moved).await == 0 }).await;
    publish(&pipeline, 2_000..4_000).await;
    drop(first); // kill -9
    publish(&pipeline, 4_000..6_000).await;
    eventually("the second goes on alone", || async { stored().await >= 6_000 }).await;
    let third = pipeline.start(StageName::Store);
    drop(second); // kill -9
    publish(&pipeline, 6_000..8_000).await;
    eventually("the third goes on", || async { stored().await >= 8_000 }).await;
    third.stop().await;
    validate.stop().await;
    assert_eq!(stored().await, 8_000);
    pipeline.finish().await;
}

/// A checked record as `validate` writes it, put there by hand.
fn checked(pipeline: &Pipeline, origin: u32) -> (String, Plain) {
    let mut value = Vec::new();
    wire::put_header(pipeline.context.schema_ids[&Kind::Trade], &mut value);
    value.extend_from_slice(&encode(&trade(origin)));
    let headers = vec![(headers::ORIGIN.to_owned(), origin.to_string().into_bytes())];
    let plain = Plain { value: Some(value), headers, ..Plain::default() };
    (Kind::Trade.spec().topic(&pipeline.context.config.kafka.topic_prefix), plain)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_stops_among_repetitions_holds_what_it_held_and_takes_what_follows_invariant_3()
 {
    let pipeline = Pipeline::with("repetitions", |config| config.store.batch_rows = 1).await;
    // Repeated twice, so that offsets run ahead of origins by more than a batch.
    let records = (0..3).chain(0..3).chain(0..3).map(|origin| checked(&pipeline, origin));
    look::push(&pipeline, &records.collect::<Vec<_>>()).await;
    let store = pipeline.start(StageName::Store);
    let next = "select coalesce(sum(next_offset), 0)::bigint from tapeline_fence where topic like '%.trade'";
    eventually("all are read", || async { pipeline.count(next).await == 9 }).await;
    store.stop().await;
    let held = "select max(held_origin) from tapeline_fence where topic like '%.trade'";
    assert_eq!(pipeline.count(held).await, 2);
    let records: Vec<_> = (3..9).map(|origin| checked(&pipeline, origin)).collect();
    look::push(&pipeline, &records).await;
    let store = pipeline.start(StageName::Store);
    eventually("all are read", || async { pipeline.count(next).await == 15 }).await;
    store.stop().await;
    assert_eq!(pipeline.count("select count(*) from market_data_trades").await, 9);
    let ranges = "select count(*) from tapeline_ledger where last_origin < first_origin - 1 or last_origin > 8";
    assert_eq!(pipeline.count(ranges).await, 0);
    pipeline.finish().await;
}
