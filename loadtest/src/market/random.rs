//! Random numbers that follow from a seed, and drawing by weight.

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// 64 random bits.
    #[inline]
    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    #[inline]
    pub(crate) fn below(&mut self, limit: u32) -> u32 {
        ((u64::from(self.draw() as u32) * u64::from(limit)) >> 32) as u32
    }

    /// Whether something of this probability happens.
    #[inline]
    pub(crate) fn happens(&mut self, chance: Chance) -> bool {
        chance.0 > 0 && self.draw() >> 32 < u64::from(chance.0)
    }
}

/// A probability, as parts of 2³².
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Chance(u32);

impl Chance {
    /// Of a share between 0 and 1.
    pub(crate) fn new(share: f64) -> Chance {
        Chance((share.clamp(0.0, 1.0) * f64::from(u32::MAX)) as u32)
    }
}

/// Draws an index by weight with one random number, however many there are.
///
/// Source: Vose, "A linear algorithm for generating random numbers with a given distribution", 1991.
#[derive(Debug, Clone)]
pub(crate) struct Weighted(Vec<(u32, u32)>);

impl Weighted {
    /// Of weights that are not negative and not all zero.
    pub(crate) fn new(weights: &[f64]) -> Weighted {
        let sum: f64 = weights.iter().sum();
        let mut scaled: Vec<f64> = weights.iter().map(|w| w / sum * weights.len() as f64).collect();
        let mut table: Vec<(u32, u32)> = (0..weights.len() as u32).map(|i| (u32::MAX, i)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..weights.len()).partition(|&index| scaled[index] < 1.0);
        while let (Some(&low), Some(&high)) = (small.last(), large.last()) {
            small.pop();
            table[low] = ((scaled[low] * f64::from(u32::MAX)) as u32, high as u32);
            scaled[high] -= 1.0 - scaled[low];
            if scaled[high] < 1.0 {
                large.pop();
                small.push(high);
            }
        }
        Weighted(table)
    }

    /// By Zipf's law: the n-th of `count` weighs 1/n^`exponent`; all the same for 0.
    pub(crate) fn zipf(count: u32, exponent: f64) -> Weighted {
        let weights: Vec<f64> = (1..=count).map(|rank| f64::from(rank).powf(-exponent)).collect();
        Weighted::new(&weights)
    }

    /// An index.
    #[inline]
    pub(crate) fn draw(&self, random: &mut Random) -> usize {
        let bits = random.draw();
        let index = ((u64::from(bits as u32) * self.0.len() as u64) >> 32) as usize;
        let (kept, other) = self.0[index];
        if (bits >> 32) as u32 <= kept { index } else { other as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_drawn_as_often_as_they_weigh() {
        let weights = [5.0, 0.0, 1.0, 3.0, 1.0];
        let table = Weighted::new(&weights);
        let mut random = Random::new(3);
        let mut counts = [0_u32; 5];
        (0..100_000).for_each(|_| counts[table.draw(&mut random)] += 1);
        for (count, weight) in counts.iter().zip(weights) {
            let expected = weight * 10_000.0;
            assert!((f64::from(*count) - expected).abs() < 600.0, "{counts:?}");
        }
    }

    #[test]
    fn what_is_impossible_never_happens_and_what_is_certain_nearly_always() {
        let mut random = Random::new(4);
        assert!(!(0..10_000).any(|_| random.happens(Chance::new(0.0))));
        assert!((0..10_000).all(|_| random.happens(Chance::new(1.0))));
    }
}
