//! Getting memory back: eviction (S3-FIFO), compaction of segments with many dead bytes, the sweep
//! for expired items, and the slow freeing of what a flush threw away.
//!
//! S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache eviction", SOSP
//! 2023) works on whole segments here: the oldest segment of a queue is drained, items worth
//! keeping are copied to the main queue's tail, the rest is evicted. A segment of small items has
//! thousands of them: while memory is short, every store drains a few, so that a whole segment is free
//! before it is needed. Only a large value may have to wait for the rest of a segment.
//!
//! What is worth keeping depends on size as well, in the spirit of GDSF (Cherkasova: "Improving WWW
//! proxies performance with greedy-dual-size-frequency caching policy", HP Labs 1998): the hits an
//! item can bring are weighed against the bytes it holds. See [`Worth`].

use super::chain::Chain;
use super::segment::{Queue, Segment, usable_bytes};
use super::shelf::Shelf;
use super::{Counters, Full, Store, Ticks, item};
use crate::store::ghosts::Ghosts;
use crate::store::index::{Handle, Slot};

/// Frequency of an item that comes back while its ghost is remembered: enough to be kept by the
/// small queue unless it is large.
pub const RETURNED_FREQUENCY: u8 = 1;

/// What the small queue credits every item with beside its accesses, in tenths of an access. With
/// [`SMALL_SIZE_MEANS`] it keeps items of up to 0.6 of the mean size that nobody has asked for yet.
const SMALL_CREDIT_TENTHS: u64 = 3;

/// How large an item the small queue keeps for each access, in mean item sizes.
const SMALL_SIZE_MEANS: u64 = 2;

/// Bytes of an item that are not in its segment: about what the index costs.
const INDEX_BYTES_PER_ITEM: u64 = 10;

/// The small queue's share of the memory, as one part in so many.
const SMALL_SHARE: u64 = 10;

/// Dead bytes are counted in eighths of a segment.
const DEAD_CLASSES: usize = 8;

/// A segment this dead (in classes) is compacted rather than another one evicted.
const COMPACT_CLASS_MIN: usize = 4;

/// With evictions forbidden, a segment this dead is compacted.
const COMPACT_CLASS_MIN_NO_EVICTION: usize = 1;

/// After so many segments walked for one item, frequency no longer saves the items of the next.
const PATIENT_VICTIMS_MAX: usize = 1;

/// So many large items may be kept, for one that is stored, before patience ends for them as well.
const KEPT_LARGE_MAX: usize = 32;

/// Segments that a store may take above the least that it had since memory became short: as fast
/// as it frees others.
const OWN_SLACK_SEGMENTS: u64 = 3;

/// What a large value leaves of them, for the next head: no small item has to wait because a large
/// one came before.
const LEFT_BY_LARGE_SEGMENTS: u64 = 1;

/// Items that a store drains while memory is short, in batches. Each store adds one
/// item, and a drained segment has few that stay: more than ten would be drained for one stored
/// only while nearly all that is there is in use.
pub const BATCHES_PER_STORE: usize = 1;

/// Batches that one call of [`Store::maintain`] drains.
const BATCHES_PER_MAINTENANCE: usize = 16;

/// Chunks of old ghosts freed in one step.
const GHOST_CHUNKS: usize = 64;

/// Expired items wait for the sweep at least this long, so that it meets several at once.
const SWEEP_DELAY_SECONDS: u64 = 2;

/// Items of a segment with expired ones that one call of [`Store::maintain`] looks at.
const SWEPT_ITEMS_MAX: usize = 512;

/// Index partitions that one call of [`Store::maintain`] looks at, to make them smaller.
const SHRINK_PARTITIONS: usize = 16;

/// Pieces of a flushed index freed in one step.
const DISMANTLE_CHUNKS: usize = 8;

/// Places of flushed segments looked at for each one freed: some are empty.
const PLACES_PER_SEGMENT: usize = 16;

/// What this file keeps between calls.
#[derive(Debug)]
pub struct Reclaim {
    /// Keys evicted from the small queue.
    pub ghosts: Ghosts,
    /// Sealed segments, oldest first, but for the one that is being drained.
    small: Chain,
    main: Chain,
    small_bytes: u64,
    /// Of those, the ones with dead bytes, by how many; the last has been that dead for the
    /// shortest time.
    by_deadness: [Chain; DEAD_CLASSES],
    sweep_next: usize,
    /// The segment that is being swept.
    sweeping: Option<Sweep>,
    trash: Trash,
    /// Memory was short when this store looked last.
    is_short: bool,
    /// While it is: what this store may not exceed any more, unless others have less. It only
    /// falls.
    ceiling_bytes: Option<u64>,
    /// The limit when this store looked last.
    limit_bytes: u64,
    /// The segment that is being drained.
    draining: Option<Drain>,
}

/// Numbers of a segment's links.
const QUEUE_LINK: usize = 0;
const DEADNESS_LINK: usize = 1;

impl Default for Reclaim {
    fn default() -> Self {
        Self {
            ghosts: Ghosts::default(),
            small: Chain::new(QUEUE_LINK),
            main: Chain::new(QUEUE_LINK),
            small_bytes: 0,
            by_deadness: [const { Chain::new(DEADNESS_LINK) }; DEAD_CLASSES],
            sweep_next: 0,
            sweeping: None,
            trash: Trash::default(),
            is_short: false,
            ceiling_bytes: None,
            limit_bytes: 0,
            draining: None,
        }
    }
}

/// A segment that is being drained.
#[derive(Debug, Clone, Copy)]
struct Drain {
    id: u32,
    /// The offset of the first item that was not looked at.
    next: usize,
    rule: Rule,
}

/// What a step to free a segment has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reclaimed {
    /// There is nothing to free.
    Nothing,
    /// Flushed memory was freed, or old ghosts.
    Trash,
    /// A segment was drained, or a part of it.
    Drained,
    /// A large item was looked at, and stays.
    Kept,
}

/// Which items of a drained segment stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// All of them: the segment has many dead bytes, which is what is wanted.
    All,
    /// See [`Worth::in_small`].
    Small,
    /// See [`Worth::in_main`].
    Main,
    /// None: somebody waits.
    Nothing,
}

/// A segment whose expired items are being removed.
#[derive(Debug, Clone, Copy)]
struct Sweep {
    id: u32,
    /// The offset of the first item that was not looked at.
    next: usize,
    /// When the first of the items before it expires.
    earliest: Ticks,
}

/// Flushed segments and index, freed a bit at a time.
#[derive(Debug, Default)]
struct Trash {
    /// The lists of segments as flushes took them: copying the segments out would take as long as
    /// the store is large.
    segments: Vec<Vec<Option<Segment>>>,
    shelves: Vec<Shelf>,
    bytes: u64,
}

impl Trash {
    /// Frees up to `segments_max` segments, fewer where many places are empty.
    fn drop_segments(&mut self, segments_max: usize) {
        let mut freed = 0;
        for _ in 0..segments_max * PLACES_PER_SEGMENT {
            let Some(flushed) = self.segments.last_mut() else { return };
            match flushed.pop() {
                None => drop(self.segments.pop()),
                Some(None) => {}
                Some(Some(segment)) => {
                    self.bytes -= segment.memory_bytes() as u64;
                    freed += 1;
                }
            }
            if freed == segments_max {
                return;
            }
        }
    }
}

impl Reclaim {
    /// Puts a sealed segment at the end of its queue.
    pub fn enqueue(&mut self, id: u32, segments: &mut [Option<Segment>]) {
        let queue = segments[id as usize].as_ref().map(|segment| segment.queue);
        if let Some(queue) = queue {
            self.queue(queue).push_last(id, segments);
        }
    }

    /// Files a sealed segment under how dead it is.
    pub fn note_dead(&mut self, id: u32, segments: &mut [Option<Segment>]) {
        let Some(segment) = segments[id as usize].as_mut() else { return };
        let class = dead_class(segment);
        let has_changed = class > segment.noted_deadness;
        if !has_changed || segment.is_large() || self.draining.is_some_and(|drain| drain.id == id) {
            return;
        }
        let old = std::mem::replace(&mut segment.noted_deadness, class);
        self.by_deadness[old].remove(id, segments);
        self.by_deadness[class].push_last(id, segments);
    }

    /// A segment is about to be drained or freed: nothing here names it any more.
    pub fn forget(&mut self, id: u32, segments: &mut [Option<Segment>]) {
        let Some(segment) = segments[id as usize].as_ref() else { return };
        let (queue, class) = (segment.queue, segment.noted_deadness);
        self.queue(queue).remove(id, segments);
        self.by_deadness[class].remove(id, segments);
        self.draining = self.draining.filter(|drain| drain.id != id);
        self.sweeping = self.sweeping.filter(|sweep| sweep.id != id);
    }

    fn queue(&mut self, queue: Queue) -> &mut Chain {
        match queue {
            Queue::Small => &mut self.small,
            Queue::Main => &mut self.main,
        }
    }

    /// Follows the memory of the small queue.
    pub fn queue_bytes_changed(&mut self, queue: Queue, change: i64) {
        if queue == Queue::Small {
            self.small_bytes = self.small_bytes.saturating_add_signed(change);
        }
    }

    /// Memory of ghosts and of what waits to be freed.
    pub fn memory_bytes(&self) -> u64 {
        self.ghosts.bytes() + self.trash.bytes
    }

    /// The segment with the most dead bytes, if its class is at least `class_min`.
    fn deadest(&self, class_min: usize) -> Option<u32> {
        self.by_deadness[class_min..].iter().rev().find_map(Chain::last)
    }

    /// The segment whose turn it is: the small queue's oldest while that queue is above its share.
    fn next_victim(&self, memory_bytes: u64) -> Option<u32> {
        let (small, main) = (self.small.first(), self.main.first());
        let prefer_small = self.small_bytes > memory_bytes / SMALL_SHARE;
        if prefer_small { small.or(main) } else { main.or(small) }
    }
}

fn dead_class(segment: &Segment) -> usize {
    let dead = segment.used_bytes - segment.live_bytes;
    (dead * DEAD_CLASSES / segment.used_bytes.max(1)).min(DEAD_CLASSES - 1)
}

/// Items of a segment that are looked up together.
const BATCH_ITEMS: usize = 16;

/// A few items of a segment that is walked: offsets and hashes.
#[derive(Default)]
struct Batch {
    items: [(usize, u64); BATCH_ITEMS],
    count: usize,
    /// Where the walk goes on.
    next: usize,
}

impl Batch {
    fn items(&self) -> impl Iterator<Item = (usize, u64)> + use<> {
        self.items.into_iter().take(self.count)
    }
}

/// An item whose segment is being evicted.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    frequency: u8,
    /// What it takes, in its segment and in the index.
    bytes: u64,
    /// Stands in for a random number, so that a store stays a function of its calls.
    hash: u64,
}

/// Which items are worth their bytes. Both rules answer the frequency an item goes on with, or
/// `None` to evict it.
#[derive(Debug, Clone, Copy)]
struct Worth {
    item_bytes_mean: u64,
}

impl Worth {
    fn of(store: &Store) -> Self {
        let items = (store.index.items() as u64).max(1);
        Self { item_bytes_mean: store.live_bytes / items + INDEX_BYTES_PER_ITEM }
    }

    /// The small queue keeps what was asked for often enough for its size, and very small items
    /// even before anybody asked.
    fn in_small(self, candidate: Candidate) -> Option<u8> {
        let credit_tenths = u64::from(candidate.frequency) * 10 + SMALL_CREDIT_TENTHS;
        let bytes_max = credit_tenths * SMALL_SIZE_MEANS * self.item_bytes_mean / 10;
        (candidate.bytes <= bytes_max).then(|| candidate.frequency.saturating_sub(1))
    }

    /// A round through the main queue costs as many accesses as the item is mean sizes large, a
    /// fraction by chance. Items with none left go.
    fn in_main(self, candidate: Candidate) -> Option<u8> {
        let chance = ((candidate.hash >> 40 & 0xffff) * self.item_bytes_mean) >> 16;
        let cost = (candidate.bytes + chance) / self.item_bytes_mean;
        let left = u64::from(candidate.frequency).checked_sub(cost)?;
        (candidate.frequency > 0).then_some(left as u8)
    }
}

impl Store {
    /// Removes every item at once; their memory comes back in later calls of [`Store::maintain`]
    /// or as it is needed.
    pub fn flush(&mut self) {
        if self.segment_memory_bytes == 0 {
            return;
        }
        let segments = super::first_of_segments(self.budget().share_bytes(), self.segment_bytes);
        let trash = &mut self.reclaim.trash;
        let shelves = self.index.clear();
        trash.bytes += shelves.iter().map(Shelf::bytes).sum::<usize>() as u64;
        trash.shelves.extend(shelves);
        trash.segments.push(std::mem::replace(&mut self.segments, segments));
        trash.bytes += self.segment_memory_bytes;
        self.free_ids = Vec::new();
        (self.head, self.tail) = (None, None);
        (self.segment_memory_bytes, self.live_bytes) = (0, 0);
        let Reclaim { trash, mut ghosts, .. } = std::mem::take(&mut self.reclaim);
        ghosts.resize(0);
        let limit_bytes = self.budget().limit_bytes();
        self.reclaim = Reclaim { trash, ghosts, limit_bytes, ..Reclaim::default() };
        self.tell_memory();
    }

    /// Work that no command waits for: expired items, memory above a lowered limit, flushed
    /// memory. Looks at up to `segments_max` segments. Call it about ten times a second, and again
    /// soon if it answers that there is more to do.
    pub fn maintain(&mut self, now: Ticks, segments_max: usize) -> bool {
        self.follow_limit();
        let mut more = self.empty_trash(8);
        if self.is_to_give() {
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

    /// Makes room for `bytes` more, of which `paid_bytes` are counted as lent as long as they are
    /// not the store's.
    pub(super) fn make_room(
        &mut self,
        bytes: u64,
        paid_bytes: u64,
        now: Ticks,
    ) -> Result<(), Full> {
        self.follow_limit();
        let paid_bytes = paid_bytes.min(self.budget().lent_bytes());
        let (mut victims, mut kept) = (0, 0);
        while !self.may_take(bytes, paid_bytes) {
            match self.reclaim_segment(now, victims) {
                Reclaimed::Nothing => return Err(Full),
                Reclaimed::Trash => {}
                Reclaimed::Drained => victims += 1,
                // Nothing was copied for it, so that several may be kept before patience ends.
                Reclaimed::Kept => kept += 1,
            }
            if kept == KEPT_LARGE_MAX {
                victims = PATIENT_VICTIMS_MAX;
            }
        }
        Ok(())
    }

    /// Whether this store may take so many bytes before it frees any.
    fn may_take(&mut self, bytes: u64, paid_bytes: u64) -> bool {
        let budget = self.account.budget();
        let limit_bytes = budget.limit_bytes();
        let (slack_bytes, overshoot_bytes) = (budget.slack_bytes(), budget.overshoot_bytes());
        let share_bytes = budget.share_bytes();
        let after_bytes = self.used_by_all() + bytes - paid_bytes;
        if after_bytes <= limit_bytes {
            self.reclaim.ceiling_bytes = None;
            return true;
        }
        if !self.evict {
            return false;
        }
        // From here on every store of an item frees a few others.
        self.reclaim.is_short = true;
        let own_bytes = self.counted_bytes();
        let followed_bytes = own_bytes + OWN_SLACK_SEGMENTS * self.segment_bytes as u64;
        let ceiling_bytes = self.reclaim.ceiling_bytes.unwrap_or(u64::MAX).min(followed_bytes);
        self.reclaim.ceiling_bytes = Some(ceiling_bytes);
        let is_large = bytes > self.segment_bytes as u64;
        let left_segments = if is_large { LEFT_BY_LARGE_SEGMENTS } else { 0 };
        let left_bytes = left_segments * self.segment_bytes as u64;
        after_bytes + left_bytes <= limit_bytes + slack_bytes
            || own_bytes + bytes + left_bytes <= ceiling_bytes
            || (own_bytes + bytes <= share_bytes && after_bytes <= limit_bytes + overshoot_bytes)
    }

    /// What was made for another limit goes.
    fn follow_limit(&mut self) {
        let limit_bytes = self.budget().limit_bytes();
        if std::mem::replace(&mut self.reclaim.limit_bytes, limit_bytes) != limit_bytes {
            self.reclaim.ghosts.resize(0);
            self.reclaim.ceiling_bytes = None;
        }
    }

    /// Whether memory is above the limit, and this store is one of those to give some of theirs:
    /// those above their share, or all of them when that does not help soon enough.
    fn is_to_give(&self) -> bool {
        let budget = self.budget();
        let (used_bytes, limit_bytes) = (self.used_by_all(), budget.limit_bytes());
        let is_urgent = used_bytes > limit_bytes + budget.overshoot_bytes() / 2;
        used_bytes > limit_bytes && (is_urgent || self.counted_bytes() > budget.share_bytes())
    }

    /// Frees a few items if memory is short.
    #[inline]
    pub(super) fn free_some(&mut self, now: Ticks) {
        if self.reclaim.is_short {
            self.reclaim.is_short = (self.reclaim.draining.is_some() || self.is_to_give())
                && self.reclaim_some(now, BATCHES_PER_STORE);
        }
    }

    /// Frees one segment.
    fn reclaim_segment(&mut self, now: Ticks, victims_before: usize) -> Reclaimed {
        if self.empty_trash(1) {
            return Reclaimed::Trash;
        }
        let Some(mut drain) = self.next_drain() else { return Reclaimed::Nothing };
        if victims_before >= PATIENT_VICTIMS_MAX && drain.rule != Rule::All {
            drain.rule = Rule::Nothing;
        }
        self.drain_on(drain, usize::MAX, now)
    }

    /// Goes on with freeing a segment. Answers false if there is none to free.
    fn reclaim_some(&mut self, now: Ticks, batches_max: usize) -> bool {
        if self.empty_trash(1) {
            return true;
        }
        self.next_drain().map(|drain| self.drain_on(drain, batches_max, now)).is_some()
    }

    /// The segment that is being drained, or another one.
    fn next_drain(&mut self) -> Option<Drain> {
        self.reclaim.draining.take().or_else(|| self.begin_drain())
    }

    /// Chooses the segment to drain next.
    fn begin_drain(&mut self) -> Option<Drain> {
        let class_min = if self.evict { COMPACT_CLASS_MIN } else { COMPACT_CLASS_MIN_NO_EVICTION };
        let (id, rule) = if let Some(id) = self.reclaim.deadest(class_min) {
            (id, Rule::All)
        } else if self.evict {
            let victim = self.reclaim.next_victim(self.counted_bytes());
            let id = victim.or_else(|| self.seal_for_eviction())?;
            self.prepare_ghosts();
            let rule = match self.segment(id).queue {
                Queue::Small => Rule::Small,
                Queue::Main => Rule::Main,
            };
            (id, rule)
        } else {
            return None;
        };
        self.reclaim.forget(id, &mut self.segments);
        Some(Drain { id, next: 0, rule })
    }

    /// A last resort: the segments being appended to.
    fn seal_for_eviction(&mut self) -> Option<u32> {
        let id = self.tail.take().or_else(|| self.head.take())?;
        self.segment_mut(id).seal();
        Some(id)
    }

    /// Ghosts cost memory only once there is something to remember.
    fn prepare_ghosts(&mut self) {
        let items = self.index.items();
        let ghosts = &mut self.reclaim.ghosts;
        let is_outgrown = items > ghosts.capacity() * 2;
        // The smallest table is too large for a few items, and is good for them.
        let is_too_large = items < ghosts.capacity() / 8 && !ghosts.is_smallest();
        if is_outgrown || is_too_large {
            ghosts.resize(items);
        }
    }

    /// Looks at some more items of a segment: those worth keeping are copied to the main queue, the
    /// others are evicted. Behind the last one the segment is freed.
    fn drain_on(&mut self, drain: Drain, batches_max: usize, now: Ticks) -> Reclaimed {
        let id = drain.id;
        let mut segment = self.segments[id as usize].take().expect("in use while it is drained");
        let worth = Worth::of(self);
        let keep = |candidate: Candidate| match drain.rule {
            Rule::All => Some(candidate.frequency),
            Rule::Small => worth.in_small(candidate),
            Rule::Main => worth.in_main(candidate),
            Rule::Nothing => None,
        };
        let mut batch = Batch { next: drain.next, ..Batch::default() };
        let mut batches = 0;
        while batches < batches_max && self.next_batch(&segment, &mut batch) {
            batches += 1;
            for (offset, hash) in batch.items() {
                let Some(handle) = self.drain_item(&mut segment, (id, offset), hash, keep, now)
                else {
                    continue;
                };
                if segment.is_large() {
                    self.requeue_large(id, segment);
                    return Reclaimed::Kept;
                }
                self.move_to_tail(&segment, offset, handle, now);
            }
        }
        self.segments[id as usize] = Some(segment);
        if batch.next < self.segment(id).used_bytes {
            self.reclaim.draining = Some(Drain { next: batch.next, ..drain });
        } else {
            debug_assert_eq!(self.segment(id).live_bytes, 0, "every live item was in the index");
            self.free_segment(id);
        }
        Reclaimed::Drained
    }

    /// Takes an item off a segment. Returns its handle if it is to be kept.
    fn drain_item(
        &mut self,
        segment: &mut Segment,
        (id, offset): (u32, usize),
        hash: u64,
        keep: impl Fn(Candidate) -> Option<u8>,
        now: Ticks,
    ) -> Option<Handle> {
        let location = self.location(id, offset);
        let handle = self.index.find(hash, |at| at == location)?;
        let slot = self.index.slot(handle);
        let expired = segment.is_expired(offset, now);
        let stride = segment.stride(offset);
        segment.live_bytes -= stride;
        self.live_bytes -= stride as u64;
        let bytes = stride as u64 + INDEX_BYTES_PER_ITEM;
        let kept = keep(Candidate { frequency: slot.frequency(), bytes, hash });
        if let Some(frequency) = kept.filter(|_| !expired) {
            self.index.replace(handle, slot.with_frequency(frequency));
            return Some(handle);
        }
        self.index.remove(handle);
        self.count_removed(slot, expired);
        if !expired {
            if let Some(evictions) = &mut self.evicted {
                evictions.note(segment, offset, slot.fetched());
            }
            self.tell_evicted(hash);
            if segment.queue == Queue::Small {
                self.reclaim.ghosts.remember(hash, stride);
            }
        }
        None
    }

    /// The next items of a segment, with what removing them will need on its way to the caches: the
    /// waits for index and ghosts overlap, which more than halves the time a segment takes.
    fn next_batch(&self, segment: &Segment, batch: &mut Batch) -> bool {
        batch.count = 0;
        let mut read = 0;
        let leaves_ghosts = segment.queue == Queue::Small;
        while batch.next < segment.used_bytes && batch.count < BATCH_ITEMS {
            let hash = self.hasher.hash(segment.stored(batch.next).key);
            read ^= self.index.touch(hash);
            if leaves_ghosts {
                read ^= self.reclaim.ghosts.touch(hash);
            }
            batch.items[batch.count] = (batch.next, hash);
            batch.count += 1;
            batch.next += segment.stride(batch.next);
        }
        // Without a use of what was read, the compiler would leave out the reads.
        std::hint::black_box(read);
        batch.count > 0
    }

    fn count_removed(&mut self, slot: Slot, expired: bool) {
        self.has_expired |= expired;
        let Counters { evictions, evicted_unfetched, evicted_active, .. } = &mut self.counters;
        if expired {
            self.counters.reclaimed += 1;
            self.counters.expired_unfetched += u64::from(!slot.fetched());
        } else {
            *evictions += 1;
            *evicted_unfetched += u64::from(!slot.fetched());
            *evicted_active += u64::from(slot.frequency() > 1);
        }
    }

    /// A large item that is kept moves by queue, not by copy.
    fn requeue_large(&mut self, id: u32, mut segment: Segment) {
        let bytes = segment.memory_bytes() as i64;
        self.reclaim.queue_bytes_changed(segment.queue, -bytes);
        segment.queue = Queue::Main;
        segment.live_bytes = segment.used_bytes;
        self.live_bytes += segment.live_bytes as u64;
        self.segments[id as usize] = Some(segment);
        self.reclaim.enqueue(id, &mut self.segments);
        self.counters.moves += 1;
    }

    /// Copies an item to the tail of the main queue.
    fn move_to_tail(&mut self, from: &Segment, offset: usize, handle: Handle, now: Ticks) {
        let slot = self.index.slot(handle);
        let stored = from.stored(offset);
        let mut attributes = stored.header.attributes;
        if slot.observed() && attributes.cas.is_none() {
            attributes.cas = Some(super::position_token(from.sequence, offset));
        }
        let stride = item::stride(&attributes, stored.key.len(), stored.value.len());
        let id = self.tail_with_room(stride);
        let to = self.segment_mut(id).append(&attributes, stored.key, [stored.value, &[]], now);
        self.live_bytes += stride as u64;
        self.counters.moves += 1;
        let location = self.location(id, to);
        self.index.replace(handle, slot.with_location(location));
    }

    /// The main queue's open segment. Does not look at the limit: the reserve is for this.
    fn tail_with_room(&mut self, stride: usize) -> u32 {
        if let Some(id) = self.tail {
            if self.segment(id).has_room(stride) {
                return id;
            }
            self.tail = None;
            self.seal(id);
        }
        let sequence = self.next_main_sequence();
        let usable = usable_bytes(self.segment_bytes);
        let segment = Segment::open(usable, self.spare.take(), sequence, Queue::Main);
        let id = self.add_segment(segment);
        self.tail = Some(id);
        id
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

    /// Frees up to `segments_max` flushed segments and a part of the flushed index. Answers
    /// whether there was anything to free.
    fn empty_trash(&mut self, segments_max: usize) -> bool {
        let ghosts = self.reclaim.ghosts.free_some(GHOST_CHUNKS);
        let trash = &mut self.reclaim.trash;
        if trash.segments.is_empty() && trash.shelves.is_empty() {
            return ghosts;
        }
        trash.drop_segments(segments_max);
        for _ in 0..DISMANTLE_CHUNKS {
            let Some(shelf) = trash.shelves.last_mut() else { break };
            let before = shelf.bytes();
            let has_more = shelf.drop_chunk();
            trash.bytes -= (before - shelf.bytes()) as u64;
            if !has_more {
                trash.shelves.pop();
            }
        }
        true
    }
}

#[cfg(test)]
impl Store {
    /// Every segment is in the lists it belongs to, and in no other.
    pub(super) fn check_lists(&self) {
        let Reclaim { small, main, by_deadness, draining, .. } = &self.reclaim;
        let listed = |chain: &Chain| chain.listed(&self.segments).into_iter();
        let queued: Vec<(u32, usize)> = listed(small)
            .map(|id| (id, Queue::Small as usize))
            .chain(listed(main).map(|id| (id, Queue::Main as usize)))
            .collect();
        let dead: Vec<(u32, usize)> = (0..)
            .zip(by_deadness)
            .flat_map(|(class, chain)| listed(chain).map(move |id| (id, class)))
            .collect();
        let in_use =
            (0..).zip(&self.segments).filter_map(|(id, segment)| Some((id, segment.as_ref()?)));
        let (mut expected_queued, mut expected_dead) = (Vec::new(), Vec::new());
        for (id, segment) in in_use {
            let is_open = [self.head, self.tail].contains(&Some(id));
            assert_eq!(is_open, segment.is_open());
            if is_open || draining.is_some_and(|drain| drain.id == id) {
                continue;
            }
            expected_queued.push((id, segment.queue as usize));
            let class = dead_class(segment);
            if class > 0 && !segment.is_large() {
                expected_dead.push((id, class));
            }
        }
        let sorted = |mut list: Vec<(u32, usize)>| {
            list.sort_unstable();
            list
        };
        assert_eq!(sorted(queued), sorted(expected_queued));
        assert_eq!(sorted(dead), sorted(expected_dead));
    }
}
