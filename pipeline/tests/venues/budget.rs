//! The budget of requests (R1): shared through a real Redis, and kept without one.

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
    one.take(6).await;
    two.take(4).await;
    assert!(taken(&one, 4).await > REFILL * 2, "what the other took is not there");
    let pause = REFILL * 5;
    two.pause(pause).await;
    assert!(taken(&one, 1).await > pause, "who was not refused waits too");

    let mut redis = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await;
    let redis = redis.as_mut().unwrap();
    let key = format!("rate_limit:NOWHERE:shared.{}", std::process::id());
    let live: u64 = redis::cmd("PTTL").arg(&key).query_async(redis).await.unwrap();
    assert!((50_000..=61_000).contains(&live), "{live}");
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
