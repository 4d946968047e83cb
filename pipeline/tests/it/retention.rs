//! What retention took before it was read, and topics that are not the ones they were: both are
//! refused by name, and a loss is counted where it is accepted.

use tapeline::wiring::StageName;
use tapeline_schemas::{Kind, Trade, headers};

use crate::common::{Pipeline, eventually};
use crate::look::{self, audited, trade};

const START: i64 = 1_700_000_000_000_000;

fn trades(ids: std::ops::Range<i64>) -> Vec<Trade<'static>> {
    let symbols = ["A-USD", "B-USD", "C-USD", "D-USD", "E-USD"];
    ids.map(|id| trade("TEST", symbols[id as usize % 5], id, "100.5", START + id * 1_000)).collect()
}

async fn stored(pipeline: &Pipeline, rows: i64) {
    eventually("all that is left is stored", || async {
        pipeline.count("select count(*) from market_data_trades").await == rows
    })
    .await;
}

/// The first range that is gone, as the refusal names it.
fn first_gone(gone: &[(i64, i64)]) -> impl Iterator<Item = String> {
    let ranges = gone.iter().enumerate().filter(|(_, (from, to))| from < to);
    ranges
        .map(|(partition, (from, to))| format!("[{partition}] offsets {from} to {}", to - 1))
        .collect::<Vec<_>>()
        .into_iter()
}

fn refuses(refusal: &str, topic: &str, gone: &[(i64, i64)]) {
    let named = first_gone(gone).any(|range| refusal.contains(&format!("{topic} {range}")));
    assert!(named && refusal.contains("--accept-loss"), "{refusal}, gone: {gone:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_retention_took_from_validate_is_refused_by_name_and_counted_as_lost_where_accepted_invariant_1()
 {
    let mut pipeline = Pipeline::new("raw_retained").await;
    let (validate, store) = (pipeline.start(StageName::Validate), pipeline.start(StageName::Store));
    look::publish(&pipeline, &trades(0..100)).await;
    look::all_accounted(&pipeline, 100).await;
    validate.stop().await;
    look::publish(&pipeline, &trades(100..200)).await;
    let raw = look::raw_topic(&pipeline, Kind::Trade);
    let gone: Vec<_> = look::retain(&pipeline, &raw, 5).await;
    // What had been read of it is no loss.
    let taken = look::read_kind(&pipeline, Kind::Trade);
    let next = |partition: usize| {
        taken.iter().filter(|seen| seen.partition as usize == partition).count() as i64
    };
    let gone: Vec<_> =
        gone.into_iter().enumerate().map(|(partition, (_, to))| (next(partition), to)).collect();
    let lost: i64 = gone.iter().map(|(from, to)| (to - from).max(0)).sum();
    assert!(lost > 0, "{gone:?}");
    refuses(&pipeline.start(StageName::Validate).failure().await, &raw, &gone);
    pipeline.context.accept_loss = true;
    let validate = pipeline.start(StageName::Validate);
    stored(&pipeline, 200 - lost).await;
    let audit = look::all_accounted(&pipeline, 200).await;
    assert_eq!((audit.outcomes["lost"], audit.outcomes["stored"]), (lost, 200 - lost));
    let markers = look::read_kind(&pipeline, Kind::Trade);
    let markers = markers.iter().filter(|seen| {
        seen.headers.get(headers::OUTCOME).is_some_and(|of| of == headers::outcome::LOST)
    });
    assert_eq!(markers.count(), gone.iter().filter(|(from, to)| from < to).count());
    let report = audited(&pipeline).await;
    assert!(report.ok, "{report:?}");
    assert_eq!(report.partitions.iter().map(|of| of.lost).sum::<i64>(), lost);
    for stage in [validate, store] {
        stage.stop().await;
    }
    pipeline.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_retention_took_from_the_store_is_refused_by_name_and_counted_as_lost_where_accepted_invariant_1()
 {
    let mut pipeline = Pipeline::new("retained").await;
    let (validate, store) = (pipeline.start(StageName::Validate), pipeline.start(StageName::Store));
    look::publish(&pipeline, &trades(0..100)).await;
    look::all_accounted(&pipeline, 100).await;
    store.stop().await;
    look::publish(&pipeline, &trades(100..200)).await;
    eventually("all are checked", || async {
        look::read_kind(&pipeline, Kind::Trade).len() == 200
    })
    .await;
    let topic = Kind::Trade.spec().topic(&pipeline.context.config.kafka.topic_prefix);
    let fences = "select coalesce(next_offset, 0)::text as next from tapeline_fence \
                  where topic like '%.trade' order by partition";
    let fences = look::rows(&pipeline, fences).await;
    let gone = look::retain(&pipeline, &topic, 5).await;
    let gone: Vec<(i64, i64)> = gone
        .into_iter()
        .zip(fences)
        .map(|((_, to), fence)| (fence[0].parse().expect("a number"), to))
        .collect();
    let lost: i64 = gone.iter().map(|(from, to)| (to - from).max(0)).sum();
    assert!(lost > 0, "{gone:?}");
    refuses(&pipeline.start(StageName::Store).failure().await, &topic, &gone);
    pipeline.context.accept_loss = true;
    let store = pipeline.start(StageName::Store);
    stored(&pipeline, 200 - lost).await;
    let audit = look::all_accounted(&pipeline, 200).await;
    assert_eq!((audit.outcomes["lost"], audit.outcomes["stored"]), (lost, 200 - lost));
    let report = audited(&pipeline).await;
    assert!(report.ok, "{report:?}");
    for stage in [validate, store] {
        stage.stop().await;
    }
    pipeline.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recreated_topic_is_refused_by_validate_candles_and_cache_and_nothing_is_skipped_invariant_2()
 {
    let mut pipeline = Pipeline::new("recreated_all").await;
    let stages = [StageName::Validate, StageName::Store, StageName::Candles, StageName::Cache]
        .map(|stage| pipeline.start(stage));
    look::publish(&pipeline, &trades(0..100)).await;
    look::all_accounted(&pipeline, 100).await;
    for stage in stages {
        stage.stop().await;
    }
    let prefix = pipeline.context.config.kafka.topic_prefix.clone();
    for (kind, raw, stage) in [
        (Kind::Trade, true, StageName::Validate),
        (Kind::Trade, false, StageName::Candles),
        (Kind::Ticker, false, StageName::Cache),
    ] {
        let spec = kind.spec();
        let topic = if raw { spec.raw_topic(&prefix) } else { spec.topic(&prefix) };
        let checked = look::read_kind(&pipeline, Kind::Trade).len();
        look::recreate(&mut pipeline, &topic).await;
        if raw {
            // It outgrows what was read of the one before.
            look::publish(&pipeline, &trades(1_000..1_300)).await;
        }
        let refusal = pipeline.start(stage).failure().await;
        assert!(refusal.contains(&format!("topic {topic} was recreated")), "{refusal}");
        if raw {
            assert_eq!(look::read_kind(&pipeline, Kind::Trade).len(), checked, "nothing was read");
        }
    }
    pipeline.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_recreated_under_a_running_stage_ends_it_by_name_invariant_2() {
    let mut pipeline = Pipeline::new("recreated_running").await;
    let validate = pipeline.start(StageName::Validate);
    look::publish(&pipeline, &trades(0..20)).await;
    eventually("all are checked", || async { look::read_kind(&pipeline, Kind::Trade).len() == 20 })
        .await;
    let raw = look::raw_topic(&pipeline, Kind::Trade);
    look::recreate(&mut pipeline, &raw).await;
    let refusal = validate.failure().await;
    let says = refusal.contains("was recreated") || refusal.contains("Unknown topic");
    assert!(says, "{refusal}");
    let refusal = pipeline.start(StageName::Validate).failure().await;
    assert!(refusal.contains(&format!("topic {raw} was recreated")), "{refusal}");
    pipeline.finish().await;
}
