//! What an operator can do with a directory that no daemon uses: verify it, write its items as a
//! stream of commands, and put a damaged one in order.
//!
//! Owns the answers as values; opening the directory and printing are the caller's. Nothing here
//! changes a directory but `repair`.

pub mod check;
pub mod dump;
pub mod repair;

use super::disk::{Disk, Growth};
use super::recovery::{Request, data_names, read_manifest};
use super::{Error, Recover};
use crate::store::Ticks;

/// Memory for each byte of the files: an item takes more room in a store than in a file, but never
/// this much more.
const MEMORY_PER_FILE_BYTE: u64 = 4;
const MEMORY_BYTES_MIN: u64 = 256 << 20;

/// How to recover everything there is, whatever memory the daemon was given: in the shards it was
/// written in, with room for all.
fn request_for_all(disk: &dyn Disk, mode: Recover, now: Ticks) -> Result<Request, Error> {
    let mut file_bytes = 0;
    for name in data_names(disk)? {
        let bytes = disk.open(&name).and_then(|file| file.len());
        file_bytes += bytes.map_err(|why| Error::io(&name, "cannot be read", why))?;
    }
    let manifest = match read_manifest(disk) {
        Err(why) if mode != Recover::Salvage || !why.is_damage() => return Err(why),
        other => other.ok().flatten(),
    };
    let shards = manifest.and_then(|manifest| manifest.runs.last().map(|run| run.shards));
    Ok(Request {
        shards: shards.unwrap_or(1).max(1),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes_max: file_bytes.saturating_mul(MEMORY_PER_FILE_BYTE) + MEMORY_BYTES_MIN,
        evict: false,
        mode,
        log_growth: Growth::AsWritten,
        now,
    })
}
