//! Workers: threads that serve connections and execute operations.
//!
//! | file | what it holds |
//! |---|---|
//! | `turn` | the loop: poll, receive, execute, commit, reply |
//! | `queues` | whose turn it is |
//! | `router` | what a session reaches: the shards, and commands without a key |
//! | `server_commands` | those commands |
//! | `broadcast` | what is asked of all workers for one connection |
//! | `shards`, `waiting` | holding a shard, and being called when it is free |
//! | `inbox`, `parking` | what a worker is told, and whether it sleeps |

pub mod broadcast;
pub mod inbox;
pub mod parking;
pub mod queues;
pub mod router;
mod server_commands;
pub mod shards;
pub mod turn;
pub mod waiting;

/// What `parking` and `waiting` are made of; the models put a model checker's in its place.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
}
