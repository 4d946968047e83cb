//! OKX's past: trades of the last three months, newest first.
//! Documents: <https://www.okx.com/docs-v5/en/#order-book-trading-market-data-get-trades-history>.
//!
//! `GET /api/v5/market/history-trades?instId=BTC-USDT&type=2&after=1648177090001&limit=100` gives the trades before that
//! millisecond, then `type=1&after=<tradeId>` those before that one:
//! `{"code":"0","msg":"","data":[{"instId":"BTC-USDT","side":"sell","sz":"0.00001","px":"29963.2","source":"0","tradeId":"242720720","ts":"1648177090000"}]}`.
//! Each is a single trade, where the channel `trades` may put several together under the last one's id; whoever fills
//! a hole leaves out those that a trade of the feed holds. `/api/v5/market/history-candles` has no number of trades,
//! and is not read.

use std::borrow::Cow;

use serde::Deserialize;
use tapeline_schemas::{Kind, Micros};

use super::raw::RawTrade;
use super::traded;
use crate::venue::DecodeError;
use crate::venue::history::{Ask, History, Next, Offer, Page, millis, owned, within};
use crate::venue::json::parse;

/// What is to be had.
pub(super) const OFFERS: &[Offer] =
    &[Offer { kind: Kind::Trade, numbered: true, history: || Box::new(Trades) }];

/// Most rows of an answer.
const LIMIT: usize = 100;

struct Trades;

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    code: Cow<'a, str>,
    #[serde(borrow, default)]
    msg: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Vec<RawTrade<'a>>,
}

impl History for Trades {
    fn first(&mut self, ask: &Ask) -> String {
        format!(
            "/api/v5/market/history-trades?instId={}&type=2&after={}&limit={LIMIT}",
            ask.native,
            millis(ask.to).saturating_add(1)
        )
    }

    fn decode(&mut self, ask: &Ask, body: &[u8], at: Micros) -> Result<Page, DecodeError> {
        let answer: Answer<'_> = parse(body)?;
        if answer.code != "0" {
            return Err(DecodeError::Venue(format!("{} {}", answer.code, answer.msg)));
        }
        let trades = answer.data.iter().map(|raw| traded(&ask.symbol, raw, at).map(owned));
        let trades = trades.collect::<Result<Vec<_>, _>>()?;
        let next = match trades.last() {
            None => Next::Exhausted("OKX gives no older trades"),
            Some(oldest) if oldest.venue_time < ask.from => Next::Done,
            Some(oldest) => Next::Page(format!(
                "/api/v5/market/history-trades?instId={}&type=1&after={}&limit={LIMIT}",
                ask.native, oldest.trade_id
            )),
        };
        Ok(Page { events: within(ask, trades), next, through: None })
    }
}
