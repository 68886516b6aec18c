//! Greedy-Dual-Size-Frequency (Cherkasova, "Improving WWW Proxies Performance with
//! Greedy-Dual-Size-Frequency Caching Policy", HP Labs 1998): an item's priority is
//! `L + uses / bytes`, with `L` the priority of what was evicted last; the lowest goes.
//!
//! The heap is lazy: a hit raises the item's priority in its record only, and an entry found out of
//! date when it comes up is put back with the true one. Priorities of held items only rise, so what
//! comes up in date is the lowest.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use super::Policy;
use super::items::{Items, Place, Queue};

pub(super) struct Gdsf {
    limit_bytes: u64,
    items: Items,
    /// Only for counting bytes and knowing what is held.
    held: Queue,
    priorities: Vec<f64>,
    uses: Vec<u32>,
    heap: BinaryHeap<Reverse<Entry>>,
    floor: f64,
}

#[derive(Clone, Copy, PartialEq)]
struct Entry {
    priority: f64,
    id: u32,
}

impl Eq for Entry {}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        self.priority.total_cmp(&other.priority).then(self.id.cmp(&other.id))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Gdsf {
    pub(super) fn new(limit_bytes: u64) -> Self {
        Self {
            limit_bytes,
            items: Items::default(),
            held: Queue::new(Place::A),
            priorities: Vec::new(),
            uses: Vec::new(),
            heap: BinaryHeap::new(),
            floor: 0.0,
        }
    }

    fn rank(&mut self, id: u32) -> f64 {
        let bytes = f64::from(self.items.get(id).bytes);
        let priority = self.floor + f64::from(self.uses[id as usize]) / bytes;
        self.priorities[id as usize] = priority;
        priority
    }

    fn evict(&mut self) {
        while let Some(Reverse(entry)) = self.heap.pop() {
            if !self.contains(entry.id) {
                continue;
            }
            let priority = self.priorities[entry.id as usize];
            if entry.priority < priority {
                self.heap.push(Reverse(Entry { priority, ..entry }));
                continue;
            }
            self.floor = priority;
            self.held.remove(&mut self.items, entry.id);
            return;
        }
    }
}

impl Policy for Gdsf {
    fn contains(&self, id: u32) -> bool {
        self.items.get(id).place == Place::A
    }

    fn hit(&mut self, id: u32) {
        self.uses[id as usize] += 1;
        self.rank(id);
    }

    fn insert(&mut self, id: u32, bytes: u32) {
        let index = id as usize;
        if self.uses.len() <= index {
            self.uses.resize(index + 1, 0);
            self.priorities.resize(index + 1, 0.0);
        }
        self.items.at(id).bytes = bytes;
        self.uses[index] = 1;
        self.held.push(&mut self.items, id);
        let priority = self.rank(id);
        self.heap.push(Reverse(Entry { priority, id }));
        while self.held.bytes() > self.limit_bytes {
            self.evict();
        }
    }

    fn remove(&mut self, id: u32) {
        self.held.remove(&mut self.items, id);
    }
}
