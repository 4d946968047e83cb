//! Raw records to checked records, one to one (C2; invariants 3 and 4).
//!
//! Rules without memory put a record in quarantine; what needs memory is a flag in the
//! checked record's headers and an anomaly, and is never judged again.

mod judge;
mod memory;
mod pushed;
mod robust;
mod rules;
mod settings;

use hashbrown::HashMap;
use tapeline_schemas::{
    Anomaly, Book, Candle, Control, Flags, Flow, Gap, GapChange, Kind, Micros, OptionData, Order,
    Portfolio, Position, Prediction, Record as _, Ticker, Trade, encode, headers,
};

use self::judge::{Verdict, remembered};
use self::memory::SymbolMemory;
pub use self::robust::Estimate;
pub use self::rules::RULES_VERSION;
pub use self::settings::Settings;
use crate::decode::Decoders;
use crate::flow::{
    HeaderSlices, In, Outcome, Record, Refusal, Reject, Stage, Topic, TopicPartition,
};
use crate::messages::{Messages, OutTopic};

/// The stage.
#[derive(Debug)]
pub struct Validate {
    topics: Vec<Topic>,
    settings: Settings,
    /// [`Settings::rules`].
    rules: String,
    decoders: Decoders,
    memory: HashMap<TopicPartition, HashMap<Box<[u8]>, SymbolMemory>>,
    content: Vec<u8>,
    event_time: Option<Micros>,
}

impl Validate {
    /// A stage over raw `topics`.
    pub fn new(topics: Vec<Topic>, settings: Settings) -> Validate {
        Validate {
            topics,
            rules: settings.rules(),
            settings,
            decoders: Decoders::default(),
            memory: HashMap::new(),
            content: Vec::new(),
            event_time: None,
        }
    }

    fn judge(&mut self, record: &Record<'_>, kind: Kind, value: &[u8]) -> Result<Verdict, Refusal> {
        let partitions = self.topics[record.at.topic as usize].partitions;
        let settings = &self.settings;
        let payload = self.decoders.payload(kind, value)?;
        let decoded = |error| Reject::new("decode", error);
        let symbols = self.memory.entry(record.at).or_default();
        let content = &mut self.content;
        match kind {
            Kind::Trade => {
                let trade = Trade::decode(payload).map_err(decoded)?;
                rules::trade(&trade, settings)?;
                rules::routing(record, &trade.exchange, &trade.symbol, partitions)?;
                Ok(judge::trade(trade, remembered(symbols, record), content, settings, record))
            }
            Kind::Ticker => {
                let ticker = Ticker::decode(payload).map_err(decoded)?;
                rules::ticker(&ticker, settings)?;
                rules::routing(record, &ticker.exchange, &ticker.symbol, partitions)?;
                Ok(judge::ticker(ticker, remembered(symbols, record), content, settings, record))
            }
            Kind::Book => {
                let book = Book::decode(payload).map_err(decoded)?;
                rules::book(&book, settings)?;
                rules::routing(record, &book.exchange, &book.symbol, partitions)?;
                Ok(judge::book(book, remembered(symbols, record), content, settings, record))
            }
            Kind::Flow => {
                pushed::judge::<Flow<'_>>(payload, record, partitions, symbols, content, settings)
            }
            Kind::Prediction => pushed::judge::<Prediction<'_>>(
                payload, record, partitions, symbols, content, settings,
            ),
            Kind::Portfolio => pushed::judge::<Portfolio<'_>>(
                payload, record, partitions, symbols, content, settings,
            ),
            Kind::Position => pushed::judge::<Position<'_>>(
                payload, record, partitions, symbols, content, settings,
            ),
            Kind::Order => {
                pushed::judge::<Order<'_>>(payload, record, partitions, symbols, content, settings)
            }
            Kind::Option => {
                let option = OptionData::decode(payload).map_err(decoded)?;
                rules::option(&option, settings)?;
                rules::routing(record, &option.exchange, &option.symbol, partitions)?;
                Ok(judge::option(option, remembered(symbols, record), content, settings, record))
            }
            Kind::VenueCandle => {
                let candle = Candle::decode(payload).map_err(decoded)?;
                rules::venue_candle(&candle)?;
                rules::routing(record, &candle.exchange, &candle.symbol, partitions)?;
                Ok(judge::candle(candle, remembered(symbols, record), content, settings, record))
            }
            Kind::Candle | Kind::Anomaly | Kind::Gap | Kind::Quarantine => {
                Err(Reject::new("kind", format!("{} has no raw topic", kind.name())).into())
            }
        }
    }

    fn control(
        &self,
        record: &Record<'_>,
        kind: Kind,
        out: &mut Messages,
    ) -> Result<Outcome, Refusal> {
        let control = Control::from_headers(|name| record.headers.text(name))
            .map_err(|error| Reject::new("control", error))?;
        rules::control(&control)?;
        let key = record.key.unwrap_or_default();
        out.push_parts(OutTopic::Of(kind), Some(record.at.partition), key, None, None, |out| {
            // What a marker says of its place and outcome is not the connector's to say.
            let said = record.headers.iter().filter(|(name, _)| !headers::is_verdict(name));
            said.for_each(|(name, value)| out.push(name, value));
            marker(out, &self.rules, headers::outcome::CONTROL, record.offset, record.offset);
        });
        if let Control::Gap(gap) = control {
            let key = format!("{}:{}", gap.venue, gap.symbol);
            let value = encode(&self.gap(gap, record));
            out.push_parts(
                OutTopic::Of(Kind::Gap),
                None,
                key.as_bytes(),
                Some(Kind::Gap),
                Some(&value),
                |_| {},
            );
        }
        Ok(Outcome::Control)
    }

    fn gap(&self, change: GapChange, record: &Record<'_>) -> Gap<'static> {
        Gap {
            exchange: change.venue.into(),
            symbol: change.symbol.into(),
            channel: change.channel.into(),
            state: change.state,
            from_time: change.from,
            to_time: change.to,
            cause: change.cause.into(),
            filled_by: change.filled_by.map(Into::into),
            origin_topic: self.topics[record.at.topic as usize].name.clone().into(),
            origin_partition: record.at.partition,
            origin_offset: record.offset,
        }
    }

    fn anomaly(&self, record: &Record<'_>, kind: Kind, verdict: &Verdict, out: &mut Messages) {
        let key = String::from_utf8_lossy(record.key.unwrap_or_default());
        let (exchange, symbol) = key.split_once(':').unwrap_or((&key, ""));
        let anomaly = Anomaly {
            origin_topic: self.topics[record.at.topic as usize].name.as_str().into(),
            origin_partition: record.at.partition,
            origin_offset: record.offset,
            exchange: exchange.into(),
            symbol: symbol.into(),
            kind: kind.name().into(),
            flags: verdict.judgement.flags.iter().map(|flag| flag.name().into()).collect(),
            detail: verdict.judgement.detail.as_str().into(),
            venue_time: verdict.venue_time,
            receive_time: verdict.receive_time,
        };
        let key = origin_key(&anomaly.origin_topic, record);
        let value = encode(&anomaly);
        let topic = OutTopic::Of(Kind::Anomaly);
        out.push_parts(topic, None, key.as_bytes(), Some(Kind::Anomaly), Some(&value), |_| {});
        for flag in verdict.judgement.flags.iter() {
            metrics::counter!("tapeline_validate_flags_total", "kind" => kind.name(), "flag" => flag.name())
                .increment(1);
        }
    }
}

/// `topic/partition/offset`: the key of what speaks of one raw record.
pub fn origin_key(topic: &str, record: &Record<'_>) -> String {
    format!("{topic}/{}/{}", record.at.partition, record.offset)
}

fn marker(out: &mut HeaderSlices<'_>, rules: &str, outcome: &str, first: i64, last: i64) {
    out.push(headers::OUTCOME, Some(outcome.as_bytes()));
    if first != last {
        out.push_number(headers::ORIGIN_FIRST, first);
    }
    out.push_number(headers::ORIGIN, last);
    out.push(headers::RULES, Some(rules.as_bytes()));
}

fn event_headers(record: &Record<'_>, rules: &str, flags: Flags, out: &mut HeaderSlices<'_>) {
    for (name, value) in record.headers.iter() {
        // Only this stage speaks in these names.
        if !name.starts_with("tl-") {
            out.push(name, value);
        }
    }
    out.push_number(headers::ORIGIN, record.offset);
    out.push(headers::RULES, Some(rules.as_bytes()));
    if !flags.is_empty() {
        out.push(headers::FLAGS, Some(flags.to_string().as_bytes()));
    }
}

impl Stage for Validate {
    type Out = Messages;

    fn apply(&mut self, input: &In<'_>, out: &mut Messages) -> Result<Outcome, Refusal> {
        let record = &input.record;
        self.event_time = None;
        let Some(value) = record.value else {
            return self.control(record, input.kind, out);
        };
        let verdict = self.judge(record, input.kind, value)?;
        self.event_time = Some(verdict.venue_time);
        let flags = verdict.judgement.flags;
        let key = record.key.unwrap_or_default();
        let topic = OutTopic::Of(input.kind);
        out.push_parts(topic, Some(record.at.partition), key, None, Some(value), |out| {
            event_headers(record, &self.rules, flags, out);
        });
        if !flags.is_empty() {
            self.anomaly(record, input.kind, &verdict, out);
        }
        Ok(Outcome::Taken)
    }

    fn rejected(&mut self, input: &In<'_>, _: &Reject, out: &mut Messages) {
        let record = &input.record;
        let (topic, key) = (OutTopic::Of(input.kind), record.key.unwrap_or_default());
        out.push_parts(topic, Some(record.at.partition), key, None, None, |out| {
            marker(out, &self.rules, headers::outcome::QUARANTINED, record.offset, record.offset);
        });
    }

    fn skipped(&mut self, at: TopicPartition, first: i64, last: i64, out: &mut Messages) {
        let topic = OutTopic::Of(self.topics[at.topic as usize].kind);
        out.push_parts(topic, Some(at.partition), b"", None, None, |out| {
            marker(out, &self.rules, headers::outcome::SKIPPED, first, last);
        });
    }

    fn lost(&mut self, at: TopicPartition, first: i64, last: i64, out: &mut Messages) {
        let topic = OutTopic::Of(self.topics[at.topic as usize].kind);
        out.push_parts(topic, Some(at.partition), b"", None, None, |out| {
            marker(out, &self.rules, headers::outcome::LOST, first, last);
        });
    }

    fn learn(&mut self, kind: Kind, id: u32, schema: Option<&str>) {
        self.decoders.learn(kind, id, schema);
    }

    fn revoked(&mut self, at: TopicPartition) {
        self.memory.remove(&at);
    }

    fn event_time(&self) -> Option<Micros> {
        self.event_time
    }
}
