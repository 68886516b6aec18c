//! What tests of servers have in common: how long they wait, the built daemon, a client. What is
//! said is the test's.

#![allow(dead_code, unused_imports)] // Each test takes what it needs.

mod client;
mod daemon;

pub(crate) use client::{Client, connect, conversation};
pub(crate) use daemon::{Bounded, Daemon, stay_root};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;

/// Far more than a start, an answer or a stop takes, so that a loaded machine does not fail a test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A file of users, or of passwords, that goes away with the test.
pub(crate) struct Users(NamedTempFile);

impl Users {
    pub(crate) fn new(text: &str) -> Self {
        let users = Self(NamedTempFile::new().unwrap());
        users.write(text);
        users
    }

    pub(crate) fn write(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }
}

/// Looks again and again until there is what it looks for.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("still waiting for {what} after {PATIENCE:?}");
}

/// Waits until that is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    eventually(what, || is_so().then_some(()));
}
