//! `influx`: market data as lines of InfluxDB's protocol (S5).

mod line;
mod points;

use std::ops::Range;

use tapeline_schemas::{
    Book, BookAction, Candle, Kind, Micros, OptionData, Record as _, Ticker, Trade,
};

use crate::decode::{Decoders, reason, undecodable};
use crate::flow::{
    In, Original, Originals, Outcome, Output, Record, Refusal, Reject, Rejected, Stage,
};
use crate::store::settled;

use points::Origin;

/// The stage: one checked record, at most one line.
#[derive(Debug, Default)]
pub struct Influx {
    decoders: Decoders,
    event_time: Option<Micros>,
}

impl Influx {
    /// A stage that knows no writer schema yet.
    pub fn new() -> Influx {
        Influx::default()
    }
}

impl Stage for Influx {
    type Out = Lines;

    fn apply(&mut self, input: &In<'_>, out: &mut Lines) -> Result<Outcome, Refusal> {
        let record = &input.record;
        self.event_time = None;
        if let Some(outcome) = settled(input.marker, input.flags) {
            return Ok(outcome);
        }
        let value = record.value.ok_or_else(|| Reject::new(reason::WIRE, "no value"))?;
        let payload = self.decoders.payload(input.kind, value)?;
        let origin = Origin { partition: record.at.partition, offset: input.origin };
        let time = match input.kind {
            Kind::Trade => {
                let event = Trade::decode(payload).map_err(undecodable)?;
                out.push(record, |to| points::trade(&event, origin, to))
            }
            Kind::Ticker => {
                let event = Ticker::decode(payload).map_err(undecodable)?;
                out.push(record, |to| points::ticker(&event, origin, to))
            }
            Kind::Book => {
                let event = Book::decode(payload).map_err(undecodable)?;
                if event.action != BookAction::Top {
                    return Ok(Outcome::NotStored);
                }
                out.push(record, |to| points::book(&event, origin, to))
            }
            Kind::Candle | Kind::VenueCandle => {
                let event = Candle::decode(payload).map_err(undecodable)?;
                out.push(record, |to| points::candle(&event, to))
            }
            Kind::Option => {
                let event = OptionData::decode(payload).map_err(undecodable)?;
                out.push(record, |to| points::option(&event, origin, to))
            }
            _ => return Ok(Outcome::NotStored),
        }?;
        self.event_time = Some(time);
        Ok(Outcome::Taken)
    }

    fn learn(&mut self, kind: Kind, id: u32, schema: Option<&str>) {
        self.decoders.learn(kind, id, schema);
    }

    fn event_time(&self) -> Option<Micros> {
        self.event_time
    }
}

/// What `influx` makes: lines, each with the record it comes from, so that one that the server
/// refuses goes to quarantine as it was.
#[derive(Debug, Default)]
pub struct Lines {
    text: String,
    rows: Vec<Row>,
    originals: Originals,
}

#[derive(Debug)]
struct Row {
    line: Range<usize>,
    original: Original,
}

impl Lines {
    /// Appends the line that `write` writes; on an error nothing is added.
    fn push(
        &mut self,
        record: &Record<'_>,
        write: impl FnOnce(&mut String) -> Result<Micros, Reject>,
    ) -> Result<Micros, Reject> {
        let start = self.text.len();
        let time = write(&mut self.text).inspect_err(|_| self.text.truncate(start))?;
        let original = self.originals.keep(record);
        self.rows.push(Row { line: start..self.text.len(), original });
        Ok(time)
    }

    /// Some lines as one body, by their indexes, which must be there.
    pub(crate) fn body(&self, rows: Range<usize>) -> String {
        self.rows[rows].iter().map(|row| &self.text[row.line.clone()]).collect()
    }

    /// The record behind a line, for quarantine.
    pub(crate) fn rejected(&self, row: usize, reject: Reject) -> Rejected {
        self.originals.rejected(&self.rows[row].original, reject)
    }

    /// Takes lines out by their indexes.
    pub(crate) fn remove(&mut self, rows: &[usize]) {
        let mut index = 0;
        self.rows.retain(|_| {
            index += 1;
            !rows.contains(&(index - 1))
        });
    }
}

impl Output for Lines {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn byte_len(&self) -> usize {
        self.text.len() + self.originals.byte_len() + self.rows.len() * std::mem::size_of::<Row>()
    }

    fn clear(&mut self) {
        self.text.clear();
        self.rows.clear();
        self.originals.clear();
    }
}
