//! Micro-benchmarks of the index and the store, each on a store far larger than the processor's
//! caches, with keys in random order: what is measured is mostly waiting for memory, as in a
//! server. Owns the filling and the order of keys; no sockets, no protocol.

use std::cell::RefCell;
use std::time::Duration;

use bench::population::Population;
use bench::random::Random;
use distcache::store::budget::Budget;
use distcache::store::hash::KeyHasher;
use distcache::store::index::{Index, Slot};
use distcache::store::{Attributes, Settings, Store, Ticks, Value};
use divan::Bencher;

fn main() {
    // Many short samples: one operation is shorter than the clock's precision and mostly a wait
    // for memory, which differs from key to key.
    let divan = divan::Divan::default().sample_count(200).sample_size(500);
    divan.max_time(Duration::from_secs(2)).config_with_args().main();
}

const ITEMS: u64 = 1_000_000;
const MIB: u64 = 1 << 20;
const NOW: Ticks = Ticks::from_seconds(1_700_000_000);

/// A store and the keys it was filled with.
struct Rig {
    store: Store,
    hasher: KeyHasher,
    population: Population,
    random: Random,
    key: Vec<u8>,
    value: Vec<u8>,
    next_new: u64,
    now: Ticks,
}

impl Rig {
    fn new(memory_mib: u64, value_bytes: &str) -> Self {
        let sizes = "24".parse().and_then(|key| Ok((key, value_bytes.parse()?)));
        let (key_sizes, value_sizes) = sizes.expect("sizes as they are written here");
        let hasher = KeyHasher::new([1, 2]);
        let store = Store::new(Settings {
            budget: Budget::new(memory_mib * MIB, 1),
            evict: true,
            hasher: hasher.clone(),
            sequence_start: 1,
        });
        let population = Population::new(u64::from(u32::MAX), key_sizes, value_sizes);
        Self {
            store,
            hasher,
            population: population.expect("the sizes fit"),
            random: Random::new(1),
            key: Vec::new(),
            value: Vec::new(),
            next_new: 0,
            now: NOW,
        }
    }

    fn filled(memory_mib: u64, value_bytes: &str) -> RefCell<Self> {
        let mut rig = Self::new(memory_mib, value_bytes);
        (0..ITEMS).for_each(|_| rig.put_new(None));
        RefCell::new(rig)
    }

    fn use_key(&mut self, id: u64) -> u64 {
        self.key.clear();
        self.population.push_key(id, &mut self.key);
        self.hasher.hash(&self.key)
    }

    fn some_id(&mut self) -> u64 {
        self.random.below(self.next_new)
    }

    fn put(&mut self, id: u64, seconds: Option<u64>) {
        let hash = self.use_key(id);
        self.value.clear();
        self.population.push_value(id, &mut self.value);
        let deadline = seconds.map(|seconds| self.now.plus_seconds(seconds));
        let attributes = Attributes { deadline, ..Attributes::default() };
        let old = self.store.find(hash, &self.key, self.now).ok();
        let value = Value::Parts([&self.value, &[]]);
        let put = self.store.put(hash, old, &self.key, attributes, value, self.now);
        put.expect("a store that evicts has room");
    }

    fn put_new(&mut self, seconds: Option<u64>) {
        self.put(self.next_new, seconds);
        self.next_new += 1;
    }

    fn fetch(&mut self, id: u64) -> usize {
        let hash = self.use_key(id);
        self.store.fetch(hash, &self.key, self.now).map_or(0, |fetched| fetched.value.len())
    }
}

/// Making a key and hashing it: a part of all figures of the store below.
#[divan::bench]
fn key_and_hash(bencher: Bencher<'_, '_>) {
    let rig = RefCell::new(Rig { next_new: ITEMS, ..Rig::new(64, "32") });
    bencher.bench_local(|| {
        let mut rig = rig.borrow_mut();
        let id = rig.some_id();
        rig.use_key(id)
    });
}

#[divan::bench]
fn store_find_hit(bencher: Bencher<'_, '_>) {
    let rig = Rig::filled(256, "32");
    bencher.bench_local(|| {
        let mut rig = rig.borrow_mut();
        let id = rig.some_id();
        rig.fetch(id)
    });
}

#[divan::bench]
fn store_find_miss(bencher: Bencher<'_, '_>) {
    let rig = Rig::filled(256, "32");
    bencher.bench_local(|| {
        let mut rig = rig.borrow_mut();
        let id = rig.some_id() + 2 * ITEMS;
        rig.fetch(id)
    });
}

/// Keys that are not there, far below the limit; the index grows.
#[divan::bench]
fn store_put_new(bencher: Bencher<'_, '_>) {
    let rig = RefCell::new(Rig::new(4096, "32"));
    bencher.bench_local(|| rig.borrow_mut().put_new(None));
}

/// Keys that are there, below the limit at first, then with compaction.
#[divan::bench]
fn store_put_over(bencher: Bencher<'_, '_>) {
    let rig = Rig::filled(256, "32");
    bencher.bench_local(|| {
        let mut rig = rig.borrow_mut();
        let id = rig.some_id();
        rig.put(id, None);
    });
}

/// New keys into a full store: every segment written is one evicted.
#[divan::bench(args = ["32", "230", "1024"])]
fn store_put_evicting(bencher: Bencher<'_, '_>, value_bytes: &str) {
    let rig = Rig::filled(64, value_bytes);
    while rig.borrow().store.counters().evictions == 0 {
        rig.borrow_mut().put_new(None);
    }
    bencher.bench_local(|| rig.borrow_mut().put_new(None));
}

/// A call of `maintain` that finds nothing due: what an idle store costs, ten times a second.
#[divan::bench]
fn maintain_idle(bencher: Bencher<'_, '_>) {
    let rig = Rig::filled(256, "32");
    bencher.bench_local(|| {
        let mut rig = rig.borrow_mut();
        let (now, segments) = (rig.now, rig.store.segment_count_max().div_ceil(40));
        rig.store.maintain(now, segments)
    });
}

/// A sweep over 100,000 items of which half have expired; time for all of them.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn sweep_half_expired(bencher: Bencher<'_, '_>) {
    let filled = || {
        let mut rig = Rig::new(64, "32");
        (0..100_000).for_each(|id| rig.put_new((id % 2 == 0).then_some(1)));
        rig
    };
    bencher.with_inputs(filled).bench_local_values(|mut rig| {
        let later = rig.now.plus_seconds(10);
        while rig.store.maintain(later, 1_000) {}
        assert_eq!(rig.store.counters().reclaimed, 50_000);
        rig
    });
}

/// The index alone, filled with random hashes.
fn filled_index() -> (Index, Random) {
    let mut index = Index::new(256 * MIB);
    let mut random = Random::new(1);
    for location in 1..=ITEMS {
        let hash = random.bits();
        assert!(index.insert(hash, Slot::new(hash, location, 0)).dropped.is_none());
    }
    (index, Random::new(1))
}

#[divan::bench]
fn index_find_hit(bencher: Bencher<'_, '_>) {
    let (index, mut random) = filled_index();
    let hashes: Vec<u64> = (0..ITEMS).map(|_| random.bits()).collect();
    bencher.bench_local(|| {
        let at = random.below(ITEMS) as usize;
        index.find(hashes[at], |location| location == at as u64 + 1).is_some()
    });
}

#[divan::bench]
fn index_find_miss(bencher: Bencher<'_, '_>) {
    let (index, _) = filled_index();
    let mut random = Random::new(2);
    let none = divan::black_box(0);
    bencher.bench_local(|| index.find(random.bits(), |location| location == none).is_some());
}

#[divan::bench]
fn index_insert(bencher: Bencher<'_, '_>) {
    let mut index = Index::new(4096 * MIB);
    let mut random = Random::new(3);
    bencher.bench_local(|| {
        let hash = random.bits();
        index.insert(hash, Slot::new(hash, 1, 0)).dropped.is_none()
    });
}
