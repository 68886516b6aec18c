//! A server binary run as a child process on a free port of 127.0.0.1.
//!
//! The server picks the port itself (`-p -1`) and writes it to a file, as memcached does with
//! `MEMCACHED_PORT_FILENAME`: picking a port here and hoping that it stays free would be a race.
//! Ends only the process it started, by its id.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const START_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Distinguishes the port files of servers started by one process.
static NEXT_PORT_FILE: AtomicU32 = AtomicU32::new(0);

/// A running child, killed and reaped on drop.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
    port_file: PathBuf,
    address: SocketAddr,
}

impl ServerProcess {
    /// Starts `binary` with memcached's flags plus `arguments` and waits until it listens.
    ///
    /// # Errors
    /// The binary cannot be run, ends at once, or does not listen in time.
    pub fn start(binary: &Path, arguments: &[String]) -> io::Result<Self> {
        let number = NEXT_PORT_FILE.fetch_add(1, Ordering::Relaxed);
        let name = format!("protocol-tests-{}-{number}.port", std::process::id());
        let port_file = env::temp_dir().join(name);
        // A file left by an earlier process with our id would name a wrong port.
        let _ = fs::remove_file(&port_file);
        let child = Command::new(binary)
            // Servers refuse to run as root without -u, and ignore it otherwise.
            .args(["-u", "root", "-l", "127.0.0.1", "-p", "-1", "-U", "0"])
            .args(arguments)
            .env("MEMCACHED_PORT_FILENAME", &port_file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut server = Self { child, port_file, address };
        let port = server.wait_for_port()?;
        server.address.set_port(port);
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn wait_for_port(&mut self) -> io::Result<u16> {
        let deadline = Instant::now() + START_TIMEOUT;
        while Instant::now() < deadline {
            if let Some(port) = fs::read_to_string(&self.port_file).ok().as_deref().and_then(port) {
                return Ok(port);
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("server ended at start: {status}")));
            }
            thread::sleep(POLL_INTERVAL);
        }
        Err(io::Error::other("server did not listen in time"))
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Errors mean that it ended by itself, which some transcripts ask for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.port_file);
    }
}

/// Reads the port from a port file; `None` while the file is incomplete.
fn port(text: &str) -> Option<u16> {
    let line = text.split_inclusive('\n').find(|line| line.ends_with('\n'))?;
    line.strip_prefix("TCP INET: ")?.trim().parse().ok()
}

/// The memcached binaries to compare with: those listed in the environment variable `MEMCACHED`,
/// separated by colons, else `memcached` in `PATH`.
#[must_use]
pub fn memcached_binaries() -> Vec<PathBuf> {
    if let Some(list) = env::var_os("MEMCACHED") {
        return env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect();
    }
    find_in_path(OsStr::new("memcached")).into_iter().collect()
}

fn find_in_path(name: &OsStr) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::port;

    #[test]
    fn port_needs_a_complete_line() {
        assert_eq!(port("TCP INET: 40001\nUDP INET: 1\n"), Some(40001));
        assert_eq!(port("TCP INET: 400"), None);
        assert_eq!(port(""), None);
    }
}
