//! Members come, go, freeze and come back, under both protocols: the rest goes on, and nothing is
//! lost or doubled.

use std::process::{Command, Stdio};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use sqlx::{Connection, Executor};
use tapeline::config::{Config, GroupProtocol};
use tapeline::wiring::{STORED_KINDS, StageName};

use crate::common::{Pipeline, Process, Running, eventually};
use crate::look::{self, Seeded, trade};

const START: i64 = 1_700_000_000_000_000;
/// How long the cluster may take to change a setting.
const ADMIN: Duration = Duration::from_secs(30);
/// Joins and leaves change with it, and only with it.
const SEED: u64 = 0x5707_2417;

async fn pipeline(
    name: &str,
    protocol: GroupProtocol,
    change: impl FnOnce(&mut Config),
) -> Pipeline {
    let name = format!("{name}_{}", protocol.name());
    let pipeline = Pipeline::with(&name, |config| {
        config.group.protocol = protocol;
        change(config);
    })
    .await;
    if protocol == GroupProtocol::Consumer {
        for stage in ["validate", "store"] {
            short_session(&pipeline, &pipeline.context.group(stage)).await;
        }
    }
    pipeline
}

/// With the new protocol the session timeout is the broker's, which can be set for a group.
async fn short_session(pipeline: &Pipeline, group: &str) {
    let kafka = &pipeline.context.config.kafka;
    let admin: AdminClient<DefaultClientContext> = kafka.client().create().expect("admin");
    let change = AlterConfig::new(ResourceSpecifier::Group(group))
        .set("consumer.session.timeout.ms", "3000")
        .set("consumer.heartbeat.interval.ms", "500");
    let done = admin
        .alter_configs(&[change], &AdminOptions::new().request_timeout(Some(ADMIN)))
        .await
        .expect("asked");
    done[0].as_ref().expect("changed");
}

async fn publish(pipeline: &Pipeline, ids: std::ops::Range<i64>) {
    let symbols = ["A-USD", "B-USD", "C-USD", "D-USD", "E-USD", "F-USD", "G-USD"];
    let trades: Vec<_> = ids
        .map(|id| trade("TEST", symbols[id as usize % 7], id, "1.5", START + id * 1_000))
        .collect();
    look::publish(pipeline, &trades).await;
}

async fn stored(pipeline: &Pipeline) -> i64 {
    pipeline.count("select count(*) from market_data_trades").await
}

/// Each offset of each partition was written by one owner, once.
async fn one_owner_a_range(pipeline: &Pipeline) {
    let twice = "select count(*) from tapeline_ledger a join tapeline_ledger b \
        using (pipeline, topic, partition) where a.id < b.id \
        and a.first_offset <= b.last_offset and b.first_offset <= a.last_offset";
    assert_eq!(pipeline.count(twice).await, 0, "ranges of the ledger overlap");
}

async fn storm(protocol: GroupProtocol) {
    let pipeline = pipeline("storm", protocol, |_| {}).await;
    let mut seeded = Seeded(SEED);
    let start = || {
        let context = pipeline.member(|_| {});
        [StageName::Validate, StageName::Store].map(|stage| pipeline.start_member(&context, stage))
    };
    let mut members: Vec<[Running; 2]> = vec![start()];
    let mut sent = 0;
    for round in 0..7 {
        let leaves = members.len() > 1 && (members.len() == 3 || seeded.below(2) == 0);
        println!("seed {SEED:#x} round {round}: {} members, leaves: {leaves}", members.len());
        if leaves {
            let [validate, store] = members.swap_remove(seeded.below(members.len()));
            let (before, publishing) = (sent, publish(&pipeline, sent..sent + 1_000));
            tokio::join!(validate.stop(), store.stop(), publishing);
            sent = before + 1_000;
        } else {
            members.push(start());
        }
        // The storm itself: the next change comes whether or not this one has settled.
        let until =
            tokio::time::Instant::now() + Duration::from_millis(1_000 + seeded.below(2_000) as u64);
        while tokio::time::Instant::now() < until {
            publish(&pipeline, sent..sent + 200).await;
            sent += 200;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let before = stored(&pipeline).await;
        eventually("there is progress", || async {
            stored(&pipeline).await > before || before == sent
        })
        .await;
    }
    look::all_accounted(&pipeline, sent).await;
    assert!(members.iter().flatten().all(|member| !member.has_ended()), "a member failed");
    for member in members.into_iter().flatten() {
        member.stop().await;
    }
    assert_eq!(stored(&pipeline).await, sent);
    one_owner_a_range(&pipeline).await;
    pipeline.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebalance_storm_of_the_classic_protocol_makes_progress_with_one_owner_a_range_invariants_1_and_2()
 {
    storm(GroupProtocol::Classic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebalance_storm_of_the_new_protocol_makes_progress_with_one_owner_a_range_invariants_1_and_2()
 {
    storm(GroupProtocol::Consumer).await;
}

/// Sends a signal to a process of this test.
fn signal(process: &Process, name: &str) {
    let status = Command::new("kill").args([name, &process.0.id().to_string()]).status();
    assert!(status.expect("kill runs").success(), "kill {name}");
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

async fn get(url: &str) -> Option<(u16, String)> {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build();
    let answer = client.expect("a client").get(url).send().await.ok()?;
    Some((answer.status().as_u16(), answer.text().await.ok()?))
}

/// Whether a process is stopped by a signal (proc(5), the state behind the name in `stat`).
fn is_frozen(process: &Process) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.0.id()));
    stat.is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')))
}

async fn zombie(protocol: GroupProtocol) {
    let pipeline = pipeline("zombie", protocol, |_| {}).await;
    let validate = pipeline.start(StageName::Validate);
    // It gathers for a while, and freezes with all of it in hand when it is about to write.
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}");
    let log = std::env::temp_dir().join(format!("{}_.log", pipeline.context.config.pipeline.id));
    let mut command = pipeline.command(&["store"], |config| {
        config.store.linger_ms = 3_000;
        config.http.listen = Some(format!("127.0.0.1:{port}"));
    });
    let log_file = std::fs::File::create(&log).expect("a log");
    command.env("TAPELINE_FAILPOINTS", "store.before_begin:stop");
    let frozen = Process(command.stderr(Stdio::from(log_file)).spawn().expect("starts"));
    eventually("it is ready: it owns partitions", || async {
        get(&format!("{url}/health/ready")).await.is_some_and(|(status, _)| status == 200)
    })
    .await;
    publish(&pipeline, 0..1_000).await;
    eventually("it is about to write", || async { is_frozen(&frozen) }).await;
    assert_eq!(stored(&pipeline).await, 0);
    let peer = pipeline.start(StageName::Store);
    eventually("the peer goes on", || async { stored(&pipeline).await == 1_000 }).await;
    signal(&frozen, "-CONT");
    let ended = frozen.ended().await;
    assert!(!ended.success(), "its write must be refused");
    let said = std::fs::read_to_string(&log).expect("a log");
    assert!(said.contains("was lost to another owner"), "{said}");
    publish(&pipeline, 1_000..1_500).await;
    look::all_accounted(&pipeline, 1_500).await;
    assert_eq!(stored(&pipeline).await, 1_500);
    one_owner_a_range(&pipeline).await;
    peer.stop().await;
    validate.stop().await;
    pipeline.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_frozen_past_its_session_is_refused_when_it_wakes_classic_invariant_2() {
    zombie(GroupProtocol::Classic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_frozen_past_its_session_is_refused_when_it_wakes_new_protocol_invariant_2() {
    zombie(GroupProtocol::Consumer).await;
}

/// Partitions with how often each changed hands, of those that have one of `owners` or of all.
async fn epochs(pipeline: &Pipeline) -> Vec<Vec<String>> {
    let sql = "select topic, partition, epoch, owner_pid, owner_started from tapeline_fence \
        order by topic, partition";
    look::rows(pipeline, sql).await
}

async fn a_static_member_restarts(protocol: GroupProtocol) {
    let pipeline = pipeline("static", protocol, |config| config.store.connections = 1).await;
    let named = |name: &str| {
        let name = name.to_owned();
        pipeline.member(|config| config.group.instance_id = Some(name))
    };
    let (first, second) = (named("a"), named("b"));
    let staying = pipeline.start_member(&first, StageName::Store);
    let restarting = pipeline.start_member(&second, StageName::Store);
    // Two connections, one a member, own everything, about half of each topic.
    let topics = pipeline.context.sink_topics(STORED_KINDS).expect("topics");
    let fences = topics.iter().map(|topic| i64::from(topic.partitions)).sum::<i64>();
    eventually("both own some of every topic", || async {
        let shared = "select count(*) from (select from tapeline_fence group by topic \
            having count(distinct owner_pid) = 2) shared";
        let all = "select count(*) from tapeline_fence";
        pipeline.count(shared).await == topics.len() as i64
            && pipeline.count(all).await == fences
            && first.readiness.is_ready()
            && second.readiness.is_ready()
    })
    .await;
    let before = epochs(&pipeline).await;
    restarting.stop().await;
    let restarting = pipeline.start_member(&second, StageName::Store);
    let moved = async || {
        let after = epochs(&pipeline).await;
        let moved = before.iter().zip(&after).filter(|(before, after)| before[2] != after[2]);
        moved.map(|(before, after)| (before.clone(), after.clone())).collect::<Vec<_>>()
    };
    let pids: std::collections::BTreeSet<_> = before.iter().map(|row| row[3].clone()).collect();
    eventually("it has its own again", || async {
        let moved = moved().await;
        let its = moved.first().map(|(before, _)| before[3].clone());
        let own = before.iter().filter(|row| Some(&row[3]) == its.as_ref()).count();
        own > 0 && moved.len() == own
    })
    .await;
    let moved = moved().await;
    assert_eq!(pids.len(), 2);
    let its: std::collections::BTreeSet<_> = moved.iter().map(|(before, _)| &before[3]).collect();
    assert_eq!(its.len(), 1, "only partitions of the one that restarted changed hands: {moved:?}");
    for (before, after) in &moved {
        let epoch = |row: &[String]| row[2].parse::<i64>().expect("a number");
        assert_eq!(epoch(after), epoch(before) + 1, "once, from itself to itself");
    }
    // The same name twice is refused by name: the older one under the classic protocol, the
    // newer one under the other.
    let twin = pipeline.start_member(&second, StageName::Store);
    eventually("one of them is refused", || async { twin.has_ended() || restarting.has_ended() })
        .await;
    let (refused, rest) = if twin.has_ended() { (twin, restarting) } else { (restarting, twin) };
    let why = refused.failure().await;
    assert!(why.contains("group.instance_id"), "{why}");
    rest.stop().await;
    staying.stop().await;
    pipeline.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_share_each_topic_and_a_static_one_that_restarts_within_its_session_moves_nothing_classic()
 {
    a_static_member_restarts(GroupProtocol::Classic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_share_each_topic_and_a_static_one_that_restarts_within_its_session_moves_nothing_new_protocol()
 {
    a_static_member_restarts(GroupProtocol::Consumer).await;
}

async fn readiness(protocol: GroupProtocol) {
    let pipeline = pipeline("ready", protocol, |config| {
        config.kafka.partitions = Some(1);
        config.kafka.consumer_properties.insert("statistics.interval.ms".into(), "500".into());
    })
    .await;
    // While its fences cannot be had it owns nothing, however well it feels.
    let mut database = pipeline.database().await;
    let mut held = database.begin().await.expect("begin");
    held.execute("lock table tapeline_fence in access exclusive mode").await.expect("locked");
    let context = pipeline.member(|_| {});
    let store = pipeline.start_member(&context, StageName::Store);
    let waits = "select count(*) from pg_stat_activity where datname = current_database() \
        and wait_event_type = 'Lock'";
    eventually("it wants its fences", || async { pipeline.count(waits).await > 0 }).await;
    assert!(!context.readiness.is_ready(), "{}", context.readiness.report());
    held.rollback().await.expect("released");
    eventually("it is ready", || async { context.readiness.is_ready() }).await;
    store.stop().await;
    assert!(!context.readiness.is_ready(), "what has ended is not ready");
    // Four members for three partitions: the fourth has none, and that is as it should be.
    let members: Vec<_> = (0..4).map(|_| pipeline.member(|_| {})).collect();
    let running: Vec<_> =
        members.iter().map(|member| pipeline.start_member(member, StageName::Validate)).collect();
    eventually("all of them are ready", || async {
        members.iter().all(|member| member.readiness.is_ready())
    })
    .await;
    for member in running {
        member.stop().await;
    }
    pipeline.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_ready_once_it_owns_partitions_or_there_are_none_for_it_classic() {
    readiness(GroupProtocol::Classic).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_ready_once_it_owns_partitions_or_there_are_none_for_it_new_protocol() {
    readiness(GroupProtocol::Consumer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lag_of_partitions_that_went_is_no_longer_shown() {
    let pipeline = pipeline("gauge", GroupProtocol::Classic, |config| {
        config.kafka.consumer_properties.insert("statistics.interval.ms".into(), "200".into());
    })
    .await;
    let metrics = tapeline::telemetry::metrics_handle().expect("metrics");
    let group = format!("group=\"{}\"", pipeline.context.group("candles"));
    let shown = || -> f64 {
        let text = metrics.render();
        text.lines()
            .filter(|line| {
                line.starts_with("tapeline_consumer_lag_records") && line.contains(&group)
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    };
    let validate = pipeline.start(StageName::Validate);
    let candles = pipeline.start(StageName::Candles);
    // Trades of a window that is open are not committed: the lag is there, and stays.
    publish(&pipeline, 0..500).await;
    eventually("the lag is shown", || async { shown() > 0.0 }).await;
    candles.stop().await;
    assert_eq!(shown(), 0.0);
    validate.stop().await;
    pipeline.finish().await;
}
