//! What scrapers and health checks see.

use super::*;

async fn text(url: &str) -> String {
    reqwest::get(url).await.expect("an answer").text().await.expect("text")
}

#[tokio::test]
async fn ready_is_when_every_component_says_so() {
    let (readiness, shutdown) = (Readiness::new(), CancellationToken::new());
    let server = serve("127.0.0.1:0", readiness.clone(), shutdown.clone()).await.expect("serves");
    let base = format!("http://{}", server.address());
    let (live, ready) = (format!("{base}/health/live"), format!("{base}/health/ready"));
    assert!(health_client(&live).await);
    assert!(!health_client(&ready).await, "nothing has been named yet");
    let (store, cache) = (readiness.component("store"), readiness.component("cache"));
    store.ready();
    assert!(!health_client(&ready).await);
    cache.ready();
    assert!(health_client(&ready).await);
    store.unready("the database does not answer");
    assert!(!health_client(&ready).await);
    let report: serde_json::Value = serde_json::from_str(&text(&ready).await).expect("json");
    assert_eq!(report["components"]["store"], "the database does not answer");
    assert_eq!(report["components"]["cache"], "ready");
    store.remove();
    assert!(health_client(&ready).await);
    shutdown.cancel();
    server.stopped().await.expect("stops in order");
    assert!(!health_client(&live).await, "nobody listens any more");
}

#[tokio::test]
async fn metrics_hold_memory_and_histograms_with_buckets() {
    let shutdown = CancellationToken::new();
    let server = serve("127.0.0.1:0", Readiness::new(), shutdown.clone()).await.expect("serves");
    metrics::histogram!("tapeline_test_wait_seconds").record(0.003);
    let metrics = text(&format!("http://{}/metrics", server.address())).await;
    let resident = metrics
        .lines()
        .find_map(|line| line.strip_prefix("process_resident_memory_bytes "))
        .expect("the gauge");
    assert!(resident.parse::<f64>().expect("a number") > 1_000_000.0);
    assert!(metrics.contains("tapeline_test_wait_seconds_bucket{le=\"0.005\"} 1"), "{metrics}");
    shutdown.cancel();
    server.stopped().await.expect("stops in order");
}

#[tokio::test]
async fn an_address_in_use_is_said_with_its_setting() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let error =
        serve(&address, Readiness::new(), CancellationToken::new()).await.expect_err("in use");
    assert!(error.to_string().contains("http.listen"), "{error}");
}
