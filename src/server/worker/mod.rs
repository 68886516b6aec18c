//! Workers: threads that serve connections and execute operations.
//!
//! | file | what it holds |
//! |---|---|
//! | `turn` | the loop: poll, receive, execute, post, reply |
//! | `router` | what a session reaches: shard, other workers, commands without a key |
//! | `mail` | operations and replies between workers |
//! | `parking` | whether a worker sleeps |

pub mod mail;
pub mod parking;
pub mod router;
pub mod turn;

/// What `parking` is made of; the models put a model checker's in its place.
mod atomic {
    pub use std::sync::atomic::{AtomicBool, Ordering};
}
