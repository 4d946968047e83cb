//! A market whose every trade follows from its seed.

use crate::random::Random;
use tapeline_schemas::{Micros, Money, Side, Trade};

/// Units of 10⁻¹⁸ in a price tick of 0.01 and in an amount step of 0.0001.
const TICK: i128 = 10_i128.pow(16);
const STEP: i128 = 10_i128.pow(14);

/// Symbols with prices that walk on a tick grid.
pub(crate) struct Market {
    random: Random,
    names: Vec<String>,
    ticks: Vec<i64>,
    number: u64,
    time: Micros,
}

impl Market {
    pub(crate) fn new(seed: u64, symbols: u32, start: Micros) -> Market {
        let symbols = symbols.max(1);
        Market {
            random: Random::new(seed),
            names: (0..symbols).map(|number| format!("S{number:03}-USD")).collect(),
            ticks: (0..symbols).map(|number| 10_000 + i64::from(number) * 100).collect(),
            number: 0,
            time: start,
        }
    }

    pub(crate) fn one_in_a_thousand(&mut self, per_mille: u64) -> bool {
        self.random.chance(per_mille)
    }

    pub(crate) fn next_trade(&mut self) -> Trade<'static> {
        // The lesser of two draws: the first symbols trade most.
        let count = self.names.len() as u64;
        let symbol = self.random.below(count).min(self.random.below(count)) as usize;
        let walk = self.random.below(3) as i64 - 1;
        self.ticks[symbol] = (self.ticks[symbol] + walk).max(1);
        self.time = self.time.plus(self.random.below(2_000) as i64);
        self.number += 1;
        let amount = 1 + i128::from(self.random.below(100_000));
        let side = if walk >= 0 { Side::Buy } else { Side::Sell };
        Trade {
            exchange: "LOADTEST".into(),
            symbol: self.names[symbol].clone().into(),
            trade_id: self.number.to_string().into(),
            // Both are far below the limit of 38 digits.
            price: Money::from_mantissa(i128::from(self.ticks[symbol]) * TICK).unwrap_or_default(),
            amount: Money::from_mantissa(amount * STEP).unwrap_or_default(),
            side,
            kind: None,
            taker_or_maker: None,
            sequence: i64::try_from(self.number).ok(),
            venue_time: self.time,
            receive_time: self.time.plus(1_500),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_trades() {
        let trades = |seed| {
            let mut market = Market::new(seed, 10, Micros(0));
            (0..1_000).map(|_| market.next_trade()).collect::<Vec<_>>()
        };
        assert_eq!(trades(7), trades(7));
        assert_ne!(trades(7), trades(8));
    }
}
