//! The same events a second time, and a topic that is not the one it was.

use tapeline::wiring::StageName;
use tapeline_schemas::{
    Book, BookAction, Control, Kind, Level, Micros, Money, Ticker, Trade, encode, headers,
};

use crate::common::{Pipeline, eventually};
use crate::look::{self, trade};

pub(crate) const START: i64 = 1_700_000_000_000_000;
pub(crate) const MINUTE: i64 = 60_000_000;
pub(crate) const TRADES: i64 = 600;
pub(crate) const OTHERS: i64 = 60;
const EVENT_TABLES: [&str; 6] = [
    "market_data_trades",
    "market_data_ticker",
    "market_data_orderbook",
    "market_data_ohlcv",
    "market_data_anomalies",
    "market_data_gaps",
];

pub(crate) fn trades() -> Vec<Trade<'static>> {
    let at = |id: i64| {
        let symbol = ["A-USD", "B-USD", "C-USD"][id as usize % 3];
        trade("TEST", symbol, id, &format!("100.{id:018}"), START + id * 1_000_000)
    };
    (0..TRADES).map(at).collect()
}

/// Trades, tickers, books, and the word that it is all.
pub(crate) async fn publish(pipeline: &Pipeline) -> i64 {
    look::publish(pipeline, &trades()).await;
    let publisher = pipeline.context.publisher().expect("publisher");
    let level =
        |price: &str| vec![Level { price: price.parse().expect("price"), amount: Money::ONE }];
    for id in 0..OTHERS {
        let time = Micros(START + id * 1_000_000);
        let mut ticker = Ticker {
            exchange: "TEST".into(),
            symbol: "A-USD".into(),
            event_id: Some(id.to_string().into()),
            last: Some(Money::ONE),
            bid: None,
            bid_volume: None,
            ask: None,
            ask_volume: None,
            volume_24h: None,
            quote_volume_24h: None,
            price_change_24h: None,
            price_change_percent_24h: None,
            venue_time: time,
            receive_time: time,
        };
        ticker.bid_volume = Some(Money::ONE);
        publisher.event(Kind::Ticker, "TEST:A-USD", &encode(&ticker)).await.expect("published");
        let book = Book {
            exchange: "TEST".into(),
            symbol: "B-USD".into(),
            action: BookAction::Top,
            event_id: Some(id.to_string().into()),
            bids: level("99"),
            asks: level("100.000000000000000001"),
            first_sequence: None,
            sequence: Some(id),
            checksum: None,
            venue_time: time,
            receive_time: time,
        };
        publisher.event(Kind::Book, "TEST:B-USD", &encode(&book)).await.expect("published");
    }
    let through =
        Control::Complete { venue: "TEST".to_owned(), through: Micros(START + 24 * 60 * MINUTE) };
    publisher.broadcast(Kind::Trade, &through).await.expect("control");
    publisher.delivered().await.expect("delivered");
    TRADES + 2 * OTHERS + 4
}

/// A digest of each event table, its rows in order.
pub(crate) async fn digests(pipeline: &Pipeline) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for table in EVENT_TABLES {
        let sql = format!(
            "select '{table}' as name, count(*) as rows, \
            md5(coalesce(string_agg(t::text, E'\\n' order by t::text), '')) as digest from {table} t"
        );
        all.extend(look::rows(pipeline, &sql).await);
    }
    all
}

pub(crate) async fn candles_are_there(pipeline: &Pipeline) {
    // Ten minutes of three symbols, and one of each longer timeframe that they touch.
    let missing = "select count(*) from (select distinct exchange, symbol, \
        date_bin(width, time, 'epoch') as time, timeframe from market_data_trades, \
        (values ('1m', interval '1 minute'), ('5m', '5 minutes'), ('15m', '15 minutes'), \
        ('1h', '1 hour'), ('4h', '4 hours'), ('1d', '1 day')) f (timeframe, width)) t \
        left join market_data_ohlcv c using (exchange, symbol, time, timeframe) where c.open is null";
    eventually("all candles are stored", || async { pipeline.count(missing).await == 0 }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_events_fed_again_leave_the_event_tables_byte_equal_invariant_5() {
    let pipeline = Pipeline::new("replayed").await;
    let [validate, store, candles] = [StageName::Validate, StageName::Store, StageName::Candles]
        .map(|stage| pipeline.start(stage));
    let once = publish(&pipeline).await;
    let first = look::all_accounted(&pipeline, once).await;
    candles_are_there(&pipeline).await;
    let before = digests(&pipeline).await;
    assert_eq!(first.outcomes["stored"], TRADES + 2 * OTHERS);
    // Its memory is lost: nothing is flagged, and it is the tables' keys that stop the repeats.
    validate.stop().await;
    let validate = pipeline.start(StageName::Validate);
    publish(&pipeline).await;
    let second = look::all_accounted(&pipeline, 2 * once).await;
    assert_eq!(second.outcomes["stored"], first.outcomes["stored"]);
    assert_eq!(second.outcomes["duplicate"], TRADES + 2 * OTHERS);
    let flags = look::read_kind(&pipeline, Kind::Trade);
    let flags = flags.iter().filter_map(|seen| seen.headers.get(headers::FLAGS));
    assert!(flags.clone().all(|flags| !flags.contains("duplicate")), "the memory was not lost");
    candles.stop().await;
    assert_eq!(digests(&pipeline).await, before);
    store.stop().await;
    validate.stop().await;
    // The whole log once more, on fences of its own.
    let context = look::renamed(&pipeline, "again");
    let stop = pipeline.shutdown.child_token();
    let again = {
        let (context, stop) = (context.clone(), stop.clone());
        tokio::spawn(
            async move { tapeline::wiring::run_stage(StageName::Store, &context, stop).await },
        )
    };
    let id = &context.config.pipeline.id;
    let sql = format!(
        "select coalesce(sum(last_origin - first_origin + 1), 0)::bigint \
        from tapeline_ledger where pipeline = '{id}' and topic !~ '(candle|anomaly|gap)$'"
    );
    eventually("all of it is read again", || async { pipeline.count(&sql).await == 2 * once })
        .await;
    let ends = look::read_kind(&pipeline, Kind::Candle).len() as i64;
    let sql = format!(
        "select coalesce(sum(next_offset), 0)::bigint from tapeline_fence \
        where pipeline = '{id}' and topic like '%.candle'"
    );
    eventually("and the candles", || async { pipeline.count(&sql).await == ends }).await;
    stop.cancel();
    again.await.expect("joins").expect("ends well");
    let stored = format!(
        "select coalesce(sum(stored), 0)::bigint from tapeline_ledger \
        where pipeline = '{id}' and topic !~ '(candle|anomaly|gap)$'"
    );
    assert_eq!(pipeline.count(&stored).await, 0);
    assert_eq!(digests(&pipeline).await, before);
    pipeline.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_whose_topic_was_recreated_refuses_by_name_and_stores_nothing_invariant_2() {
    let mut pipeline = Pipeline::new("recreated").await;
    let (validate, store) = (pipeline.start(StageName::Validate), pipeline.start(StageName::Store));
    look::publish(&pipeline, &trades()).await;
    look::all_accounted(&pipeline, TRADES).await;
    store.stop().await;
    validate.stop().await;
    let before = digests(&pipeline).await;
    let kafka = pipeline.context.config.kafka.clone();
    let topic = Kind::Trade.spec().topic(&kafka.topic_prefix);
    let id = pipeline.context.topic_id(&topic).expect("an id").to_owned();
    look::recreate(&mut pipeline, &topic).await;
    assert_ne!(pipeline.context.topic_id(&topic), Some(id.as_str()));
    let refusal = pipeline.start(StageName::Store).failure().await;
    assert!(refusal.contains(&format!("topic {topic} was recreated")), "{refusal}");
    assert!(
        refusal.contains(&id),
        "it names the incarnation that the fence was made for: {refusal}"
    );
    assert_eq!(digests(&pipeline).await, before);
    pipeline.finish().await;
}
