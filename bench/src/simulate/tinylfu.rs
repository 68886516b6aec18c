//! W-TinyLFU in outline (Einziger, Friedman and Manes, "TinyLFU: A Highly Efficient Cache
//! Admission Policy", ACM TOS 13(4), 2017): a window of one hundredth of the memory in LRU order;
//! what leaves it must have been asked for more often than the main part's next victim to get in.
//! The main part is a segmented LRU, four fifths of it protected.
//!
//! Counts are exact per id where the original has a sketch, so this is what the idea can reach, not
//! what an implementation does. They are halved after every ten requests per item held.

use super::Policy;
use super::items::{Items, Place, Queue};

const WINDOW_PART: u64 = 100;
const COUNT_MAX: u8 = 15;
const AGE_AFTER: u64 = 10;

pub(super) struct TinyLfu {
    limit_bytes: u64,
    items: Items,
    window: Queue,
    probation: Queue,
    protected: Queue,
    counts: Vec<u8>,
    held: u64,
    requests: u64,
}

impl TinyLfu {
    pub(super) fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            items: Items::default(),
            window: Queue::new(Place::A),
            probation: Queue::new(Place::B),
            protected: Queue::new(Place::C),
            counts: Vec::new(),
            held: 0,
            requests: 0,
        }
    }

    fn count(&mut self, id: u32) {
        let index = id as usize;
        if self.counts.len() <= index {
            self.counts.resize(index + 1, 0);
        }
        self.counts[index] = (self.counts[index] + 1).min(COUNT_MAX);
        self.requests += 1;
        if self.requests > AGE_AFTER * self.held.max(1000) {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.requests = 0;
        }
    }

    fn main_limit_bytes(&self) -> u64 {
        self.limit_bytes - self.limit_bytes / WINDOW_PART
    }

    /// Moves what the window has too much of to the main part, or drops it.
    fn shrink_window(&mut self) {
        while self.window.bytes() > self.limit_bytes / WINDOW_PART {
            let Some(candidate) = self.window.pop(&mut self.items) else { return };
            if self.admit(candidate) {
                self.probation.push(&mut self.items, candidate);
            } else {
                self.held -= 1;
            }
        }
    }

    /// Makes room in the main part for a candidate asked for more often than each of those that
    /// would have to leave for it.
    fn admit(&mut self, candidate: u32) -> bool {
        let bytes = u64::from(self.items.get(candidate).bytes);
        while self.probation.bytes() + self.protected.bytes() + bytes > self.main_limit_bytes() {
            let victim = self.probation.oldest().or(self.protected.oldest());
            match victim {
                Some(victim) if self.is_hotter(candidate, victim) => {
                    self.remove(victim);
                }
                _ => return false,
            }
        }
        true
    }

    fn is_hotter(&self, one: u32, other: u32) -> bool {
        self.counts[one as usize] > self.counts[other as usize]
    }

    fn promote(&mut self, id: u32) {
        self.protected.push(&mut self.items, id);
        while self.protected.bytes() > self.main_limit_bytes() / 5 * 4 {
            let Some(demoted) = self.protected.pop(&mut self.items) else { return };
            self.probation.push(&mut self.items, demoted);
        }
    }
}

impl Policy for TinyLfu {
    fn contains(&self, id: u32) -> bool {
        self.items.get(id).place != Place::Nowhere
    }

    fn hit(&mut self, id: u32) {
        self.count(id);
        match self.items.get(id).place {
            Place::A => {
                self.window.remove(&mut self.items, id);
                self.window.push(&mut self.items, id);
            }
            Place::B => {
                self.probation.remove(&mut self.items, id);
                self.promote(id);
            }
            _ => {
                self.protected.remove(&mut self.items, id);
                self.protected.push(&mut self.items, id);
            }
        }
    }

    fn insert(&mut self, id: u32, bytes: u32) {
        self.count(id);
        self.items.at(id).bytes = bytes;
        self.window.push(&mut self.items, id);
        self.held += 1;
        self.shrink_window();
    }

    fn remove(&mut self, id: u32) {
        match self.items.get(id).place {
            Place::A => self.window.remove(&mut self.items, id),
            Place::B => self.probation.remove(&mut self.items, id),
            _ => self.protected.remove(&mut self.items, id),
        }
        self.held -= 1;
    }
}
