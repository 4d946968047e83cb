//! What a test sees of topics and tables, and how it puts plain records into them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers as _, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use sqlx::Connection;
use tapeline::audit::{self, Audit, Report, Scope};
use tapeline::kafka::{create_topics, ends};
use tapeline::wiring::Context;
use tapeline_schemas::{Control, GapChange, GapState, Kind, Micros, Money, Side, Trade, encode};

use crate::common::{Pipeline, eventually};

/// How long Kafka may take to answer one question.
const ASK: Duration = Duration::from_secs(10);

/// One record of a topic.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    /// The last value of each name, as consumers read them.
    pub(crate) headers: BTreeMap<String, String>,
}

/// Everything a topic holds, by partition and offset.
pub(crate) fn read_topic(pipeline: &Pipeline, topic: &str) -> Vec<Seen> {
    let consumer: BaseConsumer =
        pipeline.context.config.kafka.consumer(None).create().expect("consumer");
    let metadata = consumer.fetch_metadata(Some(topic), ASK).expect("metadata");
    let mut all = Vec::new();
    for partition in 0..metadata.topics()[0].partitions().len() as i32 {
        let (_, high) = ends(&consumer, topic, partition).expect("ends");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Beginning).expect("list");
        consumer.assign(&list).expect("assign");
        for _ in 0..high {
            let message = consumer.poll(ASK).expect("in time").expect("read");
            all.push(seen(&message));
        }
    }
    all
}

fn seen(message: &impl Message) -> Seen {
    let headers = message.headers();
    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into();
    Seen {
        partition: message.partition(),
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers
            .map(|headers| {
                headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect()
            })
            .unwrap_or_default(),
    }
}

/// The checked topic of `kind`.
pub(crate) fn read_kind(pipeline: &Pipeline, kind: Kind) -> Vec<Seen> {
    read_topic(pipeline, &kind.spec().topic(&pipeline.context.config.kafka.topic_prefix))
}

/// Name of the raw topic of `kind`.
pub(crate) fn raw_topic(pipeline: &Pipeline, kind: Kind) -> String {
    kind.spec().raw_topic(&pipeline.context.config.kafka.topic_prefix)
}

/// A record as any Kafka client can write it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plain {
    pub(crate) partition: i32,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

/// Writes records with a client that knows nothing of us; returns their offsets.
pub(crate) async fn push(pipeline: &Pipeline, records: &[(String, Plain)]) -> Vec<i64> {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", &pipeline.context.config.kafka.brokers)
        .set("linger.ms", "1")
        .set("enable.idempotence", "true")
        // Else the first records to a new topic may be lost: see `opening.rs`.
        .set("max.in.flight", "1")
        .create()
        .expect("producer");
    let mut sent = Vec::new();
    for (topic, plain) in records {
        let mut record = FutureRecord::<[u8], [u8]>::to(topic).partition(plain.partition);
        record.key = plain.key.as_deref();
        record.payload = plain.value.as_deref();
        if !plain.headers.is_empty() {
            record.headers =
                Some(plain.headers.iter().fold(OwnedHeaders::new(), |owned, (key, value)| {
                    owned.insert(Header { key, value: Some(value) })
                }));
        }
        sent.push(producer.send_result(record).expect("queued"));
    }
    let mut offsets = Vec::new();
    for delivery in sent {
        offsets.push(delivery.await.expect("not dropped").expect("delivered").offset);
    }
    offsets
}

/// The audit of the test's pipeline.
pub(crate) async fn audit(pipeline: &Pipeline) -> Audit {
    let context = &pipeline.context;
    let topics = context.sink_topics(Kind::raw()).expect("topics");
    let (mut database, config) = (pipeline.database().await, &context.config);
    let audit =
        tapeline::audit::accounted(&mut database, &config.kafka, &config.pipeline.id, &topics)
            .await
            .expect("audit");
    database.close().await.expect("closed");
    audit
}

/// Waits until each of `raw_offsets` raw records is accounted for in the database.
pub(crate) async fn all_accounted(pipeline: &Pipeline, raw_offsets: i64) -> Audit {
    eventually("every raw offset is accounted for", || async {
        let audit = audit(pipeline).await;
        audit.ok() && audit.raw_offsets >= raw_offsets
    })
    .await;
    let audit = audit(pipeline).await;
    assert_eq!(audit.raw_offsets, raw_offsets, "{audit:?}");
    audit
}

/// The rows of a query, each as the text of its columns.
pub(crate) async fn rows(pipeline: &Pipeline, sql: &str) -> Vec<Vec<String>> {
    let mut database = pipeline.database().await;
    let sql = format!(
        "select array(select coalesce(value, 'null') from json_each_text(row_to_json(r))) from ({sql}) as r"
    );
    let rows = sqlx::query_scalar(&sql).fetch_all(&mut database).await.expect("query");
    database.close().await.expect("closed");
    rows
}

/// A trade, as like to others as possible.
pub(crate) fn trade(venue: &str, symbol: &str, id: i64, price: &str, time: i64) -> Trade<'static> {
    Trade {
        exchange: venue.to_owned().into(),
        symbol: symbol.to_owned().into(),
        trade_id: id.to_string().into(),
        price: price.parse().expect("price"),
        amount: Money::ONE,
        side: Side::Buy,
        kind: None,
        taker_or_maker: None,
        sequence: Some(id),
        venue_time: Micros(time),
        receive_time: Micros(time + 500),
    }
}

/// Publishes trades in this order, as a connector does.
pub(crate) async fn publish(pipeline: &Pipeline, trades: &[Trade<'_>]) {
    let publisher = pipeline.context.publisher().expect("publisher");
    for trade in trades {
        let key = format!("{}:{}", trade.exchange, trade.symbol);
        publisher.event(Kind::Trade, &key, &encode(trade)).await.expect("published");
    }
    publisher.delivered().await.expect("delivered");
}

/// The pipeline with another name on the same topics and database: it begins anew.
pub(crate) fn renamed(pipeline: &Pipeline, name: &str) -> Context {
    let mut context = pipeline.context.clone();
    let mut config = (*context.config).clone();
    config.pipeline.id = format!("{}_{name}", config.pipeline.id);
    context.config = Arc::new(config);
    context
}

/// Numbers that are the same in every run.
pub(crate) struct Seeded(pub(crate) u64);

impl Seeded {
    /// A number below `limit` (splitmix64).
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }

    /// Puts `items` into another order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// Deletes a topic and makes it again.
pub(crate) async fn recreate(pipeline: &mut Pipeline, topic: &str) {
    delete(pipeline, topic).await;
    create_again(pipeline, topic).await;
}

/// Deletes a topic.
pub(crate) async fn delete(pipeline: &Pipeline, topic: &str) {
    let kafka = &pipeline.context.config.kafka;
    let admin: AdminClient<DefaultClientContext> = kafka.client().create().expect("admin");
    let deleted = admin.delete_topics(&[topic], &AdminOptions::new()).await;
    deleted.expect("asked")[0].as_ref().expect("deleted");
}

/// Makes a topic that was deleted.
pub(crate) async fn create_again(pipeline: &mut Pipeline, topic: &str) {
    let config = (*pipeline.context.config).clone();
    let former = pipeline.context.topic_id(topic).map(str::to_owned);
    // Kafka deletes in the background.
    eventually("the topic is there again", || async {
        let created = create_topics(&config.kafka).await;
        created.is_ok_and(|created| created.iter().any(|name| name == topic))
    })
    .await;
    // The broker that describes topics hears of it later than the one that made it, and may still know the former one.
    eventually("the new topic and all others can be described", || async {
        let found = Context::new(config.clone(), &pipeline.shutdown).await;
        found.is_ok_and(|context| context.topic_id(topic) != former.as_deref())
    })
    .await;
    pipeline.context = Context::new(config, &pipeline.shutdown).await.expect("context");
}

/// Takes the oldest records of every partition of a topic away, as retention does: all but the
/// last `kept`. Returns the ranges that are gone, by partition.
pub(crate) async fn retain(pipeline: &Pipeline, topic: &str, kept: i64) -> Vec<(i64, i64)> {
    let kafka = &pipeline.context.config.kafka;
    let consumer: BaseConsumer = kafka.consumer(None).create().expect("consumer");
    let metadata = consumer.fetch_metadata(Some(topic), ASK).expect("metadata");
    let mut list = TopicPartitionList::new();
    let mut gone = Vec::new();
    for partition in 0..metadata.topics()[0].partitions().len() as i32 {
        let (low, high) = ends(&consumer, topic, partition).expect("ends");
        let first = (high - kept).max(low);
        list.add_partition_offset(topic, partition, Offset::Offset(first)).expect("list");
        gone.push((low, first));
    }
    let admin: AdminClient<DefaultClientContext> = kafka.client().create().expect("admin");
    let deleted = admin.delete_records(&list, &AdminOptions::new()).await.expect("asked");
    deleted.elements().iter().for_each(|element| element.error().expect("deleted"));
    gone
}

/// Carries out an audit of everything.
pub(crate) async fn audited(pipeline: &Pipeline) -> Report {
    audit::run(&pipeline.context.config, &Scope::default()).await.expect("carried out")
}

/// Whether nothing is on its way any more, neither into the tables nor over a candle.
pub(crate) fn is_settled(report: &Report) -> bool {
    let on_their_way = report.checks.iter().filter_map(|check| check.figures.get("on_their_way"));
    report.is_complete() && on_their_way.sum::<i64>() == 0
}

/// How many things the check of this name has examined.
pub(crate) fn examined(report: &Report, check: &str) -> i64 {
    report.checks.iter().find(|of| of.name == check).map_or(0, |of| of.examined)
}

/// Publishes what a connector says of a hole of one feed: `disconnect`, filled by `rest`.
pub(crate) async fn gap(
    pipeline: &Pipeline,
    (venue, symbol, kind): (&str, &str, Kind),
    state: GapState,
    from: Micros,
    to: Option<Micros>,
) {
    let publisher = pipeline.context.publisher().expect("publisher");
    let change = Control::Gap(GapChange {
        venue: venue.to_owned(),
        symbol: symbol.to_owned(),
        channel: kind.name().to_owned(),
        state,
        from,
        to,
        cause: "disconnect".to_owned(),
        filled_by: (state == GapState::Filled).then(|| "rest".to_owned()),
    });
    publisher.control(kind, &format!("{venue}:{symbol}"), &change).await.expect("control");
    publisher.delivered().await.expect("delivered");
}
