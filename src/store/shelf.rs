//! Shelves: the memory of index partitions, all of one size on one shelf.
//!
//! A shelf is a dense row of berths of equal size, cut into chunks of about the size of a segment.
//! When a berth is given back, the last one moves into it, so that a shelf never has holes, and a
//! chunk that becomes empty is freed whole. Knows nothing of hashes.

/// Slots in a bucket: one cache line of them.
pub const SLOTS_PER_BUCKET: usize = 8;

/// Buckets in a chunk. With the allocator's header it stays below 128 KiB.
const CHUNK_BUCKETS: usize = 2047;

/// One cache line of slots.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub struct Bucket(pub [u64; SLOTS_PER_BUCKET]);

const _: () = assert!(size_of::<Bucket>() == 64 && align_of::<Bucket>() == 64);
const _: () = assert!(CHUNK_BUCKETS <= u16::MAX as usize);

/// A bucket without slots.
pub const EMPTY: Bucket = Bucket([0; SLOTS_PER_BUCKET]);

impl Bucket {
    /// The place of an empty slot.
    #[inline]
    pub fn free_slot(&self) -> Option<usize> {
        self.0.iter().position(|slot| *slot == 0)
    }
}

/// Where a partition lies on its shelf.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Berth {
    /// First bucket in the chunk.
    start: u16,
    chunk: u32,
}

/// See the module's text.
#[derive(Debug)]
pub struct Shelf {
    bucket_count: usize,
    /// Each grows to its capacity berth by berth: memory not used is not touched.
    chunks: Vec<Vec<Bucket>>,
    /// The partition in each berth, in order.
    owners: Vec<u32>,
}

impl Shelf {
    /// An empty shelf for partitions of `bucket_count` buckets.
    pub fn new(bucket_count: usize) -> Self {
        Self { bucket_count, chunks: Vec::new(), owners: Vec::new() }
    }

    /// Buckets of a partition on this shelf.
    pub fn bucket_count(&self) -> usize {
        self.bucket_count
    }

    /// Memory in use.
    pub fn bytes(&self) -> usize {
        self.owners.len() * self.berth_bytes()
    }

    /// Memory of one partition.
    #[inline]
    pub fn berth_bytes(&self) -> usize {
        self.bucket_count * size_of::<Bucket>() + size_of::<u32>()
    }

    /// The buckets of a berth.
    #[inline]
    pub fn buckets(&self, berth: Berth) -> &[Bucket] {
        let start = usize::from(berth.start);
        &self.chunks[berth.chunk as usize][start..start + self.bucket_count]
    }

    /// The buckets of a berth, to change.
    #[inline]
    pub fn buckets_mut(&mut self, berth: Berth) -> &mut [Bucket] {
        let start = usize::from(berth.start);
        &mut self.chunks[berth.chunk as usize][start..start + self.bucket_count]
    }

    /// A new berth, empty, for `owner`.
    pub fn take(&mut self, owner: u32) -> Berth {
        let per_chunk = self.berths_per_chunk();
        if self.owners.len() == self.chunks.len() * per_chunk {
            // All chunks have one size, a little above a segment's, so that the allocator can use
            // what one shelf or the flushed items gave up for the next.
            self.chunks.push(Vec::with_capacity(CHUNK_BUCKETS.max(self.bucket_count)));
        }
        let berth = self.berth_at(self.owners.len());
        self.owners.push(owner);
        let chunk = &mut self.chunks[berth.chunk as usize];
        chunk.resize(chunk.len() + self.bucket_count, EMPTY);
        berth
    }

    /// Frees a berth. Returns the owner whose buckets have moved into it, if there was another.
    pub fn give_back(&mut self, berth: Berth) -> Option<u32> {
        let last_at = self.owners.len() - 1;
        let last = self.berth_at(last_at);
        let owner = self.owners.pop()?;
        let moved = (last != berth).then(|| {
            for at in 0..self.bucket_count {
                let bucket = self.buckets(last)[at];
                self.buckets_mut(berth)[at] = bucket;
            }
            let freed_at = self.position_of(berth);
            self.owners[freed_at] = owner;
            owner
        });
        let chunk = &mut self.chunks[last.chunk as usize];
        chunk.truncate(usize::from(last.start));
        if chunk.is_empty() {
            self.chunks.pop();
        }
        moved
    }

    /// Frees the last chunk, whoever owns it. Answers whether there was one.
    pub fn drop_chunk(&mut self) -> bool {
        self.owners.truncate(self.chunks.len().saturating_sub(1) * self.berths_per_chunk());
        self.chunks.pop().is_some()
    }

    fn berths_per_chunk(&self) -> usize {
        (CHUNK_BUCKETS / self.bucket_count).max(1)
    }

    fn berth_at(&self, position: usize) -> Berth {
        let per_chunk = self.berths_per_chunk();
        let start = (position % per_chunk * self.bucket_count) as u16;
        Berth { start, chunk: (position / per_chunk) as u32 }
    }

    fn position_of(&self, berth: Berth) -> usize {
        let in_chunk = usize::from(berth.start) / self.bucket_count;
        berth.chunk as usize * self.berths_per_chunk() + in_chunk
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_dense_and_moves_the_last_into_the_hole() {
        let mut shelf = Shelf::new(700);
        let berths: Vec<Berth> = (0..7).map(|owner| shelf.take(owner)).collect();
        for (owner, berth) in berths.iter().enumerate() {
            shelf.buckets_mut(*berth)[699].0[7] = owner as u64 + 1;
        }
        assert_eq!(shelf.chunks.len(), 4, "two berths of 700 buckets fit a chunk");
        assert_eq!(shelf.give_back(berths[1]), Some(6));
        assert_eq!(shelf.buckets(berths[1])[699].0[7], 7);
        assert_eq!(shelf.chunks.len(), 3);
        assert_eq!(shelf.give_back(berths[5]), None, "it was the last");
        assert_eq!(shelf.owners, [0, 6, 2, 3, 4]);
        let again = shelf.take(9);
        assert!(shelf.buckets(again).iter().all(|bucket| bucket.0 == [0; 8]));
    }
}
