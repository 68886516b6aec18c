//! The built daemon on a free port, for one test. Owns the process.

use super::eventually;
#[cfg(unix)]
use nix::sys::signal::{Signal, kill};
#[cfg(unix)]
use nix::unistd::{Pid, Uid};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

/// A process that does not outlive its test.
pub(crate) struct Bounded(pub Child);

impl Bounded {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    #[cfg(unix)]
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), signal).unwrap();
    }

    /// Sends the signal and waits for an orderly end.
    #[cfg(unix)]
    pub(crate) fn end(&mut self, signal: Signal) {
        self.signal(signal);
        let status = eventually("the end", || self.0.try_wait().unwrap());
        assert_eq!(status.code(), Some(0), "{signal}");
    }
}

impl Drop for Bounded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A daemon with one worker that does not outlive its test. Its log is a pipe: it has to fit, or to
/// be read.
pub(crate) struct Daemon {
    pub process: Child,
    pub address: SocketAddr,
}

impl Daemon {
    /// Starts it and waits until it listens.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::wait_for(Command::new(env!("CARGO_BIN_EXE_distcached")), flags)
    }

    /// The same with so few open files allowed, unless it asks for more.
    pub(crate) fn limited(files: u32, flags: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        let script = format!("ulimit -Sn {files}; exec \"$0\" \"$@\"");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_distcached")]);
        Self::wait_for(shell, flags)
    }

    fn wait_for(mut command: Command, flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ports = directory.path().join("ports");
        stay_root(&mut command);
        command.args(["-l", "127.0.0.1", "-p", "-1", "-t", "1"]).args(flags);
        command.env_remove("RUST_LOG").env("MEMCACHED_PORT_FILENAME", &ports);
        let process = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut daemon = Self { process, address: ([127, 0, 0, 1], 0).into() };
        let port = eventually("the daemon's start", || {
            let text = std::fs::read_to_string(&ports).ok()?;
            text.strip_prefix("TCP INET: ")?.lines().next()?.parse().ok()
        });
        daemon.address.set_port(port);
        daemon
    }
}

/// Files of root's test are not to be another's.
pub(crate) fn stay_root(command: &mut Command) {
    #[cfg(unix)]
    if Uid::effective().is_root() {
        command.args(["-u", "root"]);
    }
    #[cfg(not(unix))]
    let _ = command;
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
