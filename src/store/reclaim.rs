//! Getting memory back: eviction (S3-FIFO), compaction of segments with many dead bytes, the sweep
//! for expired items, and the slow freeing of what a flush threw away.
//!
//! S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache eviction", SOSP
//! 2023) works on whole segments here: the oldest segment of a queue is walked, items worth keeping
//! are copied to the main queue's tail, the rest is evicted. Each call frees one segment's worth of
//! work, so that a pause is bounded by the segment size.
//!
//! What is worth keeping depends on size as well, in the spirit of GDSF (Cherkasova: "Improving WWW
//! proxies performance with greedy-dual-size-frequency caching policy", HP Labs 1998): the hits an
//! item can bring are weighed against the bytes it holds. See [`Worth`].

use super::segment::{Queue, Segment, usable_bytes};
use super::shelf::Shelf;
use super::{Counters, Full, Store, Ticks, item};
use crate::store::ghosts::Ghosts;
use crate::store::index::{Handle, Slot};
use std::collections::VecDeque;

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
const PATIENT_VICTIMS_MAX: usize = 2;

/// Segments the limit leaves free, so that survivors can be copied before their segment is freed.
const RESERVE_SEGMENTS: usize = 2;

/// Stores between two segments that are freed to restore the reserve.
const WRITES_PER_PAYMENT: u32 = 64;

/// Expired items wait for the sweep at least this long, so that it meets several at once.
const SWEEP_DELAY_SECONDS: u64 = 2;

/// Victims of one store while memory has to come down to a limit that was lowered.
const VICTIMS_PER_STORE_MAX: usize = 1;

/// Segments with expired items that one call of [`Store::maintain`] goes through.
const SWEPT_PER_CALL_MAX: usize = 1;

/// Index partitions that one call of [`Store::maintain`] looks at, to make them smaller.
const SHRINK_PARTITIONS: usize = 16;

/// Pieces of a flushed index freed in one step.
const DISMANTLE_CHUNKS: usize = 8;

/// What this file keeps between calls.
#[derive(Debug, Default)]
pub struct Reclaim {
    /// Keys evicted from the small queue.
    pub ghosts: Ghosts,
    small: VecDeque<Ticket>,
    main: VecDeque<Ticket>,
    small_bytes: u64,
    /// Segments by how dead they are; entries may be out of date and are checked when popped.
    by_deadness: [Vec<Ticket>; DEAD_CLASSES],
    sweep_next: usize,
    trash: Trash,
    /// A part of the reserve is used.
    owes: bool,
    writes_until_payment: u32,
}

/// A segment as it was when the ticket was made: the id may have been given to another since.
#[derive(Debug, Clone, Copy)]
struct Ticket {
    id: u32,
    sequence: u64,
}

/// Flushed segments and index, freed a bit at a time.
#[derive(Debug, Default)]
struct Trash {
    segments: Vec<Segment>,
    shelves: Vec<Shelf>,
    bytes: u64,
}

impl Ticket {
    fn is_current(self, segments: &[Option<Segment>]) -> bool {
        let segment = segments[self.id as usize].as_ref();
        segment.is_some_and(|segment| segment.sequence == self.sequence)
    }
}

impl Reclaim {
    /// Puts a sealed segment at the end of its queue.
    pub fn enqueue(&mut self, queue: Queue, id: u32, sequence: u64, segments: &[Option<Segment>]) {
        let tickets = match queue {
            Queue::Small => &mut self.small,
            Queue::Main => &mut self.main,
        };
        // Segments that died in the middle of the queue leave their tickets: drop them when they
        // are the majority.
        let tickets_max = 64 + 2 * segments.len();
        if tickets.len() > tickets_max {
            tickets.retain(|ticket| ticket.is_current(segments));
        }
        for tickets in self.by_deadness.iter_mut().filter(|all| all.len() > tickets_max) {
            tickets.retain(|ticket| ticket.is_current(segments));
        }
        tickets.push_back(Ticket { id, sequence });
    }

    /// Files a sealed segment under how dead it is: once for each class it reaches.
    pub fn note_dead(&mut self, id: u32, segment: Option<&mut Segment>) {
        let Some(segment) = segment.filter(|segment| !segment.is_large()) else { return };
        let class = dead_class(segment);
        if segment.noted_deadness < class {
            segment.noted_deadness = class;
            self.by_deadness[class].push(Ticket { id, sequence: segment.sequence });
        }
    }

    /// Follows the memory of the small queue.
    pub fn queue_bytes_changed(&mut self, queue: Queue, change: i64) {
        if queue == Queue::Small {
            self.small_bytes = self.small_bytes.saturating_add_signed(change);
        }
    }

    /// Memory of ghosts, tickets and what waits to be freed.
    pub fn memory_bytes(&self) -> u64 {
        self.ghosts.bytes() + self.trash.bytes
    }

    /// All tickets, current or not.
    #[cfg(test)]
    pub fn ticket_count(&self) -> usize {
        let filed: usize = self.by_deadness.iter().map(Vec::len).sum();
        self.small.len() + self.main.len() + filed
    }

    /// The segment with the most dead bytes, if its class is at least `class_min`.
    fn pop_deadest(&mut self, class_min: usize, segments: &[Option<Segment>]) -> Option<u32> {
        for class in (class_min..DEAD_CLASSES).rev() {
            while let Some(ticket) = self.by_deadness[class].pop() {
                // A segment that has gone on to a higher class has a ticket there.
                let segment = segments[ticket.id as usize].as_ref();
                let fits = segment.is_some_and(|segment| {
                    segment.sequence == ticket.sequence && dead_class(segment) == class
                });
                if fits {
                    return Some(ticket.id);
                }
            }
        }
        None
    }

    /// The segment whose turn it is: the small queue's oldest while that queue is above its share.
    fn next_victim(&mut self, memory_bytes: u64, segments: &[Option<Segment>]) -> Option<u32> {
        let prefer_small = self.small_bytes > memory_bytes / SMALL_SHARE;
        let mut queues = [&mut self.small, &mut self.main];
        if !prefer_small {
            queues.reverse();
        }
        for tickets in queues {
            while let Some(ticket) = tickets.pop_front() {
                if ticket.is_current(segments) {
                    return Some(ticket.id);
                }
            }
        }
        None
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
        let trash = &mut self.reclaim.trash;
        let shelves = self.index.clear();
        trash.bytes += shelves.iter().map(Shelf::bytes).sum::<usize>() as u64;
        trash.shelves.extend(shelves);
        trash.segments.extend(self.segments.iter_mut().filter_map(Option::take));
        trash.bytes += self.segment_memory_bytes;
        self.segments.truncate(1);
        self.free_ids.clear();
        (self.head, self.tail) = (None, None);
        (self.segment_memory_bytes, self.live_bytes) = (0, 0);
        let trash = std::mem::take(&mut self.reclaim.trash);
        self.reclaim = Reclaim { trash, ..Reclaim::default() };
    }

    /// Work that no command waits for: expired items, memory above a lowered limit, flushed
    /// memory. Looks at up to `segments_max` segments. Call it about ten times a second, and again
    /// soon if it answers that there is more to do.
    pub fn maintain(&mut self, now: Ticks, segments_max: usize) -> bool {
        let mut more = self.empty_trash(8);
        if self.memory_bytes() > self.memory_bytes_max {
            more |= self.reclaim_segment(now, 0);
        }
        if self.index.is_sparse() {
            self.index.shrink(SHRINK_PARTITIONS);
        }
        more | self.sweep(now, segments_max)
    }

    /// Looks for expired items. Answers whether it stopped early.
    fn sweep(&mut self, now: Ticks, segments_max: usize) -> bool {
        let mut swept = 0;
        for _ in 0..segments_max.min(self.segments.len()) {
            self.reclaim.sweep_next = (self.reclaim.sweep_next + 1) % self.segments.len();
            let id = self.reclaim.sweep_next as u32;
            let due = self.segments[id as usize].as_ref().is_some_and(|segment| {
                segment.earliest_deadline.plus_seconds(SWEEP_DELAY_SECONDS) <= now
            });
            if due {
                self.sweep_segment(id, now);
                swept += 1;
            }
            if swept == SWEPT_PER_CALL_MAX {
                return true;
            }
        }
        false
    }

    /// Segments the sweep goes through; the caller spreads a round over a few seconds.
    pub fn segment_count_max(&self) -> usize {
        self.segments.len()
    }

    /// Makes room for `bytes` more below the memory limit.
    pub(super) fn make_room(&mut self, bytes: usize, now: Ticks) -> Result<(), Full> {
        let wanted = (bytes + RESERVE_SEGMENTS * self.segment_bytes) as u64;
        let limit_was_lowered = self.memory_bytes() > self.memory_bytes_max;
        let mut victims = 0;
        while self.memory_bytes() + wanted > self.memory_bytes_max {
            if limit_was_lowered && victims == VICTIMS_PER_STORE_MAX {
                return Ok(());
            }
            let with_one_spare = self.memory_bytes() + (bytes + self.segment_bytes) as u64;
            if victims > 0 && with_one_spare <= self.memory_bytes_max {
                // What is left of the reserve will do. The next stores pay it back, so that none
                // of them goes through several segments.
                self.reclaim.owes = true;
                return Ok(());
            }
            if !self.reclaim_segment(now, victims) {
                return self.last_room(bytes);
            }
            victims += 1;
        }
        Ok(())
    }

    /// Restores the reserve, a segment each time.
    #[inline]
    pub(super) fn pay_back(&mut self, now: Ticks) {
        if self.reclaim.owes {
            self.pay_back_some(now);
        }
    }

    fn pay_back_some(&mut self, now: Ticks) {
        self.reclaim.writes_until_payment = self.reclaim.writes_until_payment.saturating_sub(1);
        if self.reclaim.writes_until_payment > 0 {
            return;
        }
        self.reclaim.writes_until_payment = WRITES_PER_PAYMENT;
        let reserve = (RESERVE_SEGMENTS * self.segment_bytes) as u64;
        let below = self.memory_bytes() + reserve > self.memory_bytes_max;
        self.reclaim.owes = below && self.reclaim_segment(now, 0);
    }

    /// Nothing is left to evict: the reserve may be used, and an index that was larger once gives
    /// up what it no longer needs.
    fn last_room(&mut self, bytes: usize) -> Result<(), Full> {
        let fits = |store: &Self| store.memory_bytes() + bytes as u64 <= store.memory_bytes_max;
        if !fits(self) && self.index.is_sparse() {
            // In steps: whoever stores again takes the next.
            self.index.shrink(SHRINK_PARTITIONS);
        }
        if fits(self) { Ok(()) } else { Err(Full) }
    }

    /// Frees one segment. Answers false if there is none to free.
    fn reclaim_segment(&mut self, now: Ticks, victims_before: usize) -> bool {
        if self.empty_trash(1) {
            return true;
        }
        let class_min = if self.evict { COMPACT_CLASS_MIN } else { COMPACT_CLASS_MIN_NO_EVICTION };
        if let Some(id) = self.reclaim.pop_deadest(class_min, &self.segments) {
            self.drain_segment(id, now, |candidate| Some(candidate.frequency));
            return true;
        }
        if !self.evict {
            return false;
        }
        let victim = self.reclaim.next_victim(self.memory_bytes_max, &self.segments);
        let Some(id) = victim.or_else(|| self.seal_for_eviction()) else { return false };
        self.prepare_ghosts();
        let worth = Worth::of(self);
        if victims_before >= PATIENT_VICTIMS_MAX {
            self.drain_segment(id, now, |_| None);
        } else if self.segment(id).queue == Queue::Small {
            self.drain_segment(id, now, |candidate| worth.in_small(candidate));
        } else {
            self.drain_segment(id, now, |candidate| worth.in_main(candidate));
        }
        true
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
        let capacity = self.reclaim.ghosts.capacity();
        if items > capacity * 2 || items < capacity / 8 {
            self.reclaim.ghosts.resize(items);
        }
    }

    /// Takes a segment apart: `keep` says which items are copied to the main queue, and with which
    /// frequency; the others are evicted. The segment's memory is free after this.
    fn drain_segment(&mut self, id: u32, now: Ticks, keep: impl Fn(Candidate) -> Option<u8>) {
        let segment = self.take_segment(id);
        // The id is not given to another segment before this one's locations are gone.
        self.free_ids.pop();
        self.live_bytes -= segment.live_bytes as u64;
        let mut batch = Batch::default();
        while self.next_batch(&segment, &mut batch) {
            for (offset, hash) in batch.items() {
                let location = self.location(id, offset);
                let Some(handle) = self.index.find(hash, |at| at == location) else { continue };
                let slot = self.index.slot(handle);
                let expired = segment.is_expired(offset, now);
                let bytes = segment.stride(offset) as u64 + INDEX_BYTES_PER_ITEM;
                let candidate = Candidate { frequency: slot.frequency(), bytes, hash };
                match keep(candidate).filter(|_| !expired) {
                    Some(frequency) if segment.is_large() => {
                        self.index.replace(handle, slot.with_frequency(frequency));
                        return self.requeue_large(id, segment);
                    }
                    Some(frequency) => {
                        let slot = slot.with_frequency(frequency);
                        self.move_to_tail(&segment, offset, handle, slot, now);
                    }
                    None => {
                        self.index.remove(handle);
                        self.count_removed(slot, expired);
                        if let Some(evictions) = &mut self.evicted
                            && !expired
                        {
                            evictions.note(&segment, offset, slot.fetched());
                        }
                        if !expired && segment.queue == Queue::Small {
                            self.reclaim.ghosts.remember(hash);
                        }
                    }
                }
            }
        }
        self.free_ids.push(id);
        self.keep_as_spare(segment);
    }

    /// The next items of a segment, with what looking them up will need on its way to the caches:
    /// the waits for the index overlap, which more than halves the time a segment takes.
    fn next_batch(&self, segment: &Segment, batch: &mut Batch) -> bool {
        batch.count = 0;
        let mut read = 0;
        while batch.next < segment.used_bytes && batch.count < BATCH_ITEMS {
            let hash = self.hasher.hash(segment.stored(batch.next).key);
            read ^= self.index.touch(hash);
            batch.items[batch.count] = (batch.next, hash);
            batch.count += 1;
            batch.next += segment.stride(batch.next);
        }
        // Without a use of what was read, the compiler would leave out the reads.
        std::hint::black_box(read);
        batch.count > 0
    }

    fn count_removed(&mut self, slot: Slot, expired: bool) {
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
        let bytes = segment.memory_bytes();
        segment.queue = Queue::Main;
        let sequence = segment.sequence;
        self.live_bytes += segment.live_bytes as u64;
        self.segment_memory_bytes += bytes as u64;
        self.segments[id as usize] = Some(segment);
        self.reclaim.enqueue(Queue::Main, id, sequence, &self.segments);
        self.counters.moves += 1;
    }

    /// Copies an item to the tail of the main queue.
    fn move_to_tail(
        &mut self,
        from: &Segment,
        offset: usize,
        handle: Handle,
        slot: Slot,
        now: Ticks,
    ) {
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

    /// Removes the expired items of a segment and finds when the next one expires.
    fn sweep_segment(&mut self, id: u32, now: Ticks) {
        let segment = self.segments[id as usize].take().expect("the caller saw it");
        let mut earliest = Ticks::NEVER;
        let mut expired = Vec::new();
        let mut offset = 0;
        while offset < segment.used_bytes {
            let stored = segment.stored(offset);
            if let Some(deadline) = stored.header.attributes.deadline {
                self.counters.swept += 1;
                if deadline > now {
                    earliest = earliest.min(deadline);
                } else {
                    let location = self.location(id, offset);
                    let hash = self.hasher.hash(stored.key);
                    expired.extend(self.index.find(hash, |at| at == location));
                }
            }
            offset += segment.stride(offset);
        }
        self.segments[id as usize] = Some(segment);
        self.segment_mut(id).earliest_deadline = earliest;
        for handle in expired {
            self.remove_expired(handle);
        }
    }

    /// Frees up to `segments_max` flushed segments and a part of the flushed index. Answers
    /// whether there was anything to free.
    fn empty_trash(&mut self, segments_max: usize) -> bool {
        let trash = &mut self.reclaim.trash;
        if trash.segments.is_empty() && trash.shelves.is_empty() {
            return false;
        }
        let keep = trash.segments.len().saturating_sub(segments_max);
        for segment in trash.segments.drain(keep..) {
            trash.bytes -= segment.memory_bytes() as u64;
        }
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
