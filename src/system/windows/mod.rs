//! The Windows side of `system`, made of what the standard library has without `unsafe` code.
//!
//! Owns what a process may ask of itself, which is nothing; files and sockets are in files of their
//! own.

mod files;
mod sockets;

pub use files::*;
pub use sockets::*;

use super::CpuTimes;
use std::ffi::OsString;
use std::io;

/// The standard library does not say.
pub fn cpu_times() -> Option<CpuTimes> {
    None
}

/// What makes a file this process's own, as a command for a shell.
pub fn how_to_own(path: &str) -> String {
    format!("takeown /r /f {path}")
}

/// Threads keep their priority.
///
/// # Errors
/// Always.
pub fn lower_priority(_niceness: i32) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A word of a command line, from text; bytes that are none are replaced.
pub fn os_string(bytes: Vec<u8>) -> OsString {
    String::from_utf8_lossy(&bytes).into_owned().into()
}
