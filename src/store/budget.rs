//! The memory limit of a server, one for all of its stores, and what is used of it.
//!
//! What one store does not use another may. Each store tells what it takes and gives back when a
//! segment, a large value or a part of its index comes or goes, never for a single item, and looks
//! here only then. Nothing waits here and nothing is decided here: each store judges for itself by
//! what all of them use. (The numbers are read one after the other, and a store may read them while
//! another changes them: it then takes a segment more or less, which [`Budget::slack_bytes`]
//! covers.)
//!
//! ```text
//!  0                                            limit   +slack        +overshoot
//!  |--------------------------------------------|-------|-------------|
//!   taken without asking                        |       a store below its share may go here:
//!                                               |       those above theirs give it back
//!                                               every store of an item frees a few others
//! ```

use super::segment_bytes_for;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// Segments that all stores together may take above the limit, at least: a head and a tail for each
/// of two stores, so that a store need not free a segment before it can take one.
const SLACK_SEGMENTS_MIN: u64 = 4;

/// Stores for each segment of the slack: only some of them are in need at the same time.
const STORES_PER_SLACK_SEGMENT: u64 = 2;

/// How far stores below their share may go above the limit, as one part in so many, while those
/// above theirs give memory back.
const OVERSHOOT_SHARE: u64 = 32;

/// Memory that is used elsewhere, by connections, beside the limit; what is more counts against it.
pub const HELD_BYTES_FREE: u64 = 16 << 20;

/// Memory of a server's stores; see the module's text.
#[derive(Debug)]
pub struct Budget {
    limit_bytes: AtomicU64,
    used_bytes: AtomicU64,
    dead_bytes: AtomicU64,
    held_bytes: AtomicI64,
    store_count: u64,
    segment_bytes: u64,
}

impl Budget {
    /// A limit for so many stores, which all of them are told of when they are made.
    pub fn new(limit_bytes: u64, store_count: usize) -> Arc<Self> {
        let store_count = store_count.max(1) as u64;
        Arc::new(Self {
            limit_bytes: AtomicU64::new(limit_bytes),
            used_bytes: AtomicU64::new(0),
            dead_bytes: AtomicU64::new(0),
            held_bytes: AtomicI64::new(0),
            store_count,
            segment_bytes: segment_bytes_for(limit_bytes / store_count) as u64,
        })
    }

    /// The limit.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes.load(Relaxed)
    }

    /// Sets another limit. Stores come down to a smaller one in steps, with what is stored and with
    /// maintenance.
    pub fn set_limit_bytes(&self, bytes: u64) {
        self.limit_bytes.store(bytes, Relaxed);
    }

    /// What stores take and what is lent.
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Relaxed).saturating_add(self.lent_bytes())
    }

    /// What of it cleaning could free, as far as stores have told.
    pub fn dead_bytes(&self) -> u64 {
        self.dead_bytes.load(Relaxed)
    }

    /// So much more, or less, is used elsewhere.
    pub fn add_held_bytes(&self, bytes: i64) {
        self.held_bytes.fetch_add(bytes, Relaxed);
    }

    /// What is used elsewhere.
    pub fn held_bytes(&self) -> u64 {
        // Below zero for a moment, where what one thread gave back was told before what another
        // one took.
        u64::try_from(self.held_bytes.load(Relaxed)).unwrap_or(0)
    }

    /// What of it counts against the limit: the stores give it up.
    pub fn lent_bytes(&self) -> u64 {
        self.held_bytes().saturating_sub(HELD_BYTES_FREE)
    }

    /// What each store may have when all want as much as they can get.
    pub fn share_bytes(&self) -> u64 {
        self.limit_bytes().saturating_sub(self.lent_bytes()) / self.store_count
    }

    /// How many stores there are.
    pub fn store_count(&self) -> u64 {
        self.store_count
    }

    /// Bytes of a segment, in each of the stores.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// How far above the limit stores take segments while they free others.
    pub fn slack_bytes(&self) -> u64 {
        let segments = self.store_count.div_ceil(STORES_PER_SLACK_SEGMENT);
        segments.max(SLACK_SEGMENTS_MIN) * self.segment_bytes
    }

    /// How far above the limit a store below its share may go.
    pub fn overshoot_bytes(&self) -> u64 {
        self.slack_bytes().max(self.limit_bytes() / OVERSHOOT_SHARE)
    }

    fn change(total: &AtomicU64, before: u64, after: u64) {
        if before != after {
            // Wraps around where it becomes less, and back.
            total.fetch_add(after.wrapping_sub(before), Relaxed);
        }
    }
}

/// What one store has told its [`Budget`] that it takes; given back when the store is dropped.
#[derive(Debug)]
pub struct Account {
    budget: Arc<Budget>,
    used_bytes: u64,
    dead_bytes: u64,
}

impl Account {
    /// Nothing taken so far.
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { budget, used_bytes: 0, dead_bytes: 0 }
    }

    /// The budget of all.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// Tells what the store takes now, and how much of that cleaning could free.
    pub fn tell(&mut self, used_bytes: u64, dead_bytes: u64) {
        Budget::change(&self.budget.used_bytes, self.used_bytes, used_bytes);
        Budget::change(&self.budget.dead_bytes, self.dead_bytes, dead_bytes);
        (self.used_bytes, self.dead_bytes) = (used_bytes, dead_bytes);
    }

    /// What all use, this store with what it has not told yet.
    pub fn used_by_all(&self, used_bytes: u64) -> u64 {
        self.budget.used_bytes().wrapping_sub(self.used_bytes).wrapping_add(used_bytes)
    }

    /// The dead bytes of all, in the same way.
    pub fn dead_by_all(&self, dead_bytes: u64) -> u64 {
        self.budget.dead_bytes().wrapping_sub(self.dead_bytes).wrapping_add(dead_bytes)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.tell(0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_what_is_told_and_takes_it_back() {
        let budget = Budget::new(64 << 20, 16);
        let (mut one, mut other) =
            (Account::new(Arc::clone(&budget)), Account::new(Arc::clone(&budget)));
        one.tell(1000, 700);
        other.tell(500, 500);
        one.tell(400, 300);
        budget.add_held_bytes(HELD_BYTES_FREE as i64 + 100);
        assert_eq!((budget.used_bytes(), budget.dead_bytes()), (1000, 800));
        assert_eq!((one.used_by_all(450), one.dead_by_all(310)), (1050, 810));
        budget.add_held_bytes(-200);
        drop(one);
        assert_eq!((budget.used_bytes(), budget.lent_bytes()), (500, 0));
        drop(other);
        assert_eq!((budget.used_bytes(), budget.dead_bytes()), (0, 0));
    }

    #[test]
    fn bounds_are_small_beside_the_limit() {
        for (mebibytes, stores) in [(2, 1), (64, 1), (64, 16), (1024, 1), (1024, 64), (65536, 64)] {
            let budget = Budget::new(mebibytes << 20, stores);
            let (limit, slack) = (budget.limit_bytes(), budget.slack_bytes());
            assert!(slack <= limit / 16, "{mebibytes} MiB, {stores} stores: {slack}");
            assert!(slack <= budget.overshoot_bytes() && budget.overshoot_bytes() <= limit / 16);
            assert_eq!(budget.share_bytes(), limit / stores as u64);
        }
    }
}
