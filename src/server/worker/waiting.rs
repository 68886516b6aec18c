//! Which workers wait for a shard that somebody holds.
//!
//! The parent names the atomics, so that `models/src/hand_over.rs` can compile this file against a
//! model checker's instead of the system's. Knows neither the shard nor how a worker is woken.
//!
//! ```text
//! who finds the shard held          who holds it
//!   join                              let go
//!   try once more                     call whoever has joined
//! ```
//!
//! Both sides change the same word, one after the other. If the call comes second, it sees who has
//! joined. If it comes first, whoever joins sees what happened before the call, and so that the
//! shard was let go: the second try succeeds, or somebody else holds it by then, who will call in
//! turn. A worker is never left waiting for a shard that is free.

use super::atomic::{AtomicU64, Ordering};

/// Workers so far apart share a bit.
pub(super) const WORKERS_APART: usize = u64::BITS as usize;

/// A set of workers; see the module's text. It lies beside the lock it belongs to, and is one word:
/// workers whose numbers are 64 apart are called together, which costs those that do not wait a
/// look at their connections.
#[derive(Debug, Default)]
pub(super) struct Waiting(AtomicU64);

impl Waiting {
    /// A worker has found the shard held. It must try once more after this.
    pub(super) fn join(&self, worker: usize) {
        self.0.fetch_or(1 << (worker % WORKERS_APART), Ordering::AcqRel);
    }

    /// The shard was let go: calls every worker that has joined since the last call.
    #[inline]
    pub(super) fn call(&self, mut wake: impl FnMut(usize)) {
        let mut joined = self.0.swap(0, Ordering::AcqRel);
        while joined != 0 {
            wake(joined.trailing_zeros() as usize);
            joined &= joined - 1;
        }
    }
}
