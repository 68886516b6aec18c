//! The process on Windows: it runs as who starts it, in the foreground, and is told to stop by
//! Ctrl-C or by a client (`shutdown`).
//!
//! Owns the same names as `unix`; what has no safe way here is refused by `FLAGS_ABSENT`, and its
//! function does nothing.

use super::{EXIT_FAILURE, Exit, Order};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};

/// Flags that cannot be followed on this system, and why.
pub const FLAGS_ABSENT: &[(char, &str)] = &[
    ('d', "it stays in the foreground; the task scheduler starts it with the system"),
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

/// Where orders go, once somebody hears them.
static ORDERS: OnceLock<Sender<Order>> = OnceLock::new();

/// The number that Ctrl-C has where it is a signal.
const SIGINT: i32 = 2;

/// Asks the process to end the way Ctrl-C does, or gracefully. For the `shutdown` command of a
/// server that runs as a daemon.
pub fn ask_to_stop(graceful: bool) {
    let order = if graceful { Order::StopGracefully } else { Order::Stop(SIGINT) };
    // Nobody hears it if the process ends already.
    let _ = ORDERS.get().map(|orders| orders.send(order));
}

/// Whether there is a process of this number: the standard library does not say.
pub fn is_running(_pid: u32) -> bool {
    false
}

/// Ctrl-C and `shutdown`, as values.
pub struct Signalled {
    orders: Receiver<Order>,
    stopping: Arc<AtomicBool>,
    asked: Arc<AtomicBool>,
}

impl Signalled {
    /// Hears Ctrl-C from here on.
    ///
    /// # Errors
    /// Those of the system; `AlreadyExists`: it is heard already.
    pub fn listen() -> io::Result<Self> {
        let (sender, orders) = channel();
        let own = Self { orders, stopping: Arc::default(), asked: Arc::default() };
        ORDERS.set(sender).map_err(|_| io::ErrorKind::AlreadyExists)?;
        let (stopping, asked) = (own.stopping(), own.asked());
        let heard = move || {
            if stopping.load(Ordering::Relaxed) {
                std::process::exit(EXIT_FAILURE.into());
            }
            asked.store(true, Ordering::Relaxed);
            ask_to_stop(false);
        };
        ctrlc::set_handler(heard).map_err(io::Error::other)?;
        Ok(own)
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
        self.orders.iter()
    }
}
