//! Rows and position move together, whatever happens to the process.

use tapeline::wiring::StageName;
use tapeline_schemas::{Kind, Micros, Money, Side, Trade, encode};

use crate::common::{Pipeline, Process, eventually};

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

async fn publish(pipeline: &Pipeline, ids: std::ops::Range<u32>) {
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
