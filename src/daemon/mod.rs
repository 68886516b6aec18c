//! The process around a server: flags, signals, privileges, the log, and the operator's tools.
//!
//! | room | what it holds |
//! |---|---|
//! | `run` | the order of start and stop |
//! | `background` | `-d`, and its outcome for who waits |
//! | `os` | limits, identity, pid file, exit codes |
//! | `systemd` | manners towards a service manager |
//! | `foreground` | both of these where there are neither |
//! | `log_file` | the log, opened again when asked |
//! | `options` | the command line |
//! | `tools` | the sub-commands check, dump, repair and load |

#[cfg(unix)]
pub mod background;
#[cfg(windows)]
mod foreground;
#[cfg(windows)]
pub use foreground::{background, systemd};
pub mod log_file;
pub mod options;
pub mod os;
pub mod run;
#[cfg(unix)]
pub mod systemd;
pub mod tools;
