//! Values in the Confluent wire format, as bytes in our own schemas.
//!
//! A record whose writer used our schema passes through untouched; any other writer schema is
//! resolved through `apache-avro` and written again with ours, so that every stage decodes
//! one form only.

use std::collections::HashMap;

use apache_avro::Schema;
use tapeline_schemas::{
    ALL_KINDS, Anomaly, Book, Candle, CodecError, Flow, Gap, Kind, OptionData, Order, Portfolio,
    Position, Prediction, Quarantine, Record, Resolver, Ticker, Trade, wire,
};

use crate::flow::{Refusal, Reject};

/// Reasons a value is refused for, as they are counted.
pub mod reason {
    /// Not in the wire format: magic byte or length.
    pub const WIRE: &str = "wire";
    /// The writer's schema is unknown to a healthy registry, or cannot be read with ours.
    pub const SCHEMA: &str = "schema";
    /// The bytes are not what their schema says.
    pub const DECODE: &str = "decode";
}

/// Bytes that are not what their schema, which is ours, says.
pub(crate) fn undecodable(error: CodecError) -> Reject {
    Reject::new(reason::DECODE, error)
}

/// How records of one writer schema are read.
#[derive(Debug)]
enum Reader {
    /// Written with our schema: the bytes are taken as they are.
    Native,
    /// Written with another one.
    Resolved(Box<Resolver>),
    /// Written with one that ours cannot read.
    Incompatible(String),
}

#[derive(Debug, Default)]
struct Readers {
    /// The id last found native: nearly every record has the id of the one before.
    native: Option<u32>,
    by_id: HashMap<u32, Reader>,
}

/// Turns values into payloads in our own schemas. Knows the writer schemas it has been told of.
#[derive(Debug)]
pub struct Decoders {
    kinds: [Readers; ALL_KINDS.len()],
    /// An id that a healthy registry does not know. Believed for one record only: how long an
    /// absence stays true is for who asks the registry, not for a stage without a clock.
    absent: Option<(Kind, u32)>,
    scratch: Vec<u8>,
}

impl Default for Decoders {
    fn default() -> Self {
        Decoders {
            kinds: std::array::from_fn(|_| Readers::default()),
            absent: None,
            scratch: Vec::new(),
        }
    }
}

impl Decoders {
    /// Decoders that know no schema yet.
    pub fn new() -> Decoders {
        Decoders::default()
    }

    /// The Avro payload of `value` in our schema of `kind`. Whether the bytes of a record in our
    /// own schema are sound is for the codec to say.
    #[inline]
    pub fn payload<'s>(&'s mut self, kind: Kind, value: &'s [u8]) -> Result<&'s [u8], Refusal> {
        let (id, payload) = wire::split(value).map_err(|error| Reject::new(reason::WIRE, error))?;
        if self.kinds[kind as usize].native == Some(id) {
            return Ok(payload);
        }
        self.other(kind, id, payload)
    }

    #[cold]
    fn other<'s>(
        &'s mut self,
        kind: Kind,
        id: u32,
        payload: &'s [u8],
    ) -> Result<&'s [u8], Refusal> {
        let readers = &mut self.kinds[kind as usize];
        match readers.by_id.get(&id) {
            Some(Reader::Native) => {
                readers.native = Some(id);
                Ok(payload)
            }
            Some(Reader::Resolved(resolver)) => {
                self.scratch.clear();
                rewrite(kind, resolver, payload, &mut self.scratch)
                    .map_err(|error| Reject::new(reason::DECODE, error))?;
                Ok(&self.scratch)
            }
            Some(Reader::Incompatible(detail)) => {
                let detail = format!("schema {id} cannot be read as {}: {detail}", kind.name());
                Err(Reject::new(reason::SCHEMA, detail).into())
            }
            None if self.absent.take() == Some((kind, id)) => {
                let detail = format!("the registry knows no schema {id}");
                Err(Reject::new(reason::SCHEMA, detail).into())
            }
            None => Err(Refusal::UnknownSchema(kind, id)),
        }
    }

    /// The registry's answer about a writer schema; `None`: a healthy registry does not know it,
    /// and the record that made the loop ask is refused.
    pub fn learn(&mut self, kind: Kind, id: u32, schema: Option<&str>) {
        let Some(schema) = schema else {
            self.absent = Some((kind, id));
            return;
        };
        let reader = match resolver(kind, schema) {
            Ok(_) if is_same(schema, kind.spec().schema) => Reader::Native,
            Ok(resolver) => Reader::Resolved(Box::new(resolver)),
            Err(error) => Reader::Incompatible(error.to_string()),
        };
        self.kinds[kind as usize].by_id.insert(id, reader);
    }
}

/// Whether records of the two schemas have the same bytes and the same meaning. The canonical
/// form of the specification does not tell: it drops logical types, so that a `decimal` of
/// scale 8 would pass for one of scale 18.
fn is_same(writer: &str, ours: &str) -> bool {
    let form = |text: &str| {
        let schema = Schema::parse_str(text).ok()?;
        let mut json = serde_json::to_value(&schema).ok()?;
        strip(&mut json);
        Some(json)
    };
    form(writer).is_some_and(|writer| Some(writer) == form(ours))
}

/// Drops what does not change how a record is written.
fn strip(json: &mut serde_json::Value) {
    match json {
        serde_json::Value::Object(members) => {
            for key in ["doc", "aliases", "default", "order"] {
                members.remove(key);
            }
            members.values_mut().for_each(strip);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

fn resolver(kind: Kind, writer: &str) -> Result<Resolver, CodecError> {
    match kind {
        Kind::Trade => Resolver::new::<Trade<'_>>(writer),
        Kind::Ticker => Resolver::new::<Ticker<'_>>(writer),
        Kind::Book => Resolver::new::<Book<'_>>(writer),
        Kind::Candle => Resolver::new::<Candle<'_>>(writer),
        Kind::Anomaly => Resolver::new::<Anomaly<'_>>(writer),
        Kind::Gap => Resolver::new::<Gap<'_>>(writer),
        Kind::Quarantine => Resolver::new::<Quarantine<'_>>(writer),
        Kind::Flow => Resolver::new::<Flow<'_>>(writer),
        Kind::Prediction => Resolver::new::<Prediction<'_>>(writer),
        Kind::Portfolio => Resolver::new::<Portfolio<'_>>(writer),
        Kind::Position => Resolver::new::<Position<'_>>(writer),
        Kind::Order => Resolver::new::<Order<'_>>(writer),
        Kind::Option => Resolver::new::<OptionData<'_>>(writer),
        Kind::VenueCandle => Resolver::new::<Candle<'_>>(writer),
    }
}

fn rewrite(
    kind: Kind,
    resolver: &Resolver,
    payload: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    fn one<T: Record<'static>>(
        resolver: &Resolver,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), CodecError> {
        resolver.read::<T>(payload).map(|event| event.put(out))
    }
    match kind {
        Kind::Trade => one::<Trade<'static>>(resolver, payload, out),
        Kind::Ticker => one::<Ticker<'static>>(resolver, payload, out),
        Kind::Book => one::<Book<'static>>(resolver, payload, out),
        Kind::Candle => one::<Candle<'static>>(resolver, payload, out),
        Kind::Anomaly => one::<Anomaly<'static>>(resolver, payload, out),
        Kind::Gap => one::<Gap<'static>>(resolver, payload, out),
        Kind::Quarantine => one::<Quarantine<'static>>(resolver, payload, out),
        Kind::Flow => one::<Flow<'static>>(resolver, payload, out),
        Kind::Prediction => one::<Prediction<'static>>(resolver, payload, out),
        Kind::Portfolio => one::<Portfolio<'static>>(resolver, payload, out),
        Kind::Position => one::<Position<'static>>(resolver, payload, out),
        Kind::Order => one::<Order<'static>>(resolver, payload, out),
        Kind::Option => one::<OptionData<'static>>(resolver, payload, out),
        Kind::VenueCandle => one::<Candle<'static>>(resolver, payload, out),
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use tapeline_schemas::{Field, Micros, Money, Side};

    use super::*;

    fn trade() -> Trade<'static> {
        Trade {
            exchange: Cow::Borrowed("KRAKEN"),
            symbol: Cow::Borrowed("BTC-CHF"),
            trade_id: Cow::Borrowed("7"),
            price: Money::ONE,
            amount: Money::ONE,
            side: Side::Sell,
            kind: None,
            taker_or_maker: None,
            sequence: Some(7),
            venue_time: Micros(1),
            receive_time: Micros(2),
        }
    }

    fn framed(id: u32, payload: &[u8]) -> Vec<u8> {
        let mut value = Vec::new();
        wire::put_header(id, &mut value);
        value.extend_from_slice(payload);
        value
    }

    fn refused(decoders: &mut Decoders, value: &[u8]) -> &'static str {
        match decoders.payload(Kind::Trade, value) {
            Err(Refusal::Reject(reject)) => reject.reason,
            other => panic!("expected a rejection, got {other:?}"),
        }
    }

    #[test]
    fn a_record_in_our_own_schema_passes_untouched() {
        let mut decoders = Decoders::new();
        let payload = tapeline_schemas::encode(&trade());
        let value = framed(3, &payload);
        let unknown = Refusal::UnknownSchema(Kind::Trade, 3);
        assert_eq!(decoders.payload(Kind::Trade, &value), Err(unknown));
        decoders.learn(Kind::Trade, 3, Some(Trade::SCHEMA));
        for _ in 0..2 {
            assert_eq!(decoders.payload(Kind::Trade, &value), Ok(&payload[..]));
        }
        assert_eq!(decoders.kinds[Kind::Trade as usize].native, Some(3));
    }

    #[test]
    fn a_record_in_another_schema_is_written_again_in_ours() {
        // The writer has one field more and lacks the optional ones.
        let mut json: serde_json::Value = serde_json::from_str(Trade::SCHEMA).expect("ours");
        let fields = json["fields"].as_array_mut().expect("a record");
        fields.retain(|field| field["name"] != "type" && field["name"] != "taker_or_maker");
        fields.push(serde_json::json!({"name": "liquidation", "type": "boolean"}));
        let mut decoders = Decoders::new();
        decoders.learn(Kind::Trade, 4, Some(&json.to_string()));
        let event = trade();
        let mut payload = Vec::new();
        event.exchange.put(&mut payload);
        event.symbol.put(&mut payload);
        event.trade_id.put(&mut payload);
        event.price.put(&mut payload);
        event.amount.put(&mut payload);
        event.side.put(&mut payload);
        event.sequence.put(&mut payload);
        event.venue_time.put(&mut payload);
        event.receive_time.put(&mut payload);
        true.put(&mut payload);
        let value = framed(4, &payload);
        let read = decoders.payload(Kind::Trade, &value).expect("readable").to_vec();
        assert_eq!(Trade::decode(&read), Ok(event));
        assert_eq!(refused(&mut decoders, &value[..20]), reason::DECODE);
    }

    #[test]
    fn a_decimal_of_another_scale_is_incompatible_although_its_canonical_form_is_ours() {
        let writer = Trade::SCHEMA.replace("\"scale\": 18", "\"scale\": 8");
        assert_ne!(writer, Trade::SCHEMA);
        let mut decoders = Decoders::new();
        decoders.learn(Kind::Trade, 5, Some(&writer));
        let value = framed(5, &tapeline_schemas::encode(&trade()));
        assert_eq!(refused(&mut decoders, &value), reason::SCHEMA);
    }

    #[test]
    fn an_id_the_registry_does_not_know_refuses_one_record_and_is_asked_for_again() {
        let mut decoders = Decoders::new();
        let value = framed(6, b"");
        decoders.learn(Kind::Trade, 6, None);
        assert_eq!(refused(&mut decoders, &value), reason::SCHEMA);
        let again = decoders.payload(Kind::Trade, &value);
        assert_eq!(again, Err(Refusal::UnknownSchema(Kind::Trade, 6)));
    }

    #[test]
    fn what_is_not_in_the_wire_format_is_refused() {
        let mut decoders = Decoders::new();
        assert_eq!(refused(&mut decoders, b"{\"price\": 1}"), reason::WIRE);
        assert_eq!(refused(&mut decoders, b"\0\0\0"), reason::WIRE);
        assert_eq!(refused(&mut decoders, b""), reason::WIRE);
    }
}
