//! The one source of randomness: everything random in a run comes from its seed, through here.

use std::time::Duration;

/// A seeded source of randomness.
#[derive(Debug)]
pub(crate) struct Rng(fastrand::Rng);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A number from 0 to `end`, without `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0.u64(0..end)
    }

    /// An index into a list of this length.
    pub(crate) fn index(&mut self, length: usize) -> usize {
        self.0.usize(0..length)
    }

    /// Microseconds from `low` to `high`.
    pub(crate) fn micros(&mut self, low: u64, high: u64) -> u64 {
        self.0.u64(low..=high)
    }

    /// Whether something happens that happens `share` times in 1.
    pub(crate) fn hits(&mut self, share: f64) -> bool {
        share > 0.0 && self.0.f64() < share
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.0.bool()
    }

    pub(crate) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())].clone()
    }

    /// A duration from `low` to `high` milliseconds.
    pub(crate) fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.0.u64(low..=high))
    }

    /// Something around `mean` microseconds: mostly less, sometimes much more.
    pub(crate) fn around(&mut self, mean: u64) -> u64 {
        let spread = self.0.u64(0..=mean);
        if self.0.u8(0..16) == 0 {
            mean * 4 + spread
        } else {
            mean / 2 + spread
        }
    }
}
