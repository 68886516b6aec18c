//! Data on disk, at the start and at the end of a server: recovers it, starts the threads that
//! write the log, sync it and take snapshots, and ends them.
//!
//! Owns those threads; what they do is in `crate::durable` and beside this file.

use crate::durable::build::BuiltShard;
use crate::durable::committer::{Committer, Policy};
use crate::durable::directory;
use crate::durable::disk::{Access, Disk, Growth, RealDisk};
use crate::durable::journal::Journal;
use crate::durable::record::Seed;
use crate::durable::recovery::{self, Recovered, Request};
use crate::durable::snapshotter::{Parts as Steps, Rules, Snapshotter};
use crate::durable::{Error, Fsync};
use crate::server::clock::Clock;
use crate::server::config::{Config, DurabilityConfig};
use crate::server::persistence::commit::Alarm;
use crate::server::persistence::snapshotter::{Parts, SnapshotThread};
use crate::server::persistence::status::{Asker, Durability, Note};
use crate::server::shared::Shared;
use crate::server::stats::waiting::Recovering;
use crate::server::worker::inbox::{Address, Bell};
use crate::server::worker::shards::Shards;
use crate::store::budget::Budget;
use crate::store::hash::KeyHasher;
use crate::store::{Store, Ticks};
use crate::system;
use crossbeam::channel::{Receiver, bounded, unbounded};
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{Builder, JoinHandle};

/// Clients wait for workers, nobody waits for a snapshot: where processors are short, it is the
/// snapshot that takes longer.
const SNAPSHOT_NICENESS: i32 = 10;

/// Logs take at most twice the memory limit and so much: with two snapshots, each no larger than
/// that limit, all files are within four times of it and 512 MiB.
const LOG_BYTES_SHARE: u64 = 2;
const LOG_BYTES_FREE: u64 = 512 << 20;

/// Of what the disk has for us at the start, logs take one part in so many at most: changes wait
/// for a snapshot then, instead of failing for want of space.
const LOG_DISK_SHARE: u64 = 2;
/// And so much at least, though the disk be full: somebody may make room.
const LOG_BYTES_LEAST: u64 = 16 << 20;

/// Progress of a recovery is logged so many times, if there are many bytes.
const PROGRESS_STEPS: u64 = 10;
const PROGRESS_BYTES_MIN: u64 = 256 << 20;

/// Recovered data, before the server runs.
pub struct Opened {
    /// What all threads will know.
    pub durability: Arc<Durability>,
    /// The hash that spread the keys over the shards.
    pub hasher: KeyHasher,
    shards: VecDeque<OpenedShard>,
    steps: Snapshotter,
    notes: Receiver<Note>,
    bytes_per_second: u64,
    begin_now: bool,
    /// Why there is no log.
    log_failure: Option<String>,
}

/// One shard's part of it.
pub struct OpenedShard {
    /// Its items.
    pub store: Store,
    /// A flush that is to come.
    pub flush_at: Option<Ticks>,
    /// Where its changes gather.
    pub journal: Journal,
}

/// Opens the data directory and recovers what is in it. `watch`: whether somebody wants the end,
/// and who is told how far it has come.
///
/// # Errors
/// It cannot be used, or is damaged: see [`recovery::open`].
pub fn open(
    settings: &DurabilityConfig,
    config: &Config,
    shards: usize,
    clock: Clock,
    watch: (Arc<AtomicBool>, Arc<Recovering>),
) -> Result<Opened, Error> {
    let path = settings.directory.display().to_string();
    if !settings.directory.exists() {
        log::warn!("{path}: a new data directory is made");
    }
    let disk = RealDisk::open(&settings.directory, Access::Exclusive);
    let disk = disk.map_err(|why| match why.kind() {
        io::ErrorKind::WouldBlock => Error::io(path, "used by another process", why),
        io::ErrorKind::PermissionDenied if settings.directory.exists() => {
            let own = system::how_to_own(&path);
            let what = format!("not to be opened; \"{own}\" makes it right");
            Error::io(path, what, why)
        }
        _ => Error::io(path, "cannot be opened", io::Error::other(why)),
    })?;
    open_on(Arc::new(disk), settings, config, shards, clock, watch)
}

/// The same on a disk that is open already.
pub(super) fn open_on(
    disk: Arc<dyn Disk>,
    settings: &DurabilityConfig,
    config: &Config,
    shards: usize,
    clock: Clock,
    (stop, recovering): (Arc<AtomicBool>, Arc<Recovering>),
) -> Result<Opened, Error> {
    let request = Request {
        shards,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes_max: config.memory_bytes_max,
        evict: config.evict,
        may_drop: settings.recover == crate::durable::Recover::Salvage,
        mode: settings.recover,
        // Worth its writes only where every change waits for a sync.
        log_growth: match settings.fsync {
            Fsync::Always => Growth::Ahead,
            Fsync::EverySecond | Fsync::No => Growth::AsWritten,
        },
        now: clock.now(),
        stop,
        progress: Arc::new(progress_logger(clock, recovering)),
    };
    let random = Box::new(|| getrandom::u64().map_err(io::Error::other));
    let recovered = recovery::open(Arc::clone(&disk), &request, random)?;
    let took = Ticks(clock.now().0.saturating_sub(request.now.0));
    log::info!(
        "recovery: {} items of the snapshot and {} changes of the log in {}.{:02} s",
        recovered.report.snapshot_items,
        recovered.report.log_changes,
        took.0 / Ticks::PER_SECOND,
        took.0 % Ticks::PER_SECOND,
    );
    Ok(assemble(disk, recovered, settings, &request, clock, took))
}

/// What logs may take where nobody has said how much.
fn log_bytes_max(disk: &dyn Disk, memory_bytes_max: u64) -> u64 {
    let by_memory = memory_bytes_max.saturating_mul(LOG_BYTES_SHARE).saturating_add(LOG_BYTES_FREE);
    // A system that does not say has as much as is wanted.
    let free_bytes = disk.free_bytes().unwrap_or(u64::MAX);
    let by_disk = free_bytes.saturating_add(directory::bytes(disk)) / LOG_DISK_SHARE;
    by_memory.min(by_disk.max(LOG_BYTES_LEAST))
}

/// Logs how far a recovery has come, and how long the rest may take.
fn progress_logger(clock: Clock, recovering: Arc<Recovering>) -> impl Fn(u64, u64) + Send + Sync {
    let (step, began) = (AtomicU64::new(0), clock.moment());
    move |done, total| {
        recovering.note(done, total);
        if total < PROGRESS_BYTES_MIN || done == 0 {
            return;
        }
        let reached = done * PROGRESS_STEPS / total;
        if reached > step.fetch_max(reached, Ordering::Relaxed) {
            let spent = clock.moment().microseconds_since(began);
            let left = u128::from(spent) * u128::from(total - done.min(total)) / u128::from(done);
            let (done, total) = (done >> 20, total >> 20);
            let seconds = left.div_ceil(1_000_000);
            log::warn!("recovery: {done} of {total} MiB read, about {seconds} s left");
        }
    }
}

fn assemble(
    disk: Arc<dyn Disk>,
    recovered: Recovered,
    settings: &DurabilityConfig,
    request: &Request,
    clock: Clock,
    took: Ticks,
) -> Opened {
    let (sender, notes) = unbounded();
    let (fsync, on_log_error) = (settings.fsync, settings.on_log_error);
    let alarm = Arc::new(Alarm::new(fsync, on_log_error));
    let log_bytes_max = match settings.log_bytes_max {
        0 => log_bytes_max(&*disk, request.memory_bytes_max),
        bytes => bytes,
    };
    let policy = Policy { fsync, on_log_error, log_bytes_max };
    let wake = Arc::clone(&alarm);
    let Recovered { identity, log, sequences, oldest_position, .. } = recovered;
    let committer = Committer::new(log, &sequences, oldest_position, policy, Arc::new(clock), wake);
    let seed = Seed::of(identity.directory_id);
    let shards = recovered.shards.into_iter().zip(sequences).enumerate();
    let shards = shards.map(|(number, (built, sequence))| {
        let (dirty, always) = (Arc::clone(committer.dirty()), fsync == Fsync::Always);
        let journal = Journal::new(seed, number as u16, sequence, dirty, always);
        OpenedShard::new(built, journal)
    });
    let shards = shards.collect();
    let steps = Steps {
        disk,
        identity,
        random: recovered.random,
        next_number: recovered.next_number,
        base_position: recovered.base_position,
        base: recovered.base,
    };
    let rules = Rules {
        interval_seconds: u64::from(settings.snapshot_interval_seconds),
        growth_percent: u64::from(settings.snapshot_growth_percent),
        log_growth: request.log_growth,
    };
    let begin_now = !recovered.report.damages.is_empty();
    let durability = Durability::new(committer, alarm, (recovered.report, took), sender);
    Opened {
        durability: Arc::new(durability),
        hasher: recovered.hasher,
        shards,
        steps: Snapshotter::new(steps, rules, request.now),
        notes,
        bytes_per_second: settings.snapshot_bytes_per_second,
        begin_now,
        log_failure: recovered.log_failure.map(|why| why.to_string()),
    }
}

impl OpenedShard {
    /// What the start itself has done to the items is the first thing to be recorded.
    fn new(built: BuiltShard, mut journal: Journal) -> Self {
        if built.flushed {
            journal.flush();
        }
        journal.evicted(built.evicted.into_iter());
        Self { store: built.store, flush_at: built.flush_at, journal }
    }
}

impl Opened {
    /// The memory that they share.
    pub fn budget(&self) -> Arc<Budget> {
        // There is one at least, or the directory would have been refused.
        Arc::clone(self.shards[0].store.budget())
    }

    /// The shards, in order.
    pub fn take_shards(&mut self) -> impl Iterator<Item = OpenedShard> + use<> {
        std::mem::take(&mut self.shards).into_iter()
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub fn start(
        self,
        shared: &Arc<Shared>,
        shards: &Arc<Shards>,
        workers: Vec<Address>,
    ) -> io::Result<Keeping> {
        let durability = self.durability;
        let bells: Vec<Arc<Bell>> = workers.iter().map(|worker| Arc::clone(&worker.bell)).collect();
        durability.alarm.set_bells(&bells);
        let server: Weak<Shared> = Arc::downgrade(shared);
        durability.alarm.set_end(move || {
            if let Some(server) = server.upgrade() {
                server.end_at_once();
            }
        });
        if let Some(why) = self.log_failure {
            log::error!("{why}; changes are refused until a snapshot succeeds");
            durability.committer.begin_without(&**shards);
        }
        let stopping = Arc::new(AtomicBool::new(false));
        let mut keeping = Keeping {
            durability: Arc::clone(&durability),
            shards: Arc::clone(shards),
            stopping: Arc::clone(&stopping),
            threads: Vec::new(),
        };
        keeping.spawn("log", |durability, shards| {
            durability.writer.run(&durability.committer, shards);
        })?;
        match durability.committer.policy().fsync {
            Fsync::Always => durability.alarm.set_syncer(Arc::clone(&durability.writer)),
            Fsync::EverySecond => keeping
                .spawn("syncer", |durability, shards| durability.committer.run_syncer(shards))?,
            Fsync::No => {}
        }
        let thread = SnapshotThread::new(
            self.steps,
            Parts {
                notes: self.notes,
                durability,
                shards: Arc::clone(shards),
                workers,
                shared: Arc::clone(shared),
                bytes_per_second: self.bytes_per_second,
                stopping,
                begin_now: self.begin_now,
            },
        );
        keeping.spawn("snapshots", move |_, _| {
            // On Linux this is about the thread alone.
            if let Err(why) = system::lower_priority(SNAPSHOT_NICENESS) {
                log::debug!("snapshots keep their priority: {why}");
            }
            thread.run();
        })?;
        // What the start has to record.
        keeping.durability.commit();
        Ok(keeping)
    }
}

/// The threads that keep data.
pub struct Keeping {
    durability: Arc<Durability>,
    shards: Arc<Shards>,
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Keeping {
    fn spawn(
        &mut self,
        name: &str,
        run: impl FnOnce(&Durability, &Shards) + Send + 'static,
    ) -> io::Result<()> {
        let (durability, shards) = (Arc::clone(&self.durability), Arc::clone(&self.shards));
        let thread = Builder::new().name(name.to_owned());
        self.threads.push(thread.spawn(move || run(&durability, &shards))?);
        Ok(())
    }

    /// Takes a snapshot and waits for it.
    ///
    /// # Errors
    /// Why there is none.
    pub fn snapshot(&self) -> Result<(), String> {
        let (sender, receiver) = bounded(1);
        self.durability.tell(Note::Wanted(Asker::Thread(sender)));
        receiver.recv().unwrap_or_else(|_| Err("the server ends".to_owned()))
    }

    /// Ends the threads, after the workers have ended: what they changed is written and synced.
    pub fn end(mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.durability.tell(Note::Stop);
        self.durability.writer.stop();
        self.durability.committer.stop_syncing();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a thread that keeps data ended in a panic");
            }
        }
        self.durability.finish(&self.shards);
    }
}
