//! Keeps the data directory: takes snapshots while the workers serve, and begins new logs.
//!
//! One thread. It orders the workers to change to a new log and to hand out their items a few at a
//! time, and writes what they hand out. Owns the directory's manifest; never touches a store.
//!
//! ```text
//! keeper                               worker of each shard
//! logs of the next generation ------> changes to its log, begins to walk its items
//! writes them            <----------- items, a part of the index at a time
//! syncs the log          <----------- all walked, up to this record of the log
//! manifest, old files go
//! ```

use crate::durable::change::Start;
use crate::durable::directory::{Directory, FinishedFile, SnapshotFile};
use crate::durable::log::{LogFile, Progress, Synced, Syncer};
use crate::durable::{Error, Fsync, OnLogError};
use crate::server::connection::socket::ConnectionId;
use crate::server::shared::Shared;
use crate::server::worker::inbox::{Address, Message};
use crate::store::{SharedItem, Ticks};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// After a failed snapshot another is tried soon if a log has failed: until it succeeds, changes
/// are refused. Not as soon after many that have failed: each adds a generation of logs.
const RETRY_SECONDS: u64 = 1;
const RETRY_SECONDS_MAX: u64 = 8;

/// Log bytes above which a snapshot is taken early, beside the memory limit.
const LOG_BYTES_FREE: u64 = 64 << 20;

/// Logs above this size that have taken more of the disk than they have left are an early snapshot
/// too: it needs space itself, and without it the disk would stay full.
const LOG_BYTES_SMALL: u64 = 4 << 20;

/// Early snapshots that fail are tried again after this time.
const EARLY_RETRY_SECONDS: u64 = 10;

/// How often the keeper looks whether a snapshot is due.
const LOOK: Duration = Duration::from_millis(100);

/// What workers and others tell the keeper. What is about a snapshot names the generation of its
/// logs: after a log has failed, the next snapshot may begin before a worker has heard that the
/// last one is over.
pub enum Note {
    /// A worker has changed to its new log.
    Switched {
        /// Its shard.
        shard: usize,
        /// Of the log.
        generation: u64,
        /// The first record of the new log.
        first_sequence: u64,
        /// A flush that is to come.
        flush_at: Option<Ticks>,
    },
    /// A part of a shard's items.
    Items {
        /// The shard.
        shard: usize,
        /// Of the snapshot's logs.
        generation: u64,
        /// Items and their popularity.
        items: Vec<(SharedItem, u8)>,
    },
    /// A worker has handed out all its items.
    Walked {
        /// Its shard.
        shard: usize,
        /// Of the snapshot's logs.
        generation: u64,
        /// They show changes up to this record.
        last_sequence: u64,
    },
    /// A log cannot be written.
    LogFailed {
        /// The shard.
        shard: usize,
        /// Why.
        why: String,
    },
    /// A shard uses up its tokens.
    Tokens {
        /// Where its segment sequence stands.
        sequence_now: u64,
    },
    /// Somebody asks for a snapshot.
    Wanted(Asker),
    /// The server ends.
    Stop,
}

/// Who asked for a snapshot.
pub enum Asker {
    /// A worker, for a connection.
    Worker {
        /// Which.
        worker: usize,
        /// The connection.
        connection: ConnectionId,
    },
    /// Somebody who does not wait.
    Nobody,
    /// A thread that waits.
    Thread(Sender<Result<(), String>>),
}

/// What the keeper tells a worker.
pub enum Order {
    /// Change to this log, and hand out all items.
    Switch(LogFile),
    /// Hand out no more: the snapshot has failed.
    Abandon,
    /// A snapshot has succeeded: a log that had failed, and went on in a file of this generation,
    /// is good again.
    Resume {
        /// Of the snapshot's logs.
        generation: u64,
    },
    /// A snapshot somebody asked for has succeeded, or not.
    Done {
        /// By which connection.
        connection: ConnectionId,
        /// Why not.
        error: Option<String>,
    },
    /// The log could not be synced.
    LogFailed {
        /// Of the log, when it failed.
        file_id: u64,
        /// What the system says.
        why: String,
    },
}

/// How durable data is doing, for `stats persistence`.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Snapshots that succeeded, and that failed.
    pub snapshots: u64,
    /// Failed ones.
    pub snapshot_failures: u64,
    /// When the last good one was begun.
    pub last_at: Option<Ticks>,
    /// How long it took.
    pub last_duration: Ticks,
    /// Its size, over all shards.
    pub last_bytes: u64,
    /// Items in it.
    pub last_items: u64,
    /// Why the last one failed, if it did.
    pub last_error: Option<String>,
    /// One is being taken.
    pub running: bool,
    /// A log has failed since the last good snapshot.
    pub log_failed: bool,
    /// Logs that failed.
    pub log_failures: u64,
    /// Why the last one failed.
    pub last_log_error: Option<String>,
}

/// What all threads know of the data directory.
pub struct Durability {
    /// When a change is safe.
    pub fsync: Fsync,
    /// What to do when it cannot be made safe.
    pub on_log_error: OnLogError,
    /// The log of each shard.
    pub progress: Vec<Arc<Progress>>,
    /// What the start found.
    pub recovery: crate::durable::recovery::Report,
    /// How long that took.
    pub recovery_took: Ticks,
    /// Where to send notes.
    pub notes: Sender<Note>,
    /// Batches of items that are on their way, for each shard.
    pub in_flight: Vec<AtomicUsize>,
    status: Mutex<Status>,
}

impl Durability {
    /// The state of a server that starts now.
    pub fn new(
        fsync: Fsync,
        on_log_error: OnLogError,
        progress: Vec<Arc<Progress>>,
        (recovery, recovery_took): (crate::durable::recovery::Report, Ticks),
        notes: Sender<Note>,
    ) -> Self {
        let in_flight = progress.iter().map(|_| AtomicUsize::new(0)).collect();
        let status = Mutex::new(Status::default());
        Self { fsync, on_log_error, progress, recovery, recovery_took, notes, in_flight, status }
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How it is doing.
    pub fn status(&self) -> Status {
        self.lock().clone()
    }

    /// Whether a log has failed, and no snapshot has succeeded since.
    pub fn has_failed_log(&self) -> bool {
        self.lock().log_failed
    }

    /// Tells the keeper something. It is gone only when the server ends.
    pub fn tell(&self, note: Note) {
        let _ = self.notes.send(note);
    }
}

/// A snapshot being taken.
struct Running {
    started: Ticks,
    /// Of the logs that begin with it.
    generation: u64,
    shards: Vec<ShardPart>,
    askers: Vec<Asker>,
}

#[derive(Default)]
struct ShardPart {
    file: Option<SnapshotFile>,
    finished: Option<FinishedFile>,
    first_sequence: u64,
    last_sequence: u64,
}

/// See the module's text.
pub struct Keeper {
    directory: Directory,
    notes: Receiver<Note>,
    durability: Arc<Durability>,
    syncers: Vec<Arc<Syncer>>,
    workers: Vec<Address>,
    shared: Arc<Shared>,
    interval_seconds: u64,
    running: Option<Running>,
    /// Asked for while one was running, or not yet begun.
    askers: Vec<Asker>,
    next_at: Ticks,
    /// An early one waits for this time, after one that failed.
    early_at: Ticks,
    /// The records that the last snapshot's logs begin with: with no others, nothing has changed.
    first_sequences: Vec<u64>,
    /// A log has failed since the last snapshot.
    log_failed: bool,
    /// Time to the next try then.
    retry_seconds: u64,
    stopping: bool,
}

/// What a keeper is made of.
pub struct Parts {
    /// The data directory.
    pub directory: Directory,
    /// Its inbox.
    pub notes: Receiver<Note>,
    /// What all threads know.
    pub durability: Arc<Durability>,
    /// One for each shard.
    pub syncers: Vec<Arc<Syncer>>,
    /// The workers.
    pub workers: Vec<Address>,
    /// What all threads see.
    pub shared: Arc<Shared>,
    /// Time between snapshots; 0: only when asked.
    pub interval_seconds: u64,
    /// The start found logs: a snapshot now makes the next start quicker.
    pub begin_now: bool,
}

impl Keeper {
    /// A keeper about to run.
    pub fn new(parts: Parts) -> Self {
        let Parts { directory, notes, durability, syncers, workers, shared, .. } = parts;
        let now = shared.clock.now();
        let first_sequences = vec![if parts.begin_now { 0 } else { 1 }; workers.len()];
        let wait_seconds = if parts.begin_now { 0 } else { parts.interval_seconds };
        Self {
            directory,
            notes,
            durability,
            syncers,
            workers,
            shared,
            interval_seconds: parts.interval_seconds,
            running: None,
            askers: Vec::new(),
            next_at: now.plus_seconds(wait_seconds),
            early_at: now,
            first_sequences,
            log_failed: false,
            retry_seconds: RETRY_SECONDS,
            stopping: false,
        }
    }

    /// Works until the server ends.
    pub fn run(mut self) {
        while !self.stopping {
            match self.notes.recv_timeout(LOOK) {
                Ok(note) => self.take(note),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.running.is_none() && self.is_due() {
                self.begin();
            }
        }
        self.fail("the server ends".to_owned());
    }

    fn is_due(&self) -> bool {
        if !self.askers.is_empty() {
            return true;
        }
        let progress = &self.durability.progress;
        let changed = || {
            let pairs = progress.iter().zip(&self.first_sequences);
            pairs.into_iter().any(|(progress, first)| progress.written() > *first)
        };
        let now = self.shared.clock.now();
        let regular = self.interval_seconds > 0 || self.log_failed;
        let due = regular && now >= self.next_at && (changed() || self.log_failed);
        due || (now >= self.early_at && self.logs_are_large())
    }

    /// The logs have outgrown the memory limit or the disk.
    fn logs_are_large(&self) -> bool {
        let progress = self.durability.progress.iter();
        let log_bytes: u64 = progress.map(|progress| progress.file_bytes()).sum();
        let memory_bytes_max = self.shared.memory_bytes_max.load(Ordering::Relaxed);
        log_bytes > memory_bytes_max + LOG_BYTES_FREE
            || (log_bytes > LOG_BYTES_SMALL && log_bytes > self.directory.free_bytes())
    }

    fn take(&mut self, note: Note) {
        match note {
            Note::Wanted(asker) => self.askers.push(asker),
            Note::Stop => self.stopping = true,
            Note::LogFailed { shard, why } => self.log_failed(shard, why),
            Note::Tokens { sequence_now } => {
                if let Err(why) = self.directory.grant_tokens(sequence_now) {
                    log::error!("{why}; CAS tokens may repeat after a restart");
                }
            }
            Note::Switched { shard, generation, first_sequence, flush_at } => {
                if self.is_taking(generation) {
                    self.switched(shard, first_sequence, flush_at);
                }
            }
            Note::Items { shard, generation, items } => {
                if self.is_taking(generation) {
                    self.items(shard, items);
                }
                self.durability.in_flight[shard].fetch_sub(1, Ordering::AcqRel);
                self.workers[shard].bell.ring();
            }
            Note::Walked { shard, generation, last_sequence } => {
                if self.is_taking(generation) {
                    self.walked(shard, last_sequence);
                }
            }
        }
    }

    fn is_taking(&self, generation: u64) -> bool {
        self.running.as_ref().is_some_and(|running| running.generation == generation)
    }

    fn log_failed(&mut self, shard: usize, why: String) {
        log::error!("the log of shard {shard} has failed: {why}; a new snapshot is tried");
        let mut status = self.durability.lock();
        status.log_failures += 1;
        status.log_failed = true;
        status.last_log_error = Some(why);
        drop(status);
        let is_first = !std::mem::replace(&mut self.log_failed, true);
        if is_first {
            (self.next_at, self.retry_seconds) = (self.shared.clock.now(), RETRY_SECONDS);
        }
        if self.running.is_some() {
            // Perhaps it was the log that this snapshot began: the next one waits a little.
            self.fail("a log has failed".to_owned());
        }
    }

    fn begin(&mut self) {
        let started = self.shared.clock.now();
        let files = match self.directory.begin_logs() {
            Ok(files) => files,
            Err(why) => {
                let askers = std::mem::take(&mut self.askers);
                let (generation, shards) = (0, Vec::new());
                self.running = Some(Running { started, generation, shards, askers });
                return self.fail(why.to_string());
            }
        };
        let shards = files.iter().map(|_| ShardPart::default()).collect();
        let generation = self.directory.manifest().generation;
        let askers = std::mem::take(&mut self.askers);
        self.running = Some(Running { started, generation, shards, askers });
        self.durability.lock().running = true;
        let mut all_there = true;
        for (worker, file) in files.into_iter().enumerate() {
            all_there &= self.order(worker, Order::Switch(file));
        }
        if !all_there {
            self.fail("a worker has ended".to_owned());
        }
    }

    /// Answers whether the worker is there to take it. Its inbox has room for orders.
    fn order(&self, worker: usize, order: Order) -> bool {
        let address = &self.workers[worker];
        let taken = address.inbox.send(Message::Order(order)).is_ok();
        address.bell.ring();
        taken
    }

    fn order_all(&self, order: impl Fn() -> Order) {
        for worker in 0..self.workers.len() {
            self.order(worker, order());
        }
    }

    fn switched(&mut self, shard: usize, first_sequence: u64, flush_at: Option<Ticks>) {
        let Some(running) = &mut self.running else { return };
        let start = Start { taken_at: running.started, flush_at };
        let part = &mut running.shards[shard];
        part.first_sequence = first_sequence;
        match self.directory.begin_snapshot(shard, start) {
            Ok(file) => part.file = Some(file),
            Err(why) => self.fail(why.to_string()),
        }
    }

    fn items(&mut self, shard: usize, items: Vec<(SharedItem, u8)>) {
        let Some(running) = &mut self.running else { return };
        let Some(file) = &mut running.shards[shard].file else { return };
        let added =
            items.iter().try_for_each(|(item, popularity)| file.writer.add(item, *popularity));
        // Items keep segments alive: let go of them before the disk takes its time.
        drop(items);
        if let Err(why) = added.and_then(|()| file.writer.write_gathered()) {
            self.fail(format!("the snapshot of shard {shard} cannot be written: {why}"));
        }
    }

    fn walked(&mut self, shard: usize, last_sequence: u64) {
        let Some(running) = &mut self.running else { return };
        let part = &mut running.shards[shard];
        part.last_sequence = last_sequence;
        let Some(file) = part.file.take() else { return };
        match file.finish() {
            Ok(finished) => part.finished = Some(finished),
            Err(why) => return self.fail(why.to_string()),
        }
        if running.shards.iter().all(|part| part.finished.is_some()) {
            match self.publish() {
                Ok(()) => self.succeed(),
                Err(why) => self.fail(why),
            }
        }
    }

    /// Makes the snapshot current, once the logs are on the device up to what it shows.
    fn publish(&mut self) -> Result<(), String> {
        let Some(running) = &self.running else { return Ok(()) };
        for (shard, part) in running.shards.iter().enumerate() {
            let clock = self.shared.clock;
            let synced = || self.durability.progress[shard].synced();
            while synced() < part.last_sequence {
                match self.syncers[shard].sync_now(|| clock.now()) {
                    Synced::Failed { file_id, why } => {
                        self.order(shard, Order::LogFailed { file_id, why: why.to_string() });
                        return Err(format!("the log of shard {shard} cannot be synced: {why}"));
                    }
                    Synced::Nothing if synced() < part.last_sequence => {
                        return Err(format!("the log of shard {shard} has failed"));
                    }
                    Synced::Nothing | Synced::Through(_) => {}
                }
            }
        }
        let finished: Vec<_> = running.shards.iter().filter_map(|part| part.finished).collect();
        let first_sequences: Vec<_> =
            running.shards.iter().map(|part| part.first_sequence).collect();
        let seconds = running.started.seconds();
        let published = self.directory.publish(seconds, &finished, &first_sequences);
        published.map_err(|why: Error| why.to_string())?;
        self.first_sequences = first_sequences;
        Ok(())
    }

    fn succeed(&mut self) {
        let Some(running) = self.running.take() else { return };
        let now = self.shared.clock.now();
        let finished = running.shards.iter().filter_map(|part| part.finished);
        let (mut bytes, mut items) = (0, 0);
        for file in finished {
            bytes += file.finished.bytes;
            items += file.finished.items;
        }
        let took = Ticks(now.0.saturating_sub(running.started.0));
        log::info!(
            "snapshot: {items} items, {bytes} bytes in {}.{:02} s",
            took.0 / 100,
            took.0 % 100
        );
        let mut status = self.durability.lock();
        status.snapshots += 1;
        (status.last_bytes, status.last_items) = (bytes, items);
        (status.last_at, status.last_duration) = (Some(running.started), took);
        (status.last_error, status.running, status.log_failed) = (None, false, false);
        drop(status);
        if std::mem::take(&mut self.log_failed) {
            log::warn!("the logs are good again: changes are taken");
        }
        self.order_all(|| Order::Resume { generation: running.generation });
        self.next_at = now.plus_seconds(self.interval_seconds.max(1));
        self.answer(running.askers, None);
    }

    fn fail(&mut self, why: String) {
        let Some(running) = self.running.take() else { return };
        self.order_all(|| Order::Abandon);
        drop(running.shards);
        self.directory.abandon_snapshot();
        if !self.stopping {
            log::error!("no snapshot: {why}");
        }
        let mut status = self.durability.lock();
        status.snapshot_failures += 1;
        (status.last_error, status.running) = (Some(why.clone()), false);
        drop(status);
        let now = self.shared.clock.now();
        let mut wait_seconds = self.interval_seconds.max(RETRY_SECONDS);
        if self.log_failed {
            wait_seconds = self.retry_seconds;
            self.retry_seconds = RETRY_SECONDS_MAX.min(wait_seconds * 2);
        }
        self.next_at = now.plus_seconds(wait_seconds);
        self.early_at = now.plus_seconds(EARLY_RETRY_SECONDS);
        self.answer(running.askers, Some(why));
    }

    fn answer(&self, askers: Vec<Asker>, error: Option<String>) {
        for asker in askers {
            match asker {
                Asker::Worker { worker, connection } => {
                    self.order(worker, Order::Done { connection, error: error.clone() });
                }
                Asker::Nobody => {}
                Asker::Thread(sender) => {
                    // It may have stopped waiting.
                    let _ = sender.send(error.clone().map_or(Ok(()), Err));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
