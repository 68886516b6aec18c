//! What workers are told from outside their sockets, and what wakes them.
//!
//! Owns the messages and the bells. Operations never travel: see `shards`.

use super::parking::Parking;
use crate::server::connection::login::ATTEMPTS_WAITING_MAX;
use crate::server::connection::socket::ConnectionId;
use crate::server::stats::report::{Report, Wanted};
use crossbeam::channel::Sender;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What arrives at a worker.
pub enum Message {
    /// Another thread wants something of every worker.
    Ask(Ask),
    /// A worker has done what this one asked of all.
    Done(Box<Report>),
    /// A snapshot that a connection asked for was taken, or not.
    Snapshot {
        /// Whose.
        connection: ConnectionId,
        /// Why not.
        error: Option<String>,
    },
    /// A password was checked.
    Login {
        /// Whose.
        connection: ConnectionId,
        /// It was right.
        accepted: bool,
    },
}

/// What is asked of every worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// What it counts.
    Report(Wanted),
    /// To set its counters to 0.
    Reset,
}

/// A question, and where the answer goes.
#[derive(Clone)]
pub struct Ask {
    /// What is asked.
    pub question: Question,
    /// By whom.
    pub by: AskedBy,
}

/// Who asks. Each has one question at a time under way.
#[derive(Clone)]
pub enum AskedBy {
    /// A worker, for one of its connections.
    Worker(usize),
    /// The thread of the metrics; with the number of the worker that answers.
    Exporter(Sender<(usize, Report)>),
}

/// Snapshots that the connections of one worker wait for, at most: all of them may be answered at
/// once.
pub const SNAPSHOTS_AWAITED_MAX: usize = 16;

/// Verdicts about logins that may: of those that wait, those that were put off, and the one that is
/// being checked. Those of connections that are gone count too.
const LOGINS_MAX: usize = 2 * ATTEMPTS_WAITING_MAX + 1;

/// Messages an inbox must hold so that no sender ever finds it full.
pub fn inbox_capacity(worker_count: usize) -> usize {
    // A question of each worker and of the exporter, and the answers to one's own.
    2 * worker_count + 1 + SNAPSHOTS_AWAITED_MAX + LOGINS_MAX
}

/// How to reach a worker.
#[derive(Clone)]
pub struct Address {
    /// Its inbox.
    pub inbox: Sender<Message>,
    /// Its sleep.
    pub bell: Arc<Bell>,
}

impl Address {
    /// Sends a message. It is lost only if the worker has ended, and the server with it: an inbox
    /// has room for all that may be under way.
    pub fn send(&self, message: Message) {
        let _ = self.inbox.try_send(message);
        self.bell.ring();
    }
}

/// What wakes a worker.
pub struct Bell {
    /// Whether the worker waits.
    pub(crate) parking: Parking,
    /// Ends its wait.
    pub waker: mio::Waker,
    /// A shard that it found held was let go.
    called: AtomicBool,
    /// Replies of its connections wait for the log.
    waits_for_log: AtomicBool,
}

impl Bell {
    /// The bell of a worker that is awake.
    pub fn new(waker: mio::Waker) -> Self {
        Self {
            parking: Parking::default(),
            waker,
            called: AtomicBool::new(false),
            waits_for_log: AtomicBool::new(false),
        }
    }

    /// Wakes the worker if it waits.
    pub fn ring(&self) {
        if self.parking.must_wake()
            && let Err(error) = self.waker.wake()
        {
            // The worker still wakes at its next tick.
            log::error!("cannot wake a worker: {error}");
        }
    }

    /// A shard that the worker waits for was let go.
    pub fn call(&self) {
        self.called.store(true, Ordering::SeqCst);
        self.ring();
    }

    /// Notes whether replies wait for the log: then the worker is woken when that moves.
    pub fn set_waits_for_log(&self, waits: bool) {
        if self.waits_for_log() != waits {
            self.waits_for_log.store(waits, Ordering::SeqCst);
        }
    }

    /// Whether replies wait for the log.
    pub fn waits_for_log(&self) -> bool {
        self.waits_for_log.load(Ordering::SeqCst)
    }

    /// Whether the worker was called and has not answered yet.
    pub fn is_called(&self) -> bool {
        self.called.load(Ordering::SeqCst)
    }

    /// The worker answers: answers whether it was called.
    pub fn answer(&self) -> bool {
        self.is_called() && self.called.swap(false, Ordering::SeqCst)
    }
}
