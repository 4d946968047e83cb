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

/// Rows of a partition that one question asks for.
const AHEAD: usize = 4;

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

/// How JSON has its times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeAs {
    /// Microseconds since the epoch.
    Micros,
    /// Text in ISO 8601, UTC.
    Text,
}

/// Where records are filled in.
pub(crate) enum Into {
    /// The checked topic of trades, as `validate` writes it where it finds nothing odd.
    Checked,
    /// A topic of JSON for other programs: the columns of the table.
    Json(String, TimeAs),
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
        Into::Json(name, _) => name,
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
            Into::Json(_, times) => {
                put_json(&trade, place, *end, *times, &mut json)?;
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
fn put_json(
    trade: &Trade<'_>,
    partition: i32,
    origin: i64,
    times: TimeAs,
    out: &mut Vec<u8>,
) -> Result<()> {
    use std::io::Write as _;
    out.clear();
    let time = |time: Micros| match times {
        TimeAs::Micros => time.0.to_string(),
        TimeAs::Text => format!("\"{}\"", iso(time)),
    };
    write!(
        out,
        r#"{{"time":{},"exchange":"{}","symbol":"{}","trade_id":"{}","price":{},"amount":{},"side":"{}","sequence":{},"receive_time":{},"origin_partition":{partition},"origin":{origin}}}"#,
        time(trade.venue_time),
        trade.exchange,
        trade.symbol,
        trade.trade_id,
        trade.price,
        trade.amount,
        trade.side.name(),
        trade.sequence.unwrap_or_default(),
        time(trade.receive_time),
    )?;
    Ok(())
}

/// A time as ISO 8601 has it.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn iso(time: Micros) -> String {
    let (days, of_day) = (time.0.div_euclid(86_400_000_000), time.0.rem_euclid(86_400_000_000));
    let z = days + 719_468;
    let (era, of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let (seconds, micros) = (of_day / 1_000_000, of_day % 1_000_000);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
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
        let mut database = site.database().await?;
        // The table is empty when the question is planned, and a plan that reads all of it would
        // be kept while it grows: looking would then take a core from what is measured.
        sqlx::raw_sql("set enable_seqscan = off; set plan_cache_mode = force_custom_plan")
            .execute(&mut database)
            .await?;
        Ok(Progress { database, visible: vec![0; probes.len()], probes })
    }

    /// Records up to the newest row found in each partition, and whether that is all of them. One
    /// question: a look that asked on while rows keep coming would not end before they do.
    pub(crate) async fn look(&mut self) -> Result<(i64, bool)> {
        let next: Vec<(usize, &Probe)> = self
            .probes
            .iter()
            .enumerate()
            .flat_map(|(partition, queue)| queue.iter().take(AHEAD).map(move |p| (partition, p)))
            .collect();
        let symbols: Vec<&str> = next.iter().map(|(_, probe)| probe.symbol.as_str()).collect();
        let ids: Vec<&str> = next.iter().map(|(_, probe)| probe.trade_id.as_str()).collect();
        let times: Vec<i64> = next.iter().map(|(_, probe)| probe.time.0).collect();
        let found: Vec<bool> = sqlx::query_scalar(
            "select found is not null from unnest($1::text[], $2::text[], $3::bigint[]) \
             with ordinality as p(symbol, trade_id, micros, number) left join lateral \
             (select true as found from market_data_trades t where t.exchange = 'LOADTEST' \
             and t.symbol = p.symbol and t.trade_id = p.trade_id \
             and t.time = timestamptz 'epoch' + p.micros * interval '1 microsecond' limit 1) f \
             on true order by number",
        )
        .bind(symbols)
        .bind(ids)
        .bind(times)
        .fetch_all(&mut self.database)
        .await?;
        let found: Vec<usize> =
            next.iter().zip(found).filter(|(_, found)| *found).map(|((p, _), _)| *p).collect();
        // Rows of a partition come in its order: what is found are the next ones.
        for partition in found {
            if let Some(probe) = self.probes[partition].pop_front() {
                self.visible[partition] = probe.through;
            }
        }
        let done = self.probes.iter().all(VecDeque::is_empty);
        Ok((self.visible.iter().sum(), done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_iso_8601_has_them() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (1_700_000_000_000_844, "2023-11-14T22:13:20.000844Z"),
            (1_709_164_800_000_000, "2024-02-29T00:00:00.000000Z"),
            (-1, "1969-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(iso(Micros(micros)), text);
        }
    }
}
