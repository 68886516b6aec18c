//! Data directories of every format version load for ever. Goal: a change that reads old files
//! differently fails here. Method: `tests/golden/v2` holds a directory as version 2 wrote it, with
//! every kind of file and record; it is recovered in place, read only, and compared item by item.
//! (Version 1 was never released, and is refused.)
//!
//! `GOLDEN_WRITE=DIR cargo test --test golden` writes the same directory anew to `DIR`, which must
//! not be there yet: time and random numbers are fixed, so the bytes are the same each time. Files
//! that are committed are never replaced: a new format version gets a directory of its own.

#![cfg(feature = "server")]

use distcache::durable::change::kind;
use distcache::durable::committer::{Clock, Committer, Journals, Policy, Wake};
use distcache::durable::directory::Random;
use distcache::durable::disk::{Access, Disk, Growth, RealDisk};
use distcache::durable::identity::Identity;
use distcache::durable::journal::Journal;
use distcache::durable::record::{FILE_HEADER_BYTES, RECORD_HEADER_BYTES, Seed, record_bytes};
use distcache::durable::recovery::{self, Request};
use distcache::durable::snapshotter::{Items, Pace, Parts, Rules as SnapshotRules, Snapshotter};
use distcache::durable::tools::check::check;
use distcache::durable::{ErrorKind, Fsync, OnLogError, Recover};
use distcache::protocol::{self, MetaVerb, parse_line};
use distcache::shard::operation::{Data, Form, Operation, Verb};
use distcache::shard::replies::Replies;
use distcache::shard::{Rules, Shard};
use distcache::store::hash::{KeyHasher, shard_of};
use distcache::store::{Attributes, SharedItem, Ticks};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// When the files were written.
const NOW: Ticks = Ticks::from_seconds(1_800_000_000);
/// When some items expire: far in the future.
const EXPTIME: u32 = 2_100_000_000;
/// When the shards are to be flushed.
const FLUSH_AT: Ticks = Ticks::from_seconds(2_110_000_000);
const SHARDS: usize = 2;

/// An item that has to be there.
struct Expected {
    key: &'static [u8],
    value: Vec<u8>,
    attributes: Attributes,
}

fn text(length: usize) -> Vec<u8> {
    (0..length).map(|at| b'a' + (at % 23) as u8).collect()
}

fn expected() -> Vec<Expected> {
    let none = Attributes::default();
    let deadline = Some(Ticks::from_seconds(u64::from(EXPTIME)));
    let item = |key: &'static [u8], value: &[u8], attributes: Attributes| Expected {
        key,
        value: value.to_vec(),
        attributes,
    };
    vec![
        item(b"plain", b"value", none),
        item(b"empty", b"", none),
        item(b"flags", b"f", Attributes { flags: 0xDEAD_BEEF, ..none }),
        item(b"expires", b"e", Attributes { flags: 7, deadline, ..none }),
        item(b"a \0b", b"\0\r\n\xff", Attributes { key_binary: true, flags: 9, ..none }),
        item(b"stale", b"s", Attributes { stale: true, ..none }),
        item(b"won", b"w", Attributes { stale: true, win_sent: true, flags: 3, ..none }),
        item(b"large-in-snapshot", &text(40_000), none),
        item(b"large-in-log", &text(263_000), Attributes { flags: 1, deadline, ..none }),
        item(b"counter", b"42", none),
        item(b"touched", b"t", Attributes { deadline, ..none }),
        item(b"appended", b"one two", none),
        item(b"second-run", b"2", none),
    ]
}

/// The time, which tests set.
struct HandClock(AtomicU64);

impl Clock for HandClock {
    fn now(&self) -> Ticks {
        Ticks(self.0.load(Ordering::Relaxed))
    }

    fn microseconds(&self) -> u64 {
        0
    }
}

struct Nobody;

impl Wake for Nobody {
    fn moved(&self) {}
    fn failed(&self, why: &str) {
        panic!("{why}");
    }
}

impl Pace for Nobody {
    fn rest(&self, _: u64) -> bool {
        true
    }
}

struct Cells(Vec<Mutex<Shard>>);

impl Cells {
    fn lock(&self, shard: usize) -> MutexGuard<'_, Shard> {
        self.0[shard].lock().unwrap()
    }
}

impl Journals for Cells {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn with_journal(&self, shard: usize, visit: &mut dyn FnMut(&mut Journal)) {
        visit(self.lock(shard).journal().unwrap());
    }
}

impl Items for Cells {
    fn share(
        &self,
        shard: usize,
        parts: Range<usize>,
        visit: &mut dyn FnMut(SharedItem, u8) -> bool,
    ) -> Option<usize> {
        let shard = self.lock(shard);
        for part in parts.clone() {
            let visit = |item, popularity| _ = visit(item, popularity);
            if !shard.store().share_part(part, visit) {
                return None;
            }
        }
        Some(parts.end)
    }

    fn flush_and_tokens(&self, shard: usize) -> (Option<Ticks>, u64) {
        let shard = self.lock(shard);
        (shard.flush_at(), shard.store().sequence_now())
    }

    fn live_bytes(&self) -> u64 {
        0
    }
}

/// Two shards with a log in a directory, without threads and sockets.
struct Run {
    cells: Cells,
    committer: Committer,
    snapshotter: Snapshotter,
    hasher: KeyHasher,
    clock: Arc<HandClock>,
}

fn fixed_random(seed: u64) -> Random {
    let mut next = seed;
    Box::new(move || {
        next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Ok(next ^ next >> 29)
    })
}

fn request(mode: Recover) -> Request {
    Request {
        shards: SHARDS,
        threads: 2,
        memory_bytes_max: 64 << 20,
        evict: true,
        may_drop: false,
        mode,
        log_growth: Growth::AsWritten,
        now: NOW,
        stop: Arc::new(AtomicBool::new(false)),
        progress: Arc::new(|_, _| ()),
    }
}

impl Run {
    fn begin(disk: &Arc<dyn Disk>, seed: u64) -> Self {
        let request = request(Recover::Strict);
        let recovered = recovery::open(Arc::clone(disk), &request, fixed_random(seed)).unwrap();
        let clock = Arc::new(HandClock(AtomicU64::new(NOW.0)));
        let (fsync, on_log_error) = (Fsync::EverySecond, OnLogError::Refuse);
        let policy = Policy { fsync, on_log_error, log_bytes_max: 1 << 30 };
        let committer = Committer::new(
            recovered.log,
            &recovered.sequences,
            recovered.oldest_position,
            policy,
            clock.clone(),
            Arc::new(Nobody),
        );
        let rules = Rules { item_bytes_max: 1 << 20, cas: true, prefix_delimiter: b':' };
        let seed = Seed::of(recovered.identity.directory_id);
        let shards = recovered.shards.into_iter().enumerate().map(|(number, built)| {
            let (sequence, dirty) = (recovered.sequences[number], Arc::clone(committer.dirty()));
            let journal = Journal::new(seed, number as u16, sequence, dirty, false);
            let mut shard = Shard::with_store(built.store, rules);
            shard.record_in(journal, built.flush_at);
            Mutex::new(shard)
        });
        let cells = Cells(shards.collect());
        let parts = Parts {
            disk: Arc::clone(disk),
            identity: recovered.identity,
            random: recovered.random,
            next_number: recovered.next_number,
            base_position: recovered.base_position,
            base: recovered.base,
        };
        let log_growth = Growth::AsWritten;
        let rules = SnapshotRules { interval_seconds: 60, growth_percent: 50, log_growth };
        let snapshotter = Snapshotter::new(parts, rules, NOW);
        Self { cells, committer, snapshotter, hasher: recovered.hasher, clock }
    }

    /// Executes a command line, with its data block.
    fn command(&self, line: &str, value: &[u8]) {
        let request = parse_line(line.as_bytes(), 2).unwrap().request;
        let (key, verb) = match &request {
            protocol::Request::Store { key, args, .. } => {
                (key.to_vec(), Verb::Store(*args, Data::Slice(value)))
            }
            protocol::Request::MetaStore { key, mode, args, .. } => {
                (key.to_vec(), Verb::MetaStore(args, *mode, Data::Slice(value)))
            }
            protocol::Request::Meta { verb: MetaVerb::Delete, key, args } => {
                (key.to_vec(), Verb::MetaDelete(args))
            }
            protocol::Request::Meta { key, args, .. } => (key.to_vec(), Verb::MetaGet(args)),
            protocol::Request::Delete { key, compare } => {
                (key.to_vec(), Verb::Delete { compare: *compare })
            }
            protocol::Request::Touch { key, exptime } => {
                (key.to_vec(), Verb::Touch { exptime: *exptime })
            }
            protocol::Request::Arithmetic { key, args } => (key.to_vec(), Verb::Arithmetic(*args)),
            other => panic!("{other:?}"),
        };
        let hash = self.hasher.hash(&key);
        let mut replies = Replies::default();
        let operation = Operation { key: &key, hash, form: Form::Text, verb };
        self.cells.lock(shard_of(hash, SHARDS)).execute(operation, self.clock.now(), &mut replies);
        let refused = [&b"ERROR"[..], b"CLIENT", b"SERVER", b"NF", b"NOT"];
        let reply = &replies.bytes;
        assert!(!refused.iter().any(|start| reply.starts_with(start)), "{line}: {reply:?}");
    }

    fn set(&self, key: &str, flags: u32, exptime: u32, value: &[u8]) {
        self.command(&format!("set {key} {flags} {exptime} {}", value.len()), value);
    }

    /// All is written and synced.
    fn commit(&self) {
        while self.committer.has_work() {
            self.committer.commit(&self.cells);
        }
        self.committer.sync_now(&self.cells);
    }

    fn snapshot(&mut self) {
        let (committer, cells) = (&self.committer, &self.cells);
        let taken = self.snapshotter.snapshot(committer, cells, cells, &*self.clock, &Nobody);
        taken.unwrap();
    }
}

/// Writes the directory of version 2: a snapshot, the logs behind it, and that of a second run.
fn write(path: &Path) {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(path, Access::Exclusive).unwrap());
    let mut run = Run::begin(&disk, 1);
    run.set("plain", 0, 0, b"value");
    run.set("empty", 0, 0, b"");
    run.set("flags", 0xDEAD_BEEF, 0, b"f");
    run.set("deleted", 0, 0, b"x");
    run.set("evicted", 0, 0, b"x");
    run.set("counter", 0, 0, b"40");
    run.set("large-in-snapshot", 0, 0, &text(40_000));
    run.commit();
    run.snapshot();
    // One shard of the two is flushed and filled again, the other one goes on.
    run.cells.lock(1).flush();
    run.set("plain", 0, 0, b"value");
    run.set("empty", 0, 0, b"");
    run.set("flags", 0xDEAD_BEEF, 0, b"f");
    run.set("deleted", 0, 0, b"x");
    run.set("evicted", 0, 0, b"x");
    run.set("counter", 0, 0, b"40");
    run.commit();
    run.set("large-in-snapshot", 0, 0, b"short for a moment");
    run.set("large-in-snapshot", 0, 0, &text(40_000));
    run.set("large-in-log", 1, EXPTIME, &text(263_000));
    run.set("expires", 7, EXPTIME, b"e");
    run.command("ms YSAAYg== 4 b F9", b"\0\r\n\xff");
    run.set("over", 0, 1, b"x");
    run.commit();
    // An item that is met when it is over, and one that had to leave.
    run.clock.0.fetch_add(2 * Ticks::PER_SECOND, Ordering::Relaxed);
    let hash = run.hasher.hash(b"over");
    let over =
        Operation { key: b"over", hash, form: Form::Text, verb: Verb::Get { with_cas: false } };
    let mut replies = Replies::default();
    run.cells.lock(shard_of(hash, SHARDS)).execute(over, run.clock.now(), &mut replies);
    let hash = run.hasher.hash(b"evicted");
    run.cells.with_journal(shard_of(hash, SHARDS), &mut |journal| {
        journal.evicted(std::iter::once(hash));
    });
    run.command("delete deleted", b"");
    run.command("incr counter 1", b"");
    run.set("touched", 0, 0, b"t");
    run.command(&format!("touch touched {EXPTIME}"), b"");
    run.commit();
    drop(run);
    let run = Run::begin(&disk, 2);
    run.set("stale", 0, 0, b"s");
    run.command("md stale I", b"");
    run.set("won", 3, 0, b"w");
    run.command("md won I", b"");
    run.command("mg won", b"");
    run.command("incr counter 1", b"");
    run.set("appended", 0, 0, b"one");
    run.command("append appended 0 0 4", b" two");
    run.set("second-run", 0, 0, b"2");
    run.set("gone", 0, EXPTIME - 1, b"x");
    run.command("touch gone -1", b"");
    run.cells.lock(0).flush_later(FLUSH_AT);
    run.commit();
}

fn golden(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(version)
}

#[test]
fn golden_files_are_written() {
    if let Some(path) = std::env::var_os("GOLDEN_WRITE") {
        let path = PathBuf::from(path);
        assert!(!path.exists(), "{} is there already", path.display());
        write(&path);
    }
}

/// Exactly the expected items, each found in its shard.
#[test]
fn version_2_loads() {
    let disk = RealDisk::open(&golden("v2"), Access::Shared).unwrap();
    let contents = recovery::read_only(&disk, &request(Recover::Strict)).unwrap();
    let identity = Identity::read(&disk).unwrap().unwrap().identity;
    let hasher = KeyHasher::new(identity.hash_secret);
    let mut recovered = contents.shards;
    assert_eq!((contents.report.cut_bytes, contents.report.damages.len()), (0, 0));
    assert_eq!(recovered[0].flush_at, Some(FLUSH_AT));
    let mut found_count = 0;
    for shard in &recovered {
        let mut part = 0;
        while shard.store.visit_part(part, NOW, |_| found_count += 1) {
            part += 1;
        }
    }
    assert_eq!(found_count, expected().len());
    for Expected { key, value, attributes } in expected() {
        let name = String::from_utf8_lossy(key);
        let hash = hasher.hash(key);
        let store = &mut recovered[shard_of(hash, SHARDS)].store;
        let found = store.find(hash, key, NOW);
        let handle = found.unwrap_or_else(|why| panic!("{name}: {why:?}"));
        let item = store.item(handle);
        assert!(item.value == value, "{name}: another value");
        let without_token = Attributes { cas: None, ..item.attributes };
        assert_eq!(without_token, attributes, "{name}");
    }
}

/// The directory holds what FORMATS.md describes: each kind of file, two runs, pieces.
#[test]
fn version_2_is_intact_and_complete() {
    let disk = RealDisk::open(&golden("v2"), Access::Shared).unwrap();
    let checked = check(&disk).unwrap();
    assert!(checked.starts() && checked.mended.is_empty(), "{checked}");
    let names: Vec<&str> = checked.files.iter().map(|file| file.name.as_str()).collect();
    let expected = ["IDENTITY", "IDENTITY.2", "log-00000002", "log-00000003", "snapshot-00000002"];
    assert_eq!(names, expected);
    let mut kinds: Vec<u8> = Vec::new();
    for name in names.into_iter().filter(|name| name.contains('-')) {
        let bytes = std::fs::read(golden("v2").join(name)).unwrap();
        let mut at = FILE_HEADER_BYTES;
        while at + RECORD_HEADER_BYTES <= bytes.len() {
            kinds.push(bytes[at + 7]);
            let body = u32::from_le_bytes([bytes[at + 4], bytes[at + 5], bytes[at + 6], 0]);
            at += record_bytes(body as usize);
        }
    }
    kinds.sort_unstable();
    kinds.dedup();
    // All but END, behind which a snapshot leaves no log; and pieces that go on.
    let mut expected: Vec<u8> = (kind::BEGIN..=kind::MARK).collect();
    expected.extend([kind::SNAPSHOT, kind::REST, kind::START, kind::ITEMS]);
    expected.extend([kind::FINISH, kind::PUT | 0x80, kind::REST | 0x80, kind::LARGE_ITEM | 0x80]);
    expected.sort_unstable();
    assert_eq!(kinds, expected);
}

/// Version 1 is refused with what to do about it, in every mode.
#[test]
fn version_1_is_refused() {
    let directory = tempfile::TempDir::new().unwrap();
    for name in ["MANIFEST", "log-00000002-000", "snapshot-00000002-000"] {
        std::fs::write(directory.path().join(name), "distcache manifest 1 3da34eed 0\n").unwrap();
    }
    let disk: Arc<dyn Disk> =
        Arc::new(RealDisk::open(directory.path(), Access::Exclusive).unwrap());
    for mode in [Recover::Strict, Recover::Salvage, Recover::Discard] {
        let opened = recovery::open(Arc::clone(&disk), &request(mode), fixed_random(1));
        let why = opened.err().expect("refused");
        assert_eq!(why.kind, ErrorKind::OtherVersion, "{mode:?}: {why}");
        assert!(why.to_string().contains("dump"), "{why}");
    }
}
