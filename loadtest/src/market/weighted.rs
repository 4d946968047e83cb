//! Drawing by weight.

use crate::random::Random;

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
}
