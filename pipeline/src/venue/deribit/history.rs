//! Deribit's past: trades of one instrument, of the last 24 hours.
//! Documents: <https://docs.deribit.com/api-reference/market-data/public-get_last_trades_by_instrument_and_time>,
//! <https://docs.deribit.com/api-reference/market-data/public-get_last_trades_by_instrument>, and on how long trades
//! are kept <https://docs.deribit.com/articles/accessing-historical-trades-orders>.
//!
//! `GET /api/v2/public/get_last_trades_by_instrument_and_time?instrument_name=BTC-PERPETUAL&start_timestamp=…&end_timestamp=…&count=1000&sorting=asc`,
//! then `get_last_trades_by_instrument?…&start_seq=…`, gives
//! `{"jsonrpc":"2.0","result":{"trades":[{"trade_seq":30289442,"trade_id":"48079269","timestamp":1590484512188,"tick_direction":2,"price":8950.0,"mark_price":8948.9,"instrument_name":"BTC-PERPETUAL","index_price":8955.88,"direction":"sell","amount":10.0}],"has_more":true}}`:
//! the feed's fields. Its candles have no number of trades and are not read.

use serde::Deserialize;
use tapeline_schemas::{Kind, Micros, Timeframe};

use super::raw::RawTrade;
use super::traded;
use crate::venue::DecodeError;
use crate::venue::history::{Ask, History, Next, Offer, Page, millis, owned, within};
use crate::venue::json::parse;

/// What is to be had.
pub(super) const OFFERS: &[Offer] =
    &[Offer { kind: Kind::Trade, numbered: true, history: || Box::new(Trades) }];

/// Most rows of an answer.
const LIMIT: usize = 1_000;
/// How long trades are kept where everybody may ask for them.
const KEPT: i64 = Timeframe::D1.micros();

struct Trades;

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    result: Found<'a>,
}

#[derive(Deserialize)]
struct Found<'a> {
    #[serde(borrow)]
    trades: Vec<RawTrade<'a>>,
    #[serde(default)]
    has_more: bool,
}

impl History for Trades {
    fn first(&mut self, ask: &Ask) -> String {
        format!(
            "/api/v2/public/get_last_trades_by_instrument_and_time?instrument_name={}\
             &start_timestamp={}&end_timestamp={}&count={LIMIT}&sorting=asc",
            ask.native,
            millis(ask.from),
            millis(ask.to)
        )
    }

    fn decode(&mut self, ask: &Ask, body: &[u8], at: Micros) -> Result<Page, DecodeError> {
        let Answer { result } = parse(body)?;
        let trades = result.trades.iter().map(|raw| traded(&ask.symbol, raw, at).map(owned));
        let trades = trades.collect::<Result<Vec<_>, _>>()?;
        let next = match (trades.last(), result.trades.last()) {
            (Some(last), Some(raw)) if result.has_more && last.venue_time <= ask.to => {
                let next = raw.trade_seq.saturating_add(1);
                Next::Page(format!(
                    "/api/v2/public/get_last_trades_by_instrument?instrument_name={}\
                     &start_seq={next}&count={LIMIT}&sorting=asc",
                    ask.native
                ))
            }
            _ if at.since(ask.from) > KEPT => {
                Next::Exhausted("Deribit gives trades of the last 24 hours only")
            }
            _ => Next::Done,
        };
        Ok(Page { events: within(ask, trades), next, through: None })
    }
}
