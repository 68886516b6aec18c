//! What differs from one operating system to another, below the daemon: files, sockets, and what a
//! process may ask of itself.
//!
//! Owns the differences: nowhere above it, but for what is the whole process's (`daemon::os`), is
//! code for one system only. Both sides have the same names; where a system has no such thing,
//! the function says what it does instead. Never decides what is done with a file or a socket.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub use unix::*;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub use windows::*;

use std::time::Duration;

/// Processor time of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuTimes {
    /// In its own code.
    pub user: Duration,
    /// In the system's, for it.
    pub system: Duration,
}
