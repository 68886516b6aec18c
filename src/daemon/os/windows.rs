//! The process on Windows: it runs as who starts it, in the foreground, and is told to stop by
//! Ctrl-C or by a client (`shutdown`).
//!
//! Owns the same names as `unix`; what has no safe way here is refused by `FLAGS_ABSENT`, and its
//! function does nothing.

use super::{EXIT_FAILURE, Exit, Order};
use log::warn;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Flags that cannot be followed on this system, and why.
pub const FLAGS_ABSENT: &[(char, &str)] = &[
    ('d', "start it as a service, by the system's means"),
    ('k', "memory cannot be locked"),
    ('r', "there are no core files"),
    ('s', "there are no Unix sockets; listen on 127.0.0.1 (-l)"),
    ('u', "it runs as who starts it"),
];

/// Shows who listens on a port, in a shell.
pub const LIST_LISTENERS: &str = "netstat -abno";

/// Shows the addresses of this machine, in a shell.
pub const LIST_ADDRESSES: &str = "ipconfig";

// Limits

/// `-r`, which is refused.
///
/// # Errors
/// None.
pub fn allow_core_dumps() -> Result<(), Exit> {
    Ok(())
}

/// There is room for as many as memory holds.
///
/// # Errors
/// None.
pub fn allow_descriptors(connections: u64, _reserve: u64) -> Result<u64, Exit> {
    Ok(connections)
}

/// There is no such limit.
///
/// # Errors
/// None.
pub fn check_address_space(_memory_bytes_max: u64, _workers: u64) -> Result<(), Exit> {
    Ok(())
}

/// `-k`, which is refused.
pub fn lock_memory() {}

// Identity

/// The account the server runs as: there is no other to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {}

/// Nobody: `-u` is refused.
///
/// # Errors
/// None.
pub fn identity(_user: Option<&str>) -> Result<Option<Identity>, Exit> {
    Ok(None)
}

impl Identity {
    /// The user's name.
    pub fn name(&self) -> &str {
        match *self {}
    }

    /// Makes a directory for this user.
    ///
    /// # Errors
    /// None.
    pub fn make_directory(&self, _path: &Path) -> io::Result<()> {
        match *self {}
    }
}

/// Becomes `identity`.
///
/// # Errors
/// None.
pub fn drop_privileges(identity: &Identity) -> Result<(), Exit> {
    match *identity {}
}

/// What makes a data directory that is missing or another's one that may be used.
pub fn what_to_do_about(directory: &Path) -> String {
    let at = directory.display();
    format!("see to the disk, and to who may write in {at} and in the directory around it")
}

// Signals

/// The next order to stop is a graceful one.
static GRACEFUL: AtomicBool = AtomicBool::new(false);

/// How often it is looked whether an order has come: there is nothing that waits for one.
const LOOK: Duration = Duration::from_millis(50);

/// Asks the process to end the way Ctrl-C does. For the `shutdown` command of a server that runs
/// as a daemon; an embedded server must not call it.
pub fn ask_to_stop(graceful: bool) {
    GRACEFUL.store(graceful, Ordering::Relaxed);
    if let Err(why) = low_level::raise(SIGINT) {
        warn!("shutdown: cannot signal the own process: {why}");
    }
}

/// Whether there is a process of this number: the standard library does not say.
pub fn is_running(_pid: u32) -> bool {
    false
}

/// Ctrl-C, as a value.
pub struct Signalled {
    stopping: Arc<AtomicBool>,
    asked: Arc<AtomicBool>,
}

impl Signalled {
    /// Hears Ctrl-C from here on.
    ///
    /// # Errors
    /// Those of the system.
    pub fn listen() -> io::Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            let code = EXIT_FAILURE.into();
            flag::register_conditional_shutdown(signal, code, Arc::clone(&stopping))?;
            flag::register(signal, Arc::clone(&asked))?;
        }
        Ok(Self { stopping, asked })
    }

    /// To be set once the server stops: from then on Ctrl-C ends the process at once, for whoever
    /// does not want to wait for it.
    pub fn stopping(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stopping)
    }

    /// Set by Ctrl-C: a recovery is given up then.
    pub fn asked(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.asked)
    }

    /// Each order as it comes; waits for the next one.
    pub fn orders(&mut self) -> impl Iterator<Item = Order> {
        std::iter::repeat_with(|| {
            while !self.asked.swap(false, Ordering::Relaxed) {
                std::thread::sleep(LOOK);
            }
            match GRACEFUL.swap(false, Ordering::Relaxed) {
                true => Order::StopGracefully,
                false => Order::Stop(SIGINT),
            }
        })
    }
}
