//! What is worth keeping when memory is needed: S3-FIFO's question, asked of an item's accesses and
//! of its size. Knows neither segments nor queues.

use crate::store::Store;
use crate::store::index::FREQUENCY_MAX;

/// What the small queue credits every item with beside its accesses, in tenths of an access. With
/// [`SMALL_SIZE_MEANS`] it keeps items of up to 0.6 of the mean size that nobody has asked for yet.
const SMALL_CREDIT_TENTHS: u64 = 3;

/// How large an item the small queue keeps for each access, in mean item sizes.
const SMALL_SIZE_MEANS: u64 = 2;

/// From so many mean item sizes on, the small queue takes all items for equally large: three
/// accesses save any of them.
const SMALL_SIZE_MEANS_MAX: u64 = 6;

/// The same in the main queue: what is asked for four times in each round stays, however large.
const MAIN_SIZE_MEANS_MAX: u64 = 4;

const _: () = assert!(MAIN_SIZE_MEANS_MAX < FREQUENCY_MAX as u64, "a frequency can cover it");

/// Bytes of an item that are not in its segment: about what the index costs.
pub(crate) const INDEX_BYTES_PER_ITEM: u64 = 10;

/// An item whose segment is being evicted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    /// Accesses, as far as they are counted.
    pub frequency: u8,
    /// What it takes, in its segment and in the index.
    pub bytes: u64,
    /// Stands in for a random number, so that a store stays a function of its calls: see
    /// [`chance_of`].
    pub chance: u64,
}

/// Another number for each item in each round: were it the same in every round, a small item that
/// was asked for once could stay for ever.
pub(crate) fn chance_of(hash: u64, round: u64) -> u64 {
    hash ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Which items are worth their bytes. Both rules answer the frequency an item goes on with, or
/// `None` to evict it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RetentionPolicy {
    item_bytes_mean: u64,
}

impl RetentionPolicy {
    /// By the items that the store has now.
    pub(crate) fn of(store: &Store) -> Self {
        let items = (store.index.items() as u64).max(1);
        Self::of_mean(store.live_bytes / items + INDEX_BYTES_PER_ITEM)
    }

    /// By what items take on average, in segments and in the index.
    pub(crate) fn of_mean(item_bytes_mean: u64) -> Self {
        Self { item_bytes_mean: item_bytes_mean.max(1) }
    }

    /// The small queue keeps what was asked for often enough for its size, and very small items
    /// even before anybody asked.
    pub(crate) fn in_small(self, candidate: Candidate) -> Option<u8> {
        let credit_tenths = u64::from(candidate.frequency) * 10 + SMALL_CREDIT_TENTHS;
        let bytes_max = credit_tenths * SMALL_SIZE_MEANS * self.item_bytes_mean / 10;
        let bytes = candidate.bytes.min(SMALL_SIZE_MEANS_MAX * self.item_bytes_mean);
        (bytes <= bytes_max).then(|| candidate.frequency.saturating_sub(1))
    }

    /// A round through the main queue costs as many accesses as the item is mean sizes large, a
    /// fraction by chance. Items with none left go.
    pub(crate) fn in_main(self, candidate: Candidate) -> Option<u8> {
        let chance = ((candidate.chance >> 40 & 0xffff) * self.item_bytes_mean) >> 16;
        let bytes = candidate.bytes.min(MAIN_SIZE_MEANS_MAX * self.item_bytes_mean);
        let cost = (bytes + chance) / self.item_bytes_mean;
        let left = u64::from(candidate.frequency).checked_sub(cost)?;
        (candidate.frequency > 0).then_some(left as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regression_a_small_item_that_was_asked_for_once_does_not_stay_for_ever() {
        let worth = RetentionPolicy::of_mean(1_000);
        for hash in (0..1_000u64).map(|number| number.wrapping_mul(0x2545_f491_4f6c_dd1d)) {
            let mut frequency = Some(1);
            let rounds = (0..100).take_while(|round| {
                let chance = chance_of(hash, *round);
                let kept = frequency.map(|frequency| Candidate { frequency, bytes: 300, chance });
                frequency = kept.and_then(|candidate| worth.in_main(candidate));
                frequency.is_some()
            });
            assert!(rounds.count() < 100, "{hash:x}");
        }
    }
}
