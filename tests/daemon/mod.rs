//! The built daemon on a free port, for one test. Owns its process; what is said to it is the
//! test's.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Far more than a start takes, so that a loaded machine does not fail a test.
const PATIENCE: Duration = Duration::from_secs(20);

/// A daemon with one worker that does not outlive its test. Its log is a pipe: it has to fit, or to
/// be read.
pub struct Daemon {
    pub process: Child,
    pub address: SocketAddr,
}

impl Daemon {
    /// Starts it and waits until it listens.
    pub fn start(flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ports = directory.path().join("ports");
        let mut command = Command::new(env!("CARGO_BIN_EXE_distcached"));
        if nix::unistd::Uid::effective().is_root() {
            command.args(["-u", "root"]);
        }
        command.args(["-l", "127.0.0.1", "-p", "-1", "-t", "1"]).args(flags);
        command.env_remove("RUST_LOG").env("MEMCACHED_PORT_FILENAME", &ports);
        let process = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut daemon = Self { process, address: ([127, 0, 0, 1], 0).into() };
        let since = Instant::now();
        loop {
            let text = std::fs::read_to_string(&ports).unwrap_or_default();
            if let Some(port) = text.strip_prefix("TCP INET: ").and_then(|port| port.lines().next())
            {
                daemon.address.set_port(port.parse().unwrap());
                return daemon;
            }
            assert!(since.elapsed() < PATIENCE, "the daemon does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
