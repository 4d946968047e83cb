//! What is in quarantine is kept whole, can be sent again without doubling, and is never skipped
//! because it cannot be kept.

use std::process::Stdio;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use sqlx::Executor;
use tapeline::kafka::{GroupLag, Republisher, Written};
use tapeline::quarantine::{self, Filter, Place, RetryOptions, State};
use tapeline::wiring::StageName;
use tapeline_schemas::{Kind, encode, headers, partition_for, wire};

use crate::common::{Pipeline, eventually};
use crate::look::{self, Plain, trade};

const PARTITIONS: i32 = 4;
const START: i64 = 1_700_000_000_000_000;
/// How long the cluster may take to change a setting.
const ADMIN: Duration = Duration::from_secs(30);

/// A trade as a client with another partitioner sends it: to the wrong partition.
fn misrouted(pipeline: &Pipeline, id: i64) -> (String, Plain) {
    let event = trade("TEST", "BTC-USD", id, "1.5", START + id);
    let mut value = Vec::new();
    wire::put_header(pipeline.context.schema_ids[&Kind::Trade], &mut value);
    value.extend_from_slice(&encode(&event));
    let key = b"TEST:BTC-USD".to_vec();
    let partition = (partition_for(&key, PARTITIONS) + 1) % PARTITIONS;
    let headers = vec![("trace".to_owned(), vec![0, 0xff]), ("trace".to_owned(), b"two".to_vec())];
    (
        look::raw_topic(pipeline, Kind::Trade),
        Plain { partition, key: Some(key), value: Some(value), headers },
    )
}

async fn listed(pipeline: &Pipeline) -> Vec<quarantine::Entry> {
    quarantine::list(&pipeline.context, &Filter::default()).await.expect("the list")
}

async fn retried(pipeline: &Pipeline, options: RetryOptions) -> quarantine::RetryReport {
    let report = quarantine::retry(&pipeline.context, &Filter::default(), &options).await;
    let report = report.expect("a report");
    assert!(report.failed.is_empty(), "{report:?}");
    report
}

fn again() -> RetryOptions {
    RetryOptions { again: true, ..RetryOptions::default() }
}

/// Copies in the raw topic.
fn copies(pipeline: &Pipeline) -> Vec<look::Seen> {
    let raw = look::read_topic(pipeline, &look::raw_topic(pipeline, Kind::Trade));
    raw.into_iter().filter(|seen| seen.headers.contains_key(headers::RETRY_OF)).collect()
}

async fn trades(pipeline: &Pipeline) -> i64 {
    pipeline.count("select count(*) from market_data_trades").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_shown_and_exported_with_every_byte_and_sent_again_once_invariants_1_and_3() {
    let pipeline = Pipeline::new("quarantine").await;
    let (validate, store) = (pipeline.start(StageName::Validate), pipeline.start(StageName::Store));
    let sent = misrouted(&pipeline, 1);
    let offset = look::push(&pipeline, std::slice::from_ref(&sent)).await[0];
    let place = Place { topic: sent.0.clone(), partition: sent.1.partition, offset };
    look::all_accounted(&pipeline, 1).await;

    // The names are those of Kafka Connect's DeadLetterQueueReporter.
    let kept = look::read_kind(&pipeline, Kind::Quarantine).remove(0);
    for (name, text) in [
        ("__connect.errors.topic", place.topic.as_str()),
        ("__connect.errors.partition", &place.partition.to_string()),
        ("__connect.errors.offset", &place.offset.to_string()),
        ("__connect.errors.connector.name", "tapeline"),
        ("__connect.errors.stage", "validate"),
        ("__connect.errors.exception.class.name", "routing"),
    ] {
        assert_eq!(kept.headers.get(name).map(String::as_str), Some(text), "{name}");
    }
    assert!(kept.headers["__connect.errors.exception.message"].contains("partition"));

    let entries = listed(&pipeline).await;
    assert_eq!(entries.len(), 1);
    assert_eq!((&entries[0].place, entries[0].reason.as_str()), (&place, "routing"));
    assert_eq!(entries[0].state, State::Open);
    let found = quarantine::find(&pipeline.context, &place.to_string()).await.expect("by place");
    let by_offset = format!("{}:{}", found.kept_at.0, found.kept_at.1);
    let same = quarantine::find(&pipeline.context, &by_offset).await.expect("by offset");
    assert_eq!(found, same);
    let mut whole = quarantine::kept(&pipeline.context, &entries).await.expect("a reader");
    let whole = whole.recv().await.expect("one").expect("read");
    assert_eq!((&whole.key, &whole.value), (&sent.1.key, &sent.1.value));
    let line: serde_json::Value =
        serde_json::from_str(&quarantine::json_line(&whole).expect("a line")).expect("json");
    assert_eq!(line["key"], "TEST:BTC-USD");
    assert_eq!(line["headers"][0]["value"]["base64"], "AP8=");
    assert_eq!(line["headers"][1]["value"], "two");

    let dry = retried(&pipeline, RetryOptions { dry_run: true, ..again() }).await;
    assert_eq!((dry.sent.len(), copies(&pipeline).len()), (1, 0));
    let first = retried(&pipeline, RetryOptions::default()).await;
    assert_eq!((first.sent.len(), first.left.len()), (1, 0));
    look::all_accounted(&pipeline, 2).await;
    assert_eq!(trades(&pipeline).await, 1);
    let copy = copies(&pipeline).remove(0);
    assert_eq!(copy.headers[headers::RETRY_OF], place.to_string());
    assert_eq!(copy.headers["trace"], "two");
    assert_eq!((&copy.key, &copy.value), (&sent.1.key, &sent.1.value));
    assert_eq!(copy.partition, partition_for(b"TEST:BTC-USD", PARTITIONS));
    // Once is enough; asked for again, the copy is found to be a duplicate.
    let second = retried(&pipeline, RetryOptions::default()).await;
    assert_eq!((second.sent.len(), second.left.len()), (0, 1));
    retried(&pipeline, again()).await;
    let audit = look::all_accounted(&pipeline, 3).await;
    assert_eq!((audit.outcomes["stored"], audit.outcomes["duplicate"]), (1, 1));
    assert_eq!(trades(&pipeline).await, 1);
    validate.stop().await;
    store.stop().await;
    commands_say_the_same(&pipeline, &place, &sent.1);
    pipeline.finish().await;
}

/// The commands, as people run them.
fn commands_say_the_same(pipeline: &Pipeline, place: &Place, sent: &Plain) {
    let run = |args: &[&str]| {
        let mut command = pipeline.command(&[&["quarantine"], args].concat(), |_| {});
        let output = command.stdout(Stdio::piped()).output().expect("runs");
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    let listed = run(&["list", "--json", "--reason", "routing", "--since", "1h"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("json");
    assert_eq!(listed["reasons"]["routing"], 1);
    assert_eq!(listed["records"][0]["place"], place.to_string());
    assert_eq!(listed["records"][0]["state"], "retried");
    assert!(run(&["list", "--reason", "decode"]).contains("0 records"));
    let shown = run(&["show", &place.to_string()]);
    assert!(shown.contains("\"TEST:BTC-USD\"") && shown.contains("trace: 00ff"), "{shown}");
    let directory = std::env::temp_dir().join(&pipeline.context.config.pipeline.id);
    let to = directory.to_str().expect("text");
    run(&["export", "--format", "raw", "--to", to, &place.to_string()]);
    let name = format!("{}_{}_{}.value", place.topic, place.partition, place.offset);
    let bytes = std::fs::read(directory.join(name)).expect("the value's file");
    assert_eq!(Some(bytes), sent.value);
    std::fs::remove_dir_all(directory).expect("removed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_database_refused_is_stored_by_a_retry_after_the_fix_and_both_origins_are_accounted_for()
 {
    let pipeline = Pipeline::new("quarantine_db").await;
    let mut database = pipeline.database().await;
    let rule = "alter table market_data_trades add constraint no_thirteen check (trade_id <> '13')";
    database.execute(rule).await.expect("a rule");
    let (validate, store) = (pipeline.start(StageName::Validate), pipeline.start(StageName::Store));
    let all: Vec<_> =
        (0..30).map(|id| trade("TEST", "BTC-USD", id, "1.5", START + id * 1_000)).collect();
    look::publish(&pipeline, &all).await;
    look::all_accounted(&pipeline, 30).await;
    assert_eq!(trades(&pipeline).await, 29);
    let entries = listed(&pipeline).await;
    assert_eq!(entries.len(), 1);
    assert_eq!((entries[0].stage.as_str(), entries[0].reason.as_str()), ("store", "database"));
    // Before the fix it comes back, as another record that says whose copy it is.
    retried(&pipeline, RetryOptions::default()).await;
    look::all_accounted(&pipeline, 31).await;
    assert_eq!(listed(&pipeline).await.len(), 2);
    database
        .execute("alter table market_data_trades drop constraint no_thirteen")
        .await
        .expect("fixed");
    let report = retried(&pipeline, RetryOptions::default()).await;
    assert_eq!((report.sent.len(), report.left.len()), (1, 1));
    let audit = look::all_accounted(&pipeline, 32).await;
    // `validate` remembers the first copy; flagged as its repeat, no sink would have taken it.
    assert_eq!((audit.outcomes["stored"], audit.outcomes["quarantined"]), (30, 2));
    assert_eq!(trades(&pipeline).await, 30);
    validate.stop().await;
    store.stop().await;
    pipeline.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_that_died_halfway_or_meets_another_makes_no_second_copy() {
    let pipeline = Pipeline::new("quarantine_runs").await;
    let validate = pipeline.start(StageName::Validate);
    let sent: Vec<_> = (0..20).map(|id| misrouted(&pipeline, id)).collect();
    look::push(&pipeline, &sent).await;
    eventually("all are in quarantine", || async { listed(&pipeline).await.len() == 20 }).await;
    let entries = listed(&pipeline).await;
    // A run that sent its copy and died before it could say so, and one that died before.
    let by_hand = Republisher::new(&pipeline.context.config.kafka).expect("a producer");
    let text = |text: String| Some(text.into_bytes());
    let quarantine_topic =
        Kind::Quarantine.spec().topic(&pipeline.context.config.kafka.topic_prefix);
    for entry in &entries[..2] {
        let intent = Written {
            topic: quarantine_topic.clone(),
            partition: entry.kept_at.0,
            key: text(entry.place.to_string()),
            value: None,
            headers: vec![(headers::RETRYING.to_owned(), text("dead".to_owned()))],
        };
        by_hand.write(&intent).await.expect("written");
    }
    let copy = Written {
        topic: entries[0].place.topic.clone(),
        partition: partition_for(b"TEST:BTC-USD", PARTITIONS),
        key: Some(b"TEST:BTC-USD".to_vec()),
        value: sent[0].1.value.clone(),
        headers: vec![(headers::RETRY_OF.to_owned(), text(entries[0].place.to_string()))],
    };
    by_hand.write(&copy).await.expect("written");
    let early = retried(&pipeline, RetryOptions::default());
    let (early, other) = tokio::join!(early, retried(&pipeline, RetryOptions::default()));
    assert_eq!(early.sent.len() + other.sent.len(), 18, "{early:?} {other:?}");
    let states: Vec<_> = listed(&pipeline).await.iter().map(|entry| entry.state.clone()).collect();
    assert_eq!(states.iter().filter(|state| **state == State::Retrying).count(), 2, "in doubt");
    let later = RetryOptions { lease: Duration::ZERO, ..RetryOptions::default() };
    let report = retried(&pipeline, later).await;
    assert_eq!(report.sent.len(), 1, "only what was never sent: {report:?}");
    let mut of: Vec<_> =
        copies(&pipeline).iter().map(|seen| seen.headers[headers::RETRY_OF].clone()).collect();
    assert_eq!(of.len(), 20);
    of.sort();
    of.dedup();
    assert_eq!(of.len(), 20, "each was sent once");
    // The last word of each is where it went, or why nothing went.
    let one = Filter { places: vec![entries[5].place.clone()], ..Filter::default() };
    assert_eq!(quarantine::discard(&pipeline.context, &one, "late").await.expect("asked"), []);
    assert!(listed(&pipeline).await.iter().all(|e| matches!(e.state, State::Retried { .. })));
    look::push(&pipeline, &[misrouted(&pipeline, 99)]).await;
    eventually("one more", || async { listed(&pipeline).await.len() == 21 }).await;
    let gone = quarantine::discard(&pipeline.context, &Filter::default(), "not ours").await;
    assert_eq!(gone.expect("discarded").len(), 1);
    assert!(retried(&pipeline, RetryOptions::default()).await.sent.is_empty());
    let discarded = Filter { states: vec!["discarded".to_owned()], ..Filter::default() };
    let entries = quarantine::list(&pipeline.context, &discarded).await.expect("the list");
    assert_eq!(entries[0].state, State::Discarded { why: "not ours".to_owned() });
    validate.stop().await;
    pipeline.finish().await;
}

/// Lets the quarantine topic take records of at most so many bytes.
async fn limit_quarantine(pipeline: &Pipeline, bytes: &str) {
    let kafka = &pipeline.context.config.kafka;
    let admin: AdminClient<DefaultClientContext> = kafka.client().create().expect("admin");
    let topic = Kind::Quarantine.spec().topic(&kafka.topic_prefix);
    let change = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("max.message.bytes", bytes);
    let done = admin
        .alter_configs(&[change], &AdminOptions::new().request_timeout(Some(ADMIN)))
        .await
        .expect("asked");
    done[0].as_ref().expect("changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_whose_quarantine_cannot_be_written_waits_and_goes_on_once_it_can_invariant_1() {
    let pipeline = Pipeline::new("quarantine_full").await;
    limit_quarantine(&pipeline, "64").await;
    // A broker learns of it a moment later. An empty record says nothing about any other.
    let probe = Written {
        topic: Kind::Quarantine.spec().topic(&pipeline.context.config.kafka.topic_prefix),
        key: Some(vec![b'x'; 200]),
        ..Written::default()
    };
    let prober = Republisher::new(&pipeline.context.config.kafka).expect("a producer");
    eventually("the topic is too small", || async { prober.write(&probe).await.is_err() }).await;
    let bad = misrouted(&pipeline, 1);
    look::push(&pipeline, std::slice::from_ref(&bad)).await;
    let topics = pipeline.context.raw_topics().expect("topics");
    let group = pipeline.context.group("validate");
    let lag = GroupLag::new(&pipeline.context.config.kafka, &group, &topics).expect("lag");
    let lag = std::sync::Arc::new(lag);
    let behind = async || {
        let lag = lag.clone();
        tokio::task::spawn_blocking(move || lag.records()).await.expect("joins").expect("lag")
    };
    let failures = waiting_writes();
    let validate = pipeline.start(StageName::Validate);
    // Good records of the same partition behind it, more than a batch.
    let good: Vec<_> =
        (0..6_000).map(|id| trade("TEST", "BTC-USD", 100 + id, "1.5", START + id)).collect();
    let same_partition: Vec<_> = good
        .iter()
        .map(|event| {
            let mut value = Vec::new();
            wire::put_header(pipeline.context.schema_ids[&Kind::Trade], &mut value);
            value.extend_from_slice(&encode(event));
            let partition = partition_for(b"TEST:BTC-USD", PARTITIONS);
            (bad.0.clone(), Plain { partition, value: Some(value), ..bad.1.clone() })
        })
        .collect();
    look::push(&pipeline, &same_partition).await;
    eventually("it says that it cannot write, more than once", || async {
        waiting_writes() >= failures + 3
    })
    .await;
    assert!(behind().await > 0, "nothing of the batch with the record is committed");
    assert!(look::read_kind(&pipeline, Kind::Quarantine).iter().all(|seen| seen.value.is_none()));
    // Stopped while it waits, it gives up and commits nothing of it; the next one waits again.
    validate.stop().await;
    assert!(behind().await > 0);
    let validate = pipeline.start(StageName::Validate);
    let failures = waiting_writes();
    eventually("the next one waits", || async { waiting_writes() >= failures + 2 }).await;
    limit_quarantine(&pipeline, "4259840").await;
    eventually("all is checked", || async { behind().await == 0 }).await;
    validate.stop().await;
    let kept = listed(&pipeline).await;
    assert_eq!(kept.len(), 1, "{kept:?}");
    let checked = look::read_kind(&pipeline, Kind::Trade);
    assert_eq!(checked.iter().filter(|seen| seen.value.is_some()).count(), 6_000);
    pipeline.finish().await;
}

/// How often a write to quarantine by `validate` had to be repeated in this process.
fn waiting_writes() -> u64 {
    let rendered = tapeline::telemetry::metrics_handle().expect("metrics").render();
    rendered
        .lines()
        .filter(|line| line.starts_with("tapeline_flush_retries_total"))
        .filter(|line| line.contains("what=\"quarantine\"") && line.contains("validate"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}
