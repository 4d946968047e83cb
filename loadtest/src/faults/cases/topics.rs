//! Topics that are not what they were: created anew, or emptied by retention.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tapeline::kafka::{Admin, create_topics};
use tapeline_schemas::Kind;

use super::super::feed::{Feed, Mix};
use super::super::process::Process;
use super::super::rig::{How, Rig};
use super::super::verdict;
use super::super::{Outcome, Run};
use super::{PATIENCE, together};

/// How long a question to the cluster may take.
const ASK: Duration = Duration::from_secs(15);
const TRADES: &str = "select count(*) from market_data_trades";

fn admin(rig: &Rig) -> Result<AdminClient<DefaultClientContext>> {
    Ok(rig.config.kafka.client().create()?)
}

/// Deletes a topic and creates it again. Returns once the broker has both behind it: for a moment
/// it still takes records for the old one, and acknowledges them.
async fn delete(rig: &Rig, topic: &str) -> Result<()> {
    let old = rig.context.topic_id(topic).unwrap_or_default().to_owned();
    let options = AdminOptions::new().operation_timeout(Some(ASK));
    let deleted = admin(rig)?.delete_topics(&[topic], &options).await?;
    ensure!(deleted.iter().all(Result::is_ok), "{topic} cannot be deleted: {deleted:?}");
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let created = create_topics(&rig.config.kafka).await;
        if created.is_ok() && is_new(rig, topic, &old).await? {
            return Ok(());
        }
        ensure!(std::time::Instant::now() < deadline, "{topic} cannot be created again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn is_new(rig: &Rig, topic: &str, old: &str) -> Result<bool> {
    let (kafka, name) = (rig.config.kafka.clone(), topic.to_owned());
    let found = tokio::task::spawn_blocking(move || Admin::new(&kafka)?.describe(&[&name])).await?;
    let is_other = found.is_ok_and(|topics| topics.values().all(|topic| topic.id != old));
    let ends = ends(rig, topic).await;
    Ok(is_other && ends.is_ok_and(|ends| ends.iter().all(|end| *end == 0)))
}

/// Waits for a process to end by itself, with an error that says all of `words`.
async fn refuses(mut process: Process, words: &[&str]) -> Result<String> {
    let status = process.ended_within(PATIENCE).await?;
    let status = status.with_context(|| format!("{} goes on", process.name))?;
    ensure!(!status.success(), "{} ended with {status}", process.name);
    let said = process.said();
    for word in words {
        ensure!(
            said.contains(word),
            "{} did not say `{word}`: {}",
            process.name,
            process.last_lines()
        );
    }
    Ok(said)
}

/// A raw and a checked topic, deleted and created again under a running pipeline.
pub(crate) async fn recreated(run: Arc<Run>) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for _ in 0..run.pick(1, 3) {
        outcome.add(together([true, false].map(|is_raw| recreated_one(&run, is_raw))).await?);
    }
    Ok(outcome)
}

async fn recreated_one(run: &Run, is_raw: bool) -> Result<Outcome> {
    let mut rig = Rig::new(run.site(), "recreated").await?;
    let prefix = rig.config.kafka.topic_prefix.clone();
    let (raw, checked) = (Kind::Trade.spec().raw_topic(&prefix), Kind::Trade.spec().topic(&prefix));
    let mut feed = rig.feed(run.seed, Mix { poison: 0, ..Mix::default() })?;
    // The stage that stands at the topic, and the others beside it.
    let (stage, topic) = if is_raw { ("validate", &raw) } else { ("store", &checked) };
    let others: Vec<&str> =
        ["validate", "store", "cache", "candles"].into_iter().filter(|s| *s != stage).collect();
    let rest = rig.start(&others.join(","), &How::instance("rest"))?;
    let one = rig.start(stage, &How::instance("one"))?;
    feed.send(1_000).await?;
    feed.delivered().await?;
    rig.reaches(TRADES, feed.sent.of(0) as i64, PATIENCE).await?;
    let (began, before) = (std::time::Instant::now(), feed.sent.of(0) as i64);
    delete(&rig, topic).await?;
    if is_raw {
        // More than before, so that the old position is one of the new topic.
        feed.go_on_in(rig.context.clone())?;
        feed.send(4_000).await?;
        feed.delivered().await?;
    }
    refuses(one, &[]).await?;
    // Whoever starts it again is told what to do.
    let again = rig.start(stage, &How::instance("one"))?;
    refuses(again, &["was recreated", topic]).await?;
    drop(rest);
    let stored = rig.count(TRADES).await?;
    ensure!(stored == before, "{stored} rows, {before} before the topic was deleted");
    // What operations.md says: raw and checked topic, and another name.
    delete(&rig, if is_raw { &checked } else { &raw }).await?;
    rig.rename(&format!("{}-again", rig.config.pipeline.id)).await?;
    let recovered = again_from_there(&rig, &mut feed).await?;
    let verdict = verdict::rows(&rig, &feed.sent).await?;
    let told = began.elapsed() - recovered;
    let notes = vec![format!("{stage}: refused within {:.1} s", told.as_secs_f64())];
    rig.finish_if(&verdict).await?;
    Ok(Outcome { runs: 1, verdict, recovered, notes, skipped: None })
}

/// The pipeline under its new name goes on with what comes now.
async fn again_from_there(rig: &Rig, feed: &mut Feed) -> Result<Duration> {
    let began = std::time::Instant::now();
    feed.go_on_in(rig.context.clone())?;
    let _all = rig.start("", &How::instance("one"))?;
    feed.send(1_000).await?;
    feed.delivered().await?;
    rig.reaches(TRADES, feed.sent.of(0) as i64, PATIENCE).await?;
    for kind in 0..2 {
        let table = ["market_data_ticker", "market_data_orderbook"][kind];
        let sql = format!("select count(*) from {table}");
        rig.reaches(&sql, feed.sent.of(kind + 1) as i64, PATIENCE).await?;
    }
    Ok(began.elapsed())
}

/// Records that a stage had still to read are gone.
pub(crate) async fn retention(run: Arc<Run>) -> Result<Outcome> {
    together(["store", "validate"].map(|stage| retention_of(&run, stage))).await
}

async fn retention_of(run: &Run, stage: &str) -> Result<Outcome> {
    let rig = Rig::new(run.site(), "retention").await?;
    let prefix = &rig.config.kafka.topic_prefix;
    let topic = match stage {
        "store" => Kind::Trade.spec().topic(prefix),
        _ => Kind::Trade.spec().raw_topic(prefix),
    };
    let mut feed = rig.feed(run.seed, Mix { poison: 0, ..Mix::default() })?;
    let (validate, store) =
        (rig.start("validate", &How::default())?, rig.start("store", &How::default())?);
    feed.send(1_000).await?;
    feed.delivered().await?;
    rig.reaches(TRADES, feed.sent.of(0) as i64, PATIENCE).await?;
    store.stop().await?;
    let mut validate = Some(validate);
    if stage == "validate"
        && let Some(validate) = validate.take()
    {
        validate.stop().await?;
    }
    let stored = rig.count(TRADES).await?;
    let before = ends(&rig, &topic).await?;
    feed.send(1_000).await?;
    feed.delivered().await?;
    let ends = grown(&rig, &topic, &before).await?;
    if let Some(validate) = validate {
        validate.stop().await?;
    }
    // All but the last records of each partition.
    let mut list = TopicPartitionList::new();
    for (partition, end) in ends.iter().enumerate() {
        list.add_partition_offset(&topic, partition as i32, rdkafka::Offset::Offset(end - 2))?;
    }
    admin(&rig)?.delete_records(&list, &AdminOptions::new()).await?;
    for _ in 0..run.pick(1, 3) {
        let process = rig.start(stage, &How::default())?;
        let range = |partition: usize| {
            let (first, last) = (before[partition], ends[partition] - 3);
            format!("{topic} [{partition}] offsets {first} to {last}, the log holds")
        };
        let said = refuses(process, &["the log no longer has", "--accept-loss"]).await?;
        ensure!((0..ends.len()).any(|p| said.contains(&range(p))), "no range is named: {said}");
    }
    ensure!(rig.count(TRADES).await? == stored, "rows were stored behind a silent jump");
    // The operator says so: it goes on, and the ledger has every offset that is gone.
    let gone: i64 = ends.iter().zip(&before).map(|(end, before)| end - 2 - before).sum();
    let accept = How { arguments: vec!["--accept-loss".to_owned()], ..How::default() };
    let _one = rig.start(stage, &accept)?;
    let _other = rig.start(if stage == "store" { "validate" } else { "store" }, &How::default())?;
    feed.send(1_000).await?;
    feed.delivered().await?;
    let lost =
        "select coalesce(sum(lost), 0)::bigint from tapeline_ledger where topic like '%.trade'";
    rig.reaches(lost, gone, PATIENCE).await?;
    rig.reaches(TRADES, stored + 500, PATIENCE).await?;
    let recorded = rig.count(lost).await?;
    ensure!(recorded == gone, "{recorded} offsets recorded as lost, {gone} are gone");
    rig.finish_if(&verdict::Verdict::default()).await?;
    let notes = vec![format!(
        "{stage}: refused, the range named; accepted, {gone} offsets in the ledger as lost"
    )];
    Ok(Outcome { runs: 1, notes, ..Outcome::default() })
}

/// The ends of a topic's partitions.
async fn ends(rig: &Rig, topic: &str) -> Result<Vec<i64>> {
    let consumer: BaseConsumer = rig.config.kafka.consumer(None).create()?;
    let (topic, partitions) = (topic.to_owned(), rig.config.kafka.partitions.unwrap_or(1));
    tokio::task::spawn_blocking(move || {
        (0..partitions).map(|p| Ok(consumer.fetch_watermarks(&topic, p, ASK)?.1)).collect()
    })
    .await?
}

/// The ends once every partition has some records more.
async fn grown(rig: &Rig, topic: &str, before: &[i64]) -> Result<Vec<i64>> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let now = ends(rig, topic).await?;
        if now.iter().zip(before).all(|(now, before)| now - before > 50) {
            return Ok(now);
        }
        ensure!(std::time::Instant::now() < deadline, "{topic} does not grow");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
