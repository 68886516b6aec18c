//! The memory engine of one shard: items in segments, found by an index, evicted by S3-FIFO.
//!
//! Single-threaded; no locks, no clock, no I/O: time is an argument, and a store is the same after
//! the same calls. The only error is [`Full`].
//!
//! ```text
//! key --hash--> Index --location--> Segment --offset--> item
//!
//! new items -> [ head | small queue, about a tenth ] -> evicted, remembered as a ghost
//!                          | asked for again
//!                          v
//!              [ tail | main queue ] -> asked for again: back to the tail; else evicted
//! ```
//!
//! **Invariant:** a sealed segment does not change while a socket or a snapshot holds it. Changing
//! an item writes over it where the new version takes the same bytes, nobody holds the segment and
//! nobody has seen the token; else it writes a new version at the head and leaves the old bytes
//! dead until their segment is evicted or compacted.
//!
//! **Invariant:** the CAS token of an item is its position (segment sequence, offset) unless its
//! header stores one. Only tokens that were handed out need to survive a move, so a moved item
//! stores its token only then. Sequences grow and never repeat, so tokens of one key grow with
//! every change, and never repeat.

mod bucket_arena;
pub mod budget;
mod departed;
pub mod evicted;
pub mod ghosts;
pub mod hash;
pub mod index;
pub mod item;
pub mod lookups;
pub mod miniature;
mod reclaim;
pub mod segment;
mod segment_list;
#[cfg(test)]
mod tests;

use crate::limits::{
    SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENTS_PER_SHARD_MIN, SHARD_MEMORY_BYTES_MAX,
};
use budget::{Account, Budget};
use bytes::{Bytes, BytesMut};
use hash::KeyHasher;
use index::{Handle, Index, Slot};
pub use item::Attributes;
use item::ITEM_ALIGN_BYTES;
use lookups::Lookups;
pub use reclaim::IDLE_SECONDS_MAX;
use reclaim::Need;
use reclaim::Reclaim;
use segment::{LARGE_SHARE, Queue, Segment, large_memory_bytes, usable_bytes};
pub use segment::{SharedItem, Stored};
use std::sync::Arc;

/// So many freed segments are kept to be opened again. Cleaning frees two in a row where what is
/// alive in the second still fits the open one, and then as many are opened: with a single spare
/// every third would be memory fresh from the system, which costs a fault for each of its pages.
const SPARES_MAX: usize = 2;

const _: () = {
    let segments = index::LOCATION_LIMIT / (SEGMENT_BYTES_MAX / ITEM_ALIGN_BYTES) as u64;
    let large_bytes = segments * (SEGMENT_BYTES_MAX / LARGE_SHARE) as u64;
    assert!(large_bytes >= 2 * SHARD_MEMORY_BYTES_MAX, "a shard can number its segments");
};

/// A point in time: hundredths of a second since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ticks(pub u64);

impl Ticks {
    /// Later than any time.
    pub const NEVER: Self = Self(u64::MAX);
    /// Ticks in a second.
    pub const PER_SECOND: u64 = 100;

    /// The time a number of whole seconds after 1970.
    pub const fn from_seconds(seconds: u64) -> Self {
        Self(seconds.saturating_mul(Self::PER_SECOND))
    }

    /// Whole seconds since 1970.
    pub const fn seconds(self) -> u64 {
        self.0 / Self::PER_SECOND
    }

    /// Milliseconds, of a span of time.
    pub const fn milliseconds(self) -> u64 {
        self.0.saturating_mul(1000 / Self::PER_SECOND)
    }

    /// This time and so many seconds.
    pub const fn plus_seconds(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(Self::PER_SECOND)))
    }
}

/// No memory for the item: the limit is reached and nothing may be evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Why a key was not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// Not stored, or evicted.
    Missing,
    /// Its time was over; it is removed with that.
    Expired,
}

/// What becomes of the token of an item that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenRule {
    /// It stays, if a client has seen it.
    Keep,
    /// The item gets another, unless its attributes name one.
    Fresh,
}

/// A value to store.
pub enum Value<'a> {
    /// Two parts, copied one after the other (the second is empty but for append and prepend).
    Parts([&'a [u8]; 2]),
    /// A buffer of its own, taken over without a copy if the item is large.
    Owned(Bytes),
}

impl Value<'_> {
    fn len(&self) -> usize {
        match self {
            Value::Parts([one, two]) => one.len() + two.len(),
            Value::Owned(bytes) => bytes.len(),
        }
    }
}

/// What a plain get needs of an item.
#[derive(Debug, Clone, Copy)]
pub struct Fetched<'a> {
    /// The item.
    pub handle: Handle,
    /// The client's flags.
    pub flags: u32,
    /// The value, without line end.
    pub value: &'a [u8],
}

/// An item, for reading.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value, without line end.
    pub value: &'a [u8],
    /// Flags, deadline, states. `cas` here is as stored; the token is in [`Item::token`].
    pub attributes: Attributes,
    /// The CAS token.
    pub token: u64,
    /// Fetched since it was stored.
    pub fetched: bool,
    /// When it was stored, in whole seconds since 1970.
    pub stored_at_seconds: u64,
    /// How long ago it was accessed at most, as far as that is known.
    pub idle_seconds_max: Option<u64>,
}

impl Item<'_> {
    /// Seconds since it was stored or last accessed, at most: to the grain of
    /// [`IDLE_SECONDS_MAX`].
    pub fn idle_seconds(&self, now: Ticks) -> u64 {
        idle_seconds(self.stored_at_seconds, self.idle_seconds_max, now)
    }
}

fn idle_seconds(stored_at_seconds: u64, idle_seconds_max: Option<u64>, now: Ticks) -> u64 {
    let age = now.seconds().saturating_sub(stored_at_seconds);
    age.min(idle_seconds_max.unwrap_or(u64::MAX))
}

/// What happened in the store since it was made (or its counters were reset).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Live items removed to make room.
    pub evictions: u64,
    /// Of those, never fetched.
    pub evicted_unfetched: u64,
    /// Of those, fetched lately.
    pub evicted_active: u64,
    /// Expired and flushed items removed, on read, by the sweep or by the flush.
    pub reclaimed: u64,
    /// Of those, never fetched.
    pub expired_unfetched: u64,
    /// Of those, with a deadline.
    pub evicted_nonzero: u64,
    /// For how long the one evicted last had been stored.
    pub evicted_age_seconds: u64,
    /// Items moved to the main queue or back to its end.
    pub moves: u64,
    /// Items copied because others of their segment were dead.
    pub cleaned: u64,
    /// Items the sweep looked at.
    pub swept: u64,
    /// Items stored.
    pub stored: u64,
}

impl Counters {
    /// Adds another store's counters.
    pub fn add(&mut self, other: &Self) {
        let Self {
            evictions,
            evicted_unfetched,
            evicted_active,
            reclaimed,
            expired_unfetched,
            evicted_nonzero,
            evicted_age_seconds,
            moves,
            cleaned,
            swept,
            stored,
        } = other;
        self.evictions += evictions;
        self.evicted_unfetched += evicted_unfetched;
        self.evicted_active += evicted_active;
        self.reclaimed += reclaimed;
        self.expired_unfetched += expired_unfetched;
        self.evicted_nonzero += evicted_nonzero;
        self.evicted_age_seconds = self.evicted_age_seconds.max(*evicted_age_seconds);
        self.moves += moves;
        self.cleaned += cleaned;
        self.swept += swept;
        self.stored += stored;
    }
}

/// How a store is set up.
#[derive(Clone)]
pub struct Settings {
    /// Memory for everything, items, index and queues, of all stores that share it.
    pub budget: Arc<Budget>,
    /// Evict to make room, or answer [`Full`].
    pub evict: bool,
    /// The hash of keys, for items met while walking a segment.
    pub hasher: KeyHasher,
    /// Where the sequence of segments starts, so that tokens of an earlier run do not match.
    pub sequence_start: u64,
}

/// The store of one shard.
pub struct Store {
    index: Index,
    segments: Vec<Option<Segment>>,
    free_ids: Vec<u32>,
    /// So many a location can name.
    segment_ids_max: usize,
    head: Option<u32>,
    tail: Option<u32>,
    segment_bytes: usize,
    offset_bits: u32,
    /// What the budget knows of this store.
    account: Account,
    segment_memory_bytes: u64,
    live_bytes: u64,
    evict: bool,
    hasher: KeyHasher,
    sequences: Sequences,
    /// Memory of segments that were freed, for those that are opened.
    spares: Vec<BytesMut>,
    reclaim: Reclaim,
    counters: Counters,
    scratch: Vec<u8>,
    /// Evicted items, if somebody wants to know of them.
    evicted: Option<Box<evicted::Evictions>>,
    /// See [`Store::tell_evictions`].
    evicted_hashes: Option<Vec<u64>>,
    /// See [`Store::take_has_expired`].
    has_expired: bool,
}

/// Hands out segment sequences so that the head's is above all of the main queue's opened while it
/// was open: then a new version of a key always has a higher token than the version it replaces.
#[derive(Debug)]
struct Sequences {
    head: u64,
    main: u64,
}

impl Sequences {
    const HEAD_SHIFT: u32 = 8;
    const MAIN_PER_HEAD: u64 = (1 << Self::HEAD_SHIFT) - 1;

    fn new(start: u64) -> Self {
        let main = start << Self::HEAD_SHIFT;
        Self { head: main | Self::MAIN_PER_HEAD, main }
    }

    fn next_head(&mut self) -> u64 {
        self.main = self.head + 1;
        self.head += Self::MAIN_PER_HEAD + 1;
        self.head
    }

    /// `None` when as many main segments as there is room for have been opened below this head.
    fn next_main(&mut self) -> Option<u64> {
        let next = self.main;
        self.main += 1;
        (next < self.head).then_some(next)
    }
}

impl Store {
    /// An empty store. Takes memory only as items come.
    pub fn new(settings: Settings) -> Self {
        let budget = settings.budget;
        let segment_bytes = budget.segment_bytes() as usize;
        let offset_bits = (segment_bytes / ITEM_ALIGN_BYTES).trailing_zeros();
        let mut store = Self {
            index: Index::new(budget.share_bytes()),
            // Id 0 is never used, so that no location is 0.
            segments: first_of_segments(budget.share_bytes(), segment_bytes),
            free_ids: Vec::new(),
            segment_ids_max: (index::LOCATION_LIMIT >> offset_bits) as usize,
            head: None,
            tail: None,
            segment_bytes,
            offset_bits,
            account: Account::new(budget),
            segment_memory_bytes: 0,
            live_bytes: 0,
            evict: settings.evict,
            hasher: settings.hasher,
            sequences: Sequences::new(settings.sequence_start),
            spares: Vec::with_capacity(SPARES_MAX),
            reclaim: Reclaim::default(),
            counters: Counters::default(),
            scratch: Vec::new(),
            evicted: None,
            evicted_hashes: None,
            has_expired: false,
        };
        store.tell_memory();
        store
    }

    /// Finds a key. An expired item is removed. The handle is good until the next call that stores.
    #[inline]
    pub fn find(&mut self, hash: u64, key: &[u8], now: Ticks) -> Result<Handle, Absent> {
        self.find_slot(hash, key, now).map(|(handle, _)| handle)
    }

    #[inline]
    fn find_slot(&mut self, hash: u64, key: &[u8], now: Ticks) -> Result<(Handle, Slot), Absent> {
        let found = self.index.find_slot(hash, |location| {
            let (id, offset) = self.place(location);
            self.segment(id).has_key(offset, key)
        });
        let (handle, slot) = found.ok_or(Absent::Missing)?;
        let (id, offset) = self.place(slot.location());
        let segment = self.segment(id);
        if segment.earliest_deadline <= now && segment.is_expired(offset, now) {
            self.remove_expired(handle);
            return Err(Absent::Expired);
        }
        Ok((handle, slot))
    }

    /// Finds a key, counts the access, and returns what a plain get answers.
    #[inline]
    pub fn fetch(&mut self, hash: u64, key: &[u8], now: Ticks) -> Result<Fetched<'_>, Absent> {
        let (handle, slot) = self.find_slot(hash, key, now)?;
        let accessed = slot.accessed();
        // Hot items are at the maximum: do not dirty their cache line again.
        if accessed != slot {
            self.index.replace(handle, accessed);
        }
        let (id, offset) = self.place(slot.location());
        let (flags, value) = self.segment(id).flags_and_value(offset);
        Ok(Fetched { handle, flags, value })
    }

    /// Brings what lookups of these hashes will need into the processor's caches. The reads do not
    /// depend on each other, so that their waits overlap; the lookups that follow, each of which
    /// needs the result of one read for the next, find everything at hand. Has no other effect, and
    /// none at all for a single lookup, which has nothing to overlap with. (Instructions that
    /// prefetch, between the reads of the sockets, were no better, and `unsafe`.)
    pub fn warm(&self, lookups: &Lookups) {
        let hashes = lookups.hashes();
        if hashes.len() < 2 {
            return;
        }
        let mut read = 0;
        for hash in hashes {
            read ^= self.index.touch(*hash);
        }
        for hash in hashes {
            // The first slot with the tag: nearly always the item itself.
            self.index.find(*hash, |location| {
                let (id, offset) = self.place(location);
                read ^= u64::from(self.segment(id).first_byte(offset));
                true
            });
        }
        // Without a use of what was read, the compiler would leave out the reads.
        std::hint::black_box(read);
    }

    /// The item at a handle.
    #[inline]
    pub fn item(&self, handle: Handle) -> Item<'_> {
        let slot = self.index.slot(handle);
        let (id, offset) = self.place(slot.location());
        let segment = self.segment(id);
        let stored = segment.stored(offset);
        let attributes = stored.header.attributes;
        Item {
            key: stored.key,
            value: stored.value,
            attributes,
            token: attributes.cas.unwrap_or_else(|| position_token(segment.sequence, offset)),
            fetched: slot.fetched(),
            stored_at_seconds: segment.stored_at_seconds(offset),
            idle_seconds_max: IDLE_SECONDS_MAX[usize::from(slot.recency())],
        }
    }

    /// What the item of a key takes, its part of the index included, and its deadline. Changes
    /// nothing; answers an expired item as well.
    pub fn peek(&self, hash: u64, key: &[u8]) -> Option<(u64, Option<Ticks>)> {
        let (_, slot) = self.index.find_slot(hash, |location| {
            let (id, offset) = self.place(location);
            self.segment(id).has_key(offset, key)
        })?;
        let (id, offset) = self.place(slot.location());
        let segment = self.segment(id);
        let item_bytes =
            if segment.is_large() { segment.memory_bytes() } else { segment.stride(offset) };
        let bytes = item_bytes as u64 + reclaim::INDEX_BYTES_PER_ITEM;
        Some((bytes, segment.stored(offset).header.attributes.deadline))
    }

    /// Flags and value of the item at a handle: all that most reads need.
    #[inline]
    pub fn flags_and_value(&self, handle: Handle) -> (u32, &[u8]) {
        let (id, offset) = self.place(self.index.slot(handle).location());
        self.segment(id).flags_and_value(offset)
    }

    /// Counts an access: what eviction goes by.
    #[inline]
    pub fn accessed(&mut self, handle: Handle) {
        let slot = self.index.slot(handle);
        let accessed = slot.accessed();
        // Hot items are at the maximum: do not dirty their cache line again.
        if accessed != slot {
            self.index.replace(handle, accessed);
        }
    }

    /// Counts an access that is not a fetch.
    pub fn bumped(&mut self, handle: Handle) {
        let slot = self.index.slot(handle);
        self.index.replace(handle, slot.bumped());
    }

    /// Bytes the item at a handle takes in its segment.
    pub fn item_bytes(&self, handle: Handle) -> usize {
        let (id, offset) = self.place(self.index.slot(handle).location());
        self.segment(id).stride(offset)
    }

    /// Notes that the item's CAS token goes to a client and must stay as it is.
    pub fn token_handed_out(&mut self, handle: Handle) {
        let slot = self.index.slot(handle);
        if !slot.observed() {
            self.index.replace(handle, slot.with_observed());
        }
    }

    /// The value as a reference that sockets can send from. `None` while it may still change.
    pub fn share_value(&self, handle: Handle) -> Option<Bytes> {
        let (id, offset) = self.place(self.index.slot(handle).location());
        self.segment(id).share_value(offset)
    }

    /// Stores an item in place of `old`, or as a new one. `attributes.cas` is a token chosen by
    /// the client; without one the item gets a fresh token.
    ///
    /// # Errors
    /// [`Full`] if the memory limit is reached and nothing may be evicted; `old` is kept then.
    pub fn put(
        &mut self,
        hash: u64,
        old: Option<Handle>,
        key: &[u8],
        attributes: Attributes,
        value: Value<'_>,
        now: Ticks,
    ) -> Result<Handle, Full> {
        let need = self.need_of(key, attributes, &value, old);
        self.put_needing(need, hash, old, key, attributes, value, now)
    }

    #[allow(clippy::too_many_arguments)] // As `put`.
    fn put_needing(
        &mut self,
        need: Need,
        hash: u64,
        old: Option<Handle>,
        key: &[u8],
        attributes: Attributes,
        value: Value<'_>,
        now: Ticks,
    ) -> Result<Handle, Full> {
        if let Some(handle) = old
            && self.overwrite(handle, attributes, &value, TokenRule::Fresh)
        {
            let slot = self.index.slot(handle);
            let frequency = slot.accessed().frequency();
            self.index.replace(handle, Slot::new(hash, slot.location(), frequency));
            self.counters.stored += 1;
            return Ok(handle);
        }
        let location = self.write(key, attributes, value, (need, old), now)?;
        self.counters.stored += 1;
        let old = old.and_then(|old| self.unless_evicted(hash, old));
        let frequency = match old {
            // Storing a key again is an access.
            Some(handle) => self.index.slot(handle).accessed().frequency(),
            None if self.reclaim.ghosts.take(hash) => reclaim::RETURNED_FREQUENCY,
            None => 0,
        };
        Ok(self.point_to(hash, old, Slot::new(hash, location, frequency)))
    }

    /// Stores an item that an earlier run wrote down, with a new token. The popularity is what it
    /// was then; `None`: as for any item stored now.
    ///
    /// # Errors
    /// [`Full`] as [`Store::put`]; an item of the key that was there is gone then.
    pub fn restore(
        &mut self,
        hash: u64,
        stored: Stored<'_>,
        popularity: Option<u8>,
        now: Ticks,
    ) -> Result<(), Full> {
        let old = self.find(hash, stored.key, now).ok();
        let attributes = Attributes { cas: None, ..stored.header.attributes };
        let value = Value::Parts([stored.value, &[]]);
        // It had its place in the earlier run.
        let stored_again =
            self.put_needing(Need::Same, hash, old, stored.key, attributes, value, now);
        let Ok(handle) = stored_again else {
            if let Ok(old) = self.find(hash, stored.key, now) {
                self.remove(old);
            }
            return Err(Full);
        };
        if let Some(popularity) = popularity {
            let slot = self.index.slot(handle);
            self.index.replace(handle, slot.with_frequency(popularity));
        }
        Ok(())
    }

    /// From here on the store is filled as a whole, until [`Store::end_build`]: its index takes up
    /// to half as much memory again and less time.
    pub fn begin_build(&mut self) {
        self.index.begin_build();
    }

    /// Brings the index of a store that was filled as a whole to its size.
    pub fn end_build(&mut self) {
        self.index.end_build();
        self.tell_memory();
    }

    /// Takes the store apart: hands out its live items, those longest in memory first, with their
    /// popularity. Memory is freed on the way.
    pub fn into_items(mut self, now: Ticks, mut visit: impl FnMut(Stored<'_>, u8)) {
        let mut segments: Vec<(u64, u32)> = Vec::new();
        for (id, segment) in self.segments.iter().enumerate() {
            segments.extend(segment.as_ref().map(|segment| (segment.sequence, id as u32)));
        }
        segments.sort_unstable();
        for (_, id) in segments {
            let Some(segment) = self.segments[id as usize].take() else { continue };
            let mut offset = 0;
            while offset < segment.used_bytes {
                let stored = segment.stored(offset);
                let location = self.location(id, offset);
                let hash = self.hasher.hash(stored.key);
                let live = stored.header.attributes.deadline.is_none_or(|deadline| deadline > now);
                if live && let Some(handle) = self.index.find(hash, |at| at == location) {
                    visit(stored, self.index.slot(handle).frequency());
                }
                offset += segment.stride(offset);
            }
        }
    }

    /// Hands out the items of one part of the index, expired ones included, for another thread to
    /// read, with their popularity. Part numbers start at 0; answers false past the last part.
    pub fn share_part(&self, part: usize, mut visit: impl FnMut(SharedItem, u8)) -> bool {
        let Some(slots) = self.index.partition_slots(part) else { return false };
        for slot in slots {
            let (id, offset) = self.place(slot.location());
            visit(self.segment(id).share_item(offset), slot.frequency());
        }
        true
    }

    /// The bytes of the item at a handle as they lie in the store: see [`Segment::raw`].
    pub fn raw(&self, handle: Handle) -> (&[u8], Option<&Bytes>) {
        let (id, offset) = self.place(self.index.slot(handle).location());
        self.segment(id).raw(offset)
    }

    /// Where the sequence of segments stands: a later store of the same keys that starts above
    /// (see [`Settings::sequence_start`]) repeats no token.
    pub fn sequence_now(&self) -> u64 {
        self.sequences.head >> Sequences::HEAD_SHIFT
    }

    /// Gives the item at a handle other attributes. Its value, frequency and age stay.
    ///
    /// # Errors
    /// [`Full`] as [`Store::put`]; the item is unchanged then.
    pub fn rewrite(
        &mut self,
        hash: u64,
        handle: Handle,
        attributes: Attributes,
        token: TokenRule,
        now: Ticks,
    ) -> Result<Handle, Full> {
        let (id, offset) = self.place(self.index.slot(handle).location());
        let may_stay = self.may_overwrite(handle, attributes, token);
        if may_stay && self.segment_mut(id).overwrite_header(offset, &attributes) {
            return Ok(handle);
        }
        if let Some(value) = self.large_value(handle) {
            return self.update(hash, handle, attributes, Value::Owned(value), token, now);
        }
        let mut value = std::mem::take(&mut self.scratch);
        value.clear();
        value.extend_from_slice(self.item(handle).value);
        let parts = Value::Parts([&value, &[]]);
        let updated = self.update(hash, handle, attributes, parts, token, now);
        self.scratch = value;
        updated
    }

    /// Gives the item at a handle another value and other attributes, and keeps it the same item:
    /// its frequency, whether it was fetched, and its token if the rule says so.
    ///
    /// # Errors
    /// [`Full`] as [`Store::put`]; the item is unchanged then.
    pub fn update(
        &mut self,
        hash: u64,
        handle: Handle,
        mut attributes: Attributes,
        value: Value<'_>,
        token: TokenRule,
        now: Ticks,
    ) -> Result<Handle, Full> {
        if self.overwrite(handle, attributes, &value, token) {
            return Ok(handle);
        }
        let slot = self.index.slot(handle);
        let item = self.item(handle);
        let slot = match token {
            TokenRule::Keep => {
                if attributes.cas.is_none() && slot.observed() {
                    attributes.cas = Some(item.token);
                }
                slot
            }
            TokenRule::Fresh => slot.without_observed(),
        };
        let key = item.key.to_vec();
        let replaced = (Need::Same, Some(handle));
        let location = self.write(&key, attributes, value, replaced, now)?;
        let old = self.unless_evicted(hash, handle);
        Ok(self.point_to(hash, old, slot.with_location(location)))
    }

    /// Whether a version may be written over the one before it, as far as its token goes: the token
    /// is that of the place, which nobody may take for the version before.
    fn may_overwrite(&self, handle: Handle, attributes: Attributes, token: TokenRule) -> bool {
        let is_known = self.index.slot(handle).observed();
        token == TokenRule::Keep || attributes.cas.is_some() || !is_known
    }

    /// Writes a version over the one before it. Answers false if that cannot be.
    fn overwrite(
        &mut self,
        handle: Handle,
        attributes: Attributes,
        value: &Value<'_>,
        token: TokenRule,
    ) -> bool {
        let parts = match value {
            Value::Parts(parts) => *parts,
            Value::Owned(bytes) => [&bytes[..], &[]],
        };
        let (id, offset) = self.place(self.index.slot(handle).location());
        self.may_overwrite(handle, attributes, token)
            && self.segment_mut(id).overwrite(offset, &attributes, parts)
    }

    fn is_large(&self, stride: usize) -> bool {
        stride > self.segment_bytes / LARGE_SHARE
    }

    /// What replacing the item at a handle frees at once: that of a large one.
    fn large_bytes(&self, handle: Handle) -> u64 {
        let slot = self.index.slot(handle);
        if !slot.is_occupied() {
            return 0;
        }
        let segment = self.segment(self.place(slot.location()).0);
        if segment.is_large() { segment.memory_bytes() as u64 } else { 0 }
    }

    fn large_value(&self, handle: Handle) -> Option<Bytes> {
        let (id, offset) = self.place(self.index.slot(handle).location());
        let segment = self.segment(id);
        segment.is_large().then(|| segment.share_value(offset)).flatten()
    }

    /// Removes the item at a handle.
    pub fn remove(&mut self, handle: Handle) {
        let location = self.index.slot(handle).location();
        self.index.remove(handle);
        self.mark_dead(location);
    }

    /// Items in the store, expired ones not yet met included.
    pub fn items(&self) -> usize {
        self.index.items()
    }

    /// Bytes of live items, headers and padding included.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// What live items take: those bytes, and what the index has for them.
    pub fn item_memory_bytes(&self) -> u64 {
        self.live_bytes + self.items() as u64 * reclaim::INDEX_BYTES_PER_ITEM
    }

    /// For how long the items that would be evicted next have been stored.
    pub fn oldest_age_seconds(&self, now: Ticks) -> u64 {
        let oldest = self.reclaim.oldest().into_iter().chain([self.head]).flatten();
        let stored_at = oldest.map(|id| self.segment(id).stored_at_seconds(0)).min();
        stored_at.map_or(0, |seconds| now.seconds().saturating_sub(seconds))
    }

    /// Memory the store takes, all of it.
    pub fn memory_bytes(&self) -> u64 {
        let segment_table = (self.segments.len() * size_of::<Option<Segment>>()) as u64;
        self.segment_memory_bytes + self.index.bytes() + self.reclaim.memory_bytes() + segment_table
    }

    /// What counts against the limit: a segment that is being filled does not count yet.
    fn counted_bytes(&self) -> u64 {
        let open = [self.head, self.tail].iter().chain(&self.reclaim.outputs()).flatten().count();
        self.memory_bytes() - (open * self.segment_bytes) as u64
    }

    /// What counts of all stores that share the limit, and what is lent.
    fn used_by_all(&self) -> u64 {
        self.account.used_by_all(self.counted_bytes())
    }

    /// What cleaning could free of all those.
    fn dead_by_all(&self) -> u64 {
        self.account.dead_by_all(self.reclaim.dead_bytes())
    }

    /// Tells the others what this store takes by now.
    fn tell_memory(&mut self) {
        self.account.tell(self.counted_bytes(), self.reclaim.dead_bytes());
    }

    /// Memory of the index alone.
    pub fn index_bytes(&self) -> u64 {
        self.index.bytes()
    }

    /// The memory that this store shares with others.
    pub fn budget(&self) -> &Arc<Budget> {
        self.account.budget()
    }

    /// The memory limit, for all stores that share it.
    pub fn memory_bytes_max(&self) -> u64 {
        self.budget().limit_bytes()
    }

    /// Sets another memory limit for all stores that share it. Memory above a smaller one comes
    /// back in steps, with what is stored and with calls of [`Store::maintain`].
    pub fn set_memory_bytes_max(&mut self, bytes: u64) {
        self.budget().set_limit_bytes(bytes);
    }

    /// Memory of all segments, and how many there are.
    pub fn segments(&self) -> (u64, usize) {
        (self.segment_memory_bytes, self.segments.iter().flatten().count())
    }

    /// Bytes of a segment.
    pub fn segment_bytes(&self) -> usize {
        self.segment_bytes
    }

    /// The counters.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Sets all counters to 0.
    pub fn reset_counters(&mut self) {
        self.counters = Counters::default();
    }

    /// Calls `visit` with the live items of one part of the index. Part numbers start at 0;
    /// answers false past the last part.
    pub fn visit_part(&self, part: usize, now: Ticks, mut visit: impl FnMut(Item<'_>)) -> bool {
        let Some(slots) = self.index.partition_slots(part) else { return false };
        for slot in slots {
            let (id, offset) = self.place(slot.location());
            let segment = self.segment(id);
            let stored = segment.stored(offset);
            let attributes = stored.header.attributes;
            if attributes.deadline.is_none_or(|deadline| deadline > now) {
                visit(Item {
                    key: stored.key,
                    value: stored.value,
                    attributes,
                    token: attributes
                        .cas
                        .unwrap_or_else(|| position_token(segment.sequence, offset)),
                    fetched: slot.fetched(),
                    stored_at_seconds: segment.stored_at_seconds(offset),
                    idle_seconds_max: IDLE_SECONDS_MAX[usize::from(slot.recency())],
                });
            }
        }
        true
    }

    /// Parts that [`Store::visit_part`] can visit.
    pub fn part_count(&self) -> usize {
        self.index.partition_count()
    }

    fn remove_expired(&mut self, handle: Handle) {
        self.has_expired = true;
        self.counters.reclaimed += 1;
        if !self.index.slot(handle).fetched() {
            self.counters.expired_unfetched += 1;
        }
        self.remove(handle);
    }

    /// Makes the index name the item just written, instead of `old` if there is one.
    fn point_to(&mut self, hash: u64, old: Option<Handle>, slot: Slot) -> Handle {
        match old {
            Some(handle) => {
                let dead = self.index.slot(handle).location();
                self.index.replace(handle, slot);
                self.mark_dead(dead);
                handle
            }
            None => {
                let index_bytes = self.index.bytes();
                let inserted = self.index.insert(hash, slot);
                if let Some(dropped) = inserted.dropped {
                    self.drop_item(dropped.location());
                }
                if self.index.bytes() != index_bytes {
                    self.tell_memory();
                }
                inserted.handle
            }
        }
    }

    /// The handle of an item, unless that had to make room for its own next version.
    fn unless_evicted(&mut self, hash: u64, handle: Handle) -> Option<Handle> {
        if self.index.slot(handle).is_occupied() {
            return Some(handle);
        }
        self.take_back_evicted(hash);
        None
    }

    /// The index had no place for an item.
    fn drop_item(&mut self, location: u64) {
        let (id, offset) = self.place(location);
        let hash = self.hasher.hash(self.segment(id).stored(offset).key);
        self.counters.evictions += 1;
        self.tell_evicted(hash);
        self.mark_dead(location);
    }

    /// Whether a version needs more than the one before it.
    fn need_of(
        &self,
        key: &[u8],
        attributes: Attributes,
        value: &Value<'_>,
        old: Option<Handle>,
    ) -> Need {
        let stride = item::stride(&attributes, key.len(), value.len());
        match stride.saturating_sub(old.map_or(0, |old| self.item_bytes(old))) {
            0 => Need::Same,
            bytes => Need::More(bytes),
        }
    }

    /// Appends an item at the head (or in a segment of its own) and returns its location.
    /// `replaced` is the version before it, and whether this one needs more.
    fn write(
        &mut self,
        key: &[u8],
        attributes: Attributes,
        value: Value<'_>,
        (need, replaced): (Need, Option<Handle>),
        now: Ticks,
    ) -> Result<u64, Full> {
        if !self.has_live_room(need) {
            return Err(Full);
        }
        let stride = item::stride(&attributes, key.len(), value.len());
        self.free_some(stride, now);
        if self.is_large(stride) {
            let replaced_bytes = replaced.map_or(0, |handle| self.large_bytes(handle));
            return self.write_large(key, attributes, value, replaced_bytes, now);
        }
        let id = self.head_with_room(stride, now)?;
        let parts = match &value {
            Value::Parts(parts) => *parts,
            Value::Owned(bytes) => [&bytes[..], &[]],
        };
        let offset = self.segment_mut(id).append(&attributes, key, parts, now);
        self.live_bytes += stride as u64;
        Ok(self.location(id, offset))
    }

    /// A large item's own segment has a sequence below the head's. Its token is the position of a
    /// placeholder in the head, so that it is in order with those of small versions of the key.
    fn write_large(
        &mut self,
        key: &[u8],
        mut attributes: Attributes,
        value: Value<'_>,
        replaced_bytes: u64,
        now: Ticks,
    ) -> Result<u64, Full> {
        if attributes.cas.is_none() {
            let id = self.head_with_room(item::stride(&Attributes::default(), 1, 0), now)?;
            let segment = self.segment_mut(id);
            let offset = segment.append_placeholder(now);
            attributes.cas = Some(position_token(segment.sequence, offset));
        }
        let mut head = vec![0; item::header_bytes(&attributes, value.len()) + key.len()];
        let at = item::pack_header(&mut head, &attributes, key.len(), value.len());
        head[at..].copy_from_slice(key);
        let bytes = large_memory_bytes(head.len(), value.len());
        if bytes as u64 > self.memory_bytes_max() / 2 {
            // Would empty the store and perhaps still not fit.
            return Err(Full);
        }
        let lent_bytes = match &value {
            Value::Owned(value) => (value.len() as u64).min(self.budget().lent_bytes()),
            Value::Parts(_) => 0,
        };
        self.make_room(bytes as u64, lent_bytes + replaced_bytes, now)?;
        let value = match value {
            Value::Owned(bytes) => bytes,
            Value::Parts([one, []]) => Bytes::copy_from_slice(one),
            Value::Parts(parts) => Bytes::from(parts.concat()),
        };
        let sequence = self.next_main_sequence();
        let mut segment = Segment::large(head.into_boxed_slice(), value, sequence);
        segment.remember_time(0, now);
        if let Some(deadline) = attributes.deadline {
            segment.earliest_deadline = deadline;
        }
        self.live_bytes += segment.live_bytes as u64;
        let id = self.add_segment(segment);
        self.reclaim.enqueue(id, &mut self.segments);
        Ok(self.location(id, 0))
    }

    fn next_main_sequence(&mut self) -> u64 {
        self.sequences.next_main().unwrap_or_else(|| {
            // As many as fit below this head: a new head makes new room.
            self.seal_head();
            self.sequences.next_head();
            self.sequences.next_main().expect("a fresh head has room below it")
        })
    }

    fn head_with_room(&mut self, stride: usize, now: Ticks) -> Result<u32, Full> {
        if let Some(id) = self.head.filter(|id| self.segment(*id).has_room(stride)) {
            return Ok(id);
        }
        self.make_room(self.segment_bytes as u64, 0, now)?;
        self.seal_head();
        let sequence = self.sequences.next_head();
        let usable = usable_bytes(self.segment_bytes);
        let segment = Segment::open(usable, self.spares.pop(), sequence, Queue::Small);
        let id = self.add_segment(segment);
        self.head = Some(id);
        Ok(id)
    }

    fn seal_head(&mut self) {
        if let Some(id) = self.head.take() {
            self.seal(id);
        }
    }

    fn seal(&mut self, id: u32) {
        let segment = self.segment_mut(id);
        segment.seal();
        if segment.live_bytes == 0 {
            self.free_segment(id);
        } else {
            self.reclaim.enqueue(id, &mut self.segments);
            self.reclaim.note_dead(id, &mut self.segments);
            self.tell_memory();
        }
    }

    fn add_segment(&mut self, segment: Segment) -> u32 {
        self.segment_memory_bytes += segment.memory_bytes() as u64;
        self.reclaim.queue_bytes_changed(segment.queue, segment.memory_bytes() as i64);
        let is_large = segment.is_large();
        let id = match self.free_ids.pop() {
            Some(id) => {
                self.segments[id as usize] = Some(segment);
                id
            }
            None => {
                assert!(self.segments.len() < self.segment_ids_max, "see `may_take`");
                self.segments.push(Some(segment));
                (self.segments.len() - 1) as u32
            }
        };
        if is_large {
            self.tell_memory();
        }
        id
    }

    /// Takes a segment out of the store; its id is free from here on.
    fn take_segment(&mut self, id: u32) -> Segment {
        self.reclaim.forget(id, &mut self.segments);
        let segment = self.segments[id as usize].take().expect("a segment in use");
        self.segment_memory_bytes -= segment.memory_bytes() as u64;
        self.reclaim.queue_bytes_changed(segment.queue, -(segment.memory_bytes() as i64));
        self.free_ids.push(id);
        self.tell_memory();
        segment
    }

    fn free_segment(&mut self, id: u32) {
        let segment = self.take_segment(id);
        self.keep_as_spare(segment);
    }

    fn keep_as_spare(&mut self, segment: Segment) {
        if self.spares.len() < SPARES_MAX {
            self.spares.extend(segment.into_spare(usable_bytes(self.segment_bytes)));
        }
    }

    /// Takes an item's bytes off the live ones of its segment, and frees a segment without any.
    fn mark_dead(&mut self, location: u64) {
        let (id, offset) = self.place(location);
        let segment = self.segment_mut(id);
        let stride = segment.stride(offset);
        segment.live_bytes -= stride;
        self.live_bytes -= stride as u64;
        let segment = self.segment(id);
        if segment.is_open() {
            return;
        }
        if segment.live_bytes == 0 {
            self.free_segment(id);
        } else {
            self.reclaim.note_dead(id, &mut self.segments);
        }
    }

    #[inline]
    fn segment(&self, id: u32) -> &Segment {
        self.segments[id as usize].as_ref().expect("the index names segments in use")
    }

    #[inline]
    fn segment_mut(&mut self, id: u32) -> &mut Segment {
        self.segments[id as usize].as_mut().expect("the index names segments in use")
    }

    #[inline]
    fn place(&self, location: u64) -> (u32, usize) {
        let offset = location & ((1 << self.offset_bits) - 1);
        ((location >> self.offset_bits) as u32, offset as usize * ITEM_ALIGN_BYTES)
    }

    fn location(&self, id: u32, offset: usize) -> u64 {
        u64::from(id) << self.offset_bits | (offset / ITEM_ALIGN_BYTES) as u64
    }
}

/// The list of segments, with room for those of a full store, so that it need not be copied while
/// the store grows. Memory that nobody has written to costs nothing.
fn first_of_segments(memory_bytes_max: u64, segment_bytes: usize) -> Vec<Option<Segment>> {
    let room = memory_bytes_max / segment_bytes as u64 + SEGMENTS_PER_SHARD_MIN as u64;
    let mut segments = Vec::with_capacity(usize::try_from(room).unwrap_or(0));
    segments.push(None);
    segments
}

/// The CAS token of an item that stores none.
fn position_token(sequence: u64, offset: usize) -> u64 {
    const OFFSET_BITS: u32 = (SEGMENT_BYTES_MAX / ITEM_ALIGN_BYTES).trailing_zeros();
    sequence << OFFSET_BITS | (offset / ITEM_ALIGN_BYTES) as u64
}

/// Sixty-four or more segments to a shard, so that eviction is fine-grained; large ones where there
/// is memory, so that there are few to manage.
fn segment_bytes_for(memory_bytes: u64) -> usize {
    let wanted = memory_bytes / SEGMENTS_PER_SHARD_MIN as u64;
    let clamped = wanted.clamp(SEGMENT_BYTES_MIN as u64, SEGMENT_BYTES_MAX as u64) as usize;
    if clamped.is_power_of_two() { clamped } else { clamped.next_power_of_two() / 2 }
}
