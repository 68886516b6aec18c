//! How long the disk takes: counts of durations in classes that double.

use std::sync::atomic::{AtomicU64, Ordering};

/// Classes: the last one holds everything from half an hour on.
pub const CLASSES: usize = 32;

/// Durations, each in the class of the next power of two microseconds.
#[derive(Debug, Default)]
pub struct Histogram {
    classes: [AtomicU64; CLASSES],
    microseconds: AtomicU64,
}

impl Histogram {
    /// Counts one.
    pub fn record(&self, microseconds: u64) {
        let class = (u64::BITS - microseconds.leading_zeros()) as usize;
        self.classes[class.min(CLASSES - 1)].fetch_add(1, Ordering::Relaxed);
        self.microseconds.fetch_add(microseconds, Ordering::Relaxed);
    }

    /// How many there were in each class: class `n` holds those below 2^n microseconds that are in
    /// no lower one.
    pub fn counts(&self) -> [u64; CLASSES] {
        std::array::from_fn(|class| self.classes[class].load(Ordering::Relaxed))
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts().iter().sum()
    }

    /// All of them together.
    pub fn microseconds(&self) -> u64 {
        self.microseconds.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_below_the_bound_of_its_class_and_of_no_lower_one() {
        for (microseconds, class) in [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (u64::MAX, 31)] {
            let histogram = Histogram::default();
            histogram.record(microseconds);
            assert_eq!(histogram.counts().iter().position(|count| *count == 1), Some(class));
        }
    }
}
