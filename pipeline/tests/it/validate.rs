//! Raw to checked, one to one, on a real broker and registry.

use std::collections::BTreeMap;

use crate::common::{Pipeline, eventually};
use rdkafka::Message;
use rdkafka::message::Headers as _;
use tapeline::kafka::scan;
use tapeline::wiring::StageName;
use tapeline_schemas::{Control, Kind, Micros, Money, Side, Trade, encode, headers, partition_for};

/// One record of a topic as a test looks at it.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    value: Option<Vec<u8>>,
    headers: BTreeMap<String, String>,
}

/// Everything the checked trades hold, by partition.
fn read_all(pipeline: &Pipeline) -> Vec<Vec<Seen>> {
    let topic = pipeline.context.sink_topics([Kind::Trade]).expect("topic").remove(0);
    let mut all = vec![Vec::new(); topic.partitions as usize];
    scan(&pipeline.context.config.kafka, &topic, |message| {
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into();
        all[message.partition() as usize].push(Seen {
            value: message.payload().map(<[u8]>::to_vec),
            headers: message
                .headers()
                .into_iter()
                .flat_map(|headers| headers.iter())
                .map(|header| (header.key.to_owned(), text(header.value)))
                .collect(),
        });
    })
    .expect("scan");
    all
}

fn trade(id: u32, price: &str) -> Trade<'static> {
    Trade {
        exchange: "TEST".into(),
        symbol: format!("S{}-USD", id % 5).into(),
        trade_id: id.to_string().into(),
        price: price.parse().expect("price"),
        amount: Money::ONE,
        side: Side::Buy,
        kind: None,
        taker_or_maker: None,
        sequence: Some(i64::from(id)),
        venue_time: Micros(1_700_000_000_000_000 + i64::from(id)),
        receive_time: Micros(1_700_000_000_000_500 + i64::from(id)),
    }
}

fn key(trade: &Trade<'_>) -> String {
    format!("{}:{}", trade.exchange, trade.symbol)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_raw_record_becomes_exactly_one_checked_record_across_restarts_invariant_3() {
    let pipeline = Pipeline::new("one_to_one").await;
    let publisher = pipeline.context.publisher().expect("publisher");
    let partitions = 4;
    let mut sent = vec![Vec::new(); partitions as usize];
    for round in 0..3_u32 {
        let stage = pipeline.start(StageName::Validate);
        for id in round * 200..(round + 1) * 200 {
            let trade = trade(id, "100.5");
            let payload = encode(&trade);
            publisher.event(Kind::Trade, &key(&trade), &payload).await.expect("published");
            sent[partition_for(key(&trade).as_bytes(), partitions) as usize].push(payload);
        }
        let through =
            Control::Complete { venue: "TEST".to_owned(), through: Micros(i64::from(round)) };
        publisher.broadcast(Kind::Trade, &through).await.expect("control");
        publisher.delivered().await.expect("delivered");
        // Stopped while it is at work: what it did not finish, the next one does.
        if round == 2 {
            let expected = 600 + 3 * partitions as usize;
            eventually("all checked", || async {
                read_all(&pipeline).iter().map(Vec::len).sum::<usize>() >= expected
            })
            .await;
        }
        stage.stop().await;
    }
    for (partition, records) in read_all(&pipeline).into_iter().enumerate() {
        let mut held = -1;
        let mut events = Vec::new();
        for record in records {
            let origin: i64 = record.headers[headers::ORIGIN].parse().expect("origin");
            assert_eq!(origin, held + 1, "partition {partition}");
            held = origin;
            match record.value {
                Some(value) => events.push(value[5..].to_vec()),
                None => assert_eq!(record.headers[headers::OUTCOME], headers::outcome::CONTROL),
            }
        }
        assert_eq!(events, sent[partition], "the bytes are unchanged, in order");
    }
    pipeline.finish().await;
}
