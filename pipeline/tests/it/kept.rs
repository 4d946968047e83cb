//! What a connector kept, decoded again through the command line.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tapeline::config::VenueConfig;
use tapeline::kafka::delete_topics;
use tapeline::playback::{self, Recording, Speed};
use tapeline_schemas::Kind;
use tapeline_schemas::wire::HEADER_BYTES;

use crate::common::Pipeline;
use crate::look::read_topic;
use crate::tape::recordings;

/// Books by REST and books with the subscription.
const VENUES: [&str; 2] = ["BINANCE", "KRAKEN"];

async fn output(mut command: Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("joins");
    output.expect("the binary starts")
}

/// What a connector says of each venue at its end.
async fn reports(command: Command) -> BTreeMap<String, Value> {
    let output = output(command).await;
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8_lossy(&output.stdout);
    let report = |line: &str| {
        let (venue, report) = line.split_once(": ")?;
        let is_one = VENUES.contains(&venue);
        is_one.then(|| (venue.to_owned(), serde_json::from_str(report).expect("a report")))
    };
    lines.lines().filter_map(report).collect()
}

/// The events of a raw topic, by partition, without what tells the schema.
fn events(pipeline: &Pipeline, topic: &str) -> Vec<(i32, Vec<u8>)> {
    let records = read_topic(pipeline, topic).into_iter();
    let event =
        |record: crate::look::Seen| Some((record.partition, record.value?.split_off(HEADER_BYTES)));
    records.filter_map(event).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_connector_kept_gives_the_same_events_again_through_the_command_line() {
    let Some(dir) = recordings() else { return };
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let playback = playback::serve(&dir, &VENUES, listen, Speed::Max).await.expect("playback");
    let pipeline = Pipeline::new("kept").await;
    let prefix = &pipeline.context.config.kafka.topic_prefix;
    let parent = std::env::temp_dir().join(format!("tapeline-{prefix}recordings"));
    let kept = parent.join("kept");
    let venues = VENUES.map(|name| {
        let settings = Recording::read(&dir, name).expect("recording").settings();
        let channels = settings.channels.iter().map(|kind| kind.name().to_owned()).collect();
        let venue = VenueConfig {
            symbols: settings.symbols,
            channels,
            ws_url: Some(playback.ws_url(name)),
            rest_url: Some(playback.rest_url(name)),
            ..VenueConfig::default()
        };
        (name.to_owned(), venue)
    });
    let live = pipeline.command(&["connect", "--playback"], |config| {
        config.connect.venues = venues.into();
        config.connect.record.enabled = true;
        config.connect.record.dir = kept.to_string_lossy().into_owned();
    });
    let live = reports(live).await;
    playback.shutdown().await;
    assert_eq!(live.len(), VENUES.len());

    let shadow = format!("{prefix}again.");
    let again = |dir: &std::path::Path| {
        let dir = dir.to_string_lossy();
        let args = ["connect", "--from-recording", &*dir, "--into", shadow.as_str()];
        pipeline.command(&args, |_| {})
    };
    let reported = reports(again(&kept)).await;
    for kind in [Kind::Trade, Kind::Ticker, Kind::Book] {
        for venue in VENUES {
            let count = |reports: &BTreeMap<String, Value>| reports[venue][kind.name()].clone();
            assert_eq!(count(&reported), count(&live), "{venue} {}", kind.name());
        }
        let spec = kind.spec();
        let of_the_feed = events(&pipeline, &spec.raw_topic(prefix));
        assert!(!of_the_feed.is_empty(), "{}", kind.name());
        let of_the_files = events(&pipeline, &spec.raw_topic(&shadow));
        assert_eq!(of_the_files.len(), of_the_feed.len(), "{}", kind.name());
        // Two venues in one partition meet as it happens; one decodes them one after the other.
        let sorted = |mut events: Vec<(i32, Vec<u8>)>| {
            events.sort();
            events
        };
        assert!(sorted(of_the_files) == sorted(of_the_feed), "{} in every byte", kind.name());
    }

    // Where connectors with a name share a directory, one of theirs is to be named.
    let refused = output(again(&parent)).await;
    assert!(!refused.status.success(), "{refused:?}");
    let reason = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(reason.contains(&format!("there are some in {}", kept.display())), "{reason}");

    std::fs::remove_dir_all(&parent).expect("removed");
    let mut kafka = pipeline.context.config.kafka.clone();
    kafka.topic_prefix = shadow;
    delete_topics(&kafka).await.expect("delete topics");
    pipeline.finish().await;
}
