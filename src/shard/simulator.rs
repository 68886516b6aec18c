//! What the hit ratio would be with more or less memory: caches in miniature, one for each size, to
//! which the operations on a sample of the keys are played (Waldspurger, Saemundsson, Ahmad, Park:
//! "Cache Modeling and Optimization using Miniature Simulations", ATC 2017).
//!
//! ```text
//! a get of a sampled key:    each cache that has it counts a hit; one that has not takes the item,
//!                            if the server has it; if nobody has it, a set will follow
//! a set:                     each cache stores it; but where the key was missed by the server and
//!                            was there in the cache, that cache had no need of the set
//! too many keys or events:   the threshold falls; keys above it leave, caches shrink with it
//!
//! estimate(size) = hits of the server's gets + (hits at that size - hits at its own size) / gets
//! ```
//!
//! The difference of two simulations on the same keys is what is estimated, and the gets by which
//! it is divided are those of all keys, which are counted: a key that is asked for all the time is
//! a hit at every size, whether the sample has it or not.
//!
//! How large the items of a sample are is chance, and how much of the memory a server has for items
//! depends on what is done to them. So all caches are made a little larger or smaller, in small
//! steps, until the one of the server's own size has as many hits as the server has, on the same
//! keys.
//!
//! Counts halve every hour, so what is shown is the last hour or two. Owns the caches and the
//! counts; no clock, no I/O, no lock.

use super::sizing::{ALL_KEYS, Asked, Change, Event, Handed, THRESHOLD_MIN, is_sampled};
use crate::store::Ticks;
use crate::store::miniature::{Keeper, Miniature, Moment, NODE_BYTES, Sample};
use fxhash::FxHashMap;

/// The sizes, as parts of the memory limit, in hundredths.
pub const SIZES_PERCENT: [u64; SIZES] = [50, 100, 200, 400];

/// How many there are, and which of them is the server's.
pub const SIZES: usize = 4;
const OWN: usize = 1;
const HALF: usize = 0;
const TWICE: usize = 2;

/// Keys that are known at a time, in all caches together.
pub const KEYS_MAX: usize = 32 << 10;

/// Events that are looked at in a second, on average: with what they cost in the shards, less than
/// a hundredth of a core (docs/OBSERVABILITY.md).
pub const EVENTS_PER_SECOND_MAX: u32 = 10_000;

/// What is left of the threshold when there is too much, in quarters.
const LOWER_QUARTERS: u32 = 3;

/// The part of the limit that items take in a full server: where the search begins, and how far it
/// goes. The rest are dead bytes, ends of segments, ghosts and the index's room to grow.
const FILL: f64 = 0.98;
const FILL_RANGE: std::ops::RangeInclusive<f64> = 0.8..=1.25;

/// Gets of sampled keys after which it is looked at again.
const GETS_PER_FITTING: f64 = 4_000.0;

/// The most that one step changes, and the part of what is wrong that it is meant to set right.
const FITTING_STEP_MAX: f64 = 0.02;
const FITTING_SHARE: f64 = 0.25;

/// Hits for each doubling of the memory, as a part of the gets, below which they tell nothing.
const SLOPE_MIN: f64 = 0.005;

/// Times are counted in tenths of a second from the start: enough for thirteen years.
const TICKS_PER_MOMENT: u64 = Ticks::PER_SECOND / 10;

/// Counts halve as often.
const HALVING_SECONDS: u64 = 3_600;

/// Expired items leave within so many seconds, as with the server's sweep.
const SWEEP_SECONDS: u64 = 4;

/// Memory of all caches: what is known of a key by itself, how it is found, and in each of them.
pub const MEMORY_BYTES_MAX: usize =
    KEYS_MAX * (SIZES * NODE_BYTES + size_of::<Key>() + 2 * size_of::<(u64, u32)>() + 8);

const _: () = assert!(SIZES_PERCENT[OWN] == 100 && SIZES < u8::BITS as usize);
const _: () = assert!(
    KEYS_MAX.is_power_of_two() && MEMORY_BYTES_MAX <= 5 << 20,
    "bounded, and little beside any limit"
);

/// What is known of a key beside what the caches know.
#[derive(Debug, Clone, Copy)]
struct Key {
    hash: u64,
    /// How long it lives when it is stored; [`Moment::NEVER`]: for ever, or it was never seen.
    lifetime: Moment,
    /// The caches that had it when the server missed it: the set that follows is not for them.
    spared: u8,
    /// The number is in use.
    used: bool,
}

/// Counts of one window. What the sample shows is scaled up to all keys.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    gets: f64,
    hits: f64,
    sampled_gets: f64,
    /// The server's hits, of sampled keys, scaled up.
    sampled_hits: f64,
    simulated_hits: [f64; SIZES],
    ticks: f64,
}

impl Counts {
    fn halve(&mut self) {
        let Self { gets, hits, sampled_gets, sampled_hits, simulated_hits, ticks } = self;
        for count in [gets, hits, sampled_gets, sampled_hits, ticks] {
            *count /= 2.0;
        }
        simulated_hits.iter_mut().for_each(|hits| *hits /= 2.0);
    }
}

/// One size.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Size {
    /// The part of the memory limit, in hundredths.
    pub percent: u64,
    /// The part of the gets and touches that would be hits, 0 to 1.
    pub hit_ratio: f64,
    /// How full the cache of this size is, 0 to 1. While it is not, its hit ratio can still rise.
    pub filled: f64,
}

impl Size {
    /// The part of the memory limit, as a factor: 0.5, 1, 2 or 4.
    pub fn times(&self) -> f64 {
        self.percent as f64 / 100.0
    }
}

/// What is known of all sizes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Estimate {
    /// Smallest first.
    pub sizes: [Size; SIZES],
    /// How much higher the hit ratio of sampled keys is in the simulation of the server's own size
    /// than it was: what is wrong with the model, of which the estimates take off that for their
    /// own size.
    pub model_error: f64,
    /// The part of all keys that is sampled, 0 to 1.
    pub sampling_rate: f64,
    /// Keys that some cache holds.
    pub sampled_keys: u64,
    /// Gets and touches of sampled keys in the window.
    pub sampled_gets: u64,
    /// Time that the counts cover.
    pub window_seconds: u64,
}

/// See the module's text.
#[derive(Debug)]
pub struct Simulator {
    threshold: u32,
    limit_bytes: u64,
    /// By the hash, which is keyed with a secret: no client chooses it.
    ids: FxHashMap<u64, u32>,
    keys: Vec<Key>,
    free: Vec<u32>,
    caches: [Miniature; SIZES],
    /// Items that have left a cache.
    left: Vec<u32>,
    counts: Counts,
    /// Counts since the caches were fitted last.
    fitting: Counts,
    /// The part of the limit that items are taken to have.
    fill: f64,
    /// When moments begin.
    start: Option<Ticks>,
    halved_at: Option<Ticks>,
    /// When the present second began, and events since.
    second: (Ticks, u32),
    swept_at: Ticks,
    sweep_next: u32,
}

impl Default for Simulator {
    fn default() -> Self {
        Self {
            threshold: ALL_KEYS,
            limit_bytes: 0,
            ids: FxHashMap::default(),
            keys: Vec::new(),
            free: Vec::new(),
            caches: Default::default(),
            left: Vec::new(),
            counts: Counts::default(),
            fitting: Counts::default(),
            fill: FILL,
            start: None,
            halved_at: None,
            second: (Ticks::default(), 0),
            swept_at: Ticks::default(),
            sweep_next: 0,
        }
    }
}

impl Simulator {
    /// Keys below this are sampled.
    pub fn threshold(&self) -> u32 {
        self.threshold
    }

    /// Sets all counts to 0. What the caches hold stays.
    pub fn reset_counters(&mut self) {
        (self.counts, self.halved_at) = (Counts::default(), None);
    }

    /// Time goes on; the server's memory limit is this by now.
    pub fn begin(&mut self, now: Ticks, limit_bytes: u64) {
        self.start.get_or_insert(now);
        let since = *self.halved_at.get_or_insert(now);
        if now >= since.plus_seconds(HALVING_SECONDS) {
            self.counts.ticks += now.0.saturating_sub(since.0) as f64;
            self.counts.halve();
            self.halved_at = Some(now);
        }
        if limit_bytes != self.limit_bytes {
            self.limit_bytes = limit_bytes;
            self.scale();
        }
        self.sweep(now);
    }

    /// Plays what a shard noted.
    pub fn apply(&mut self, handed: &Handed, events: &[Event]) {
        if handed.threshold < self.threshold {
            self.lower(handed.threshold);
        }
        self.counts.gets += handed.gets as f64;
        self.counts.hits += handed.hits as f64;
        for event in events {
            if event.change == Change::Flush {
                self.clear();
            } else if is_sampled(event.hash, self.threshold) {
                self.play(event);
                self.bound(event.at);
            }
        }
        if self.fitting.sampled_gets >= GETS_PER_FITTING {
            self.fit();
        }
    }

    /// What is known by now.
    pub fn estimate(&self, now: Ticks) -> Estimate {
        let counts = &self.counts;
        let ratio = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let own = counts.simulated_hits[OWN];
        let size = |at: usize| {
            let hits = counts.hits + counts.simulated_hits[at] - own;
            let cache = &self.caches[at];
            let filled = ratio(cache.used_bytes() as f64, cache.capacity_bytes() as f64);
            Size {
                percent: SIZES_PERCENT[at],
                hit_ratio: ratio(hits, counts.gets).clamp(0.0, 1.0),
                filled: filled.min(1.0),
            }
        };
        let since = self.halved_at.map_or(0, |since| now.0.saturating_sub(since.0));
        Estimate {
            sizes: std::array::from_fn(size),
            model_error: ratio(own - counts.sampled_hits, counts.gets),
            sampling_rate: self.rate(),
            sampled_keys: self.ids.len() as u64,
            sampled_gets: counts.sampled_gets as u64,
            window_seconds: (counts.ticks as u64 + since) / Ticks::PER_SECOND,
        }
    }

    fn rate(&self) -> f64 {
        f64::from(self.threshold) / f64::from(ALL_KEYS)
    }

    /// The caches have the sampled part of their sizes.
    fn scale(&mut self) {
        for (cache, percent) in self.caches.iter_mut().zip(SIZES_PERCENT) {
            let bytes = self.limit_bytes as f64 * percent as f64 / 100.0 * self.fill;
            cache.set_capacity((bytes * f64::from(self.threshold) / f64::from(ALL_KEYS)) as u64);
        }
    }

    /// Makes the caches larger if the server has more hits than the one of its size, and smaller if
    /// it has fewer: by what that takes where hits grow with the memory as they do between half and
    /// twice the size.
    fn fit(&mut self) {
        let Counts { sampled_hits, simulated_hits, .. } = std::mem::take(&mut self.fitting);
        let slope = (simulated_hits[TWICE] - simulated_hits[HALF]) / 2.0;
        let own = &self.caches[OWN];
        // Below its capacity a cache would be no better for being larger.
        let is_full = own.used_bytes() as f64 > own.capacity_bytes() as f64 * 0.95;
        if !is_full || slope < SLOPE_MIN * GETS_PER_FITTING {
            return;
        }
        let missing = (sampled_hits - simulated_hits[OWN]) / slope * FITTING_SHARE;
        let step = missing.clamp(-FITTING_STEP_MAX, FITTING_STEP_MAX);
        self.fill = (self.fill * (1.0 + step)).clamp(*FILL_RANGE.start(), *FILL_RANGE.end());
        self.scale();
    }

    fn moment(&self, at: Ticks) -> Moment {
        let start = self.start.unwrap_or(at);
        let moment = at.0.saturating_sub(start.0).div_ceil(TICKS_PER_MOMENT);
        u32::try_from(moment).map_or(Moment::NEVER, Moment)
    }

    fn play(&mut self, event: &Event) {
        let id = self.ids.get(&event.hash).copied();
        let id = match id {
            Some(id) => id,
            // The item is there, or nothing is known of the key and nothing becomes known.
            None if event.bytes > 0 => self.add(event.hash),
            None if event.asked == Asked::No => return,
            None => return self.count(event, [false; SIZES]),
        };
        match event.asked {
            Asked::No => {}
            Asked::Hit => self.hit(id, event),
            Asked::Miss => self.miss(id, event),
        }
        match event.change {
            Change::None | Change::Flush => {}
            Change::Put => self.put(id, event),
            Change::Remove => {
                self.keys[id as usize].spared = 0;
                self.caches.iter_mut().for_each(|cache| cache.remove(id));
            }
            Change::Touch => {
                self.learn_lifetime(id, event);
                let (now, deadline) = (self.moment(event.at), self.moment(event.deadline));
                self.caches.iter_mut().for_each(|cache| cache.touch(id, deadline, now));
            }
        }
        self.release_left();
        self.release(id);
    }

    /// The server had it. A cache that has not would have missed it, and would have been given the
    /// item for its lifetime from then on.
    fn hit(&mut self, id: u32, event: &Event) {
        let now = self.moment(event.at);
        let deadline = match self.keys[id as usize].lifetime {
            Moment::NEVER => self.moment(event.deadline),
            Moment(lifetime) => Moment(now.0.saturating_add(lifetime)),
        };
        let sample = Sample { bytes: event.bytes, deadline };
        let mut hits = [true; SIZES];
        for (at, hit) in hits.iter_mut().enumerate() {
            *hit = self.caches[at].get(id, event.repeats.saturating_add(1), now);
            if !*hit {
                self.store(at, id, sample, now);
            }
        }
        self.count(event, hits);
    }

    /// The server had it not. The set that will follow is for those that have it not either.
    fn miss(&mut self, id: u32, event: &Event) {
        let now = self.moment(event.at);
        let mut hits = [false; SIZES];
        for (at, cache) in self.caches.iter_mut().enumerate() {
            hits[at] = cache.get(id, event.repeats.saturating_add(1), now);
            self.keys[id as usize].spared |= u8::from(hits[at]) << at;
        }
        self.count(event, hits);
    }

    /// Counts gets of one key, the first of which was a hit in these caches. Those that follow are
    /// hits where the first has brought the item.
    fn count(&mut self, event: &Event, hits: [bool; SIZES]) {
        let (first, later) = (f64::from(event.asked != Asked::No), f64::from(event.repeats));
        let was_hit = event.asked == Asked::Hit;
        let weight = 1.0 / self.rate();
        for (counts, weight) in [(&mut self.counts, weight), (&mut self.fitting, 1.0)] {
            counts.sampled_gets += first + later;
            counts.sampled_hits += if was_hit { (first + later) * weight } else { 0.0 };
            for (count, hit) in counts.simulated_hits.iter_mut().zip(hits) {
                *count += if hit { first * weight } else { 0.0 };
                *count += if hit || was_hit { later * weight } else { 0.0 };
            }
        }
    }

    fn put(&mut self, id: u32, event: &Event) {
        self.learn_lifetime(id, event);
        let spared = std::mem::take(&mut self.keys[id as usize].spared);
        let sample = Sample { bytes: event.bytes, deadline: self.moment(event.deadline) };
        for at in 0..SIZES {
            // A lifetime may have ended since the miss: then the set came in time.
            if spared & 1 << at == 0 || !self.caches[at].holds(id) {
                self.store(at, id, sample, self.moment(event.at));
            }
        }
    }

    fn store(&mut self, cache: usize, id: u32, sample: Sample, now: Moment) {
        let hash_of = |id: u32| self.keys[id as usize].hash;
        let mut keeper = Keeper { hash_of, left: &mut self.left };
        self.caches[cache].put(id, sample, now, &mut keeper);
    }

    fn learn_lifetime(&mut self, id: u32, event: &Event) {
        let (now, deadline) = (self.moment(event.at), self.moment(event.deadline));
        self.keys[id as usize].lifetime = match deadline {
            Moment::NEVER => Moment::NEVER,
            Moment(deadline) => Moment(deadline.saturating_sub(now.0)),
        };
    }

    fn add(&mut self, hash: u64) -> u32 {
        let key = Key { hash, lifetime: Moment::NEVER, spared: 0, used: true };
        let id = match self.free.pop() {
            Some(id) => {
                self.keys[id as usize] = key;
                id
            }
            None => {
                self.keys.push(key);
                (self.keys.len() - 1) as u32
            }
        };
        self.ids.insert(hash, id);
        id
    }

    fn release_left(&mut self) {
        while let Some(id) = self.left.pop() {
            self.release(id);
        }
    }

    /// A number that no cache holds any more is free.
    fn release(&mut self, id: u32) {
        let key = self.keys[id as usize];
        if key.used && !self.caches.iter().any(|cache| cache.holds(id)) {
            self.keys[id as usize].used = false;
            self.ids.remove(&key.hash);
            self.free.push(id);
        }
    }

    /// Keeps to the bounds of memory and time.
    fn bound(&mut self, now: Ticks) {
        let (began, events) = &mut self.second;
        if now >= began.plus_seconds(1) {
            (*began, *events) = (now, 0);
        }
        *events += 1;
        if *events > EVENTS_PER_SECOND_MAX || self.ids.len() >= KEYS_MAX {
            *events = 0;
            self.lower(self.threshold / 4 * LOWER_QUARTERS);
        }
    }

    /// Keys at or above the threshold leave.
    fn lower(&mut self, threshold: u32) {
        self.threshold = threshold.max(THRESHOLD_MIN);
        let (threshold, caches) = (self.threshold, &mut self.caches);
        for id in 0..self.keys.len() as u32 {
            let key = &mut self.keys[id as usize];
            if key.used && !is_sampled(key.hash, threshold) {
                key.used = false;
                self.ids.remove(&key.hash);
                self.free.push(id);
                caches.iter_mut().for_each(|cache| cache.remove(id));
            }
        }
        self.scale();
    }

    /// Removes expired items that nobody asks for, a part of them each time.
    fn sweep(&mut self, now: Ticks) {
        let round = SWEEP_SECONDS * Ticks::PER_SECOND;
        let passed = now.0.saturating_sub(self.swept_at.0).min(round);
        let count = self.keys.len() as u64 * passed / round;
        if count == 0 {
            return;
        }
        self.swept_at = now;
        let now = self.moment(now);
        for _ in 0..count {
            self.sweep_next = (self.sweep_next + 1) % self.keys.len() as u32;
            let id = self.sweep_next;
            self.caches.iter_mut().for_each(|cache| cache.expire(id, now));
            self.release(id);
        }
    }

    fn clear(&mut self) {
        self.ids.clear();
        self.keys.clear();
        self.free.clear();
        self.caches.iter_mut().for_each(Miniature::clear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Ticks = Ticks::from_seconds(1_000_000);

    fn event(key: u64, asked: Asked, change: Change, bytes: u32) -> Event {
        let hash = (key + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Event { hash, at: NOW, bytes, repeats: 0, deadline: Ticks::NEVER, asked, change }
    }

    fn handed(gets: u64, hits: u64) -> Handed {
        Handed { threshold: ALL_KEYS, gets, hits }
    }

    fn simulator(limit_bytes: u64) -> Simulator {
        let mut simulator = Simulator::default();
        simulator.begin(NOW, limit_bytes);
        simulator
    }

    /// The number of a key, and which caches have it.
    fn held(simulator: &Simulator, key: u64) -> [bool; SIZES] {
        let hash = event(key, Asked::No, Change::None, 0).hash;
        let id = simulator.ids.get(&hash).copied();
        simulator.caches.each_ref().map(|cache| id.is_some_and(|id| cache.holds(id)))
    }

    #[test]
    fn nothing_is_known_of_nothing() {
        let estimate = simulator(1 << 20).estimate(NOW);
        assert_eq!(estimate.sizes.map(|size| size.hit_ratio), [0.0; SIZES]);
        assert_eq!((estimate.sampled_gets, estimate.sampling_rate), (0, 1.0));
    }

    #[test]
    fn each_size_has_its_hits() {
        let mut simulator = simulator(10_000);
        // A working set of 15,000 bytes, round and round: the server holds none of it.
        let (mut gets, keys) = (0, 150);
        for _ in 0..20 {
            for key in 0..keys {
                let miss = event(key, Asked::Miss, Change::None, 0);
                simulator.apply(&handed(1, 0), &[miss, event(key, Asked::No, Change::Put, 100)]);
                gets += 1;
            }
        }
        let [half, own, twice, four] = simulator.estimate(NOW).sizes.map(|size| size.hit_ratio);
        let all_but_first = 1.0 - keys as f64 / gets as f64;
        assert!((twice - four).abs() < 1e-9 && half <= own && own < four);
        // The difference to the server's own size, which has some that the server has not.
        let own_hits = simulator.counts.simulated_hits[OWN] / gets as f64;
        assert!((four - (all_but_first - own_hits)).abs() < 1e-9, "{four} {own_hits}");
    }

    #[test]
    fn a_cache_that_has_the_key_needs_no_set_after_the_server_s_miss() {
        let mut simulator = simulator(1 << 20);
        let put = |seconds| Event {
            deadline: NOW.plus_seconds(seconds),
            ..event(1, Asked::No, Change::Put, 100)
        };
        simulator.apply(&handed(0, 0), &[put(10)]);
        let miss = event(1, Asked::Miss, Change::None, 0);
        simulator.apply(&handed(1, 0), &[miss, put(1_000)]);
        assert_eq!(held(&simulator, 1), [true; SIZES]);
        // It lives as long as it would have, had nothing been stored.
        let later = NOW.plus_seconds(20);
        simulator.swept_at = Ticks::default();
        simulator.begin(later, 1 << 20);
        assert_eq!(held(&simulator, 1), [false; SIZES]);
    }

    #[test]
    fn what_the_server_has_and_a_cache_has_not_lives_anew() {
        let mut simulator = simulator(1_000);
        let deadline = NOW.plus_seconds(100);
        let put = Event { deadline, ..event(1, Asked::No, Change::Put, 400) };
        simulator.apply(&handed(0, 0), &[put]);
        assert_eq!(held(&simulator, 1), [false, true, true, true], "too large for the smallest");
        for key in 2..20 {
            simulator.apply(&handed(0, 0), &[event(key, Asked::No, Change::Put, 200)]);
        }
        assert_eq!(held(&simulator, 1), [false; SIZES]);
        // Half of its lifetime later, when nothing is known of it any more: as the server has it.
        let at = NOW.plus_seconds(50);
        let hit = Event { at, deadline, ..event(1, Asked::Hit, Change::None, 400) };
        simulator.apply(&handed(1, 1), &[hit]);
        assert_eq!(held(&simulator, 1)[OWN..], [true; SIZES - 1]);
        assert!(simulator.estimate(at).sizes[OWN].hit_ratio > 0.99);
    }

    #[test]
    fn a_flush_empties_the_caches_and_a_reset_only_the_counts() {
        let mut simulator = simulator(1 << 20);
        let put = event(1, Asked::No, Change::Put, 100);
        simulator.apply(&handed(1, 1), &[put, event(1, Asked::Hit, Change::None, 100)]);
        simulator.reset_counters();
        assert_eq!(simulator.estimate(NOW).sampled_gets, 0);
        assert_eq!(held(&simulator, 1), [true; SIZES]);
        simulator.apply(&handed(0, 0), &[event(0, Asked::No, Change::Flush, 0)]);
        assert_eq!(held(&simulator, 1), [false; SIZES]);
        assert_eq!(simulator.estimate(NOW).sampled_keys, 0);
    }

    #[test]
    fn keys_and_events_are_bounded() {
        let mut simulator = simulator(1 << 40);
        for key in 0..3 * KEYS_MAX as u64 {
            let at = NOW.plus_seconds(key / 1_000);
            let put = Event { at, ..event(key, Asked::No, Change::Put, 100) };
            simulator.apply(&handed(0, 0), &[put]);
            assert!(simulator.ids.len() <= KEYS_MAX && simulator.keys.len() <= KEYS_MAX);
        }
        let by_keys = simulator.threshold();
        assert!(by_keys < ALL_KEYS / 2 && by_keys > ALL_KEYS / 8, "{by_keys}");
        // All within one second.
        let at = NOW.plus_seconds(1_000);
        for key in 0..100_000 {
            let put = Event { at, ..event(key % 1_000, Asked::No, Change::Put, 100) };
            simulator.apply(&handed(0, 0), &[put]);
        }
        assert!(simulator.threshold() < by_keys);
    }

    #[test]
    fn caches_grow_until_they_do_as_well_as_the_server() {
        let mut simulator = simulator(100_000);
        // Of 1,300 keys of 100 bytes the server has all: it has more room for items than was taken
        // for granted.
        for round in 0..200 {
            for key in 0..1_100 {
                let hit = event(key, Asked::Hit, Change::None, 100);
                simulator.apply(&handed(1, 1), &[hit]);
            }
            if round == 100 {
                simulator.reset_counters();
            }
        }
        assert!(simulator.fill > 1.05, "{}", simulator.fill);
        let error = simulator.estimate(NOW).model_error;
        assert!(error.abs() < 0.01, "{error}");
    }

    proptest! {
        #[test]
        fn numbers_are_given_out_once_and_back(
            steps in proptest::collection::vec((0..60_u64, 0..7_u8, 1..2_000_u32), 1..500),
        ) {
            let mut simulator = simulator(20_000);
            let mut now = NOW;
            for (key, kind, number) in steps {
                let mut event = match kind {
                    0 => event(key, Asked::Hit, Change::None, number),
                    1 => event(key, Asked::Miss, Change::None, 0),
                    2 => event(key, Asked::Hit, Change::Touch, number),
                    3 => event(key, Asked::No, Change::Remove, 0),
                    _ => event(key, Asked::No, Change::Put, number),
                };
                now.0 += 10;
                event.at = now;
                if number % 3 == 0 {
                    event.deadline = now.plus_seconds(u64::from(number % 50));
                }
                simulator.begin(now, 20_000);
                let threshold = if kind == 6 && number < 20 { ALL_KEYS / 3 } else { ALL_KEYS };
                simulator.apply(&Handed { threshold, gets: 1, hits: 0 }, &[event]);
                let used = simulator.keys.iter().filter(|key| key.used).count();
                prop_assert_eq!(used, simulator.ids.len());
                prop_assert_eq!(used + simulator.free.len(), simulator.keys.len());
                for (hash, id) in &simulator.ids {
                    prop_assert_eq!(simulator.keys[*id as usize].hash, *hash);
                    prop_assert!(simulator.caches.iter().any(|cache| cache.holds(*id)));
                    prop_assert!(is_sampled(*hash, simulator.threshold));
                }
                for id in &simulator.free {
                    prop_assert!(simulator.caches.iter().all(|cache| !cache.holds(*id)));
                }
            }
        }
    }
}
