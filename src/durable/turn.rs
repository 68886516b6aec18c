//! One at a time, without waiting: who finds somebody at work leaves the rest to them.
//!
//! ```text
//! to get something done:                    to be done with it:
//!   leave it where the worker looks           let go
//!   take the turn, or go away                 look once more: take the turn again if there is more
//! ```
//!
//! **Invariant:** nothing is left lying that was left there before a failed try to take the turn:
//! who has it then lets go later, and looks after that. Both sides write before they read, so all
//! of it is in one order (`SeqCst`). The parent names the atomics, so that
//! `models/src/commit_turn.rs` can compile this file against a model checker's.

use super::atomic::{AtomicBool, Ordering};

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Turn(AtomicBool);

impl Turn {
    /// Does `work` for as long as `is_wanted`, unless somebody else is at it.
    pub(super) fn run(&self, is_wanted: impl Fn() -> bool, mut work: impl FnMut() -> bool) {
        while is_wanted() {
            if self.0.swap(true, Ordering::SeqCst) {
                return;
            }
            let goes_on = work();
            self.0.swap(false, Ordering::SeqCst);
            if !goes_on {
                return;
            }
        }
    }
}
