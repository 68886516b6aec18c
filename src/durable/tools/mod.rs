//! What an operator can do with a directory beside starting a daemon on it: verify it, write its
//! items as a stream of commands, put a damaged one in order, copy one that is in use.
//!
//! Owns the answers as values; opening the directory and printing are the caller's. Nothing here
//! changes a directory but `repair`, and `backup` the new one.

pub mod backup;
pub mod check;
pub mod dump;
pub mod repair;

use super::Recover;
use super::directory;
use super::disk::{Disk, Growth};
use super::recovery::Request;
use crate::store::Ticks;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Memory for each byte of the files: an item takes more room in a store than in a file, but never
/// this much more.
const MEMORY_PER_FILE_BYTE: u64 = 4;
const MEMORY_BYTES_MIN: u64 = 256 << 20;

/// How to recover everything there is, whatever memory the daemon was given.
fn request_for_all(disk: &dyn Disk, mode: Recover, now: Ticks) -> Request {
    let file_bytes = directory::bytes(disk);
    Request {
        shards: 1,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes_max: file_bytes.saturating_mul(MEMORY_PER_FILE_BYTE) + MEMORY_BYTES_MIN,
        evict: false,
        may_drop: true,
        mode,
        log_growth: Growth::AsWritten,
        now,
        stop: Arc::new(AtomicBool::new(false)),
        progress: Arc::new(|_, _| ()),
    }
}
