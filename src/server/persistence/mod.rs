//! Data on disk, as far as it takes threads: what the server has `crate::durable` do, and when.
//!
//! | file | what it holds |
//! |---|---|
//! | `start` | recovering the data, and the threads that keep it |
//! | `commit` | how workers have the log written, and whom that wakes |
//! | `snapshotter` | the thread that takes snapshots |
//! | `status` | what all threads know of it |

pub mod commit;
pub mod snapshotter;
pub mod start;
pub mod status;
