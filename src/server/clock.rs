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
        let unix = self.started_unix + self.started.elapsed();
        let hundredths = u64::from(unix.subsec_millis()) * Ticks::PER_SECOND / 1000;
        Ticks(unix.as_secs() * Ticks::PER_SECOND + hundredths)
    }

    /// Seconds since the start.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
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
