//! A rolling robust estimate of a price: median and median absolute deviation.

/// Prices that the estimate remembers. Odd, so that the median is one of them.
const WINDOW: usize = 31;
/// Prices it must have seen before it judges.
const MINIMUM: usize = 8;
/// A quiet market's deviation is taken to be at least this part of the price: one tick of a coarse
/// price grid (126, 127) is no jump.
const FLOOR_PARTS: i128 = 400;

/// The last `WINDOW` prices of one symbol, as mantissas.
#[derive(Debug, Clone)]
pub struct Estimate {
    recent: [i128; WINDOW],
    sorted: [i128; WINDOW],
    len: usize,
    next: usize,
}

impl Default for Estimate {
    fn default() -> Estimate {
        Estimate { recent: [0; WINDOW], sorted: [0; WINDOW], len: 0, next: 0 }
    }
}

impl Estimate {
    /// The median and the deviations that `price` lies from it, if that is more than `limit`.
    pub fn judge(&self, price: i128, limit: u32) -> Option<(i128, i128)> {
        if self.len < MINIMUM {
            return None;
        }
        let median = self.sorted[self.len / 2];
        let distance = (price - median).abs();
        let floor = (median.abs() / FLOOR_PARTS).max(1);
        // Most prices end here, without the deviation.
        if distance <= floor.saturating_mul(i128::from(limit)) {
            return None;
        }
        let deviation = self.deviation(median).max(floor);
        (distance > deviation.saturating_mul(i128::from(limit)))
            .then_some((median, distance / deviation))
    }

    /// Remembers a price, also one that was judged odd: after a real change of level the
    /// median follows within half a window.
    pub fn push(&mut self, price: i128) {
        if self.len == WINDOW {
            let oldest = self.recent[self.next];
            let at = self.sorted.partition_point(|&p| p < oldest);
            self.sorted.copy_within(at + 1.., at);
            self.len -= 1;
        }
        let at = self.sorted[..self.len].partition_point(|&p| p < price);
        self.sorted.copy_within(at..self.len, at + 1);
        self.sorted[at] = price;
        self.len += 1;
        self.recent[self.next] = price;
        self.next = (self.next + 1) % WINDOW;
    }

    /// Median of the distances to the median: both ends of a sorted row, taken in order.
    fn deviation(&self, median: i128) -> i128 {
        let (below, above) = self.sorted[..self.len].split_at(self.len / 2);
        let mut below = below.iter().rev().map(|price| median - price).peekable();
        let mut above = above.iter().map(|price| price - median).peekable();
        let mut distance = 0;
        for _ in 0..=self.len / 2 {
            let nearest = match (below.peek(), above.peek()) {
                (Some(low), Some(high)) if low < high => below.next(),
                (Some(_), None) => below.next(),
                _ => above.next(),
            };
            distance = nearest.unwrap_or(distance);
        }
        distance
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(prices: &[i128]) -> Estimate {
        let mut estimate = Estimate::default();
        prices.iter().for_each(|&price| estimate.push(price));
        estimate
    }

    #[test]
    fn a_tick_ten_times_off_is_odd_and_a_lively_market_is_not() {
        let calm = filled(&[1000, 1001, 999, 1000, 1002, 998, 1000, 1001, 1000]);
        assert!(calm.judge(10_000, 12).is_some());
        assert!(calm.judge(100, 12).is_some());
        assert_eq!(calm.judge(1020, 12), None);
        let coarse = filled(&[126; WINDOW]);
        assert_eq!(coarse.judge(127, 12), None, "one tick");
        let lively = filled(&[1000, 1100, 950, 1200, 900, 1150, 1000, 1080, 990]);
        assert_eq!(lively.judge(1500, 12), None);
    }

    #[test]
    fn a_new_level_is_followed() {
        let mut estimate = filled(&[1000; WINDOW]);
        assert!(estimate.judge(2000, 12).is_some());
        (0..WINDOW / 2 + 1).for_each(|_| estimate.push(2000));
        assert_eq!(estimate.judge(2000, 12), None);
    }

    proptest! {
        #[test]
        fn median_and_deviation_are_those_of_the_last_prices(
            prices in proptest::collection::vec(-1000_i128..1000, 1..100),
        ) {
            let estimate = filled(&prices);
            let mut last: Vec<_> = prices.iter().rev().take(WINDOW).copied().collect();
            last.sort_unstable();
            prop_assert_eq!(&estimate.sorted[..estimate.len], &last[..]);
            let median = last[last.len() / 2];
            let mut distances: Vec<_> = last.iter().map(|price| (price - median).abs()).collect();
            distances.sort_unstable();
            prop_assert_eq!(estimate.deviation(median), distances[last.len() / 2]);
        }
    }
}
