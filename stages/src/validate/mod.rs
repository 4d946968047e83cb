//! Raw records to checked records, one to one (C2; invariants 3 and 4).
//!
//! Rules without memory put a record in quarantine; what needs memory is a flag in the
//! checked record's headers and an anomaly, and is never judged again.

mod memory;
mod pushed;
mod robust;
mod rules;
mod settings;

use hashbrown::HashMap;
use tapeline_schemas::{
    Anomaly, Book, Candle, Control, Flag, Flags, Flow, Gap, GapChange, Kind, Micros, OptionData,
    Order, Portfolio, Position, Prediction, Record as _, Ticker, Trade, encode, headers,
};

use self::memory::{Judgement, SymbolMemory};
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

/// What the rules and the memory say of one event.
struct Verdict {
    judgement: Judgement,
    venue_time: Micros,
    receive_time: Micros,
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
                Ok(judge_trade(trade, remembered(symbols, record), content, settings, record))
            }
            Kind::Ticker => {
                let ticker = Ticker::decode(payload).map_err(decoded)?;
                rules::ticker(&ticker, settings)?;
                rules::routing(record, &ticker.exchange, &ticker.symbol, partitions)?;
                Ok(judge_ticker(ticker, remembered(symbols, record), content, settings, record))
            }
            Kind::Book => {
                let book = Book::decode(payload).map_err(decoded)?;
                rules::book(&book, settings)?;
                rules::routing(record, &book.exchange, &book.symbol, partitions)?;
                Ok(judge_book(book, remembered(symbols, record), content, settings, record))
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
                Ok(judge_option(option, remembered(symbols, record), content, settings))
            }
            Kind::VenueCandle => {
                let candle = Candle::decode(payload).map_err(decoded)?;
                rules::venue_candle(&candle)?;
                rules::routing(record, &candle.exchange, &candle.symbol, partitions)?;
                Ok(judge_candle(candle, remembered(symbols, record), content, settings))
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

fn remembered<'m>(
    symbols: &'m mut HashMap<Box<[u8]>, SymbolMemory>,
    record: &Record<'_>,
) -> &'m mut SymbolMemory {
    symbols.entry_ref(record.key.unwrap_or_default()).or_default()
}

fn judge_trade(
    mut trade: Trade<'_>,
    memory: &mut SymbolMemory,
    content: &mut Vec<u8>,
    settings: &Settings,
    record: &Record<'_>,
) -> Verdict {
    let (venue_time, receive_time) = (trade.venue_time, trade.receive_time);
    let mut judgement = Judgement::default();
    trade.receive_time = Micros(0);
    content.clear();
    tapeline_schemas::Field::put(&trade, content);
    memory.identity(trade.trade_id.as_bytes(), content, settings, &mut judgement);
    pardon(&mut judgement, record);
    if !judgement.flags.is_repeat() {
        memory.price("price", trade.price, settings, &mut judgement);
        memory.time(venue_time, receive_time, settings, &mut judgement);
    }
    Verdict { judgement, venue_time, receive_time }
}

fn judge_ticker(
    mut ticker: Ticker<'_>,
    memory: &mut SymbolMemory,
    content: &mut Vec<u8>,
    settings: &Settings,
    record: &Record<'_>,
) -> Verdict {
    let (venue_time, receive_time) = (ticker.venue_time, ticker.receive_time);
    let mut judgement = Judgement::default();
    if let Some(id) = ticker.event_id.clone() {
        // Without a time of the venue's own, both connectors stamp their receive time.
        (ticker.venue_time, ticker.receive_time) = (Micros(0), Micros(0));
        content.clear();
        tapeline_schemas::Field::put(&ticker, content);
        memory.identity(id.as_bytes(), content, settings, &mut judgement);
        pardon(&mut judgement, record);
    }
    if !judgement.flags.is_repeat() {
        spread(ticker.bid, ticker.ask, &mut judgement);
        if let Some(price) = ticker.last.or(ticker.bid) {
            memory.price("last", price, settings, &mut judgement);
        }
        memory.time(venue_time, receive_time, settings, &mut judgement);
    }
    Verdict { judgement, venue_time, receive_time }
}

fn judge_book(
    mut book: Book<'_>,
    memory: &mut SymbolMemory,
    content: &mut Vec<u8>,
    settings: &Settings,
    record: &Record<'_>,
) -> Verdict {
    let (venue_time, receive_time) = (book.venue_time, book.receive_time);
    let mut judgement = Judgement::default();
    if let Some(id) = book.event_id.clone() {
        let id = format!("{}/{id}", book.action.name());
        (book.venue_time, book.receive_time) = (Micros(0), Micros(0));
        content.clear();
        tapeline_schemas::Field::put(&book, content);
        memory.identity(id.as_bytes(), content, settings, &mut judgement);
        pardon(&mut judgement, record);
    }
    if !judgement.flags.is_repeat() {
        if book.action != tapeline_schemas::BookAction::Delta {
            let best = |levels: &[tapeline_schemas::Level]| levels.first().map(|level| level.price);
            spread(best(&book.bids), best(&book.asks), &mut judgement);
        }
        memory.time(venue_time, receive_time, settings, &mut judgement);
    }
    Verdict { judgement, venue_time, receive_time }
}

/// A record sent again from quarantine repeats the one that a sink refused. Flagged as a duplicate
/// nobody would take it; whether its event is there after all, the sinks' keys tell.
fn pardon(judgement: &mut Judgement, record: &Record<'_>) {
    if judgement.flags.is_repeat() && record.headers.text(headers::RETRY_OF).is_some() {
        *judgement = Judgement::default();
    }
}

fn judge_option(
    mut option: OptionData<'_>,
    memory: &mut SymbolMemory,
    content: &mut Vec<u8>,
    settings: &Settings,
) -> Verdict {
    let (venue_time, receive_time) = (option.venue_time, option.receive_time);
    let mut judgement = Judgement::default();
    if let Some(id) = option.event_id.clone() {
        option.receive_time = Micros(0);
        content.clear();
        tapeline_schemas::Field::put(&option, content);
        memory.identity(id.as_bytes(), content, settings, &mut judgement);
    }
    if !judgement.flags.is_repeat() {
        memory.time(venue_time, receive_time, settings, &mut judgement);
    }
    Verdict { judgement, venue_time, receive_time }
}

/// A venue says the same window again and again while it is open, so a candle is itself by window and version.
fn judge_candle(
    mut candle: Candle<'_>,
    memory: &mut SymbolMemory,
    content: &mut Vec<u8>,
    settings: &Settings,
) -> Verdict {
    let (venue_time, receive_time) = (candle.open_time, candle.receive_time);
    let mut judgement = Judgement::default();
    let Candle { timeframe, is_final, revision, .. } = &candle;
    let id = format!("{timeframe}/{}/{is_final}/{revision}", venue_time.0);
    candle.receive_time = Micros(0);
    content.clear();
    tapeline_schemas::Field::put(&candle, content);
    memory.identity(id.as_bytes(), content, settings, &mut judgement);
    Verdict { judgement, venue_time, receive_time }
}

fn spread(
    bid: Option<tapeline_schemas::Money>,
    ask: Option<tapeline_schemas::Money>,
    judgement: &mut Judgement,
) {
    if let (Some(bid), Some(ask)) = (bid, ask) {
        if bid > ask {
            judgement.add(Flag::Crossed, || format!("bid {bid} above ask {ask}"));
        } else if bid == ask {
            judgement.add(Flag::Locked, || format!("bid and ask both {bid}"));
        }
    }
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
