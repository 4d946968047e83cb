//! Windows that are on their way: what the candle stage or the store has not taken yet, and what
//! waits for the reviser. A candle over one of them is not judged.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Result, bail};
use sqlx::{PgConnection, Row};
use tapeline_schemas::{Candle, Kind, Micros, Record as _, Timeframe, Trade};
use tapeline_stages::candle::{Dirty, Lost, WindowOf};
use tapeline_stages::decode::Decoders;
use tapeline_stages::flow::{Record, Refusal};

use crate::schemas::Schemas;

/// Windows that are remembered (invariant 8). Beyond that many candles cannot be judged.
const MOST_WINDOWS: usize = 2_000_000;

/// Windows by symbol.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    windows: HashMap<String, BTreeSet<(i64, i64, Timeframe)>>,
    number: usize,
    /// The reviser has still to find out which windows a loss belongs to.
    any_lost: bool,
    decoders: Decoders,
}

impl Unsettled {
    fn add(
        &mut self,
        (exchange, symbol): (&str, &str),
        frame: Timeframe,
        (from, to): (i64, i64),
    ) -> Result<()> {
        let windows = self.windows.entry(format!("{exchange}:{symbol}")).or_default();
        self.number += usize::from(windows.insert((from, to, frame)));
        if self.number > MOST_WINDOWS {
            bail!(
                "more than {MOST_WINDOWS} windows wait for candles or store: let them catch up, \
                 or leave candles out (--topic)"
            );
        }
        Ok(())
    }

    /// Takes a checked trade or a candle that not every stage is sure to have taken.
    pub(super) fn take(
        &mut self,
        kind: Kind,
        record: &Record<'_>,
        schemas: &Schemas,
    ) -> Result<()> {
        let Some(value) = record.value.filter(|value| !value.is_empty()) else { return Ok(()) };
        if !matches!(kind, Kind::Trade | Kind::Candle) {
            return Ok(());
        }
        let payload = loop {
            // Twice at most: the second time the schema is known, or known to be unknown.
            match self.decoders.payload(kind, value) {
                Ok(payload) => break payload.to_vec(),
                Err(Refusal::Reject(_)) => return Ok(()), // no stage takes it either
                Err(Refusal::UnknownSchema(kind, id)) => {
                    let schema = schemas.lookup(id)?;
                    self.decoders.learn(kind, id, schema.as_deref());
                }
            }
        };
        if kind == Kind::Trade {
            let Ok(trade) = Trade::decode(&payload) else { return Ok(()) };
            let start = Timeframe::M1.start(trade.venue_time);
            let range = (start.0, Timeframe::M1.end(start).0);
            return self.add((&trade.exchange, &trade.symbol), Timeframe::M1, range);
        }
        let Ok(candle) = Candle::decode(&payload) else { return Ok(()) };
        let Ok(frame) = candle.timeframe.parse::<Timeframe>() else { return Ok(()) };
        let range = (candle.open_time.0, frame.end(candle.open_time).0);
        self.add((&candle.exchange, &candle.symbol), frame, range)
    }

    /// Takes a dirty record that the reviser has not committed.
    pub(super) fn take_dirty(&mut self, record: &Record<'_>) -> Result<()> {
        let Some(value) = record.value else { return Ok(()) };
        self.any_lost |= Lost::read(value).is_some();
        let Ok(dirty) = Dirty::read(value) else { return Ok(()) };
        let Ok(frame) = dirty.frame() else { return Ok(()) };
        self.add((&dirty.exchange, &dirty.symbol), frame, (dirty.from, dirty.to))
    }

    /// Whether a window is on its way. An unsettled minute unsettles every window around it.
    pub(super) fn covers(&self, window: &WindowOf<'_>) -> bool {
        if self.any_lost {
            return true;
        }
        let key = format!("{}:{}", window.exchange, window.symbol);
        let (start, end) = (window.start.0, window.frame.end(window.start).0);
        self.windows.get(&key).is_some_and(|windows| {
            windows.iter().any(|&(from, to, frame)| {
                from < end && to > start && (frame == Timeframe::M1 || frame == window.frame)
            })
        })
    }
}

/// Adds the revised candles that the longer tier cannot have seen as of the snapshot.
pub(super) async fn add_outbox(
    database: &mut PgConnection,
    unsettled: &mut Unsettled,
) -> Result<()> {
    let rows = sqlx::query(
        "select exchange, symbol, timeframe, \
         (extract(epoch from open_time) * 1000000)::bigint as start from tapeline_candle_outbox",
    )
    .fetch_all(database)
    .await?;
    for row in rows {
        let (exchange, symbol): (&str, &str) = (row.try_get("exchange")?, row.try_get("symbol")?);
        let Ok(frame) = row.try_get::<&str, _>("timeframe")?.parse::<Timeframe>() else { continue };
        let start = Micros(row.try_get("start")?);
        unsettled.add((exchange, symbol), frame, (start.0, frame.end(start).0))?;
    }
    Ok(())
}
