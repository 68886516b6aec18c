//! How long calls take, as a histogram. Owns its buckets; reads no clock.
//!
//! Log-linear: single microseconds up to 16, then 16 buckets for every doubling, so that what is
//! read off is at most a sixteenth too high. Made of counters that are added to and nothing else:
//! 3 KiB a server. (The crate hdrhistogram has no counters that threads can share without a lock or
//! a second copy.)

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets for a doubling, as a power of two.
const STEP_BITS: u32 = 4;
const STEPS: usize = 1 << STEP_BITS;

/// The longest time told apart, in microseconds: about two minutes.
const MICROS_MAX: u64 = (1 << 27) - 1;

const BUCKETS: usize = bucket(MICROS_MAX) + 1;

const fn bucket(micros: u64) -> usize {
    if micros < STEPS as u64 {
        return micros as usize;
    }
    let doublings = micros.ilog2() - STEP_BITS;
    let step = (micros >> doublings) as usize - STEPS;
    STEPS + doublings as usize * STEPS + step
}

/// The longest time in a bucket, in microseconds.
const fn last_of(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let (doublings, step) = (bucket / STEPS - 1, bucket % STEPS);
    (((STEPS + step + 1) as u64) << doublings) - 1
}

/// The histogram of a server as calls fill it.
pub(super) struct LiveLatencies {
    counts: [AtomicU64; BUCKETS],
    micros: AtomicU64,
}

impl fmt::Debug for LiveLatencies {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("LiveLatencies")
    }
}

impl Default for LiveLatencies {
    fn default() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; BUCKETS], micros: AtomicU64::new(0) }
    }
}

impl LiveLatencies {
    pub(super) fn add(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).min(MICROS_MAX);
        self.counts[bucket(micros)].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Latencies {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        Latencies { counts, micros: self.micros.load(Ordering::Relaxed) }
    }
}

/// How long a server took to answer, as the client's calls saw it: from the beginning of a call to
/// the last byte of its answer, connecting included if that was needed. Calls that failed are not
/// in it. A call about many keys counts once for each server.
///
/// ```
/// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
/// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
/// client.set("n", 7)?;
/// for (node, latencies) in client.latencies() {
///     let (half, most) = (latencies.percentile(50.0), latencies.percentile(99.9));
///     println!("{node}: {} calls, {half:?}, {most:?}", latencies.count());
///     assert!(latencies.count() == 1 && half == most);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Latencies {
    counts: Vec<u64>,
    micros: u64,
}

impl fmt::Debug for Latencies {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99] = [50.0, 99.0].map(|percent| self.percentile(percent));
        let mut out = out.debug_struct("Latencies");
        out.field("count", &self.count()).field("p50", &p50).field("p99", &p99).finish()
    }
}

impl Latencies {
    /// Calls since the client was made.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All their time together, to a microsecond each.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.micros)
    }

    /// The time within which so many per cent of the calls were answered, at most a sixteenth too
    /// long; zero without calls.
    pub fn percentile(&self, percent: f64) -> Duration {
        let wanted = (self.count() as f64 * percent.clamp(0.0, 100.0) / 100.0).ceil().max(1.0);
        let mut below = 0;
        let found = self.counts.iter().position(|count| {
            below += count;
            below as f64 >= wanted
        });
        Duration::from_micros(found.map_or(0, last_of))
    }

    /// The longest time of each bucket, and the calls in it; buckets without calls are left out.
    /// What a histogram of another kind is filled with.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        let filled = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.map(|(bucket, count)| (Duration::from_micros(last_of(bucket)), *count))
    }

    /// What was added since an earlier reading of the same server.
    ///
    /// ```
    /// # let server = distcache::server::Server::bind("127.0.0.1:0")?;
    /// # let client = distcache::client::Client::connect([server.addresses()[0].to_string()])?;
    /// client.set("n", 7)?;
    /// let before = client.latencies().remove(0).1;
    /// client.set("n", 8)?;
    /// assert_eq!(client.latencies()[0].1.since(&before).count(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let counts = self.counts.iter().zip(&earlier.counts);
        Self {
            counts: counts.map(|(now, then)| now.saturating_sub(*then)).collect(),
            micros: self.micros.saturating_sub(earlier.micros),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_time_has_its_bucket() {
        let mut next = 0;
        for bucket_at in 0..BUCKETS {
            let last = last_of(bucket_at);
            assert_eq!((bucket(next), bucket(last)), (bucket_at, bucket_at), "{next} to {last}");
            assert!(last - next <= next / 16, "{next} to {last}");
            next = last + 1;
        }
        assert_eq!(next, MICROS_MAX + 1);
    }

    proptest! {
        /// Against all times, sorted.
        #[test]
        fn percentiles_are_at_most_a_sixteenth_too_long(
            micros in prop::collection::vec(0..200_000_000u64, 1..200),
            percent in 0.0..100.0f64,
        ) {
            let live = LiveLatencies::default();
            micros.iter().for_each(|micros| live.add(Duration::from_micros(*micros)));
            let mut sorted: Vec<u64> = micros.iter().map(|one| *one.min(&MICROS_MAX)).collect();
            sorted.sort_unstable();
            let rank = (sorted.len() as f64 * percent / 100.0).ceil().max(1.0) as usize;
            let exact = sorted[rank - 1];
            let latencies = live.read();
            let told = latencies.percentile(percent).as_micros() as u64;
            prop_assert!(exact <= told && told - exact <= exact / 16, "{exact}, {told}");
            prop_assert_eq!(latencies.count(), micros.len() as u64);
            prop_assert_eq!(latencies.sum().as_micros() as u64, sorted.iter().sum::<u64>());
            let buckets: u64 = latencies.buckets().map(|(_, count)| count).sum();
            prop_assert_eq!(buckets, micros.len() as u64);
        }
    }

    #[test]
    fn nothing_yet() {
        let none = LiveLatencies::default().read();
        assert_eq!((none.count(), none.percentile(99.0)), (0, Duration::ZERO));
        assert_eq!(none.since(&none), none);
    }
}
