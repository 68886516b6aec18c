//! The one place that reads time.

use crate::store::Ticks;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Wall-clock time that only moves forward: read once from the system at the start, then advanced
/// by the monotonic clock. A step of the system's clock expires nothing early and keeps nothing
/// late; absolute expiries are off by such a step until the next start.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    started: Instant,
    started_unix: Duration,
}

impl Clock {
    /// A clock that agrees with the system's now.
    pub fn start() -> Self {
        // Before 1970 there is no time to agree with: 0 is as good.
        let started_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), started_unix }
    }

    /// The time.
    pub fn now(&self) -> Ticks {
        self.read().0
    }

    /// The time, and the same moment for measuring: one reading of the clock.
    pub fn read(&self) -> (Ticks, Moment) {
        let elapsed = self.started.elapsed();
        let unix = self.started_unix + elapsed;
        let hundredths = u64::from(unix.subsec_millis()) * Ticks::PER_SECOND / 1000;
        let ticks = Ticks(unix.as_secs() * Ticks::PER_SECOND + hundredths);
        (ticks, Moment::after(elapsed))
    }

    /// The moment, for measuring.
    pub fn moment(&self) -> Moment {
        Moment::after(self.started.elapsed())
    }

    /// Seconds since the start.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Nanoseconds since a clock was started: finer than [`Ticks`], and smaller than an `Instant`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// Good for 584 years.
    fn after(elapsed: Duration) -> Self {
        Self(elapsed.as_secs() * 1_000_000_000 + u64::from(elapsed.subsec_nanos()))
    }

    /// From an earlier moment to this one, in microseconds, begun ones included.
    pub fn microseconds_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0).div_ceil(1_000)
    }
}

/// Measures how long something took or has to wait.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts measuring.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
