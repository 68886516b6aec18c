//! S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023): a small
//! queue of a tenth of the memory for newcomers, a main queue, and ghosts, the ids of what the
//! small queue evicted lately. An item used often enough in the small queue moves to the main
//! queue, as does one that is asked for again while its ghost is remembered. The main queue gives
//! an item one more round for each use, up to three.

use super::Policy;
use super::items::{Items, Place, Queue};

const USES_MAX: u8 = 3;
/// Uses that take an item from the small to the main queue, in the paper.
pub(super) const USES_TO_STAY: u8 = 2;
/// The small queue's share of the memory: one part in this many.
const SMALL_PART: u64 = 10;

pub(super) struct S3Fifo {
    limit_bytes: u64,
    uses_to_stay: u8,
    items: Items,
    small: Queue,
    main: Queue,
    ghosts: Queue,
}

impl S3Fifo {
    pub(super) fn new(limit_bytes: u64, uses_to_stay: u8) -> Self {
        Self {
            limit_bytes,
            uses_to_stay,
            items: Items::default(),
            small: Queue::new(Place::A),
            main: Queue::new(Place::B),
            ghosts: Queue::new(Place::C),
        }
    }

    fn evict(&mut self) {
        if self.small.bytes() > self.limit_bytes / SMALL_PART || self.main.oldest().is_none() {
            self.evict_small();
        } else {
            self.evict_main();
        }
    }

    fn evict_small(&mut self) {
        let Some(id) = self.small.pop(&mut self.items) else { return };
        let uses = &mut self.items.at(id).uses;
        if *uses >= self.uses_to_stay {
            *uses = 0;
            self.main.push(&mut self.items, id);
        } else {
            self.ghosts.push(&mut self.items, id);
            while self.ghosts.bytes() > self.limit_bytes - self.limit_bytes / SMALL_PART {
                self.ghosts.pop(&mut self.items);
            }
        }
    }

    fn evict_main(&mut self) {
        let Some(id) = self.main.pop(&mut self.items) else { return };
        let uses = &mut self.items.at(id).uses;
        if *uses > 0 {
            *uses -= 1;
            self.main.push(&mut self.items, id);
        }
    }
}

impl Policy for S3Fifo {
    fn contains(&self, id: u32) -> bool {
        matches!(self.items.get(id).place, Place::A | Place::B)
    }

    fn hit(&mut self, id: u32) {
        let uses = &mut self.items.at(id).uses;
        *uses = (*uses + 1).min(USES_MAX);
    }

    fn insert(&mut self, id: u32, bytes: u32) {
        let remembered = self.items.get(id).place == Place::C;
        if remembered {
            self.ghosts.remove(&mut self.items, id);
        }
        let item = self.items.at(id);
        (item.bytes, item.uses) = (bytes, 0);
        let queue = if remembered { &mut self.main } else { &mut self.small };
        queue.push(&mut self.items, id);
        while self.small.bytes() + self.main.bytes() > self.limit_bytes {
            self.evict();
        }
    }

    fn remove(&mut self, id: u32) {
        let queue = match self.items.get(id).place {
            Place::A => &mut self.small,
            _ => &mut self.main,
        };
        queue.remove(&mut self.items, id);
    }
}
