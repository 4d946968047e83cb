//! Asks a venue for its past, page by page, and publishes what is missing.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use sqlx::PgConnection;
use tapeline_schemas::{Kind, Micros, Money, Timeframe, encode};
use tracing::warn;

use super::runs::Evidence;
use super::{Counts, Span, stored};
use crate::config::Config;
use crate::connect;
use crate::kafka::RawPublisher;
use crate::venue::driver::{self, Clock, Rest, pause_before};
use crate::venue::{Ask, Connector, Next, Offer, Past, Settings, SymbolTable, VenueSpec};

/// Failures of one request, in a row and of the kind that may pass, after which the range is given up.
const MAX_FAILURES: u32 = 8;
/// What is asked for, and compared with what is stored, at once.
const CHUNK: i64 = Timeframe::H1.micros();

/// A venue that is asked.
pub(super) struct Source {
    pub(super) spec: &'static VenueSpec,
    connector: Box<dyn Connector>,
    rest: Rest,
    table: SymbolTable,
    clock: Arc<dyn Clock>,
}

impl Source {
    /// Gets the venue's table of `symbols`.
    pub(super) async fn open(
        config: &Config,
        spec: &'static VenueSpec,
        symbols: Vec<String>,
        clock: Arc<dyn Clock>,
    ) -> Result<Source> {
        let settings = Settings::new(symbols, vec![Kind::Trade]);
        let reached = connect::reached(config, spec.name, settings.clone())?;
        let connector = (spec.connector)(settings);
        let rest = reached.rest(connector.as_ref())?;
        let table = driver::symbols(&reached).await?;
        Ok(Source { spec, connector, rest, table, clock })
    }

    /// What the venue offers of a kind.
    pub(super) fn offer(&self, kind: Kind) -> Option<&'static Offer> {
        self.spec.history.iter().find(|offer| offer.kind == kind)
    }

    /// Now; none of a playback, which only says when its answers came.
    pub(super) fn now(&self) -> Option<Micros> {
        self.clock.receive_time(None)
    }

    /// Publishes what the venue has of `span` and the database has not; says how sure that is all.
    pub(super) async fn fill(
        &self,
        database: &mut PgConnection,
        publisher: &RawPublisher,
        span: &Span,
        offer: &Offer,
        counts: &mut Counts,
    ) -> Result<Evidence> {
        let native = self.table.find(self.spec.name, &span.symbol)?.code.clone();
        let mut evidence =
            Evidence { around: stored::around(database, span).await?, ..Evidence::default() };
        // The newest part first: who pages back by number goes on from there.
        let mut behind = evidence.around.1;
        let mut to = span.to;
        while to >= span.from {
            let from = to.plus(1 - CHUNK).max(span.from);
            let part = Span { from, to, ..span.clone() };
            let ask = Ask {
                symbol: span.symbol.clone(),
                native: native.clone(),
                from,
                to,
                now: self.now().unwrap_or(span.to),
                after: behind,
            };
            self.part(database, publisher, &part, &ask, offer, &mut evidence, counts).await?;
            behind = evidence.came.first().or(behind);
            to = from.plus(-1);
        }
        Ok(evidence)
    }

    #[allow(clippy::too_many_arguments)] // One call, naming every part.
    async fn part(
        &self,
        database: &mut PgConnection,
        publisher: &RawPublisher,
        part: &Span,
        ask: &Ask,
        offer: &Offer,
        evidence: &mut Evidence,
        counts: &mut Counts,
    ) -> Result<()> {
        let mut events = Vec::new();
        let asked = self.pages(ask, offer, evidence, &mut events).await;
        // Behind the last page, so that what the feed brought meanwhile is known. What came before a failure counts.
        let stored = stored::events(database, part).await?;
        stored.numbers.iter().for_each(|number| evidence.needs(*number));
        let mut known = Known { amounts: &stored.amounts, joined: Money::ZERO };
        for event in events {
            if known.has(&event) {
                counts.known += 1;
                continue;
            }
            publish(publisher, part, &event).await?;
            counts.published += 1;
        }
        let through = asked?;
        if !offer.numbered {
            evidence.reaches(part.end.min(part.to), through);
        }
        Ok(())
    }

    /// Gets all pages of a part; answers up to when they show that they are all.
    async fn pages(
        &self,
        ask: &Ask,
        offer: &Offer,
        evidence: &mut Evidence,
        events: &mut Vec<Past>,
    ) -> Result<Option<Micros>> {
        let mut history = (offer.history)();
        let mut path = history.first(ask);
        let mut through = None;
        loop {
            let (body, at) = self.answer(&path).await?;
            let page = history
                .decode(ask, &body, at)
                .with_context(|| format!("answer of {} to {path}", self.spec.name))?;
            if offer.numbered {
                let numbers = page.events.iter().filter_map(Past::number);
                numbers.for_each(|number| evidence.came.add(number));
            }
            events.extend(page.events);
            through = through.max(page.through);
            match page.next {
                Next::Page(next) if next == path => {
                    bail!("{} answers {path} without an end", self.spec.name)
                }
                Next::Page(next) => path = next,
                Next::Done => return Ok(through),
                Next::Exhausted(reason) => {
                    evidence.exhausted = Some(reason);
                    return Ok(through);
                }
            }
        }
    }

    /// An answer and when it came; what may pass is waited for, longer each time, and as long as the venue says.
    async fn answer(&self, path: &str) -> Result<(Vec<u8>, Micros)> {
        let mut failures = 0;
        loop {
            match self.rest.get(path, self.connector.weight(path)).await {
                Ok(answer) => {
                    let at = self.clock.receive_time(answer.announced);
                    return Ok((answer.body, at.context("an answer without a recorded time")?));
                }
                Err(error) if error.transient() && failures < MAX_FAILURES => {
                    failures += 1;
                    warn!(venue = self.spec.name, path, %error, failures, "no answer, trying again");
                    tokio::time::sleep(pause_before(failures)).await;
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("{} {path}", self.spec.name));
                }
            }
        }
    }
}

/// What is stored already, and what a stored trade holds of several.
struct Known<'a> {
    amounts: &'a std::collections::HashMap<String, Money>,
    /// How much of the newest stored trade that was met is not accounted for yet: the feed may put the trades right
    /// before it together under its id.
    joined: Money,
}

impl Known<'_> {
    fn has(&mut self, event: &Past) -> bool {
        let trade = match event {
            Past::Trade(trade) => trade,
            Past::Candle(candle) => {
                return self.amounts.contains_key(&candle.open_time.0.to_string());
            }
        };
        let left = |of: Money| of.checked_sub(trade.amount).unwrap_or(Money::ZERO);
        if let Some(amount) = self.amounts.get(trade.trade_id.as_ref()) {
            self.joined = left(*amount);
            return true;
        }
        if !self.joined.is_positive() {
            return false;
        }
        self.joined = left(self.joined);
        true
    }
}

async fn publish(publisher: &RawPublisher, span: &Span, event: &Past) -> Result<()> {
    let payload = match event {
        Past::Trade(trade) => encode(trade),
        Past::Candle(candle) => encode(candle),
    };
    publisher.event(span.kind, &span.key(), &payload).await.map_err(anyhow::Error::msg)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::HashMap;

    use tapeline_schemas::{Side, Trade};

    use super::*;

    fn trade(id: u32, amount: &str) -> Past {
        Past::Trade(Trade {
            exchange: Cow::Borrowed("OKX"),
            symbol: Cow::Borrowed("BTC-USDT"),
            trade_id: Cow::Owned(id.to_string()),
            price: Money::parse(b"1").expect("money"),
            amount: Money::parse(amount.as_bytes()).expect("money"),
            side: Side::Buy,
            kind: None,
            taker_or_maker: None,
            sequence: Some(i64::from(id)),
            venue_time: Micros(0),
            receive_time: Micros(0),
        })
    }

    #[test]
    fn trades_that_the_feed_put_together_are_not_published_a_second_time() {
        let money = |text: &str| Money::parse(text.as_bytes()).expect("money");
        let amounts = HashMap::from([("9".to_owned(), money("0.6")), ("5".to_owned(), money("2"))]);
        let mut known = Known { amounts: &amounts, joined: Money::ZERO };
        let past = [(10, "7"), (9, "0.1"), (8, "0.2"), (7, "0.3"), (6, "0.1"), (5, "2"), (4, "1")];
        let has: Vec<bool> =
            past.iter().map(|(id, amount)| known.has(&trade(*id, amount))).collect();
        assert_eq!(has, [false, true, true, true, false, true, false]);
    }
}
