//! How far the records of each shard have come: what may be told to clients, and which shards have
//! something to write.
//!
//! Owns numbers that all threads look at without locks. Who changes them is `committer`.

use super::Fsync;
use crate::store::Ticks;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What a loss of power may cost under [`Fsync::EverySecond`].
const LOSS_MAX: Ticks = Ticks(2 * Ticks::PER_SECOND);

/// Unsynced data older than this makes changes wait, so that no more of them is at stake. Less than
/// what is promised: replies still leave for as long as a thread waits for the processor between
/// looking at the clock and sending them. (With none to spare, one of 180 power cuts lost 2.02
/// seconds, on a machine with more to do than processors.)
pub const UNSYNCED_AGE_MAX: Ticks = Ticks(LOSS_MAX.0 - Ticks::PER_SECOND / 4);

/// Which shards have records that nobody has taken, a bit for each. Set and cleared under the
/// shard's lock, so that a bit that is not set after a look means an empty journal.
#[derive(Debug)]
pub struct Dirty(Box<[AtomicU64]>);

impl Dirty {
    /// All clean.
    pub fn new(shards: usize) -> Self {
        Self((0..shards.div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    /// A shard has something to write.
    #[inline]
    pub fn set(&self, shard: u16) {
        self.0[usize::from(shard) / 64].fetch_or(1 << (shard % 64), Ordering::SeqCst);
    }

    /// It has nothing any more.
    pub fn clear(&self, shard: u16) {
        self.0[usize::from(shard) / 64].fetch_and(!(1 << (shard % 64)), Ordering::SeqCst);
    }

    /// Whether any has.
    #[inline]
    pub fn any(&self) -> bool {
        self.0.iter().any(|word| word.load(Ordering::SeqCst) != 0)
    }

    /// Those that have.
    pub fn shards(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(at, word)| {
            let mut bits = word.load(Ordering::SeqCst);
            std::iter::from_fn(move || {
                let bit = bits.trailing_zeros() as usize;
                bits &= bits.wrapping_sub(1);
                (bit < 64).then_some(at * 64 + bit)
            })
        })
    }
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

/// How far one shard's records have come, by sequence.
#[derive(Debug)]
#[repr(align(64))]
struct OfShard {
    /// The kernel has them.
    written: AtomicU64,
    /// The device has them.
    synced: AtomicU64,
    /// Records in this range were lost when the log failed.
    lost_from: AtomicU64,
    lost_through: AtomicU64,
}

/// See the module's text.
#[derive(Debug)]
pub struct Progress {
    fsync: Fsync,
    shards: Box<[OfShard]>,
    /// When the oldest record that is not synced was written; 0: all are.
    unsynced_since: AtomicU64,
    /// That is too long ago.
    late: AtomicBool,
}

impl Progress {
    /// Everything up to `sequences` is safe.
    pub fn new(fsync: Fsync, sequences: &[u64]) -> Self {
        let shard = |sequence: &u64| OfShard {
            written: AtomicU64::new(*sequence),
            synced: AtomicU64::new(*sequence),
            lost_from: AtomicU64::new(u64::MAX),
            lost_through: AtomicU64::new(0),
        };
        Self {
            fsync,
            shards: sequences.iter().map(shard).collect(),
            unsynced_since: AtomicU64::new(0),
            late: AtomicBool::new(false),
        }
    }

    /// Whether a reply that depends on this record may leave.
    #[inline]
    pub fn safety(&self, shard: usize, sequence: u64) -> Safety {
        let of_shard = &self.shards[shard];
        let lost = of_shard.lost_from.load(Ordering::Acquire) <= sequence
            && sequence <= of_shard.lost_through.load(Ordering::Acquire);
        match (lost, sequence <= self.told(shard)) {
            (true, _) => Safety::Lost,
            (false, true) => Safety::Safe,
            (false, false) => Safety::Pending,
        }
    }

    /// The last record that clients may have been told of.
    fn told(&self, shard: usize) -> u64 {
        let must_be_synced = self.fsync == Fsync::Always || self.is_late();
        if must_be_synced { self.synced(shard) } else { self.written(shard) }
    }

    /// The last record of a shard on the device.
    pub fn synced(&self, shard: usize) -> u64 {
        self.shards[shard].synced.load(Ordering::Acquire)
    }

    /// The last record of a shard that the kernel has.
    pub fn written(&self, shard: usize) -> u64 {
        self.shards[shard].written.load(Ordering::Acquire)
    }

    /// The last records that the kernel has, of all shards.
    pub(super) fn all_written(&self) -> Vec<u64> {
        (0..self.shards.len()).map(|shard| self.written(shard)).collect()
    }

    /// The kernel has this record.
    pub(super) fn set_written(&self, shard: usize, sequence: u64) {
        self.shards[shard].written.store(sequence, Ordering::Release);
    }

    /// The device has these records.
    pub(super) fn set_synced(&self, sequences: &[u64]) {
        for (of_shard, sequence) in self.shards.iter().zip(sequences) {
            of_shard.synced.fetch_max(*sequence, Ordering::AcqRel);
        }
    }

    /// What clients have not been told of is lost, up to `through`. What an earlier failure has
    /// lost stays so: who waits for it may not have looked in between. (Records between two
    /// failures count as lost with that. They are told already, or their connections are closed for
    /// nothing.)
    pub(super) fn lose(&self, shard: usize, through: u64) {
        let of_shard = &self.shards[shard];
        of_shard.lost_through.store(through, Ordering::Release);
        of_shard.lost_from.fetch_min(self.told(shard) + 1, Ordering::AcqRel);
    }

    /// When the oldest record that is not on the device was written.
    pub fn unsynced_since(&self) -> Option<Ticks> {
        Some(self.unsynced_since.load(Ordering::Acquire)).filter(|at| *at != 0).map(Ticks)
    }

    pub(super) fn set_unsynced_since(&self, since: Option<Ticks>) {
        self.unsynced_since.store(since.map_or(0, |at| at.0), Ordering::Release);
    }

    /// Whether changes wait because the device is behind.
    #[inline]
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dirty_shards_are_those_that_were_set_and_not_cleared() {
        let dirty = Dirty::new(200);
        assert!(!dirty.any());
        [0, 63, 64, 130, 199].into_iter().for_each(|shard| dirty.set(shard));
        dirty.clear(64);
        assert_eq!(dirty.shards().collect::<Vec<_>>(), [0, 63, 130, 199]);
        assert!(dirty.any());
    }

    #[test]
    fn what_a_failure_has_lost_stays_lost_after_the_next() {
        let progress = Progress::new(Fsync::EverySecond, &[0]);
        progress.set_written(0, 5);
        progress.lose(0, 9);
        assert_eq!(progress.safety(0, 5), Safety::Safe);
        assert_eq!([6, 9].map(|at| progress.safety(0, at)), [Safety::Lost; 2]);
        assert_eq!(progress.safety(0, 10), Safety::Pending);
        progress.set_written(0, 12);
        progress.lose(0, 20);
        assert_eq!([6, 9, 13, 20].map(|at| progress.safety(0, at)), [Safety::Lost; 4]);
        assert_eq!(progress.safety(0, 21), Safety::Pending);
    }
}
