//! Ghosts: short memories of keys evicted from the small queue.
//!
//! A key that comes back soon after it was evicted was evicted too early and goes to the main
//! queue (S3-FIFO: Yang et al., SOSP 2023). Sixteen bits of the hash stand for the key: a wrong
//! match only places one item in the better queue. Costs 2 bytes for each key remembered.
//!
//! The table comes and goes in chunks of a page: for hundreds of millions of keys it has hundreds
//! of megabytes, which nobody could wait for.

const WAYS: usize = 8;
const SETS_PER_CHUNK: usize = 256;

/// New chunks take at most one part in so many of what evictions give back: their purpose is to
/// give memory back, and a new page takes longer than all else about evicting a key.
const SHARE_OF_EVICTED: usize = 8;

type Set = [u16; WAYS];
type Chunk = [Set; SETS_PER_CHUNK];

/// A set-associative table of fingerprints; each set is a queue of its own.
#[derive(Debug, Default)]
pub struct Ghosts {
    /// Made when the first of its keys is remembered.
    chunks: Vec<Option<Box<Chunk>>>,
    chunks_made: usize,
    /// Bytes of evicted items, since the last chunk was made.
    evicted_bytes: usize,
    /// Chunks of a table of another size, to be freed.
    old: Vec<Option<Box<Chunk>>>,
    old_made: usize,
}

impl Ghosts {
    /// Room for about `keys` keys; forgets all of them.
    pub fn resize(&mut self, keys: usize) {
        let mut chunks = Vec::new();
        chunks.resize_with(keys.div_ceil(SETS_PER_CHUNK * WAYS), || None);
        self.old.append(&mut std::mem::replace(&mut self.chunks, chunks));
        self.old_made += std::mem::take(&mut self.chunks_made);
    }

    /// Frees some of what the last [`Ghosts::resize`] left behind. Answers whether there was any.
    pub fn free_some(&mut self, chunks_max: usize) -> bool {
        if self.old.is_empty() {
            return false;
        }
        let keep = self.old.len().saturating_sub(chunks_max);
        self.old_made -= self.old.drain(keep..).flatten().count();
        true
    }

    /// Whether no table is smaller.
    pub fn is_smallest(&self) -> bool {
        self.chunks.len() <= 1
    }

    /// How many keys fit.
    pub fn capacity(&self) -> usize {
        self.chunks.len() * SETS_PER_CHUNK * WAYS
    }

    /// Memory of the table, old chunks included.
    pub fn bytes(&self) -> u64 {
        let list = (self.chunks.len() + self.old.len()) * size_of::<Option<Box<Chunk>>>();
        ((self.chunks_made + self.old_made) * size_of::<Chunk>() + list) as u64
    }

    /// Remembers the key of an item of so many bytes; the oldest of its set is forgotten. While the
    /// table fills, only a part of the keys is remembered.
    pub fn remember(&mut self, hash: u64, evicted_bytes: usize) {
        let Some((chunk, set)) = self.set_of(hash) else { return };
        self.evicted_bytes = self.evicted_bytes.saturating_add(evicted_bytes);
        if self.chunks[chunk].is_none() && !self.may_make_chunk() {
            return;
        }
        let chunk = self.chunks[chunk].get_or_insert_with(|| {
            self.chunks_made += 1;
            Box::new([[0; WAYS]; SETS_PER_CHUNK])
        });
        chunk[set].copy_within(..WAYS - 1, 1);
        chunk[set][0] = fingerprint(hash);
    }

    /// Whether it is time for another chunk. The first is always made.
    fn may_make_chunk(&mut self) -> bool {
        let is_due = self.evicted_bytes >= SHARE_OF_EVICTED * size_of::<Chunk>();
        let may = is_due || self.chunks_made == 0;
        if may {
            self.evicted_bytes = 0;
        }
        may
    }

    /// Reads the cache line that remembering this key will need, and returns something made of it:
    /// see [`super::Store::warm`].
    #[inline]
    pub fn touch(&self, hash: u64) -> u64 {
        let Some((chunk, set)) = self.set_of(hash) else { return 0 };
        self.chunks[chunk].as_ref().map_or(0, |chunk| u64::from(chunk[set][0]))
    }

    /// Whether the key is remembered; it is forgotten with that.
    pub fn take(&mut self, hash: u64) -> bool {
        let Some((chunk, set)) = self.set_of(hash) else { return false };
        let Some(chunk) = &mut self.chunks[chunk] else { return false };
        let found = chunk[set].iter_mut().find(|print| **print == fingerprint(hash));
        found.map(|print| *print = 0).is_some()
    }

    /// The number of a chunk, and of a set within.
    fn set_of(&self, hash: u64) -> Option<(usize, usize)> {
        let sets = (self.chunks.len() * SETS_PER_CHUNK) as u64;
        let set = ((((hash >> 16) & 0xffff_ffff) * sets) >> 32) as usize;
        (sets > 0).then_some((set / SETS_PER_CHUNK, set % SETS_PER_CHUNK))
    }
}

/// Never 0, which marks an empty place.
fn fingerprint(hash: u64) -> u16 {
    (hash as u16).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_once_and_forgets_the_oldest() {
        let mut ghosts = Ghosts::default();
        assert!(!ghosts.take(5));
        ghosts.resize(WAYS);
        // These hashes fall into the first set.
        for hash in 1..=WAYS as u64 + 1 {
            ghosts.remember(hash, 1);
        }
        assert!(!ghosts.take(1), "the oldest made room");
        assert!(ghosts.take(2));
        assert!(!ghosts.take(2), "taken once");
        assert!(ghosts.take(WAYS as u64 + 1));
    }

    #[test]
    fn another_size_is_paid_for_in_steps() {
        let mut ghosts = Ghosts::default();
        ghosts.resize(100_000);
        let empty_bytes = ghosts.bytes();
        for hash in 0..100_000u64 {
            ghosts.remember(hash << 31, 100);
        }
        let full_bytes = ghosts.bytes();
        assert!(empty_bytes < 1 << 10 && full_bytes > 100_000, "{empty_bytes} {full_bytes}");
        ghosts.resize(1_000);
        assert!(ghosts.bytes() >= full_bytes - empty_bytes, "counted until it is freed");
        let steps = std::iter::from_fn(|| ghosts.free_some(8).then_some(())).count();
        assert!(steps > 5 && ghosts.bytes() < 1 << 10);
    }

    #[test]
    fn a_filling_table_takes_a_part_of_what_evictions_give_back() {
        let mut ghosts = Ghosts::default();
        ghosts.resize(1_000_000);
        let empty_bytes = ghosts.bytes();
        for key in 1..=10_000 {
            ghosts.remember(u64::wrapping_mul(key, 0x9E37_79B9_7F4A_7C15), 64);
            let given_back = key * 64 / SHARE_OF_EVICTED as u64 + size_of::<Chunk>() as u64;
            assert!(ghosts.bytes() - empty_bytes <= given_back, "after {key} keys");
        }
        assert!(ghosts.bytes() - empty_bytes > 10_000 * 64 / SHARE_OF_EVICTED as u64 / 2);
    }
}
