//! Getting memory back: cleaning, eviction, expired and flushed items.
//!
//! Memory is in segments, and a segment's memory comes back when nothing in it is alive. Dead bytes
//! are what an item leaves that was deleted, has expired, or has a new version elsewhere.
//!
//! ```text
//! step(shard):                                # 16 items or more; every store takes one while
//!     while a segment is being drained:       # memory is short
//!         for each of its next items:
//!             dead, expired       -> nothing to do
//!             cleaning            -> copy it to the output, which stands in the segment's place
//!             worth(item)         -> copy it to the tail of the main queue
//!             else                -> evict it; from the small queue, leave a ghost
//!         behind the last item, free the segment
//!
//!     deadest = the largest share of dead bytes in a segment of this shard
//!     if deadest >= 1/16:                     # cleaning pays: it costs time, but no hits
//!         the hand goes on through the queue, oldest first, to the next segment that is at least
//!         half as dead as the deadest: drain it, cleaning
//!     else if 1/24 of all shards' memory is dead:
//!         wait for those to clean who can     # unless memory is far above the limit
//!     else if this shard has its share or more:
//!         drain the oldest segment of the small queue if that has a tenth of the shard's memory,
//!         else the oldest of the main queue
//! ```
//!
//! **Eviction** is S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache
//! eviction", SOSP 2023), by segments. What is worth keeping depends on size as well: `policy.rs`.
//!
//! **Cleaning** is that of log-structured file systems (Rosenblum, Ousterhout: "The design and
//! implementation of a log-structured file system", SOSP 1991; in memory: Rumble, Kejriwal,
//! Ousterhout: "Log-structured memory for DRAM-based storage", FAST 2014). A segment with the share
//! `d` of its bytes dead costs `(1 - d) / d` bytes copied for each one freed. The deadest segments
//! would be cheapest, but their items are of all ages, and put together in one segment they would
//! lose their places in the queues. So a hand goes through a queue in order and takes what is
//! nearly as cheap; where all are equally dead it finds every segment as late as can be, like a
//! circular log. Frequencies stay, and so do the times when items were stored.

mod clean;
mod drain;
mod policy;
mod room;
mod sweep;
mod trash;

pub(super) use policy::{Candidate, INDEX_BYTES_PER_ITEM, RetentionPolicy, chance_of};
#[cfg(test)]
pub(crate) use room::BATCHES_PER_STORE;
pub(super) use room::Need;

use super::Store;
use super::ghosts::Ghosts;
use super::segment::{Queue, Segment};
use super::segment_list::SegmentList;
use clean::Hand;
use drain::{Drain, Rule};
pub use sweep::IDLE_SECONDS_MAX;
use sweep::{Aging, Sweep};
use trash::Trash;

/// Frequency of an item that comes back while its ghost is remembered: enough to be kept by the
/// small queue unless it is large.
pub(super) const RETURNED_FREQUENCY: u8 = 1;

/// The small queue's share of the memory, as one part in so many.
pub(super) const SMALL_SHARE: u64 = 10;

/// Dead bytes are counted in so many parts of a segment.
const DEAD_CLASSES: usize = 32;

/// A segment this dead (in classes) is cleaned rather than another one evicted.
const CLEAN_CLASS_MIN: usize = 2;

/// The same when somebody waits for the second segment to be freed: one that gives more soon.
const CLEAN_CLASS_MIN_IMPATIENT: usize = 8;

/// With evictions forbidden, a segment this dead is cleaned.
const CLEAN_CLASS_MIN_NO_EVICTION: usize = 1;

/// While more than one part in so many of all memory is dead, nothing is evicted because one store
/// has nothing to clean.
const DIRTY_SHARE: u64 = 24;

/// What this folder keeps between calls.
#[derive(Debug)]
pub(super) struct Reclaim {
    /// Keys evicted from the small queue.
    pub ghosts: Ghosts,
    /// Sealed segments, oldest first, but for the one that is being drained; and the segment that
    /// cleaning fills. By queue.
    queues: [SegmentList; 2],
    /// Of those, the ones that hold more than one item, in the same order.
    ordinary: [SegmentList; 2],
    small_bytes: u64,
    /// How many segments are how dead.
    dead_counts: [u32; DEAD_CLASSES],
    dead_bytes: usize,
    hand: Hand,
    sweep_next: usize,
    /// The segment that is being swept.
    sweeping: Option<Sweep>,
    /// How far the items' recency was looked after.
    aging: Aging,
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
    /// How often something was drained.
    drains: u64,
}

/// Numbers of a segment's links.
const QUEUE_LINK: usize = 0;
const ORDINARY_LINK: usize = 1;

impl Default for Reclaim {
    fn default() -> Self {
        Self {
            ghosts: Ghosts::default(),
            queues: [const { SegmentList::new(QUEUE_LINK) }; 2],
            ordinary: [const { SegmentList::new(ORDINARY_LINK) }; 2],
            small_bytes: 0,
            dead_counts: [0; DEAD_CLASSES],
            dead_bytes: 0,
            hand: Hand::default(),
            sweep_next: 0,
            sweeping: None,
            aging: Aging::default(),
            trash: Trash::default(),
            is_short: false,
            ceiling_bytes: None,
            limit_bytes: 0,
            draining: None,
            drains: 0,
        }
    }
}

/// How much a segment is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Haste {
    /// Others may free one as well.
    None,
    /// A store waits for this.
    Waiting,
    /// It has waited for one already.
    Impatient,
}

/// What a step to free a segment has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reclaimed {
    /// There is nothing to free.
    Nothing,
    /// Flushed memory was freed, or old ghosts; or the hand went on.
    Some,
    /// A segment was drained, or a part of it.
    Drained,
    /// A large item was looked at, and stays.
    Kept,
}

impl Reclaim {
    /// Puts a sealed segment at the end of its queue.
    pub(super) fn enqueue(&mut self, id: u32, segments: &mut [Option<Segment>]) {
        self.enqueue_before(0, id, segments);
    }

    /// Puts a segment before another one of its queue; 0: at the end.
    fn enqueue_before(&mut self, next: u32, id: u32, segments: &mut [Option<Segment>]) {
        let Some(segment) = segments[id as usize].as_ref() else { return };
        let (queue, is_large) = (segment.queue as usize, segment.is_large());
        self.queues[queue].insert_before(next, id, segments);
        if !is_large {
            self.ordinary[queue].insert_before(next, id, segments);
        }
    }

    /// Counts how dead a sealed segment is by now.
    pub(super) fn note_dead(&mut self, id: u32, segments: &mut [Option<Segment>]) {
        let Some(segment) = segments[id as usize].as_mut() else { return };
        if segment.is_large() || self.draining.is_some_and(|drain| drain.id == id) {
            return;
        }
        let before = dead_class(segment);
        self.dead_bytes -= segment.noted_dead_bytes;
        segment.noted_dead_bytes = segment.filled_bytes - segment.live_bytes;
        self.dead_bytes += segment.noted_dead_bytes;
        self.move_class(before, dead_class(segment));
    }

    /// The first class is that of segments that nobody would clean; it is not counted.
    fn move_class(&mut self, before: usize, after: usize) {
        if before != after {
            self.dead_counts[before] -= u32::from(before > 0);
            self.dead_counts[after] += u32::from(after > 0);
        }
    }

    /// A segment is about to be drained or freed: nothing here names it any more.
    pub(super) fn forget(&mut self, id: u32, segments: &mut [Option<Segment>]) {
        let Some(segment) = segments[id as usize].as_mut() else { return };
        let class = dead_class(segment);
        self.dead_bytes -= std::mem::take(&mut segment.noted_dead_bytes);
        self.move_class(class, 0);
        let next = self.unlist(id, segments);
        self.hand.forget(id, next);
        self.draining = self.draining.filter(|drain| drain.id != id);
        self.sweeping = self.sweeping.filter(|sweep| sweep.id != id);
    }

    /// Takes a segment out of its lists; answers which was the next ordinary one.
    fn unlist(&mut self, id: u32, segments: &mut [Option<Segment>]) -> u32 {
        let Some(segment) = segments[id as usize].as_ref() else { return 0 };
        let queue = segment.queue as usize;
        let next = self.ordinary[queue].next(id, segments);
        self.queues[queue].remove(id, segments);
        self.ordinary[queue].remove(id, segments);
        next
    }

    /// Follows the memory of the small queue.
    pub(super) fn queue_bytes_changed(&mut self, queue: Queue, change: i64) {
        if queue == Queue::Small {
            self.small_bytes = self.small_bytes.saturating_add_signed(change);
        }
    }

    /// Memory of ghosts and of what waits to be freed.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.ghosts.bytes() + self.trash.bytes()
    }

    /// The segments that cleaning fills.
    pub(super) fn outputs(&self) -> [Option<u32>; 2] {
        self.hand.outputs
    }

    /// The oldest segment of each queue.
    pub(super) fn oldest(&self) -> [Option<u32>; 2] {
        self.queues.each_ref().map(SegmentList::first)
    }

    /// Dead bytes in sealed segments.
    pub(super) fn dead_bytes(&self) -> u64 {
        self.dead_bytes as u64
    }

    /// The class of the deadest segment.
    fn deadest(&self) -> usize {
        self.dead_counts.iter().rposition(|count| *count > 0).unwrap_or(0)
    }

    /// The segment whose turn it is: the small queue's oldest while that queue is above its share.
    fn next_victim(&self, memory_bytes: u64) -> Option<u32> {
        let [small, main] = self.oldest();
        let prefer_small = self.small_bytes > memory_bytes / SMALL_SHARE;
        if prefer_small { small.or(main) } else { main.or(small) }
    }
}

/// How dead a segment was when it was looked at last.
fn dead_class(segment: &Segment) -> usize {
    let class = segment.noted_dead_bytes * DEAD_CLASSES / segment.filled_bytes.max(1);
    class.min(DEAD_CLASSES - 1)
}

impl Store {
    /// Chooses the segment to drain next.
    fn begin_drain(&mut self, haste: Haste) -> Result<Drain, Reclaimed> {
        let deadest = self.reclaim.deadest();
        let class_min = match (self.evict, haste) {
            (false, _) => CLEAN_CLASS_MIN_NO_EVICTION,
            (true, Haste::None | Haste::Waiting) => CLEAN_CLASS_MIN,
            (true, Haste::Impatient) => CLEAN_CLASS_MIN_IMPATIENT,
        };
        if deadest >= class_min {
            return self.begin_cleaning(class_min.max(deadest.div_ceil(2)));
        }
        if !self.evict || (haste == Haste::None && !self.may_evict()) {
            return Err(Reclaimed::Nothing);
        }
        self.begin_eviction().ok_or(Reclaimed::Nothing)
    }

    fn begin_eviction(&mut self) -> Option<Drain> {
        let victim = self.reclaim.next_victim(self.counted_bytes());
        let id = victim.or_else(|| self.seal_for_eviction())?;
        if self.reclaim.outputs().contains(&Some(id)) {
            self.close_output(self.segment(id).queue);
            return self.begin_eviction();
        }
        self.prepare_ghosts();
        let rule = match self.segment(id).queue {
            Queue::Small => Rule::Small,
            Queue::Main => Rule::Main,
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
}

#[cfg(test)]
impl Store {
    /// Every segment is in the lists it belongs to, and in no other.
    pub(super) fn check_lists(&self) {
        let Reclaim { queues, ordinary, draining, dead_counts, dead_bytes, .. } = &self.reclaim;
        let listed = |lists: &[SegmentList; 2]| {
            let ids = lists.each_ref().map(|list| list.listed(&self.segments));
            let [small, main] = ids.map(Vec::into_iter);
            let small = small.map(|id| (id, Queue::Small as usize));
            let mut all: Vec<_> = small.chain(main.map(|id| (id, Queue::Main as usize))).collect();
            all.sort_unstable();
            all
        };
        let in_use =
            (0..).zip(&self.segments).filter_map(|(id, segment)| Some((id, segment.as_ref()?)));
        let (mut expected, mut expected_ordinary) = (Vec::new(), Vec::new());
        let (mut counts, mut dead) = ([0; DEAD_CLASSES], 0);
        for (id, segment) in in_use {
            let is_output = self.reclaim.outputs().contains(&Some(id));
            let is_open = [self.head, self.tail].contains(&Some(id));
            assert_eq!(is_open || is_output, segment.is_open());
            if is_open || draining.is_some_and(|drain| drain.id == id) {
                continue;
            }
            expected.push((id, segment.queue as usize));
            if segment.is_large() {
                continue;
            }
            expected_ordinary.push((id, segment.queue as usize));
            if !is_output {
                assert_eq!(segment.noted_dead_bytes, segment.filled_bytes - segment.live_bytes);
                counts[dead_class(segment)] += 1;
                dead += segment.noted_dead_bytes;
            }
        }
        counts[0] = 0;
        assert_eq!(listed(queues), expected);
        assert_eq!(listed(ordinary), expected_ordinary);
        assert_eq!((dead_counts, dead_bytes), (&counts, &dead));
    }
}
