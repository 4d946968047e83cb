//! What a window's trades add up to, whatever order they arrive in (invariant 7).

use std::borrow::Cow;

use tapeline_schemas::{Candle, CandleSource, Micros, Money, Timeframe, Trade, Wide};

use crate::flow::Reject;

/// Reason for figures that no longer fit their type.
pub const RANGE: &str = "range";

/// Where a trade stands among the trades of its symbol. Sequence and origin are columns, so the
/// database orders trades alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The venue's time.
    pub time: Micros,
    /// The venue's sequence, 0 where it gives none.
    pub sequence: i64,
    /// The raw offset.
    pub origin: i64,
}

/// The figures of a set of trades.
///
/// [`Bar::merge`] is commutative and associative: trades, minutes and the database's rows may be
/// added up in any order and give the same bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// Price of the first trade.
    pub open: Money,
    /// Highest price.
    pub high: Money,
    /// Lowest price.
    pub low: Money,
    /// Price of the last trade.
    pub close: Money,
    /// Sum of amounts.
    pub volume: Money,
    /// Sum of price times amount.
    pub quote_volume: Wide,
    /// Number of trades.
    pub trades_count: i64,
    /// Newest receive time.
    pub receive_time: Micros,
    /// Place of the first trade.
    pub first: Place,
    /// Place of the last trade.
    pub last: Place,
}

impl Bar {
    /// The bar of a single trade.
    pub fn of_trade(trade: &Trade<'_>, origin: i64) -> Bar {
        let place = Place { time: trade.venue_time, sequence: trade.sequence.unwrap_or(0), origin };
        Bar::of(trade.price, trade.amount, place, trade.receive_time)
    }

    /// The bar of a single trade, by its figures.
    pub fn of(price: Money, amount: Money, place: Place, receive_time: Micros) -> Bar {
        Bar {
            open: price,
            high: price,
            low: price,
            close: price,
            volume: amount,
            quote_volume: Wide::product(price, amount),
            trades_count: 1,
            receive_time,
            first: place,
            last: place,
        }
    }

    /// The bar of a finished candle. It stands where its window starts: windows of one timeframe
    /// do not overlap, so that orders them as their trades.
    pub fn of_candle(candle: &Candle<'_>) -> Bar {
        let place = Place { time: candle.open_time, sequence: 0, origin: 0 };
        Bar {
            open: candle.open,
            high: candle.high,
            low: candle.low,
            close: candle.close,
            volume: candle.volume,
            quote_volume: candle.quote_volume,
            trades_count: candle.trades_count,
            receive_time: candle.receive_time,
            first: place,
            last: place,
        }
    }

    /// The bar of both sets of trades. Sums that no longer fit are refused, not rounded
    /// (invariant 10).
    pub fn merge(&self, other: &Bar) -> Result<Bar, Reject> {
        let range = |what: &str| Reject::new(RANGE, format!("{what} no longer fits its digits"));
        let (first, last) = (
            if other.first < self.first { other } else { self },
            if other.last > self.last { other } else { self },
        );
        Ok(Bar {
            open: first.open,
            high: self.high.max(other.high),
            low: self.low.min(other.low),
            close: last.close,
            volume: self.volume.checked_add(other.volume).ok_or_else(|| range("volume"))?,
            quote_volume: self
                .quote_volume
                .checked_add(other.quote_volume)
                .ok_or_else(|| range("quote volume"))?,
            trades_count: self
                .trades_count
                .checked_add(other.trades_count)
                .ok_or_else(|| range("number of trades"))?,
            receive_time: self.receive_time.max(other.receive_time),
            first: first.first,
            last: last.last,
        })
    }

    /// The bar of all of `bars`; none of nothing.
    pub fn sum(bars: impl IntoIterator<Item = Bar>) -> Result<Option<Bar>, Reject> {
        let mut bars = bars.into_iter();
        let Some(first) = bars.next() else { return Ok(None) };
        bars.try_fold(first, |sum, bar| sum.merge(&bar)).map(Some)
    }

    /// The candle of the window that starts at `start`.
    pub fn to_candle<'a>(
        &self,
        venue: &'a str,
        symbol: &'a str,
        frame: Timeframe,
        start: Micros,
        version: Version,
    ) -> Candle<'a> {
        Candle {
            exchange: Cow::Borrowed(venue),
            symbol: Cow::Borrowed(symbol),
            timeframe: Cow::Borrowed(frame.name()),
            source: CandleSource::Tapeline,
            open_time: start,
            close_time: frame.end(start),
            open: self.open,
            high: self.high,
            low: self.low,
            close: self.close,
            volume: self.volume,
            quote_volume: self.quote_volume,
            trades_count: self.trades_count,
            is_final: version.is_final,
            revision: version.revision,
            receive_time: self.receive_time,
        }
    }

    /// Whether both would be written as the same candle.
    pub fn same_figures(&self, other: &Bar) -> bool {
        Bar { first: other.first, last: other.last, ..*self } == *other
    }
}

/// A candle's version: the higher revision wins, then a final one beats an incomplete one. The
/// stream makes revision 0 only; the database owns the others and computes each from all that is
/// stored by then, so content never goes back: not even where the stream calls its candle final
/// and knows less of a hole that was opened since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Number of corrections.
    pub revision: i32,
    /// No hole of the feed is open over the window.
    pub is_final: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bars() -> impl Strategy<Value = Vec<Bar>> {
        let one = (1_i128..1_000, 1_i128..1_000, 0_i64..5, 0_i64..3, 0_i64..100);
        proptest::collection::vec(one, 1..20).prop_map(|trades| {
            let money = |mantissa| Money::from_mantissa(mantissa).expect("small");
            let bar = |(origin, (price, amount, time, sequence, received))| {
                let place = Place { time: Micros(time), sequence, origin };
                Bar::of(money(price), money(amount), place, Micros(received))
            };
            (0_i64..).zip(trades).map(bar).collect()
        })
    }

    proptest! {
        #[test]
        fn open_and_close_are_those_of_the_order_of_trades_and_not_of_arrival(
            bars in bars(), shuffled in any::<prop::sample::Index>()
        ) {
            let mut ordered = bars.clone();
            ordered.sort_by_key(|bar| bar.first);
            let sum = Bar::sum(ordered.clone()).expect("fits").expect("some");
            prop_assert_eq!(sum.open, ordered[0].open);
            prop_assert_eq!(sum.close, ordered[ordered.len() - 1].close);
            let mut turned = bars.clone();
            turned.rotate_left(shuffled.index(bars.len()));
            prop_assert_eq!(Bar::sum(turned), Ok(Some(sum)));
            let (left, right) = bars.split_at(shuffled.index(bars.len()));
            let halves = [left, right].map(|half| Bar::sum(half.to_vec()).expect("fits"));
            prop_assert_eq!(Bar::sum(halves.into_iter().flatten()), Ok(Some(sum)));
        }
    }

    #[test]
    fn a_volume_that_does_not_fit_is_refused() {
        let most = Money::from_mantissa(10_i128.pow(38) - 1).expect("the largest");
        let place = Place { time: Micros(0), sequence: 0, origin: 0 };
        let bar = Bar::of(Money::ONE, most, place, Micros(0));
        assert_eq!(bar.merge(&bar).map_err(|reject| reject.reason), Err(RANGE));
    }
}
