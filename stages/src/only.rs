//! A stage that sees a part of the records alone.

use tapeline_schemas::{
    Anomaly, Book, Candle, Flow, Kind, Micros, OptionData, Order, Portfolio, Position, Prediction,
    Record as _, Ticker, Trade,
};

use crate::decode::Decoders;
use crate::flow::{Checkpoint, In, Outcome, Refusal, Reject, Stage, TopicPartition};

/// Hands on the events of some symbols and of a time on. The others pass without output
/// ([`Outcome::NotStored`]), so that nothing overtakes (invariant 1). Markers that are of no symbol
/// are handed on.
pub struct Only<S> {
    stage: S,
    symbols: Vec<String>,
    from_event_time: Option<Micros>,
    decoders: Decoders,
}

impl<S> Only<S> {
    /// `symbols`: `BTC-USD` or `KRAKEN:BTC-USD`; none of them means all.
    pub fn new(stage: S, symbols: Vec<String>, from_event_time: Option<Micros>) -> Only<S> {
        Only { stage, symbols, from_event_time, decoders: Decoders::new() }
    }

    fn is_wanted(&self, key: Option<&[u8]>) -> bool {
        if self.symbols.is_empty() {
            return true;
        }
        // A key without a colon names a venue: what it says is of all its symbols.
        let Some((_, symbol)) =
            key.and_then(|key| std::str::from_utf8(key).ok()).and_then(|key| key.split_once(':'))
        else {
            return true;
        };
        let whole = key.unwrap_or_default();
        self.symbols.iter().any(|wanted| wanted == symbol || wanted.as_bytes() == whole)
    }

    /// Whether an event is before the time. What cannot be read is for the stage to refuse.
    fn is_early(&mut self, input: &In<'_>) -> Result<bool, Refusal> {
        let (Some(from), Some(value)) = (self.from_event_time, input.record.value) else {
            return Ok(false);
        };
        if input.marker.is_some() {
            return Ok(false);
        }
        let payload = match self.decoders.payload(input.kind, value) {
            Ok(payload) => payload,
            Err(Refusal::Reject(_)) => return Ok(false),
            Err(unknown) => return Err(unknown),
        };
        let time = match input.kind {
            Kind::Trade => Trade::decode(payload).map(|event| event.venue_time),
            Kind::Ticker => Ticker::decode(payload).map(|event| event.venue_time),
            Kind::Book => Book::decode(payload).map(|event| event.venue_time),
            Kind::Candle | Kind::VenueCandle => {
                Candle::decode(payload).map(|event| event.open_time)
            }
            Kind::Option => OptionData::decode(payload).map(|event| event.venue_time),
            Kind::Flow => Flow::decode(payload).map(|event| event.venue_time),
            Kind::Prediction => Prediction::decode(payload).map(|event| event.venue_time),
            Kind::Portfolio => Portfolio::decode(payload).map(|event| event.venue_time),
            Kind::Position => Position::decode(payload).map(|event| event.venue_time),
            Kind::Order => Order::decode(payload).map(|event| event.venue_time),
            Kind::Anomaly => Anomaly::decode(payload).map(|event| event.venue_time),
            // A hole that began before may last until after.
            Kind::Gap | Kind::Quarantine => return Ok(false),
        };
        Ok(time.is_ok_and(|time| time < from))
    }
}

impl<S: Stage> Stage for Only<S> {
    type Out = S::Out;

    fn apply(&mut self, input: &In<'_>, out: &mut S::Out) -> Result<Outcome, Refusal> {
        if !self.is_wanted(input.record.key) || self.is_early(input)? {
            return Ok(Outcome::NotStored);
        }
        self.stage.apply(input, out)
    }

    fn rejected(&mut self, input: &In<'_>, reject: &Reject, out: &mut S::Out) {
        self.stage.rejected(input, reject, out);
    }

    fn skipped(&mut self, at: TopicPartition, first: i64, last: i64, out: &mut S::Out) {
        self.stage.skipped(at, first, last, out);
    }

    fn lost(&mut self, at: TopicPartition, first: i64, last: i64, out: &mut S::Out) {
        self.stage.lost(at, first, last, out);
    }

    fn learn(&mut self, kind: Kind, id: u32, schema: Option<&str>) {
        self.decoders.learn(kind, id, schema);
        self.stage.learn(kind, id, schema);
    }

    fn assigned(&mut self, at: TopicPartition, note: Option<&str>) {
        self.stage.assigned(at, note);
    }

    fn revoked(&mut self, at: TopicPartition) {
        self.stage.revoked(at);
    }

    fn checkpoint(&self, at: TopicPartition, next_offset: i64) -> Checkpoint {
        self.stage.checkpoint(at, next_offset)
    }

    fn event_time(&self) -> Option<Micros> {
        self.stage.event_time()
    }
}
