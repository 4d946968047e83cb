//! What any Kafka client may push, and what becomes of it.

mod cases;
mod header;

use std::collections::{BTreeMap, BTreeSet};

use tapeline::wiring::StageName;
use tapeline_schemas::{Kind, OriginalHeader, Quarantine, Record as _, headers, wire};

use self::cases::{Case, Fate, PRICE};
use crate::common::Pipeline;
use crate::look::{self, Seeded, Seen};

/// Records of hostile clients change with it, and only with it.
const SEED: u64 = 0x7a9e_11fe;

/// Raw topic, partition and offset.
type Place = (String, i32, i64);

/// What is in quarantine, by origin; the headers must say the same as the event.
fn quarantined(pipeline: &Pipeline) -> BTreeMap<Place, Quarantine<'static>> {
    let mut found = BTreeMap::new();
    for Seen { value, headers, .. } in look::read_kind(pipeline, Kind::Quarantine) {
        let value: &'static [u8] = value.expect("a value").leak();
        let event = Quarantine::decode(&value[wire::HEADER_BYTES..]).expect("an event");
        for (name, expected) in [
            ("topic", event.origin_topic.to_string()),
            ("partition", event.origin_partition.to_string()),
            ("offset", event.origin_offset.to_string()),
            ("stage", event.stage.to_string()),
            ("exception.class.name", event.reason.to_string()),
            ("exception.message", event.detail.to_string()),
        ] {
            assert_eq!(headers[&format!("__connect.errors.{name}")], expected);
        }
        let place = (event.origin_topic.to_string(), event.origin_partition, event.origin_offset);
        let twice = found.insert(place, event);
        assert_eq!(twice, None, "in quarantine twice");
    }
    found
}

/// Checked records by kind, partition and origin.
fn checked(pipeline: &Pipeline) -> BTreeMap<(Kind, i32, i64), Seen> {
    let mut found = BTreeMap::new();
    for kind in Kind::raw() {
        for seen in look::read_kind(pipeline, kind) {
            let origin = seen.headers[headers::ORIGIN].parse().expect("an origin");
            let place = (kind, seen.partition, origin);
            assert!(found.insert(place, seen).is_none(), "{place:?} is there twice");
        }
    }
    found
}

fn is_kept_whole(case: &Case, kept: &Quarantine<'_>) {
    let Case { what, record, .. } = case;
    assert_eq!(kept.stage, "validate", "{what}");
    assert_eq!(kept.key.as_deref(), record.key.as_deref(), "{what}");
    assert_eq!(kept.value.as_deref(), record.value.as_deref(), "{what}");
    let header = |header: &OriginalHeader<'_>| {
        (header.name.to_string(), header.value.as_deref().unwrap_or_default().to_vec())
    };
    assert_eq!(kept.headers.iter().map(header).collect::<Vec<_>>(), record.headers, "{what}");
}

/// Origins of a table's rows, but for those of flipped records.
async fn stored(pipeline: &Pipeline, table: &str, figures: &str) -> BTreeMap<(i32, i64), String> {
    let sql = format!(
        "select origin_partition, origin, {figures} as figures from {table} \
        where symbol <> 'FLIP-USD'"
    );
    let rows = look::rows(pipeline, &sql).await;
    let number = |text: &str| text.parse::<i64>().expect("a number");
    rows.iter().map(|row| ((number(&row[0]) as i32, number(&row[1])), row[2].clone())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_malformed_record_is_in_quarantine_once_with_its_place_and_bytes_and_the_rest_is_stored_invariants_1_3_4()
 {
    let pipeline = Pipeline::new("hostile").await;
    let cases = cases::all(pipeline.context.schema_ids.clone(), &mut Seeded(SEED));
    let records: Vec<_> = cases
        .iter()
        .map(|case| (look::raw_topic(&pipeline, case.kind), case.record.clone()))
        .collect();
    let (validate, store) = (pipeline.start(StageName::Validate), pipeline.start(StageName::Store));
    let offsets = look::push(&pipeline, &records).await;
    let audit = look::all_accounted(&pipeline, records.len() as i64).await;
    validate.stop().await;
    store.stop().await;

    let (mut quarantined, checked) = (quarantined(&pipeline), checked(&pipeline));
    assert_eq!(audit.outcomes["quarantined"], quarantined.len() as i64);
    let mut good: BTreeMap<Kind, BTreeSet<(i32, i64)>> = BTreeMap::new();
    let mut bad = 0;
    for (case, offset) in cases.iter().zip(offsets) {
        let Case { what, kind, record, fate } = case;
        let kept =
            quarantined.remove(&(look::raw_topic(&pipeline, *kind), record.partition, offset));
        let checked = &checked[&(*kind, record.partition, offset)];
        let marker = checked.headers.get(headers::OUTCOME).map(String::as_str);
        match (&kept, fate) {
            (Some(kept), Fate::Bad(reason)) => {
                assert_eq!(kept.reason, *reason, "{what}: {}", kept.detail);
                bad += 1;
            }
            (Some(kept), Fate::Good) => panic!("{what} was refused: {}", kept.detail),
            (None, Fate::Bad(_)) => panic!("{what} was let through"),
            (_, Fate::Either) | (None, Fate::Good) => {}
        }
        if let Some(kept) = &kept {
            is_kept_whole(case, kept);
            assert_eq!((marker, &checked.value), (Some(headers::outcome::QUARANTINED), &None));
        } else if record.value.is_none() {
            assert_eq!(marker, Some(headers::outcome::CONTROL), "{what}");
        } else {
            assert_eq!((marker, &checked.value), (None, &record.value), "{what}");
            if *fate == Fate::Good {
                assert_eq!(checked.headers.get(headers::FLAGS), None, "{what}");
                good.entry(*kind).or_default().insert((record.partition, offset));
            }
        }
    }
    assert!(quarantined.is_empty(), "nobody sent these: {quarantined:?}");
    assert!(bad >= 100, "{bad} malformed records");
    for (kind, table, figures, expected) in [
        (Kind::Trade, "market_data_trades", "price", PRICE),
        (Kind::Ticker, "market_data_ticker", "last_price", PRICE),
        (Kind::Book, "market_data_orderbook", "bids->0->>0", "99.000000000000000001"),
    ] {
        let stored = stored(&pipeline, table, figures).await;
        assert!(stored.keys().eq(&good[&kind]), "{table}: {stored:?}");
        assert!(stored.values().all(|figures| figures == expected), "{table}: {stored:?}");
    }
    pipeline.finish().await;
}
