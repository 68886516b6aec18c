//! Where each item lies: a hash table of packed 8-byte slots that grows in small steps.
//!
//! The table is cut into partitions by hash bits. Each partition is an array of cache-line buckets
//! of eight slots, and grows on its own by an eighth when it is full, so that growing never moves
//! more than one partition's slots and the table stays about nine tenths full. An item may lie in
//! two buckets, both computed from its tag alone (partial-key cuckoo hashing: Fan et al., MemC3,
//! NSDI 2013), so growing reads no items and a lookup touches at most two cache lines.
//!
//! Partitions of one size lie densely in the arena of that size (`bucket_arena.rs`): partitions
//! grow at about the same time, and an allocation for each would leave the memory full of holes
//! just too small for the next size.
//!
//! ```text
//!  63             45 44 43 42 41 40   38 37                                   0
//! +-----------------+-----+--+--+-------+-------------------------------------+
//! | tag             | rec | O| F| freq  | location in units of the item align |
//! +-----------------+-----+--+--+-------+-------------------------------------+
//! rec: how lately the item was accessed. O: the CAS token was handed out and must survive a move.
//! F: fetched since stored.
//! ```
//!
//! Knows nothing of items: the caller compares keys and hands in hashes. Never does I/O.

use super::bucket_arena::{Bucket, BucketArena, BucketRange, SLOTS_PER_BUCKET};

/// Bits of the hash kept in a slot: they find the bucket and tell most other keys apart.
const TAG_BITS: u32 = 19;
const TAG_MAX: u64 = (1 << TAG_BITS) - 1;
const LOCATION_BITS: u32 = 38;
const FREQUENCY_SHIFT: u32 = LOCATION_BITS;
const FREQUENCY_BITS: u32 = 3;
const FETCHED: u64 = 1 << (FREQUENCY_SHIFT + FREQUENCY_BITS);
const OBSERVED: u64 = FETCHED << 1;
const RECENCY_SHIFT: u32 = FREQUENCY_SHIFT + FREQUENCY_BITS + 2;
const RECENCY_BITS: u32 = 2;
const RECENCY_MASK: u64 = (RECENCY_MAX as u64) << RECENCY_SHIFT;
const TAG_SHIFT: u32 = 64 - TAG_BITS;
/// The bits of the tag in a slot's upper half.
const UPPER_TAG_MASK: u32 = (TAG_MAX << (TAG_SHIFT - 32)) as u32;

/// Highest frequency a slot counts to.
pub const FREQUENCY_MAX: u8 = (1 << FREQUENCY_BITS) - 1;
/// The recency of an item that was accessed since [`Index::age`] came by.
pub const RECENCY_MAX: u8 = (1 << RECENCY_BITS) - 1;
/// Locations are below this; 0 is never one, so that an empty slot is 0.
pub const LOCATION_LIMIT: u64 = 1 << LOCATION_BITS;

const PARTITION_BITS_MAX: u32 = 16;
/// A partition is moved to a smaller arena if that has less than this share of its buckets: five
/// eighths, well below what one growth adds, so that it does not swing back and forth.
const SHRINK_EIGHTHS: usize = 5;
/// One that is moved fills its buckets so far, which leaves it room to grow again.
const SHRINK_FILL_PERCENT: usize = 80;
/// Sizes tried when a partition is full: eight of them more than double it.
const GROW_STEPS_MAX: usize = 8;
/// Sizes that a partition grows by while a whole table is built: three make it nearly half as large
/// again. By one at a time each slot would be moved eight times on the way; by more, the table of a
/// store full of the smallest items would not fit the memory that a recovery may take.
const GROW_STEP_OF_BUILD: usize = 3;
/// Buckets of a partition that was built are filled so far.
const FILL_PERCENT_OF_BUILD: usize = 95;

const _: () = assert!(TAG_BITS + RECENCY_BITS + 2 + FREQUENCY_BITS + LOCATION_BITS == u64::BITS);
const _: () = assert!(OBSERVED << 1 == 1 << RECENCY_SHIFT);
const _: () = assert!(TAG_BITS + PARTITION_BITS_MAX <= 48, "the upper hash bits choose the shard");

/// One packed entry; see the picture above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(u64);

impl Slot {
    /// A slot for a new item: not fetched, token not handed out, accessed just now.
    pub fn new(hash: u64, location: u64, frequency: u8) -> Self {
        debug_assert!(location != 0 && location < LOCATION_LIMIT);
        debug_assert!(frequency <= FREQUENCY_MAX);
        let tag_and_recency = tag_of(hash) << TAG_SHIFT | RECENCY_MASK;
        Self(tag_and_recency | u64::from(frequency) << FREQUENCY_SHIFT | location)
    }

    /// Whether an item is here; evictions empty slots that handles still name.
    #[inline]
    pub fn is_occupied(self) -> bool {
        self.0 != 0
    }

    /// Where the item lies.
    #[inline]
    pub fn location(self) -> u64 {
        self.0 & (LOCATION_LIMIT - 1)
    }

    /// Accesses since the item was stored or last considered for eviction, up to the maximum.
    #[inline]
    pub fn frequency(self) -> u8 {
        (self.0 >> FREQUENCY_SHIFT) as u8 & FREQUENCY_MAX
    }

    /// Fetched since stored.
    #[inline]
    pub fn fetched(self) -> bool {
        self.0 & FETCHED != 0
    }

    /// The CAS token was handed out.
    #[inline]
    pub fn observed(self) -> bool {
        self.0 & OBSERVED != 0
    }

    /// The same item at another place.
    pub fn with_location(self, location: u64) -> Self {
        debug_assert!(location != 0 && location < LOCATION_LIMIT);
        Self(self.0 & !(LOCATION_LIMIT - 1) | location)
    }

    /// The same item with another frequency.
    pub fn with_frequency(self, frequency: u8) -> Self {
        let mask = u64::from(FREQUENCY_MAX) << FREQUENCY_SHIFT;
        Self(self.0 & !mask | u64::from(frequency.min(FREQUENCY_MAX)) << FREQUENCY_SHIFT)
    }

    /// Marked as fetched just now, and counted. An item that is asked for all the time is the same
    /// after this, but for once after each round of [`Index::age`].
    #[inline]
    pub fn accessed(self) -> Self {
        Self(self.with_frequency(self.frequency() + 1).0 | FETCHED | RECENCY_MASK)
    }

    /// Counted, and accessed just now, but not fetched.
    pub fn bumped(self) -> Self {
        Self(self.with_frequency(self.frequency() + 1).0 | RECENCY_MASK)
    }

    /// How lately it was accessed: the maximum, and a step less for each round of [`Index::age`]
    /// that was for items of that step.
    pub fn recency(self) -> u8 {
        (self.0 >> RECENCY_SHIFT) as u8 & RECENCY_MAX
    }

    fn older(self) -> Self {
        let recency = u64::from(self.recency().saturating_sub(1));
        Self(self.0 & !RECENCY_MASK | recency << RECENCY_SHIFT)
    }

    /// Marked as having its token handed out.
    pub fn with_observed(self) -> Self {
        Self(self.0 | OBSERVED)
    }

    /// With a token nobody has seen.
    pub fn without_observed(self) -> Self {
        Self(self.0 & !OBSERVED)
    }

    fn tag(self) -> u64 {
        self.0 >> TAG_SHIFT
    }
}

#[inline]
fn tag_of(hash: u64) -> u64 {
    hash & TAG_MAX
}

/// Where a slot is; good until the next insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle {
    partition: u32,
    position: u32,
}

/// Where the buckets of a partition are.
#[derive(Debug, Clone, Copy, Default)]
struct Partition {
    /// 0: there are none; else one more than the number of the arena.
    arena_plus_one: u16,
    range: BucketRange,
}

const _: () = assert!(size_of::<Partition>() == 12);

impl Partition {
    fn arena(self) -> Option<usize> {
        usize::from(self.arena_plus_one).checked_sub(1)
    }
}

/// The table.
#[derive(Debug)]
pub struct Index {
    partitions: Vec<Partition>,
    arenas: Vec<BucketArena>,
    /// Memory of all arenas.
    arena_bytes: usize,
    items: usize,
    /// The slots of a partition while it moves.
    moving: Vec<u64>,
    /// Where [`Index::shrink`] goes on.
    shrink_next: usize,
    /// Sizes that a partition grows by.
    grow_step: usize,
}

/// What became of an insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inserted {
    /// Where the slot is.
    pub handle: Handle,
    /// A slot that had to leave.
    pub dropped: Option<Slot>,
}

impl Index {
    /// A table for a shard of `memory_bytes`. Takes memory only as items come.
    pub fn new(memory_bytes: u64) -> Self {
        // About a thousand small items in each partition of a full shard.
        let wanted = (memory_bytes >> 16).clamp(16, 1 << PARTITION_BITS_MAX);
        let partitions = vec![Partition::default(); (wanted as usize).next_power_of_two()];
        Self {
            partitions,
            arenas: Vec::new(),
            arena_bytes: 0,
            items: 0,
            moving: Vec::new(),
            shrink_next: 0,
            grow_step: 1,
        }
    }

    /// From here on the table is filled as a whole, until [`Index::end_build`]: it takes up to
    /// half as much memory again and less time.
    pub fn begin_build(&mut self) {
        self.grow_step = GROW_STEP_OF_BUILD;
    }

    /// Brings what was filled as a whole to its size.
    pub fn end_build(&mut self) {
        self.grow_step = 1;
        for partition in 0..self.partitions.len() {
            let smaller = self.bucket_count(partition).saturating_sub(1);
            self.fit(partition, FILL_PERCENT_OF_BUILD, smaller);
        }
    }

    /// Items in the table.
    pub fn items(&self) -> usize {
        self.items
    }

    /// Memory of the table in bytes.
    #[inline]
    pub fn bytes(&self) -> u64 {
        (self.partitions.len() * size_of::<Partition>() + self.arena_bytes) as u64
    }

    /// Finds the slot with this hash for which `is_it` says yes of its location.
    #[inline]
    pub fn find(&self, hash: u64, is_it: impl FnMut(u64) -> bool) -> Option<Handle> {
        self.find_slot(hash, is_it).map(|(handle, _)| handle)
    }

    /// As [`Index::find`], with the slot.
    #[inline]
    pub fn find_slot(
        &self,
        hash: u64,
        mut is_it: impl FnMut(u64) -> bool,
    ) -> Option<(Handle, Slot)> {
        let partition = self.partition_of(hash);
        let buckets = self.buckets(partition)?;
        let tag = tag_of(hash);
        let (first, second) = bucket_pair(tag, buckets.len());
        for bucket in [first, second] {
            let slots = &buckets[bucket].0;
            let mut places = places_with_tag(slots, tag);
            while places != 0 {
                let place = places.trailing_zeros() as usize;
                places &= places - 1;
                let slot = Slot(slots[place]);
                if slot.0 != 0 && is_it(slot.location()) {
                    let position = (bucket * SLOTS_PER_BUCKET + place) as u32;
                    return Some((Handle { partition: partition as u32, position }, slot));
                }
            }
        }
        None
    }

    /// Reads the cache lines that a lookup of this hash will need, and returns something made of
    /// them: see [`super::Store::warm`].
    #[inline]
    pub fn touch(&self, hash: u64) -> u64 {
        let Some(buckets) = self.buckets(self.partition_of(hash)) else { return 0 };
        let (first, second) = bucket_pair(tag_of(hash), buckets.len());
        buckets[first].0[0] ^ buckets[second].0[0]
    }

    /// The slot at a handle.
    #[inline]
    pub fn slot(&self, handle: Handle) -> Slot {
        let (bucket, place) = handle.bucket_and_place();
        let buckets = self.buckets(handle.partition as usize);
        Slot(buckets.map_or(0, |buckets| buckets[bucket].0[place]))
    }

    /// Replaces the slot at a handle by another of the same hash.
    #[inline]
    pub fn replace(&mut self, handle: Handle, slot: Slot) {
        debug_assert_eq!(self.slot(handle).tag(), slot.tag());
        *self.slot_mut(handle) = slot.0;
    }

    /// Empties the slot at a handle.
    pub fn remove(&mut self, handle: Handle) {
        let slot = std::mem::take(self.slot_mut(handle));
        assert!(slot != 0, "a handle names an occupied slot");
        self.items -= 1;
    }

    fn slot_mut(&mut self, handle: Handle) -> &mut u64 {
        let (bucket, place) = handle.bucket_and_place();
        let buckets = self.buckets_mut(handle.partition as usize);
        &mut buckets.expect("a handle names a bucket")[bucket].0[place]
    }

    /// Adds a slot. The key must not be there yet.
    ///
    /// Another slot has to leave only when very many keys share their hash, which a secret hash key
    /// leaves to chance; dropping one keeps every operation bounded.
    #[must_use]
    pub fn insert(&mut self, hash: u64, slot: Slot) -> Inserted {
        let partition = self.partition_of(hash);
        let mut placed = self.buckets_mut(partition).and_then(|buckets| place(buckets, slot));
        if placed.is_none() && self.grow(partition, slot) {
            placed = self.position_of(partition, slot);
        }
        self.items += usize::from(placed.is_some());
        let mut dropped = None;
        let position = placed.unwrap_or_else(|| {
            let buckets = self.buckets_mut(partition).expect("a full partition has buckets");
            let (first, _) = bucket_pair(slot.tag(), buckets.len());
            dropped = Some(Slot(std::mem::replace(&mut buckets[first].0[0], slot.0)));
            (first * SLOTS_PER_BUCKET) as u32
        });
        Inserted { handle: Handle { partition: partition as u32, position }, dropped }
    }

    /// Moves a partition to a larger arena, with one slot more. False: no reasonable size holds it;
    /// then the partition is as before.
    fn grow(&mut self, partition: usize, slot: Slot) -> bool {
        let old = self.partitions[partition];
        let first_arena = old.arena().map_or(0, |arena| arena + self.grow_step);
        let mut slots = self.slots_of(partition);
        slots.push(slot.0);
        let grown = (first_arena..first_arena + GROW_STEPS_MAX)
            .any(|arena| self.move_to_arena(partition, &slots, arena));
        self.moving = slots;
        grown
    }

    fn bucket_count(&self, partition: usize) -> usize {
        self.partitions[partition].arena().map_or(0, |arena| self.arenas[arena].bucket_count())
    }

    fn position_of(&self, partition: usize, slot: Slot) -> Option<u32> {
        let buckets = self.buckets(partition)?;
        let (first, second) = bucket_pair(slot.tag(), buckets.len());
        let in_bucket = |bucket: usize| {
            let place = buckets[bucket].0.iter().position(|other| *other == slot.0)?;
            Some((bucket * SLOTS_PER_BUCKET + place) as u32)
        };
        in_bucket(first).or_else(|| in_bucket(second))
    }

    /// The slots of a partition, in a buffer to be given back as `moving`.
    fn slots_of(&mut self, partition: usize) -> Vec<u64> {
        let mut slots = std::mem::take(&mut self.moving);
        slots.clear();
        if let Some(buckets) = self.buckets(partition) {
            slots.extend(buckets.iter().flat_map(|bucket| bucket.0).filter(|slot| *slot != 0));
        }
        slots
    }

    /// Moves a partition to an arena. False: its slots do not fit there.
    fn move_to_arena(&mut self, partition: usize, slots: &[u64], arena: usize) -> bool {
        self.ensure_arena(arena);
        let range = self.arenas[arena].take(partition as u32);
        self.arena_bytes += self.arenas[arena].range_bytes();
        let buckets = self.arenas[arena].buckets_mut(range);
        if !slots.iter().all(|slot| place(buckets, Slot(*slot)).is_some()) {
            self.give_back(arena, range);
            return false;
        }
        let old = self.partitions[partition];
        let arena_plus_one = arena as u16 + 1;
        self.partitions[partition] = Partition { arena_plus_one, range };
        if let Some(old_arena) = old.arena() {
            self.give_back(old_arena, old.range);
        }
        true
    }

    /// Moves partitions that have lost most of their items to smaller arenas; looks at up to
    /// `partitions_max`, going on where the last call stopped.
    pub fn shrink(&mut self, partitions_max: usize) {
        for _ in 0..partitions_max.min(self.partitions.len()) {
            self.shrink_next = (self.shrink_next + 1) % self.partitions.len();
            let bucket_count = self.bucket_count(self.shrink_next);
            let most = bucket_count * SHRINK_EIGHTHS / 8;
            self.fit(self.shrink_next, SHRINK_FILL_PERCENT, most);
        }
    }

    /// Whether so many items have left that [`Index::shrink`] would free much.
    pub fn is_sparse(&self) -> bool {
        self.arena_bytes
            > 3 * size_of::<Slot>() * self.items + size_of::<Bucket>() * self.partitions.len()
    }

    /// Lowers the recency of a partition's items by a step, of those whose recency `steps` says yes
    /// for.
    pub fn age(&mut self, partition: usize, steps: [bool; RECENCY_MAX as usize + 1]) {
        for bucket in self.buckets_mut(partition).unwrap_or(&mut []) {
            for slot in &mut bucket.0 {
                let aged = Slot(*slot);
                if steps[usize::from(aged.recency())] {
                    *slot = aged.older().0;
                }
            }
        }
    }

    /// Number of partitions, for a whole round of [`Index::shrink`].
    pub fn partition_count(&self) -> usize {
        self.partitions.len()
    }

    /// Moves a partition to the smallest arena that it fills so far at most, if that has at most so
    /// many buckets.
    fn fit(&mut self, partition: usize, fill_percent: usize, bucket_count_max: usize) {
        let old = self.partitions[partition];
        let Some(arena) = old.arena() else { return };
        let slots = self.slots_of(partition);
        if slots.is_empty() {
            self.partitions[partition] = Partition::default();
            self.give_back(arena, old.range);
        } else {
            let wanted = (slots.len() * 100 / fill_percent).div_ceil(SLOTS_PER_BUCKET);
            let too_small = |arena: &BucketArena| arena.bucket_count() < wanted;
            let is_enough = |arena: &BucketArena| arena.bucket_count() <= bucket_count_max;
            let first = self.arenas.partition_point(too_small);
            let end = self.arenas.partition_point(is_enough);
            let _moved = (first..end).any(|arena| self.move_to_arena(partition, &slots, arena));
        }
        self.moving = slots;
    }

    /// Empties the table. Its memory is returned, to be freed in steps.
    pub fn clear(&mut self) -> Vec<BucketArena> {
        self.partitions.fill(Partition::default());
        (self.items, self.arena_bytes) = (0, 0);
        std::mem::take(&mut self.arenas)
    }

    fn ensure_arena(&mut self, arena: usize) {
        while self.arenas.len() <= arena {
            let last = self.arenas.last().map_or(0, BucketArena::bucket_count);
            self.arenas.push(BucketArena::new(last + 1 + last / 8));
        }
    }

    /// Frees a range. The last partition of the arena moves into it.
    fn give_back(&mut self, arena: usize, range: BucketRange) {
        self.arena_bytes -= self.arenas[arena].range_bytes();
        if let Some(moved) = self.arenas[arena].give_back(range) {
            self.partitions[moved as usize].range = range;
        }
    }

    /// The slots of one partition, for walks over all items in bounded steps. `None` past the end.
    pub fn partition_slots(&self, partition: usize) -> Option<impl Iterator<Item = Slot> + '_> {
        self.partitions.get(partition)?;
        let buckets = self.buckets(partition).unwrap_or(&[]);
        Some(buckets.iter().flat_map(|bucket| bucket.0).filter(|slot| *slot != 0).map(Slot))
    }

    #[inline]
    fn buckets(&self, partition: usize) -> Option<&[Bucket]> {
        let Partition { range, .. } = self.partitions[partition];
        let arena = self.partitions[partition].arena()?;
        Some(self.arenas[arena].buckets(range))
    }

    #[inline]
    fn buckets_mut(&mut self, partition: usize) -> Option<&mut [Bucket]> {
        let Partition { range, .. } = self.partitions[partition];
        let arena = self.partitions[partition].arena()?;
        Some(self.arenas[arena].buckets_mut(range))
    }

    #[inline]
    fn partition_of(&self, hash: u64) -> usize {
        (hash >> TAG_BITS) as usize & (self.partitions.len() - 1)
    }
}

impl Handle {
    fn bucket_and_place(self) -> (usize, usize) {
        let position = self.position as usize;
        (position / SLOTS_PER_BUCKET, position % SLOTS_PER_BUCKET)
    }
}

/// The places whose slots have this tag, a bit for each. All are compared before any is looked at:
/// a loop that ends at the first would end at a place that no processor can foresee.
#[inline]
fn places_with_tag(slots: &[u64; SLOTS_PER_BUCKET], tag: u64) -> u32 {
    // The tag lies in the upper halves: twice as many of those fit a vector.
    let wanted = (tag << (TAG_SHIFT - 32)) as u32;
    let mut places = 0;
    for (place, slot) in slots.iter().enumerate() {
        let has_tag = (slot >> 32) as u32 & UPPER_TAG_MASK == wanted;
        places |= u32::from(has_tag) << place;
    }
    places
}

/// The two buckets a tag may lie in; different ones wherever there are two.
#[inline]
fn bucket_pair(tag: u64, bucket_count: usize) -> (usize, usize) {
    let scale = |bits: u64| ((bits * bucket_count as u64) >> TAG_BITS) as usize;
    let first = scale(tag);
    // An odd multiplier permutes the tags; its upper bits depend on all bits below.
    let second = scale(tag.wrapping_mul(0x002C_1B3D) & TAG_MAX);
    if second != first { (first, second) } else { (first, (first + 1) % bucket_count) }
}

/// Puts a slot into one of its two buckets, moving one other slot aside if that makes room. Answers
/// its position in the partition.
fn place(buckets: &mut [Bucket], slot: Slot) -> Option<u32> {
    let position = |bucket: usize, place: usize| (bucket * SLOTS_PER_BUCKET + place) as u32;
    let (first, second) = bucket_pair(slot.tag(), buckets.len());
    for bucket in [first, second] {
        if let Some(free) = buckets[bucket].free_slot() {
            buckets[bucket].0[free] = slot.0;
            return Some(position(bucket, free));
        }
    }
    for bucket in [first, second] {
        for place in 0..SLOTS_PER_BUCKET {
            let other = Slot(buckets[bucket].0[place]);
            let (one, two) = bucket_pair(other.tag(), buckets.len());
            let elsewhere = if one == bucket { two } else { one };
            if let Some(free) = buckets[elsewhere].free_slot() {
                buckets[elsewhere].0[free] = other.0;
                buckets[bucket].0[place] = slot.0;
                return Some(position(bucket, place));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// Spreads small numbers over 64 bits (SplitMix64).
    fn mix(number: u64) -> u64 {
        let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    #[test]
    fn slot_fields_do_not_touch_each_other() {
        let slot = Slot::new(u64::MAX, LOCATION_LIMIT - 1, 0);
        assert_eq!((slot.location(), slot.frequency()), (LOCATION_LIMIT - 1, 0));
        assert!(!slot.fetched() && !slot.observed());
        let slot = slot.accessed().with_observed().with_frequency(FREQUENCY_MAX).accessed();
        assert_eq!(
            (slot.frequency(), slot.fetched(), slot.observed()),
            (FREQUENCY_MAX, true, true)
        );
        assert_eq!((slot.location(), slot.tag()), (LOCATION_LIMIT - 1, TAG_MAX));
        assert_eq!((slot.recency(), slot.older().older().recency()), (RECENCY_MAX, 1));
        let old = slot.older().older().older().older();
        assert_eq!((old.recency(), old.accessed()), (0, slot), "no less than nothing, and back");
        assert_eq!((old.bumped().fetched(), Slot::new(1, 1, 0).bumped().fetched()), (true, false));
        assert_eq!(slot.with_location(7).location(), 7);
        assert_eq!(slot.with_location(7).tag(), TAG_MAX);
    }

    #[test]
    fn agrees_with_a_map_through_growth_and_removal() {
        let mut index = Index::new(1 << 20);
        let mut model: HashMap<u64, u64> = HashMap::new();
        for step in 1..60_000u64 {
            let key = mix(step) % 20_000;
            let location = step;
            let found = index.find(mix(key), |at| model.get(&key) == Some(&at));
            assert_eq!(found.is_some(), model.contains_key(&key));
            match found {
                Some(handle) if step % 3 == 0 => {
                    index.remove(handle);
                    model.remove(&key);
                }
                Some(handle) => {
                    index.replace(handle, index.slot(handle).with_location(location));
                    model.insert(key, location);
                }
                None => {
                    let inserted = index.insert(mix(key), Slot::new(mix(key), location, 0));
                    assert_eq!(inserted.dropped, None);
                    assert_eq!(index.slot(inserted.handle).location(), location);
                    model.insert(key, location);
                }
            }
            assert_eq!(index.items(), model.len());
        }
        let walked = (0..).map_while(|at| index.partition_slots(at).map(Iterator::count));
        assert_eq!(walked.sum::<usize>(), model.len());
    }

    #[test]
    fn costs_less_than_ten_bytes_an_item() {
        let mut index = Index::new(64 << 20);
        for key in 1..=1_000_000u64 {
            assert_eq!(index.insert(mix(key), Slot::new(mix(key), key, 0)).dropped, None);
        }
        let arenas: usize = index.arenas.iter().map(BucketArena::bytes).sum();
        assert_eq!(index.arena_bytes, arenas);
        let bytes_per_item = index.bytes() as f64 / index.items() as f64;
        assert!(bytes_per_item < 10.0, "{bytes_per_item}");
    }

    #[test]
    fn shrinks_after_most_items_have_left() {
        let mut index = Index::new(1 << 20);
        for key in 1..=100_000u64 {
            assert_eq!(index.insert(mix(key), Slot::new(mix(key), key, 0)).dropped, None);
        }
        let full_bytes = index.bytes();
        for key in (1..=100_000u64).filter(|key| key % 100 != 0) {
            let handle = index.find(mix(key), |at| at == key).expect("it is there");
            index.remove(handle);
        }
        index.shrink(index.partition_count());
        let arenas: usize = index.arenas.iter().map(BucketArena::bytes).sum();
        assert_eq!(index.arena_bytes, arenas);
        assert!(index.bytes() < full_bytes / 20, "{} of {full_bytes}", index.bytes());
        for key in (1..=100_000u64).filter(|key| key % 100 == 0) {
            assert!(index.find(mix(key), |at| at == key).is_some());
        }
        for key in 1..=100_000u64 {
            let key = key + 1_000_000;
            assert_eq!(index.insert(mix(key), Slot::new(mix(key), key, 0)).dropped, None);
        }
        assert_eq!(index.items(), 101_000);
    }

    #[test]
    fn a_table_built_as_a_whole_is_hardly_larger() {
        let build = |as_a_whole: bool| {
            let mut index = Index::new(1 << 20);
            if as_a_whole {
                index.begin_build();
            }
            let mut peak_bytes = 0;
            for key in 1..=100_000u64 {
                let inserted = index.insert(mix(key), Slot::new(mix(key), key, 0));
                assert_eq!(inserted.dropped, None);
                peak_bytes = peak_bytes.max(index.bytes());
                let found = index.find(mix(key), |location| location == key);
                assert_eq!(found, Some(inserted.handle));
            }
            if as_a_whole {
                index.end_build();
            }
            assert!(peak_bytes <= index.bytes() * 3 / 2, "{peak_bytes} of {}", index.bytes());
            index
        };
        let (whole, grown) = (build(true), build(false));
        let most = grown.bytes() * 105 / 100;
        assert!(whole.bytes() <= most, "{} of {}", whole.bytes(), grown.bytes());
        assert_eq!(whole.arena_bytes, whole.arenas.iter().map(BucketArena::bytes).sum::<usize>());
        assert!((1..=100_000u64).all(|key| whole.find(mix(key), |at| at == key).is_some()));
    }

    #[test]
    fn equal_hashes_stay_bounded() {
        let mut index = Index::new(1 << 20);
        let dropped =
            (1..1000u64).filter_map(|at| index.insert(42, Slot::new(42, at, 0)).dropped).count();
        assert!(index.items() <= 2 * SLOTS_PER_BUCKET);
        assert_eq!(index.items() + dropped, 999);
    }
}
