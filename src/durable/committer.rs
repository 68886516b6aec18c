//! Who writes the log when, and what clients may be told of.
//!
//! ```text
//! shards' journals  --take, under each shard's lock-->  Log  --one write-->  file
//!                                                        |-> written: told under everysec and no
//! fdatasync, on another thread                              -> synced: told under always
//! ```
//!
//! Whoever has changed something calls [`Committer::commit`]: who finds nobody at it writes the
//! records of all shards, and looks once more before leaving; who finds somebody at it leaves it to
//! them (`turn`). Nobody waits for the log while holding a shard, and nobody waits for somebody
//! who writes.
//!
//! Owns the log, what of it is on the device, and failures. Starts no thread; reads time from a
//! [`Clock`]. What else is to be done to the log (another file, a new beginning) is left as an
//! [`Order`] to whoever writes.

use super::disk::DiskFile;
use super::journal::Journal;
use super::log::{Log, NextLog};
use super::measure::Histogram;
use super::progress::{Dirty, Progress};
use super::turn::Turn;
use super::{Fsync, OnLogError};
use crate::store::Ticks;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Pieces of large values written at a time: others wait no longer than this takes.
pub const LARGE_BYTES_PER_ROUND: usize = 1 << 20;

/// Rounds for one who commits; what is left then is for the next, or for the same one later.
const ROUNDS_MAX: usize = 4;

/// Writes that take no longer are quick.
const QUICK_MICROSECONDS: u64 = 1000;

/// How often [`Fsync::EverySecond`] syncs.
pub const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// The time, and the same in microseconds since some moment, for measuring.
pub trait Clock: Send + Sync {
    /// The time.
    fn now(&self) -> Ticks;
    /// For durations.
    fn microseconds(&self) -> u64;
}

/// The journals of all shards.
pub trait Journals {
    /// How many shards there are.
    fn count(&self) -> usize;
    /// Calls `visit` with a shard's journal, under the shard's lock.
    fn with_journal(&self, shard: usize, visit: &mut dyn FnMut(&mut Journal));
}

/// Who waits for records to be safe.
pub trait Wake: Send + Sync {
    /// Records of some shards have come further, or were lost.
    fn moved(&self);
    /// The log has failed, and changes are refused or not kept from now on.
    fn failed(&self, why: &str);
}

/// Something to be done to the log by whoever writes it next.
pub enum Order {
    /// Go on in another file, unless the present one holds no changes, or afresh after a failure,
    /// with changes still refused.
    Roll {
        /// The file.
        next: NextLog,
        /// The segment sequence that stores have come to, for tokens.
        sequence_now: u64,
    },
    /// The snapshot of this number counts: changes are taken again, if they were refused for the
    /// failure of so many logs.
    Accept {
        /// The snapshot.
        number: u64,
        /// See [`Committer::epoch`].
        epoch: u64,
    },
}

/// What an order to go on in another file came to.
pub struct Rolled {
    /// The log's number.
    pub number: u64,
    /// Where it begins in the log as a whole.
    pub position: u64,
    /// See [`Committer::epoch`].
    pub epoch: u64,
    /// The file that was given, if it was not needed.
    pub unused: Option<NextLog>,
}

/// What is to be synced.
struct Target {
    /// Files with something that is not on the device, the present one last.
    files: Vec<Arc<dyn DiskFile>>,
    /// Where the log ends, and up to where it is on the device.
    position: u64,
    synced: u64,
    /// Counts beginnings after a failure.
    epoch: u64,
    /// The last of them that a snapshot has made good.
    accepted: u64,
    failed: bool,
    /// Changes have waited for space in vain, and are refused.
    full_too_long: bool,
    stopping: bool,
}

impl Target {
    /// Whether changes are refused, or not kept.
    fn is_refusing(&self) -> bool {
        self.failed || self.accepted < self.epoch || self.full_too_long
    }
}

/// What was written and how long it took, for statistics.
#[derive(Debug, Default)]
pub struct LogMeasures {
    /// Bytes of records.
    pub written_bytes: AtomicU64,
    /// Calls that wrote them.
    pub writes: Histogram,
    /// Syncs.
    pub syncs: Histogram,
}

/// How a committer behaves.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// When a change counts as safe.
    pub fsync: Fsync,
    /// What to do when the log cannot be written.
    pub on_log_error: OnLogError,
    /// Most bytes of logs: changes wait above.
    pub log_bytes_max: u64,
}

/// See the module's text.
pub struct Committer {
    policy: Policy,
    progress: Progress,
    dirty: Arc<Dirty>,
    turn: Turn,
    log: Mutex<Log>,
    target: Mutex<Target>,
    stopped: Condvar,
    /// Held while syncing: of two syncs of a file at a time, the system tells only one that the
    /// device has failed.
    syncing: Mutex<()>,
    orders: Mutex<Vec<Order>>,
    /// There are orders, or records that were taken and not written.
    more: AtomicBool,
    /// What the last order to go on in another file came to.
    rolled: Mutex<Option<Option<Rolled>>>,
    /// The present file, as the next one's header is to name it.
    predecessor: Mutex<(u64, u64)>,
    /// The log's end, and where the oldest file that is still there begins.
    position: AtomicU64,
    oldest_position: AtomicU64,
    file_position: AtomicU64,
    /// Since when logs take all the space they may; 0: they do not.
    full_since: AtomicU64,
    /// How long the last write took, and whether a sync is under way.
    last_write_us: AtomicU64,
    is_syncing: AtomicBool,
    clock: Arc<dyn Clock>,
    wake: Arc<dyn Wake>,
    /// What was written and how long it took.
    pub measures: LogMeasures,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What became of a try to sync.
#[derive(Debug)]
pub enum Synced {
    /// There was nothing to do.
    Nothing,
    /// What was written before is on the device.
    Done,
    /// The device failed, and with it the log.
    Failed(io::Error),
}

impl Committer {
    /// Takes over a log whose file is on the device. `oldest_position`: where the oldest file of
    /// the log begins. `log_failed`: the file is there only to be followed by another one, because
    /// none could be made.
    pub fn new(
        log: Log,
        sequences: &[u64],
        oldest_position: u64,
        policy: Policy,
        clock: Arc<dyn Clock>,
        wake: Arc<dyn Wake>,
    ) -> Self {
        let target = Target {
            files: vec![Arc::clone(log.current().file())],
            position: log.position(),
            synced: log.position(),
            epoch: 0,
            accepted: 0,
            failed: false,
            full_too_long: false,
            stopping: false,
        };
        let (position, predecessor) = (log.position(), log.as_predecessor());
        let file_position = log.file_position();
        Self {
            policy,
            progress: Progress::new(policy.fsync, sequences),
            dirty: Arc::new(Dirty::new(sequences.len())),
            turn: Turn::default(),
            log: Mutex::new(log),
            target: Mutex::new(target),
            stopped: Condvar::new(),
            syncing: Mutex::new(()),
            orders: Mutex::new(Vec::new()),
            more: AtomicBool::new(false),
            rolled: Mutex::new(None),
            predecessor: Mutex::new(predecessor),
            position: AtomicU64::new(position),
            oldest_position: AtomicU64::new(oldest_position),
            file_position: AtomicU64::new(file_position),
            full_since: AtomicU64::new(0),
            last_write_us: AtomicU64::new(0),
            is_syncing: AtomicBool::new(false),
            clock,
            wake,
            measures: LogMeasures::default(),
        }
    }

    /// What is safe.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Where journals say that they are not empty.
    pub fn dirty(&self) -> &Arc<Dirty> {
        &self.dirty
    }

    /// How it behaves.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Where the log as a whole ends.
    pub fn position(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    /// Up to where the log as a whole is on the device.
    pub fn synced_position(&self) -> u64 {
        lock(&self.target).synced
    }

    /// Whether something was written that is not known to be on the device, and may get there.
    pub fn has_unsynced(&self) -> bool {
        let target = lock(&self.target);
        !target.failed && target.position > target.synced
    }

    /// Bytes of logs that are there.
    pub fn log_bytes(&self) -> u64 {
        self.position().saturating_sub(self.oldest_position.load(Ordering::Acquire))
    }

    /// Logs that begin before this position are gone: changes that were refused for want of space
    /// are taken again if there is some.
    pub fn set_oldest_position(&self, position: u64, journals: &dyn Journals) {
        self.oldest_position.store(position, Ordering::Release);
        let mut target = lock(&self.target);
        self.note_space();
        target.full_too_long &= self.is_full();
        self.take_changes(&target, journals);
        drop(target);
        self.wake.moved();
    }

    /// Looks whether logs take all the space they may.
    fn note_space(&self) {
        let is_full = self.log_bytes() >= self.policy.log_bytes_max;
        if is_full != self.is_full() {
            let since = if is_full { self.clock.now().0.max(1) } else { 0 };
            self.full_since.store(since, Ordering::Relaxed);
        }
    }

    /// Whether changes have to wait because logs take all the space they may.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.full_since.load(Ordering::Relaxed) != 0
    }

    /// Since when that is so.
    pub fn full_since(&self) -> Option<Ticks> {
        Some(self.full_since.load(Ordering::Relaxed)).filter(|at| *at != 0).map(Ticks)
    }

    /// Changes have waited for space long enough: they are refused until there is some, or what
    /// else is to be done when the log cannot be written. The log itself stays good if they are
    /// refused. Answers whether they are so from now on.
    pub fn stop_waiting_for_space(&self, why: &str, journals: &dyn Journals) -> bool {
        if self.policy.on_log_error != OnLogError::Refuse {
            self.give_up(why, journals);
            return false;
        }
        let mut target = lock(&self.target);
        if target.is_refusing() || !self.is_full() {
            return false;
        }
        target.full_too_long = true;
        self.for_all(journals, |journal, _| journal.set_refusing(true));
        drop(target);
        self.wake.moved();
        true
    }

    /// Takes changes again if nothing speaks against it. Whoever finds that something does holds
    /// the same lock while it tells the journals so.
    fn take_changes(&self, target: &Target, journals: &dyn Journals) {
        if !target.is_refusing() {
            self.for_all(journals, |journal, _| journal.set_refusing(false));
        }
    }

    /// Whether the log has failed and not been begun afresh.
    pub fn has_failed(&self) -> bool {
        lock(&self.target).failed
    }

    /// Whether changes are refused, or not kept: the log has failed or was full for too long, and
    /// no snapshot has succeeded since.
    pub fn is_refusing(&self) -> bool {
        lock(&self.target).is_refusing()
    }

    /// Bytes of the present file.
    pub fn file_bytes(&self) -> u64 {
        self.position().saturating_sub(self.file_position.load(Ordering::Acquire))
    }

    /// A snapshot counts: changes are taken again, if they were refused for the failure of a log,
    /// and the one begun after it is still good.
    pub fn accept(&self, number: u64, epoch: u64, journals: &dyn Journals) {
        self.order(Order::Accept { number, epoch }, journals);
    }

    /// How often the log was begun afresh.
    pub fn epoch(&self) -> u64 {
        lock(&self.target).epoch
    }

    /// What the header of the next file has to name.
    pub fn predecessor(&self) -> (u64, u64) {
        *lock(&self.predecessor)
    }

    /// The outcome of an order to go on in another file, once. `Some(None)`: it came to nothing,
    /// for the log has failed.
    pub fn take_rolled(&self) -> Option<Option<Rolled>> {
        lock(&self.rolled).take()
    }

    /// Whether a write is likely to be quick: the last one was, and the device is not at work on
    /// what was written before.
    pub fn is_quick(&self) -> bool {
        let last_write_us = self.last_write_us.load(Ordering::Relaxed);
        last_write_us <= QUICK_MICROSECONDS && !self.is_syncing.load(Ordering::Relaxed)
    }

    /// Whether something waits to be written or done.
    #[inline]
    pub fn has_work(&self) -> bool {
        self.dirty.any() || self.more.load(Ordering::SeqCst)
    }

    /// Leaves an order, and sees to it if nobody is at work.
    pub fn order(&self, order: Order, journals: &dyn Journals) {
        lock(&self.orders).push(order);
        self.more.store(true, Ordering::SeqCst);
        self.commit(journals);
    }

    /// Writes the records of all shards, unless somebody is at it. Large values in a few pieces:
    /// whoever finds [`Committer::has_work`] later goes on with them.
    pub fn commit(&self, journals: &dyn Journals) {
        let mut rounds = 0;
        self.turn.run(
            || self.has_work(),
            || {
                rounds += 1;
                self.round(journals) && rounds < ROUNDS_MAX
            },
        );
        self.progress.watch_age(self.clock.now());
    }

    /// Answers whether to look for more.
    fn round(&self, journals: &dyn Journals) -> bool {
        let mut log = lock(&self.log);
        self.more.store(false, Ordering::SeqCst);
        let orders = std::mem::take(&mut *lock(&self.orders));
        let (failed, synced) = {
            let target = lock(&self.target);
            (target.failed, target.synced)
        };
        let written = if failed {
            log.discard();
            Ok(())
        } else {
            self.write(&mut log, synced, journals)
        };
        let rolls = orders.iter().any(|order| matches!(order, Order::Roll { .. }));
        let outcome = written.and_then(|()| {
            orders.into_iter().try_for_each(|order| self.obey(order, &mut log, journals))
        });
        if outcome.is_err() {
            log.discard();
            if rolls {
                *lock(&self.rolled) = Some(None);
            }
        }
        self.more.fetch_or(log.has_pending(), Ordering::SeqCst);
        let name = log.name().to_owned();
        drop(log);
        match outcome {
            Ok(()) => {
                self.wake.moved();
                !failed
            }
            Err(why) => {
                self.give_up(&format!("{name}: {why}"), journals);
                false
            }
        }
    }

    fn write(&self, log: &mut Log, synced: u64, journals: &dyn Journals) -> io::Result<()> {
        let now = self.clock.now();
        for shard in self.dirty.shards() {
            let synced = self.progress.synced(shard);
            journals.with_journal(shard, &mut |journal| log.take(shard, journal, synced));
        }
        self.write_taken(log, synced, now)
    }

    fn write_taken(&self, log: &mut Log, synced: u64, now: Ticks) -> io::Result<()> {
        if !log.has_pending() {
            return Ok(());
        }
        let (begun, before) = (self.clock.microseconds(), log.position());
        let moved = log.write(LARGE_BYTES_PER_ROUND, synced, now)?;
        let took = self.clock.microseconds().saturating_sub(begun);
        self.measures.writes.record(took);
        self.last_write_us.store(took, Ordering::Relaxed);
        self.measures.written_bytes.fetch_add(log.position() - before, Ordering::Relaxed);
        self.publish(log, &moved, now);
        Ok(())
    }

    /// Makes known what was written, unless the log has failed meanwhile.
    fn publish(&self, log: &Log, moved: &[(usize, u64)], now: Ticks) {
        let mut target = lock(&self.target);
        if target.failed {
            return;
        }
        target.position = log.position();
        self.position.store(log.position(), Ordering::Release);
        for (shard, sequence) in moved {
            self.progress.set_written(*shard, *sequence);
        }
        if self.progress.unsynced_since().is_none() {
            self.progress.set_unsynced_since(Some(now));
        }
        self.note_space();
    }

    fn obey(&self, order: Order, log: &mut Log, journals: &dyn Journals) -> io::Result<()> {
        let now = self.clock.now();
        match order {
            Order::Roll { next, sequence_now } => {
                log.note_tokens(sequence_now);
                if self.has_failed() {
                    self.begin_afresh(next, log, journals);
                    return Ok(());
                }
                let epoch = self.epoch();
                if !log.holds_changes() && !log.has_pending() {
                    self.has_rolled(log, epoch, Some(next));
                    return Ok(());
                }
                log.roll(next)?;
                let mut target = lock(&self.target);
                target.files.push(Arc::clone(log.current().file()));
                target.position = log.position();
                drop(target);
                self.has_rolled(log, epoch, None);
                Ok(())
            }
            Order::Accept { number, epoch } => {
                if self.has_failed() || self.epoch() != epoch {
                    return Ok(());
                }
                log.note_snapshot(number);
                self.write_taken(log, self.synced_position(), now)?;
                let mut target = lock(&self.target);
                target.accepted = epoch;
                self.take_changes(&target, journals);
                Ok(())
            }
        }
    }

    fn has_rolled(&self, log: &Log, epoch: u64, unused: Option<NextLog>) {
        self.position.store(log.position(), Ordering::Release);
        self.file_position.store(log.file_position(), Ordering::Release);
        *lock(&self.predecessor) = log.as_predecessor();
        let (number, position) = (log.current().number(), log.file_position());
        *lock(&self.rolled) = Some(Some(Rolled { number, position, epoch, unused }));
    }

    fn begin_afresh(&self, next: NextLog, log: &mut Log, journals: &dyn Journals) {
        let (mut sequences, now) = (vec![0; journals.count()], self.clock.now());
        self.for_all(journals, |journal, shard| sequences[shard] = journal.resume());
        if let Err(why) = log.begin_afresh(next, sequences.clone()) {
            log::error!("no new log: {why}");
            *lock(&self.rolled) = Some(None);
            return self.pause_all(journals);
        }
        let mut target = lock(&self.target);
        target.files = vec![Arc::clone(log.current().file())];
        (target.position, target.synced) = (log.position(), log.file_position());
        target.epoch += 1;
        target.failed = false;
        for (shard, sequence) in sequences.iter().enumerate() {
            self.progress.set_written(shard, *sequence);
        }
        self.progress.set_unsynced_since(Some(now));
        let epoch = target.epoch;
        drop(target);
        self.has_rolled(log, epoch, None);
    }

    fn for_all(&self, journals: &dyn Journals, mut visit: impl FnMut(&mut Journal, usize)) {
        for shard in 0..journals.count() {
            journals.with_journal(shard, &mut |journal| visit(journal, shard));
        }
    }

    /// The log has failed: what nobody was told of is lost, and no more is recorded.
    fn give_up(&self, why: &str, journals: &dyn Journals) {
        {
            let mut target = lock(&self.target);
            if target.failed {
                return;
            }
            target.failed = true;
            self.pause_all(journals);
        }
        self.progress.set_unsynced_since(None);
        self.wake.failed(why);
        self.wake.moved();
    }

    fn pause_all(&self, journals: &dyn Journals) {
        let serve =
            self.policy.on_log_error == OnLogError::Serve && self.policy.fsync != Fsync::Always;
        self.for_all(journals, |journal, shard| {
            let last = journal.pause();
            journal.set_refusing(!serve);
            // Under the shard's lock: nothing it records later is among what is lost.
            self.progress.lose(shard, last);
        });
    }

    /// None could be made at the start: what there is is served, and not changed.
    pub fn begin_without(&self, journals: &dyn Journals) {
        lock(&self.target).failed = true;
        self.pause_all(journals);
    }

    /// Syncs what is written, on the caller's thread.
    pub fn sync_now(&self, journals: &dyn Journals) -> Synced {
        let _syncing = lock(&self.syncing);
        let (files, position, epoch, sequences) = {
            let target = lock(&self.target);
            if target.failed || target.position <= target.synced {
                return Synced::Nothing;
            }
            // Under one lock with the position: what it holds of each shard, neither more nor less.
            (target.files.clone(), target.position, target.epoch, self.progress.all_written())
        };
        let (now, begun) = (self.clock.now(), self.clock.microseconds());
        self.is_syncing.store(true, Ordering::Relaxed);
        let done = files.iter().try_for_each(|file| file.sync());
        self.is_syncing.store(false, Ordering::Relaxed);
        self.measures.syncs.record(self.clock.microseconds().saturating_sub(begun));
        let mut target = lock(&self.target);
        if target.failed || target.epoch != epoch {
            // Given up meanwhile, and it was said what is lost.
            return Synced::Nothing;
        }
        if let Err(why) = done {
            drop(target);
            self.give_up(&format!("the log cannot be synced: {why}"), journals);
            return Synced::Failed(why);
        }
        // All but the last of those synced are complete.
        target.files.drain(..files.len() - 1);
        target.synced = position;
        self.progress.set_synced(&sequences);
        let all = target.position == position;
        self.progress.set_unsynced_since((!all).then_some(now));
        self.progress.watch_age(self.clock.now());
        drop(target);
        self.wake.moved();
        Synced::Done
    }

    /// Syncs every second, until [`Committer::stop_syncing`]: for a thread of its own.
    pub fn run_syncer(&self, journals: &dyn Journals) {
        loop {
            let target = lock(&self.target);
            let is_on = |target: &mut Target| !target.stopping;
            let waited = self.stopped.wait_timeout_while(target, SYNC_INTERVAL, is_on);
            let stopping = waited.unwrap_or_else(PoisonError::into_inner).0.stopping;
            self.sync_now(journals);
            if stopping {
                return;
            }
        }
    }

    /// Ends [`Committer::run_syncer`] after one more sync.
    pub fn stop_syncing(&self) {
        lock(&self.target).stopping = true;
        self.stopped.notify_one();
    }
}
