//! Coinbase's past: trades back to the product's first, newest first, paged by trade id.
//! Documents: <https://docs.cdp.coinbase.com/api-reference/exchange-api/rest-api/products/get-product-trades>,
//! <https://docs.cdp.coinbase.com/exchange/rest-api/pagination>.
//!
//! `GET /products/BTC-USD/trades?limit=1000&after=74` gives the trades before number 74:
//! `[{"time":"2021-10-11T23:11:19.028459Z","trade_id":73,"price":"57000.10","size":"0.01","side":"sell"}]`; as in the
//! feed, the side is the maker's. `/products/BTC-USD/candles` has no quote volume and no number of trades, which the
//! kind `venue_candle` says of each, and is not read.

use tapeline_schemas::{Kind, Micros};

use super::matched;
use super::raw::Match;
use crate::venue::DecodeError;
use crate::venue::history::{Ask, History, Next, Offer, Page, owned, within};
use crate::venue::json::parse;

/// What is to be had.
pub(super) const OFFERS: &[Offer] =
    &[Offer { kind: Kind::Trade, numbered: true, history: || Box::new(Trades) }];

/// Most rows of an answer.
const LIMIT: usize = 1_000;

struct Trades;

fn before(ask: &Ask, id: i64) -> String {
    format!("/products/{}/trades?limit={LIMIT}&after={id}", ask.native)
}

impl History for Trades {
    fn first(&mut self, ask: &Ask) -> String {
        match ask.after {
            Some(id) => before(ask, id),
            None => format!("/products/{}/trades?limit={LIMIT}", ask.native),
        }
    }

    fn decode(&mut self, ask: &Ask, body: &[u8], at: Micros) -> Result<Page, DecodeError> {
        let rows: Vec<Match<'_>> = parse(body)?;
        let trades = rows.iter().map(|raw| matched(&ask.symbol, raw, at).map(owned));
        let trades = trades.collect::<Result<Vec<_>, _>>()?;
        let next = match (trades.last(), rows.last()) {
            (Some(oldest), Some(raw)) if oldest.venue_time >= ask.from && raw.trade_id > 1 => {
                Next::Page(before(ask, raw.trade_id))
            }
            (Some(_), _) => Next::Done,
            (None, _) => Next::Exhausted("Coinbase gives no older trades"),
        };
        Ok(Page { events: within(ask, trades), next, through: None })
    }
}
