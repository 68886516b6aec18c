//! Counting replies. Owns the counts and the latency histogram; knows nothing of connections.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::Result;

const LATENCY_NS_MAX: u64 = 60_000_000_000;
const LATENCY_DIGITS: u8 = 3;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Commands answered; noreply commands count when the reply behind them is in.
    pub operations: u64,
    /// Keys asked for and found.
    pub hits: u64,
    /// Keys asked for and not found.
    pub misses: u64,
    /// Keys stored because they were missing.
    pub fills: u64,
    /// Bytes of the keys and values found.
    pub hit_bytes: u64,
    /// Bytes of the keys and values stored because they were missing.
    pub fill_bytes: u64,
    /// Values that are not their key's, and keys that were not asked for. Must be zero.
    pub wrong: u64,
    /// Replies that are errors or make no sense here.
    pub failures: u64,
    /// The first of them.
    pub first_failure: Option<String>,
    /// From the first command sent to the last reply read.
    pub elapsed: Duration,
    /// Nanoseconds per answered command.
    pub latency: Histogram<u64>,
}

impl Default for Outcome {
    fn default() -> Self {
        Self {
            operations: 0,
            hits: 0,
            misses: 0,
            fills: 0,
            hit_bytes: 0,
            fill_bytes: 0,
            wrong: 0,
            failures: 0,
            first_failure: None,
            elapsed: Duration::ZERO,
            latency: Histogram::new_with_bounds(1, LATENCY_NS_MAX, LATENCY_DIGITS)
                .expect("constant bounds are valid"),
        }
    }
}

impl Outcome {
    /// Adds what another thread did at the same time.
    pub(super) fn merge(&mut self, other: &Self) {
        self.operations += other.operations;
        self.hits += other.hits;
        self.misses += other.misses;
        self.fills += other.fills;
        self.hit_bytes += other.hit_bytes;
        self.fill_bytes += other.fill_bytes;
        self.wrong += other.wrong;
        self.failures += other.failures;
        self.first_failure = self.first_failure.take().or_else(|| other.first_failure.clone());
        self.elapsed = self.elapsed.max(other.elapsed);
        self.latency.add(&other.latency).expect("histograms have equal bounds");
    }

    /// `commands` were answered after `latency_ns`.
    #[inline]
    pub(super) fn answered(&mut self, commands: u64, latency_ns: u64) {
        self.operations += commands;
        self.latency.saturating_record_n(latency_ns, commands);
    }

    /// A key was found, with so many bytes.
    #[inline]
    pub(super) fn hit(&mut self, bytes: usize) {
        self.hits += 1;
        self.hit_bytes += bytes as u64;
    }

    pub(super) fn failed(&mut self, line: &[u8]) {
        self.failures += 1;
        self.first_failure.get_or_insert_with(|| String::from_utf8_lossy(line).into_owned());
    }

    /// An error unless every reply was right.
    pub fn check(&self) -> Result<()> {
        if self.wrong > 0 {
            return Err(format!("{} wrong values", self.wrong).into());
        }
        match &self.first_failure {
            Some(line) => Err(format!("{} failures, the first: {line}", self.failures).into()),
            None => Ok(()),
        }
    }

    /// Commands per second.
    pub fn per_second(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// Share of keys asked for that were found, 0 to 1.
    pub fn hit_ratio(&self) -> f64 {
        self.hits as f64 / (self.hits + self.misses).max(1) as f64
    }

    /// Share of the bytes asked for that were not found, 0 to 1. Only where what is missing is
    /// stored.
    pub fn byte_miss_ratio(&self) -> f64 {
        self.fill_bytes as f64 / (self.hit_bytes + self.fill_bytes).max(1) as f64
    }

    /// The latency that `percent` of the commands stayed within, in microseconds.
    pub fn latency_us(&self, percent: f64) -> f64 {
        self.latency.value_at_percentile(percent) as f64 / 1e3
    }
}
