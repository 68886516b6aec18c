//! A store in miniature: which items a store of another size would hold, by the rules of this one,
//! item by item and without the items. For simulations (see `shard::simulator`).
//!
//! Owns two queues of numbers and what is known of each numbered item: its bytes, deadline and
//! frequency. Holds neither keys nor values, reads no clock, and knows nothing of segments: dead
//! bytes and unused ends are the caller's part of the capacity.
//!
//! ```text
//! put:    same bytes as before -> stays where it is, one access more
//!         else                 -> to the end of the small queue
//!         while more is used than may be: look at the oldest item of the small queue if that has
//!             a tenth, else of the main queue
//!                 worth keeping (`RetentionPolicy`) -> to the end of the main queue
//!                 else                              -> it leaves; from the small queue as a ghost
//! ```

use super::ghosts::Ghosts;
use super::index::FREQUENCY_MAX;
use super::reclaim::{Candidate, RETURNED_FREQUENCY, RetentionPolicy, SMALL_SHARE, chance_of};

/// So many items may be kept, one after the other, before the next one leaves whatever it is worth:
/// a put takes bounded time.
const KEPT_MAX: usize = 64;

/// An item above one part in so many of the capacity is not taken, as by the store.
const LARGEST_SHARE: u64 = 2;

/// No item.
const NONE: u32 = u32::MAX;

/// Where an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Absent,
    Small,
    Main,
}

/// A point in time, in whatever steps the caller counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u32);

impl Moment {
    /// Later than any time.
    pub const NEVER: Self = Self(u32::MAX);
}

#[derive(Debug, Clone, Copy)]
struct Node {
    deadline: Moment,
    bytes: u32,
    /// Neighbours in the queue.
    older: u32,
    newer: u32,
    frequency: u8,
    place: Place,
}

/// Memory of an item that is known here.
pub const NODE_BYTES: usize = size_of::<Node>();

const NOBODY: Node = Node {
    deadline: Moment::NEVER,
    bytes: 0,
    older: NONE,
    newer: NONE,
    frequency: 0,
    place: Place::Absent,
};

#[derive(Debug, Clone, Copy)]
struct Queue {
    oldest: u32,
    newest: u32,
    bytes: u64,
}

const EMPTY: Queue = Queue { oldest: NONE, newest: NONE, bytes: 0 };

/// What is stored of an item.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// What it takes, the index included.
    pub bytes: u32,
    /// When it stops existing; [`Moment::NEVER`]: never.
    pub deadline: Moment,
}

/// What the caller does for a put.
pub struct Keeper<'a, F: Fn(u32) -> u64> {
    /// The hash of an item's key.
    pub hash_of: F,
    /// Items that had to leave are appended to this.
    pub left: &'a mut Vec<u32>,
}

/// See the module's text. Items have small numbers, which the caller gives.
#[derive(Debug, Default)]
pub struct Miniature {
    capacity_bytes: u64,
    nodes: Vec<Node>,
    queues: Queues,
    items: u64,
    ghosts: Ghosts,
    /// Items that were looked at to make room.
    rounds: u64,
}

#[derive(Debug)]
struct Queues {
    small: Queue,
    main: Queue,
}

impl Default for Queues {
    fn default() -> Self {
        Self { small: EMPTY, main: EMPTY }
    }
}

impl Miniature {
    /// Sets how much all items may take. What is too much leaves with the next put.
    pub fn set_capacity(&mut self, bytes: u64) {
        self.capacity_bytes = bytes;
    }

    /// What all items take.
    pub fn used_bytes(&self) -> u64 {
        self.queues.small.bytes + self.queues.main.bytes
    }

    /// What they may take.
    pub fn capacity_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    /// Whether the item is there, expired ones that nobody has met included.
    pub fn holds(&self, id: u32) -> bool {
        self.node(id).place != Place::Absent
    }

    /// Asks for an item `times` times. An expired one leaves.
    pub fn get(&mut self, id: u32, times: u32, now: Moment) -> bool {
        if !self.is_alive(id, now) {
            return false;
        }
        let node = &mut self.nodes[id as usize];
        let frequency = u32::from(node.frequency).saturating_add(times);
        node.frequency = frequency.min(u32::from(FREQUENCY_MAX)) as u8;
        true
    }

    /// Stores an item.
    pub fn put<F: Fn(u32) -> u64>(
        &mut self,
        id: u32,
        sample: Sample,
        now: Moment,
        keeper: &mut Keeper<'_, F>,
    ) {
        let known = self.is_alive(id, now).then(|| self.node(id));
        if u64::from(sample.bytes) > self.capacity_bytes / LARGEST_SHARE {
            return self.remove(id);
        }
        let frequency = match known {
            Some(node) => (node.frequency + 1).min(FREQUENCY_MAX),
            None if self.ghosts.take(scattered((keeper.hash_of)(id))) => RETURNED_FREQUENCY,
            None => 0,
        };
        let Sample { bytes, deadline } = sample;
        if let Some(node) = known.filter(|node| node.bytes == bytes) {
            self.nodes[id as usize] = Node { frequency, deadline, ..node };
            return;
        }
        self.remove(id);
        if self.nodes.len() <= id as usize {
            // By doubling, so that as much is taken as is counted.
            self.nodes.resize((id as usize + 1).next_power_of_two(), NOBODY);
        }
        self.nodes[id as usize] = Node { deadline, bytes, frequency, ..NOBODY };
        self.append(id, Place::Small);
        self.make_room(now, keeper);
    }

    /// Gives an item another deadline, if it is there.
    pub fn touch(&mut self, id: u32, deadline: Moment, now: Moment) {
        if self.is_alive(id, now) {
            self.nodes[id as usize].deadline = deadline;
        }
    }

    /// Removes an item, if it is there.
    pub fn remove(&mut self, id: u32) {
        if self.holds(id) {
            self.unlink(id);
        }
    }

    /// Removes an item whose time is over.
    pub fn expire(&mut self, id: u32, now: Moment) {
        self.is_alive(id, now);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self { capacity_bytes: self.capacity_bytes, ..Self::default() };
    }

    fn node(&self, id: u32) -> Node {
        self.nodes.get(id as usize).copied().unwrap_or(NOBODY)
    }

    fn is_alive(&mut self, id: u32, now: Moment) -> bool {
        let node = self.node(id);
        let expired = node.place != Place::Absent && node.deadline <= now;
        if expired {
            self.unlink(id);
        }
        node.place != Place::Absent && !expired
    }

    /// Until no more is used than may be.
    fn make_room<F: Fn(u32) -> u64>(&mut self, now: Moment, keeper: &mut Keeper<'_, F>) {
        let mut kept = 0;
        while self.used_bytes() > self.capacity_bytes {
            let worth = RetentionPolicy::of_mean(self.used_bytes() / self.items.max(1));
            let Queues { small, main } = self.queues;
            let from_small = small.bytes > self.capacity_bytes / SMALL_SHARE || main.oldest == NONE;
            let id = if from_small { small.oldest } else { main.oldest };
            let node = self.node(id);
            self.unlink(id);
            let Node { frequency, bytes, .. } = node;
            let hash = (keeper.hash_of)(id);
            self.rounds += 1;
            let chance = chance_of(hash, self.rounds);
            let candidate = Candidate { frequency, bytes: u64::from(bytes), chance };
            let stays =
                if from_small { worth.in_small(candidate) } else { worth.in_main(candidate) };
            match stays.filter(|_| node.deadline > now && kept < KEPT_MAX) {
                Some(frequency) => {
                    kept += 1;
                    self.nodes[id as usize] = Node { frequency, ..node };
                    self.append(id, Place::Main);
                }
                None => {
                    kept = 0;
                    keeper.left.push(id);
                    if from_small && node.deadline > now {
                        self.remember(hash, bytes);
                    }
                }
            }
        }
    }

    fn remember(&mut self, hash: u64, bytes: u32) {
        // As many as there are items, as the store.
        let items = self.items as usize + 1;
        if items > self.ghosts.capacity() * 2 {
            self.ghosts.resize(items);
        }
        self.ghosts.free_some(1);
        self.ghosts.remember(scattered(hash), bytes as usize);
    }

    fn queue_of(&mut self, place: Place) -> Option<&mut Queue> {
        match place {
            Place::Absent => None,
            Place::Small => Some(&mut self.queues.small),
            Place::Main => Some(&mut self.queues.main),
        }
    }

    /// Puts an item that is in no queue at the end of one.
    fn append(&mut self, id: u32, place: Place) {
        let bytes = u64::from(self.node(id).bytes);
        let Some(queue) = self.queue_of(place) else { return };
        let older = std::mem::replace(&mut queue.newest, id);
        queue.bytes += bytes;
        if older == NONE {
            queue.oldest = id;
        }
        if let Some(node) = self.nodes.get_mut(older as usize) {
            node.newer = id;
        }
        let node = &mut self.nodes[id as usize];
        (node.place, node.older, node.newer) = (place, older, NONE);
        self.items += 1;
    }

    /// Takes an item out of its queue.
    fn unlink(&mut self, id: u32) {
        let Node { place, older, newer, bytes, .. } = self.node(id);
        let Some(queue) = self.queue_of(place) else { return };
        queue.bytes -= u64::from(bytes);
        if older == NONE {
            queue.oldest = newer;
        }
        if newer == NONE {
            queue.newest = older;
        }
        if let Some(node) = self.nodes.get_mut(older as usize) {
            node.newer = newer;
        }
        if let Some(node) = self.nodes.get_mut(newer as usize) {
            node.older = older;
        }
        let node = &mut self.nodes[id as usize];
        (node.place, node.older, node.newer) = (Place::Absent, NONE, NONE);
        self.items -= 1;
    }
}

/// Keys in a sample share some bits of their hashes; ghosts find their places by other ones.
fn scattered(hash: u64) -> u64 {
    // An odd number with bits all over, from the golden ratio.
    hash.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, VecDeque};

    fn hash_of(id: u32) -> u64 {
        u64::from(id + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    /// The same rules with lists that are searched.
    #[derive(Default)]
    struct Naive {
        capacity_bytes: u64,
        items: BTreeMap<u32, (Sample, u8)>,
        small: VecDeque<u32>,
        main: VecDeque<u32>,
        ghosts: Ghosts,
        rounds: u64,
    }

    impl Naive {
        fn bytes(&self, queue: &VecDeque<u32>) -> u64 {
            queue.iter().map(|id| u64::from(self.items[id].0.bytes)).sum()
        }

        fn remove(&mut self, id: u32) {
            self.items.remove(&id);
            self.small.retain(|other| *other != id);
            self.main.retain(|other| *other != id);
        }

        fn get(&mut self, id: u32, times: u32, now: Moment) -> bool {
            if self.items.get(&id).is_some_and(|(sample, _)| sample.deadline <= now) {
                self.remove(id);
            }
            let Some((_, frequency)) = self.items.get_mut(&id) else { return false };
            *frequency = (u32::from(*frequency) + times).min(u32::from(FREQUENCY_MAX)) as u8;
            true
        }

        fn put(&mut self, id: u32, sample: Sample, now: Moment) {
            let known = self.get(id, 1, now).then(|| self.items[&id]);
            if u64::from(sample.bytes) > self.capacity_bytes / LARGEST_SHARE {
                return self.remove(id);
            }
            let returned = known.is_none() && self.ghosts.take(scattered(hash_of(id)));
            let frequency = known.map_or(u8::from(returned), |(_, frequency)| frequency);
            if known.is_some_and(|(known, _)| known.bytes == sample.bytes) {
                self.items.insert(id, (sample, frequency));
                return;
            }
            self.remove(id);
            self.small.push_back(id);
            self.items.insert(id, (sample, frequency));
            let mut kept = 0;
            while self.bytes(&self.small) + self.bytes(&self.main) > self.capacity_bytes {
                let all_bytes = self.bytes(&self.small) + self.bytes(&self.main);
                let worth = RetentionPolicy::of_mean(all_bytes / self.items.len() as u64);
                let from_small =
                    self.bytes(&self.small) > self.capacity_bytes / 10 || self.main.is_empty();
                let queue = if from_small { &mut self.small } else { &mut self.main };
                let id = queue.pop_front().unwrap();
                let (sample, frequency) = self.items[&id];
                let (hash, Sample { bytes, deadline }) = (hash_of(id), sample);
                self.rounds += 1;
                let chance = chance_of(hash, self.rounds);
                let candidate = Candidate { frequency, bytes: u64::from(bytes), chance };
                let stays =
                    if from_small { worth.in_small(candidate) } else { worth.in_main(candidate) };
                match stays {
                    Some(frequency) if deadline > now && kept < KEPT_MAX => {
                        kept += 1;
                        self.main.push_back(id);
                        self.items.insert(id, (sample, frequency));
                    }
                    _ => {
                        kept = 0;
                        self.items.remove(&id);
                        if from_small && deadline > now {
                            if self.items.len() + 1 > self.ghosts.capacity() * 2 {
                                self.ghosts.resize(self.items.len() + 1);
                            }
                            self.ghosts.remember(scattered(hash), bytes as usize);
                        }
                    }
                }
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Call {
        Get(u32, u32),
        Put(u32, u32, u32),
        Touch(u32, u32),
        Remove(u32),
        Capacity(u64),
        Wait(u32),
    }

    fn call() -> impl Strategy<Value = Call> {
        let id = 0..40_u32;
        prop_oneof![
            6 => (id.clone(), 1..4_u32).prop_map(|(id, times)| Call::Get(id, times)),
            6 => (id.clone(), 1..300_u32, 1..60_u32).prop_map(|(id, b, t)| Call::Put(id, b, t)),
            1 => (id.clone(), 1..60_u32).prop_map(|(id, ticks)| Call::Touch(id, ticks)),
            1 => id.prop_map(Call::Remove),
            1 => (100..2_000_u64).prop_map(Call::Capacity),
            1 => (1..20_u32).prop_map(Call::Wait),
        ]
    }

    proptest! {
        #[test]
        fn is_as_the_naive_model(calls in proptest::collection::vec(call(), 1..400)) {
            let (mut model, mut naive) = (Miniature::default(), Naive::default());
            let mut now = Moment(1);
            model.set_capacity(1_000);
            naive.capacity_bytes = 1_000;
            for call in calls {
                let mut left = Vec::new();
                match call {
                    Call::Get(id, times) => {
                        prop_assert_eq!(model.get(id, times, now), naive.get(id, times, now));
                    }
                    Call::Put(id, bytes, ticks) => {
                        let deadline = Moment(now.0 + ticks);
                        let sample = Sample { bytes, deadline };
                        let mut keeper = Keeper { hash_of, left: &mut left };
                        model.put(id, sample, now, &mut keeper);
                        naive.put(id, sample, now);
                    }
                    Call::Touch(id, ticks) => {
                        let deadline = Moment(now.0 + ticks);
                        if naive.get(id, 0, now) {
                            naive.items.get_mut(&id).unwrap().0.deadline = deadline;
                        }
                        model.touch(id, deadline, now);
                    }
                    Call::Remove(id) => {
                        model.remove(id);
                        naive.remove(id);
                    }
                    Call::Capacity(bytes) => {
                        model.set_capacity(bytes);
                        naive.capacity_bytes = bytes;
                    }
                    Call::Wait(ticks) => now.0 += ticks,
                }
                for id in left {
                    prop_assert!(!model.holds(id), "{} has left", id);
                }
                for id in 0..40 {
                    prop_assert_eq!(model.holds(id), naive.items.contains_key(&id), "item {}", id);
                }
                let bytes: u64 = naive.items.values().map(|(item, _)| u64::from(item.bytes)).sum();
                prop_assert_eq!(model.used_bytes(), bytes);
                prop_assert_eq!(model.items, naive.items.len() as u64);
            }
        }
    }

    #[test]
    fn what_is_asked_for_stays_and_what_is_asked_for_once_leaves() {
        let (mut model, mut left) = (Miniature::default(), Vec::new());
        model.set_capacity(100 * 100);
        for id in 0..2_000 {
            let sample = Sample { bytes: 100, deadline: Moment::NEVER };
            model.put(id, sample, Moment(1), &mut Keeper { hash_of, left: &mut left });
            for hot in 0..20.min(id) {
                assert!(model.get(hot, 1, Moment(1)), "item {hot} after {id}");
            }
        }
        assert_eq!(model.used_bytes(), 100 * 100);
        assert_eq!(left.len(), 1_900);
    }
}
