//! A few lookups that are coming, for [`super::Store::warm`]. Owns nothing but their hashes.

use crate::limits::LOOKUPS_ANNOUNCED_MAX;

/// Hashes of keys, at most [`LOOKUPS_ANNOUNCED_MAX`]: about as many reads as a processor has under
/// way at a time.
#[derive(Debug, Default)]
pub struct Lookups {
    hashes: [u64; LOOKUPS_ANNOUNCED_MAX],
    count: usize,
}

impl Lookups {
    /// There is room for no more.
    pub fn is_full(&self) -> bool {
        self.count == LOOKUPS_ANNOUNCED_MAX
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Adds one. Not one too many: what is left out is only slower.
    pub fn push(&mut self, hash: u64) {
        if let Some(place) = self.hashes.get_mut(self.count) {
            *place = hash;
            self.count += 1;
        }
    }

    /// Their hashes.
    pub fn hashes(&self) -> &[u64] {
        &self.hashes[..self.count]
    }
}

impl FromIterator<u64> for Lookups {
    /// The first ones; looks no further than there is room.
    fn from_iter<I: IntoIterator<Item = u64>>(hashes: I) -> Self {
        let mut lookups = Self::default();
        hashes.into_iter().take(LOOKUPS_ANNOUNCED_MAX).for_each(|hash| lookups.push(hash));
        lookups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_as_many_as_there_is_room_for() {
        let most = LOOKUPS_ANNOUNCED_MAX as u64;
        for (given, taken) in [(0, 0), (1, 1), (most, most), (most + 1, most), (u64::MAX, most)] {
            let mut lookups: Lookups = (0..given).collect();
            assert_eq!(lookups.hashes(), (0..taken).collect::<Vec<_>>());
            assert_eq!((lookups.count() as u64, lookups.is_full()), (taken, taken == most));
            lookups.push(7);
            assert_eq!(lookups.count() as u64, (taken + 1).min(most));
        }
    }
}
