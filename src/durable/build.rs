//! Records to stores, on all processors: one thread reads and checks, the others each build some of
//! the shards.
//!
//! ```text
//! reader --windows of a file, and where in them the records of its shards lie--> builder 0: shards
//!       \--------------------------------------------------------------------> builder 1: shards
//! ```
//!
//! **The clock of a replay is the log's own:** an item is over when the log says that it was later
//! than its deadline, never before, for its lifetime may have been extended. And nothing is evicted
//! but what the log says was: stores have more room than they will be left with. What is over by
//! now, and what is too much, goes at the end.

use super::change::{Change, Start, kind, visit_items};
use super::reader::{Record, WINDOW_BYTES, Window};
use super::record::CONTINUES;
use super::{Damage, Error};
use crate::limits::{ITEM_BYTES_LIMIT_MAX, LOOKUPS_ANNOUNCED_MAX};
use crate::store::budget::Budget;
use crate::store::hash::KeyHasher;
use crate::store::item;
use crate::store::{Attributes, Settings, Store, Stored, Ticks, TokenRule};
use crossbeam::channel::{Receiver, Sender, bounded};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};

/// Longest body put together from pieces: the largest item, its header and popularity.
const BODY_BYTES_TOTAL_MAX: usize = ITEM_BYTES_LIMIT_MAX as usize + 1024;

/// Windows of a file on their way to a builder.
const WINDOWS_WAITING_MAX: usize = 4;

/// How much more memory stores may take while they are built, beside what they are left with: a
/// share of that, and some bytes. (Windows and pieces of one large value for each builder come on
/// top.)
const BUILD_SHARE: u64 = 4;
const BUILD_BYTES: u64 = 32 << 20;

const _: () = assert!(WINDOWS_WAITING_MAX * WINDOW_BYTES < BUILD_BYTES as usize);

/// How much the log's time may be ahead of the clock to be believed. More than that, it is the log
/// that is wrong: a clock once set years ahead is not to expire everything for years.
const AHEAD_MAX: Ticks = Ticks(24 * 3600 * Ticks::PER_SECOND);

/// How much later than the log's time something may have been done: who did it had looked at the
/// clock before.
const STALE_MAX: Ticks = Ticks(2 * Ticks::PER_SECOND);

/// Whether what is over by the log's time is over, though the clock is behind that.
pub fn is_believed(log: Ticks, clock: Ticks) -> bool {
    log > clock && log.0 - clock.0 <= AHEAD_MAX.0
}

/// What stores are built with.
#[derive(Clone)]
pub struct Blueprint {
    /// How many shards.
    pub shards: usize,
    /// Builders.
    pub threads: usize,
    /// Memory that all stores are left with.
    pub memory_bytes_max: u64,
    /// Evict to make room.
    pub evict: bool,
    /// The hash of keys.
    pub hasher: KeyHasher,
    /// The end of it is asked for.
    pub stop: Arc<AtomicBool>,
}

/// A shard that was built.
pub struct BuiltShard {
    /// Its items.
    pub store: Store,
    /// When everything in it is to go.
    pub flush_at: Option<Ticks>,
    /// A flush was due, and is done.
    pub flushed: bool,
    /// Hashes of items for which there was no memory in the end.
    pub evicted: Vec<u64>,
    /// How many there were.
    pub dropped: u64,
    /// Items of snapshots.
    pub snapshot_items: u64,
}

/// What goes to a builder.
enum Job {
    /// Records in a window.
    Records(Arc<Window>, Vec<Piece>),
    /// What a snapshot begins with.
    Start(Arc<Start>),
    /// It was this time by the log's clock.
    Time(Ticks),
    /// Another run began, by this clock.
    Run(Ticks),
    /// That was all.
    End(EndOfBuild),
}

/// What is to be done at the end.
#[derive(Debug, Clone, Copy)]
pub struct EndOfBuild {
    /// The time.
    pub now: Ticks,
    /// What is over goes at once, and not when it is met: the server's clock is behind the log's.
    pub expire: bool,
    /// What is too much goes, even if nothing is to be evicted later.
    pub may_drop: bool,
}

struct Piece {
    shard: u16,
    kind: u8,
    body: Range<u32>,
}

/// Hands records to the builders.
pub struct Feeder {
    builders: Vec<(Sender<Job>, Vec<Piece>)>,
    window: Option<Arc<Window>>,
}

impl Feeder {
    /// A record of a shard.
    pub fn record(&mut self, window: &Arc<Window>, record: &Record) {
        if self.window.as_ref().is_none_or(|present| !Arc::ptr_eq(present, window)) {
            self.send_records();
            self.window = Some(Arc::clone(window));
        }
        let count = self.builders.len();
        let (_, pieces) = &mut self.builders[usize::from(record.found.shard) % count];
        let body = record.body.start as u32..record.body.end as u32;
        pieces.push(Piece { shard: record.found.shard, kind: record.found.kind, body });
    }

    /// A snapshot begins.
    pub fn start(&mut self, start: Start) {
        let start = Arc::new(start);
        self.send_all(|| Job::Start(Arc::clone(&start)));
    }

    /// It was this time by the log's clock.
    pub fn time(&mut self, time: Ticks) {
        self.send_all(|| Job::Time(time));
    }

    /// Another run began at this time, by its clock.
    pub fn run(&mut self, time: Ticks) {
        self.send_all(|| Job::Run(time));
    }

    /// That was all.
    pub fn end(&mut self, end: EndOfBuild) {
        self.send_all(|| Job::End(end));
    }

    fn send_records(&mut self) {
        let Some(window) = self.window.take() else { return };
        for (sender, pieces) in &mut self.builders {
            if !pieces.is_empty() {
                let job = Job::Records(Arc::clone(&window), std::mem::take(pieces));
                // One that has ended in a panic is noticed when it is joined.
                let _ = sender.send(job);
            }
        }
    }

    fn send_all(&mut self, job: impl Fn() -> Job) {
        self.send_records();
        for (sender, _) in &self.builders {
            let _ = sender.send(job());
        }
    }
}

/// Builds stores from what `read` hands to the feeder. On an error the stores are of no use.
///
/// Also answers what is wrong with a record that is valid and says nothing sensible.
///
/// # Errors
/// Those of `read`.
pub fn build<T>(
    blueprint: &Blueprint,
    sequence_start: u64,
    read: impl FnOnce(&mut Feeder) -> Result<T, Error>,
) -> Result<Built<T>, Error> {
    let budget = Budget::new(blueprint.memory_bytes_max, blueprint.shards);
    let room = blueprint.memory_bytes_max / BUILD_SHARE + BUILD_BYTES;
    budget.set_limit_bytes(blueprint.memory_bytes_max + room);
    let settings = Settings {
        budget: Arc::clone(&budget),
        evict: blueprint.evict,
        hasher: blueprint.hasher.clone(),
        sequence_start,
    };
    let threads = blueprint.threads.clamp(1, blueprint.shards);
    thread::scope(|scope| {
        let (mut builders, mut handles) = (Vec::new(), Vec::new());
        for first in 0..threads {
            let (sender, jobs) = bounded(WINDOWS_WAITING_MAX);
            let numbers = (first..blueprint.shards).step_by(threads);
            let shards = numbers.map(|number| Shard::new(number, &settings)).collect();
            let (hasher, stop) = (blueprint.hasher.clone(), Arc::clone(&blueprint.stop));
            let builder = Builder { shards, threads, hasher, stop };
            handles.push(scope.spawn(move || builder.run(jobs)));
            builders.push((sender, Vec::new()));
        }
        let mut feeder = Feeder { builders, window: None };
        let outcome = read(&mut feeder);
        feeder.send_records();
        drop(feeder);
        let (mut ended, mut wrong) = (Vec::new(), None);
        for handle in handles {
            let (shards, end, damage) = joined(handle);
            ended.push((shards, end));
            wrong = wrong.or(damage);
        }
        budget.set_limit_bytes(blueprint.memory_bytes_max);
        let settling = ended.into_iter().map(|(shards, end)| {
            let settle = move |end| {
                let settled = shards.into_iter().map(|shard| shard.settle(end, blueprint.evict));
                settled.collect::<Vec<_>>()
            };
            scope.spawn(move || end.map(settle).unwrap_or_default())
        });
        let settling: Vec<_> = settling.collect();
        let mut columns: Vec<_> =
            settling.into_iter().map(|handle| joined(handle).into_iter()).collect();
        let numbers = 0..blueprint.shards;
        let built = numbers.filter_map(|number| columns[number % threads].next()).collect();
        outcome.map(|read| (built, read, wrong))
    })
}

/// What a thread came to; its panic is this one's.
fn joined<T>(handle: ScopedJoinHandle<'_, T>) -> T {
    handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Stores, what reading has told, and what was senseless.
type Built<T> = (Vec<BuiltShard>, T, Option<Damage>);

struct Shard {
    number: usize,
    store: Store,
    flush_at: Option<Ticks>,
    flushed: bool,
    /// Pieces of a body whose last one has not come, and its kind.
    assembly: Option<(u8, Vec<u8>)>,
    dropped: u64,
    snapshot_items: u64,
}

impl Shard {
    fn new(number: usize, settings: &Settings) -> Self {
        let mut store = Store::new(settings.clone());
        store.begin_build();
        store.tell_evictions(true);
        Self {
            number,
            store,
            flush_at: None,
            flushed: false,
            assembly: None,
            dropped: 0,
            snapshot_items: 0,
        }
    }

    /// A record: what it says is done when its last piece is here. Pieces without a beginning are
    /// of a value that the snapshot shows; one without its end was cut short with its run.
    fn take(
        &mut self,
        kind: u8,
        body: &[u8],
        now: Ticks,
        hasher: &KeyHasher,
    ) -> Result<(), Damage> {
        let (bare, goes_on) = (kind & !CONTINUES, kind & CONTINUES != 0);
        if bare != kind::REST {
            self.assembly = None;
            if !goes_on {
                return self.apply(bare, body, now, hasher);
            }
            self.assembly = Some((bare, body.to_vec()));
            return Ok(());
        }
        let Some((_, bytes)) = &mut self.assembly else { return Ok(()) };
        if bytes.len() + body.len() > BODY_BYTES_TOTAL_MAX {
            return Err(Damage::new("a value is larger than any can be"));
        }
        bytes.extend_from_slice(body);
        if goes_on {
            return Ok(());
        }
        match self.assembly.take() {
            Some((kind, bytes)) => self.apply(kind, &bytes, now, hasher),
            None => Ok(()),
        }
    }

    fn apply(
        &mut self,
        kind: u8,
        body: &[u8],
        now: Ticks,
        hasher: &KeyHasher,
    ) -> Result<(), Damage> {
        if matches!(kind, kind::ITEMS | kind::LARGE_ITEM) {
            return self.apply_items(body, now, hasher);
        }
        let change = Change::unpack(kind, body)?;
        let change = change.ok_or(Damage::new("a record of no known kind"))?;
        self.change(change, now, hasher);
        Ok(())
    }

    /// Items of a snapshot, some at a time, so that the waits for memory overlap.
    fn apply_items(&mut self, body: &[u8], now: Ticks, hasher: &KeyHasher) -> Result<(), Damage> {
        let mut group: Vec<(u64, Stored<'_>, u8)> = Vec::with_capacity(LOOKUPS_ANNOUNCED_MAX);
        visit_items(body, |stored, popularity| {
            group.push((hasher.hash(stored.key), stored, popularity));
            if group.len() == LOOKUPS_ANNOUNCED_MAX {
                self.restore(&mut group, now);
            }
        })?;
        self.restore(&mut group, now);
        Ok(())
    }

    fn restore(&mut self, group: &mut Vec<(u64, Stored<'_>, u8)>, now: Ticks) {
        self.store.warm_index(group.iter().map(|(hash, ..)| *hash));
        for (hash, stored, popularity) in group.drain(..) {
            self.snapshot_items += 1;
            let restored = self.store.restore(hash, stored, Some(popularity), now);
            self.dropped += u64::from(restored.is_err());
        }
    }

    fn change(&mut self, change: Change<'_>, now: Ticks, hasher: &KeyHasher) {
        let store = &mut self.store;
        let is_over = |deadline: Option<Ticks>| deadline.is_some_and(|deadline| deadline <= now);
        match change {
            Change::Put(stored) if !is_over(stored.header.attributes.deadline) => {
                let hash = hasher.hash(stored.key);
                self.dropped += u64::from(store.restore(hash, stored, None, now).is_err());
            }
            Change::Attributes(key, attributes) if !is_over(attributes.deadline) => {
                let hash = hasher.hash(key);
                if let Ok(handle) = store.find(hash, key, now) {
                    // Tokens of earlier runs match nothing.
                    let attributes = Attributes { cas: None, ..attributes };
                    let changed = store.rewrite(hash, handle, attributes, TokenRule::Keep, now);
                    if changed.is_err() {
                        store.remove(handle);
                        self.dropped += 1;
                    }
                }
            }
            Change::Put(Stored { key, .. }) | Change::Attributes(key, _) | Change::Delete(key) => {
                if let Ok(handle) = store.find(hasher.hash(key), key, now) {
                    store.remove(handle);
                }
            }
            Change::Flush => {
                store.flush();
                self.flush_at = None;
            }
            Change::FlushAt(at) => self.flush_at = Some(at),
            Change::Evict(hashes) => {
                for hash in hashes {
                    if let Some(handle) = store.find_hash(hash) {
                        store.remove(handle);
                    }
                }
            }
            // The time is what counts; what is over goes when it is met, or at the end.
            Change::Expire(_) => {}
        }
    }

    /// The end of the replay: what is over by now goes, and the store is as large as it has to be.
    fn end(&mut self, end: EndOfBuild) {
        if end.expire {
            self.store.expire(end.now);
        }
        if self.flush_at.is_some_and(|at| at <= end.now) {
            self.store.flush();
            (self.flush_at, self.flushed) = (None, true);
        }
        self.store.end_build();
    }

    /// What is too much goes, once all stores have ended: until then they all have more room than
    /// they are left with, and what one of them takes says nothing about the others.
    fn settle(mut self, end: EndOfBuild, evict: bool) -> BuiltShard {
        if end.may_drop {
            self.store.set_evict(true);
            self.store.settle(end.now);
            self.store.set_evict(evict);
        }
        let mut evicted: Vec<u64> = self.store.take_evicted_hashes().collect();
        self.dropped += evicted.len() as u64;
        // One that had to leave while the log was replayed may have been stored again.
        evicted.retain(|hash| self.store.find_hash(*hash).is_none());
        self.store.tell_evictions(false);
        self.store.reset_counters();
        BuiltShard {
            store: self.store,
            flush_at: self.flush_at,
            flushed: self.flushed,
            evicted,
            dropped: self.dropped,
            snapshot_items: self.snapshot_items,
        }
    }
}

struct Builder {
    /// Those whose number divided by the number of builders leaves this one's.
    shards: Vec<Shard>,
    threads: usize,
    hasher: KeyHasher,
    stop: Arc<AtomicBool>,
}

impl Builder {
    /// Has the stores bring what these records will look up into the processor's caches: one by
    /// one, each would wait for memory. All are hashed before the first is looked up, so that the
    /// reads follow each other closely enough to overlap.
    fn announce(&self, window: &Window, group: &[Piece], lookups: &mut Vec<(usize, u64)>) {
        lookups.clear();
        for Piece { shard, kind, body } in group {
            let body = &window[body.start as usize..body.end as usize];
            if matches!(*kind, kind::PUT | kind::ATTRIBUTES)
                && let Some(header) = item::unpack_checked(body)
                && let Some(key) = body[header.header_bytes..].get(..header.key_bytes)
            {
                lookups.push((usize::from(*shard) / self.threads, self.hasher.hash(key)));
            }
        }
        for (shard, hash) in lookups {
            self.shards[*shard].store.warm_index(std::iter::once(*hash));
        }
    }

    /// Shards at the end of the replay, and what was senseless. No end: the reading has failed.
    fn run(mut self, jobs: Receiver<Job>) -> (Vec<Shard>, Option<EndOfBuild>, Option<Damage>) {
        let (mut time, mut end, mut damage) = (Ticks::default(), None, None);
        let mut lookups = Vec::with_capacity(LOOKUPS_ANNOUNCED_MAX);
        for job in jobs {
            let now = Ticks(time.0.saturating_sub(STALE_MAX.0));
            match job {
                Job::Records(window, pieces) => {
                    for group in pieces.chunks(LOOKUPS_ANNOUNCED_MAX) {
                        self.announce(&window, group, &mut lookups);
                        for Piece { shard, kind, body } in group {
                            let body = &window[body.start as usize..body.end as usize];
                            let shard = &mut self.shards[usize::from(*shard) / self.threads];
                            if let Err(why) = shard.take(*kind, body, now, &self.hasher) {
                                damage.get_or_insert(why);
                            }
                        }
                    }
                }
                Job::Start(start) => {
                    time = time.max(start.taken_at);
                    for shard in &mut self.shards {
                        shard.flush_at = start.flush_at.get(shard.number).copied().flatten();
                    }
                }
                Job::Time(later) => time = time.max(later),
                Job::Run(begun_at) => {
                    // As the start of that run did.
                    if is_believed(time, begun_at) {
                        self.shards.iter_mut().for_each(|shard| shard.store.expire(time));
                    }
                    time = begun_at;
                }
                Job::End(at) => end = Some(at),
            }
        }
        match end {
            Some(end) => self.shards.iter_mut().for_each(|shard| shard.end(end)),
            // To take large stores apart would take its time, and the process ends.
            None if self.stop.load(Ordering::Relaxed) => {
                std::mem::forget(std::mem::take(&mut self.shards));
            }
            None => self.shards.clear(),
        }
        (self.shards, end, damage)
    }
}
