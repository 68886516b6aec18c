//! What all threads know of the data on disk.

use crate::durable::Fsync;
use crate::durable::committer::Committer;
use crate::durable::recovery::Report;
use crate::durable::snapshotter::SnapshotStatus;
use crate::server::connection::socket::ConnectionId;
use crate::server::persistence::commit::{Alarm, Failures, Writer};
use crate::server::worker::shards::Shards;
use crate::store::Ticks;
use crossbeam::channel::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What the snapshotter is told.
pub enum Note {
    /// Somebody asks for a snapshot.
    Wanted(Asker),
    /// The server ends.
    Stop,
}

/// Who asked for a snapshot.
pub enum Asker {
    /// A worker, for one of its connections.
    Worker {
        /// Which.
        worker: usize,
        /// The connection.
        connection: ConnectionId,
    },
    /// A thread that waits.
    Thread(Sender<Result<(), String>>),
    /// Whoever sent the command did not want an answer.
    Nobody,
}

/// How it is going, as the snapshotter has last told.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Snapshots.
    pub snapshots: SnapshotStatus,
    /// One is being taken.
    pub running: bool,
    /// Failures of the log.
    pub log_failures: Failures,
    /// Bytes of all files.
    pub directory_bytes: u64,
    /// Bytes that the disk still takes; `None` if the system does not say.
    pub free_bytes: Option<u64>,
}

/// See the module's text.
pub struct Durability {
    /// The log.
    pub committer: Committer,
    /// Who writes it.
    pub writer: Arc<Writer>,
    /// Who wakes the workers.
    pub alarm: Arc<Alarm>,
    /// What the start found.
    pub recovery: Report,
    /// How long that took.
    pub recovery_took: Ticks,
    notes: Sender<Note>,
    status: Mutex<Status>,
}

impl Durability {
    /// The state of a server that starts now.
    pub fn new(
        committer: Committer,
        alarm: Arc<Alarm>,
        (recovery, recovery_took): (Report, Ticks),
        notes: Sender<Note>,
    ) -> Self {
        // As the other sizes, until the snapshotter has looked.
        let status = Mutex::new(Status { free_bytes: Some(0), ..Status::default() });
        let writer = Arc::new(Writer::default());
        Self { committer, writer, alarm, recovery, recovery_took, notes, status }
    }

    /// Has what was changed written.
    pub fn commit(&self) {
        if self.committer.has_work() {
            self.writer.wake();
        }
    }

    /// Writes what was changed, here and now, unless that may take long: a sync has to follow, or
    /// the device is busy.
    pub fn commit_here(&self, shards: &Shards) {
        if self.committer.policy().fsync == Fsync::Always || !self.committer.is_quick() {
            return self.commit();
        }
        self.committer.commit(shards);
        // Large values go in pieces.
        self.commit();
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it is going.
    pub fn status(&self) -> Status {
        Status { log_failures: self.alarm.failures(), ..self.lock().clone() }
    }

    /// Whether the log has failed, and no snapshot has succeeded since.
    pub fn has_failed_log(&self) -> bool {
        self.committer.is_refusing()
    }

    /// Tells the snapshotter something. It is gone only when the server ends.
    pub fn tell(&self, note: Note) {
        let _ = self.notes.send(note);
    }

    /// Writes and syncs all there is: the last thing.
    pub(super) fn finish(&self, shards: &Shards) {
        while self.committer.has_work() {
            self.committer.commit(shards);
        }
        self.committer.sync_now(shards);
    }
}
