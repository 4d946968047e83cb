//! `cache`: the last value of each ticker, book and candle, for Redis (C4, R1).

mod fold;
pub mod stored;
mod values;

use tapeline_schemas::{Book, BookAction, Candle, Kind, Micros, Record as _, Ticker};

use crate::decode::{Decoders, reason, undecodable};
use crate::flow::{In, Outcome, Refusal, Reject, Stage};
use crate::store::settled;

pub(crate) use fold::Folds;
pub use values::LastValues;
pub(crate) use values::{Stamp, Value};

/// The stage: conflates a batch to the last value of each key.
#[derive(Debug, Default)]
pub struct Cache {
    decoders: Decoders,
    event_time: Option<Micros>,
}

impl Cache {
    /// A cache that knows no writer schema yet.
    pub fn new() -> Cache {
        Cache::default()
    }
}

impl Stage for Cache {
    type Out = LastValues;

    fn apply(&mut self, input: &In<'_>, out: &mut LastValues) -> Result<Outcome, Refusal> {
        self.event_time = None;
        if let Some(outcome) = settled(input.marker, input.flags) {
            return Ok(outcome);
        }
        // Invariant 6: an event whose time is in doubt would hold its key against true ones.
        if input.kind.spec().redis.is_none() || input.flags.is_odd_time() {
            return Ok(Outcome::NotStored);
        }
        let value = input.record.value.ok_or_else(|| Reject::new(reason::WIRE, "no value"))?;
        let payload = self.decoders.payload(input.kind, value)?;
        let stamp = |venue_time, receive_time| Stamp {
            at: input.record.at,
            origin: input.origin,
            venue_time,
            receive_time,
        };
        let time = match input.kind {
            Kind::Ticker => {
                let event = Ticker::decode(payload).map_err(undecodable)?;
                let stamp = stamp(event.venue_time, event.receive_time);
                out.offer_parts(&[&event.exchange, &event.symbol], input.kind, stamp, payload);
                event.venue_time
            }
            Kind::Book => {
                let event = Book::decode(payload).map_err(undecodable)?;
                if event.action != BookAction::Top {
                    return Ok(Outcome::NotStored);
                }
                let stamp = stamp(event.venue_time, event.receive_time);
                out.offer_parts(&[&event.exchange, &event.symbol], input.kind, stamp, payload);
                event.venue_time
            }
            Kind::Candle => {
                let event = Candle::decode(payload).map_err(undecodable)?;
                let stamp = stamp(event.open_time, event.receive_time);
                let parts = [&*event.exchange, &*event.symbol, &*event.timeframe];
                out.offer_parts(&parts, input.kind, stamp, payload);
                event.open_time
            }
            _ => return Ok(Outcome::NotStored),
        };
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
