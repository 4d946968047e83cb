//! A registry that cannot be asked is nobody's fault: what needs it waits, the rest goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use tapeline::registry_client::RegistryClient;
use tapeline::wiring::StageName;
use tapeline_schemas::{Kind, Record as _, Trade, encode, partition_for, wire};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::common::{Pipeline, eventually};
use crate::look::{self, Plain, trade};

const PARTITIONS: i32 = 4;
const START: i64 = 1_700_000_000_000_000;

/// How the registry behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(u8)]
enum Mood {
    /// It answers as it should.
    Sound,
    /// A server's error, in the registry's own form.
    Broken,
    /// A proxy's page that says 404: it is not the registry that does not know the id.
    Garbage,
    /// It listens and never answers.
    Silent,
}

#[derive(Clone)]
struct Switch {
    mood: Arc<AtomicU8>,
    asked: Arc<AtomicUsize>,
    /// The id of our own schema.
    ours: Arc<AtomicU32>,
    foreign: Arc<String>,
}

/// The id that the registry knows and the pipeline does not yet.
const KNOWN_ID: u32 = 4_711;
/// An id that no registry knows.
const UNKNOWN_ID: u32 = 4_712;

impl Switch {
    /// A registry of nothing but ids, on a port of its own.
    async fn start(stop: CancellationToken) -> (Switch, String) {
        // Ours with a field more: it has to be resolved, and only the registry can tell how.
        let mut schema: serde_json::Value = serde_json::from_str(Trade::SCHEMA).expect("ours");
        let fields = schema["fields"].as_array_mut().expect("a record");
        fields.push(serde_json::json!({"name": "liquidation", "type": "boolean"}));
        let switch = Switch {
            mood: Arc::new(AtomicU8::new(Mood::Sound as u8)),
            asked: Arc::default(),
            ours: Arc::default(),
            foreign: Arc::new(schema.to_string()),
        };
        let router = Router::new().fallback(answer).with_state(switch.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        tokio::spawn(async move {
            tokio::select! {
                served = axum::serve(listener, router).into_future() => served.expect("serves"),
                () = stop.cancelled() => {}
            }
        });
        (switch, url)
    }

    fn turn(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::SeqCst);
    }

    /// Waits until it was asked again: whoever waits for it is still there, and has not given up.
    async fn asked_again(&self) {
        let before = self.asked.load(Ordering::SeqCst);
        eventually("the registry is asked again", || async {
            self.asked.load(Ordering::SeqCst) >= before + 2
        })
        .await;
    }
}

async fn answer(
    State(switch): State<Switch>,
    request: axum::extract::Request,
) -> (StatusCode, String) {
    switch.asked.fetch_add(1, Ordering::SeqCst);
    let mood = switch.mood.load(Ordering::SeqCst);
    if mood == Mood::Silent as u8 {
        std::future::pending::<()>().await;
    }
    if mood == Mood::Broken as u8 {
        let body = "{\"error_code\": 50001, \"message\": \"the store is down\"}";
        return (StatusCode::INTERNAL_SERVER_ERROR, body.to_owned());
    }
    if mood == Mood::Garbage as u8 {
        return (StatusCode::NOT_FOUND, "<html>no such page</html>".to_owned());
    }
    let ours = switch.ours.load(Ordering::SeqCst);
    for (id, schema) in [(KNOWN_ID, switch.foreign.as_str()), (ours, Trade::SCHEMA)] {
        if request.uri().path() == format!("/schemas/ids/{id}") {
            return (StatusCode::OK, serde_json::json!({"schema": schema}).to_string());
        }
    }
    let body = "{\"error_code\": 40403, \"message\": \"schema not found\"}";
    (StatusCode::NOT_FOUND, body.to_owned())
}

/// A trade as the other writer writes it, under any id.
fn foreign(topic: &str, id: u32, number: i64) -> (String, Plain) {
    let event = trade("TEST", symbol(number), number, "1.5", START + number);
    let mut value = Vec::new();
    wire::put_header(id, &mut value);
    value.extend_from_slice(&encode(&event));
    value.push(1); // liquidation
    let key = format!("{}:{}", event.exchange, event.symbol);
    let partition = partition_for(key.as_bytes(), PARTITIONS);
    (
        topic.to_owned(),
        Plain { partition, key: Some(key.into()), value: Some(value), headers: vec![] },
    )
}

fn symbol(number: i64) -> &'static str {
    ["A-USD", "B-USD", "C-USD", "D-USD"][number as usize % 4]
}

fn ours(numbers: std::ops::Range<i64>) -> Vec<Trade<'static>> {
    numbers.map(|id| trade("TEST", symbol(id), id, "1.5", START + id)).collect()
}

/// `validate` asks the switchable registry only; our own schemas are known from the real one.
async fn pipeline() -> (Pipeline, Switch) {
    let mut pipeline = Pipeline::new("registry_down").await;
    let (switch, url) = Switch::start(pipeline.shutdown.child_token()).await;
    let timeout = std::time::Duration::from_millis(500);
    let ours = pipeline.context.schema_ids[&Kind::Trade];
    assert!(![KNOWN_ID, UNKNOWN_ID].contains(&ours));
    switch.ours.store(ours, Ordering::SeqCst);
    pipeline.context.registry = RegistryClient::new(&url, timeout).expect("client");
    (pipeline, switch)
}

fn checked(pipeline: &Pipeline) -> usize {
    look::read_kind(pipeline, Kind::Trade).len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_schema_waits_for_a_registry_that_cannot_be_asked_and_is_never_quarantined_for_it()
 {
    let (pipeline, switch) = pipeline().await;
    let raw = look::raw_topic(&pipeline, Kind::Trade);
    let validate = pipeline.start(StageName::Validate);
    let foreign = foreign(&raw, KNOWN_ID, 1_000);
    switch.turn(Mood::Broken);
    look::push(&pipeline, std::slice::from_ref(&foreign)).await;
    for mood in [Mood::Broken, Mood::Garbage, Mood::Silent] {
        switch.turn(mood);
        switch.asked_again().await;
        assert_eq!(checked(&pipeline), 0, "{mood:?}: nothing was decided");
        assert!(look::read_kind(&pipeline, Kind::Quarantine).is_empty(), "{mood:?}");
    }
    // It can still be stopped, and the next one waits in the same place.
    validate.stop().await;
    let validate = pipeline.start(StageName::Validate);
    switch.asked_again().await;
    assert_eq!(checked(&pipeline), 0);
    switch.turn(Mood::Sound);
    eventually("it goes on", || async { checked(&pipeline) == 1 }).await;
    // An id that the healthy registry does not know is the record's fault.
    look::push(&pipeline, &[self::foreign(&raw, UNKNOWN_ID, 1_001)]).await;
    eventually("the marker is there", || async { checked(&pipeline) == 2 }).await;
    let quarantined = look::read_kind(&pipeline, Kind::Quarantine);
    assert_eq!(quarantined.len(), 1);
    assert_eq!(quarantined[0].headers["__connect.errors.exception.class.name"], "schema");
    validate.stop().await;
    let events = look::read_kind(&pipeline, Kind::Trade).into_iter().filter_map(|seen| seen.value);
    assert_eq!(events.collect::<Vec<_>>(), [foreign.1.value.expect("a value")]);
    pipeline.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemas_that_are_known_need_no_registry_and_go_on_while_it_is_down() {
    let (pipeline, switch) = pipeline().await;
    let raw = look::raw_topic(&pipeline, Kind::Trade);
    let (validate, store) = (pipeline.start(StageName::Validate), pipeline.start(StageName::Store));
    look::publish(&pipeline, &ours(0..100)).await;
    look::push(&pipeline, &[foreign(&raw, KNOWN_ID, 100)]).await;
    look::all_accounted(&pipeline, 101).await;
    switch.turn(Mood::Broken);
    let asked = switch.asked.load(Ordering::SeqCst);
    look::publish(&pipeline, &ours(101..300)).await;
    look::push(&pipeline, &[foreign(&raw, KNOWN_ID, 300)]).await;
    look::all_accounted(&pipeline, 301).await;
    assert_eq!(switch.asked.load(Ordering::SeqCst), asked, "nobody had to ask");
    let sql = "select count(*) from market_data_trades where exchange = 'TEST'";
    assert_eq!(pipeline.count(sql).await, 301);
    store.stop().await;
    validate.stop().await;
    pipeline.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_partition_that_needs_the_registry_waits_and_goes_on_where_it_was_invariants_1_and_3()
 {
    let (pipeline, switch) = pipeline().await;
    let raw = look::raw_topic(&pipeline, Kind::Trade);
    let (validate, store) = (pipeline.start(StageName::Validate), pipeline.start(StageName::Store));
    look::publish(&pipeline, &ours(0..40)).await;
    look::all_accounted(&pipeline, 40).await;
    switch.turn(Mood::Silent);
    // Number 40 is of A-USD: its partition waits, with everything behind the record.
    look::push(&pipeline, &[foreign(&raw, KNOWN_ID, 40)]).await;
    look::publish(&pipeline, &ours(41..4_041)).await;
    let place = |number| partition_for(format!("TEST:{}", symbol(number)).as_bytes(), PARTITIONS);
    let waits = place(40);
    let elsewhere = (41..4_041).filter(|number| place(*number) != waits).count();
    assert!(elsewhere > 0, "symbols of one partition only");
    let checked_of = |here: bool| {
        let checked = look::read_kind(&pipeline, Kind::Trade).into_iter();
        checked.filter(|seen| (seen.partition == waits) == here).count()
    };
    let before = (0..40).filter(|number| place(*number) == waits).count();
    eventually("the other partitions go on", || async {
        checked_of(false) == elsewhere + 40 - before
    })
    .await;
    switch.asked_again().await;
    assert_eq!(checked_of(true), before, "nothing passed the record that waits");
    // A member that leaves while a partition waits leaves it where it was.
    validate.stop().await;
    let validate = pipeline.start(StageName::Validate);
    switch.asked_again().await;
    assert_eq!(checked_of(true), before);
    switch.turn(Mood::Sound);
    look::all_accounted(&pipeline, 4_041).await;
    assert!(look::read_kind(&pipeline, Kind::Quarantine).is_empty());
    let sql = "select count(*) from market_data_trades where exchange = 'TEST'";
    assert_eq!(pipeline.count(sql).await, 4_041);
    store.stop().await;
    validate.stop().await;
    pipeline.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_ids_that_no_registry_knows_does_not_ask_for_each_record() {
    let (pipeline, switch) = pipeline().await;
    let raw = look::raw_topic(&pipeline, Kind::Trade);
    let bogus: Vec<_> = (0..600).map(|number| foreign(&raw, UNKNOWN_ID, number)).collect();
    look::push(&pipeline, &bogus).await;
    let (began, asked) = (std::time::Instant::now(), switch.asked.load(Ordering::SeqCst));
    let validate = pipeline.start(StageName::Validate);
    eventually("all are decided", || async { checked(&pipeline) == 600 }).await;
    validate.stop().await;
    assert_eq!(look::read_kind(&pipeline, Kind::Quarantine).len(), 600);
    // Once for every five seconds that it took.
    let asked = switch.asked.load(Ordering::SeqCst) - asked;
    assert!(asked as u64 <= 1 + began.elapsed().as_secs() / 5, "asked {asked} times");
    pipeline.finish().await;
}
