//! What the log has to know of a store beside its changes: whether items have expired, and items by
//! the hash of their key, as evictions are recorded.

use super::index::Handle;
use super::{Store, Ticks};

impl Store {
    /// Whether items have expired since the last call. After a restart they must not be back,
    /// whatever the clock says then.
    #[inline]
    pub fn take_has_expired(&mut self) -> bool {
        std::mem::take(&mut self.has_expired)
    }

    /// Whether [`Store::take_has_expired`] would say so.
    #[inline]
    pub fn has_expired(&self) -> bool {
        self.has_expired
    }

    /// The item whose key has this hash.
    pub fn find_hash(&self, hash: u64) -> Option<Handle> {
        self.index.find(hash, |location| {
            let (id, offset) = self.place(location);
            self.hasher.hash(self.segment(id).stored(offset).key) == hash
        })
    }

    /// Brings what lookups of these hashes will need into the processor's caches: see
    /// [`Store::warm`]. For items that are likely not there.
    pub fn warm_index(&self, hashes: impl Iterator<Item = u64>) {
        let read = hashes.fold(0, |read, hash| read ^ self.index.touch(hash));
        // Without a use of what was read, the compiler would leave out the reads.
        std::hint::black_box(read);
    }

    /// Removes what is over and what is too much, all at once: until memory is no further above the
    /// limit than it may be while the store is used, or this store has no more than its share of
    /// it. (It was the first of several that gave up nearly all it had, for what others had dead.)
    pub fn settle(&mut self, now: Ticks) {
        let enough = self.budget().limit_bytes() + self.budget().overshoot_bytes();
        let mut idle_calls = 0;
        // A round of the sweep goes on for as long as it finds something.
        while self.used_by_all() > enough
            && self.counted_bytes() > self.budget().share_bytes()
            && idle_calls < 64 + self.segments.len()
        {
            let before = self.memory_bytes();
            self.maintain(now, usize::MAX);
            idle_calls = if self.memory_bytes() < before { 0 } else { idle_calls + 1 };
        }
    }

    /// Removes everything that is over, all at once.
    pub fn expire(&mut self, now: Ticks) {
        for part in 0..self.part_count() {
            let is_over = |location: &u64| {
                let (id, offset) = self.place(*location);
                self.segment(id).is_expired(offset, now)
            };
            let slots = self.index.partition_slots(part).into_iter().flatten();
            let over: Vec<u64> = slots.map(|slot| slot.location()).filter(is_over).collect();
            for location in over {
                let (id, offset) = self.place(location);
                let hash = self.hasher.hash(self.segment(id).stored(offset).key);
                if let Some(handle) = self.index.find(hash, |at| at == location) {
                    self.remove_expired(handle);
                }
            }
        }
    }

    /// Evicts to make room from now on, or does not.
    pub fn set_evict(&mut self, evict: bool) {
        self.evict = evict;
    }
}
