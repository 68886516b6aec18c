//! Which keys are asked for most, and which values are largest, from a sample of the operations.
//!
//! One operation in 64 is looked at. Counting is Space-Saving (Metwally, Agrawal, El Abbadi:
//! Efficient Computation of Frequent and Top-k Elements in Data Streams, ICDT 2005): a fixed number
//! of counters; a key without one takes over the smallest and its count, remembered as possible
//! error. So a key asked for often has a counter, and count less error is a lower bound. The
//! counters lie in sets by the key's hash, each a summary of its part of the keys: a sample looks
//! through one set instead of all.
//!
//! Counts halve every 30 seconds, so what is shown is the last minute or so. No clock, no I/O.

use super::Shard;
use crate::store::Ticks;

/// Of so many operations one is looked at, on average.
pub const OPERATIONS_PER_SAMPLE: u32 = 64;

/// Keys that a list shows.
pub const LISTED_MAX: usize = 20;

/// Counters: sets by the hash, and counters in each.
const SETS: usize = 16;
const SET_COUNTERS: usize = 8;

/// Counts halve as often.
const HALVING_SECONDS: u64 = 30;

/// Large values are forgotten when they were not met for so long.
const LARGE_SECONDS_MAX: u64 = 60;

/// A key met by chance alone is not hot.
const SAMPLES_MIN: u32 = 2;

const _: () = assert!(SETS.is_power_of_two() && LISTED_MAX < SETS * SET_COUNTERS);

/// A key with a counter.
#[derive(Debug, Default)]
struct Counter {
    hash: u64,
    count: u32,
    /// How much of it may be another key's.
    error: u32,
    /// Largest value met.
    value_bytes: usize,
    key: Vec<u8>,
}

/// A key with a large value.
#[derive(Debug)]
struct Large {
    hash: u64,
    value_bytes: usize,
    met_at: Ticks,
    key: Vec<u8>,
}

/// What the sample of a shard shows.
#[derive(Debug)]
pub struct Samples {
    counters: Box<[[Counter; SET_COUNTERS]; SETS]>,
    /// Operations looked at, halved with the counts.
    count: u32,
    /// When counts were halved last.
    halved_at: Option<Ticks>,
    /// Time before that, halved with the counts.
    ticks_before: u64,
    large: Vec<Large>,
    /// No smaller value gets into a full list.
    large_bytes_min: usize,
    /// What varies the distance of samples.
    state: u64,
}

/// A key that is asked for often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotKey {
    /// The key.
    pub key: Vec<u8>,
    /// Operations on it that were sampled, at least.
    pub samples: u32,
    /// Its largest value that was met.
    pub value_bytes: usize,
}

/// A shard's lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lists {
    /// Operations sampled.
    pub samples: u32,
    /// The time in which they were.
    pub ticks: u64,
    /// Keys asked for often, most often first.
    pub hot: Vec<HotKey>,
    /// Keys with large values, largest first.
    pub large: Vec<(Vec<u8>, usize)>,
}

impl Default for Samples {
    fn default() -> Self {
        Self {
            counters: Box::default(),
            count: 0,
            halved_at: None,
            ticks_before: 0,
            large: Vec::new(),
            large_bytes_min: 1,
            state: 0,
        }
    }
}

/// How far the next sample is: 32 to 96, 64 on average. The hash of what was sampled keeps it from
/// marching in step with clients that repeat themselves; the state from standing still while one
/// key is asked for.
pub fn distance(state: &mut u64, hash: u64) -> u32 {
    // An odd number with bits all over, from the golden ratio.
    *state = (state.rotate_left(23) ^ hash).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let bits = (*state >> 57) as u32;
    OPERATIONS_PER_SAMPLE / 2 + (bits & 63) + (bits >> 6)
}

impl Samples {
    /// Counts an operation on a key whose value has so many bytes now; `None`: there is no item.
    fn record(&mut self, hash: u64, key: &[u8], value_bytes: Option<usize>, now: Ticks) {
        self.halved_at.get_or_insert(now);
        self.count += 1;
        // Other bits than those that choose the shard.
        let set = &mut self.counters[(hash >> 24) as usize % SETS];
        let value_bytes = value_bytes.unwrap_or(0);
        let mut smallest = 0;
        for at in 0..SET_COUNTERS {
            if set[at].hash == hash && set[at].count > 0 {
                set[at].count += 1;
                set[at].value_bytes = set[at].value_bytes.max(value_bytes);
                return self.record_large(hash, key, value_bytes, now);
            }
            if set[at].count < set[smallest].count {
                smallest = at;
            }
        }
        let counter = &mut set[smallest];
        counter.key.clear();
        counter.key.extend_from_slice(key);
        (counter.hash, counter.value_bytes) = (hash, value_bytes);
        (counter.error, counter.count) = (counter.count, counter.count + 1);
        self.record_large(hash, key, value_bytes, now);
    }

    #[inline]
    fn record_large(&mut self, hash: u64, key: &[u8], value_bytes: usize, now: Ticks) {
        if value_bytes >= self.large_bytes_min {
            self.note_large(hash, key, value_bytes, now);
        }
    }

    fn note_large(&mut self, hash: u64, key: &[u8], value_bytes: usize, now: Ticks) {
        if let Some(known) = self.large.iter_mut().find(|large| large.hash == hash) {
            (known.value_bytes, known.met_at) = (value_bytes, now);
        } else {
            let large = Large { hash, value_bytes, met_at: now, key: key.to_vec() };
            let smallest = self.large.iter_mut().min_by_key(|large| large.value_bytes);
            match smallest.filter(|_| self.large_bytes_min > 1) {
                Some(smallest) => *smallest = large,
                None => self.large.push(large),
            }
        }
        self.note_large_min();
    }

    fn note_large_min(&mut self) {
        let smallest = self.large.iter().map(|large| large.value_bytes).min();
        self.large_bytes_min = match smallest {
            Some(smallest) if self.large.len() >= LISTED_MAX => smallest + 1,
            _ => 1,
        };
    }

    /// Halves counts when it is time to, and forgets large values that were not met lately.
    fn decay(&mut self, now: Ticks) {
        let Some(since) = self.halved_at else { return };
        if now < since.plus_seconds(HALVING_SECONDS) {
            return;
        }
        self.ticks_before = self.ticks(now) / 2;
        self.halved_at = Some(now);
        self.count /= 2;
        for counter in self.counters.iter_mut().flatten() {
            counter.count /= 2;
            counter.error /= 2;
        }
        self.large.retain(|large| now < large.met_at.plus_seconds(LARGE_SECONDS_MAX));
        self.note_large_min();
    }

    fn ticks(&self, now: Ticks) -> u64 {
        let since = self.halved_at.unwrap_or(now);
        self.ticks_before + now.0.saturating_sub(since.0)
    }

    /// What is known now.
    pub fn lists(&self, now: Ticks) -> Lists {
        let counters = self.counters.iter().flatten();
        let hot = counters.map(|counter| HotKey {
            key: counter.key.clone(),
            samples: counter.count.saturating_sub(counter.error),
            value_bytes: counter.value_bytes,
        });
        let mut hot: Vec<HotKey> = hot.filter(|key| key.samples >= SAMPLES_MIN).collect();
        hot.sort_by(|a, b| b.samples.cmp(&a.samples).then_with(|| a.key.cmp(&b.key)));
        hot.truncate(LISTED_MAX);
        let large = self.large.iter().map(|large| (large.key.clone(), large.value_bytes));
        let mut large: Vec<_> = large.collect();
        large.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        Lists { samples: self.count, ticks: self.ticks(now), hot, large }
    }
}

impl Shard {
    /// Looks at an operation that was executed just now.
    #[cold]
    pub(super) fn sample(&mut self, hash: u64, key: &[u8], now: Ticks) {
        let found = self.store.find(hash, key, now).ok();
        let value_bytes = found.map(|handle| self.store.flags_and_value(handle).1.len());
        let samples = &mut self.samples;
        samples.record(hash, key, value_bytes, now);
        self.until_sample = distance(&mut samples.state, hash);
    }

    /// Keys that are asked for often, and keys with large values.
    pub fn lists(&self, now: Ticks) -> Lists {
        self.samples.lists(now)
    }

    pub(super) fn decay_samples(&mut self, now: Ticks) {
        self.samples.decay(now);
    }
}
