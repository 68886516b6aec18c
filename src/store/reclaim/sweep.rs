//! Work that no command waits for: expired items, memory above the limit, an index that has become
//! too large.

use crate::store::{Store, Ticks};

/// Batches that one call of [`Store::maintain`] drains.
const BATCHES_PER_MAINTENANCE: usize = 16;

/// Expired items wait for the sweep at least this long, so that it meets several at once.
const SWEEP_DELAY_SECONDS: u64 = 2;

/// Items of a segment with expired ones that one call of [`Store::maintain`] looks at.
const SWEPT_ITEMS_MAX: usize = 512;

/// Index partitions that one call of [`Store::maintain`] looks at, to make them smaller.
const SHRINK_PARTITIONS: usize = 16;

/// A segment whose expired items are being removed.
#[derive(Debug, Clone, Copy)]
pub struct Sweep {
    /// The segment.
    pub id: u32,
    /// The offset of the first item that was not looked at.
    next: usize,
    /// When the first of the items before it expires.
    earliest: Ticks,
}

impl Store {
    /// Work that no command waits for: expired items, memory above a lowered limit, flushed
    /// memory. Looks at up to `segments_max` segments. Call it about ten times a second, and again
    /// soon if it answers that there is more to do.
    pub fn maintain(&mut self, now: Ticks, segments_max: usize) -> bool {
        self.follow_limit();
        let mut more = self.empty_trash(8);
        if self.is_above_limit() {
            more |= self.reclaim_some(now, BATCHES_PER_MAINTENANCE);
        }
        if self.index.is_sparse() {
            self.index.shrink(SHRINK_PARTITIONS);
            // Somebody may wait for its memory.
            more |= self.used_by_all() + self.segment_bytes as u64 > self.memory_bytes_max();
        }
        more |= self.sweep(now, segments_max);
        self.tell_memory();
        more
    }

    /// Looks for expired items. Answers whether it stopped early.
    fn sweep(&mut self, now: Ticks, segments_max: usize) -> bool {
        if let Some(sweep) = self.reclaim.sweeping.take() {
            self.sweep_on(sweep, now);
            return true;
        }
        for _ in 0..segments_max.min(self.segments.len()) {
            self.reclaim.sweep_next = (self.reclaim.sweep_next + 1) % self.segments.len();
            let id = self.reclaim.sweep_next as u32;
            let due = self.segments[id as usize].as_ref().is_some_and(|segment| {
                segment.earliest_deadline.plus_seconds(SWEEP_DELAY_SECONDS) <= now
            });
            if due {
                self.sweep_on(Sweep { id, next: 0, earliest: Ticks::NEVER }, now);
                return true;
            }
        }
        false
    }

    /// Segments the sweep goes through; the caller spreads a round over a few seconds.
    pub fn segment_count_max(&self) -> usize {
        self.segments.len()
    }

    /// Removes some more of a segment's expired items. Behind the last one it is known when the
    /// next one expires. An open segment is gone through at once, for it may change between steps.
    fn sweep_on(&mut self, mut sweep: Sweep, now: Ticks) {
        let segment = self.segment(sweep.id);
        let mut items_left = if segment.is_open() { usize::MAX } else { SWEPT_ITEMS_MAX };
        // Looked up after all of them were announced to the caches, so that the waits overlap.
        let (mut expired, mut read, mut swept) = (Vec::new(), 0, 0);
        while sweep.next < segment.used_bytes && items_left > 0 {
            items_left -= 1;
            let stored = segment.stored(sweep.next);
            if let Some(deadline) = stored.header.attributes.deadline {
                swept += 1;
                if deadline > now {
                    sweep.earliest = sweep.earliest.min(deadline);
                } else {
                    let hash = self.hasher.hash(stored.key);
                    read ^= self.index.touch(hash);
                    expired.push((hash, self.location(sweep.id, sweep.next)));
                }
            }
            sweep.next += segment.stride(sweep.next);
        }
        // Without a use of what was read, the compiler would leave out the reads.
        std::hint::black_box(read);
        let is_done = sweep.next >= segment.used_bytes;
        self.counters.swept += swept;
        if is_done {
            self.segment_mut(sweep.id).earliest_deadline = sweep.earliest;
        } else {
            self.reclaim.sweeping = Some(sweep);
        }
        // With its last item the segment goes, and with it what is left to sweep.
        for (hash, location) in expired {
            if let Some(handle) = self.index.find(hash, |at| at == location) {
                self.remove_expired(handle);
            }
        }
    }
}
