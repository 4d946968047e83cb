//! What the memory of a symbol says of one event of each kind.

use hashbrown::HashMap;
use tapeline_schemas::{
    Book, BookAction, Candle, Field, Flag, Level, Micros, Money, OptionData, Ticker, Trade,
};

use super::Settings;
use super::memory::{Judgement, SymbolMemory};
use crate::flow::Record;

/// What the rules and the memory say of one event.
pub(super) struct Verdict {
    pub(super) judgement: Judgement,
    pub(super) venue_time: Micros,
    pub(super) receive_time: Micros,
}

pub(super) fn remembered<'m>(
    symbols: &'m mut HashMap<Box<[u8]>, SymbolMemory>,
    record: &Record<'_>,
) -> &'m mut SymbolMemory {
    symbols.entry_ref(record.key.unwrap_or_default()).or_default()
}

pub(super) fn trade(
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
    Field::put(&trade, content);
    memory.identity(trade.trade_id.as_bytes(), content, settings, record, &mut judgement);
    if !judgement.flags.is_repeat() {
        memory.price("price", trade.price, settings, &mut judgement);
        memory.time(venue_time, receive_time, settings, &mut judgement);
    }
    Verdict { judgement, venue_time, receive_time }
}

pub(super) fn ticker(
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
        Field::put(&ticker, content);
        memory.identity(id.as_bytes(), content, settings, record, &mut judgement);
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

pub(super) fn book(
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
        Field::put(&book, content);
        memory.identity(id.as_bytes(), content, settings, record, &mut judgement);
    }
    if !judgement.flags.is_repeat() {
        if book.action != BookAction::Delta {
            let best = |levels: &[Level]| levels.first().map(|level| level.price);
            spread(best(&book.bids), best(&book.asks), &mut judgement);
        }
        memory.time(venue_time, receive_time, settings, &mut judgement);
    }
    Verdict { judgement, venue_time, receive_time }
}

pub(super) fn option(
    mut option: OptionData<'_>,
    memory: &mut SymbolMemory,
    content: &mut Vec<u8>,
    settings: &Settings,
    record: &Record<'_>,
) -> Verdict {
    let (venue_time, receive_time) = (option.venue_time, option.receive_time);
    let mut judgement = Judgement::default();
    if let Some(id) = option.event_id.clone() {
        option.receive_time = Micros(0);
        content.clear();
        Field::put(&option, content);
        memory.identity(id.as_bytes(), content, settings, record, &mut judgement);
    }
    if !judgement.flags.is_repeat() {
        memory.time(venue_time, receive_time, settings, &mut judgement);
    }
    Verdict { judgement, venue_time, receive_time }
}

/// A venue says the same window again and again while it is open, so a candle is itself by window and version.
pub(super) fn candle(
    mut candle: Candle<'_>,
    memory: &mut SymbolMemory,
    content: &mut Vec<u8>,
    settings: &Settings,
    record: &Record<'_>,
) -> Verdict {
    let (venue_time, receive_time) = (candle.open_time, candle.receive_time);
    let mut judgement = Judgement::default();
    let Candle { timeframe, is_final, revision, .. } = &candle;
    let id = format!("{timeframe}/{}/{is_final}/{revision}", venue_time.0);
    candle.receive_time = Micros(0);
    content.clear();
    Field::put(&candle, content);
    memory.identity(id.as_bytes(), content, settings, record, &mut judgement);
    Verdict { judgement, venue_time, receive_time }
}

fn spread(bid: Option<Money>, ask: Option<Money>, judgement: &mut Judgement) {
    if let (Some(bid), Some(ask)) = (bid, ask) {
        if bid > ask {
            judgement.add(Flag::Crossed, || format!("bid {bid} above ask {ask}"));
        } else if bid == ask {
            judgement.add(Flag::Locked, || format!("bid and ask both {bid}"));
        }
    }
}
