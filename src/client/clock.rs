//! The client's one reader of time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Now, for waiting and measuring.
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Now, for people and servers.
pub(super) fn system() -> SystemTime {
    SystemTime::now()
}

/// Seconds since 1970.
pub(super) fn unix_seconds() -> u64 {
    system().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
