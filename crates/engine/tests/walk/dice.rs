//! Chance with a seed: the same seed gives the same walk.

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `n` - 1.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    pub fn percent(&mut self, n: u64) -> bool {
        self.next() % 100 < n
    }

    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// One of them, each as often as its weight says.
    pub fn weighted<T: Clone>(&mut self, of: &[(u32, T)]) -> T {
        let sum: u64 = of.iter().map(|(weight, _)| u64::from(*weight)).sum();
        let mut at = self.next() % sum.max(1);
        for (weight, value) in of {
            if at < u64::from(*weight) {
                return value.clone();
            }
            at -= u64::from(*weight);
        }
        of[0].1.clone()
    }
}
