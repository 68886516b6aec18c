//! A server without threads and sockets: one shard or more with logs on a simulated disk, driven
//! step by step, beside a model that remembers every state it went through.

use distcache::durable::change::Start;
use distcache::durable::directory::Directory;
use distcache::durable::disk::Growth;
use distcache::durable::log::{Log, Safety, Synced, Syncer};
use distcache::durable::recovery::{self, Recovered, Report, Request};
use distcache::durable::{Error, Fsync, Recover};
use distcache::protocol::{Exptime, StoreArgs, StoreMode};
use distcache::shard::operation::{Data, Operation, Verb};
use distcache::shard::replies::Replies;
use distcache::shard::{Rules, Shard};
use distcache::store::Ticks;
use distcache::store::hash::{KeyHasher, shard_of};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::disk::SimulatedDisk;

/// Some day.
pub const NOW: Ticks = Ticks::from_seconds(1_800_000_000);

const MEMORY_BYTES_MAX: u64 = 8 << 20;
const ITEM_BYTES_MAX: u32 = 1 << 20;

/// Keys to values and flags.
pub type Items = BTreeMap<Vec<u8>, (Vec<u8>, u32)>;

/// What is done to a shard.
#[derive(Debug, Clone)]
pub enum Act {
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
pub struct History {
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
    pub fn allows(&self, items: &Items) -> bool {
        self.states[self.told - 1..].iter().any(|(_, state)| state == items)
    }
}

struct Part {
    shard: Shard,
    log: Log,
    syncer: Arc<Syncer>,
    failed: bool,
    pub history: History,
}

/// See the module's text.
pub struct Engine {
    parts: Vec<Part>,
    directory: Directory,
    hasher: KeyHasher,
}

/// Recovers a disk and leaves it ready for a new run.
pub fn recover(disk: &SimulatedDisk, shards: usize, mode: Recover) -> Result<Recovered, Error> {
    let request = Request {
        shards,
        threads: 1,
        memory_bytes_max: MEMORY_BYTES_MAX,
        evict: true,
        mode,
        log_growth: if disk.grows_ahead() { Growth::Ahead } else { Growth::AsWritten },
        now: NOW,
    };
    let mut next = 0x9E37_79B9_7F4A_7C15u64.wrapping_mul(disk.calls() as u64 + 7);
    let random = Box::new(move || {
        next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Ok(next ^ next >> 29)
    });
    recovery::open(Arc::new(disk.clone()), &request, random)
}

/// All items of a recovered directory, and the report.
pub fn recovered_items(disk: &SimulatedDisk, mode: Recover) -> Result<(Vec<Items>, Report), Error> {
    let recovered = recover(disk, 1, mode)?;
    let items = recovered.shards.iter().map(|shard| items_of(&shard.store)).collect();
    Ok((items, recovered.report))
}

fn items_of(store: &distcache::store::Store) -> Items {
    let mut items = Items::new();
    let mut part = 0;
    while store.visit_part(part, NOW, |item| {
        items.insert(item.key.to_vec(), (item.value.to_vec(), item.attributes.flags));
    }) {
        part += 1;
    }
    items
}

impl Engine {
    /// Starts a run on a disk. `histories` are those of the runs before, one for each shard.
    pub fn start(
        disk: &SimulatedDisk,
        shards: usize,
        fsync: Fsync,
        histories: Vec<History>,
    ) -> Result<Self, Error> {
        let recovered = recover(disk, shards, Recover::Strict)?;
        let rules = Rules { item_bytes_max: ITEM_BYTES_MAX, cas: true, prefix_delimiter: b':' };
        let mut histories = histories.into_iter();
        let parts = recovered.logs.into_iter().zip(recovered.shards).map(|(file, kept)| {
            let (log, journal) = Log::begin(file, fsync);
            let items = items_of(&kept.store);
            let mut shard = Shard::with_store(kept.store, rules);
            shard.record_in(journal, kept.flush_at);
            let syncer = Arc::clone(log.syncer());
            // What was recovered is where this run starts from.
            let mut history = histories.next().unwrap_or_default();
            history.states = vec![(0, items)];
            history.told = 1;
            Part { shard, log, syncer, failed: false, history }
        });
        let parts = parts.collect();
        Ok(Self { parts, directory: recovered.directory, hasher: recovered.hasher })
    }

    /// What each shard went through.
    pub fn histories(&self) -> Vec<History> {
        self.parts.iter().map(|part| part.history.clone()).collect()
    }

    /// Does something and remembers the state after it.
    pub fn act(&mut self, act: &Act) {
        if let Act::Flush = act {
            for part in &mut self.parts {
                if !part.shard.is_refusing() {
                    part.shard.flush();
                    let sequence = part.shard.journal().map_or(0, |journal| journal.sequence());
                    part.history.states.push((sequence, Items::new()));
                }
            }
            return;
        }
        let (number, verb_of): (u32, fn(&Act) -> Verb<'_>) = match act {
            Act::Set(number, _) => (*number, |act| {
                let Act::Set(number, value) = act else { unreachable!() };
                store(StoreMode::Set, *number, value)
            }),
            Act::Append(number) => (*number, |_| store(StoreMode::Append, 0, b"+")),
            Act::Delete(number) => (*number, |_| Verb::Delete),
            Act::Increment(number) => (*number, |_| Verb::Arithmetic { increment: true, delta: 1 }),
            Act::Touch(number) => {
                (*number, |_| Verb::Touch { exptime: Exptime::Relative(1_000_000) })
            }
            Act::Flush => return,
        };
        let key = format!("key{number}").into_bytes();
        let hash = self.hasher.hash(&key);
        let count = self.parts.len();
        let part = &mut self.parts[shard_of(hash, count)];
        let mut replies = Replies::default();
        let operation = Operation { key: &key, hash, noreply: false, verb: verb_of(act) };
        let sequence = part.shard.execute(operation, NOW, &mut replies);
        let mut items = part.history.last();
        if sequence > 0 {
            change(&mut items, key, act, &replies.bytes);
            part.history.states.push((sequence, items));
        }
    }

    /// The end of a turn: writes, and notes what may be told. Answers whether no log failed.
    pub fn commit(&mut self) -> bool {
        let mut all_well = true;
        for part in &mut self.parts {
            let Some(journal) = part.shard.journal() else { continue };
            if part.log.commit(journal, NOW).is_err() {
                part.log.fail(journal);
                part.shard.set_refusing(true);
                part.failed = true;
            }
            all_well &= !part.failed;
        }
        self.tell();
        all_well
    }

    /// Syncs the logs.
    pub fn sync(&mut self) {
        for part in &mut self.parts {
            if let Synced::Failed { .. } = part.syncer.sync_now(|| NOW)
                && let Some(journal) = part.shard.journal()
            {
                part.log.fail(journal);
                part.shard.set_refusing(true);
                part.failed = true;
            }
        }
        self.tell();
    }

    /// Tells clients what is as safe as the mode asks for, in order.
    fn tell(&mut self) {
        for part in &mut self.parts {
            let progress = Arc::clone(part.log.progress());
            let history = &mut part.history;
            while let Some((sequence, _)) = history.states.get(history.told) {
                if progress.safety(*sequence) != Safety::Safe {
                    break;
                }
                history.told += 1;
            }
        }
    }

    /// Takes a snapshot, with some changes made in the middle of it.
    pub fn snapshot(&mut self, meanwhile: &[Act]) -> Result<(), String> {
        let result = self.try_snapshot(meanwhile);
        match &result {
            Ok(()) => {
                for part in self.parts.iter_mut().filter(|part| part.failed) {
                    part.failed = false;
                    part.shard.set_refusing(false);
                    // What was never told is in the snapshot all the same.
                    part.history.told = part.history.states.len();
                }
            }
            Err(_) => self.directory.abandon_snapshot(),
        }
        self.tell();
        result
    }

    fn try_snapshot(&mut self, meanwhile: &[Act]) -> Result<(), String> {
        let text = |why: Error| why.to_string();
        let files = self.directory.begin_logs().map_err(text)?;
        let mut first_sequences = Vec::new();
        for (part, file) in self.parts.iter_mut().zip(files) {
            let Some(journal) = part.shard.journal() else { continue };
            let switched = match part.failed {
                true => part.log.replace(journal, file, NOW),
                false => part.log.switch(journal, file, NOW),
            };
            match switched {
                Ok(sequence) => first_sequences.push(sequence),
                Err(why) => {
                    part.log.fail(journal);
                    part.shard.set_refusing(true);
                    part.failed = true;
                    return Err(why.to_string());
                }
            }
        }
        let mut open = Vec::new();
        for number in 0..self.parts.len() {
            let start = Start { taken_at: NOW, flush_at: None };
            open.push(self.directory.begin_snapshot(number, start).map_err(text)?);
        }
        let mut acts = meanwhile.iter();
        let mut finished = Vec::new();
        for (number, mut file) in open.into_iter().enumerate() {
            let mut part = 0;
            loop {
                let mut items = Vec::new();
                let store = self.parts[number].shard.store();
                let more =
                    store.share_part(part, |item, popularity| items.push((item, popularity)));
                for (item, popularity) in items {
                    file.writer.add(&item, popularity).map_err(|why| why.to_string())?;
                }
                if part % 5 == 0
                    && let Some(act) = acts.next()
                {
                    self.act(act);
                    self.commit();
                }
                if !more {
                    break;
                }
                part += 1;
            }
            finished.push(file.finish().map_err(text)?);
        }
        self.sync();
        if self.parts.iter().any(|part| part.failed && !part.shard.is_refusing()) {
            return Err("a log failed".to_owned());
        }
        for part in &self.parts {
            let progress = part.log.progress();
            if progress.synced() < progress.written() {
                return Err("a log cannot be synced".to_owned());
            }
        }
        self.directory.publish(NOW.seconds(), &finished, &first_sequences).map_err(text)
    }
}

fn store(mode: StoreMode, flags: u32, value: &[u8]) -> Verb<'_> {
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
