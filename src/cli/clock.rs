//! The tool's one reader of time.

use std::time::Instant;

/// Now, for waiting and for rates.
pub(crate) fn now() -> Instant {
    Instant::now()
}
