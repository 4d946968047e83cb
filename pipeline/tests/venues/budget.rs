//! The budget of requests (R1): shared through a real Redis, and kept without one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tapeline::venue::Budget;
use tapeline::venue::driver::{RequestBudget, Shared};

const REFILL: Duration = Duration::from_millis(100);

fn redis_url() -> String {
    std::env::var("TAPELINE__REDIS__URL").unwrap_or("redis://127.0.0.1:16379/0".to_owned())
}

/// A budget of ten that nobody else knows.
fn budget(name: &str, redis: Option<&str>) -> RequestBudget {
    let base = format!("https://user:secret@{name}.{}/", std::process::id());
    let shared = redis.map(|url| Shared::open(redis::Client::open(url).unwrap()).unwrap());
    RequestBudget::new("NOWHERE", &base, Budget { burst: 10, refill: REFILL }, shared)
}

async fn taken(budget: &RequestBudget, weight: u32) -> Duration {
    let start = Instant::now();
    budget.take(weight).await;
    start.elapsed()
}

#[tokio::test]
async fn two_processes_take_from_one_budget_and_a_refusal_of_one_stops_both_r1() {
    let url = redis_url();
    let (one, two) = (budget("shared", Some(&url)), budget("shared", Some(&url)));
    let begun = Instant::now();
    one.take(6).await;
    two.take(4).await;
    one.take(4).await;
    assert!(begun.elapsed() > REFILL * 3, "what the other took is not there");
    let (refused, pause) = (Instant::now(), REFILL * 5);
    two.pause(pause).await;
    one.take(1).await;
    assert!(refused.elapsed() > pause, "who was not refused waits too");

    let mut redis = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await;
    let redis = redis.as_mut().unwrap();
    let key = format!("rate_limit:NOWHERE:shared.{}", std::process::id());
    let live: u64 = redis::cmd("PTTL").arg(&key).query_async(redis).await.unwrap();
    assert!((50_000..=61_000).contains(&live), "{live}");
}

#[tokio::test]
async fn a_heavy_request_has_its_turn_before_light_ones_of_others_that_come_later_r1() {
    let url = redis_url();
    let (one, two) = (budget("heavy", Some(&url)), budget("heavy", Some(&url)));
    one.take(5).await;
    two.take(5).await;
    let served = AtomicBool::new(false);
    let heavy = async {
        one.take(10).await;
        served.store(true, Ordering::Relaxed);
    };
    let light = async {
        let mut requests = 0;
        while !served.load(Ordering::Relaxed) {
            two.take(1).await;
            requests += 1;
        }
        requests
    };
    let both = async { tokio::join!(heavy, light) };
    let ((), requests) = tokio::time::timeout(REFILL * 100, both).await.expect("it is starved");
    // One that asked before it, and one that waits behind it.
    assert!(requests <= 3, "{requests} were served before it");
}

#[tokio::test]
async fn a_refusal_stops_those_who_wait_already_and_one_who_gives_up_breaks_nothing_r1() {
    let url = redis_url();
    let (one, two) = (budget("moved", Some(&url)), budget("moved", Some(&url)));
    let mut redis = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await;
    let redis = redis.as_mut().unwrap();
    let key = format!("rate_limit:NOWHERE:moved.{}", std::process::id());
    let mut reserved =
        async || -> String { redis::cmd("GET").arg(&key).query_async(redis).await.unwrap() };
    one.take(10).await;
    // What was reserved is lost, and nothing else.
    assert!(tokio::time::timeout(REFILL, one.take(10)).await.is_err());
    let before = reserved().await;
    let waiting = tokio::spawn(async move {
        one.take(1).await;
        Instant::now()
    });
    let asks = async { while reserved().await == before {} };
    tokio::time::timeout(REFILL * 100, asks).await.expect("it never asks");
    let (refused, pause) = (Instant::now(), REFILL * 15);
    two.pause(pause).await;
    assert!(waiting.await.unwrap() > refused + pause, "its turn was before the refusal's end");
    two.take(1).await;
}

#[tokio::test]
async fn without_redis_a_process_keeps_the_budget_for_itself_r1() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for redis in [None, Some(format!("redis://{nobody}/0"))] {
        let budget = budget("alone", redis.as_deref());
        budget.take(10).await;
        assert!(taken(&budget, 3).await > REFILL * 2);
    }
}
