//! A venue's candles against ours: where both are final, no hole overlaps the window and price or volume differ, an
//! anomaly names the window.
//!
//! Both kinds of candles are read, and each final one is looked at once the store has passed it. So whichever of
//! the two is stored later finds the other one in the database, whatever the order in which they come.

use std::collections::BTreeMap;
use std::future::Future;

use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use tapeline_schemas::{Anomaly, Candle, Kind, Micros, Record as _, encode};

use super::holes::CHANNEL;
use super::stored::{ReviseError, Stamp};
use crate::decode::{Decoders, reason};
use crate::flow::{
    In, Outcome, Output, Refusal, Reject, Resume, Sink, SinkError, Span, Stage, Start, Topic,
    TopicPartition,
};
use crate::store::settled;

/// What such an anomaly is marked with.
pub const DIFFERS: &str = "candle_differs";

/// A window whose final candle has come, from either side.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Window {
    exchange: String,
    symbol: String,
    timeframe: String,
    open_time: Micros,
}

/// Windows of a batch, and how far the store has to be before they can be looked at.
#[derive(Debug, Default)]
pub struct Windows {
    list: Vec<Window>,
    newest: BTreeMap<(u16, i32), i64>,
}

/// Memory a window takes, roughly.
const WINDOW_BYTES: usize = 128;

impl Output for Windows {
    fn len(&self) -> usize {
        self.list.len()
    }

    fn byte_len(&self) -> usize {
        self.list.len() * WINDOW_BYTES
    }
}

/// Reads candles of both sides and takes the final ones.
#[derive(Debug, Default)]
pub struct FinalCandles {
    decoders: Decoders,
}

impl Stage for FinalCandles {
    type Out = Windows;

    fn apply(&mut self, input: &In<'_>, out: &mut Windows) -> Result<Outcome, Refusal> {
        // Our own candles come with the control records that order them.
        let Some(value) = input.record.value else { return Ok(Outcome::Control) };
        if let Some(outcome) = settled(input.marker, input.flags) {
            return Ok(outcome);
        }
        let payload = self.decoders.payload(input.kind, value)?;
        let candle = Candle::decode(payload).map_err(|error| Reject::new(reason::DECODE, error))?;
        if !candle.is_final {
            return Ok(Outcome::NotStored);
        }
        let at = input.record.at;
        out.newest.insert((at.topic, at.partition), input.record.offset);
        out.list.push(Window {
            exchange: candle.exchange.into_owned(),
            symbol: candle.symbol.into_owned(),
            timeframe: candle.timeframe.into_owned(),
            open_time: candle.open_time,
        });
        Ok(Outcome::Taken)
    }

    fn learn(&mut self, kind: Kind, id: u32, schema: Option<&str>) {
        self.decoders.learn(kind, id, schema);
    }
}

/// Publishes anomalies.
pub trait Tell: Send + Sync {
    /// Publishes keys with their events in Avro, without wire header; `Ok` once they are delivered. Telling the
    /// same again is harmless: an anomaly is itself by its origin.
    fn tell(
        &mut self,
        anomalies: &[(String, Vec<u8>)],
    ) -> impl Future<Output = Result<(), String>> + Send;
}

/// Compares windows and tells what differs. Doing so twice is harmless.
#[derive(Debug)]
pub struct Comparer<T> {
    pool: PgPool,
    pipeline: String,
    /// Topics as the stage counts them.
    topics: Vec<Topic>,
    /// Where the venue's candles are from.
    raw_topic: String,
    tell: T,
}

impl<T: Tell> Comparer<T> {
    /// A comparer beside the store of `pipeline`, whose fences it waits for.
    pub fn new(
        pool: PgPool,
        pipeline: impl Into<String>,
        topics: Vec<Topic>,
        raw_topic: impl Into<String>,
        tell: T,
    ) -> Comparer<T> {
        let (pipeline, raw_topic) = (pipeline.into(), raw_topic.into());
        Comparer { pool, pipeline, topics, raw_topic, tell }
    }

    /// Refuses with [`ReviseError::NotYet`] until the store has passed every record of a batch.
    async fn is_stored(&self, windows: &Windows) -> Result<(), ReviseError> {
        for ((topic, partition), offset) in &windows.newest {
            let topic = self.topics.get(usize::from(*topic)).map_or("", |topic| &topic.name);
            let next: Option<Option<i64>> = sqlx::query_scalar(
                "select next_offset from tapeline_fence \
                 where pipeline = $1 and topic = $2 and partition = $3",
            )
            .bind(&self.pipeline)
            .bind(topic)
            .bind(partition)
            .fetch_optional(&self.pool)
            .await?;
            if next.flatten().is_none_or(|next| next <= *offset) {
                return Err(ReviseError::NotYet(format!(
                    "the store has not passed {topic} [{partition}] offset {offset} yet"
                )));
            }
        }
        Ok(())
    }

    /// Anomalies of the windows that differ, with their keys.
    async fn compare(&self, windows: &Windows) -> Result<Vec<(String, Vec<u8>)>, ReviseError> {
        self.is_stored(windows).await?;
        let texts = |of: fn(&Window) -> &str| -> Vec<String> {
            windows.list.iter().map(|window| of(window).to_owned()).collect()
        };
        let times: Vec<Stamp> = windows.list.iter().map(|window| Stamp(window.open_time)).collect();
        let rows = sqlx::query(DIFFERENCES)
            .bind(texts(|window| &window.exchange))
            .bind(texts(|window| &window.symbol))
            .bind(texts(|window| &window.timeframe))
            .bind(times)
            .bind(CHANNEL)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|row| self.anomaly(row)).collect()
    }

    fn anomaly(&self, row: &PgRow) -> Result<(String, Vec<u8>), ReviseError> {
        let text = |index: usize| row.try_get::<String, _>(index);
        let (exchange, symbol, timeframe) = (text(0)?, text(1)?, text(2)?);
        let open = row.try_get::<Stamp, _>(3)?.0;
        let (partition, offset) = (row.try_get::<i32, _>(4)?, row.try_get::<i64, _>(5)?);
        let mut differences = Vec::new();
        for (place, what) in ["open", "high", "low", "close", "volume"].into_iter().enumerate() {
            let (theirs, ours) = (text(7 + 2 * place)?, text(8 + 2 * place)?);
            if theirs != ours {
                differences.push(format!("{what} {theirs} of the venue, {ours} of ours"));
            }
        }
        let window = format!("{timeframe} window {} to {}", text(17)?, text(18)?);
        let topic = self.raw_topic.as_str();
        let anomaly = Anomaly {
            origin_topic: topic.into(),
            origin_partition: partition,
            origin_offset: offset,
            exchange: exchange.into(),
            symbol: symbol.into(),
            kind: Kind::VenueCandle.name().into(),
            flags: vec![DIFFERS.into()],
            detail: format!("{window}: {}", differences.join("; ")).into(),
            venue_time: open,
            receive_time: row.try_get::<Stamp, _>(6)?.0,
        };
        Ok((format!("{topic}/{partition}/{offset}"), encode(&anomaly)))
    }
}

/// Pairs of final candles that differ, out of some windows. The first window of a symbol is left out: it began before
/// its trades did, and no hole tells of a time before the first connection.
const DIFFERENCES: &str = "
select distinct v.exchange, v.symbol, v.timeframe, v.time,
    v.origin_partition, v.origin, v.receive_time,
    trim_scale(v.open)::text, trim_scale(t.open)::text,
    trim_scale(v.high)::text, trim_scale(t.high)::text,
    trim_scale(v.low)::text, trim_scale(t.low)::text,
    trim_scale(v.close)::text, trim_scale(t.close)::text,
    trim_scale(v.volume)::text, trim_scale(t.volume)::text,
    to_char(v.time at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
    to_char(v.close_time at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[])
    as w (exchange, symbol, timeframe, time)
join market_data_ohlcv v on v.exchange = w.exchange and v.symbol = w.symbol
    and v.timeframe = w.timeframe and v.time = w.time and v.source = 'venue'
join market_data_ohlcv t on t.exchange = w.exchange and t.symbol = w.symbol
    and t.timeframe = w.timeframe and t.time = w.time and t.source = 'tapeline'
where v.final and t.final and v.origin is not null
    and (v.open, v.high, v.low, v.close, v.volume)
        is distinct from (t.open, t.high, t.low, t.close, t.volume)
    and exists (select from market_data_trades e
        where e.exchange = v.exchange and e.symbol = v.symbol and e.time < v.time)
    and not exists (select from market_data_gaps g
        where g.exchange = v.exchange and g.symbol = v.symbol and g.channel = $5
        and g.state <> 'filled' and g.from_time < v.close_time
        and (g.to_time is null or g.to_time > v.time))";

impl<T: Tell> Sink<Windows> for Comparer<T> {
    async fn write(&mut self, out: &Windows, _: &mut [Span]) -> Result<(), SinkError> {
        if out.list.is_empty() {
            return Ok(());
        }
        let anomalies = self.compare(out).await?;
        if anomalies.is_empty() {
            return Ok(());
        }
        self.tell.tell(&anomalies).await.map_err(SinkError::Retry)?;
        metrics::counter!("tapeline_candle_differences_total").increment(anomalies.len() as u64);
        Ok(())
    }

    fn remove_rows(&self, out: &mut Windows, rows: &[usize]) {
        let mut row = 0..;
        out.list.retain(|_| row.next().is_some_and(|row| !rows.contains(&row)));
    }

    async fn assign(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Resume>, SinkError> {
        let resume = |&at| Resume { at, start: Start::Committed, held_origin: None };
        Ok(partitions.iter().map(resume).collect())
    }

    async fn revoke(&mut self, _: &[TopicPartition]) {}
}
