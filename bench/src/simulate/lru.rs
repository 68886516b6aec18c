//! Least recently used: one queue in order of use.

use super::Policy;
use super::items::{Items, Place, Queue};

pub(super) struct Lru {
    limit_bytes: u64,
    items: Items,
    queue: Queue,
}

impl Lru {
    pub(super) fn new(limit_bytes: u64) -> Self {
        Self { limit_bytes, items: Items::default(), queue: Queue::new(Place::A) }
    }
}

impl Policy for Lru {
    fn contains(&self, id: u32) -> bool {
        self.items.get(id).place == Place::A
    }

    fn hit(&mut self, id: u32) {
        self.queue.remove(&mut self.items, id);
        self.queue.push(&mut self.items, id);
    }

    fn insert(&mut self, id: u32, bytes: u32) {
        self.items.at(id).bytes = bytes;
        self.queue.push(&mut self.items, id);
        while self.queue.bytes() > self.limit_bytes {
            self.queue.pop(&mut self.items);
        }
    }

    fn remove(&mut self, id: u32) {
        self.queue.remove(&mut self.items, id);
    }
}
