//! What can be learned at all: every request since the start is remembered for every key, held or
//! not, at no cost in memory, and the keys with the fewest requests per byte go. No server could
//! afford it: what it misses is about what any policy must miss that learns from the past, in a run
//! of that length.
//!
//! One request says next to nothing where keys are asked for once, so the first counts less than
//! the others (`FIRST_WORTH`, the best of 0.05 to 0.5 on the streams with one-time keys).

use std::collections::BTreeSet;

use super::Policy;

/// What a first request is worth; each one after it is worth 1.
const FIRST_WORTH: f64 = 0.1;
/// Worth per byte is ordered as an integer, at this scale.
const SCALE: f64 = 1e12;

#[derive(Clone, Copy, Default)]
struct Known {
    requests: u32,
    bytes: u32,
    held: bool,
}

pub(super) struct Learner {
    limit_bytes: u64,
    held_bytes: u64,
    known: Vec<Known>,
    /// The keys that are held, by their worth per byte.
    order: BTreeSet<(u64, u32)>,
}

impl Learner {
    pub(super) fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, held_bytes: 0, known: Vec::new(), order: BTreeSet::new() }
    }

    fn rank(&self, id: u32) -> (u64, u32) {
        let known = self.known[id as usize];
        let worth = f64::from(known.requests.saturating_sub(1)) + FIRST_WORTH;
        ((worth / f64::from(known.bytes.max(1)) * SCALE) as u64, id)
    }
}

impl Policy for Learner {
    fn contains(&self, id: u32) -> bool {
        self.known.get(id as usize).is_some_and(|known| known.held)
    }

    fn hit(&mut self, id: u32) {
        self.order.remove(&self.rank(id));
        self.known[id as usize].requests += 1;
        self.order.insert(self.rank(id));
    }

    fn insert(&mut self, id: u32, bytes: u32) {
        let index = id as usize;
        if self.known.len() <= index {
            self.known.resize(index + 1, Known::default());
        }
        let requests = self.known[index].requests + 1;
        self.known[index] = Known { requests, bytes, held: true };
        self.held_bytes += u64::from(bytes);
        self.order.insert(self.rank(id));
        while self.held_bytes > self.limit_bytes {
            let Some(&(_, least)) = self.order.first() else { return };
            self.remove(least);
        }
    }

    fn remove(&mut self, id: u32) {
        self.order.remove(&self.rank(id));
        let known = &mut self.known[id as usize];
        known.held = false;
        self.held_bytes -= u64::from(known.bytes);
    }
}
