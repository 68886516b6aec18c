//! The thread that takes snapshots, when they are due or asked for.
//!
//! Owns the thread and its pace; the steps are in `crate::durable::snapshotter`. Touches no store
//! but a part at a time, and no connection.

use crate::durable::snapshotter::{Items, Pace, Snapshotter};
use crate::server::persistence::status::{Asker, Durability, Note};
use crate::server::shared::Shared;
use crate::server::worker::inbox::{Address, Message};
use crate::server::worker::shards::Shards;
use crossbeam::channel::{Receiver, RecvTimeoutError};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How often to look whether a snapshot is due.
const LOOK: Duration = Duration::from_millis(100);

/// Rests shorter than that are saved up, and longer ones cut: the end may be asked for.
const REST_MILLISECONDS_MIN: u64 = 10;
const REST_MILLISECONDS_MAX: u64 = 500;

/// Between looks at the sizes of files and of the disk.
const SIZES_LOOKS: u32 = 10;

/// What the thread is made of.
pub struct Parts {
    /// What it is told.
    pub notes: Receiver<Note>,
    /// What all threads know.
    pub durability: Arc<Durability>,
    /// What snapshots are of.
    pub shards: Arc<Shards>,
    /// Who asks for them.
    pub workers: Vec<Address>,
    /// What all threads see.
    pub shared: Arc<Shared>,
    /// Most bytes of a snapshot written or read in a second; 0: no bound.
    pub bytes_per_second: u64,
    /// The server ends.
    pub stopping: Arc<AtomicBool>,
    /// Take one at once: the start had to go around damage.
    pub begin_now: bool,
}

/// See the module's text.
pub struct SnapshotThread {
    steps: Snapshotter,
    parts: Parts,
    askers: VecDeque<Asker>,
    looks: u32,
    begin_now: bool,
    ended: bool,
}

/// Rests so that a snapshot stays below a rate, and ends it with the server.
struct Steady<'a> {
    parts: &'a Parts,
    /// Bytes since the last rest.
    bytes: AtomicU64,
}

impl Pace for Steady<'_> {
    fn rest(&self, bytes: u64) -> bool {
        if self.parts.stopping.load(Ordering::Relaxed) {
            return false;
        }
        if bytes == 0 {
            // Somebody else has something to do first.
            std::thread::sleep(Duration::from_micros(200));
        }
        let due = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let rate = self.parts.bytes_per_second;
        let milliseconds = due.saturating_mul(1000).checked_div(rate).unwrap_or(0);
        if milliseconds >= REST_MILLISECONDS_MIN {
            self.bytes.store(0, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(milliseconds.min(REST_MILLISECONDS_MAX)));
        }
        true
    }
}

impl SnapshotThread {
    /// A thread about to run.
    pub fn new(steps: Snapshotter, parts: Parts) -> Self {
        let begin_now = parts.begin_now;
        Self { steps, parts, askers: VecDeque::new(), looks: 0, begin_now, ended: false }
    }

    /// Works until the server ends.
    pub fn run(mut self) {
        self.note_sizes();
        while !self.ended {
            match self.parts.notes.recv_timeout(LOOK) {
                Ok(note) => self.take(note),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if !self.ended {
                self.look();
            }
        }
        let why = Some("the server ends".to_owned());
        std::mem::take(&mut self.askers).into_iter().for_each(|asker| self.answer(asker, &why));
    }

    fn take(&mut self, note: Note) {
        match note {
            Note::Wanted(asker) => self.askers.push_back(asker),
            Note::Stop => self.ended = true,
        }
    }

    fn look(&mut self) {
        self.looks += 1;
        if self.looks.is_multiple_of(SIZES_LOOKS) {
            self.note_sizes();
        }
        let Parts { durability, shards, shared, .. } = &self.parts;
        let committer = &durability.committer;
        if let Err(why) = self.steps.roll_if_large(committer, &**shards, &**shards) {
            log::warn!("the log goes on in a file that is larger than it should be: {why}");
        }
        if let Some(why) = self.steps.why_no_space(committer, shared.clock.now())
            && committer.stop_waiting_for_space(&why, &**shards)
        {
            durability.alarm.note(&why);
            log::error!("{why}; changes are refused until a snapshot succeeds");
        }
        let data_bytes = shards.live_bytes();
        let is_due = self.steps.is_due(committer, data_bytes, shared.clock.now());
        if is_due || !self.askers.is_empty() || std::mem::take(&mut self.begin_now) {
            self.snapshot();
        }
    }

    fn snapshot(&mut self) {
        let askers = std::mem::take(&mut self.askers);
        self.parts.durability.lock().running = true;
        let was_refusing = self.parts.durability.committer.is_refusing();
        let taken = self.take_snapshot();
        let error = match taken {
            Ok(()) => None,
            Err(why) => {
                if !self.parts.stopping.load(Ordering::Relaxed) {
                    log::error!("no snapshot: {why}");
                }
                Some(why)
            }
        };
        if was_refusing && !self.parts.durability.committer.is_refusing() {
            log::warn!("the log is good again: changes are taken");
        }
        self.note_sizes();
        self.parts.durability.lock().running = false;
        askers.into_iter().for_each(|asker| self.answer(asker, &error));
    }

    fn take_snapshot(&mut self) -> Result<(), String> {
        let Self { steps, parts, .. } = self;
        let pace = Steady { parts, bytes: AtomicU64::new(0) };
        let (committer, shards) = (&parts.durability.committer, &*parts.shards);
        let clock = parts.shared.clock;
        let finished = steps.snapshot(committer, shards, shards, &clock, &pace);
        let status = steps.status().clone();
        let duration = status.duration;
        parts.durability.lock().snapshots = status;
        let finished = finished.map_err(|why| why.to_string())?;
        log::info!(
            "snapshot: {} items, {} bytes in {}.{:02} s",
            finished.items,
            finished.bytes,
            duration.0 / 100,
            duration.0 % 100
        );
        Ok(())
    }

    fn note_sizes(&self) {
        let (directory_bytes, free_bytes) = (self.steps.directory_bytes(), self.steps.free_bytes());
        let mut status = self.parts.durability.lock();
        (status.directory_bytes, status.free_bytes) = (directory_bytes, free_bytes);
        status.snapshots = self.steps.status().clone();
    }

    fn answer(&self, asker: Asker, error: &Option<String>) {
        match asker {
            Asker::Worker { worker, connection } => {
                let error = error.clone();
                self.parts.workers[worker].send(Message::Snapshot { connection, error });
            }
            Asker::Thread(sender) => {
                // It may have stopped waiting.
                let _ = sender.send(error.clone().map_or(Ok(()), Err));
            }
            Asker::Nobody => {}
        }
    }
}
