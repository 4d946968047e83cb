//! The end state, compared as sets with what was sent.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use rdkafka::Message as _;
use sqlx::{PgConnection, Row as _};
use tapeline::{audit, kafka};
use tapeline_schemas::Kind;

use super::feed::{KINDS, Sent, VENUE, identity, symbol};
use super::rig::Rig;

/// What is wrong with an end state; nothing where all is well.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verdict {
    /// Sent and not in the table.
    pub(crate) lost: u64,
    /// In the table, the ledger's sums or the raw topic's account more than once.
    pub(crate) doubled: u64,
    /// In the table with other content, or never sent.
    pub(crate) changed: u64,
    /// Everything that is wrong, in words.
    pub(crate) wrong: Vec<String>,
}

impl Verdict {
    pub(crate) fn is_clean(&self) -> bool {
        self.lost + self.doubled + self.changed == 0 && self.wrong.is_empty()
    }

    pub(crate) fn add(&mut self, other: Verdict) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.changed += other.changed;
        self.wrong.extend(other.wrong);
    }
}

/// Symbol, identity, time and figures of every row that the harness sent, by kind.
const ROWS: [&str; 3] = [
    "select symbol, trade_id as id, (extract(epoch from time) * 1000000)::bigint as time,
        trim_scale(price)::text as one, trim_scale(amount)::text as two
     from market_data_trades where exchange = $1",
    "select symbol, event_id as id, (extract(epoch from time) * 1000000)::bigint as time,
        trim_scale(last_price)::text as one, trim_scale(bid_price)::text as two
     from market_data_ticker where exchange = $1",
    "select symbol, event_id as id, (extract(epoch from time) * 1000000)::bigint as time,
        bids->0->>0 as one, asks->0->>0 as two
     from market_data_orderbook where exchange = $1",
];

/// Every candle that the stored trades make and that is not stored just so.
pub(crate) const CANDLES: &str = "
    with frames (timeframe, width) as (values ('1m', interval '1 minute'), ('5m', '5 minutes'),
        ('15m', '15 minutes'), ('1h', '1 hour'), ('4h', '4 hours'), ('1d', '1 day')),
    computed as (
        select exchange, symbol, timeframe, date_bin(width, time, 'epoch') as start,
            (array_agg(price order by time, coalesce(sequence, 0), origin))[1] as open,
            max(price) as high, min(price) as low,
            (array_agg(price order by time desc, coalesce(sequence, 0) desc, origin desc))[1] as close,
            sum(amount) as volume, sum(price * amount) as quote_volume, count(*) as trades_count
        from market_data_trades cross join frames group by exchange, symbol, timeframe, width, start)
    select count(*) from computed t full join market_data_ohlcv c
        on (c.exchange, c.symbol, c.timeframe, c.time) = (t.exchange, t.symbol, t.timeframe, t.start)
    where (c.open, c.high, c.low, c.close, c.volume, c.quote_volume, c.trades_count, c.final)
        is distinct from
          (t.open, t.high, t.low, t.close, t.volume, t.quote_volume, t.trades_count, true)";

/// Looks at everything once. Cheap checks come first and end it, so that it can be asked often.
pub(crate) async fn judge(rig: &Rig, sent: &Sent) -> Result<Verdict> {
    let mut verdict = rows(rig, sent).await?;
    let mut database = rig.database().await?;
    if !verdict.is_clean() {
        return Ok(verdict);
    }
    verdict.add(ledger(rig, &mut database, sent).await?);
    if !verdict.is_clean() {
        return Ok(verdict);
    }
    let waiting: i64 = sqlx::query_scalar("select count(*) from tapeline_candle_outbox")
        .fetch_one(&mut database)
        .await?;
    let candles: i64 = sqlx::query_scalar(CANDLES).fetch_one(&mut database).await?;
    if candles + waiting > 0 {
        verdict.wrong.push(format!(
            "{candles} candles are not what their trades make, {waiting} wait in the outbox"
        ));
        return Ok(verdict);
    }
    if !sent.last.is_empty() {
        verdict.wrong.extend(cache(rig, sent).await?);
    }
    verdict.wrong.extend(quarantine(rig, sent).await?);
    Ok(verdict)
}

/// The rows alone.
pub(crate) async fn rows(rig: &Rig, sent: &Sent) -> Result<Verdict> {
    let mut database = rig.database().await?;
    let mut verdict = Verdict::default();
    for (kind, rows) in ROWS.iter().enumerate() {
        verdict.add(events(&mut database, kind, rows, sent).await?);
    }
    Ok(verdict)
}

/// The rows of one kind.
async fn events(
    database: &mut PgConnection,
    kind: usize,
    sql: &str,
    sent: &Sent,
) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let mut seen: BTreeMap<String, Vec<bool>> = sent
        .events
        .iter()
        .enumerate()
        .map(|(number, counts)| (symbol(number), vec![false; counts[kind] as usize]))
        .collect();
    let mut rows = sqlx::query(sql).bind(VENUE).fetch(database);
    while let Some(row) = rows.try_next().await? {
        let (name, id): (String, String) = (row.try_get("symbol")?, row.try_get("id")?);
        let time: i64 = row.try_get("time")?;
        let figures: [Option<String>; 2] = [row.try_get("one")?, row.try_get("two")?];
        let sequence = id.split_once('.').and_then(|(sequence, _)| sequence.parse::<u64>().ok());
        let figures = figures.each_ref().map(|figure| figure.as_deref().unwrap_or("null"));
        let place = sequence.and_then(|sequence| {
            let right = identity(&name, sequence, time, &figures) == id;
            seen.get_mut(&name)?.get_mut(sequence as usize).filter(|_| right)
        });
        match place {
            None => verdict.changed += 1,
            Some(there) if *there => verdict.doubled += 1,
            Some(there) => *there = true,
        }
    }
    for (name, seen) in &seen {
        let missing = seen.iter().filter(|there| !**there).count() as u64;
        verdict.lost += missing;
        if let Some(first) = seen.iter().position(|there| !there) {
            let kind = KINDS[kind].name();
            verdict.wrong.push(format!("{missing} of {kind} {name} missing, first {first}"));
        }
    }
    if verdict.doubled + verdict.changed > 0 {
        let (doubled, changed) = (verdict.doubled, verdict.changed);
        verdict.wrong.push(format!("{}: {doubled} doubled, {changed} changed", KINDS[kind].name()));
    }
    Ok(verdict)
}

/// Every raw offset in one batch of the ledger, whose sums are the tables' counts.
async fn ledger(rig: &Rig, database: &mut PgConnection, sent: &Sent) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let topics = rig.context.sink_topics(Kind::raw())?;
    let config = &rig.config;
    let audit = audit::accounted(database, &config.kafka, &config.pipeline.id, &topics).await?;
    verdict.wrong.extend(audit.wrong.iter().cloned());
    if audit.ok() {
        let stored = audit.outcomes.get("stored").copied().unwrap_or_default().max(0) as u64;
        let expected = sent.total() + rig.foreign_rows();
        if stored != expected {
            verdict.doubled = stored.saturating_sub(expected);
            verdict.wrong.push(format!("the ledger has {stored} stored, {expected} were sent"));
        }
    }
    Ok(verdict)
}

/// The newest ticker and book of each symbol are shown.
async fn cache(rig: &Rig, sent: &Sent) -> Result<Option<String>> {
    let mut redis = rig.redis().await?;
    for (number, last) in sent.last.iter().enumerate() {
        for (kind, expected) in [Kind::Ticker, Kind::Book].iter().zip(last) {
            let prefix = kind.spec().redis.map_or("", |(prefix, _)| prefix);
            let key = format!("{prefix}:{VENUE}:{}", symbol(number));
            let shown: Option<String> = redis::cmd("HGET")
                .arg(&key)
                .arg("event_id")
                .query_async(&mut redis)
                .await
                .context("redis")?;
            if shown.as_ref() != Some(expected) {
                return Ok(Some(format!("{key} shows {shown:?}, the newest is {expected}")));
            }
        }
    }
    Ok(None)
}

/// What cannot be read is in quarantine, whole; twice under one key only after a crash.
async fn quarantine(rig: &Rig, sent: &Sent) -> Result<Option<String>> {
    let topic = rig.context.sink_topics([Kind::Quarantine])?.remove(0);
    let settings = rig.config.kafka.clone();
    let keys = tokio::task::spawn_blocking(move || {
        let mut keys = BTreeSet::new();
        kafka::scan(&settings, &topic, |message| {
            keys.insert(message.key().unwrap_or_default().to_vec());
        })
        .map(|()| keys)
    })
    .await??;
    let (found, expected) = (keys.len() as u64, sent.poison..=sent.poison + sent.poison_again);
    Ok((!expected.contains(&found))
        .then(|| format!("{found} records in quarantine, {expected:?} cannot be read")))
}
