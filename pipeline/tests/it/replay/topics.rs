//! A topic that grows.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use tapeline::replay::{Request, Target};
use tapeline::wiring::StageName;
use tapeline_schemas::{Control, Kind, Micros, partition_for};

use super::{filled, finished, refused};
use crate::common::{Pipeline, eventually};
use crate::look;
use crate::replayed::{MINUTE, START, TRADES, candles_are_there};

/// Rows without their origins, which another topic gives anew.
const ROWS: &str = "select exchange, symbol, time, trade_id, price, amount, side, sequence, receive_time from market_data_trades order by 1, 2, 3, 4";
const CANDLES: &str = "select exchange, symbol, timeframe, time, open, high, low, close, volume, quote_volume, trades_count, final, close_time, receive_time from market_data_ohlcv order by 1, 2, 3, 4";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_grew_from_4_to_8_partitions_keeps_the_order_of_keys_and_gives_the_same_rows_invariants_5_and_7()
 {
    let (pipeline, stages) = filled("replay_topic").await;
    for stage in stages {
        stage.stop().await;
    }
    let grown = Pipeline::with("replay_grown", |config| config.kafka.partitions = Some(8)).await;
    let target = look::raw_topic(&grown, Kind::Trade);
    let into = Request {
        new_partitions: Some(8),
        ..Request::new(&["trade"], Target::Topic(target.clone()))
    };
    let wrong = Request { new_partitions: Some(4), ..into.clone() };
    assert!(refused(&pipeline, wrong).await.contains("is there with 8 partitions, not 4"));
    finished(&pipeline, into.clone()).await;
    assert!(refused(&pipeline, into).await.contains("records already"));

    let source = look::read_topic(&pipeline, &look::raw_topic(&pipeline, Kind::Trade));
    let copy = look::read_topic(&grown, &target);
    let by_key = |seen: &[look::Seen]| {
        let mut keys: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for seen in seen.iter().filter(|seen| seen.value.is_some()) {
            keys.entry(seen.key.clone())
                .or_default()
                .push((seen.value.clone(), seen.headers.clone()));
        }
        keys
    };
    assert_eq!(by_key(&copy), by_key(&source));
    for seen in copy.iter().filter(|seen| seen.value.is_some()) {
        assert_eq!(seen.partition, partition_for(seen.key.as_deref().expect("a key"), 8));
    }
    // All that was complete is so in every partition, behind the events it speaks of.
    for partition in 0..8 {
        let last = copy.iter().rfind(|seen| seen.partition == partition).expect("a record");
        let control = Control::from_headers(|name| last.headers.get(name).map(String::as_str));
        let through = Micros(START + 24 * 60 * MINUTE);
        assert_eq!(control, Ok(Control::Complete { venue: "TEST".to_owned(), through }));
    }

    let stages =
        [StageName::Validate, StageName::Store, StageName::Candles].map(|stage| grown.start(stage));
    let sql = "select count(*) from market_data_trades";
    eventually("the grown topic is stored", || async { grown.count(sql).await == TRADES }).await;
    candles_are_there(&grown).await;
    for stage in stages {
        stage.stop().await;
    }
    assert_eq!(look::rows(&grown, ROWS).await, look::rows(&pipeline, ROWS).await);
    assert_eq!(look::rows(&grown, CANDLES).await, look::rows(&pipeline, CANDLES).await);
    grown.finish().await;
    pipeline.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_that_ends_with_offsets_that_kafka_never_delivers_is_read_to_its_end_invariant_1() {
    let pipeline = Pipeline::new("replay_markers").await;
    let source = look::raw_topic(&pipeline, Kind::Trade);
    let mut config = pipeline.context.config.kafka.client();
    let producer: BaseProducer =
        config.set("transactional.id", &source).create().expect("producer");
    let wait = Duration::from_secs(30);
    producer.init_transactions(wait).expect("a transactional producer");
    for number in 0..3 {
        producer.begin_transaction().expect("begun");
        for partition in 0..4 {
            let key = format!("TEST:{number}");
            let record = BaseRecord::to(&source).partition(partition).key(&key).payload("x");
            producer.send(record).expect("sent");
        }
        producer.commit_transaction(wait).expect("committed");
    }
    let target = format!("{}copy", pipeline.context.config.kafka.topic_prefix);
    let into = Request::new(&["trade"], Target::Topic(target.clone()));
    let parts = tapeline::replay::preview(&pipeline.context, &into).await.expect("a plan");
    assert!(parts.iter().all(|part| part.count() == 6), "a record and a marker, three times");
    finished(&pipeline, into).await;
    assert_eq!(look::read_topic(&pipeline, &target).len(), 12);
    pipeline.finish().await;
}
