//! The keeper and the workers' part, step by step on one thread: what each does between two steps
//! of the other, when logs fail. The disk is real, but for writes that fail when the test says so.

use super::*;
use crate::durable::disk::{Access, Disk, DiskFile, Growth, RealDisk};
use crate::protocol::{Exptime, StoreArgs, StoreMode};
use crate::server::Hooks;
use crate::server::clock::{Clock, Moment};
use crate::server::config::{Config, DurabilityConfig};
use crate::server::persistence::keep::Keep;
use crate::server::persistence::kept::{Kept, KeptShard, open_on};
use crate::server::worker::inbox::Bell;
use crate::shard::operation::{Data, Operation, Verb};
use crate::shard::replies::Replies;
use crate::shard::{Rules, Shard};
use crossbeam::channel::unbounded;
use std::io::{self, IoSlice};
use std::sync::atomic::AtomicBool;

const SHARDS: usize = 2;

/// Which calls fail, on the log of which shard.
#[derive(Default)]
struct Faults {
    writes: [AtomicBool; SHARDS],
    syncs: [AtomicBool; SHARDS],
}

impl Faults {
    fn check(fails: &[AtomicBool; SHARDS], shard: Option<usize>) -> io::Result<()> {
        match shard {
            Some(shard) if fails[shard].load(Ordering::Relaxed) => {
                Err(io::Error::other("told to fail"))
            }
            _ => Ok(()),
        }
    }
}

/// A real directory whose logs fail when told so.
struct FailingDisk {
    real: RealDisk,
    faults: Arc<Faults>,
}

struct FailingFile {
    real: Arc<dyn DiskFile>,
    /// Of a log: the shard.
    shard: Option<usize>,
    faults: Arc<Faults>,
}

impl Disk for FailingDisk {
    fn create(&self, name: &str, growth: Growth) -> io::Result<Arc<dyn DiskFile>> {
        let shard =
            name.strip_prefix("log-").and_then(|name| name.rsplit('-').next()?.parse().ok());
        let real = self.real.create(name, growth)?;
        Ok(Arc::new(FailingFile { real, shard, faults: Arc::clone(&self.faults) }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.real.open(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.real.list()
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.real.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.real.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.real.sync_directory()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.real.free_bytes()
    }
}

impl DiskFile for FailingFile {
    fn append(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Faults::check(&self.faults.writes, self.shard)?;
        self.real.append(slices)
    }

    fn sync(&self) -> io::Result<()> {
        Faults::check(&self.faults.syncs, self.shard)?;
        self.real.sync()
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.real.read_at(into, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.real.len()
    }
}

struct Worker {
    keep: Keep,
    shard: Shard,
    orders: Receiver<Message>,
}

struct Rig {
    keeper: Keeper,
    workers: Vec<Worker>,
    faults: Arc<Faults>,
    directory: tempfile::TempDir,
    _polls: Vec<mio::Poll>,
}

const RULES: Rules = Rules { item_bytes_max: 16 << 20, cas: true, prefix_delimiter: b':' };
/// More than a worker needs to hand out all items, if the keeper takes them.
const TURNS_TO_WALK: usize = 100;
const NOW: Moment = Moment(0);

fn config() -> Config {
    Config { workers: SHARDS, memory_bytes_max: 64 << 20, ..Config::default() }
}

fn open(path: &std::path::Path, faults: &Arc<Faults>) -> Kept {
    let settings = DurabilityConfig {
        directory: path.to_owned(),
        snapshot_interval_seconds: 0,
        ..DurabilityConfig::default()
    };
    let real = RealDisk::open(path, Access::Exclusive).expect("a directory of our own");
    let disk = Arc::new(FailingDisk { real, faults: Arc::clone(faults) });
    open_on(disk, &settings, &config(), Clock::start()).expect("what was kept is whole")
}

fn shard_of(kept: KeptShard) -> (Shard, crate::durable::log::Log) {
    let mut shard = Shard::with_store(kept.store, RULES);
    shard.record_in(kept.journal, kept.flush_at);
    (shard, kept.log)
}

fn operation(key: &'static [u8], verb: Verb<'static>) -> Operation<'static> {
    // Any hash will do as long as it is always the same.
    let hash = crate::store::hash::KeyHasher::new([1, 2]).hash(key);
    Operation { key, hash, noreply: false, verb }
}

impl Rig {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a place for files");
        let faults = Arc::new(Faults::default());
        let mut kept = open(directory.path(), &faults);
        let durability = Arc::clone(&kept.durability);
        let shared = Arc::new(Shared::new(
            config(),
            Clock::start(),
            Vec::new(),
            Some(Arc::clone(&durability)),
            None,
            Hooks::default(),
        ));
        let (mut workers, mut addresses, mut polls) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(kept) = kept.next_shard() {
            let (shard, log) = shard_of(kept);
            let keep = Keep::new(workers.len(), log, Arc::clone(&durability), Arc::clone(&shared));
            let (inbox, orders) = unbounded();
            let poll = mio::Poll::new().expect("descriptors are left");
            let waker = mio::Waker::new(poll.registry(), mio::Token(0)).expect("the same");
            let bell = Arc::new(Bell::new(waker));
            addresses.push(Address { inbox, bell });
            polls.push(poll);
            workers.push(Worker { keep, shard, orders });
        }
        let keeper = Keeper::new(kept.into_parts(&shared, addresses));
        Self { keeper, workers, faults, directory, _polls: polls }
    }

    fn fail_writes(&self, shard: usize, fails: bool) {
        self.faults.writes[shard].store(fails, Ordering::Relaxed);
    }

    /// Stores a key and writes the log. Answers whether the reply would have been STORED, and sent.
    fn set(&mut self, worker: usize, key: &'static [u8]) -> bool {
        let (record, reply) = self.execute_set(worker, key, Data::Slice(b"value"));
        let Worker { keep, shard, .. } = &mut self.workers[worker];
        keep.commit(shard, self.keeper.shared.clock.now(), NOW, true);
        let safety = self.keeper.durability.progress[worker].safety(record);
        reply == b"STORED\r\n" && safety == crate::durable::log::Safety::Safe
    }

    /// A change whose record cannot be written: its reply does not leave.
    fn set_and_fail(&mut self, worker: usize) {
        self.fail_writes(worker, true);
        assert!(!self.set(worker, b"never told"));
        self.fail_writes(worker, false);
    }

    /// Answers the record, and the reply.
    fn execute_set(
        &mut self,
        worker: usize,
        key: &'static [u8],
        value: Data<'static>,
    ) -> (u64, Vec<u8>) {
        let args =
            StoreArgs { mode: StoreMode::Set, flags: 0, exptime: Exptime::Never, compare: 0 };
        let mut replies = Replies::default();
        let now = self.keeper.shared.clock.now();
        let store = operation(key, Verb::Store(args, value));
        (self.workers[worker].shard.execute(store, now, &mut replies), replies.bytes)
    }

    /// What the syncer of a shard does when it is due.
    fn sync(&mut self, worker: usize) {
        let clock = self.keeper.shared.clock;
        if let Synced::Failed { file_id, why } =
            self.keeper.syncers[worker].sync_now(|| clock.now())
        {
            self.keeper.order(worker, Order::LogFailed { file_id, why: why.to_string() });
        }
    }

    /// The worker does what it was told and hands out items, for so many turns.
    fn turns(&mut self, worker: usize, turns: usize) {
        let Worker { keep, shard, orders } = &mut self.workers[worker];
        let now = self.keeper.shared.clock.now();
        for _ in 0..turns {
            while let Ok(message) = orders.try_recv() {
                let Message::Order(order) = message else { continue };
                keep.obey(order, shard, now);
            }
            keep.commit(shard, now, NOW, true);
            keep.walk(shard);
        }
    }

    /// The keeper takes the notes that are there, and begins what is due.
    fn keeper_takes(&mut self) {
        while let Ok(note) = self.keeper.notes.try_recv() {
            self.keeper.take(note);
            if self.keeper.running.is_none() && self.keeper.is_due() {
                self.keeper.begin();
            }
        }
    }

    fn all_settle(&mut self) {
        for _ in 0..20 {
            self.keeper_takes();
            (0..SHARDS).for_each(|worker| self.turns(worker, 20));
        }
    }

    /// What a start finds, after the process was killed here.
    fn keys_after_a_kill(self) -> Vec<Vec<u8>> {
        let Self { keeper, workers, faults, directory, .. } = self;
        drop((keeper, workers));
        let mut kept = open(directory.path(), &faults);
        let mut keys = Vec::new();
        while let Some(kept) = kept.next_shard() {
            for part in 0..kept.store.part_count() {
                kept.store.visit_part(part, Ticks(1), |item| keys.push(item.key.to_vec()));
            }
        }
        keys.sort();
        keys
    }
}

#[test]
fn a_log_that_fails_while_another_one_is_mended_is_mended_too() {
    let mut rig = Rig::new();
    assert!(rig.set(0, b"a") && rig.set(1, b"b"));
    rig.set_and_fail(1);
    rig.keeper_takes();
    for _ in 0..3 {
        if rig.keeper.durability.status().snapshots == 0 {
            (0..SHARDS).for_each(|worker| rig.turns(worker, TURNS_TO_WALK));
            rig.keeper_takes();
        }
    }
    let status = rig.keeper.durability.status();
    assert_eq!(status.snapshots, 1, "the first log is good again: {status:?}");
    // The other one fails before its worker has heard of that.
    rig.set_and_fail(0);
    rig.keeper_takes();
    rig.turns(0, 1);
    assert!(!rig.set(0, b"c"), "the second log is not");
    rig.all_settle();
    assert_eq!(rig.keeper.durability.status().snapshots, 2);
    assert!(rig.set(0, b"d") && rig.set(1, b"e"));
    let kept = rig.keys_after_a_kill();
    for key in [b"a", b"b", b"d", b"e"] {
        assert!(kept.contains(&key.to_vec()), "{} of {kept:?}", key.escape_ascii());
    }
}

#[test]
fn what_a_worker_says_of_a_snapshot_that_is_over_is_not_taken_for_the_next() {
    let mut rig = Rig::new();
    assert!(rig.set(0, b"a") && rig.set(1, b"b"));
    rig.keeper.begin();
    // One worker fails; the other, which has not heard of it, hands out all its items.
    rig.fail_writes(1, true);
    rig.turns(1, 1);
    rig.fail_writes(1, false);
    rig.turns(0, TURNS_TO_WALK);
    let note = rig.keeper.notes.try_recv().expect("the log has failed");
    rig.keeper.take(note);
    rig.keeper.begin();
    rig.keeper_takes();
    // The first worker is still at that when the other one has done its part of the next snapshot.
    rig.turns(1, TURNS_TO_WALK);
    rig.keeper_takes();
    assert_eq!(rig.keeper.durability.status().snapshots, 0, "the first has yet to do its part");
    rig.all_settle();
    assert_eq!(rig.keeper.durability.status().snapshots, 1);
    assert_eq!(rig.keys_after_a_kill(), [b"a", b"b"]);
}

#[test]
fn a_snapshot_counts_only_once_the_logs_are_safe_that_it_shows() {
    let mut rig = Rig::new();
    assert!(rig.set(0, b"a") && rig.set(1, b"b"));
    rig.keeper.begin();
    (0..SHARDS).for_each(|worker| rig.turns(worker, TURNS_TO_WALK));
    rig.faults.syncs[1].store(true, Ordering::Relaxed);
    rig.keeper_takes();
    let status = rig.keeper.durability.status();
    assert_eq!((status.snapshots, status.snapshot_failures), (0, 1), "{status:?}");
}

#[test]
fn a_new_log_that_fails_to_sync_before_its_snapshot_counts_is_given_up_too() {
    let mut rig = Rig::new();
    assert!(rig.set(0, b"a") && rig.set(1, b"b"));
    rig.set_and_fail(1);
    rig.keeper_takes();
    rig.turns(1, 1);
    rig.faults.syncs[1].store(true, Ordering::Relaxed);
    rig.sync(1);
    rig.faults.syncs[1].store(false, Ordering::Relaxed);
    rig.turns(1, 1);
    rig.keeper_takes();
    rig.keeper.begin();
    rig.all_settle();
    assert_eq!(rig.keeper.durability.status().snapshots, 1);
    assert!(rig.set(1, b"c"), "the log is good again, and says so");
    assert!(rig.keys_after_a_kill().contains(&b"c".to_vec()));
}

#[test]
fn a_snapshot_waits_for_what_it_shows_to_be_written() {
    let mut rig = Rig::new();
    rig.keeper.begin();
    (0..SHARDS).for_each(|worker| rig.turns(worker, 1));
    // Written a mebibyte in each turn; what comes behind it waits, and is seen by the walk.
    let large = Data::Owned(vec![1; 14 << 20].into());
    rig.execute_set(0, b"large", large);
    let (record, _) = rig.execute_set(0, b"behind", Data::Slice(b"value"));
    let mut turns = 0;
    while rig.keeper.durability.progress[0].written() < record {
        rig.turns(0, 1);
        rig.turns(1, TURNS_TO_WALK);
        rig.keeper_takes();
        turns += 1;
        let status = rig.keeper.durability.status();
        let written = rig.keeper.durability.progress[0].written();
        assert!(written >= record || status.snapshots == 0, "after {turns} turns");
    }
    assert!(turns > 10, "{turns}");
    rig.all_settle();
    assert_eq!(rig.keeper.durability.status().snapshots, 1);
}

#[test]
fn large_values_that_come_without_end_do_not_keep_a_snapshot_from_beginning() {
    let mut rig = Rig::new();
    let value = bytes::Bytes::from(vec![1; 4 << 20]);
    rig.execute_set(0, b"large", Data::Owned(value.clone()));
    rig.keeper.begin();
    let mut turns = 0;
    while rig.keeper.running.as_ref().is_some_and(|running| running.shards[0].first_sequence == 0) {
        // More than is written of it in a turn when no snapshot waits.
        rig.execute_set(0, b"large", Data::Owned(value.clone()));
        rig.turns(0, 1);
        rig.keeper_takes();
        turns += 1;
        assert!(turns < 20, "the log is not changed");
    }
    rig.all_settle();
    assert_eq!(rig.keeper.durability.status().snapshots, 1);
}

#[test]
fn an_outage_is_looked_at_less_and_less_often() {
    let mut rig = Rig::new();
    (0..SHARDS).for_each(|shard| rig.set_and_fail(shard));
    rig.fail_writes(0, true);
    let mut waits_seconds = Vec::new();
    for _ in 0..5 {
        // At once, and then whenever it is time. (Both logs have failed: that is one outage.)
        rig.keeper_takes();
        if rig.keeper.running.is_none() {
            rig.keeper.begin();
        }
        (0..SHARDS).for_each(|worker| rig.turns(worker, TURNS_TO_WALK));
        let before = rig.keeper.shared.clock.now();
        while let Ok(note) = rig.keeper.notes.try_recv() {
            rig.keeper.take(note);
        }
        assert!(rig.keeper.running.is_none());
        let wait = rig.keeper.next_at.0 - before.0;
        waits_seconds.push((wait as f64 / Ticks::PER_SECOND as f64).round());
    }
    // The first try ended when the second log said that it had failed.
    assert_eq!(waits_seconds, [2.0, 4.0, 8.0, 8.0, 8.0]);
    rig.fail_writes(0, false);
    rig.keeper.begin();
    rig.all_settle();
    assert_eq!(rig.keeper.durability.status().snapshots, 1);
    assert!(rig.set(0, b"a"));
    // The next outage is another one.
    rig.set_and_fail(0);
    let note = rig.keeper.notes.try_recv().expect("the log has failed");
    rig.keeper.take(note);
    assert!(rig.keeper.is_due());
    assert_eq!(rig.keeper.retry_seconds, RETRY_SECONDS);
}

#[test]
fn logs_that_cannot_be_made_leave_no_files_behind() {
    let mut rig = Rig::new();
    let files = |rig: &Rig| {
        let listed = rig.keeper.directory.disk().list().expect("it can be read");
        let mut logs: Vec<_> = listed.into_iter().filter(|name| name.starts_with("log-")).collect();
        logs.sort();
        logs
    };
    let before = files(&rig);
    rig.faults.syncs[1].store(true, Ordering::Relaxed);
    rig.keeper.begin();
    assert!(rig.keeper.running.is_none());
    assert_eq!(files(&rig), before);
    rig.faults.syncs[1].store(false, Ordering::Relaxed);
    rig.keeper.begin();
    rig.all_settle();
    assert_eq!(rig.keeper.durability.status().snapshots, 1);
}
