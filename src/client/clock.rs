//! The client's one reader of time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Now, for waiting and measuring.
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Seconds since 1970.
pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
