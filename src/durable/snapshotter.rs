//! Snapshots while the server serves: when one is due, and the steps of taking it.
//!
//! ```text
//! another log, B --> all items, a part of a shard at a time --> the log is synced up to what they
//! show, E --> last record (says E), sync: it counts --> read back --> changes are taken again, if
//! they were refused --> what is older is removed
//! ```
//!
//! A step that fails leaves everything as it was: the snapshot before and the logs since stay until
//! the new one has been read back. `models/src/snapshot_steps.rs` goes through all orders of these
//! steps, failures and crashes.
//!
//! Runs on a thread of its own. Owns the files' numbers and what is removed; never waits while it
//! holds a shard.

use super::Error;
use super::change::Start;
use super::committer::{Clock, Committer, Journals, Order, Rolled};
use super::directory::{self, Random, log_name, log_number, snapshot_name, snapshot_number};
use super::disk::{Disk, Growth};
use super::identity::Identity;
use super::log::{LOG_FILE_BYTES, NextLog};
use super::reader::Windows;
use super::recovery::Base;
use super::snapshot::{Finished, SnapshotFile, SnapshotWriter};
use crate::store::{SharedItem, Ticks};
use std::io;
use std::sync::Arc;

/// After a failed snapshot another is tried soon if the log has failed: until it succeeds, changes
/// are refused.
const RETRY_SECONDS: u64 = 1;
const RETRY_SECONDS_MAX: u64 = 8;

/// One that was taken early, and failed, is tried again after this time.
const EARLY_RETRY_SECONDS: u64 = 10;

/// Changes that wait for space in the logs are refused after this time if snapshots, which would
/// make some, fail: one at least was tried and failed meanwhile.
pub const FULL_SECONDS_MAX: u64 = 15;

const _: () = assert!(FULL_SECONDS_MAX > EARLY_RETRY_SECONDS);

/// Data below this is small: it is in a snapshot as often as the interval says, with at most so
/// many bytes a minute.
const SMALL_BYTES: u64 = 64 << 20;
const SMALL_SECONDS: u64 = 60;

/// Logs above this size that have taken more of the disk than they have left are an early snapshot:
/// it needs space itself, and without it the disk would stay full.
const LOG_BYTES_SMALL: u64 = 4 << 20;

/// Items handed out while a shard is held, about; and parts of the index looked at for them.
const ITEMS_PER_BATCH: usize = 256;
const PARTS_PER_BATCH: usize = 64;

/// The items of all shards.
pub trait Items {
    /// Calls `visit` with the items of one part of a shard, under the shard's lock; answers false
    /// past the last part.
    fn share(
        &self,
        shard: usize,
        parts: std::ops::Range<usize>,
        visit: &mut dyn FnMut(SharedItem, u8) -> bool,
    ) -> Option<usize>;

    /// A flush that is to come, and the segment sequence that the shard's tokens have come to.
    fn flush_and_tokens(&self, shard: usize) -> (Option<Ticks>, u64);

    /// Bytes of all items.
    fn live_bytes(&self) -> u64;
}

/// How fast to go.
pub trait Pace {
    /// So many bytes were written or read: rests as long as is wanted. False: the end is near, and
    /// the snapshot is given up.
    fn rest(&self, bytes: u64) -> bool;
}

/// When snapshots are taken, and what may be used.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Seconds between them; 0: only when asked for, or when logs take all the space they may.
    pub interval_seconds: u64,
    /// How much the log has to grow, in percent of the data.
    pub growth_percent: u64,
    /// How logs grow.
    pub log_growth: Growth,
}

/// How snapshots are going.
#[derive(Debug, Clone, Default)]
pub struct SnapshotStatus {
    /// Those that were taken by this run, and those that failed.
    pub taken: u64,
    /// Those that failed.
    pub failed: u64,
    /// The one that counts.
    pub base: Option<Base>,
    /// How long it took.
    pub duration: Ticks,
    /// Why the last one failed, if it did.
    pub last_error: Option<String>,
    /// Bytes of snapshots written by this run.
    pub written_bytes: u64,
}

/// See the module's text.
pub struct Snapshotter {
    disk: Arc<dyn Disk>,
    identity: Identity,
    random: Random,
    rules: Rules,
    next_number: u64,
    /// Made, and not needed so far; what its header names as the log before it.
    spare: Option<(NextLog, (u64, u64))>,
    /// Where the log stood when the last snapshot was begun, and when nothing had changed since.
    base_position: u64,
    unchanged_position: u64,
    began_at: Option<Ticks>,
    next_at: Ticks,
    /// After a failure of the log: when to try next, and how long to wait behind that.
    retry_at: Ticks,
    retry_seconds: u64,
    status: SnapshotStatus,
    windows: Windows,
}

/// What a snapshotter takes over from the recovery.
pub struct Parts {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The directory.
    pub identity: Identity,
    /// Where random numbers come from.
    pub random: Random,
    /// No file has this number or a higher one.
    pub next_number: u64,
    /// Where the log begins that the next start would replay.
    pub base_position: u64,
    /// The snapshot that counts.
    pub base: Option<Base>,
}

impl Snapshotter {
    /// Takes over a directory.
    pub fn new(parts: Parts, rules: Rules, now: Ticks) -> Self {
        let Parts { disk, identity, random, next_number, base_position, base } = parts;
        Self {
            disk,
            identity,
            random,
            rules,
            next_number,
            spare: None,
            base_position,
            unchanged_position: 0,
            began_at: base.map(|base| base.taken_at),
            next_at: now.plus_seconds(rules.interval_seconds),
            retry_at: Ticks::default(),
            retry_seconds: RETRY_SECONDS,
            status: SnapshotStatus { base, ..SnapshotStatus::default() },
            windows: Windows::default(),
        }
    }

    /// How it is going.
    pub fn status(&self) -> &SnapshotStatus {
        &self.status
    }

    /// Bytes that the disk still takes; `None` if the system does not say.
    pub fn free_bytes(&self) -> Option<u64> {
        self.disk.free_bytes().ok()
    }

    /// Bytes of all files.
    pub fn directory_bytes(&self) -> u64 {
        directory::bytes(&*self.disk)
    }

    /// Whether one is to be taken now.
    pub fn is_due(&self, committer: &Committer, data_bytes: u64, now: Ticks) -> bool {
        if committer.is_refusing() {
            return now >= self.retry_at;
        }
        let grown_bytes = committer.position().saturating_sub(self.base_position);
        if committer.position() <= self.unchanged_position {
            return false;
        }
        let early = committer.log_bytes() >= committer.policy().log_bytes_max / 2
            || (grown_bytes >= LOG_BYTES_SMALL
                && grown_bytes > self.free_bytes().unwrap_or(u64::MAX));
        if early || self.rules.interval_seconds == 0 {
            return early && now >= self.next_at.min(self.early_at());
        }
        let is_small = data_bytes < SMALL_BYTES
            && self
                .began_at
                .is_none_or(|at| now >= at.plus_seconds(SMALL_SECONDS * data_bytes / SMALL_BYTES));
        let wanted_bytes = u128::from(data_bytes) * u128::from(self.rules.growth_percent) / 100;
        now >= self.next_at && (is_small || u128::from(grown_bytes) >= wanted_bytes)
    }

    fn early_at(&self) -> Ticks {
        match (&self.status.last_error, self.began_at) {
            (Some(_), Some(at)) => at.plus_seconds(EARLY_RETRY_SECONDS),
            _ => Ticks::default(),
        }
    }

    /// Why changes need not wait for space any longer: there has been none for a while, and
    /// snapshots fail.
    pub fn why_no_space(&self, committer: &Committer, now: Ticks) -> Option<String> {
        let why = self.status.last_error.as_ref()?;
        let since = committer.full_since().filter(|_| !committer.is_refusing())?;
        (now >= since.plus_seconds(FULL_SECONDS_MAX)).then(|| {
            format!(
                "the logs take all the space they may (--log-bytes-max), and no snapshot: {why}"
            )
        })
    }

    /// Sees to it that no log file becomes too large.
    pub fn roll_if_large(
        &mut self,
        committer: &Committer,
        journals: &dyn Journals,
        items: &dyn Items,
    ) -> Result<(), Error> {
        if committer.has_failed() || committer.file_bytes() < LOG_FILE_BYTES {
            return Ok(());
        }
        self.roll(committer, journals, items, &Unpaced).map(|_| ())
    }

    /// Takes a snapshot.
    ///
    /// # Errors
    /// Why there is none: everything is as it was.
    pub fn snapshot(
        &mut self,
        committer: &Committer,
        journals: &dyn Journals,
        items: &dyn Items,
        clock: &dyn Clock,
        pace: &dyn Pace,
    ) -> Result<Finished, Error> {
        let began_at = clock.now();
        self.began_at = Some(began_at);
        let taken = self.take(committer, journals, items, began_at, pace);
        let now = clock.now();
        self.next_at = now.plus_seconds(self.rules.interval_seconds);
        match &taken {
            Ok(_) => {
                self.status.taken += 1;
                self.status.last_error = None;
                self.status.duration = Ticks(now.0.saturating_sub(began_at.0));
                (self.retry_at, self.retry_seconds) = (Ticks::default(), RETRY_SECONDS);
            }
            Err(why) => {
                self.status.failed += 1;
                self.status.last_error = Some(why.to_string());
                if committer.is_refusing() {
                    self.retry_at = now.plus_seconds(self.retry_seconds);
                    self.retry_seconds = RETRY_SECONDS_MAX.min(self.retry_seconds * 2);
                }
            }
        }
        taken
    }

    fn take(
        &mut self,
        committer: &Committer,
        journals: &dyn Journals,
        items: &dyn Items,
        now: Ticks,
        pace: &dyn Pace,
    ) -> Result<Finished, Error> {
        let rolled = self.roll(committer, journals, items, pace)?;
        let written = self.write(&rolled, committer, journals, items, now, pace);
        if written.is_err() {
            // If it cannot be removed either: should it count, it shows nothing that the log does
            // not hold.
            let _ = self.disk.remove(&snapshot_name(rolled.number));
        }
        let finished = written?;
        let Finished { items, bytes } = finished;
        self.status.base = Some(Base { number: rolled.number, taken_at: now, bytes, items });
        self.read_back(rolled.number, pace)?;
        // Until then it can be done without, even if the log before had failed.
        committer.accept(rolled.number, rolled.epoch, journals);
        let position = committer.position();
        self.remove_older(rolled.number)?;
        (self.base_position, self.unchanged_position) = (rolled.position, position);
        committer.set_oldest_position(rolled.position, journals);
        Ok(finished)
    }

    /// Has the log go on in another file, if the present one holds changes or has failed.
    fn roll(
        &mut self,
        committer: &Committer,
        journals: &dyn Journals,
        items: &dyn Items,
        pace: &dyn Pace,
    ) -> Result<Rolled, Error> {
        // Of an order that came to nothing.
        committer.take_rolled();
        let predecessor = committer.predecessor();
        let next = match self.spare.take() {
            Some((next, before)) if before == predecessor => next,
            _ => self.make_log(predecessor)?,
        };
        let tokens = |shard| items.flush_and_tokens(shard).1;
        let sequence_now = (0..journals.count()).map(tokens).max().unwrap_or(0);
        let name = log_name(next.number());
        committer.order(Order::Roll { next, sequence_now }, journals);
        loop {
            match committer.take_rolled() {
                Some(Some(mut rolled)) => {
                    self.spare = rolled.unused.take().map(|next| (next, predecessor));
                    return Ok(rolled);
                }
                Some(None) => {
                    let why = io::ErrorKind::Other.into();
                    return Err(Error::io(name, "not begun, for the log has failed", why));
                }
                None if !pace.rest(0) => return Err(given_up()),
                None => {}
            }
            committer.commit(journals);
        }
    }

    fn make_log(&mut self, predecessor: (u64, u64)) -> Result<NextLog, Error> {
        let number = self.next_number;
        // Used up even if this fails: a half-made file is never taken for another.
        self.next_number += 1;
        NextLog::make(
            &*self.disk,
            &self.identity,
            number,
            predecessor,
            self.rules.log_growth,
            &mut self.random,
        )
    }

    fn write(
        &mut self,
        rolled: &Rolled,
        committer: &Committer,
        journals: &dyn Journals,
        items: &dyn Items,
        now: Ticks,
        pace: &dyn Pace,
    ) -> Result<Finished, Error> {
        let shards = journals.count();
        let flush_at = (0..shards).map(|shard| items.flush_and_tokens(shard).0).collect();
        let start = Start { taken_at: now, flush_at, aside: Vec::new() };
        let mut writer = SnapshotWriter::begin(
            &*self.disk,
            &self.identity,
            rolled.number,
            &start,
            &mut self.random,
        )?;
        // In turns: a start builds the shards side by side.
        let mut next = vec![Some(0); shards];
        while next.iter().any(Option::is_some) {
            for (shard, next) in next.iter_mut().enumerate() {
                if let Some(first) = *next {
                    *next = self.write_some((shard, first), &mut writer, items, pace)?;
                }
            }
        }
        writer.end_items()?;
        let shows = wait_until_safe(rolled.epoch, committer, journals, pace)?;
        let finished = writer.finish(shows)?;
        self.status.written_bytes += finished.bytes;
        Ok(finished)
    }

    /// Writes some parts of a shard; answers which part comes next, if there is one.
    fn write_some(
        &self,
        (shard, first): (usize, usize),
        writer: &mut SnapshotWriter,
        items: &dyn Items,
        pace: &dyn Pace,
    ) -> Result<Option<usize>, Error> {
        let mut batch: Vec<(SharedItem, u8)> = Vec::new();
        let parts = first..first + PARTS_PER_BATCH;
        let next = items.share(shard, parts, &mut |item, popularity| {
            batch.push((item, popularity));
            batch.len() < ITEMS_PER_BATCH
        });
        let before = writer.bytes();
        writer.begin_shard(shard);
        batch.iter().try_for_each(|(item, popularity)| writer.add(item, *popularity))?;
        // Items keep segments alive: let go of them before the disk takes its time.
        drop(batch);
        writer.write_gathered()?;
        // Nothing to be waited for, if it was nothing.
        let bytes = (writer.bytes() - before).max(1);
        if pace.rest(bytes) { Ok(next) } else { Err(given_up()) }
    }

    /// Reads a snapshot once: what it replaces is kept until then.
    fn read_back(&self, number: u64, pace: &dyn Pace) -> Result<(), Error> {
        let file = SnapshotFile::open(&*self.disk, number)?;
        let mut unpaced = 0;
        file.read(&self.windows, None, &mut |_, record| {
            unpaced += record.body.len() as u64;
            if unpaced < 1 << 20 || pace.rest(std::mem::take(&mut unpaced)) {
                Ok(())
            } else {
                Err(given_up())
            }
        })?;
        file.file.forget();
        Ok(())
    }

    /// Removes what the newest snapshot makes superfluous.
    fn remove_older(&self, number: u64) -> Result<(), Error> {
        for name in directory::names(&*self.disk)? {
            if log_number(&name).or(snapshot_number(&name)).is_some_and(|other| other < number) {
                directory::remove(&*self.disk, &name);
            }
        }
        directory::sync(&*self.disk)
    }
}

/// Waits until the log holds, on the device, all that stores show now; answers where it ends.
fn wait_until_safe(
    epoch: u64,
    committer: &Committer,
    journals: &dyn Journals,
    pace: &dyn Pace,
) -> Result<u64, Error> {
    let mut sequences = vec![0; journals.count()];
    for (shard, sequence) in sequences.iter_mut().enumerate() {
        journals.with_journal(shard, &mut |journal| *sequence = journal.sequence());
    }
    let failed = || Error::io("the log", "has failed meanwhile", io::ErrorKind::Other.into());
    let is_good = || committer.epoch() == epoch && !committer.has_failed();
    let progress = committer.progress();
    let is_written = |(shard, sequence): (usize, &u64)| progress.written(shard) >= *sequence;
    while !sequences.iter().enumerate().all(is_written) {
        committer.commit(journals);
        if !is_good() {
            return Err(failed());
        }
        if !pace.rest(0) {
            return Err(given_up());
        }
    }
    let shows = committer.position();
    while committer.synced_position() < shows {
        committer.sync_now(journals);
        if !is_good() {
            return Err(failed());
        }
    }
    if is_good() { Ok(shows) } else { Err(failed()) }
}

fn given_up() -> Error {
    Error::interrupted("the snapshot")
}

/// As fast as it goes.
struct Unpaced;

impl Pace for Unpaced {
    fn rest(&self, _: u64) -> bool {
        std::thread::yield_now();
        true
    }
}
