//! Work that no command waits for: expired items, memory above the limit, an index that has become
//! too large, how lately items were accessed.
//!
//! An item that is accessed has the highest recency (`index.rs`), two bits in its slot. A walk goes
//! through the index once a minute and lowers it by a step: from the highest in each round, from
//! the next in each tenth, from the one below in each sixtieth. So a hot item's slot is written
//! once a minute more often than it was, and what can be told of the last access is a longest time
//! for each step. (Once a minute, a gigabyte of small items has 30 MB of index to be read.)

use crate::store::index::RECENCY_MAX;
use crate::store::{Store, Ticks};

/// Batches that one call of [`Store::maintain`] drains.
const BATCHES_PER_MAINTENANCE: usize = 16;

/// Expired items wait for the sweep at least this long, so that it meets several at once.
const SWEEP_DELAY_SECONDS: u64 = 2;

/// Items of a segment with expired ones that one call of [`Store::maintain`] looks at.
const SWEPT_ITEMS_MAX: usize = 512;

/// Index partitions that one call of [`Store::maintain`] looks at, to make them smaller.
const SHRINK_PARTITIONS: usize = 16;

/// A round of the walk that lowers recencies.
const AGING_SECONDS: u64 = 60;

/// Rounds after which items of a recency go a step down; those of the lowest stay.
const AGING_ROUNDS: [Option<u64>; RECENCY_MAX as usize + 1] = [None, Some(60), Some(10), Some(1)];

/// How long ago an item of each recency was accessed, at most: a round for each step down, and
/// where one waits for a certain round, as many as that takes.
pub const IDLE_SECONDS_MAX: [Option<u64>; RECENCY_MAX as usize + 1] = [
    None,
    Some((1 + 10 + 60) * AGING_SECONDS),
    Some((1 + 10) * AGING_SECONDS),
    Some(AGING_SECONDS),
];

/// Index partitions that one call of [`Store::maintain`] looks at for that.
const AGED_PARTITIONS: usize = 128;

/// Where the walk is.
#[derive(Debug, Default)]
pub(super) struct Aging {
    /// Rounds that are over.
    rounds: u64,
    /// When this one began.
    began: Option<Ticks>,
    /// The partition to be looked at next.
    next: usize,
}

/// A segment whose expired items are being removed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sweep {
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
        self.age(now);
        self.tell_memory();
        more
    }

    /// Goes on with lowering recencies, as far as it should be by now.
    fn age(&mut self, now: Ticks) {
        let round = AGING_SECONDS * Ticks::PER_SECOND;
        let count = self.index.partition_count();
        let aging = &mut self.reclaim.aging;
        let began = *aging.began.get_or_insert(now);
        let passed = now.0.saturating_sub(began.0).min(round);
        let due = (count as u64 * passed / round) as usize;
        let until = due.min(aging.next + AGED_PARTITIONS);
        let number = aging.rounds + 1;
        let steps = AGING_ROUNDS.map(|each| each.is_some_and(|each| number.is_multiple_of(each)));
        for partition in aging.next..until {
            self.index.age(partition, steps);
        }
        aging.next = aging.next.max(until);
        if aging.next == count {
            // Where nobody has called for long, what was missed is not made up for.
            let next = began.0.saturating_add(round).max(now.0.saturating_sub(round));
            *aging = Aging { rounds: number, began: Some(Ticks(next)), next: 0 };
        }
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
