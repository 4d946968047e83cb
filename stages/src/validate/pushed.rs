//! Rules for what producers push: flows, predictions, accounts.
//!
//! Times are held against the receive time alone: orders of one symbol, or predictions of
//! several models, interleave, and none of them is out of order by that.

use hashbrown::HashMap;
use tapeline_schemas::{Flow, Micros, Money, Order, Portfolio, Position, Prediction, Record};

use super::memory::{Judgement, SymbolMemory, skew};
use super::rules::{names, not_negative, positive, range, routing, text, times};
use super::{Settings, Verdict, remembered};
use crate::flow;
use crate::flow::Reject;

/// What the rules ask of an event that producers push.
pub(super) trait Pushed<'a>: Record<'a> {
    /// Names and ranges, without times.
    fn rules(&self) -> Result<(), Reject>;
    /// The two parts of its key.
    fn key(&self) -> (&str, &str);
    /// What makes it itself; `None` where all of it does, since the newest state counts.
    fn identity(&self) -> Option<String> {
        None
    }
    /// Venue time and receive time.
    fn times(&self) -> (Micros, Micros);
    /// Empties the receive time: an event that is sent again has another.
    fn forget_receive_time(&mut self);
}

pub(super) fn judge<'a, T: Pushed<'a>>(
    payload: &'a [u8],
    record: &flow::Record<'_>,
    partitions: i32,
    symbols: &mut HashMap<Box<[u8]>, SymbolMemory>,
    content: &mut Vec<u8>,
    settings: &Settings,
) -> Result<Verdict, flow::Refusal> {
    let mut event = T::decode(payload).map_err(|error| Reject::new("decode", error))?;
    let (venue_time, receive_time) = event.times();
    event.rules()?;
    times(venue_time, receive_time, settings)?;
    let (first, second) = event.key();
    routing(record, first, second, partitions)?;
    event.forget_receive_time();
    content.clear();
    event.put(content);
    let mut judgement = Judgement::default();
    let memory = remembered(symbols, record);
    let identity = event.identity();
    let id = identity.as_deref().map_or(content.as_slice(), str::as_bytes);
    memory.identity(id, content, settings, record, &mut judgement);
    if !judgement.flags.is_repeat() {
        skew(venue_time, receive_time, settings, &mut judgement);
    }
    Ok(Verdict { judgement, venue_time, receive_time })
}

/// The times of an event, in fields that every kind has.
macro_rules! timed {
    () => {
        fn times(&self) -> (Micros, Micros) {
            (self.venue_time, self.receive_time)
        }

        fn forget_receive_time(&mut self) {
            self.receive_time = Micros(0);
        }
    };
}

/// A moment that is not the event's own: within the years that the event's own may be of.
fn moment(what: &str, time: Micros) -> Result<(), Reject> {
    match super::rules::TIME_RANGE.contains(&time) {
        true => Ok(()),
        false => Err(range(what, time.0, "microseconds of the years 1990 to 2199")),
    }
}

fn positive_or_none(what: &str, value: Option<Money>) -> Result<(), Reject> {
    value.map_or(Ok(()), |value| positive(what, value))
}

impl<'a> Pushed<'a> for Flow<'a> {
    fn rules(&self) -> Result<(), Reject> {
        names(&self.exchange, &self.symbol)?;
        moment("date", self.date)
    }

    fn key(&self) -> (&str, &str) {
        (&self.exchange, &self.symbol)
    }

    timed!();
}

impl<'a> Pushed<'a> for Prediction<'a> {
    fn rules(&self) -> Result<(), Reject> {
        names(&self.exchange, &self.symbol)?;
        text("model_id", &self.model_id)?;
        text("prediction_type", &self.prediction_type)?;
        if self.confidence < Money::ZERO || self.confidence > Money::ONE {
            return Err(range("confidence", self.confidence, "0 to 1"));
        }
        Ok(())
    }

    fn key(&self) -> (&str, &str) {
        (&self.exchange, &self.symbol)
    }

    fn identity(&self) -> Option<String> {
        let Prediction { model_id, prediction_type, venue_time, .. } = self;
        Some(format!("{model_id}\n{prediction_type}\n{}", venue_time.0))
    }

    timed!();
}

impl<'a> Pushed<'a> for Portfolio<'a> {
    fn rules(&self) -> Result<(), Reject> {
        if crate::store::uuid(&self.user_id).is_none() {
            return Err(range("user_id", format!("{:?}", self.user_id), "a uuid in small letters"));
        }
        text("asset_type", &self.asset_type)?;
        if self.asset_type.bytes().any(|byte| byte == b':' || byte.is_ascii_lowercase()) {
            let found = format!("{:?}", self.asset_type);
            return Err(range("asset_type", found, "upper case without a colon"));
        }
        not_negative("entry_price", Some(self.entry_price))?;
        not_negative("current_price", Some(self.current_price))
    }

    fn key(&self) -> (&str, &str) {
        (&self.user_id, &self.asset_type)
    }

    timed!();
}

impl<'a> Pushed<'a> for Position<'a> {
    fn rules(&self) -> Result<(), Reject> {
        names(&self.exchange, &self.symbol)?;
        self.margin_type.as_deref().map_or(Ok(()), |kind| text("margin_type", kind))?;
        not_negative("amount", Some(self.amount))?;
        positive("entry_price", self.entry_price)?;
        positive_or_none("mark_price", self.mark_price)?;
        positive_or_none("leverage", self.leverage)?;
        not_negative("liquidation_price", self.liquidation_price)?;
        moment("opened_at", self.opened_at)?;
        if self.is_closed() {
            let Some(closed) = self.closed_amount else {
                return Err(range("closed_amount", "missing", "the size that amount 0 closes"));
            };
            positive("closed_amount", closed)?;
            positive_or_none("exit_price", self.exit_price)?;
            if self.opened_at > self.venue_time {
                return Err(range("opened_at", self.opened_at.0, "no later than venue_time"));
            }
            return Ok(());
        }
        for (what, value) in [
            ("closed_amount", self.closed_amount),
            ("exit_price", self.exit_price),
            ("fees", self.fees),
        ] {
            value.map_or(Ok(()), |value| Err(range(what, value, "none while amount is not 0")))?;
        }
        Ok(())
    }

    fn key(&self) -> (&str, &str) {
        (&self.exchange, &self.symbol)
    }

    timed!();
}

impl<'a> Pushed<'a> for Order<'a> {
    fn rules(&self) -> Result<(), Reject> {
        names(&self.exchange, &self.symbol)?;
        text("exchange_order_id", &self.exchange_order_id)?;
        text("type", &self.kind)?;
        positive("amount", self.amount)?;
        positive_or_none("price", self.price)?;
        not_negative("filled_amount", Some(self.filled_amount))?;
        if self.filled_amount > self.amount {
            let expected = format!("at most the amount, {}", self.amount);
            return Err(range("filled_amount", self.filled_amount, &expected));
        }
        not_negative("remaining_amount", self.remaining_amount)?;
        positive_or_none("avg_fill_price", self.avg_fill_price)?;
        moment("created_at", self.created_at)
    }

    fn key(&self) -> (&str, &str) {
        (&self.exchange, &self.symbol)
    }

    timed!();
}
