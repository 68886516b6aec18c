//! Data directories of every format version load for ever. Goal: a change that reads old files
//! differently fails here. Method: `tests/golden/v1` holds a directory as version 1 wrote it, with
//! every kind of file and record; it is recovered in place, read only, and compared item by item.
//!
//! `GOLDEN_WRITE=DIR cargo test --test golden` writes the same directory anew to `DIR`, which must
//! not be there yet: time and random numbers are fixed, so the bytes are the same each time. Files
//! that are committed are never replaced: a new format version gets a directory of its own.

#![cfg(feature = "server")]

use distcache::durable::change::Start;
use distcache::durable::directory::{Directory, Random};
use distcache::durable::disk::{Access, Disk, Growth, RealDisk};
use distcache::durable::log::{Log, LogFile, Synced};
use distcache::durable::recovery::{self, RecoveredShard, Request};
use distcache::durable::tools::check::check;
use distcache::durable::{Fsync, Recover};
use distcache::protocol::{self, MetaVerb, parse_line};
use distcache::shard::operation::{Data, Operation, Verb};
use distcache::shard::replies::Replies;
use distcache::shard::{Rules, Shard};
use distcache::store::hash::{KeyHasher, shard_of};
use distcache::store::{Attributes, Ticks};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// When the files were written.
const NOW: Ticks = Ticks::from_seconds(1_800_000_000);
/// When some items expire: far in the future.
const EXPTIME: u32 = 2_100_000_000;
/// When one shard is to be flushed.
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

/// Two shards with logs in a directory, without threads and sockets.
struct Run {
    directory: Directory,
    shards: Vec<(Shard, Log)>,
    hasher: KeyHasher,
}

fn fixed_random(seed: u64) -> Random {
    let mut next = seed;
    Box::new(move || {
        next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Ok(next ^ next >> 29)
    })
}

fn request(shards: usize) -> Request {
    Request {
        shards,
        threads: 1,
        memory_bytes_max: 64 << 20,
        evict: true,
        mode: Recover::Strict,
        log_growth: Growth::AsWritten,
        now: NOW,
    }
}

impl Run {
    fn begin(disk: Arc<dyn Disk>, seed: u64) -> Self {
        let recovered = recovery::open(disk, &request(SHARDS), fixed_random(seed)).unwrap();
        let rules = Rules { item_bytes_max: 1 << 20, cas: true, prefix_delimiter: b':' };
        let with_log = |(file, kept): (LogFile, RecoveredShard)| {
            let (log, journal) = Log::begin(file, Fsync::EverySecond);
            let mut shard = Shard::with_store(kept.store, rules);
            shard.record_in(journal, kept.flush_at);
            (shard, log)
        };
        let shards = recovered.logs.into_iter().zip(recovered.shards).map(with_log).collect();
        Self { directory: recovered.directory, shards, hasher: recovered.hasher }
    }

    /// Executes a command line, with its data block.
    fn command(&mut self, line: &str, value: &[u8]) {
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
            protocol::Request::Delete { key } => (key.to_vec(), Verb::Delete),
            protocol::Request::Touch { key, exptime } => {
                (key.to_vec(), Verb::Touch { exptime: *exptime })
            }
            protocol::Request::Arithmetic { key, increment, delta } => {
                (key.to_vec(), Verb::Arithmetic { increment: *increment, delta: *delta })
            }
            other => panic!("{other:?}"),
        };
        let hash = self.hasher.hash(&key);
        let mut replies = Replies::default();
        let shard = &mut self.shards[shard_of(hash, SHARDS)].0;
        shard.execute(Operation { key: &key, hash, noreply: false, verb }, NOW, &mut replies);
        let refused = [&b"ERROR"[..], b"CLIENT", b"SERVER", b"NF", b"NOT"];
        let reply = &replies.bytes;
        assert!(!refused.iter().any(|start| reply.starts_with(start)), "{line}: {reply:?}");
    }

    fn set(&mut self, key: &str, flags: u32, exptime: u32, value: &[u8]) {
        self.command(&format!("set {key} {flags} {exptime} {}", value.len()), value);
    }

    /// Ends a turn: all is written and synced.
    fn commit(&mut self) {
        for (shard, log) in &mut self.shards {
            let journal = shard.journal().unwrap();
            while !journal.is_empty() {
                log.commit(journal, NOW).unwrap();
            }
            assert!(!matches!(log.syncer().sync_now(|| NOW), Synced::Failed { .. }));
        }
    }

    /// Goes on in new logs; answers their first records.
    fn switch(&mut self) -> Vec<u64> {
        let files = self.directory.begin_logs().unwrap();
        let shards = self.shards.iter_mut().zip(files);
        let switch = |((shard, log), file): (&mut (Shard, Log), LogFile)| {
            log.switch(shard.journal().unwrap(), file, NOW).unwrap()
        };
        shards.map(switch).collect()
    }

    fn snapshot(&mut self) {
        let first_sequences = self.switch();
        let mut finished = Vec::new();
        for (number, (shard, _)) in self.shards.iter().enumerate() {
            let start = Start { taken_at: NOW, flush_at: shard.flush_at() };
            let mut file = self.directory.begin_snapshot(number, start).unwrap();
            let mut part = 0;
            while shard.store().share_part(part, |item, popularity| {
                file.writer.add(&item, popularity).unwrap();
            }) {
                part += 1;
            }
            finished.push(file.finish().unwrap());
        }
        self.commit();
        self.directory.publish(NOW.seconds(), &finished, &first_sequences).unwrap();
    }
}

/// Writes the directory of version 1: a snapshot, the logs behind it, and those of a second run.
fn write(path: &Path) {
    let disk = Arc::new(RealDisk::open(path, Access::Exclusive).unwrap());
    let mut run = Run::begin(Arc::clone(&disk) as _, 1);
    run.set("plain", 0, 0, b"value");
    run.set("empty", 0, 0, b"");
    run.set("flags", 0xDEAD_BEEF, 0, b"f");
    run.set("deleted", 0, 0, b"x");
    run.set("counter", 0, 0, b"40");
    run.set("large-in-snapshot", 0, 0, &text(40_000));
    run.commit();
    run.snapshot();
    // One shard of the two is flushed and filled again, the other one goes on.
    run.shards[1].0.flush();
    run.set("plain", 0, 0, b"value");
    run.set("empty", 0, 0, b"");
    run.set("flags", 0xDEAD_BEEF, 0, b"f");
    run.set("deleted", 0, 0, b"x");
    run.set("counter", 0, 0, b"40");
    run.commit();
    run.set("large-in-snapshot", 0, 0, b"short for a moment");
    run.set("large-in-snapshot", 0, 0, &text(40_000));
    run.set("large-in-log", 1, EXPTIME, &text(263_000));
    run.set("expires", 7, EXPTIME, b"e");
    run.command("ms YSAAYg== 4 b F9", b"\0\r\n\xff");
    // A snapshot that came to nothing: its logs follow those before.
    run.switch();
    run.command("delete deleted", b"");
    run.command("incr counter 1", b"");
    run.set("touched", 0, 0, b"t");
    run.command(&format!("touch touched {EXPTIME}"), b"");
    run.commit();
    drop(run);
    let mut run = Run::begin(disk, 2);
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
    run.shards[0].0.flush_later(FLUSH_AT);
    run.commit();
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

#[test]
fn golden_files_are_written() {
    if let Some(path) = std::env::var_os("GOLDEN_WRITE") {
        let path = PathBuf::from(path);
        assert!(!path.exists(), "{} is there already", path.display());
        write(&path);
    }
}

/// Exactly the expected items, each found in its shard, in as many shards as are wanted.
#[test]
fn version_1_loads() {
    let disk = RealDisk::open(&golden(), Access::Shared).unwrap();
    for shards in [1, SHARDS, 3] {
        let contents = recovery::read_only(&disk, &request(shards), fixed_random(3)).unwrap();
        let manifest = distcache::durable::manifest::Manifest::read(&disk).unwrap().unwrap();
        let hasher = KeyHasher::new(manifest.hash_secret);
        let mut recovered = contents.shards;
        let count: usize = recovered.iter().map(|shard| shard.store.items()).sum();
        assert_eq!(count, expected().len());
        assert_eq!((contents.report.cut_bytes, contents.report.damages.len()), (0, 0));
        assert_eq!(recovered[0].flush_at, Some(FLUSH_AT));
        for Expected { key, value, attributes } in expected() {
            let name = String::from_utf8_lossy(key);
            let hash = hasher.hash(key);
            let store = &mut recovered[shard_of(hash, shards)].store;
            let found = store.find(hash, key, NOW);
            let handle = found.unwrap_or_else(|why| panic!("{name}, {shards} shards: {why:?}"));
            let item = store.item(handle);
            assert!(item.value == value, "{name}: another value");
            let without_token = Attributes { cas: None, ..item.attributes };
            assert_eq!(without_token, attributes, "{name}");
        }
    }
}

/// The directory holds what FORMATS.md describes: each kind of file, several runs, pieces.
#[test]
fn version_1_is_intact_and_complete() {
    let disk = RealDisk::open(&golden(), Access::Shared).unwrap();
    let checked = check(&disk).unwrap();
    assert!(checked.damages.is_empty(), "{checked}");
    let names: Vec<&str> = checked.files.iter().map(|file| file.name.as_str()).collect();
    let expected = [
        "snapshot-00000002-000",
        "snapshot-00000002-001",
        "log-00000002-000",
        "log-00000003-000",
        "log-00000002-001",
        "log-00000003-001",
        "log-00000004-000",
        "log-00000004-001",
    ];
    assert_eq!(names, expected);
    let mut kinds: Vec<u8> = Vec::new();
    for name in names {
        let bytes = std::fs::read(golden().join(name)).unwrap();
        let mut at = 48;
        while at < bytes.len() {
            kinds.push(bytes[at + 7]);
            let body = u32::from_le_bytes([bytes[at + 4], bytes[at + 5], bytes[at + 6], 0]);
            at += (12 + body as usize).next_multiple_of(8);
        }
    }
    kinds.sort_unstable();
    kinds.dedup();
    // BEGIN PUT ATTRIBUTES DELETE FLUSH FLUSH_AT SYNCED END; START ITEMS LARGE_ITEM FINISH; and
    // pieces that go on.
    assert_eq!(kinds, [1, 2, 3, 4, 5, 6, 7, 8, 16, 17, 18, 19, 0x82, 0x92]);
}
