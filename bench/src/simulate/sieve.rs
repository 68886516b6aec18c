//! SIEVE (Zhang et al., "SIEVE is Simpler than LRU", NSDI 2024): a queue in order of arrival, one
//! bit per item, and a hand that moves from old to new. The hand clears bits and evicts the first
//! item without one; unlike CLOCK it leaves survivors where they are.

use super::Policy;
use super::items::{Items, Place, Queue};

pub(super) struct Sieve {
    limit_bytes: u64,
    items: Items,
    queue: Queue,
    /// Where the next search begins; the oldest item if none.
    hand: Option<u32>,
}

impl Sieve {
    pub(super) fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, items: Items::default(), queue: Queue::new(Place::A), hand: None }
    }

    fn evict(&mut self) {
        while let Some(id) = self.hand.or(self.queue.oldest()) {
            if self.items.get(id).uses == 0 {
                self.remove_at(id);
                return;
            }
            self.items.at(id).uses = 0;
            self.hand = self.items.newer(id);
        }
    }

    fn remove_at(&mut self, id: u32) {
        if self.hand.or(self.queue.oldest()) == Some(id) {
            self.hand = self.items.newer(id);
        }
        self.queue.remove(&mut self.items, id);
    }
}

impl Policy for Sieve {
    fn contains(&self, id: u32) -> bool {
        self.items.get(id).place == Place::A
    }

    fn hit(&mut self, id: u32) {
        self.items.at(id).uses = 1;
    }

    fn insert(&mut self, id: u32, bytes: u32) {
        // Room is made first, so that the new item is not a candidate before anyone could ask.
        while self.queue.oldest().is_some()
            && self.queue.bytes() + u64::from(bytes) > self.limit_bytes
        {
            self.evict();
        }
        if u64::from(bytes) <= self.limit_bytes {
            let item = self.items.at(id);
            (item.bytes, item.uses) = (bytes, 0);
            self.queue.push(&mut self.items, id);
        }
    }

    fn remove(&mut self, id: u32) {
        self.remove_at(id);
    }
}
