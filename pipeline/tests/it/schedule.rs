//! What runs at set times.

use std::process::{Command, Stdio};

use crate::archive::{Place, count, fill};
use crate::common::{Process, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduled_lifecycle_does_what_is_due_tells_its_metrics_and_ends_when_told_s1() {
    let place = Place::new("scheduled").await;
    let mut database = place.database().await;
    fill(&mut database).await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let listen = listener.local_addr().expect("an address").to_string();
    drop(listener);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapeline"));
    command
        .args(["lifecycle", "schedule"])
        .env("TAPELINE__DATABASE__URL", &place.url)
        .env("TAPELINE__ARCHIVE__URL", place.archive().url.unwrap_or_default())
        .env("TAPELINE__HTTP__LISTEN", &listen)
        .env("TAPELINE__LIFECYCLE__SCHEDULE", "* * * * * *")
        .stdout(Stdio::null());
    let scheduled = Process(command.spawn().expect("the binary starts"));
    let rows = "select count(*) from market_data_trades";
    while count(&mut database, rows).await > 0 {
        assert!(std::path::Path::new(&format!("/proc/{}", scheduled.0.id())).exists());
        tokio::task::yield_now().await;
    }
    let metric = "tapeline_scheduled_runs_total{work=\"lifecycle\"} ";
    eventually("the run is counted", || async {
        let text = reqwest::get(format!("http://{listen}/metrics")).await;
        let text = text.expect("an answer").text().await.expect("text");
        text.lines().any(|line| line.strip_prefix(metric).is_some_and(|runs| runs != "0"))
    })
    .await;
    let terminated = Command::new("kill").arg(scheduled.0.id().to_string()).status();
    assert!(terminated.is_ok_and(|status| status.success()));
    assert!(scheduled.ended().await.success());
    drop(database);
    place.finish().await;
}
