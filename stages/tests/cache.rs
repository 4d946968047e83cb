//! `cache` against a real Redis (invariant 6).

mod common;

use std::collections::HashMap;

use common::{NOON, at, book, event, gather, redis_url, taught, ticker};
use redis::aio::MultiplexedConnection;
use tapeline_schemas::{BookAction, Flag, Kind};
use tapeline_stages::cache::Cache;
use tapeline_stages::flow::{Outcome, Sink, TopicPartition};
use tapeline_stages::sinks::TopicIdentity;
use tapeline_stages::sinks::redis::{LogEnds, RedisSettings, RedisSink};

/// A log whose every partition ends at one offset.
struct EndsAt(i64);

impl LogEnds for EndsAt {
    async fn end(&mut self, _: TopicPartition) -> Result<i64, String> {
        Ok(self.0)
    }

    async fn living(&mut self, at: TopicPartition) -> Result<i64, String> {
        self.end(at).await
    }
}

struct Lane {
    stage: Cache,
    sink: RedisSink<EndsAt>,
    redis: MultiplexedConnection,
    /// Part of every symbol: tests share one Redis.
    own: String,
}

impl Lane {
    async fn new(name: &str, end: i64) -> Lane {
        let own = format!("{name}{}", std::process::id());
        let topics = common::TOPICS
            .map(|(_, name)| TopicIdentity { name: name.to_owned(), id: "id-1".to_owned() });
        let client = redis::Client::open(redis_url()).expect("a valid address");
        let settings = RedisSettings::new(client.clone(), own.clone(), topics.to_vec());
        let stage = taught(Cache::new());
        let mut sink = RedisSink::new(settings, EndsAt(end));
        sink.assign(&[at(Kind::Ticker, 0), at(Kind::Book, 0)]).await.expect("assigned");
        let redis = client.get_multiplexed_async_connection().await;
        let redis = redis.expect("Redis answers, see scripts/services");
        Lane { stage, sink, redis, own }
    }

    fn symbol(&self, name: &str) -> String {
        format!("{name}-{}", self.own)
    }

    async fn write(&mut self, events: &[common::Event]) -> u64 {
        let batch = gather(&mut self.stage, events);
        let mut spans = batch.spans().to_vec();
        self.sink.write(batch.out(), &mut spans).await.expect("written");
        spans.iter().map(|span| span.count(Outcome::Taken)).sum()
    }

    fn ticker(&self, offset: i64, last: &str, time: i64) -> common::Event {
        event(Kind::Ticker, 0, offset, &ticker(&self.symbol("T"), last, NOON + time))
    }

    async fn hash(&mut self, kind: &str, name: &str) -> HashMap<String, String> {
        let key = format!("market_data:{kind}:KRAKEN:{}", self.symbol(name));
        redis::cmd("HGETALL").arg(key).query_async(&mut self.redis).await.expect("a hash")
    }

    async fn last(&mut self) -> Option<String> {
        self.hash("ticker", "T").await.remove("last")
    }

    async fn delete(&mut self, key: &str) {
        let deleted: i64 =
            redis::cmd("DEL").arg(key).query_async(&mut self.redis).await.expect("an answer");
        assert_eq!(deleted, 1, "{key}");
    }
}

#[tokio::test]
async fn a_value_is_readable_and_lives_for_its_time() {
    let mut lane = Lane::new("readable", 0).await;
    let top = book(&lane.symbol("B"), BookAction::Top, NOON);
    let delta = book(&lane.symbol("D"), BookAction::Delta, NOON);
    let events =
        [lane.ticker(5, "1.50", 0), event(Kind::Book, 0, 6, &top), event(Kind::Book, 0, 7, &delta)];
    assert_eq!(lane.write(&events).await, 2);
    let hash = lane.hash("ticker", "T").await;
    for (name, value) in [
        ("last", "1.5"),
        ("price_change_percent_24h", "-1.25"),
        ("origin", "5"),
        ("partition", "0"),
        ("topic_id", "id-1"),
        ("venue_time", "1618671600000000"),
        ("receive_time", "1618671600000007"),
        ("exchange", "KRAKEN"),
    ] {
        assert_eq!(hash.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(!hash.contains_key("bid"), "what the venue leaves out has no field");
    let bids = lane.hash("orderbook", "B").await.remove("bids");
    assert_eq!(
        bids.as_deref(),
        Some(r#"[["10.5","0.000000000000000001"],["10","0.000000000000000001"]]"#)
    );
    assert!(lane.hash("orderbook", "D").await.is_empty());
    let key = format!("market_data:ticker:KRAKEN:{}", lane.symbol("T"));
    let live: i64 =
        redis::cmd("PTTL").arg(key).query_async(&mut lane.redis).await.expect("a number");
    assert!((50_000..=60_000).contains(&live), "{live}");
}

#[tokio::test]
async fn the_cache_never_goes_back_in_any_order_or_batching() {
    let mut lane = Lane::new("order", 0).await;
    // (origin, venue time): replaced only by a higher origin whose time is not earlier.
    let steps = [
        (3, 10, "3"),
        (4, 9, "3"),
        (5, 10, "5"),
        (5, 10, "5"),
        (9, 30, "9"),
        (7, 40, "9"),
        (10, 29, "9"),
        (11, 30, "11"),
    ];
    for (origin, time, shown) in steps {
        let event = lane.ticker(origin, &origin.to_string(), time);
        // A sink of its own for each, so that only Redis can remember.
        let mut other = Lane::new("order", 0).await;
        other.write(&[event]).await;
        assert_eq!(lane.last().await.as_deref(), Some(shown), "after origin {origin}");
    }
    let mut batched = Lane::new("batched", 0).await;
    let events: Vec<_> = [(3, 10), (4, 9), (5, 10), (9, 30), (10, 29), (11, 30), (12, 5)]
        .map(|(origin, time)| batched.ticker(origin, &origin.to_string(), time))
        .into();
    batched.write(&events).await;
    assert_eq!(batched.last().await.as_deref(), Some("11"));
}

#[tokio::test]
async fn events_flagged_for_their_time_or_repeated_are_left_out() {
    let mut lane = Lane::new("flags", 0).await;
    let mut events: Vec<_> = (1..6).map(|n| lane.ticker(n, &n.to_string(), n)).collect();
    for (event, flag) in
        events[1..].iter_mut().zip([Flag::Future, Flag::Late, Flag::Duplicate, Flag::Conflict])
    {
        event.flags.set(flag);
    }
    assert_eq!(lane.write(&events).await, 1);
    assert_eq!(lane.last().await.as_deref(), Some("1"));
}

#[tokio::test]
async fn nothing_is_written_or_committed_before_the_log_is_folded_to_its_end() {
    let mut lane = Lane::new("fold", 100).await;
    let place = at(Kind::Ticker, 0);
    let early = [lane.ticker(40, "40", 40)];
    lane.write(&early).await;
    assert_eq!(lane.last().await, None);
    assert_eq!(lane.sink.committable(place, 41), 40, "what is only in memory");
    // The last record folds the log; its own symbol is another one.
    let other = ticker(&lane.symbol("U"), "9", NOON);
    lane.write(&[event(Kind::Ticker, 0, 99, &other)]).await;
    assert_eq!(lane.last().await.as_deref(), Some("40"));
    assert_eq!(lane.hash("ticker", "U").await.get("origin").map(String::as_str), Some("99"));
    assert_eq!(lane.sink.committable(place, 100), 100);
}

#[tokio::test]
async fn values_come_back_after_redis_lost_them() {
    let mut lane = Lane::new("lost", 0).await;
    let other = ticker(&lane.symbol("U"), "9", NOON);
    lane.write(&[lane.ticker(1, "1", 1), event(Kind::Ticker, 0, 2, &other)]).await;
    // Not `flushall`: other tests use this Redis too.
    let sentinel = format!("tapeline:cache:{}:alive", lane.own);
    for key in [sentinel, format!("market_data:ticker:KRAKEN:{}", lane.symbol("T"))] {
        lane.delete(&key).await;
    }
    lane.write(&[event(Kind::Ticker, 0, 3, &other)]).await;
    assert_eq!(lane.last().await.as_deref(), Some("1"));
    // Scripts are forgotten too.
    let _: () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut lane.redis).await.expect("done");
    lane.write(&[lane.ticker(4, "4", 4)]).await;
    assert_eq!(lane.last().await.as_deref(), Some("4"));
}

#[tokio::test]
async fn memory_of_a_partition_goes_with_it() {
    let mut lane = Lane::new("revoked", 0).await;
    lane.write(&[lane.ticker(1, "1", 1)]).await;
    lane.sink.revoke(&[at(Kind::Ticker, 0)]).await;
    let sentinel = format!("tapeline:cache:{}:alive", lane.own);
    for key in [sentinel, format!("market_data:ticker:KRAKEN:{}", lane.symbol("T"))] {
        lane.delete(&key).await;
    }
    let top = book(&lane.symbol("B"), BookAction::Top, NOON);
    lane.write(&[event(Kind::Book, 0, 1, &top)]).await;
    assert_eq!(lane.last().await, None, "another owner shows it now");
}
