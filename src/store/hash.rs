//! The hash of clients' keys: keyed by a secret, all bits depending on all bits.
//!
//! Keys come from strangers, so the hash must not be predictable: FxHash, good for maps keyed by
//! our own numbers, has 32,768 short printable keys with one value. foldhash mixes by folded
//! multiplication and is seeded with 128 secret bits. One value per key serves routing (upper
//! bits), the partition of the index (middle) and the tag (lower).

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;
use std::hash::{BuildHasher, Hasher};

/// Hashes keys; every worker of a server holds a copy of the same one.
#[derive(Clone)]
pub struct KeyHasher(SeedableRandomState);

impl KeyHasher {
    /// A hasher keyed by `secret`.
    ///
    /// The shared half of the seed lives as long as the process, as foldhash asks: 32 bytes for
    /// each hasher made, which is one for each server.
    pub fn new(secret: [u64; 2]) -> Self {
        let shared = Box::leak(Box::new(SharedSeed::from_u64(secret[1])));
        Self(SeedableRandomState::with_seed(secret[0], shared))
    }

    /// The hash of a key.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write(key);
        hasher.finish()
    }
}

/// Which of `shard_count` shards owns a hash.
#[inline]
pub fn shard_of(hash: u64, shard_count: usize) -> usize {
    ((hash >> 48) as usize * shard_count) >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_and_low_bits_are_even_for_zero_padded_numbers() {
        let hasher = KeyHasher::new([1, 2]);
        let (mut shards, mut low_bits) = ([0u32; 7], [0u32; 64]);
        for number in 0..70_000 {
            let hash = hasher.hash(format!("{number:020}").as_bytes());
            shards[shard_of(hash, 7)] += 1;
            low_bits[hash as usize % 64] += 1;
        }
        assert!(shards.iter().all(|count| (9_000..11_000).contains(count)), "{shards:?}");
        assert!(low_bits.iter().all(|count| (900..1_300).contains(count)), "{low_bits:?}");
    }

    #[test]
    fn another_secret_is_another_hash() {
        assert_ne!(KeyHasher::new([1, 2]).hash(b"k"), KeyHasher::new([2, 2]).hash(b"k"));
        assert_ne!(KeyHasher::new([1, 2]).hash(b"k"), KeyHasher::new([1, 3]).hash(b"k"));
    }
}
