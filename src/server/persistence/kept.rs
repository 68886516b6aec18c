//! Data on disk, at the start and at the end of a server: recovers it, starts the threads that
//! sync the logs and take snapshots, and ends them.
//!
//! Owns those threads; what they do is in `crate::durable::log` and `super::keeper`.

use crate::durable::directory::Directory;
use crate::durable::disk::{Access, Disk, Growth, RealDisk};
use crate::durable::journal::Journal;
use crate::durable::log::{Log, Synced, Syncer};
use crate::durable::recovery::{self, Request};
use crate::durable::{Error, Fsync};
use crate::limits::SHARDS_MAX;
use crate::server::clock::Clock;
use crate::server::config::{Config, DurabilityConfig};
use crate::server::persistence::keeper::{self, Asker, Durability, Keeper, Note, Order};
use crate::server::shared::Shared;
use crate::server::worker::inbox::{Address, Message};
use crate::store::hash::KeyHasher;
use crate::store::{Store, Ticks};
use crossbeam::channel::{Receiver, bounded, unbounded};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

/// Clients wait for workers, nobody waits for a snapshot: where processors are short, it is the
/// snapshot that takes longer.
const KEEPER_NICENESS: i32 = 10;

/// Recovered data, before the server runs.
pub struct Kept {
    /// What all threads will know.
    pub durability: Arc<Durability>,
    /// The hash that spread the keys over the shards.
    pub hasher: KeyHasher,
    shards: VecDeque<KeptShard>,
    directory: Directory,
    notes: Receiver<Note>,
    syncers: Vec<Arc<Syncer>>,
    interval_seconds: u64,
    begin_now: bool,
}

/// One shard's part of it.
pub struct KeptShard {
    /// Its items.
    pub store: Store,
    /// A flush that is to come.
    pub flush_at: Option<Ticks>,
    /// Where its changes are written.
    pub log: Log,
    /// Where they gather.
    pub journal: Journal,
}

/// Opens the data directory and recovers what is in it.
///
/// # Errors
/// It cannot be used, or is damaged: see [`recovery::open`].
pub fn open(settings: &DurabilityConfig, config: &Config, clock: Clock) -> Result<Kept, Error> {
    let path = settings.directory.display().to_string();
    let disk = RealDisk::open(&settings.directory, Access::Exclusive);
    let disk = disk.map_err(|why| match why.kind() {
        io::ErrorKind::WouldBlock => Error::io(path, "used by another process", why),
        _ => Error::io(path, "cannot be opened", io::Error::other(why)),
    })?;
    open_on(Arc::new(disk), settings, config, clock)
}

/// The same on a disk that is open already.
pub(super) fn open_on(
    disk: Arc<dyn Disk>,
    settings: &DurabilityConfig,
    config: &Config,
    clock: Clock,
) -> Result<Kept, Error> {
    let request = Request {
        shards: config.workers.min(SHARDS_MAX),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes_max: config.memory_bytes_max,
        evict: config.evict,
        mode: settings.recover,
        // Worth its writes only where every change waits for a sync.
        log_growth: match settings.fsync {
            Fsync::Always => Growth::Ahead,
            Fsync::EverySecond | Fsync::No => Growth::AsWritten,
        },
        now: clock.now(),
    };
    let random = Box::new(|| getrandom::u64().map_err(io::Error::other));
    let recovered = recovery::open(disk, &request, random)?;
    let took = Ticks(clock.now().0.saturating_sub(request.now.0));
    let report = recovered.report;
    log::info!(
        "recovery: {} items of the snapshot and {} changes of logs in {}.{:02} s",
        report.snapshot_items,
        report.log_changes,
        took.0 / Ticks::PER_SECOND,
        took.0 % Ticks::PER_SECOND,
    );
    let (sender, notes) = unbounded();
    let mut shards = VecDeque::new();
    let (mut syncers, mut progress) = (Vec::new(), Vec::new());
    for (file, shard) in recovered.logs.into_iter().zip(recovered.shards) {
        let (log, journal) = Log::begin(file, settings.fsync);
        syncers.push(Arc::clone(log.syncer()));
        progress.push(Arc::clone(log.progress()));
        let (store, flush_at) = (shard.store, shard.flush_at);
        shards.push_back(KeptShard { store, flush_at, log, journal });
    }
    let (fsync, policy) = (settings.fsync, settings.on_log_error);
    Ok(Kept {
        durability: Arc::new(Durability::new(fsync, policy, progress, (report, took), sender)),
        hasher: recovered.hasher,
        shards,
        directory: recovered.directory,
        notes,
        syncers,
        interval_seconds: u64::from(settings.snapshot_interval_seconds),
        begin_now: recovered.wants_snapshot,
    })
}

impl Kept {
    /// The next shard, for the next worker.
    pub fn next_shard(&mut self) -> Option<KeptShard> {
        self.shards.pop_front()
    }

    /// What its keeper is made of, once the shards are with their workers.
    pub(super) fn into_parts(self, shared: &Arc<Shared>, workers: Vec<Address>) -> keeper::Parts {
        keeper::Parts {
            directory: self.directory,
            notes: self.notes,
            durability: self.durability,
            syncers: self.syncers,
            workers,
            shared: Arc::clone(shared),
            interval_seconds: self.interval_seconds,
            begin_now: self.begin_now,
        }
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(self, shared: &Arc<Shared>, workers: Vec<Address>) -> io::Result<Keeping> {
        let mut keeping = Keeping {
            durability: Arc::clone(&self.durability),
            syncers: self.syncers.clone(),
            threads: Vec::new(),
            keeper: None,
        };
        for (shard, syncer) in self.syncers.iter().enumerate() {
            let run = sync_loop(shard, Arc::clone(syncer), shared, workers.clone());
            let thread = Builder::new().name(format!("syncer-{shard}")).spawn(run)?;
            keeping.threads.push(thread);
        }
        let keeper = Keeper::new(self.into_parts(shared, workers));
        let run = move || {
            // On Linux this is about the thread alone.
            if let Err(why) = rustix::process::nice(KEEPER_NICENESS) {
                log::debug!("snapshots keep their priority: {why}");
            }
            keeper.run();
        };
        keeping.keeper = Some(Builder::new().name("keeper".into()).spawn(run)?);
        Ok(keeping)
    }
}

/// What the thread of a syncer does: syncs, and wakes the workers whose replies wait for it.
fn sync_loop(
    shard: usize,
    syncer: Arc<Syncer>,
    shared: &Arc<Shared>,
    workers: Vec<Address>,
) -> impl FnOnce() + Send + use<> {
    let shared = Arc::clone(shared);
    move || {
        let clock = shared.clock;
        let always =
            shared.durability.as_ref().is_some_and(|durability| durability.fsync == Fsync::Always);
        syncer.run(
            || clock.now(),
            |outcome| match outcome {
                Synced::Failed { file_id, why } => {
                    let why = format!("cannot be synced: {why}");
                    let order = Order::LogFailed { file_id, why };
                    // The inbox has room for orders; a worker that has ended takes none.
                    let _ = workers[shard].inbox.send(Message::Order(order));
                    workers[shard].bell.ring();
                }
                // Under everysec replies wait only for a late device, and look again by themselves.
                Synced::Through(_) if always => {
                    workers.iter().for_each(|worker| worker.bell.ring());
                }
                Synced::Through(_) | Synced::Nothing => {}
            },
        );
    }
}

/// The threads that keep data.
pub struct Keeping {
    durability: Arc<Durability>,
    syncers: Vec<Arc<Syncer>>,
    threads: Vec<JoinHandle<()>>,
    keeper: Option<JoinHandle<()>>,
}

impl Keeping {
    /// Takes a snapshot and waits for it.
    ///
    /// # Errors
    /// Why there is none.
    pub fn snapshot(&self) -> Result<(), String> {
        let (sender, receiver) = bounded(1);
        self.durability.tell(Note::Wanted(Asker::Thread(sender)));
        receiver.recv().unwrap_or_else(|_| Err("the server ends".to_owned()))
    }

    /// Ends the threads, after the workers have ended: what they wrote is synced.
    pub fn end(mut self) {
        self.durability.tell(Note::Stop);
        for syncer in &self.syncers {
            syncer.stop();
        }
        for thread in self.threads.drain(..).chain(self.keeper.take()) {
            if thread.join().is_err() {
                log::error!("a thread that keeps data ended in a panic");
            }
        }
    }
}
