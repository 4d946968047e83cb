//! Upbit's past: trades of the last seven days, newest first, a UTC day at a time.
//! Documents: <https://docs.upbit.com/kr/v1.5.9/reference/최근-체결-내역>.
//!
//! `GET /v1/trades/ticks?market=KRW-BTC&count=500&days_ago=1&to=23:59:49`, then `cursor=<sequential_id>`, gives
//! `[{"market":"KRW-BTC","trade_date_utc":"2021-04-17","trade_time_utc":"16:51:02","timestamp":1618678262000,"trade_price":76580000.0,"trade_volume":0.01,"prev_closing_price":77021000.00000000,"change_price":-441000.00000000,"ask_bid":"BID","sequential_id":1618678262000003}]`.
//! Its candles have no number of trades and are not read.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use tapeline_schemas::{Kind, Micros, Timeframe};

use super::traded;
use crate::venue::DecodeError;
use crate::venue::history::{Ask, History, Next, Offer, Page, owned, within};
use crate::venue::json::parse;

/// What is to be had.
pub(super) const OFFERS: &[Offer] =
    &[Offer { kind: Kind::Trade, numbered: false, history: || Box::new(Trades::default()) }];

/// Most rows of an answer.
const LIMIT: usize = 500;
/// Oldest day, counted back from today.
const DAYS_KEPT: i64 = 7;
const TOO_OLD: &str = "Upbit gives trades of the last seven days only";
const SECOND: i64 = 1_000_000;

/// Pages back through one day, then through the day before.
#[derive(Default)]
struct Trades {
    /// Day since the epoch that is read.
    day: i64,
}

#[derive(Deserialize)]
struct Row<'a> {
    timestamp: i64,
    #[serde(borrow)]
    trade_price: &'a RawValue,
    #[serde(borrow)]
    trade_volume: &'a RawValue,
    #[serde(borrow)]
    ask_bid: Cow<'a, str>,
    sequential_id: i64,
}

fn day(at: Micros) -> i64 {
    at.0.div_euclid(Timeframe::D1.micros())
}

impl Trades {
    /// A request within the day, where the venue still has it.
    fn page(&self, ask: &Ask, now: Micros, place: &str) -> Next {
        let ago = day(now) - self.day;
        if ago > DAYS_KEPT {
            return Next::Exhausted(TOO_OLD);
        }
        let ago = if ago > 0 { format!("&days_ago={ago}") } else { String::new() };
        Next::Page(format!("/v1/trades/ticks?market={}&count={LIMIT}{ago}{place}", ask.native))
    }
}

impl History for Trades {
    fn first(&mut self, ask: &Ask) -> String {
        let to = ask.to.min(ask.now);
        self.day = day(to);
        // The second after, as the venue counts whole ones; the day's last needs no saying.
        let second = to.0.rem_euclid(Timeframe::D1.micros()) / SECOND + 1;
        let (hour, minute, rest) = (second / 3_600, second / 60 % 60, second % 60);
        let place =
            if hour < 24 { format!("&to={hour:02}:{minute:02}:{rest:02}") } else { String::new() };
        match self.page(ask, ask.now, &place) {
            Next::Page(path) => path,
            // Too old: the venue's answer to the oldest day says so.
            _ => {
                format!("/v1/trades/ticks?market={}&count=1&days_ago={DAYS_KEPT}", ask.native)
            }
        }
    }

    fn decode(&mut self, ask: &Ask, body: &[u8], at: Micros) -> Result<Page, DecodeError> {
        let rows: Vec<Row<'_>> = parse(body)?;
        let mut trades = Vec::with_capacity(rows.len());
        for raw in &rows {
            let id = raw.sequential_id;
            let time = Micros::from_millis(raw.timestamp);
            let figures = (raw.trade_price, raw.trade_volume);
            trades.push(owned(traded(&ask.symbol, id, time, figures, &raw.ask_bid, at)?));
        }
        let oldest = trades.last().map(|trade| (trade.venue_time, trade.sequence));
        let next = match oldest {
            _ if day(at) - self.day > DAYS_KEPT => Next::Exhausted(TOO_OLD),
            Some((time, _)) if time < ask.from => Next::Done,
            Some((_, Some(id))) => self.page(ask, at, &format!("&cursor={id}")),
            _ if self.day <= day(ask.from) => Next::Done,
            _ => {
                self.day -= 1;
                self.page(ask, at, "")
            }
        };
        // Newest first, from a moment of the venue's own clock on: what there is up to it comes before any other.
        let through = oldest.map(|_| ask.to.min(ask.now));
        Ok(Page { events: within(ask, trades), next, through })
    }
}
