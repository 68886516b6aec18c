//! The flag that tells whether a worker sleeps.
//!
//! The parent names the atomics, so that `models/src/sleep.rs` can compile this file against a
//! model checker's instead of the system's. Knows neither the inbox nor the waker.

use super::atomic::{AtomicBool, Ordering};

/// Wakes a worker that waits for its sockets, if it does.
///
/// The receiver parks, looks at its inbox once more, and only then waits; the sender puts the
/// message in the inbox and then looks whether the receiver is parked. Whichever comes second sees
/// the other: a message is never left while its receiver sleeps. (`models/src/sleep.rs`.)
#[derive(Debug, Default)]
pub(crate) struct Parking(AtomicBool);

impl Parking {
    /// The receiver is about to wait. It must look at its inbox after this.
    pub(crate) fn park(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// The receiver is awake.
    pub(crate) fn unpark(&self) {
        self.0.store(false, Ordering::SeqCst);
    }

    /// A message was sent. Answers whether its sender has to wake the receiver.
    pub(crate) fn must_wake(&self) -> bool {
        self.0.load(Ordering::SeqCst) && self.0.swap(false, Ordering::SeqCst)
    }
}
