//! What a run must not leave behind when a signal ends it: servers and data directories. Owns the
//! lists of both; whoever made one takes it off the list when it is gone.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::Result;

static LEFT: Mutex<Left> = Mutex::new(Left { servers: BTreeSet::new(), paths: BTreeSet::new() });

#[derive(Debug)]
struct Left {
    servers: BTreeSet<Pid>,
    paths: BTreeSet<PathBuf>,
}

/// From here on a signal that ends the bench also ends its servers and removes its directories.
pub fn on_signals() -> Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            // Held until the end of the process, so that nothing new begins.
            let left = lock();
            left.clean();
            // What a shell reports for a process ended by a signal.
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// A server runs.
pub fn add_server(pid: Pid) {
    lock().servers.insert(pid);
}

/// A server is about to be ended, and its number to be free for others.
pub fn forget_server(pid: Pid) {
    lock().servers.remove(&pid);
}

/// A directory has been made.
pub fn add_directory(path: &Path) {
    lock().paths.insert(path.to_owned());
}

/// A directory is gone.
pub fn forget_directory(path: &Path) {
    lock().paths.remove(path);
}

fn lock() -> MutexGuard<'static, Left> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Left {
    /// Errors mean that a server or directory is gone already.
    fn clean(&self) {
        for &pid in &self.servers {
            let _ = kill(pid, Signal::SIGKILL);
        }
        for path in &self.paths {
            // A server that is just ending may still add a file.
            let _ = fs::remove_dir_all(path).or_else(|_| fs::remove_dir_all(path));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn servers_end_and_directories_go() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_raw(child.id().try_into().unwrap());
        let path = std::env::temp_dir().join(format!("bench-cleanup-{pid}"));
        fs::create_dir_all(path.join("sub")).unwrap();
        let left = Left { servers: BTreeSet::from([pid]), paths: BTreeSet::from([path.clone()]) };
        left.clean();
        assert!(!child.wait().unwrap().success());
        assert!(!path.exists());
    }
}
