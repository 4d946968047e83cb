//! How far each stage is behind, in records and in time.

use std::process::Stdio;

use tapeline::lag::{GroupLag, lag};
use tapeline::venue::driver::{Clock as _, SystemClock};
use tapeline::wiring::StageName;
use tapeline_schemas::Micros;

use crate::common::{Pipeline, eventually};
use crate::look::{self, trade};

const START: i64 = 1_700_000_000_000_000;
const MINUTE: i64 = 60_000_000;

async fn of(pipeline: &Pipeline, stage: StageName, now: Micros) -> GroupLag {
    lag(&pipeline.context, &[stage], now).await.expect("the lag").remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_counts_what_is_not_durable_and_dates_it_and_says_what_was_never_committed() {
    let pipeline = Pipeline::new("lag").await;
    let trades: Vec<_> = (0..100).map(|id| trade("TEST", "A-USD", id, "1.5", START + id)).collect();
    look::publish(&pipeline, &trades).await;
    let now = SystemClock::default().receive_time(None).expect("a time");
    let validate = of(&pipeline, StageName::Validate, now).await;
    assert_eq!((validate.records, validate.members), (100, Some(0)));
    assert_eq!(validate.never_committed, validate.partitions.len());
    let age = validate.seconds.expect("an age");
    let later = of(&pipeline, StageName::Validate, now.plus(MINUTE)).await;
    assert!((later.seconds.expect("an age") - age - 60.0).abs() < 0.001, "{age} {later:?}");

    let running = pipeline.start(StageName::Validate);
    eventually("validate is through", || async {
        let lag = of(&pipeline, StageName::Validate, now).await;
        lag.records == 0 && lag.seconds == Some(0.0) && lag.members == Some(1)
    })
    .await;
    running.stop().await;
    let before = of(&pipeline, StageName::Store, now).await;
    assert_eq!((before.records, before.never_committed), (100, before.partitions.len()));
    // What the store says of itself is its fence, whatever the group has committed.
    let store = pipeline.start(StageName::Store);
    look::all_accounted(&pipeline, 100).await;
    let after = of(&pipeline, StageName::Store, now).await;
    assert_eq!((after.records, after.seconds), (0, Some(0.0)));
    store.stop().await;

    let mut command = pipeline.command(&["lag", "--json", "--stage", "store,cache"], |_| {});
    let output = command.stdout(Stdio::piped()).output().expect("runs");
    assert!(output.status.success(), "{output:?}");
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("json");
    let groups = said["groups"].as_array().expect("groups");
    let names: Vec<_> = groups.iter().map(|group| group["stage"].as_str()).collect();
    assert_eq!(names, [Some("store"), Some("cache")]);
    assert_eq!((&groups[0]["records"], &groups[0]["seconds"]), (&0.into(), &0.0.into()));
    pipeline.finish().await;
}
