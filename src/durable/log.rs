//! Writing a journal to its file, and knowing what is safe.
//!
//! A worker owns the [`Log`] of its shard and writes once a turn. A [`Syncer`] on another thread
//! makes the file durable. Both tell the [`Progress`], which every worker asks before it lets a
//! reply leave.
//!
//! **Invariant:** a file with a failed write or sync is never written again: the kernel may have
//! dropped what it could not write, and would report success the next time (Rebello et al., "Can
//! applications recover from fsync failures?", USENIX ATC 2020).

use super::Fsync;
use super::change::{Begin, kind};
use super::disk::{DiskFile, append_all};
use super::journal::{Journal, Large};
use super::record::{FILE_HEADER_BYTES, FileHeader, RECORD_HEADER_BYTES, Seed, frame};
use crate::store::Ticks;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Pieces of large values written in one turn, in bytes, unless a change of logs waits for them:
/// others wait no longer than this takes.
pub const LARGE_BYTES_PER_TURN: usize = 1 << 20;

/// Memory for the records of a turn that is kept for the next.
const ENCODED_BYTES_KEPT: usize = 1 << 20;

/// Changes that wait for a sync to end, at most.
const DEFERRED_BYTES_MAX: usize = 256 << 10;

/// What a loss of power may cost under [`Fsync::EverySecond`].
const LOSS_MAX: Ticks = Ticks(2 * Ticks::PER_SECOND);

/// Unsynced data older than this makes changes wait, so that no more of them is at stake. Less than
/// what is promised: replies still leave for as long as a worker waits for the processor between
/// looking at the clock and sending them. (With none to spare, one of 180 power cuts lost 2.02
/// seconds, on a machine with more to do than processors.)
pub const UNSYNCED_AGE_MAX: Ticks = Ticks(LOSS_MAX.0 - Ticks::PER_SECOND / 4);

/// How often [`Fsync::EverySecond`] syncs.
pub const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// How far one shard's log has come. Numbers are sequences of records.
#[derive(Debug)]
pub struct Progress {
    fsync: Fsync,
    /// The kernel has them.
    written: AtomicU64,
    /// The device has them.
    synced: AtomicU64,
    /// Records in this range were lost when the log failed.
    lost_from: AtomicU64,
    lost_through: AtomicU64,
    /// When the oldest record that is not synced was written; 0: all are.
    unsynced_since: AtomicU64,
    /// That is too long ago.
    late: AtomicBool,
    /// Bytes of the present file, and how many of them are on the device.
    file_bytes: AtomicU64,
    synced_bytes: AtomicU64,
}

/// Whether a reply may leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Safety {
    /// Its change is as safe as the mode promises.
    Safe,
    /// Not yet.
    Pending,
    /// The change is not in the log, and never will be.
    Lost,
}

impl Progress {
    /// Nothing is written yet.
    pub fn new(fsync: Fsync) -> Self {
        Self {
            fsync,
            written: AtomicU64::new(0),
            synced: AtomicU64::new(0),
            lost_from: AtomicU64::new(u64::MAX),
            lost_through: AtomicU64::new(0),
            unsynced_since: AtomicU64::new(0),
            late: AtomicBool::new(false),
            file_bytes: AtomicU64::new(0),
            synced_bytes: AtomicU64::new(0),
        }
    }

    /// Whether a reply that depends on this record may leave.
    #[inline]
    pub fn safety(&self, sequence: u64) -> Safety {
        let lost = self.lost_from.load(Ordering::Acquire) <= sequence
            && sequence <= self.lost_through.load(Ordering::Acquire);
        let must_be_synced = self.fsync == Fsync::Always || self.late.load(Ordering::Acquire);
        let safe = if must_be_synced { self.synced() } else { self.written() };
        match (lost, sequence <= safe) {
            (true, _) => Safety::Lost,
            (false, true) => Safety::Safe,
            (false, false) => Safety::Pending,
        }
    }

    /// The last record on the device.
    pub fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// The last record that the kernel has.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// When the oldest record that is not on the device was written.
    pub fn unsynced_since(&self) -> Option<Ticks> {
        Some(self.unsynced_since.load(Ordering::Acquire)).filter(|at| *at != 0).map(Ticks)
    }

    /// Bytes of the present log file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the present log file that are not on the device.
    pub fn unsynced_bytes(&self) -> u64 {
        self.file_bytes().saturating_sub(self.synced_bytes.load(Ordering::Relaxed))
    }

    /// Whether changes wait because the device is behind.
    pub fn is_late(&self) -> bool {
        self.late.load(Ordering::Acquire)
    }

    /// Notes whether the device is behind.
    pub fn watch_age(&self, now: Ticks) {
        let since = self.unsynced_since().filter(|_| self.fsync == Fsync::EverySecond);
        let late = since.is_some_and(|since| now.0.saturating_sub(since.0) > UNSYNCED_AGE_MAX.0);
        if late != self.is_late() {
            self.late.store(late, Ordering::Release);
        }
    }

    /// What no reply has told yet is lost, up to `through`. What an earlier failure has lost stays
    /// so: who waits for it may not have looked in between. (Records between two failures count as
    /// lost with that. They are told already, or their connections are closed for nothing.)
    fn lose(&self, through: u64) {
        let must_be_synced = self.fsync == Fsync::Always || self.is_late();
        let told = if must_be_synced { self.synced() } else { self.written() };
        self.lost_through.store(through, Ordering::Release);
        self.lost_from.fetch_min(told + 1, Ordering::AcqRel);
    }
}

/// What is to be synced.
struct Target {
    file: Arc<dyn DiskFile>,
    file_id: u64,
    /// Bytes and records written.
    offset: u64,
    sequence: u64,
    /// The logs before, which have to be on the device first.
    previous: Vec<Arc<dyn DiskFile>>,
    /// What is on the device already.
    synced_offset: u64,
    wanted: bool,
    stopping: bool,
    failed: bool,
}

impl Target {
    /// Whether the log still goes by this file.
    fn counts(&self, file: &Arc<dyn DiskFile>) -> bool {
        Arc::ptr_eq(&self.file, file) || self.previous.iter().any(|old| Arc::ptr_eq(old, file))
    }
}

/// Makes one shard's log durable. Its methods are called by the worker, and [`Syncer::run`] by a
/// thread of its own.
pub struct Syncer {
    target: Mutex<Target>,
    changed: Condvar,
    /// Held while syncing: of two syncs of a file at a time, the system tells only one that the
    /// device has failed.
    turn: Mutex<()>,
    /// A sync is under way.
    busy: AtomicBool,
    progress: Arc<Progress>,
}

/// One try to sync.
#[derive(Debug)]
pub enum Synced {
    /// There was nothing to do.
    Nothing,
    /// The device has everything up to this record.
    Through(u64),
    /// The device failed; the log is of no use any more.
    Failed {
        /// The log's file at that time, by the id in its header.
        file_id: u64,
        /// What the system says.
        why: io::Error,
    },
}

impl Syncer {
    fn lock(&self) -> MutexGuard<'_, Target> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a sync is under way.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst)
    }

    /// Syncs what is written, on the caller's thread.
    pub fn sync_now(&self, now: impl Fn() -> Ticks) -> Synced {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.busy.store(true, Ordering::SeqCst);
        let synced = self.sync(now);
        self.busy.store(false, Ordering::SeqCst);
        synced
    }

    fn sync(&self, now: impl Fn() -> Ticks) -> Synced {
        let (file, file_id, offset, sequence, previous) = {
            let mut target = self.lock();
            target.wanted = false;
            if target.failed || (target.sequence <= self.progress.synced()) {
                return Synced::Nothing;
            }
            let Target { file, file_id, offset, sequence, previous, .. } = &*target;
            (Arc::clone(file), *file_id, *offset, *sequence, previous.clone())
        };
        let begun = now();
        let done = previous.iter().try_for_each(|old| old.sync()).and_then(|()| file.sync());
        let mut target = self.lock();
        if target.failed || !target.counts(&file) {
            // The worker has given that file up meanwhile, and said what is lost.
            return Synced::Nothing;
        }
        if let Err(why) = done {
            target.failed = true;
            self.progress.lose(u64::MAX);
            return Synced::Failed { file_id: target.file_id, why };
        }
        let is_done = |old: &Arc<_>| previous.iter().any(|done| Arc::ptr_eq(done, old));
        target.previous.retain(|old| !is_done(old));
        if target.file_id == file_id {
            target.synced_offset = offset;
            self.progress.synced_bytes.store(offset, Ordering::Relaxed);
        }
        self.progress.synced.fetch_max(sequence, Ordering::AcqRel);
        let all = target.sequence == sequence;
        self.progress.unsynced_since.store(if all { 0 } else { begun.0 }, Ordering::Release);
        self.progress.watch_age(now());
        Synced::Through(sequence)
    }

    /// Syncs whenever it is due, until [`Syncer::stop`]. `report` hears of every outcome.
    pub fn run(&self, now: impl Fn() -> Ticks, report: impl Fn(Synced)) {
        loop {
            let stopping = self.wait();
            match self.sync_now(&now) {
                Synced::Nothing => {}
                outcome => report(outcome),
            }
            if stopping {
                return;
            }
        }
    }

    /// Waits until a sync is due; answers whether it is the last.
    fn wait(&self) -> bool {
        let mut target = self.lock();
        let fsync = self.progress.fsync;
        while !target.wanted && !target.stopping {
            if fsync == Fsync::EverySecond {
                let waited = self.changed.wait_timeout(target, SYNC_INTERVAL);
                let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                target = guard;
                if timeout.timed_out() {
                    break;
                }
            } else {
                target = self.changed.wait(target).unwrap_or_else(PoisonError::into_inner);
            }
        }
        target.stopping
    }

    /// Asks for a sync soon.
    pub fn want(&self) {
        self.lock().wanted = true;
        self.changed.notify_one();
    }

    /// Ends [`Syncer::run`] after one more sync.
    pub fn stop(&self) {
        self.lock().stopping = true;
        self.changed.notify_one();
    }
}

/// A file that a log can go on in: made, synced and named by the manifest.
#[derive(Clone)]
pub struct LogFile {
    /// Its name, for messages.
    pub name: String,
    /// What it begins with.
    pub header: FileHeader,
    /// The file.
    pub file: Arc<dyn DiskFile>,
}

/// The writing end of one shard's log.
pub struct Log {
    current: LogFile,
    offset: u64,
    /// What the last `SYNCED` record says.
    marked_offset: u64,
    progress: Arc<Progress>,
    syncer: Arc<Syncer>,
    /// Changes wait for the sync that is under way.
    deferred: bool,
}

impl Log {
    /// Begins the first log of a run. The journal's first record is the log's beginning.
    pub fn begin(current: LogFile, fsync: Fsync) -> (Self, Journal) {
        let progress = Arc::new(Progress::new(fsync));
        let syncer = Arc::new(Syncer {
            target: Mutex::new(Target {
                file: Arc::clone(&current.file),
                file_id: current.header.file_id,
                offset: FILE_HEADER_BYTES as u64,
                sequence: 0,
                previous: Vec::new(),
                synced_offset: 0,
                wanted: false,
                stopping: false,
                failed: false,
            }),
            changed: Condvar::new(),
            turn: Mutex::new(()),
            busy: AtomicBool::new(false),
            progress: Arc::clone(&progress),
        });
        let seed = Seed::of(current.header.file_id);
        let mut journal = Journal::new(seed, 0, fsync == Fsync::Always);
        push_begin(&mut journal, 0, 0);
        let offset = FILE_HEADER_BYTES as u64;
        (Self { current, offset, marked_offset: 0, progress, syncer, deferred: false }, journal)
    }

    /// What is safe.
    pub fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// What syncs this log.
    pub fn syncer(&self) -> &Arc<Syncer> {
        &self.syncer
    }

    /// The name of the present file.
    pub fn name(&self) -> &str {
        &self.current.name
    }

    /// Its id, as its header has it.
    pub fn file_id(&self) -> u64 {
        self.current.header.file_id
    }

    /// Writes what has gathered. Of large values only a part, so that a turn stays short: call it
    /// again soon while the journal is not empty.
    ///
    /// # Errors
    /// A write failed. Nothing more may be written to this file, and what was not acknowledged by
    /// then never will be: see [`Log::fail`].
    pub fn commit(&mut self, journal: &mut Journal, now: Ticks) -> io::Result<()> {
        self.commit_part(journal, now, LARGE_BYTES_PER_TURN)
    }

    /// As [`Log::commit`], with so many bytes of large values.
    ///
    /// # Errors
    /// As [`Log::commit`].
    pub fn commit_part(
        &mut self,
        journal: &mut Journal,
        now: Ticks,
        large_bytes: usize,
    ) -> io::Result<()> {
        if journal.is_paused() {
            return Ok(());
        }
        self.deferred = self.may_defer(journal);
        if !journal.is_empty() && !self.deferred {
            self.mark_synced(journal)?;
            self.write(journal, large_bytes)?;
            self.publish(journal, now);
        }
        self.progress.watch_age(now);
        journal.note_synced(self.progress.synced());
        Ok(())
    }

    /// While a sync is under way, what is written would wait for the next one anyway: then one
    /// write for all of it does.
    fn may_defer(&self, journal: &Journal) -> bool {
        self.progress.fsync == Fsync::Always
            && journal.large.is_empty()
            && journal.encoded.len() < DEFERRED_BYTES_MAX
            && self.syncer.is_busy()
    }

    /// Whether changes wait that could be written now.
    pub fn is_ready(&self, journal: &Journal) -> bool {
        !journal.is_paused() && !journal.is_empty() && !self.may_defer(journal)
    }

    /// Tells later readers what was on the device when this was written: damage before that place
    /// is no torn write. A log whose sync has failed, of which the worker has not been told yet, is
    /// not written any more.
    fn mark_synced(&mut self, journal: &mut Journal) -> io::Result<()> {
        let target = self.syncer.lock();
        if target.failed {
            return Err(sync_has_failed());
        }
        let synced_offset = target.synced_offset;
        drop(target);
        if synced_offset > self.marked_offset {
            self.marked_offset = synced_offset;
            journal.push(kind::SYNCED, &[&synced_offset.to_le_bytes()]);
        }
        Ok(())
    }

    fn publish(&mut self, journal: &Journal, now: Ticks) {
        let written = match journal.large.front() {
            Some(large) => large.sequence - 1,
            None => journal.sequence(),
        };
        self.progress.file_bytes.store(self.offset, Ordering::Relaxed);
        self.progress.written.store(written, Ordering::Release);
        let mut target = self.syncer.lock();
        (target.offset, target.sequence) = (self.offset, written);
        // Under the lock, for a sync that ends now sets it to 0 if it has synced all.
        let unsynced = &self.progress.unsynced_since;
        let _ = unsynced.compare_exchange(0, now.0, Ordering::AcqRel, Ordering::Acquire);
        target.wanted |= self.progress.fsync == Fsync::Always;
        let wanted = target.wanted;
        // Not under the lock: the syncer would wake only to wait for it.
        drop(target);
        if wanted {
            self.syncer.changed.notify_one();
        }
    }

    fn write(&mut self, journal: &mut Journal, mut large_bytes: usize) -> io::Result<()> {
        let seed = journal.seed();
        loop {
            let until = journal.large.front().map_or(journal.encoded.len(), |large| large.at);
            if journal.written_bytes < until {
                let bytes = &journal.encoded[journal.written_bytes..until];
                append_all(&*self.current.file, bytes)?;
                self.offset += bytes.len() as u64;
                journal.written_bytes = until;
            }
            let Some(large) = journal.large.front_mut() else { break };
            if large_bytes == 0 {
                return Ok(());
            }
            let piece_bytes = self.write_piece(seed, large)?;
            large_bytes = large_bytes.saturating_sub(piece_bytes);
            if large.rest.is_empty() {
                journal.large.pop_front();
            }
        }
        journal.encoded.clear();
        journal.written_bytes = 0;
        // One turn's burst does not stay for ever.
        journal.encoded.shrink_to(ENCODED_BYTES_KEPT);
        Ok(())
    }

    fn write_piece(&mut self, seed: Seed, large: &mut Large) -> io::Result<usize> {
        let (kind, piece) = large.next_piece();
        let (header, padding) = frame(seed, large.sequence, kind, &piece);
        self.write_slices([&header, &piece, padding])?;
        large.rest = large.rest.slice(piece.len()..);
        large.sequence += 1;
        Ok(piece.len())
    }

    fn write_slices(&mut self, slices: [&[u8]; 3]) -> io::Result<()> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let vectors = slices.map(IoSlice::new);
        let mut done = match self.current.file.append(&vectors) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            other => other?,
        };
        for slice in slices {
            let skip = done.min(slice.len());
            done -= skip;
            append_all(&*self.current.file, &slice[skip..])?;
        }
        self.offset += total as u64;
        Ok(())
    }

    /// Goes on in another file. All of the journal is written to the present one first.
    ///
    /// # Errors
    /// As [`Log::commit`], or a sync of the present file has failed; it stays the current one then.
    pub fn switch(&mut self, journal: &mut Journal, next: LogFile, now: Ticks) -> io::Result<u64> {
        if self.syncer.lock().failed {
            return Err(sync_has_failed());
        }
        journal.push(kind::END, &[&next.header.generation.to_le_bytes()]);
        let end_crc = last_crc_of(&journal.encoded).unwrap_or(0);
        self.write(journal, usize::MAX)?;
        self.publish(journal, now);
        let previous_file_id = self.current.header.file_id;
        self.take_up(journal, next, Before::Counts)?;
        let sequence = push_begin(journal, previous_file_id, end_crc);
        self.commit(journal, now)?;
        Ok(sequence)
    }

    /// Goes on in another file after the present one has failed. What it holds counts only once
    /// the snapshot that is begun with it has succeeded.
    ///
    /// # Errors
    /// The new file fails too.
    pub fn replace(&mut self, journal: &mut Journal, next: LogFile, now: Ticks) -> io::Result<u64> {
        journal.pause();
        self.take_up(journal, next, Before::IsGivenUp)?;
        journal.resume();
        let sequence = push_begin(journal, 0, 0);
        self.write(journal, usize::MAX)?;
        self.publish(journal, now);
        Ok(sequence)
    }

    /// Makes a file the present one. All under one lock: between naming it and naming the ones it
    /// needs, a sync would call records safe that are not.
    fn take_up(&mut self, journal: &mut Journal, next: LogFile, before: Before) -> io::Result<()> {
        let mut target = self.syncer.lock();
        match before {
            // To sync it again would hide the failure.
            Before::Counts if target.failed => return Err(sync_has_failed()),
            Before::Counts => {
                let old = Arc::clone(&target.file);
                target.previous.push(old);
            }
            Before::IsGivenUp => {
                target.previous.clear();
                // A sync may have failed last; what comes now is not lost.
                self.progress.lost_through.fetch_min(journal.sequence(), Ordering::AcqRel);
            }
        }
        target.file = Arc::clone(&next.file);
        target.file_id = next.header.file_id;
        target.offset = FILE_HEADER_BYTES as u64;
        (target.synced_offset, target.failed) = (0, false);
        drop(target);
        journal.begin_file(Seed::of(next.header.file_id));
        self.progress.synced_bytes.store(FILE_HEADER_BYTES as u64, Ordering::Relaxed);
        (self.offset, self.marked_offset) = (FILE_HEADER_BYTES as u64, 0);
        self.current = next;
        Ok(())
    }

    /// Gives the present file up: what is not acknowledged yet never will be.
    pub fn fail(&mut self, journal: &mut Journal) {
        // Under the lock, for a sync that ends now tells what it knows, too.
        let mut target = self.syncer.lock();
        target.failed = true;
        self.progress.lose(journal.sequence());
        self.progress.unsynced_since.store(0, Ordering::Release);
        self.progress.late.store(false, Ordering::Release);
        drop(target);
        journal.pause();
    }
}

/// What becomes of the file before when a log goes on in another.
#[derive(Clone, Copy)]
enum Before {
    /// It has to be on the device before the next one counts.
    Counts,
    /// It has failed.
    IsGivenUp,
}

fn sync_has_failed() -> io::Error {
    io::Error::other("a sync has failed")
}

/// The first record of a log, and its sequence. No log before it: 0 and 0.
fn push_begin(journal: &mut Journal, previous_file_id: u64, previous_crc: u32) -> u64 {
    let sequence = journal.sequence() + 1;
    let begin = Begin { sequence, previous_file_id, previous_crc };
    journal.push(kind::BEGIN, &[&begin.pack()]);
    sequence
}

/// The checksum of the last record among encoded ones.
fn last_crc_of(encoded: &[u8]) -> Option<u32> {
    let mut at = 0;
    let mut last = None;
    while let Some(header) = encoded.get(at..at + RECORD_HEADER_BYTES) {
        let body_bytes = u32::from_le_bytes([header[4], header[5], header[6], 0]) as usize;
        last = Some(u32::from_le_bytes([header[0], header[1], header[2], header[3]]));
        at += super::record::record_bytes(body_bytes);
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::OnceLock;

    #[test]
    fn what_a_failure_has_lost_stays_lost_after_the_next() {
        let progress = Progress::new(Fsync::EverySecond);
        progress.written.store(5, Ordering::Release);
        progress.lose(10);
        progress.written.store(20, Ordering::Release);
        progress.lose(25);
        let expected =
            [(5, Safety::Safe), (7, Safety::Lost), (25, Safety::Lost), (26, Safety::Pending)];
        for (sequence, safety) in expected {
            assert_eq!(progress.safety(sequence), safety, "of {sequence}");
        }
    }

    /// A file that takes everything and counts its syncs.
    #[derive(Default)]
    struct TestFile {
        syncs: AtomicU64,
        fails: bool,
        /// Of a log that is given up while it syncs.
        given_up: OnceLock<Arc<Syncer>>,
    }

    impl TestFile {
        fn failing() -> Self {
            Self { fails: true, ..Self::default() }
        }
    }

    impl DiskFile for TestFile {
        fn append(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            Ok(slices.iter().map(|slice| slice.len()).sum())
        }

        fn sync(&self) -> io::Result<()> {
            self.syncs.fetch_add(1, Ordering::Relaxed);
            if let Some(syncer) = self.given_up.get() {
                syncer.lock().failed = true;
            }
            if self.fails { Err(io::Error::other("told to fail")) } else { Ok(()) }
        }

        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
            Ok(0)
        }

        fn len(&self) -> io::Result<u64> {
            Ok(0)
        }
    }

    fn log_in(file: Arc<dyn DiskFile>) -> (Log, Journal) {
        let header = FileHeader {
            kind: super::super::record::FileKind::Log,
            directory_id: 1,
            file_id: 1,
            generation: 1,
            shard: 0,
        };
        Log::begin(LogFile { name: "log".into(), header, file }, Fsync::EverySecond)
    }

    #[test]
    fn a_sync_that_fails_after_the_log_was_given_up_loses_nothing_more() {
        let file = Arc::new(TestFile::failing());
        let (mut log, mut journal) = log_in(Arc::clone(&file) as Arc<dyn DiskFile>);
        log.commit(&mut journal, Ticks(1)).expect("it takes what is written");
        let syncer = Arc::clone(log.syncer());
        assert!(file.given_up.set(Arc::clone(&syncer)).is_ok());
        assert!(matches!(syncer.sync_now(|| Ticks(2)), Synced::Nothing));
        assert_eq!(log.progress().safety(1), Safety::Safe, "written, as everysec promises");
        assert_eq!(log.progress().safety(2), Safety::Pending, "not lost");
    }

    #[test]
    fn a_log_whose_sync_has_failed_does_not_go_on_as_if_it_had_not() {
        let (mut log, mut journal) = log_in(Arc::new(TestFile::failing()));
        log.commit(&mut journal, Ticks(1)).expect("it takes what is written");
        assert!(matches!(log.syncer().sync_now(|| Ticks(2)), Synced::Failed { .. }));
        journal.flush();
        assert!(log.commit(&mut journal, Ticks(3)).is_err(), "it is not written any more");
        let next = log.current.clone();
        assert!(log.switch(&mut journal, next, Ticks(3)).is_err());
    }

    #[test]
    fn a_sync_is_of_all_logs_since_the_last_one() {
        let files: Vec<_> = (0..3).map(|_| Arc::new(TestFile::default())).collect();
        let (mut log, mut journal) = log_in(Arc::clone(&files[0]) as Arc<dyn DiskFile>);
        log.commit(&mut journal, Ticks(1)).expect("it takes what is written");
        for (file_id, file) in (2..).zip(&files[1..]) {
            let header = FileHeader { file_id, ..log.current.header };
            let file = Arc::clone(file) as Arc<dyn DiskFile>;
            let next = LogFile { name: "log".into(), header, file };
            log.switch(&mut journal, next, Ticks(2)).expect("it takes what is written");
        }
        for synced in [[1, 1, 1], [1, 1, 2]] {
            journal.flush();
            log.commit(&mut journal, Ticks(3)).expect("it takes what is written");
            assert!(matches!(log.syncer().sync_now(|| Ticks(4)), Synced::Through(_)));
            let counts: Vec<u64> =
                files.iter().map(|file| file.syncs.load(Ordering::Relaxed)).collect();
            assert_eq!(counts, synced);
        }
    }
}
