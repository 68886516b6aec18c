//! The Unix side of `system`.
//!
//! Owns what a process may ask of itself; files and sockets are in files of their own.

mod files;
mod sockets;

pub use files::*;
pub use sockets::*;

use super::CpuTimes;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

/// What this process has used; `None` if the system does not say.
pub fn cpu_times() -> Option<CpuTimes> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let duration = |time: TimeVal| {
        let seconds = Duration::from_secs(u64::try_from(time.tv_sec()).unwrap_or(0));
        seconds + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap_or(0))
    };
    Some(CpuTimes { user: duration(usage.user_time()), system: duration(usage.system_time()) })
}

/// What makes a file this process's own, as a command for a shell.
pub fn how_to_own(path: &str) -> String {
    format!("chown -R {} {path}", rustix::process::geteuid().as_raw())
}

/// Lets others have the processor first. On Linux this is about the calling thread alone.
///
/// # Errors
/// Those of the system.
pub fn lower_priority(niceness: i32) -> io::Result<()> {
    rustix::process::nice(niceness).map(drop).map_err(io::Error::from)
}

/// A word of a command line; any bytes are one.
pub fn os_string(bytes: Vec<u8>) -> OsString {
    OsString::from_vec(bytes)
}
