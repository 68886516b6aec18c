//! Random histories of all verbs, with evictions, expiries, lowered limits, flushes, snapshots,
//! failing calls, kills and power cuts mixed in. Goal: what comes back after each start is a state
//! that each shard went through, no older than what was told, and no other. Method: after every
//! step the store is compared with a map; what changed is noted with the record that has to be safe
//! before it is told. After a start the recovered items are looked for among these states.
//!
//! `HISTORY_STEPS` sets how many steps, `HISTORY_SEED` from which seed on.

use super::disk::{Crash, Fault, SimulatedDisk};
use super::engine::{Engine, NOW, request};
use distcache::durable::committer::Journals;
use distcache::durable::progress::Safety;
use distcache::durable::{Fsync, OnLogError, Recover};
use distcache::protocol::{self, MetaVerb, parse_line};
use distcache::shard::Shard;
use distcache::shard::operation::{Data, Verb};
use distcache::store::budget::HELD_BYTES_FREE;
use distcache::store::{Attributes, Ticks};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;

const SHARDS: usize = 2;
const KEYS: u64 = 3_000;

/// Little enough that most of what is stored has to leave again.
const MEMORY_BYTES_MAX: u64 = 2 << 20;

/// An item as a client can tell it from others.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    value: Vec<u8>,
    attributes: Attributes,
}

type Entries = BTreeMap<Vec<u8>, Entry>;

/// A key, and what became of it.
type Difference = (Vec<u8>, Option<Entry>);

/// What one shard went through since the last start.
#[derive(Debug, Default)]
struct Past {
    /// As recovered.
    base: Entries,
    /// As it is.
    present: Entries,
    /// With the record that tells of it; `u64::MAX`: none does.
    steps: Vec<(u64, Vec<Difference>)>,
    /// How many steps clients may know of, and how many are on the device.
    told: usize,
    synced: usize,
    evictions: u64,
}

impl Past {
    fn note(&mut self, sequence: u64, differences: Vec<Difference>) {
        for (key, entry) in &differences {
            match entry {
                Some(entry) => _ = self.present.insert(key.clone(), entry.clone()),
                None => _ = self.present.remove(key),
            }
        }
        if !differences.is_empty() {
            self.steps.push((sequence, differences));
        }
    }

    /// Whether these entries are a state from a step on, as far as they are not over by `now`; of
    /// those over, some may be there.
    fn has_been(&self, found: &Entries, from: usize, now: Ticks, may_miss: usize) -> bool {
        let is_over = |entry: &Entry| entry.attributes.deadline.is_some_and(|at| at <= now);
        let mut state = self.base.clone();
        // Keys on which the state and what was found do not agree.
        let disagrees = |state: &Entries, key: &Vec<u8>| match (state.get(key), found.get(key)) {
            (None, None) => false,
            (Some(one), Some(other)) => one != other,
            (Some(one), None) => !is_over(one),
            (None, Some(_)) => true,
        };
        let keys = state.keys().chain(found.keys()).cloned();
        let mut wrong: std::collections::BTreeSet<Vec<u8>> =
            keys.filter(|key| disagrees(&state, key)).collect();
        for at in 0..=self.steps.len() {
            if at >= from {
                // One that was due may have been done by the start.
                let flush = state.get(FLUSH_AT).and_then(|it| it.value.first_chunk());
                if found.is_empty() && flush.is_some_and(|at| u64::from_le_bytes(*at) <= now.0) {
                    return true;
                }
                let only_missing = wrong.iter().all(|key| !found.contains_key(key));
                if wrong.is_empty() || (only_missing && wrong.len() <= may_miss) {
                    return true;
                }
            }
            let Some((_, differences)) = self.steps.get(at) else { return false };
            for (key, entry) in differences {
                match entry {
                    Some(entry) => _ = state.insert(key.clone(), entry.clone()),
                    None => _ = state.remove(key),
                }
                match disagrees(&state, key) {
                    true => _ = wrong.insert(key.clone()),
                    false => _ = wrong.remove(key),
                }
            }
        }
        false
    }
}

/// Under this key stands the flush that is to come.
const FLUSH_AT: &[u8] = b" flush at";

fn flush_entry(at: Ticks) -> Entry {
    let attributes = Attributes::default();
    Entry { value: at.0.to_le_bytes().to_vec(), attributes }
}

/// What is in a shard, as far as it is not over by `now`.
fn entries_of(shard: &Shard, now: Ticks) -> Entries {
    let mut entries = Entries::new();
    if let Some(at) = shard.flush_at() {
        entries.insert(FLUSH_AT.to_vec(), flush_entry(at));
    }
    let mut part = 0;
    while shard.store().visit_part(part, now, |item| {
        let attributes = Attributes { cas: None, ..item.attributes };
        entries.insert(item.key.to_vec(), Entry { value: item.value.to_vec(), attributes });
    }) {
        part += 1;
    }
    entries
}

struct Rig {
    seed: u64,
    random: Cell<u64>,
    disk: SimulatedDisk,
    fsync: Fsync,
    now: Cell<Ticks>,
    pasts: RefCell<Vec<Past>>,
    steps: Cell<u64>,
    evictions: Cell<u64>,
    restarts: u64,
    checked: u64,
    trace: RefCell<Vec<String>>,
}

impl Rig {
    fn below(&self, bound: u64) -> u64 {
        let mut word = self.random.get();
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        self.random.set(word);
        word.wrapping_mul(0x2545_F491_4F6C_DD1D) % bound
    }

    fn trace(&self, what: impl Into<String>) {
        let mut trace = self.trace.borrow_mut();
        trace.push(what.into());
        if trace.len() > 3000 {
            trace.remove(0);
        }
    }

    fn start(&self, memory_bytes_max: u64) -> (Engine, u64) {
        let mut request = request(&self.disk, SHARDS, Recover::Strict);
        (request.now, request.memory_bytes_max) = (self.now.get(), memory_bytes_max);
        request.threads = 1 + self.below(2) as usize;
        let engine = Engine::start_as(&self.disk, &request, self.fsync, OnLogError::Refuse);
        let engine = engine.unwrap_or_else(|why| {
            self.fail(&format!("refused to start: {why}; of {:?}", self.disk.names()))
        });
        let dropped = engine.report.dropped_items;
        (engine, dropped)
    }

    fn fail(&self, what: &str) -> ! {
        let (seed, fsync, step) = (self.seed, self.fsync, self.steps.get());
        let trace = self.trace.borrow().join("\n");
        panic!("seed {seed}, {fsync:?}, step {step}: {what}\n{trace}")
    }

    /// Begins to watch what was recovered, after looking whether it may have been.
    fn compare(&self, engine: &Engine, lost_power: bool, dropped: u64, old_now: Ticks) {
        let mut pasts = self.pasts.borrow_mut();
        let over_by = old_now.max(self.now.get());
        for (shard, past) in pasts.iter_mut().enumerate() {
            let guard = engine.cells.lock(shard);
            let found = entries_of(&guard, self.now.get());
            let from = if lost_power { past.synced } else { past.told };
            if !past.has_been(&found, from, over_by, dropped as usize) {
                let what = describe(past, &found, from);
                let report = &engine.report;
                let now = self.now.get();
                self.fail(&format!(
                    "shard {shard}, at {now:?}: no state of its: {what}; {report:?}"
                ));
            }
            let evictions = guard.store().counters().evictions;
            *past = Past { base: found.clone(), present: found, evictions, ..Past::default() };
        }
    }

    /// Notes what a step has changed in a shard. `key`: what it was about.
    fn observe(&self, engine: &Engine, number: usize, key: Option<&[u8]>, before: u64) {
        let mut pasts = self.pasts.borrow_mut();
        let past = &mut pasts[number];
        let mut shard = engine.cells.lock(number);
        let paused = shard.is_refusing();
        let after = shard.journal().map_or(0, |journal| journal.sequence());
        let recorded = |sequence| if paused { u64::MAX } else { sequence };
        let store = shard.store();
        let evictions = store.counters().evictions;
        let flush = shard.flush_at().map(flush_entry);
        let flush_differs = past.present.get(FLUSH_AT) != flush.as_ref();
        let all = key.is_none() || evictions != past.evictions || flush_differs;
        self.evictions.set(self.evictions.get() + evictions.saturating_sub(past.evictions));
        past.evictions = evictions;
        if all {
            let entries = entries_of(&shard, Ticks::default());
            let is_gone =
                |other: &&Vec<u8>| !entries.contains_key(*other) && key != Some(&other[..]);
            let gone = past.present.keys().filter(is_gone).cloned();
            let gone: Vec<Difference> = gone.map(|key| (key, None)).collect();
            past.note(recorded(before + 1), gone);
        }
        if let Some(flush) = flush.filter(|_| flush_differs) {
            past.note(recorded(after), vec![(FLUSH_AT.to_vec(), Some(flush))]);
        }
        if let Some(key) = key {
            let handle = store.find_hash(engine.hasher.hash(key));
            let entry = handle.map(|handle| {
                let item = store.item(handle);
                let attributes = Attributes { cas: None, ..item.attributes };
                Entry { value: item.value.to_vec(), attributes }
            });
            if past.present.get(key) != entry.as_ref() {
                past.note(recorded(after), vec![(key.to_vec(), entry)]);
            }
        }
    }

    /// Notes what may be told by now, and what is on the device.
    fn advance(&self, engine: &Engine) {
        let progress = engine.committer.progress();
        for (shard, past) in self.pasts.borrow_mut().iter_mut().enumerate() {
            let is_told = |(sequence, _): &(u64, Vec<Difference>)| {
                *sequence != u64::MAX && progress.safety(shard, *sequence) == Safety::Safe
            };
            while past.steps.get(past.told).is_some_and(is_told) {
                past.told += 1;
            }
            let is_synced = |(sequence, _): &(u64, Vec<Difference>)| {
                *sequence <= progress.synced(shard)
                    && progress.safety(shard, *sequence) != Safety::Lost
            };
            while past.steps.get(past.synced).is_some_and(is_synced) {
                past.synced += 1;
            }
        }
    }

    /// A snapshot has made good what was refused or lost: all there is is in it.
    fn accept(&self) {
        for past in self.pasts.borrow_mut().iter_mut() {
            (past.told, past.synced) = (past.steps.len(), past.steps.len());
        }
    }

    fn value(&self) -> Vec<u8> {
        let length = match self.below(40) {
            0 => self.below(200_000),
            1..=4 => self.below(20_000),
            5..=10 => return self.below(1_000).to_string().into_bytes(),
            _ => self.below(400),
        };
        let first = self.below(26) as u8;
        (0..length).map(|at| b'a' + (first + (at / 7) as u8 % 26) % 26).collect()
    }

    fn command(&self, engine: &Engine) {
        let key = format!("key{}", self.below(KEYS));
        let value = self.value();
        let length = value.len();
        let exptime = [0, 0, 0, 0, 0, 1, 3, 20, 20, -1][self.below(10) as usize];
        let seconds = [0, 2, 5, 30, -1][self.below(5) as usize];
        let line = match self.below(24) {
            0..=6 => format!("set {key} {} {exptime} {length}", self.below(3)),
            7 => format!("add {key} 0 {exptime} {length}"),
            8 => format!("replace {key} 1 {exptime} {length}"),
            9 => format!("append {key} 0 0 {length}"),
            10 => format!("prepend {key} 0 0 {length}"),
            11 => format!("incr {key} {}", self.below(100)),
            12 => format!("decr {key} 3"),
            13 | 14 => format!("touch {key} {seconds}"),
            15 | 16 => format!("delete {key}"),
            17 => format!("mg {key} v T{}", seconds.max(0)),
            18 => format!("md {key} I T{}", seconds.max(1)),
            19 => format!("mg {key} N30 v"),
            20 => format!("ma {key} N20 J5 T10"),
            21 => format!("ms {key} {length} MA T{}", seconds.max(0)),
            _ => format!("mg {key} v h"),
        };
        self.trace(line.clone());
        let parsed = parse_line(line.as_bytes(), 2).unwrap().request;
        let verb = verb_of(&parsed, &value);
        let shard = distcache::store::hash::shard_of(engine.hasher.hash(key.as_bytes()), SHARDS);
        let before = self.sequence(engine, shard);
        engine.execute(key.as_bytes(), verb);
        self.observe(engine, shard, Some(key.as_bytes()), before);
    }

    fn sequence(&self, engine: &Engine, shard: usize) -> u64 {
        let mut sequence = 0;
        engine.cells.with_journal(shard, &mut |journal| sequence = journal.sequence());
        sequence
    }

    /// Something for a whole shard.
    fn upkeep(&self, engine: &Engine) {
        let number = self.below(SHARDS as u64) as usize;
        let before = self.sequence(engine, number);
        let now = self.now.get();
        {
            let mut shard = engine.cells.lock(number);
            match self.below(200) {
                0 => {
                    self.trace("flush");
                    if !shard.is_refusing() {
                        shard.flush();
                    }
                }
                1..=8 => {
                    let bytes = MEMORY_BYTES_MAX / 2 + self.below(MEMORY_BYTES_MAX);
                    self.trace(format!("limit {bytes}"));
                    shard.set_memory_bytes_max(bytes);
                }
                9..=12 => {
                    let budget = shard.store().budget();
                    let wanted = HELD_BYTES_FREE + self.below(MEMORY_BYTES_MAX / 4);
                    budget.add_held_bytes(wanted as i64 - budget.held_bytes() as i64);
                }
                13 if !shard.is_refusing() => {
                    self.trace("flush later");
                    shard.flush_later(now.plus_seconds(self.below(20)));
                }
                _ => _ = shard.maintain(now, 16),
            }
        }
        self.observe(engine, number, None, before);
    }

    fn step(&self, engine: &Engine) {
        self.steps.set(self.steps.get() + 1);
        match self.below(100) {
            0..=79 => self.command(engine),
            80..=85 => self.upkeep(engine),
            86..=94 => _ = engine.commit(),
            95 | 96 => engine.sync(),
            _ => {
                self.now.set(Ticks(self.now.get().0 + self.below(200)));
                engine.clock.set(self.now.get());
            }
        }
        self.advance(engine);
    }

    fn snapshot(&self, engine: &Engine) {
        self.trace("snapshot");
        let was_refusing = engine.committer.is_refusing();
        let taken = engine.snapshot_with(&|| {
            if self.below(3) == 0 {
                self.step(engine);
            }
            true
        });
        self.trace(format!("snapshot: {:?}", taken.err().map(|why| why.to_string())));
        if was_refusing && !engine.committer.is_refusing() {
            self.accept();
        }
        self.advance(engine);
    }

    /// One run, from a start to its end by a kill or a loss of power.
    fn run(&mut self, engine: &Engine) -> bool {
        let length = self.below(3_000);
        let fault_at = if self.below(3) == 0 { self.below(length + 1) } else { u64::MAX };
        for at in 0..length {
            if at == fault_at {
                let call = self.disk.calls() + self.below(12) as usize;
                let kinds = [io::ErrorKind::Other, io::ErrorKind::StorageFull];
                let kind = kinds[self.below(2) as usize];
                let once = self.below(2) == 0;
                let fault = if once { Fault::Once(call, kind) } else { Fault::From(call, kind) };
                self.trace(format!("{fault:?}"));
                self.disk.set_fault(fault);
            }
            self.step(engine);
            if self.below(400) == 0 {
                self.snapshot(engine);
            }
            let failed = engine.committer.is_refusing();
            if failed && self.fsync == Fsync::Always {
                // The daemon would have ended.
                break;
            }
            if failed && self.below(30) == 0 {
                self.disk.set_fault(Fault::None);
                self.snapshot(engine);
            }
        }
        self.below(2) == 0
    }

    fn restart(&mut self, lost_power: bool) -> Engine {
        self.disk.set_fault(Fault::None);
        let crash = match lost_power {
            false => Crash::ALL,
            true => Crash { mask: self.below(16), apart: self.below(2) == 0, ..Crash::ALL },
        };
        self.trace(format!("restart, {crash:?}"));
        self.disk = self.disk.after(crash);
        let old_now = self.now.get();
        let shift = [0, 0, 5, 100, -3_600][self.below(5) as usize] * Ticks::PER_SECOND as i64;
        self.now.set(Ticks(old_now.0.saturating_add_signed(shift)));
        let memory = match self.below(5) {
            0 => MEMORY_BYTES_MAX / 2,
            1 => MEMORY_BYTES_MAX * 2,
            _ => MEMORY_BYTES_MAX,
        };
        let (engine, dropped) = self.start(memory);
        self.compare(&engine, lost_power, dropped, old_now);
        self.restarts += 1;
        self.checked += engine.items().len() as u64;
        engine
    }
}

/// What does not fit, for people to read.
fn describe(past: &Past, found: &Entries, from: usize) -> String {
    let last = past.steps.len();
    let count = |entries: &Entries| entries.len();
    let lost: Vec<_> =
        past.present.keys().filter(|key| !found.contains_key(*key)).take(5).collect();
    let back: Vec<_> =
        found.keys().filter(|key| !past.present.contains_key(*key)).take(5).collect();
    let text = |keys: Vec<&Vec<u8>>| {
        let steps_of = |key: &Vec<u8>| -> Vec<usize> {
            let steps = past.steps.iter().enumerate();
            let about = steps.filter(|(_, (_, all))| all.iter().any(|(other, _)| other == key));
            about.map(|(at, _)| at).collect()
        };
        let keys = keys.into_iter().map(|key| {
            let entry = past.present.get(key).or(found.get(key));
            let deadline = entry.and_then(|entry| entry.attributes.deadline);
            let name = String::from_utf8_lossy(key);
            format!("{name} until {deadline:?} by steps {:?}", steps_of(key))
        });
        keys.collect::<Vec<_>>().join(", ")
    };
    format!(
        "{} found, {} at the end; steps {from}..{last}; gone {}; back {}",
        count(found),
        count(&past.present),
        text(lost),
        text(back)
    )
}

fn verb_of<'a>(request: &'a protocol::Request<'a>, value: &'a [u8]) -> Verb<'a> {
    use protocol::Request;
    match request {
        Request::Store { args, .. } => Verb::Store(*args, Data::Slice(value)),
        Request::MetaStore { mode, args, .. } => Verb::MetaStore(args, *mode, Data::Slice(value)),
        Request::Meta { verb: MetaVerb::Delete, args, .. } => Verb::MetaDelete(args),
        Request::Meta { verb: MetaVerb::Arithmetic, args, .. } => Verb::MetaArithmetic(args),
        Request::Meta { args, .. } => Verb::MetaGet(args),
        Request::Delete { compare, .. } => Verb::Delete { compare: *compare },
        Request::Touch { exptime, .. } => Verb::Touch { exptime: *exptime },
        Request::Arithmetic { args, .. } => Verb::Arithmetic(*args),
        other => panic!("{other:?}"),
    }
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn random_histories_come_back_right() {
    let steps_wanted = setting("HISTORY_STEPS", 60_000);
    let mut seed = setting("HISTORY_SEED", 1);
    let (mut steps, mut restarts, mut checked, mut evictions) = (0, 0, 0, 0);
    while steps < steps_wanted {
        let fsync = [Fsync::EverySecond, Fsync::Always, Fsync::No][(seed % 3) as usize];
        let mut rig = Rig {
            seed,
            random: Cell::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            disk: SimulatedDisk::new(Fault::None),
            fsync,
            now: Cell::new(NOW),
            pasts: RefCell::new((0..SHARDS).map(|_| Past::default()).collect()),
            steps: Cell::new(0),
            evictions: Cell::new(0),
            restarts: 0,
            checked: 0,
            trace: RefCell::default(),
        };
        let (mut engine, _) = rig.start(MEMORY_BYTES_MAX);
        for _ in 0..8 {
            let lost_power = rig.run(&engine);
            drop(engine);
            engine = rig.restart(lost_power);
        }
        steps += rig.steps.get();
        restarts += rig.restarts;
        checked += rig.checked;
        evictions += rig.evictions.get();
        seed += 1;
    }
    println!("{steps} steps, {evictions} evictions, {restarts} starts, {checked} items compared");
    assert!(evictions > steps / 100 && checked > restarts * 50, "too little happens");
}
