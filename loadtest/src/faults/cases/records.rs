//! Records that are wrong, late, repeated, in conflict or ahead of their time.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use sqlx::Connection as _;
use tapeline::registry_client::RegistryClient;
use tapeline_schemas::{Kind, Micros, Record as _, Ticker, Trade, encode};
use xxhash_rust::xxh3::xxh3_64;

use super::super::feed::{Event, Feed, KINDS, Mix, VENUE};
use super::super::front::{Front, Mood};
use super::super::process::Process;
use super::super::push::{Raw, push};
use super::super::rig::{How, Rig};
use super::super::{Outcome, Run};
use super::{PATIENCE, SETTLE, eventually, together};
use crate::random::Random;

/// Traffic without anything odd in it.
const PLAIN: Mix = Mix { symbols: 6, pace: 500_000, duplicates: 0, late: 0, poison: 0, shuffle: 0 };

async fn end(rig: Rig, mut feed: Feed, mut all: Process, runs: u64) -> Result<Outcome> {
    let (verdict, recovered) = rig.settle(&mut feed, &mut [&mut all], SETTLE).await?;
    drop(all);
    rig.finish_if(&verdict).await?;
    Ok(Outcome { runs, verdict, recovered, ..Outcome::default() })
}

/// Repeated, shuffled, and late by seconds to days.
pub(crate) async fn duplicates(run: Arc<Run>) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for (per_mille, events) in
        run.pick(&[(500, 2_000)][..], &[(0, 20_000), (10, 20_000), (500, 20_000), (1_000, 20_000)])
    {
        let rig = Rig::new(run.site(), "duplicates").await?;
        let all = rig.start("", &How::default())?;
        let mix = Mix { duplicates: *per_mille, late: 50, shuffle: 60, ..Mix::default() };
        let mut feed = rig.feed(run.seed ^ per_mille, mix)?;
        feed.send(*events).await?;
        outcome.add(end(rig, feed, all, 1).await?);
    }
    Ok(outcome)
}

/// The schema of `kind` as another writer has it: ours with a field more, named so that each is
/// new to the pipeline.
async fn foreign_schema(rig: &Rig, kind: Kind, field: &str) -> Result<u32> {
    let mut schema: serde_json::Value = serde_json::from_str(kind.spec().schema)?;
    let more = serde_json::json!({"name": field, "type": "boolean", "default": false});
    if let Some(fields) = schema["fields"].as_array_mut() {
        fields.push(more);
    }
    let client = RegistryClient::new(&rig.site.registry, RegistryClient::DEFAULT_TIMEOUT)?;
    Ok(client
        .register(&format!("{}-{field}", rig.context.group(kind.name())), &schema.to_string())
        .await?)
}

/// The payload as that writer writes it.
fn foreign_payload(event: &Event) -> Vec<u8> {
    [&event.payload[..], &[1]].concat()
}

/// One record that cannot be read between good ones, for every kind and both ways of reading.
pub(crate) async fn poison(run: Arc<Run>) -> Result<Outcome> {
    let rig = Rig::new(run.site(), "poison").await?;
    let all = rig.start("", &How::default())?;
    let mut feed = rig.feed(run.seed, PLAIN)?;
    let (mut records, mut paths) = (Vec::new(), 0);
    for kind in KINDS {
        let foreign = foreign_schema(&rig, kind, "poison").await?;
        for id in [rig.context.schema_ids[&kind], foreign] {
            let write = |event: &Event| {
                if id == foreign { foreign_payload(event) } else { event.payload.clone() }
            };
            for place in 0..9 {
                let event = feed.event(kind);
                let payload = write(&event);
                if place == 4 {
                    let short = &payload[..payload.len() / 2];
                    records.push(Raw::framed(kind, &event.key, id, short));
                    feed.sent.poison += 1;
                    paths += 1;
                }
                records.push(Raw::framed(kind, &event.key, id, &payload));
            }
        }
    }
    push(&rig, &records).await?;
    end(rig, feed, all, paths).await
}

/// Bytes that are no events, events that break a rule, and rows that only the database refuses.
pub(crate) async fn hostile(run: Arc<Run>) -> Result<Outcome> {
    let rig = Rig::new(run.site(), "hostile").await?;
    let mut database = rig.database().await?;
    // What validate lets through and the database does not take.
    sqlx::query("alter table market_data_ticker add check (last_price <> 4711)")
        .execute(&mut database)
        .await?;
    database.close().await?;
    let all = rig.start("", &How::default())?;
    let mut feed = rig.feed(run.seed, PLAIN)?;
    let mut random = Random::named(run.seed, "hostile");
    let flips = flipped(&rig, &mut feed, &mut random, run.pick(60, 2_000)).await?;
    let rounds = run.pick(1, 20);
    let mut records = Vec::new();
    for _ in 0..rounds {
        let bad = wrong(&rig, &mut feed, &mut random);
        feed.sent.poison += bad.len() as u64;
        // Each between good ones.
        for bad in bad {
            let kind = *random.pick(&KINDS);
            let event = feed.event(kind);
            let id = rig.context.schema_ids[&kind];
            records.push(Raw::framed(kind, &event.key, id, &event.payload));
            records.push(bad);
        }
    }
    push(&rig, &records).await?;
    let runs = flips + feed.sent.poison;
    end(rig, feed, all, runs).await
}

/// Records that must be in quarantine, a kind of wrongness each.
fn wrong(rig: &Rig, feed: &mut Feed, random: &mut Random) -> Vec<Raw> {
    let ids = &rig.context.schema_ids;
    let event = feed.draft(Kind::Trade);
    let good = Raw::framed(Kind::Trade, &event.key, ids[&Kind::Trade], &event.payload);
    let value = good.value.clone().unwrap_or_default();
    let with = |value: Vec<u8>| Raw { value: Some(value), ..good.clone() };
    let mut all = vec![
        with([&[0x7b], &value[1..]].concat()),
        with(value[..random.below(value.len() as u64) as usize].to_vec()),
        with([&value[..], &[0]].concat()),
        with([&value[..5], &[0xff; 40], &value[6..]].concat()),
        with([&value[..5], &vec![0xfe; 900_000][..]].concat()),
        with([&value[..1], &4_000_000_u32.to_be_bytes()[..], &value[5..]].concat()),
        Raw { value: None, ..good.clone() },
        Raw { key: "FAULT:OTHER-USD".to_owned(), ..good.clone() },
    ];
    let changes: [fn(&mut Trade<'_>); 5] = [
        |trade| trade.trade_id = "a\0b".into(),
        |trade| trade.venue_time = Micros(i64::MAX),
        |trade| trade.receive_time = Micros(0),
        |trade| trade.symbol = "x".repeat(200).into(),
        |trade| trade.price = tapeline_schemas::Money::ZERO,
    ];
    for change in changes {
        if let Ok(mut trade) = Trade::decode(&event.payload) {
            change(&mut trade);
            all.push(Raw::framed(Kind::Trade, &event.key, ids[&Kind::Trade], &encode(&trade)));
        }
    }
    let event = feed.draft(Kind::Ticker);
    if let (Ok(mut ticker), Ok(refused)) = (Ticker::decode(&event.payload), "4711".parse()) {
        ticker.last = Some(refused);
        // Its time must not be the newest of its key: the cache takes it, and rightly so.
        ticker.venue_time = ticker.venue_time.plus(-86_400_000_000);
        all.push(Raw::framed(Kind::Ticker, &event.key, ids[&Kind::Ticker], &encode(&ticker)));
    }
    all
}

/// Tickers of another venue with one flipped bit each: a sound event or a quarantined one.
async fn flipped(rig: &Rig, feed: &mut Feed, random: &mut Random, count: u64) -> Result<u64> {
    let id = rig.context.schema_ids[&Kind::Ticker];
    let mut records = Vec::new();
    for _ in 0..count {
        let event = feed.draft(Kind::Ticker);
        let mut ticker = Ticker::decode(&event.payload)?;
        ticker.exchange = "FLIP".into();
        ticker.event_id = Some(Cow::Owned(spread(records.len())));
        let key = format!("FLIP:{}", ticker.symbol);
        let mut payload = encode(&ticker);
        let bit = random.below(payload.len() as u64 * 8) as usize;
        payload[bit / 8] ^= 1 << (bit % 8);
        records.push(Raw::framed(Kind::Ticker, &key, id, &payload));
    }
    push(rig, &records).await?;
    let taken = "select coalesce(sum(stored + duplicate + conflict + quarantined), 0)::bigint
        from tapeline_ledger where topic like '%.ticker'";
    rig.reaches(taken, count as i64, PATIENCE).await?;
    let stored = rig.count("select count(*) from market_data_ticker").await? as u64;
    rig.add_foreign_rows(stored);
    feed.sent.poison += count - stored;
    Ok(count)
}

/// An id that no flipped bit makes another's.
fn spread(number: usize) -> String {
    format!("{:016x}", xxh3_64(&number.to_le_bytes()))
}

/// A row with the key of an event that comes later, and other content.
pub(crate) async fn conflict(run: Arc<Run>) -> Result<Outcome> {
    let rig = Rig::new(run.site(), "conflict").await?;
    let mut feed = rig.feed(run.seed, PLAIN)?;
    let event = feed.draft(Kind::Ticker);
    let mut ticker = Ticker::decode(&event.payload)?.clone();
    ticker.exchange = "CONFLICT".into();
    let key = format!("CONFLICT:{}", ticker.symbol);
    let mut database = rig.database().await?;
    sqlx::query(
        "insert into market_data_ticker (time, exchange, symbol, event_id, last_price, receive_time,
            origin_partition, origin)
         values (to_timestamp($1::numeric / 1000000), 'CONFLICT', $2, $3, 1.5, now(), 0, -1)",
    )
    .bind(ticker.venue_time.0)
    .bind(&*ticker.symbol)
    .bind(ticker.event_id.as_deref())
    .execute(&mut database)
    .await?;
    let all = rig.start("", &How::default())?;
    // Inside of one batch with others: they are all there before the store begins.
    let mut records = Vec::new();
    for place in 0..1_000 {
        if place == 500 {
            records.push(Raw::framed(
                Kind::Ticker,
                &key,
                rig.context.schema_ids[&Kind::Ticker],
                &encode(&ticker),
            ));
        }
        let event = feed.event(Kind::Ticker);
        records.push(Raw::framed(
            Kind::Ticker,
            &event.key,
            rig.context.schema_ids[&Kind::Ticker],
            &event.payload,
        ));
    }
    push(&rig, &records).await?;
    let counted = "select coalesce(sum(duplicate + conflict), 0)::bigint from tapeline_ledger";
    rig.reaches(counted, 1, PATIENCE).await?;
    let kept =
        "select count(*) from market_data_ticker where exchange = 'CONFLICT' and last_price = 1.5";
    ensure!(rig.count(kept).await? == 1, "the row that was there first has changed");
    // It was never the pipeline's: the audit rightly counts it as too many.
    sqlx::query("delete from market_data_ticker where exchange = 'CONFLICT'")
        .execute(&mut database)
        .await?;
    ensure!(rig.count(counted).await? == 1, "more than the one row was counted as there already");
    end(rig, feed, all, 1).await
}

/// Some trades carry a time an hour ahead of when they were received.
pub(crate) async fn clock_ahead(run: Arc<Run>) -> Result<Outcome> {
    let events = run.pick(2_000, 20_000);
    let rig = Rig::new(run.site(), "clock").await?;
    let all = rig.start("", &How::default())?;
    let mut feed = rig.feed(run.seed, PLAIN)?;
    let mut ahead = 0;
    for _ in 0..events / 100 {
        feed.send(100).await?;
        feed.send_ahead(Duration::from_secs(3_600)).await?;
        ahead += 1;
    }
    let (verdict, recovered) = {
        let mut all = all;
        rig.settle(&mut feed, &mut [&mut all], SETTLE).await?
    };
    let flagged =
        rig.count("select count(*) from market_data_anomalies where 'future' = any(flags)").await?;
    ensure!(flagged == ahead, "{flagged} of {ahead} events ahead of their time are flagged");
    // A window that closed early would have had to be corrected.
    let revised = rig.count("select count(*) from market_data_ohlcv where revision > 0").await?;
    ensure!(revised == 0, "{revised} candles were closed too early and had to be corrected");
    rig.finish_if(&verdict).await?;
    Ok(Outcome { runs: ahead as u64, verdict, recovered, ..Outcome::default() })
}

/// The registry is down, slow, broken or somebody else, for a start and for a new schema.
pub(crate) async fn registry(run: Arc<Run>) -> Result<Outcome> {
    together(Mood::FAULTS.map(|mood| registry_in(&run, mood))).await
}

async fn registry_in(run: &Run, mood: Mood) -> Result<Outcome> {
    let mut rig =
        Rig::with(run.site(), "registry", |config| config.registry.timeout_ms = 1_000).await?;
    let front = Front::start(&rig.site.registry).await?;
    rig.stages.registry.url = Some(front.url.clone());
    let mut feed = rig.feed(run.seed, PLAIN)?;
    // Cold: a process that starts waits.
    front.turn(mood);
    let mut all = rig.start("", &How::default())?;
    asked_again(&front, &mut all).await?;
    front.turn(Mood::Sound);
    goes_on(&rig, &mut feed).await?;
    // Warm: what is known goes on, what is not waits and is nobody's fault.
    for round in 0..run.pick(1, 5) {
        front.turn(mood);
        goes_on(&rig, &mut feed).await?;
        let field = format!("{mood:?}{round}").to_lowercase();
        let id = foreign_schema(&rig, Kind::Trade, &field).await?;
        let event = feed.event(Kind::Trade);
        let payload = foreign_payload(&event);
        push(&rig, &[Raw::framed(Kind::Trade, &event.key, id, &payload)]).await?;
        asked_again(&front, &mut all).await?;
        front.turn(Mood::Sound);
        goes_on(&rig, &mut feed).await?;
    }
    end(rig, feed, all, 1 + run.pick(1, 5)).await
}

/// Waits until a question was answered badly and asked again.
async fn asked_again(front: &Front, process: &mut Process) -> Result<()> {
    let before = front.asked();
    eventually("the registry is asked again", || front.asked() >= before + 2).await?;
    process.still_runs()
}

/// Sends some and waits until they are stored.
async fn goes_on(rig: &Rig, feed: &mut Feed) -> Result<()> {
    feed.send(100).await?;
    feed.delivered().await?;
    let stored = format!("select count(*) from market_data_trades where exchange = '{VENUE}'");
    rig.reaches(&stored, feed.sent.of(0) as i64, PATIENCE).await
}
