//! What the daemon asks of the operating system before and after it serves: limits, identity,
//! locked memory, the pid file, the ports file, signals, and the exit codes.
//!
//! Each function does one thing and leaves the order to its caller (`crate::daemon::run`). What
//! differs between systems is in `unix` and `windows`, under the same names.
//! Never opens a listening socket, never decides from flags, and holds no `unsafe`: every system
//! call goes through the safe wrappers of the `nix` crate.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub use unix::*;

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub use windows::*;

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use log::warn;

/// Exit code for a start that failed without a finer code, as memcached uses it.
pub const EXIT_FAILURE: u8 = 1;
/// Exit code for flags that cannot be followed (`EX_USAGE` of sysexits.h).
pub const EX_USAGE: u8 = 64;
/// Exit code for data files that are damaged (`EX_DATAERR`).
pub const EX_DATAERR: u8 = 65;
/// Exit code for a disk that fails (`EX_IOERR`).
pub const EX_IOERR: u8 = 74;
/// Exit code for a data directory that another process uses (`EX_TEMPFAIL`).
pub const EX_TEMPFAIL: u8 = 75;
/// Exit code for data files of a newer version (`EX_CONFIG`).
pub const EX_CONFIG: u8 = 78;
/// Exit code for a user that does not exist (`EX_NOUSER`).
pub const EX_NOUSER: u8 = 67;
/// Exit code for what the operating system refused, a port in use for one (`EX_OSERR`).
pub const EX_OSERR: u8 = 71;

/// Why the process ends instead of serving: what to print on standard error, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// One of the codes above.
    pub code: u8,
    /// One or more lines without the last line feed. Says what to change.
    pub message: String,
}

impl Exit {
    /// Flags that cannot be followed.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: EX_USAGE, message: message.into() }
    }

    /// Something the operating system refused.
    pub fn os(message: impl Into<String>) -> Self {
        Self { code: EX_OSERR, message: message.into() }
    }

    /// Anything else.
    pub fn failure(message: impl Into<String>) -> Self {
        Self { code: EXIT_FAILURE, message: message.into() }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)
    }
}

impl std::error::Error for Exit {}

// Signals

/// What the process is told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Stop now; the number of the signal.
    Stop(i32),
    /// Let clients have their replies, then stop.
    StopGracefully,
    /// Read files again that may have changed, and open the log anew.
    Reload,
}

// Files

/// A pid file that this process wrote (`-P`).
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes the number of this process and a line feed. The file appears complete or not at
    /// all. Trouble is worth a warning, not a stop: the cache works without the file.
    pub fn write(path: &Path) -> Option<Self> {
        if let Some(other) = running_pid_in(path) {
            warn!("the pid file {} contained the running pid {other}", path.display());
        }
        match replace_file(path, ".tmp", format!("{}\n", std::process::id()).as_bytes()) {
            Ok(()) => Some(Self { path: path.to_owned() }),
            Err(why) => {
                let path = path.display();
                warn!("could not write the pid file {path}: {why}; is its directory writable?");
                None
            }
        }
    }

    /// Removes the file, unless another process has put its own number there meanwhile.
    pub fn remove(self) {
        if read_pid(&self.path) != Some(std::process::id()) {
            return;
        }
        if let Err(why) = fs::remove_file(&self.path) {
            warn!("could not remove the pid file {}: {why}", self.path.display());
        }
    }
}

fn read_pid(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.lines().next()?.trim().parse().ok()
}

/// The number in a pid file if it is another process that is alive.
fn running_pid_in(path: &Path) -> Option<u32> {
    let found = read_pid(path).filter(|&pid| pid != 0 && pid != std::process::id())?;
    is_running(found).then_some(found)
}

/// Writes one line per bound TCP address, `TCP INET: port` or `TCP INET6: port`, for the test
/// tools that name a file in `MEMCACHED_PORT_FILENAME`. They take the file's appearance for
/// "ready", so it is complete when it appears. Unix sockets have no line.
///
/// # Errors
/// Those of writing and renaming the file.
pub fn write_port_file(path: &Path, addresses: &[SocketAddr]) -> io::Result<()> {
    replace_file(path, ".lck", port_lines(addresses).as_bytes())
}

fn port_lines(addresses: &[SocketAddr]) -> String {
    let line = |address: &SocketAddr| {
        let family = if address.is_ipv4() { "INET" } else { "INET6" };
        format!("TCP {family}: {}\n", address.port())
    };
    addresses.iter().map(line).collect()
}

/// Writes a file beside `path` and renames it there. A reader never sees half of it. No sync:
/// these files mean nothing after a power failure.
fn replace_file(path: &Path, suffix: &str, content: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(suffix);
    let mut file = fs::File::create(&beside)?;
    file.write_all(content)?;
    drop(file);
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_lines_name_the_family() {
        let addresses = ["127.0.0.1:11211", "[::1]:2050"].map(|text| text.parse().unwrap());
        assert_eq!(port_lines(&addresses), "TCP INET: 11211\nTCP INET6: 2050\n");
        assert_eq!(port_lines(&[]), "");
    }

    #[test]
    fn a_pid_file_appears_whole_and_goes_only_if_it_is_ours() {
        let path = std::env::temp_dir().join(format!("distcached-os-{}.pid", std::process::id()));
        let content = format!("{}\n", std::process::id());

        let file = PidFile::write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
        file.remove();
        assert!(!path.exists());

        let file = PidFile::write(&path).unwrap();
        fs::write(&path, "1\n").unwrap();
        file.remove();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n", "another's file is left alone");
        fs::remove_file(&path).unwrap();
    }
}
