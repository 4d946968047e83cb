//! Binance's past: aggregate trades and one-minute klines, as far back as the symbol is listed.
//! Documents: <https://github.com/binance/binance-spot-api-docs/blob/master/rest-api.md#market-data-endpoints>.
//!
//! `GET /api/v3/aggTrades?symbol=BTCUSDT&startTime=…&endTime=…&limit=1000`, then `fromId=…`, gives
//! `[{"a":12,"p":"57000.10","q":"0.5","f":1,"l":2,"T":1633998523960,"m":false,"M":true}]`: the stream's fields without
//! the symbol. Between `startTime` and `endTime` there may be an hour.
//!
//! `GET /api/v3/klines?symbol=BTCUSDT&interval=1m&startTime=…&endTime=…&limit=1000` gives
//! `[[1633998480000,"57000.00","57000.20","56999.90","57000.10","3.5",1633998539999,"199500.7",9,"2","114000.4","0"]]`.

use serde::Deserialize;
use serde::de::IgnoredAny;
use tapeline_schemas::{Kind, Micros, Timeframe};

use super::events::{aggregate, window};
use super::raw::{AggTrade, Kline};
use crate::venue::DecodeError;
use crate::venue::history::{Ask, History, Next, Offer, Page, Past, millis, owned, within};
use crate::venue::json::parse;

/// What is to be had.
pub(super) const OFFERS: &[Offer] = &[
    Offer { kind: Kind::Trade, numbered: true, history: || Box::new(Trades::default()) },
    Offer { kind: Kind::VenueCandle, numbered: true, history: || Box::new(Klines) },
];

/// Most rows of an answer.
const LIMIT: usize = 1_000;
/// Longest time between `startTime` and `endTime`.
const HOUR: i64 = Timeframe::H1.micros();

/// Goes by time to the first trade, then by id.
#[derive(Default)]
struct Trades {
    /// Start of the hour that was asked for; none once ids are known.
    hour: Option<Micros>,
}

impl Trades {
    fn by_time(&mut self, ask: &Ask, start: Micros) -> String {
        self.hour = Some(start);
        let end = start.plus(HOUR - 1_000).min(ask.to);
        format!(
            "/api/v3/aggTrades?symbol={}&startTime={}&endTime={}&limit={LIMIT}",
            ask.native,
            millis(start),
            millis(end)
        )
    }
}

impl History for Trades {
    fn first(&mut self, ask: &Ask) -> String {
        self.by_time(ask, ask.from)
    }

    fn decode(&mut self, ask: &Ask, body: &[u8], at: Micros) -> Result<Page, DecodeError> {
        let rows: Vec<AggTrade<'_>> = parse(body)?;
        let trades = rows.iter().map(|raw| aggregate(&ask.symbol, raw, at).map(owned));
        let trades = trades.collect::<Result<Vec<_>, _>>()?;
        let next = match (trades.last(), rows.last()) {
            (Some(last), Some(raw)) if last.venue_time <= ask.to => {
                let by_id = self.hour.take().is_none();
                if by_id && rows.len() < LIMIT {
                    Next::Done
                } else {
                    let id = raw.a.saturating_add(1);
                    Next::Page(format!(
                        "/api/v3/aggTrades?symbol={}&fromId={id}&limit={LIMIT}",
                        ask.native
                    ))
                }
            }
            (Some(_), _) => Next::Done,
            (None, _) => match self.hour.map(|hour| hour.plus(HOUR)) {
                Some(later) if later <= ask.to => Next::Page(self.by_time(ask, later)),
                _ => Next::Done,
            },
        };
        Ok(Page { events: within(ask, trades), next, through: None })
    }
}

struct Klines;

fn klines(ask: &Ask, from: Micros) -> String {
    format!(
        "/api/v3/klines?symbol={}&interval=1m&startTime={}&endTime={}&limit={LIMIT}",
        ask.native,
        millis(from),
        millis(ask.to)
    )
}

/// A row: open time, open, high, low, close, volume, close time, quote volume, trades, and what takers bought.
#[derive(Deserialize)]
struct Row<'a>(
    i64,
    #[serde(borrow)] std::borrow::Cow<'a, str>,
    #[serde(borrow)] std::borrow::Cow<'a, str>,
    #[serde(borrow)] std::borrow::Cow<'a, str>,
    #[serde(borrow)] std::borrow::Cow<'a, str>,
    #[serde(borrow)] std::borrow::Cow<'a, str>,
    i64,
    #[serde(borrow)] std::borrow::Cow<'a, str>,
    i32,
    IgnoredAny,
    IgnoredAny,
    IgnoredAny,
);

impl History for Klines {
    fn first(&mut self, ask: &Ask) -> String {
        klines(ask, ask.from)
    }

    fn decode(&mut self, ask: &Ask, body: &[u8], at: Micros) -> Result<Page, DecodeError> {
        let rows: Vec<Row<'_>> = parse(body)?;
        let mut events = Vec::with_capacity(rows.len());
        let (full, mut newest) = (rows.len() >= LIMIT, None);
        for Row(open_time, o, h, l, c, v, close_time, q, n, ..) in rows {
            newest = Some(Micros::from_millis(open_time));
            // The window that is still open is the stream's.
            let closed = Micros::from_millis(close_time) < ask.now;
            let raw = Kline { t: open_time, i: "1m".into(), o, c, h, l, v, q, n, x: true };
            let candle = window(&ask.symbol, &raw, at)?;
            if closed && candle.open_time <= ask.to {
                events.push(Past::Candle(candle));
            }
        }
        let next = newest.map(|newest| newest.plus(Timeframe::M1.micros()));
        Ok(Page {
            events,
            next: match next {
                Some(next) if full && next <= ask.to => Next::Page(klines(ask, next)),
                _ => Next::Done,
            },
            through: None,
        })
    }
}
