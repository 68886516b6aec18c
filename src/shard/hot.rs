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
use super::operation::{Operation, Verb};
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
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    *state = (state.rotate_left(23) ^ hash).wrapping_mul(ODD).wrapping_add(ODD);
    let bits = (*state >> 57) as u32;
    OPERATIONS_PER_SAMPLE / 2 + (bits & 63) + (bits >> 6)
}

/// Where the key's counter is, by other bits than those that choose the shard.
fn set_of(hash: u64) -> usize {
    (hash >> 24) as usize % SETS
}

impl Samples {
    /// Counts an operation on a key. Answers the size of its value, if it had a counter; 0: not
    /// known.
    fn count(&mut self, hash: u64, key: &[u8], now: Ticks) -> Option<usize> {
        self.halved_at.get_or_insert(now);
        self.count += 1;
        let set = &mut self.counters[set_of(hash)];
        let mut smallest = 0;
        for at in 0..SET_COUNTERS {
            if set[at].hash == hash {
                set[at].count += 1;
                return Some(set[at].value_bytes);
            }
            if set[at].count < set[smallest].count {
                smallest = at;
            }
        }
        let counter = &mut set[smallest];
        counter.key.clear();
        counter.key.extend_from_slice(key);
        (counter.hash, counter.value_bytes) = (hash, 0);
        (counter.error, counter.count) = (counter.count, counter.count + 1);
        None
    }

    /// The value of a key that was counted has so many bytes.
    fn note_value(&mut self, hash: u64, key: &[u8], value_bytes: usize, now: Ticks) {
        let set = &mut self.counters[set_of(hash)];
        if let Some(counter) = set.iter_mut().find(|counter| counter.hash == hash) {
            counter.value_bytes = counter.value_bytes.max(value_bytes);
        }
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
    /// Looks at an operation that is about to be executed.
    #[cold]
    pub(super) fn sample(&mut self, operation: &Operation<'_>, now: Ticks) {
        let Operation { key, hash, verb, .. } = operation;
        self.until_sample = distance(&mut self.samples.state, *hash);
        let mut value_bytes = match verb {
            Verb::Store(_, data) | Verb::MetaStore(_, _, data) => data.len(),
            _ => 0,
        };
        let known_bytes = self.samples.count(*hash, key, now);
        // Looking a value up costs more than all the rest.
        if value_bytes == 0 && (known_bytes == Some(0) || self.samples.state.is_multiple_of(4)) {
            value_bytes = self.value_bytes(*hash, key, now);
        }
        if value_bytes > 0 {
            self.samples.note_value(*hash, key, value_bytes, now);
        }
    }

    fn value_bytes(&mut self, hash: u64, key: &[u8], now: Ticks) -> usize {
        self.find(hash, key, now).map_or(0, |handle| self.store.flags_and_value(handle).1.len())
    }

    /// Keys that are asked for often, and keys with large values.
    pub fn lists(&self, now: Ticks) -> Lists {
        self.samples.lists(now)
    }

    pub(super) fn decay_samples(&mut self, now: Ticks) {
        self.samples.decay(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Ticks {
        Ticks::from_seconds(1_000_000 + seconds)
    }

    #[test]
    fn distances_vary_around_the_mean() {
        for spread in [0, 1, u64::MAX] {
            let mut state = 0;
            let mut seen = std::collections::BTreeSet::new();
            let mut sum = 0;
            for number in 0..10_000_u64 {
                let distance = distance(&mut state, number.wrapping_mul(spread));
                assert!((32..=96).contains(&distance), "{distance}");
                seen.insert(distance);
                sum += distance;
            }
            assert!((620_000..660_000).contains(&sum), "{sum} with hashes apart by {spread}");
            assert!(seen.len() > 60, "{} distances", seen.len());
        }
    }

    #[test]
    fn keys_counted_are_a_lower_bound_and_the_frequent_ones_are_there() {
        let mut samples = Samples::default();
        let hash = |key: u64| (key + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        // Ten keys get a third, ten thousand the rest.
        for number in 0..30_000_u64 {
            let key = if number % 3 == 0 { number / 3 % 10 } else { 1_000 + number % 10_000 };
            samples.count(hash(key), &key.to_be_bytes(), at(0));
        }
        let lists = samples.lists(at(1));
        assert_eq!(lists.samples, 30_000);
        for found in &lists.hot[..10] {
            let key = u64::from_be_bytes(found.key[..].try_into().unwrap());
            assert!(key < 10, "{lists:?}");
            assert!((900..=1_000).contains(&found.samples), "{found:?}");
        }
    }

    #[test]
    fn counts_fade_and_large_values_are_forgotten() {
        let mut samples = Samples::default();
        for _ in 0..100 {
            samples.count(7, b"k", at(0));
        }
        samples.note_value(7, b"k", 9, at(0));
        for (seconds, count, large) in [(29, 100, 1), (30, 50, 1), (59, 50, 1), (60, 25, 0)] {
            samples.decay(at(seconds));
            let lists = samples.lists(at(seconds));
            assert_eq!((lists.hot[0].samples, lists.samples), (count, count), "{seconds} s");
            assert_eq!(lists.large.len(), large, "{seconds} s");
        }
        // 100 in 30 s, then nothing for 30 s: a rate that has halved.
        let lists = samples.lists(at(60));
        assert_eq!(lists.ticks, (30 / 2 + 30) / 2 * Ticks::PER_SECOND + Ticks::PER_SECOND / 2);
    }

    #[test]
    fn the_largest_values_stay() {
        let mut samples = Samples::default();
        for key in 0..1_000_u64 {
            samples.note_value(key, &key.to_be_bytes(), 1 + (key * 7 % 1_000) as usize, at(0));
        }
        let large = samples.lists(at(0)).large;
        let sizes: Vec<usize> = large.iter().map(|(_, bytes)| *bytes).collect();
        assert_eq!(sizes, (981..=1_000).rev().collect::<Vec<_>>());
        // A key has one place, with the size it has now.
        let (key, _) = &large[0];
        samples.note_value(u64::from_be_bytes(key[..].try_into().unwrap()), key, 2_000, at(0));
        let again = samples.lists(at(0)).large;
        assert_eq!((again[0].1, again[1].1, again.len()), (2_000, 999, LISTED_MAX));
    }
}
