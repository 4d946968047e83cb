//! Topics filled before the clock starts, and how far their rows have come into the table.

use std::collections::VecDeque;

use anyhow::{Context as _, Result};
use rdkafka::message::{Header, OwnedHeaders};
use sqlx::PgConnection;
use tapeline_schemas::{Kind, Micros, Record as _, Trade, headers, partition_for, wire};

use super::site::Site;
use crate::market::{Faults, Feed, Settings};
use crate::produce::BulkProducer;

/// Records of a partition between two whose rows are looked for.
const PROBE_EVERY: i64 = 2_000;

/// A trade whose row tells that the records up to it are stored.
#[derive(Debug, Clone)]
struct Probe {
    /// Records of its partition up to it, itself included.
    through: i64,
    symbol: String,
    time: Micros,
    trade_id: String,
}

/// What a topic was filled with.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filled {
    /// Distinct trades: the rows there have to be in the end.
    pub(crate) rows: u64,
    /// Records in the shortest partition.
    pub(crate) shortest: i64,
    probes: Vec<VecDeque<Probe>>,
}

/// Where records are filled in.
pub(crate) enum Into {
    /// The checked topic of trades, as `validate` writes it where it finds nothing odd.
    Checked,
    /// A topic of JSON for other programs: the columns of the table.
    Json(String),
}

/// Fills a topic with `records` records of `settings`' market. Blocks.
pub(crate) fn fill(
    site: &Site,
    settings: &Settings,
    faults: Faults,
    records: u64,
    into: &Into,
) -> Result<Filled> {
    let topic = site.context.sink_topics([Kind::Trade])?.remove(0);
    let id = *site.context.schema_ids.get(&Kind::Trade).context("no schema id")?;
    let name = match into {
        Into::Checked => &topic.name,
        Into::Json(name) => name,
    };
    let producer = BulkProducer::new(&site.config.kafka)?;
    let mut feed = Feed::new(settings, faults, [id; 3]);
    let keys = feed.keys();
    let partitions: Vec<i32> =
        keys.iter().map(|key| partition_for(key.as_bytes(), topic.partitions)).collect();
    let mut ends = vec![0_i64; topic.partitions as usize];
    let mut last: Vec<Option<Probe>> = vec![None; ends.len()];
    let mut probes = vec![VecDeque::new(); ends.len()];
    let mut json = Vec::new();
    for _ in 0..records {
        let repeated = feed.counts().duplicates;
        let record = feed.next();
        let (symbol, place) = (record.symbol, partitions[record.symbol]);
        let end = &mut ends[place as usize];
        let trade = trade_of(record.value)?;
        let (value, headers) = match into {
            Into::Checked => (record.value, Some(checked_headers(*end))),
            Into::Json(_) => {
                put_json(&trade, place, *end, &mut json)?;
                (&json[..], None)
            }
        };
        producer.send(name, place, keys[symbol].as_bytes(), value, headers)?;
        *end += 1;
        let probe = Probe {
            through: *end,
            symbol: trade.symbol.into_owned(),
            time: trade.venue_time,
            trade_id: trade.trade_id.into_owned(),
        };
        if feed.counts().duplicates == repeated {
            if probe.through % PROBE_EVERY == 0 {
                probes[place as usize].push_back(probe.clone());
            }
            last[place as usize] = Some(probe);
        }
    }
    producer.finish()?;
    for (probes, last) in probes.iter_mut().zip(last) {
        probes.extend(last.filter(|last| probes.back().is_none_or(|p| p.through < last.through)));
    }
    let shortest = ends.into_iter().min().unwrap_or_default();
    Ok(Filled { rows: feed.counts().events[0], shortest, probes })
}

fn trade_of(value: &[u8]) -> Result<Trade<'_>> {
    let (_, payload) = wire::split(value)?;
    Ok(Trade::decode(payload)?)
}

fn checked_headers(origin: i64) -> OwnedHeaders {
    let mut text = itoa::Buffer::new();
    OwnedHeaders::new_with_capacity(2)
        .insert(Header { key: headers::ORIGIN, value: Some(text.format(origin)) })
        .insert(Header { key: headers::RULES, value: Some("1") })
}

/// The columns of the table; what is null is left out.
fn put_json(trade: &Trade<'_>, partition: i32, origin: i64, out: &mut Vec<u8>) -> Result<()> {
    use std::io::Write as _;
    out.clear();
    write!(
        out,
        r#"{{"time":{},"exchange":"{}","symbol":"{}","trade_id":"{}","price":{},"amount":{},"side":"{}","sequence":{},"receive_time":{},"origin_partition":{partition},"origin":{origin}}}"#,
        trade.venue_time.0,
        trade.exchange,
        trade.symbol,
        trade.trade_id,
        trade.price,
        trade.amount,
        trade.side.name(),
        trade.sequence.unwrap_or_default(),
        trade.receive_time.0,
    )?;
    Ok(())
}

/// How many of a filled topic's records are visible in the table, by looking for single rows.
pub(crate) struct Progress {
    database: PgConnection,
    probes: Vec<VecDeque<Probe>>,
    visible: Vec<i64>,
}

impl Progress {
    /// Of what `filled` a topic of `site`.
    pub(crate) async fn new(site: &Site, filled: &Filled) -> Result<Progress> {
        let probes = filled.probes.clone();
        Ok(Progress { database: site.database().await?, visible: vec![0; probes.len()], probes })
    }

    /// Records up to the newest row found in each partition, and whether that is all of them.
    pub(crate) async fn look(&mut self) -> Result<(i64, bool)> {
        loop {
            let heads: Vec<(usize, &Probe)> =
                self.probes.iter().enumerate().filter_map(|(p, q)| Some((p, q.front()?))).collect();
            if heads.is_empty() {
                break;
            }
            let column = |of: fn(&Probe) -> String| heads.iter().map(|(_, p)| of(p)).collect();
            let (symbols, ids): (Vec<String>, Vec<String>) =
                (column(|p| p.symbol.clone()), column(|p| p.trade_id.clone()));
            let times: Vec<i64> = heads.iter().map(|(_, probe)| probe.time.0).collect();
            let found: Vec<bool> = sqlx::query_scalar(
                "select exists (select from market_data_trades t where t.exchange = 'LOADTEST' \
                 and t.symbol = p.symbol and t.trade_id = p.trade_id \
                 and t.time = timestamptz 'epoch' + p.micros * interval '1 microsecond') \
                 from unnest($1::text[], $2::text[], $3::bigint[]) with ordinality \
                 as p(symbol, trade_id, micros, number) order by number",
            )
            .bind(symbols)
            .bind(ids)
            .bind(times)
            .fetch_all(&mut self.database)
            .await?;
            let partitions: Vec<usize> = heads.iter().map(|(partition, _)| *partition).collect();
            let mut moved = false;
            for (partition, found) in partitions.into_iter().zip(found) {
                if found && let Some(probe) = self.probes[partition].pop_front() {
                    self.visible[partition] = probe.through;
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
        let done = self.probes.iter().all(VecDeque::is_empty);
        Ok((self.visible.iter().sum(), done))
    }
}
