//! Redis is filled again from the log, whenever it lost what it had (invariant 6, R2).

use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use tapeline::wiring::StageName;
use tapeline_schemas::{Kind, Micros, Ticker, encode};

use crate::common::{Pipeline, eventually};

const DAY: i64 = 1_618_617_600_000_000;

fn ticker(symbol: &str, number: i64) -> Ticker<'static> {
    Ticker {
        exchange: "TEST".into(),
        symbol: symbol.to_owned().into(),
        last: Some(number.to_string().parse().expect("a price")),
        bid: None,
        bid_volume: None,
        ask: None,
        ask_volume: None,
        volume_24h: None,
        quote_volume_24h: None,
        price_change_24h: None,
        price_change_percent_24h: None,
        event_id: Some(number.to_string().into()),
        venue_time: Micros(DAY + number),
        receive_time: Micros(DAY + number),
    }
}

async fn publish(pipeline: &Pipeline, symbols: &[&str], number: i64) {
    let publisher = pipeline.context.publisher().expect("publisher");
    for symbol in symbols {
        let key = format!("TEST:{symbol}");
        publisher.event(Kind::Ticker, &key, &encode(&ticker(symbol, number))).await.expect("sent");
    }
    publisher.delivered().await.expect("delivered");
}

/// Last prices of the symbols, as Redis shows them.
async fn shown(mut cache: MultiplexedConnection, symbols: &[&str]) -> Vec<Option<String>> {
    let mut found = Vec::new();
    for symbol in symbols {
        let key = format!("market_data:ticker:TEST:{symbol}");
        found.push(cache.hget(key, "last").await.expect("redis"));
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_loses_with_or_without_a_running_stage_comes_back_and_never_older_invariant_6() {
    let pipeline = Pipeline::new("cached").await;
    let client = redis::Client::open(pipeline.context.config.redis.url.as_str()).expect("a url");
    let mut cache = client.get_multiplexed_async_connection().await.expect("redis");
    let symbols = ["A-USD", "B-USD", "C-USD", "D-USD", "E-USD"];
    let validate = pipeline.start(StageName::Validate);
    let stage = pipeline.start(StageName::Cache);
    publish(&pipeline, &symbols, 1).await;
    publish(&pipeline, &symbols, 2).await;
    let reading = cache.clone();
    let all = |last: &str| vec![Some(last.to_owned()); symbols.len()];
    let are = async |values: Vec<Option<String>>| {
        eventually("all values are shown", || async {
            shown(reading.clone(), &symbols).await == values
        })
        .await;
    };
    are(all("2")).await;
    stage.stop().await;

    // Lost while no stage runs: the next start fills it, without a new event.
    let _: () = redis::cmd("FLUSHDB").query_async(&mut cache).await.expect("emptied");
    let stage = pipeline.start(StageName::Cache);
    are(all("2")).await;

    // Lost while one runs that never saw these values come: one event of one symbol brings back all.
    stage.stop().await;
    let stage = pipeline.start(StageName::Cache);
    publish(&pipeline, &["A-USD"], 3).await;
    let mut values = all("2");
    values[0] = Some("3".to_owned());
    are(values.clone()).await;
    let _: () = redis::cmd("FLUSHDB").query_async(&mut cache).await.expect("emptied");
    publish(&pipeline, &["A-USD", "B-USD"], 4).await;
    values[..2].fill(Some("4".to_owned()));
    are(values.clone()).await;

    // What is newer in Redis than anything in the log stays.
    stage.stop().await;
    let key = "market_data:ticker:TEST:C-USD";
    let newer = [
        ("last", "9".to_owned()),
        ("origin", "1000".to_owned()),
        ("venue_time", (DAY + 9).to_string()),
    ];
    let _: () = cache.hset_multiple(key, &newer).await.expect("redis");
    let _: () = cache.del("market_data:ticker:TEST:D-USD").await.expect("redis");
    let stage = pipeline.start(StageName::Cache);
    values[2] = Some("9".to_owned());
    are(values).await;
    stage.stop().await;
    validate.stop().await;
    pipeline.finish().await;
}
