//! Random numbers that follow from a seed.

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A stream of its own for `name`, so that one more draw here changes nothing there.
    pub(crate) fn named(seed: u64, name: &str) -> Random {
        Random(seed ^ xxhash_rust::xxh3::xxh3_64(name.as_bytes()))
    }

    /// The next 64 bits.
    #[inline]
    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is at least 1.
    #[inline]
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(limit)) >> 64) as u64
    }

    /// Whether something of this probability happens.
    #[inline]
    pub(crate) fn happens(&mut self, chance: Chance) -> bool {
        chance.0 > 0 && self.draw() >> 32 < u64::from(chance.0)
    }

    /// True `per_mille` times of a thousand.
    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }

    /// One of `items`, which are not empty.
    pub(crate) fn pick<'i, T>(&mut self, items: &'i [T]) -> &'i T {
        &items[self.below(items.len() as u64) as usize]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_impossible_never_happens_and_what_is_certain_nearly_always() {
        let mut random = Random::new(4);
        assert!(!(0..10_000).any(|_| random.happens(Chance::new(0.0))));
        assert!((0..10_000).all(|_| random.happens(Chance::new(1.0))));
    }
}
