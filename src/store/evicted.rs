//! Which items were evicted, for those who watch.
//!
//! Kept only while somebody asks for it, and no more than a few at a time: who watches takes them
//! every turn.

use super::segment::Segment;
use super::{Store, Ticks};

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
    /// When it was stored.
    pub stored_at_seconds: u64,
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
    pub(super) fn note(&mut self, segment: &Segment, offset: usize, fetched: bool) {
        if self.items.len() >= EVICTED_MAX {
            self.dropped += 1;
            return;
        }
        let stored = segment.stored(offset);
        self.items.push(Evicted {
            key: stored.key.into(),
            value_bytes: stored.value.len(),
            deadline: stored.header.attributes.deadline,
            stored_at_seconds: segment.stored_at_seconds(offset),
            fetched,
        });
    }
}

impl Store {
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
