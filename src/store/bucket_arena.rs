//! Arenas: the memory of index partitions, all of one size in one arena.
//!
//! An arena is a dense row of ranges of equal size, cut into chunks of about the size of a segment.
//! When a range is given back, the last one moves into it, so that an arena never has holes, and a
//! chunk that becomes empty is freed whole. Knows nothing of hashes.

/// Slots in a bucket: one cache line of them.
pub(super) const SLOTS_PER_BUCKET: usize = 8;

/// Buckets in a chunk. With the allocator's header it stays below 128 KiB.
const CHUNK_BUCKETS: usize = 2047;

/// One cache line of slots.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub struct Bucket(pub [u64; SLOTS_PER_BUCKET]);

const _: () = assert!(size_of::<Bucket>() == 64 && align_of::<Bucket>() == 64);
const _: () = assert!(CHUNK_BUCKETS <= u16::MAX as usize);

/// A bucket without slots.
pub(super) const EMPTY: Bucket = Bucket([0; SLOTS_PER_BUCKET]);

impl Bucket {
    /// The place of an empty slot.
    #[inline]
    pub fn free_slot(&self) -> Option<usize> {
        self.0.iter().position(|slot| *slot == 0)
    }
}

/// Where a partition lies in its arena.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BucketRange {
    /// First bucket in the chunk.
    start: u16,
    chunk: u32,
}

/// See the module's text.
#[derive(Debug)]
pub struct BucketArena {
    bucket_count: usize,
    /// Each grows to its capacity range by range: memory not used is not touched.
    chunks: Vec<Vec<Bucket>>,
    /// The partition in each range, in order.
    owners: Vec<u32>,
}

impl BucketArena {
    /// An empty arena for partitions of `bucket_count` buckets.
    pub fn new(bucket_count: usize) -> Self {
        Self { bucket_count, chunks: Vec::new(), owners: Vec::new() }
    }

    /// Buckets of a partition in this arena.
    pub fn bucket_count(&self) -> usize {
        self.bucket_count
    }

    /// Memory in use.
    pub fn bytes(&self) -> usize {
        self.owners.len() * self.range_bytes()
    }

    /// Memory of one partition.
    #[inline]
    pub fn range_bytes(&self) -> usize {
        self.bucket_count * size_of::<Bucket>() + size_of::<u32>()
    }

    /// The buckets of a range.
    #[inline]
    pub fn buckets(&self, range: BucketRange) -> &[Bucket] {
        let start = usize::from(range.start);
        &self.chunks[range.chunk as usize][start..start + self.bucket_count]
    }

    /// The buckets of a range, to change.
    #[inline]
    pub fn buckets_mut(&mut self, range: BucketRange) -> &mut [Bucket] {
        let start = usize::from(range.start);
        &mut self.chunks[range.chunk as usize][start..start + self.bucket_count]
    }

    /// A new range, empty, for `owner`.
    pub fn take(&mut self, owner: u32) -> BucketRange {
        let per_chunk = self.ranges_per_chunk();
        if self.owners.len() == self.chunks.len() * per_chunk {
            // All chunks have one size, a little above a segment's, so that the allocator can use
            // what one arena or the flushed items gave up for the next.
            self.chunks.push(Vec::with_capacity(CHUNK_BUCKETS.max(self.bucket_count)));
        }
        let range = self.range_at(self.owners.len());
        self.owners.push(owner);
        let chunk = &mut self.chunks[range.chunk as usize];
        chunk.resize(chunk.len() + self.bucket_count, EMPTY);
        range
    }

    /// Frees a range. Returns the owner whose buckets have moved into it, if there was another.
    pub fn give_back(&mut self, range: BucketRange) -> Option<u32> {
        let last_at = self.owners.len() - 1;
        let last = self.range_at(last_at);
        let owner = self.owners.pop()?;
        let moved = (last != range).then(|| {
            for at in 0..self.bucket_count {
                let bucket = self.buckets(last)[at];
                self.buckets_mut(range)[at] = bucket;
            }
            let freed_at = self.position_of(range);
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
        self.owners.truncate(self.chunks.len().saturating_sub(1) * self.ranges_per_chunk());
        self.chunks.pop().is_some()
    }

    fn ranges_per_chunk(&self) -> usize {
        (CHUNK_BUCKETS / self.bucket_count).max(1)
    }

    fn range_at(&self, position: usize) -> BucketRange {
        let per_chunk = self.ranges_per_chunk();
        let start = (position % per_chunk * self.bucket_count) as u16;
        BucketRange { start, chunk: (position / per_chunk) as u32 }
    }

    fn position_of(&self, range: BucketRange) -> usize {
        let in_chunk = usize::from(range.start) / self.bucket_count;
        range.chunk as usize * self.ranges_per_chunk() + in_chunk
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stays_dense_and_moves_the_last_into_the_hole() {
        let mut arena = BucketArena::new(700);
        let ranges: Vec<BucketRange> = (0..7).map(|owner| arena.take(owner)).collect();
        for (owner, range) in ranges.iter().enumerate() {
            arena.buckets_mut(*range)[699].0[7] = owner as u64 + 1;
        }
        assert_eq!(arena.chunks.len(), 4, "two ranges of 700 buckets fit a chunk");
        assert_eq!(arena.give_back(ranges[1]), Some(6));
        assert_eq!(arena.buckets(ranges[1])[699].0[7], 7);
        assert_eq!(arena.chunks.len(), 3);
        assert_eq!(arena.give_back(ranges[5]), None, "it was the last");
        assert_eq!(arena.owners, [0, 6, 2, 3, 4]);
        let again = arena.take(9);
        assert!(arena.buckets(again).iter().all(|bucket| bucket.0 == [0; 8]));
    }
}
