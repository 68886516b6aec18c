//! A server without threads and sockets: some shards with a log on a simulated disk, driven step by
//! step, beside a model that remembers every state each shard went through.

use distcache::durable::build::BuiltShard;
use distcache::durable::committer::{Clock, Committer, Journals, Policy, Wake};
use distcache::durable::disk::Growth;
use distcache::durable::journal::Journal;
use distcache::durable::progress::Safety;
use distcache::durable::record::Seed;
use distcache::durable::recovery::{self, Recovered, Report, Request};
use distcache::durable::snapshotter::{
    Items as _, Pace, Parts, Rules as SnapshotRules, Snapshotter,
};
use distcache::durable::{Error, Fsync, OnLogError, Recover};
use distcache::protocol::{ArithmeticArgs, Exptime, StoreArgs, StoreMode};
use distcache::shard::operation::{Data, Form, Operation, Verb};
use distcache::shard::replies::Replies;
use distcache::shard::{Rules, Shard};
use distcache::store::hash::{KeyHasher, shard_of};
use distcache::store::{SharedItem, Store, Ticks};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::SimulatedDisk;

/// Some day.
pub(crate) const NOW: Ticks = Ticks::from_seconds(1_800_000_000);

pub(crate) const MEMORY_BYTES_MAX: u64 = 8 << 20;
const ITEM_BYTES_MAX: u32 = 1 << 20;

/// Keys to values and flags.
pub(crate) type Items = BTreeMap<Vec<u8>, (Vec<u8>, u32)>;

/// What is done to a shard.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    Set(u32, Vec<u8>),
    Delete(u32),
    Increment(u32),
    Append(u32),
    /// Keeps the value and changes the expiry: the reply is what matters.
    Touch(u32),
    Flush,
}

/// Everything one shard went through: the state after each acknowledged or attempted change, with
/// the record that has to be safe before it is told.
#[derive(Debug, Clone)]
pub(crate) struct History {
    pub states: Vec<(u64, Items)>,
    /// How many of the states were told to a client.
    pub told: usize,
}

impl Default for History {
    fn default() -> Self {
        Self { states: vec![(0, Items::new())], told: 1 }
    }
}

impl History {
    fn last(&self) -> Items {
        self.states.last().map(|(_, items)| items.clone()).unwrap_or_default()
    }

    /// Whether a recovered state is one that the promises allow.
    pub(crate) fn allows(&self, items: &Items) -> bool {
        self.states[self.told - 1..].iter().any(|(_, state)| state == items)
    }
}

/// A clock that is set by hand.
pub(crate) struct HandClock(AtomicU64);

impl HandClock {
    pub(crate) fn at(now: Ticks) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(now.0)))
    }

    pub(crate) fn set(&self, now: Ticks) {
        self.0.store(now.0, Ordering::Relaxed);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Ticks {
        Ticks(self.0.load(Ordering::Relaxed))
    }

    fn microseconds(&self) -> u64 {
        0
    }
}

/// Nobody waits.
pub(crate) struct Nobody;

impl Wake for Nobody {
    fn moved(&self) {}
    fn failed(&self, _: &str) {}
}

/// The shards.
pub(crate) struct Cells(Vec<Mutex<Shard>>);

impl Cells {
    pub(crate) fn lock(&self, shard: usize) -> MutexGuard<'_, Shard> {
        self.0[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

impl Journals for Cells {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn with_journal(&self, shard: usize, visit: &mut dyn FnMut(&mut Journal)) {
        if let Some(journal) = self.lock(shard).journal() {
            visit(journal);
        }
    }
}

impl distcache::durable::snapshotter::Items for Cells {
    fn share(
        &self,
        shard: usize,
        parts: Range<usize>,
        visit: &mut dyn FnMut(SharedItem, u8) -> bool,
    ) -> Option<usize> {
        let shard = self.lock(shard);
        let mut goes_on = true;
        for part in parts.clone() {
            if !shard
                .store()
                .share_part(part, |item, popularity| goes_on &= visit(item, popularity))
            {
                return None;
            }
            if !goes_on {
                return Some(part + 1);
            }
        }
        Some(parts.end)
    }

    fn flush_and_tokens(&self, shard: usize) -> (Option<Ticks>, u64) {
        let shard = self.lock(shard);
        (shard.flush_at(), shard.store().sequence_now())
    }

    fn live_bytes(&self) -> u64 {
        (0..self.0.len()).map(|shard| self.lock(shard).store().live_bytes()).sum()
    }
}

/// How to recover; tests change what they are about.
pub(crate) fn request(disk: &SimulatedDisk, shards: usize, mode: Recover) -> Request {
    Request {
        shards,
        threads: 1,
        memory_bytes_max: MEMORY_BYTES_MAX,
        evict: true,
        may_drop: false,
        mode,
        log_growth: if disk.grows_ahead() { Growth::Ahead } else { Growth::AsWritten },
        now: NOW,
        stop: Arc::new(AtomicBool::new(false)),
        progress: Arc::new(|_, _| ()),
    }
}

pub(crate) fn random(seed: u64) -> distcache::durable::directory::Random {
    let mut next = 0x9E37_79B9_7F4A_7C15u64.wrapping_mul(seed + 7);
    Box::new(move || {
        next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Ok(next ^ next >> 29)
    })
}

/// Recovers a disk and leaves it ready for a new run.
pub(crate) fn recover(
    disk: &SimulatedDisk,
    shards: usize,
    mode: Recover,
) -> Result<Recovered, Error> {
    recover_as(disk, &request(disk, shards, mode))
}

pub(crate) fn recover_as(disk: &SimulatedDisk, request: &Request) -> Result<Recovered, Error> {
    recovery::open(Arc::new(disk.clone()), request, random(disk.calls() as u64))
}

/// All items of a recovered directory, and the report.
pub(crate) fn recovered_items(
    disk: &SimulatedDisk,
    mode: Recover,
) -> Result<(Items, Report), Error> {
    let recovered = recover(disk, 1, mode)?;
    let items = recovered.shards.iter().flat_map(|shard| items_of(&shard.store)).collect();
    Ok((items, recovered.report))
}

pub(crate) fn items_of(store: &Store) -> Items {
    items_at(store, NOW)
}

pub(crate) fn items_at(store: &Store, now: Ticks) -> Items {
    let mut items = Items::new();
    let mut part = 0;
    while store.visit_part(part, now, |item| {
        items.insert(item.key.to_vec(), (item.value.to_vec(), item.attributes.flags));
    }) {
        part += 1;
    }
    items
}

/// See the module's text.
pub(crate) struct Engine {
    pub cells: Cells,
    pub committer: Committer,
    snapshotter: Mutex<Snapshotter>,
    pub hasher: KeyHasher,
    pub clock: Arc<HandClock>,
    histories: Mutex<Vec<History>>,
    pub report: Report,
}

/// Does something whenever a snapshot rests.
struct Meanwhile<'a>(&'a dyn Fn() -> bool);

impl Pace for Meanwhile<'_> {
    fn rest(&self, _: u64) -> bool {
        (self.0)()
    }
}

impl Engine {
    /// Starts a run on a disk.
    pub(crate) fn start(disk: &SimulatedDisk, shards: usize, fsync: Fsync) -> Result<Self, Error> {
        let request = request(disk, shards, Recover::Strict);
        Self::start_as(disk, &request, fsync, OnLogError::Refuse)
    }

    /// The same, recovered and run in a particular way.
    pub(crate) fn start_as(
        disk: &SimulatedDisk,
        request: &Request,
        fsync: Fsync,
        on_log_error: OnLogError,
    ) -> Result<Self, Error> {
        let recovered = recover_as(disk, request)?;
        let Recovered { identity, log, sequences, oldest_position, .. } = recovered;
        let clock = HandClock::at(request.now);
        let policy = Policy { fsync, on_log_error, log_bytes_max: 64 << 20 };
        let clocks: Arc<dyn Clock> = clock.clone();
        let committer =
            Committer::new(log, &sequences, oldest_position, policy, clocks, Arc::new(Nobody));
        let seed = Seed::of(identity.directory_id);
        let histories = recovered.shards.iter().zip(&sequences).map(|(built, sequence)| History {
            // What was recovered is where this run starts from.
            states: vec![(*sequence, items_at(&built.store, request.now))],
            told: 1,
        });
        let histories = Mutex::new(histories.collect());
        let shards = recovered.shards.into_iter().enumerate().map(|(number, built)| {
            let dirty = Arc::clone(committer.dirty());
            let tracks_reads = fsync == Fsync::Always;
            let sequence = sequences[number];
            let journal = Journal::new(seed, number as u16, sequence, dirty, tracks_reads);
            Mutex::new(shard_of_built(built, journal))
        });
        let cells = Cells(shards.collect());
        if recovered.log_failure.is_some() {
            committer.begin_without(&cells);
        }
        let parts = Parts {
            disk: Arc::new(disk.clone()),
            identity,
            random: recovered.random,
            next_number: recovered.next_number,
            base_position: recovered.base_position,
            base: recovered.base,
        };
        let rules = SnapshotRules {
            interval_seconds: 60,
            growth_percent: 50,
            log_growth: request.log_growth,
        };
        let snapshotter = Mutex::new(Snapshotter::new(parts, rules, request.now));
        let (hasher, report) = (recovered.hasher, recovered.report);
        let engine = Self { cells, committer, snapshotter, hasher, clock, histories, report };
        engine.commit();
        Ok(engine)
    }

    fn lock_histories(&self) -> MutexGuard<'_, Vec<History>> {
        self.histories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each shard went through.
    pub(crate) fn histories(&self) -> Vec<History> {
        self.lock_histories().clone()
    }

    pub(crate) fn is_refusing(&self) -> bool {
        self.cells.lock(0).is_refusing()
    }

    /// Executes a verb on a key; answers the shard, the record to wait for and the reply.
    pub(crate) fn execute(&self, key: &[u8], verb: Verb<'_>) -> (usize, u64, Vec<u8>) {
        let hash = self.hasher.hash(key);
        let number = shard_of(hash, self.cells.count());
        let mut replies = Replies::default();
        let operation = Operation { key, hash, form: Form::Text, verb };
        let sequence = self.cells.lock(number).execute(operation, self.clock.now(), &mut replies);
        (number, sequence, replies.bytes.to_vec())
    }

    /// Does something and remembers the state after it.
    pub(crate) fn act(&self, act: &Act) {
        if let Act::Flush = act {
            let mut histories = self.lock_histories();
            for (number, history) in histories.iter_mut().enumerate() {
                let mut shard = self.cells.lock(number);
                if !shard.is_refusing() {
                    shard.flush();
                    let sequence = shard.journal().map_or(0, |journal| journal.sequence());
                    history.states.push((sequence, Items::new()));
                }
            }
            return;
        }
        let (number, verb) = match act {
            Act::Set(number, value) => (*number, store(StoreMode::Set, *number, value)),
            Act::Append(number) => (*number, store(StoreMode::Append, 0, b"+")),
            Act::Delete(number) => (*number, Verb::Delete { compare: 0 }),
            Act::Increment(number) => (*number, Verb::Arithmetic(ArithmeticArgs::of_line(true, 1))),
            Act::Touch(number) => (*number, Verb::Touch { exptime: Exptime::Relative(1_000_000) }),
            Act::Flush => return,
        };
        let key = format!("key{number}").into_bytes();
        let (shard, sequence, reply) = self.execute(&key, verb);
        let history = &mut self.lock_histories()[shard];
        let mut items = history.last();
        if sequence > 0 {
            change(&mut items, key, act, &reply);
            history.states.push((sequence, items));
        }
    }

    /// The end of a turn: writes, and notes what may be told. Answers whether the log is good.
    pub(crate) fn commit(&self) -> bool {
        while self.committer.has_work() && !self.committer.has_failed() {
            self.committer.commit(&self.cells);
        }
        self.tell();
        !self.committer.has_failed()
    }

    /// Syncs the log.
    pub(crate) fn sync(&self) {
        self.committer.sync_now(&self.cells);
        self.tell();
    }

    /// Tells clients what is as safe as the mode asks for, in order.
    fn tell(&self) {
        for (shard, history) in self.lock_histories().iter_mut().enumerate() {
            while let Some((sequence, _)) = history.states.get(history.told) {
                if self.committer.progress().safety(shard, *sequence) != Safety::Safe {
                    break;
                }
                history.told += 1;
            }
        }
    }

    /// Takes a snapshot, with some changes made in the middle of it.
    pub(crate) fn snapshot(&self, meanwhile: &[Act]) -> Result<(), Error> {
        let acts = Mutex::new(meanwhile.iter());
        let rests = AtomicU64::new(0);
        let was_refusing = self.committer.is_refusing();
        let taken = self.snapshot_with(&|| {
            let act = acts.lock().unwrap_or_else(PoisonError::into_inner).next();
            if let Some(act) = act {
                self.act(act);
                self.commit();
            }
            assert!(rests.fetch_add(1, Ordering::Relaxed) < 1_000_000, "a snapshot without end");
            true
        });
        if was_refusing && !self.committer.is_refusing() {
            // What was never told is in the snapshot all the same.
            for history in self.lock_histories().iter_mut() {
                history.told = history.states.len();
            }
        }
        self.tell();
        taken
    }

    /// Takes a snapshot; `meanwhile` is called again and again, and says whether to go on.
    pub(crate) fn snapshot_with(&self, meanwhile: &dyn Fn() -> bool) -> Result<(), Error> {
        let mut snapshotter = self.snapshotter.lock().unwrap_or_else(PoisonError::into_inner);
        let (committer, cells) = (&self.committer, &self.cells);
        let pace = Meanwhile(meanwhile);
        snapshotter.snapshot(committer, cells, cells, &*self.clock, &pace).map(|_| ())
    }

    /// Whether a snapshot is due, as the server asks.
    pub(crate) fn is_due(&self) -> bool {
        let snapshotter = self.snapshotter.lock().unwrap_or_else(PoisonError::into_inner);
        snapshotter.is_due(&self.committer, self.cells.live_bytes(), self.clock.now())
    }

    /// Has changes refused that wait for space in vain, as the server does.
    pub(crate) fn stop_waiting(&self) {
        let snapshotter = self.snapshotter.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = snapshotter.why_no_space(&self.committer, self.clock.now()) {
            self.committer.stop_waiting_for_space(&why, &self.cells);
        }
    }

    /// Everything in the stores.
    pub(crate) fn items(&self) -> Items {
        let now = self.clock.now();
        let shards = 0..self.cells.count();
        shards.flat_map(|shard| items_at(self.cells.lock(shard).store(), now)).collect()
    }
}

fn shard_of_built(built: BuiltShard, mut journal: Journal) -> Shard {
    let rules = Rules { item_bytes_max: ITEM_BYTES_MAX, cas: true, prefix_delimiter: b':' };
    if built.flushed {
        journal.flush();
    }
    journal.evicted(built.evicted.into_iter());
    let mut shard = Shard::with_store(built.store, rules);
    shard.record_in(journal, built.flush_at);
    shard
}

pub(crate) fn store(mode: StoreMode, flags: u32, value: &[u8]) -> Verb<'_> {
    let args = StoreArgs { mode, flags, exptime: Exptime::Never, compare: 0 };
    Verb::Store(args, Data::Slice(value))
}

/// The model's idea of a change that was made.
fn change(items: &mut Items, key: Vec<u8>, act: &Act, reply: &[u8]) {
    match act {
        Act::Set(number, value) => _ = items.insert(key, (value.clone(), *number)),
        Act::Delete(_) => _ = items.remove(&key),
        Act::Append(_) => {
            if let Some((value, _)) = items.get_mut(&key) {
                value.push(b'+');
            }
        }
        Act::Increment(_) => {
            let is_number = reply.first().is_some_and(u8::is_ascii_digit);
            if let Some((value, _)) = items.get_mut(&key).filter(|_| is_number) {
                *value = reply.strip_suffix(b"\r\n").unwrap_or(reply).to_vec();
            }
        }
        Act::Touch(_) | Act::Flush => {}
    }
}
