//! Draining a segment: its items one after the other, a batch at a time. Those that stay are
//! copied, the others leave.

use super::policy::{Candidate, INDEX_BYTES_PER_ITEM, RetentionPolicy, chance_of};
use super::{Haste, Reclaimed};
use crate::store::index::{Handle, Slot};
use crate::store::segment::{Queue, Segment, usable_bytes};
use crate::store::{Counters, Store, Ticks, item, position_token};

/// A segment that is being drained.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drain {
    /// The segment.
    pub id: u32,
    /// The offset of the first item that was not looked at.
    pub next: usize,
    /// Which of its items stay.
    pub rule: Rule,
}

/// Which items of a drained segment stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// All of them, in their queue: the segment has dead bytes, which is what is wanted.
    Clean,
    /// See [`RetentionPolicy::in_small`].
    Small,
    /// See [`RetentionPolicy::in_main`].
    Main,
    /// None: somebody waits.
    Nothing,
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

impl Store {
    /// Frees one segment. `impatient`: what is evicted is not looked at any more.
    pub(super) fn reclaim_segment(&mut self, now: Ticks, impatient: bool) -> Reclaimed {
        if self.empty_trash(1) {
            return Reclaimed::Some;
        }
        let haste = if impatient { Haste::Impatient } else { Haste::Waiting };
        let mut drain = match self.next_drain(haste) {
            Ok(drain) => drain,
            Err(reclaimed) => return reclaimed,
        };
        if impatient && drain.rule != Rule::Clean {
            drain.rule = Rule::Nothing;
        }
        self.drain_on(drain, usize::MAX, now)
    }

    /// Goes on with freeing a segment. Answers false if there is none to free.
    pub(super) fn reclaim_some(&mut self, now: Ticks, batches_max: usize) -> bool {
        if self.empty_trash(1) {
            return true;
        }
        match self.next_drain(Haste::None) {
            Ok(drain) => {
                self.drain_on(drain, batches_max, now);
                true
            }
            Err(reclaimed) => reclaimed != Reclaimed::Nothing,
        }
    }

    /// The segment that is being drained, or another one.
    fn next_drain(&mut self, haste: Haste) -> Result<Drain, Reclaimed> {
        match self.reclaim.draining.take() {
            Some(drain) => Ok(drain),
            None => self.begin_drain(haste),
        }
    }

    /// Looks at some more items of a segment: those worth keeping are copied to the main queue, the
    /// others are evicted. Behind the last one the segment is freed.
    fn drain_on(&mut self, drain: Drain, batches_max: usize, now: Ticks) -> Reclaimed {
        let id = drain.id;
        let mut segment = self.segments[id as usize].take().expect("in use while it is drained");
        let worth = RetentionPolicy::of(self);
        self.reclaim.drains += 1;
        let keep = |candidate: Candidate| match drain.rule {
            Rule::Clean => Some(candidate.frequency),
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
                self.move_item(&segment, offset, handle, drain.rule);
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
        let chance = chance_of(hash, self.reclaim.drains);
        let kept = keep(Candidate { frequency: slot.frequency(), bytes, chance });
        if let Some(frequency) = kept.filter(|_| !expired) {
            self.index.replace(handle, slot.with_frequency(frequency));
            return Some(handle);
        }
        self.index.remove(handle);
        self.count_removed(slot, expired);
        if !expired {
            self.counters.evicted_nonzero += u64::from(segment.has_deadline(offset));
            let age_seconds = now.seconds().saturating_sub(segment.stored_at_seconds(offset));
            self.counters.evicted_age_seconds = age_seconds;
            if let Some(evictions) = &mut self.evicted {
                evictions.note(segment, offset, slot, now);
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

    /// Copies an item: one that was cleaned stays in its place, others go to the tail of the main
    /// queue.
    fn move_item(&mut self, from: &Segment, offset: usize, handle: Handle, rule: Rule) {
        let slot = self.index.slot(handle);
        let stored = from.stored(offset);
        let mut attributes = stored.header.attributes;
        if slot.observed() && attributes.cas.is_none() {
            attributes.cas = Some(position_token(from.sequence, offset));
        }
        let stride = item::stride(&attributes, stored.key.len(), stored.value.len());
        let id = match rule {
            Rule::Clean => self.output_with_room(stride, from.queue),
            _ => self.tail_with_room(stride),
        };
        let value = [stored.value, &[]];
        let stored_at = Ticks::from_seconds(from.stored_at_seconds(offset));
        let to = self.segment_mut(id).append(&attributes, stored.key, value, stored_at);
        self.live_bytes += stride as u64;
        let counters = &mut self.counters;
        match rule {
            Rule::Clean => counters.cleaned += 1,
            _ => counters.moves += 1,
        }
        let location = self.location(id, to);
        self.index.replace(handle, slot.with_location(location));
    }

    /// The main queue's open segment. Does not look at the limit: what it is filled with frees more
    /// elsewhere.
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
        let segment = Segment::open(usable, self.spares.pop(), sequence, Queue::Main);
        let id = self.add_segment(segment);
        self.tail = Some(id);
        id
    }
}
