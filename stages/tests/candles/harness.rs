//! A log of one partition, an operator that is killed at will, and what is stored in the end.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use tapeline_schemas::*;
use tapeline_stages::candle::*;
use tapeline_stages::flow::*;
use tapeline_stages::messages::{Message, Messages, OutTopic};

pub(crate) const AT: TopicPartition = TopicPartition { topic: 0, partition: 0 };
pub(crate) const LATENESS: i64 = 5_000_000;
pub(crate) const MINUTE: i64 = 60_000_000;
/// 2021-04-17T00:00:00Z.
pub(crate) const T0: i64 = 1_618_617_600_000_000;
const SCHEMA_ID: u32 = 1;

/// A record as the log holds it.
#[derive(Debug, Clone)]
pub(crate) struct Logged {
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    pub(crate) append: i64,
    pub(crate) flags: Flags,
}

pub(crate) fn trade(venue: &str, symbol: &str, id: i64, time: i64, price: i64) -> Trade<'static> {
    let money = |mantissa: i64| Money::from_mantissa(i128::from(mantissa)).expect("small");
    Trade {
        exchange: Cow::Owned(venue.to_owned()),
        symbol: Cow::Owned(symbol.to_owned()),
        trade_id: Cow::Owned(id.to_string()),
        price: money(price),
        amount: money(price % 7 + 1),
        side: Side::Buy,
        kind: None,
        taker_or_maker: None,
        sequence: (id % 3 > 0).then_some(id % 5),
        venue_time: Micros(time),
        receive_time: Micros(time + 20_000),
    }
}

pub(crate) fn of_trade(trade: &Trade<'_>, flags: Flags, append: i64) -> Logged {
    let mut value = Vec::new();
    wire::put_header(SCHEMA_ID, &mut value);
    trade.put(&mut value);
    Logged { value: Some(value), headers: Vec::new(), append, flags }
}

pub(crate) fn of_control(control: &Control, append: i64) -> Logged {
    let headers =
        control.to_headers().into_iter().map(|(name, v)| (name.to_owned(), v.into_bytes()));
    Logged { value: None, headers: headers.collect(), append, flags: Flags::NONE }
}

/// A message of the lower level as the upper level reads it.
pub(crate) fn of_message(message: &Message) -> Logged {
    let value = message.value.as_ref().map(|payload| {
        let mut value = Vec::new();
        wire::put_header(SCHEMA_ID, &mut value);
        value.extend_from_slice(payload);
        value
    });
    Logged { value, headers: message.headers.clone(), append: 0, flags: Flags::NONE }
}

pub(crate) fn complete(venue: &str, through: i64) -> Control {
    Control::Complete { venue: venue.to_owned(), through: Micros(through) }
}

pub(crate) fn gap(
    venue: &str,
    symbol: &str,
    state: GapState,
    from: i64,
    to: Option<i64>,
) -> GapChange {
    GapChange {
        venue: venue.to_owned(),
        symbol: symbol.to_owned(),
        channel: "trade".to_owned(),
        state,
        from: Micros(from),
        to: to.map(Micros),
        cause: "disconnect".to_owned(),
        filled_by: None,
    }
}

/// How a batch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Committed,
    /// Its output is durable, its commit is not.
    KilledBeforeCommit,
    /// Nothing of it is durable.
    KilledBeforeWrite,
}

fn fresh<L: Tier>(note: Option<&str>) -> Candles<L> {
    let settings =
        Settings { topic: "in".to_owned(), lateness_micros: LATENESS, hold_micros: HOLD_MICROS };
    let mut stage = Candles::new(settings);
    stage.learn(L::KIND, SCHEMA_ID, Some(L::KIND.spec().schema));
    stage.assigned(AT, note);
    stage
}

fn apply<L: Tier>(stage: &mut Candles<L>, log: &[Logged], offset: usize, out: &mut Messages) {
    let logged = &log[offset];
    let mut chunk = Chunk::new(AT);
    let headers =
        logged.headers.iter().map(|(name, value)| (name.as_str(), Some(value.as_slice())));
    let append = Micros(logged.append);
    chunk.push(offset as i64, append, None, logged.value.as_deref(), headers);
    let checked = L::KIND == Kind::Trade;
    let input = In {
        record: chunk.record(0),
        kind: L::KIND,
        origin: offset as i64,
        origin_first: offset as i64,
        flags: logged.flags,
        marker: (checked && logged.value.is_none()).then_some(Marker::Control),
    };
    stage.apply(&input, out).expect("taken");
}

/// Runs a level over a log, in batches that end as `plan` says and then in one that commits.
/// Returns the durable messages, each with the offset of the record that made it.
pub(crate) fn drive<L: Tier>(log: &[Logged], plan: &[(usize, End)]) -> Vec<(i64, Message)> {
    let mut durable = Vec::new();
    let mut stage = fresh::<L>(None);
    let mut committed = Checkpoint::default();
    let mut offset = 0;
    let mut plan = plan.iter().copied();
    while offset < log.len() {
        let (length, end) = plan.next().unwrap_or((log.len(), End::Committed));
        let mut batch = Vec::new();
        for _ in 0..length.min(log.len() - offset) {
            let mut out = Messages::default();
            apply(&mut stage, log, offset, &mut out);
            batch.extend(out.iter().map(|message| {
                (offset as i64, message.to_message().expect("it names its partition"))
            }));
            offset += 1;
        }
        if end != End::KilledBeforeWrite {
            durable.extend(batch);
        }
        if end == End::Committed {
            committed = stage.checkpoint(AT, offset as i64);
            assert!(committed.note.len() <= 4_000 && committed.offset <= offset as i64);
        } else {
            let note = Some(committed.note.as_str()).filter(|note| !note.is_empty());
            stage = fresh::<L>(note);
            offset = committed.offset as usize;
        }
    }
    durable
}

/// What the database would hold.
#[derive(Debug, Default)]
pub(crate) struct World {
    trades: BTreeMap<(String, String, Micros, String), Bar>,
    pub(crate) candles: BTreeMap<(String, String, Timeframe, Micros), (Bar, Version)>,
    holes: BTreeMap<(String, String, Micros), GapChange>,
}

impl World {
    /// Stores every trade and every hole of a log.
    pub(crate) fn store(log: &[Logged]) -> World {
        let mut world = World::default();
        for (origin, logged) in (0..).zip(log) {
            let Some(value) = &logged.value else {
                let text = |name: &str| {
                    let found = logged.headers.iter().find(|(key, _)| *key == name)?;
                    std::str::from_utf8(&found.1).ok()
                };
                if let Ok(Control::Gap(gap)) = Control::from_headers(text) {
                    let key = (gap.venue.clone(), gap.symbol.clone(), gap.from);
                    world.holes.insert(key, gap);
                }
                continue;
            };
            if logged.flags.is_repeat() {
                continue;
            }
            let trade = Trade::decode(&value[5..]).expect("ours");
            let key = (
                trade.exchange.to_string(),
                trade.symbol.to_string(),
                trade.venue_time,
                trade.trade_id.to_string(),
            );
            world.trades.entry(key).or_insert_with(|| Bar::of_trade(&trade, origin));
        }
        world
    }

    /// Takes candles of the stream as the store does.
    pub(crate) fn take_candles<'m>(&mut self, messages: impl IntoIterator<Item = &'m Message>) {
        for message in messages {
            let (OutTopic::Of(Kind::Candle), Some(value)) = (message.topic, &message.value) else {
                continue;
            };
            let candle = Candle::decode(value).expect("ours");
            let key = (
                candle.exchange.to_string(),
                candle.symbol.to_string(),
                candle.timeframe.parse().expect("known"),
                candle.open_time,
            );
            let version = Version { is_final: candle.is_final, revision: candle.revision };
            let row = (Bar::of_candle(&candle), version);
            let known = self.candles.entry(key).or_insert(row);
            if known.1 < version {
                *known = row;
            }
        }
    }

    pub(crate) fn has_hole(&self, venue: &str, symbol: &str, start: Micros, end: Micros) -> bool {
        self.holes.values().any(|gap| {
            gap.state != GapState::Filled
                && (gap.venue.as_str(), gap.symbol.as_str()) == (venue, symbol)
                && gap.from < end
                && gap.to.is_none_or(|to| to > start)
        })
    }

    /// The candle of a window from all of its trades.
    pub(crate) fn recomputed(
        &self,
        venue: &str,
        symbol: &str,
        start: Micros,
        end: Micros,
    ) -> Option<Bar> {
        let trades = self.trades.iter().filter(|((v, s, time, _), _)| {
            v == venue && s == symbol && (start..end).contains(time)
        });
        Bar::sum(trades.map(|(_, bar)| *bar)).expect("fits")
    }

    /// Starts of the windows that hold trades.
    pub(crate) fn windows(&self, frame: Timeframe) -> BTreeSet<(String, String, Micros)> {
        let keys = self.trades.keys();
        keys.map(|(v, s, time, _)| (v.clone(), s.clone(), frame.start(*time))).collect()
    }

    /// Does what the reviser does; the revised candles as messages.
    pub(crate) fn revise(&mut self, dirty: &Dirty) -> Vec<Message> {
        let frame = dirty.frame().expect("valid");
        let (mut start, to) = dirty.range();
        let (venue, symbol) = (dirty.exchange.as_str(), dirty.symbol.as_str());
        let mut revised = Vec::new();
        while start < to {
            let (at, end) = (start, frame.end(start));
            start = end;
            let minutes: Vec<_> = self
                .candles
                .iter()
                .filter(|((v, s, f, time), _)| {
                    (v.as_str(), s.as_str(), *f) == (venue, symbol, Timeframe::M1)
                        && (at..end).contains(time)
                })
                .map(|(_, row)| *row)
                .collect();
            let (bar, all_final) = if frame == Timeframe::M1 {
                (self.recomputed(venue, symbol, at, end), true)
            } else {
                let all_final = minutes.iter().all(|(_, version)| version.is_final);
                (Bar::sum(minutes.iter().map(|(bar, _)| *bar)).expect("fits"), all_final)
            };
            let Some(bar) = bar else { continue };
            let key = (venue.to_owned(), symbol.to_owned(), frame, at);
            let whole = all_final && !self.has_hole(venue, symbol, at, end);
            let Some(version) = revise(self.candles.get(&key), &bar, whole) else { continue };
            let candle = bar.to_candle(venue, symbol, frame, at, version);
            self.candles.insert(key, (Bar::of_candle(&candle), version));
            revised.push(Message {
                topic: OutTopic::Of(Kind::Candle),
                partition: 0,
                key: Vec::new(),
                schema: Some(Kind::Candle),
                value: Some(encode(&candle)),
                headers: Vec::new(),
            });
        }
        revised
    }
}

/// The dirty record in a message, if it is one.
pub(crate) fn dirty_of(message: &Message) -> Option<Dirty> {
    let value = message.value.as_ref().filter(|_| message.topic == OutTopic::CandleDirty)?;
    Some(Dirty::read(value).expect("readable"))
}

/// Candles among messages: timeframe, start in minutes after `T0`, final, number of trades.
pub(crate) fn candles_of(messages: &[(i64, Message)]) -> Vec<(String, i64, bool, i64)> {
    let candles =
        messages.iter().filter(|(_, message)| message.topic == OutTopic::Of(Kind::Candle));
    candles
        .filter_map(|(_, message)| {
            let candle = Candle::decode(message.value.as_ref()?).expect("ours");
            let minute = (candle.open_time.0 - T0) / MINUTE;
            Some((candle.timeframe.to_string(), minute, candle.is_final, candle.trades_count))
        })
        .collect()
}
