//! `store`: checked events as rows of the database (C3; T1 to T4, T7, T9, T10).

mod buffers;
mod numeric;
mod pushed;
pub(crate) mod rows;
mod table;
mod tuple;

use tapeline_schemas::{
    Anomaly, Book, BookAction, Candle, Flags, Flow, Gap, Kind, Micros, OptionData, Order,
    Portfolio, Position, Prediction, Record as _, Ticker, Trade, headers,
};

use crate::decode::{Decoders, reason, undecodable};
use crate::flow::{In, Marker, Outcome, Record, Refusal, Reject, Stage};

pub use buffers::CopyBuffers;
pub(crate) use pushed::uuid;

use rows::Origin;
pub use table::Table;
pub(crate) use table::{Rule, Spec};
pub use tuple::{HEADER, TRAILER};
pub(crate) use tuple::{Tuple, postgres_micros};

/// The stage: one checked record, at most one row.
#[derive(Debug, Default)]
pub struct Store {
    decoders: Decoders,
    event_time: Option<Micros>,
}

impl Store {
    /// A store that knows no writer schema yet.
    pub fn new() -> Store {
        Store::default()
    }
}

/// Appends a trade as a tuple of the binary COPY into [`Table::Trades`], whose raw record is at
/// `offset` of `partition`: for filling tables without Kafka. Times that PostgreSQL cannot hold are
/// refused.
pub fn put_trade(
    trade: &Trade<'_>,
    partition: i32,
    offset: i64,
    out: &mut Vec<u8>,
) -> Result<(), Reject> {
    rows::trade(trade, Origin { partition, offset }, out).map(drop)
}

/// The same for a candle of ours and [`Table::Ohlcv`].
pub fn put_candle(candle: &Candle<'_>, out: &mut Vec<u8>) -> Result<(), Reject> {
    rows::candle(candle, None, out).map(drop)
}

/// What became of a record that stands for no event, or for one that is not taken again.
pub(crate) fn settled(marker: Option<Marker>, flags: Flags) -> Option<Outcome> {
    match marker {
        Some(Marker::Quarantined) => Some(Outcome::Quarantined),
        Some(Marker::Control) => Some(Outcome::Control),
        Some(Marker::Skipped) => Some(Outcome::Skipped),
        Some(Marker::Lost) => Some(Outcome::Lost),
        None if flags.has(tapeline_schemas::Flag::Conflict) => Some(Outcome::Conflict),
        None if flags.has(tapeline_schemas::Flag::Duplicate) => Some(Outcome::Duplicate),
        None => None,
    }
}

impl Stage for Store {
    type Out = CopyBuffers;

    fn apply(&mut self, input: &In<'_>, out: &mut CopyBuffers) -> Result<Outcome, Refusal> {
        let record = &input.record;
        self.event_time = None;
        if let Some(outcome) = settled(input.marker, input.flags) {
            note_rules(input, out);
            return Ok(outcome);
        }
        if input.kind == Kind::Quarantine {
            return Ok(Outcome::NotStored);
        }
        let value = record.value.ok_or_else(|| Reject::new(reason::WIRE, "no value"))?;
        let payload = self.decoders.payload(input.kind, value)?;
        let origin = Origin { partition: record.at.partition, offset: input.origin };
        self.event_time = put(input.kind, payload, origin, record, out)?;
        note_rules(input, out);
        Ok(if self.event_time.is_some() { Outcome::Taken } else { Outcome::NotStored })
    }

    fn learn(&mut self, kind: Kind, id: u32, schema: Option<&str>) {
        self.decoders.learn(kind, id, schema);
    }

    fn event_time(&self) -> Option<Micros> {
        self.event_time
    }
}

/// The row of an event, and its time; none where none is stored.
fn put(
    kind: Kind,
    payload: &[u8],
    origin: Origin,
    record: &Record<'_>,
    out: &mut CopyBuffers,
) -> Result<Option<Micros>, Refusal> {
    let time = match kind {
        Kind::Trade => {
            let event = Trade::decode(payload).map_err(undecodable)?;
            out.push(Table::Trades, record, |to| rows::trade(&event, origin, to))
        }
        Kind::Ticker => {
            let event = Ticker::decode(payload).map_err(undecodable)?;
            out.push(Table::Ticker, record, |to| rows::ticker(&event, origin, to))
        }
        Kind::Book => {
            let event = Book::decode(payload).map_err(undecodable)?;
            if event.action != BookAction::Top {
                return Ok(None);
            }
            out.push(Table::Orderbook, record, |to| rows::orderbook(&event, origin, to))
        }
        Kind::Candle => {
            let event = Candle::decode(payload).map_err(undecodable)?;
            out.push(Table::Ohlcv, record, |to| rows::candle(&event, None, to))
        }
        Kind::VenueCandle => {
            let event = Candle::decode(payload).map_err(undecodable)?;
            out.push(Table::Ohlcv, record, |to| rows::candle(&event, Some(origin), to))
        }
        Kind::Option => {
            let event = OptionData::decode(payload).map_err(undecodable)?;
            out.push(Table::OptionData, record, |to| rows::option(&event, origin, to))
        }
        Kind::Anomaly => {
            let event = Anomaly::decode(payload).map_err(undecodable)?;
            out.push(Table::Anomalies, record, |to| rows::anomaly(&event, to))
        }
        Kind::Gap => {
            let event = Gap::decode(payload).map_err(undecodable)?;
            out.push(Table::Gaps, record, |to| rows::gap(&event, to))
        }
        Kind::Flow => {
            let event = Flow::decode(payload).map_err(undecodable)?;
            out.push(Table::Flows, record, |to| pushed::flow(&event, origin, to))
        }
        Kind::Prediction => {
            let event = Prediction::decode(payload).map_err(undecodable)?;
            out.push(Table::Predictions, record, |to| pushed::prediction(&event, origin, to))
        }
        Kind::Portfolio => {
            let event = Portfolio::decode(payload).map_err(undecodable)?;
            out.push(Table::Portfolios, record, |to| pushed::portfolio(&event, origin, to))
        }
        Kind::Position => {
            let event = Position::decode(payload).map_err(undecodable)?;
            if event.is_closed() {
                out.push(Table::PositionHistory, record, |to| pushed::closed(&event, origin, to))?;
            }
            out.push(Table::Positions, record, |to| pushed::position(&event, origin, to))
        }
        Kind::Order => {
            let event = Order::decode(payload).map_err(undecodable)?;
            out.push(Table::Orders, record, |to| pushed::order(&event, origin, to))
        }
        Kind::Quarantine => return Ok(None),
    }?;
    Ok(Some(time))
}

#[inline]
fn note_rules(input: &In<'_>, out: &mut CopyBuffers) {
    if let Some(rules) = input.record.headers.text(headers::RULES) {
        out.note_rules(input.record.at, rules);
    }
}
