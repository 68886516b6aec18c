//! Which items were evicted, for those who want to know.
//!
//! Two ask. Who watches wants keys and ages, and can do without some: a few are kept at a time, and
//! the rest counted. Who records changes wants every single one, by its hash, for an item that is
//! not known to have left would be back after a restart. Neither costs anything while nobody asks.
//!
//! What a client asked for (a delete, a flush) and what has expired is not told here.

use super::index::Slot;
use super::segment::Segment;
use super::{IDLE_SECONDS_MAX, Store, Ticks};

/// Items kept until they are taken. Nearly all steps evict a part of one segment: more are rare.
const EVICTED_MAX: usize = 4096;

/// An item that had to leave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evicted {
    /// Its key.
    pub key: Box<[u8]>,
    /// Length of its value.
    pub value_bytes: usize,
    /// When it would have expired.
    pub deadline: Option<Ticks>,
    /// Seconds since it was stored or last accessed, at most.
    pub idle_seconds: u64,
    /// Whether anybody had fetched it.
    pub fetched: bool,
}

/// Items evicted since they were last taken.
#[derive(Debug, Default)]
pub struct Evictions {
    /// The first of them.
    pub items: Vec<Evicted>,
    /// How many more there were.
    pub dropped: u64,
}

impl Evictions {
    pub(super) fn note(&mut self, segment: &Segment, offset: usize, slot: Slot, now: Ticks) {
        if self.items.len() >= EVICTED_MAX {
            self.dropped += 1;
            return;
        }
        let stored = segment.stored(offset);
        self.items.push(Evicted {
            key: stored.key.into(),
            value_bytes: stored.value.len(),
            deadline: stored.header.attributes.deadline,
            idle_seconds: super::idle_seconds(
                segment.stored_at_seconds(offset),
                IDLE_SECONDS_MAX[usize::from(slot.recency())],
                now,
            ),
            fetched: slot.fetched(),
        });
    }
}

impl Store {
    /// Tells from now on which items leave without a client having asked for it, or stops.
    pub fn tell_evictions(&mut self, wanted: bool) {
        self.evicted_hashes = wanted.then(Vec::new);
    }

    /// The hashes of the keys that had to leave since the last call, in that order. To be recorded
    /// before the change that made them leave: it may have brought a key back.
    pub fn take_evicted_hashes(&mut self) -> impl Iterator<Item = u64> + '_ {
        self.evicted_hashes.iter_mut().flat_map(|hashes| hashes.drain(..))
    }

    /// Whether [`Store::take_evicted_hashes`] has any.
    #[inline]
    pub fn has_evicted_hashes(&self) -> bool {
        self.evicted_hashes.as_ref().is_some_and(|hashes| !hashes.is_empty())
    }

    /// An item had to leave.
    pub(super) fn tell_evicted(&mut self, hash: u64) {
        if let Some(hashes) = &mut self.evicted_hashes {
            hashes.push(hash);
        }
    }

    /// An item had to leave to make room for its own next version: it was never away. (A change of
    /// its attributes alone is recorded as such, and would find no item.)
    pub(super) fn take_back_evicted(&mut self, hash: u64) {
        if let Some(hashes) = &mut self.evicted_hashes {
            hashes.retain(|evicted| *evicted != hash);
        }
    }

    /// Keeps what is evicted from now on, or stops.
    pub fn watch_evictions(&mut self, wanted: bool) {
        match (&self.evicted, wanted) {
            (None, true) => self.evicted = Some(Box::default()),
            (Some(_), false) => self.evicted = None,
            _ => {}
        }
    }

    /// What was evicted since the last call.
    pub fn take_evictions(&mut self) -> Evictions {
        self.evicted.as_mut().map_or_else(Evictions::default, |kept| std::mem::take(kept))
    }
}
