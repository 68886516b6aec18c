//! How workers have the log written, and whom that wakes.
//!
//! A device that does not take a write for seconds must not keep connections waiting that only
//! read. So a worker that has several of them does not write itself: it wakes a thread that does,
//! once nothing else is coming or 200 microseconds after the first change, for waking it costs as
//! much as a few sets. That thread takes what all shards have recorded by then
//! (`crate::durable::committer`), and wakes the workers that have replies waiting for it. A worker
//! with a single connection keeps nobody waiting (but whoever connects meanwhile) and writes
//! itself, which takes half the time, as long as the device is quick.
//!
//! Owns that thread's sleep, and the shards' faces towards the log.

use crate::durable::committer::{Clock, Committer, Journals, Wake};
use crate::durable::journal::Journal;
use crate::durable::snapshotter::Items;
use crate::durable::{Fsync, OnLogError};
use crate::server::clock::{self, Moment};
use crate::server::worker::inbox::Bell;
use crate::server::worker::parking::Parking;
use crate::server::worker::shards::Shards;
use crate::store::{SharedItem, Ticks};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

/// How long changes wait for those of other connections that have something to do. Under `always`
/// also about what a sync takes on a quick device: changes that miss one wait for the next.
const GATHER_MICROSECONDS_MAX: u64 = 200;

/// Keeps a write back while more changes are coming, so that one does for all of them.
#[derive(Debug, Default)]
pub struct Gathering {
    since: Option<Moment>,
}

impl Gathering {
    /// Whether changes that could be written wait for more. `idle`: nothing else is coming.
    pub fn holds(&mut self, at: Moment, idle: bool) -> bool {
        if idle {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(at);
        let holds = at.microseconds_since(since) < GATHER_MICROSECONDS_MAX;
        if !holds {
            self.since = None;
        }
        holds
    }

    /// Whether changes wait.
    pub fn is_holding(&self) -> bool {
        self.since.is_some()
    }
}

/// The writer looks at least this often whether there is something to do.
const LOOK: Duration = Duration::from_secs(1);

impl Clock for clock::Clock {
    fn now(&self) -> Ticks {
        clock::Clock::now(self)
    }

    fn microseconds(&self) -> u64 {
        self.moment().0 / 1_000
    }
}

impl Journals for Shards {
    fn count(&self) -> usize {
        Shards::count(self)
    }

    fn with_journal(&self, shard: usize, visit: &mut dyn FnMut(&mut Journal)) {
        if let Some(journal) = self.hold(shard).journal() {
            visit(journal);
        }
    }
}

impl Items for Shards {
    fn share(
        &self,
        shard: usize,
        parts: Range<usize>,
        visit: &mut dyn FnMut(SharedItem, u8) -> bool,
    ) -> Option<usize> {
        let shard = self.hold(shard);
        for part in parts.clone() {
            let mut goes_on = true;
            let visit = |item, popularity| goes_on = visit(item, popularity);
            if !shard.store().share_part(part, visit) {
                return None;
            }
            if !goes_on {
                return Some(part + 1);
            }
        }
        Some(parts.end)
    }

    fn flush_and_tokens(&self, shard: usize) -> (Option<Ticks>, u64) {
        let shard = self.hold(shard);
        (shard.flush_at(), shard.store().sequence_now())
    }

    fn live_bytes(&self) -> u64 {
        self.each().map(|shard| shard.store().live_bytes()).sum()
    }
}

/// Wakes workers whose replies wait for the log, and does what is to be done when that fails.
pub struct Alarm {
    bells: OnceLock<Box<[Arc<Bell>]>>,
    syncer: OnceLock<Arc<Writer>>,
    /// Ends the process, or the server.
    end: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Counts what has become safe or was lost: a worker that is about to sleep looks here.
    moves: AtomicU64,
    fsync: Fsync,
    on_log_error: OnLogError,
    failures: Mutex<Failures>,
}

/// Failures of the log.
#[derive(Debug, Clone, Default)]
pub struct Failures {
    /// How many.
    pub count: u64,
    /// What the last one was.
    pub last: Option<String>,
}

impl Alarm {
    /// Nobody to wake so far.
    pub fn new(fsync: Fsync, on_log_error: OnLogError) -> Self {
        Self {
            bells: OnceLock::new(),
            syncer: OnceLock::new(),
            end: OnceLock::new(),
            moves: AtomicU64::new(0),
            fsync,
            on_log_error,
            failures: Mutex::default(),
        }
    }

    /// Wakes these workers from now on. Once: there is one server.
    pub fn set_bells(&self, bells: &[Arc<Bell>]) {
        let _ = self.bells.set(bells.into());
    }

    /// Has this thread sync what others have written. Once, and only under `always`.
    pub fn set_syncer(&self, writer: Arc<Writer>) {
        let _ = self.syncer.set(writer);
    }

    /// Calls this if nothing unlogged may be served. Once.
    pub fn set_end(&self, end: impl Fn() + Send + Sync + 'static) {
        let _ = self.end.set(Box::new(end));
    }

    /// Changes whenever something has become safe or was lost.
    pub fn moves(&self) -> u64 {
        self.moves.load(Ordering::SeqCst)
    }

    /// Counts a failure.
    pub fn note(&self, why: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.count += 1;
        failures.last = Some(why.to_owned());
    }

    /// What has failed.
    pub fn failures(&self) -> Failures {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Wake for Alarm {
    fn moved(&self) {
        self.moves.fetch_add(1, Ordering::SeqCst);
        self.syncer.get().into_iter().for_each(|writer| writer.wake());
        let bells = self.bells.get().into_iter().flatten();
        bells.filter(|bell| bell.waits_for_log()).for_each(|bell| bell.ring());
    }

    fn failed(&self, why: &str) {
        self.note(why);
        let policy = if self.fsync == Fsync::Always { OnLogError::Exit } else { self.on_log_error };
        match policy {
            OnLogError::Exit => {
                log::error!("{why}; the server ends, so that nothing unlogged is served");
                self.end.get().into_iter().for_each(|end| end());
            }
            OnLogError::Refuse => {
                log::error!("{why}; changes are refused until a snapshot succeeds");
            }
            OnLogError::Serve => {
                log::error!("{why}; changes are not kept until a snapshot succeeds");
            }
        }
    }
}

/// The thread that writes the log.
#[derive(Default)]
pub struct Writer {
    parking: Parking,
    thread: OnceLock<Thread>,
    stopping: AtomicBool,
}

impl Writer {
    /// There is something to write.
    #[inline]
    pub fn wake(&self) {
        if self.parking.must_wake()
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Ends [`Writer::run`] once everything is written.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Writes what there is, again and again. Under `always` it syncs in between: what comes
    /// meanwhile shares the next write and the next sync.
    pub fn run(&self, committer: &Committer, journals: &dyn Journals) {
        // Only once: there is one such thread.
        let _ = self.thread.set(thread::current());
        let syncs = committer.policy().fsync == Fsync::Always;
        // Whoever else writes does not sync; and what was left to them is not written yet then.
        let is_wanted = || committer.has_work() || (syncs && committer.has_unsynced());
        loop {
            let stopping = self.stopping.load(Ordering::SeqCst);
            while is_wanted() {
                committer.commit(journals);
                if syncs {
                    committer.sync_now(journals);
                }
            }
            if stopping {
                return;
            }
            self.parking.park();
            if !is_wanted() && !self.stopping.load(Ordering::SeqCst) {
                thread::park_timeout(LOOK);
            }
            self.parking.unpark();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_gather_while_others_come_and_not_for_ever() {
        let at = |microseconds: u64| Moment(microseconds * 1_000);
        let late = 100 + GATHER_MICROSECONDS_MAX;
        // When, whether nothing else is coming, and whether the write is kept back.
        let turns = [
            (0, true, false),
            (100, false, true),
            (150, false, true),
            (160, true, false),
            (100, false, true),
            (late - 1, false, true),
            (late, false, false),
            (late + 1, false, true),
            (late + 2, true, false),
            (late + 3, false, true),
        ];
        let mut gathering = Gathering::default();
        for (microseconds, idle, kept_back) in turns {
            assert_eq!(gathering.holds(at(microseconds), idle), kept_back, "at {microseconds} us");
        }
    }
}
