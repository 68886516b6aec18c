//! Single cases: histories that once came back wrong, and breaks of `src/durable` that passed all
//! the exhaustive tests. docs/DURABILITY.md has the table of breaks and what catches them.

use super::disk::{Crash, Fault, SimulatedDisk};
use super::engine::{
    Act, Engine, Items, MEMORY_BYTES_MAX, NOW, items_at, items_of, random, recover, recover_as,
    recovered_items, request, store,
};
use super::{is_allowed, records, value};
use distcache::durable::disk::{Disk, Growth};
use distcache::durable::progress::{Safety, UNSYNCED_AGE_MAX};
use distcache::durable::snapshotter::FULL_SECONDS_MAX;
use distcache::durable::tools::check::check;
use distcache::durable::tools::repair::repair;
use distcache::durable::{ErrorKind, Fsync, OnLogError, Recover};
use distcache::protocol::{Exptime, StoreMode};
use distcache::shard::operation::Verb;
use distcache::store::Ticks;
use distcache::store::hash::shard_of;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn start(disk: &SimulatedDisk, shards: usize, fsync: Fsync) -> Engine {
    Engine::start(disk, shards, fsync).expect("starts")
}

fn set(engine: &Engine, number: u32, value: &[u8]) {
    engine.act(&Act::Set(number, value.to_vec()));
    assert!(engine.commit());
}

/// A start at a time, with what it was before.
fn start_at(disk: &SimulatedDisk, now: Ticks) -> Engine {
    let mut request = request(disk, 2, Recover::Strict);
    request.now = now;
    Engine::start_as(disk, &request, Fsync::EverySecond, OnLogError::Refuse).expect("starts")
}

fn seconds(count: u64) -> Ticks {
    NOW.plus_seconds(count)
}

/// What a process leaves that is killed.
fn kill(disk: &SimulatedDisk, engine: Engine) -> SimulatedDisk {
    drop(engine);
    disk.after(Crash::ALL)
}

#[track_caller]
fn refused(disk: &SimulatedDisk, file: &str, what: &str) {
    let why = match recovered_items(disk, Recover::Strict) {
        Err(why) => why,
        Ok(_) => panic!("{what}: not noticed"),
    };
    assert_eq!((why.kind, why.file.as_str()), (ErrorKind::Damaged, file), "{what}: {why}");
}

/// A value in many pieces that lost its last ones is left out from the first.
#[test]
fn large_values_are_there_as_a_whole_or_not_at_all() {
    const NAME: &str = "log-00000001";
    let disk = SimulatedDisk::new(Fault::None);
    let engine = start(&disk, 1, Fsync::EverySecond);
    set(&engine, 1, b"small");
    let before = disk.contents(NAME).len();
    let large: Vec<u8> = (0..600_000u32).map(|at| (at / 7) as u8).collect();
    set(&engine, 2, &large);
    let whole = disk.contents(NAME);
    let mut ends = vec![0];
    for record in records(&whole) {
        ends.push(ends.last().unwrap() + record.len());
    }
    let near = ends.iter().flat_map(|at| [at.saturating_sub(1), *at, at + 1, at + 9_000]);
    for length in near.filter(|at| (before..=whole.len()).contains(at)) {
        let disk = disk.copy();
        disk.put(NAME, whole[..length].to_vec());
        let (items, _) = recovered_items(&disk, Recover::Strict).expect("a torn end");
        let found = items.get(&b"key2"[..]).map(|(value, _)| value == &large);
        assert_eq!(found, (length == whole.len()).then_some(true), "{length}");
        // The next run goes on behind the pieces, and begins the value anew.
        let engine = start(&disk, 1, Fsync::EverySecond);
        set(&engine, 2, &large);
        let disk = kill(&disk, engine);
        let (items, _) = recovered_items(&disk, Recover::Strict).expect("whole again");
        assert_eq!(items[&b"key2"[..]].0, large, "{length}: again");
    }
}

/// A snapshot that is begun in the middle of large values: they go on in the next log.
#[test]
fn large_values_go_on_in_the_next_log() {
    let disk = SimulatedDisk::new(Fault::None);
    let engine = start(&disk, 1, Fsync::EverySecond);
    for number in 0..7u32 {
        let verb = store(StoreMode::Set, 0, &[7; 900_000]);
        engine.execute(format!("large{number}").as_bytes(), verb);
    }
    engine.snapshot(&[]).expect("a snapshot");
    engine.commit();
    let items = engine.items();
    let disk = kill(&disk, engine);
    assert!(disk.contents("log-00000002").len() > 1_000_000, "it held them all before");
    assert_eq!(recovered_items(&disk, Recover::Strict).expect("starts").0, items);
}

/// D1: a log that was made and never written to stands for nothing.
#[test]
fn snapshots_that_fail_lose_nothing_that_was_told() {
    for obstacle in ["snapshot", "log"] {
        for fsync in [Fsync::Always, Fsync::EverySecond] {
            let disk = SimulatedDisk::new(Fault::None);
            let engine = start(&disk, 2, fsync);
            for round in 0..4u32 {
                for number in 0..50 {
                    set(&engine, round * 50 + number, b"value");
                }
                engine.sync();
                // Making the log takes three calls, the snapshot as many.
                let call = disk.calls() + if obstacle == "log" { 1 } else { 6 };
                disk.set_fault(Fault::Once(call, io::ErrorKind::Other));
                let failed = engine.snapshot(&[]);
                assert!(failed.is_err(), "{obstacle}, round {round}");
                disk.set_fault(Fault::None);
                let left = disk.after(Crash::ALL);
                let (items, report) = recovered_items(&left, Recover::Strict).expect("starts");
                assert_eq!(items.len() as u32, (round + 1) * 50, "{obstacle}, round {round}");
                assert_eq!(report.cut_bytes, 0);
            }
        }
    }
}

/// D2: every verb that extends a lifetime, in the log and behind a snapshot, two runs long.
#[test]
fn lifetimes_that_were_extended_count() {
    let exptime = Exptime::Relative(60);
    let extend = [
        ("touch", Verb::Touch { exptime }),
        ("gat", Verb::GetAndTouch { with_cas: false, exptime }),
    ];
    for (name, verb) in extend {
        for snapshot in [false, true] {
            for runs in [1, 2] {
                let disk = SimulatedDisk::new(Fault::None);
                let mut engine = start_at(&disk, NOW);
                engine.execute(b"k", set_for(4));
                engine.execute(b"other", set_for(4));
                engine.commit();
                if snapshot {
                    engine.snapshot(&[]).expect("a snapshot");
                }
                engine.clock.set(Ticks(NOW.0 + 250));
                engine.execute(b"k", verb.clone());
                engine.commit();
                let mut disk = kill(&disk, engine);
                for run in 0..runs {
                    engine = start_at(&disk, Ticks(NOW.0 + 500 + run * 100));
                    let keys: Vec<_> = engine.items().into_keys().collect();
                    assert_eq!(keys, [b"k"], "{name}, snapshot {snapshot}, run {run}");
                    disk = kill(&disk, engine);
                }
            }
        }
    }
}

fn set_for(seconds: u32) -> Verb<'static> {
    let Verb::Store(mut args, data) = store(StoreMode::Set, 0, b"value") else { unreachable!() };
    args.exptime = Exptime::Relative(seconds);
    Verb::Store(args, data)
}

/// The same where a worker had read the clock before the log noted a later time.
#[test]
fn lifetimes_that_were_extended_by_a_clock_read_before_count() {
    let disk = SimulatedDisk::new(Fault::None);
    let engine = start_at(&disk, NOW);
    engine.execute(b"k", set_for(1));
    engine.commit();
    engine.clock.set(Ticks(NOW.0 + 150));
    set(&engine, 1, b"one");
    engine.clock.set(Ticks(NOW.0 + 90));
    engine.execute(b"k", Verb::Touch { exptime: Exptime::Relative(60) });
    engine.clock.set(Ticks(NOW.0 + 160));
    engine.commit();
    let disk = kill(&disk, engine);
    let engine = start_at(&disk, seconds(3));
    assert!(engine.items().contains_key(&b"k"[..]));
}

/// D3: what had to leave is not back, and all that is alive is there.
#[test]
fn what_was_evicted_stays_away() {
    for snapshot in [false, true] {
        for memory in [MEMORY_BYTES_MAX, 64 << 20] {
            let disk = SimulatedDisk::new(Fault::None);
            let engine = start(&disk, 1, Fsync::EverySecond);
            let large = vec![1; 20_000];
            for number in 0..700u32 {
                engine.execute(format!("k{number}").as_bytes(), store(StoreMode::Set, 0, &large));
                engine
                    .execute(format!("k{}", number / 2).as_bytes(), Verb::Get { with_cas: false });
                if snapshot && number == 500 {
                    engine.snapshot(&[]).expect("a snapshot");
                }
            }
            engine.commit();
            let alive = engine.items();
            let gone: Vec<String> = (0..700).map(|number| format!("k{number}")).collect();
            let gone = gone.into_iter().filter(|key| !alive.contains_key(key.as_bytes()));
            let gone: Vec<String> = gone.collect();
            assert!(gone.len() > 100 && alive.len() > 100, "{} {}", gone.len(), alive.len());
            for key in &gone {
                let (_, _, reply) = engine.execute(key.as_bytes(), Verb::Delete { compare: 0 });
                assert_eq!(reply, b"NOT_FOUND\r\n");
            }
            engine.commit();
            let disk = kill(&disk, engine);
            let mut request = request(&disk, 1, Recover::Strict);
            request.memory_bytes_max = memory;
            let recovered = recover_as(&disk, &request).expect("starts");
            let found = items_of(&recovered.shards[0].store);
            assert_eq!(recovered.report.dropped_items, 0);
            assert!(found == alive, "{} found, {} alive", found.len(), alive.len());
        }
    }
}

/// D3, at a start: what a smaller memory has dropped is not back at the next one.
#[test]
fn what_a_start_has_dropped_stays_away() {
    let disk = SimulatedDisk::new(Fault::None);
    let engine = start(&disk, 1, Fsync::EverySecond);
    for number in 0..300u32 {
        set(&engine, number, &[1; 20_000]);
    }
    let disk = kill(&disk, engine);
    let mut small = request(&disk, 1, Recover::Strict);
    small.memory_bytes_max = 4 << 20;
    let engine = Engine::start_as(&disk, &small, Fsync::EverySecond, OnLogError::Refuse);
    let engine = engine.expect("starts");
    assert!(engine.report.dropped_items > 50, "{:?}", engine.report);
    let left = engine.items();
    let disk = kill(&disk, engine);
    assert!(recovered_items(&disk, Recover::Strict).expect("starts").0 == left);
}

/// D4: without its identity a directory has all that is intact, and every key in its shard.
#[test]
fn an_identity_that_was_lost_loses_nothing() {
    let disk = SimulatedDisk::new(Fault::None);
    let engine = start(&disk, 4, Fsync::EverySecond);
    for round in 0..3u32 {
        for number in 0..100 {
            set(&engine, number, format!("value {round}").as_bytes());
        }
        engine.snapshot(&[]).expect("a snapshot");
    }
    for number in 0..50 {
        engine.act(&Act::Delete(number));
    }
    set(&engine, 1000, b"later");
    let items = engine.items();
    let disk = kill(&disk, engine);
    for name in ["IDENTITY", "IDENTITY.2"] {
        disk.remove(name).expect("it is there");
    }
    refused(&disk, "IDENTITY", "no identity");
    for _ in 0..2 {
        let recovered = recover(&disk, 1, Recover::Salvage).expect("salvage starts");
        let found: Items = recovered.shards.iter().flat_map(|it| items_of(&it.store)).collect();
        assert_eq!(found, items);
        for (number, shard) in recovered.shards.iter().enumerate() {
            let keys: Vec<_> = items_of(&shard.store).into_keys().collect();
            assert!(keys.iter().all(|key| shard_of(recovered.hasher.hash(key), 4) == number));
        }
    }
    assert_eq!(recovered_items(&disk, Recover::Strict).expect("whole again").0, items);
}

/// D7: somebody who wants the end does not wait for the rest, and nothing is changed.
#[test]
fn a_recovery_that_is_interrupted_changes_nothing() {
    let disk = SimulatedDisk::new(Fault::None);
    let engine = start(&disk, 2, Fsync::EverySecond);
    for number in 0..200 {
        set(&engine, number, &[2; 20_000]);
    }
    let disk = kill(&disk, engine);
    let (names, calls) = (disk.names(), disk.calls());
    let request = request(&disk, 2, Recover::Strict);
    request.stop.store(true, Ordering::Relaxed);
    let why = recover_as(&disk, &request).err().expect("interrupted");
    assert_eq!(why.kind, ErrorKind::Interrupted);
    assert_eq!((disk.names(), disk.calls()), (names, calls));
}

/// D8: on a full disk what there is is served, and changes are refused until there is space.
#[test]
fn a_full_disk_at_the_start_serves_what_there_is() {
    let disk = SimulatedDisk::new(Fault::None);
    let engine = start(&disk, 2, Fsync::EverySecond);
    set(&engine, 1, b"one");
    let disk = kill(&disk, engine);
    for call in 0..6 {
        let disk = disk.copy();
        disk.set_fault(Fault::From(disk.calls() + call, io::ErrorKind::StorageFull));
        let engine = match Engine::start(&disk, 2, Fsync::EverySecond) {
            Ok(engine) => engine,
            // The old log cannot be synced: the device has failed, which is another matter.
            Err(why) => {
                assert!(call == 0 && why.kind == ErrorKind::Io, "call {call}: {why}");
                continue;
            }
        };
        assert_eq!(engine.items().len(), 1);
        engine.act(&Act::Set(2, b"two".to_vec()));
        engine.commit();
        assert!(engine.is_refusing() || call > 3, "call {call}");
        disk.set_fault(Fault::None);
        engine.snapshot(&[]).expect("space again");
        set(&engine, 2, b"two");
        let disk = kill(&disk, engine);
        assert_eq!(recovered_items(&disk, Recover::Strict).expect("starts").0.len(), 2);
    }
}

/// D9: of two flushes that are to come the later order counts, whatever runs lie between.
#[test]
fn a_later_flush_replaces_an_earlier_one() {
    let disk = SimulatedDisk::new(Fault::None);
    let engine = start_at(&disk, NOW);
    set(&engine, 1, b"one");
    (0..2).for_each(|shard| engine.cells.lock(shard).flush_later(seconds(5)));
    engine.commit();
    let disk = kill(&disk, engine);
    let engine = start_at(&disk, seconds(1));
    (0..2).for_each(|shard| engine.cells.lock(shard).flush_later(seconds(1000)));
    engine.commit();
    let disk = kill(&disk, engine);
    let engine = start_at(&disk, seconds(8));
    assert_eq!(engine.items().len(), 1);
    set(&engine, 2, b"two");
    let disk = kill(&disk, engine);
    // It is done by the start, once: what is stored then stays.
    let engine = start_at(&disk, seconds(1001));
    assert_eq!(engine.items().len(), 0);
    set(&engine, 3, b"three");
    let disk = kill(&disk, engine);
    assert_eq!(start_at(&disk, seconds(1002)).items().len(), 1);
}

/// A flush that is to come is in a snapshot, with the logs before it gone; and one that was done
/// in between has done away with it.
#[test]
fn a_snapshot_keeps_a_flush_that_is_to_come() {
    for flushed in [false, true] {
        let disk = SimulatedDisk::new(Fault::None);
        let engine = start_at(&disk, NOW);
        (0..2).for_each(|shard| engine.cells.lock(shard).flush_later(seconds(5)));
        set(&engine, 1, b"one");
        if flushed {
            engine.act(&Act::Flush);
            set(&engine, 2, b"two");
        } else {
            engine.snapshot(&[]).expect("a snapshot");
        }
        let disk = kill(&disk, engine);
        let engine = start_at(&disk, seconds(6));
        assert_eq!(engine.items().len(), usize::from(flushed), "flushed {flushed}");
    }
}

/// D10: without eviction nothing is dropped that was there, and a start that would have to is
/// refused unless that is wanted.
#[test]
fn without_eviction_nothing_is_dropped_unasked() {
    let disk = SimulatedDisk::new(Fault::None);
    let mut full = request(&disk, 2, Recover::Strict);
    full.evict = false;
    let engine = Engine::start_as(&disk, &full, Fsync::EverySecond, OnLogError::Refuse);
    let engine = engine.expect("starts");
    let mut number = 0u32;
    loop {
        let value = value(number);
        let key = format!("key{number}");
        let (_, _, reply) = engine.execute(key.as_bytes(), store(StoreMode::Set, 0, &value));
        number += 1;
        if reply != b"STORED\r\n" {
            break;
        }
    }
    engine.commit();
    let items = engine.items();
    assert!(items.len() > 1000);
    for snapshot in [false, true] {
        if snapshot {
            engine.snapshot(&[]).expect("a snapshot");
        }
        let disk = disk.after(Crash::ALL);
        let recovered = recover_as(&disk, &full).expect("starts");
        assert_eq!(recovered.report.dropped_items, 0);
        let found: Items = recovered.shards.iter().flat_map(|it| items_of(&it.store)).collect();
        assert!(found == items);
        let mut small = full.clone();
        small.memory_bytes_max /= 2;
        let why = recover_as(&disk.copy(), &small).err().expect("refused");
        assert_eq!(why.kind, ErrorKind::Memory);
        small.may_drop = true;
        let recovered = recover_as(&disk, &small).expect("starts");
        assert!(recovered.report.dropped_items > 100);
    }
}

/// D13: a clock behind the log brings nothing back, and what is stored by it lives its time.
#[test]
fn a_clock_set_back_brings_nothing_back() {
    let disk = SimulatedDisk::new(Fault::None);
    let engine = start_at(&disk, seconds(3600));
    engine.execute(b"short", set_for(10));
    engine.execute(b"long", set_for(5000));
    engine.execute(b"deleted", set_for(10));
    engine.commit();
    engine.clock.set(seconds(3620));
    let (_, _, reply) = engine.execute(b"deleted", Verb::Delete { compare: 0 });
    assert_eq!(reply, b"NOT_FOUND\r\n");
    engine.commit();
    let disk = kill(&disk, engine);
    let engine = start_at(&disk, NOW);
    assert_eq!(engine.items().into_keys().collect::<Vec<_>>(), [b"long"]);
    engine.execute(b"new", set_for(60));
    engine.commit();
    let disk = kill(&disk, engine);
    let engine = start_at(&disk, seconds(30));
    assert_eq!(engine.items().into_keys().collect::<Vec<_>>(), [&b"long"[..], b"new"]);
}

/// A clock that was years ahead once does not expire everything from then on.
#[test]
fn a_clock_that_was_years_ahead_is_forgotten() {
    let disk = SimulatedDisk::new(Fault::None);
    let engine = start_at(&disk, seconds(10 * 365 * 86_400));
    set(&engine, 1, b"one");
    let disk = kill(&disk, engine);
    let engine = start_at(&disk, NOW);
    engine.execute(b"new", set_for(3600));
    engine.commit();
    let disk = kill(&disk, engine);
    assert_eq!(start_at(&disk, seconds(60)).items().len(), 2);
}

/// D17: discard is for what is damaged. An intact directory stays as it is, at every start, with
/// snapshots or without, after a kill and after a torn write.
#[test]
fn discard_leaves_an_intact_directory_alone() {
    let mut disk = SimulatedDisk::new(Fault::None);
    for round in 0..6 {
        let mut request = request(&disk, 2, Recover::Discard);
        request.now = seconds(u64::from(round));
        let engine = Engine::start_as(&disk, &request, Fsync::EverySecond, OnLogError::Refuse);
        let engine = engine.expect("starts");
        let report = &engine.report;
        assert_eq!((engine.items().len() as u32, report.damages.len()), (round, 0), "{round}");
        set(&engine, round, &value(round));
        if round % 3 == 1 {
            engine.snapshot(&[]).expect("a snapshot");
        }
        let name = disk.names().into_iter().rfind(|name| name.starts_with("log-"));
        disk = kill(&disk, engine);
        if let Some(name) = name.filter(|_| round % 2 == 1) {
            disk.put(&name, [disk.contents(&name), vec![0xA5; 21]].concat());
        }
    }
    assert!(!disk.names().iter().any(|name| name.contains(".damaged")));
}

#[test]
fn discard_starts_empty_and_deletes_nothing() {
    let disk = SimulatedDisk::new(Fault::None);
    let engine = start(&disk, 2, Fsync::EverySecond);
    for number in 0..40 {
        set(&engine, number, b"value");
    }
    let disk = kill(&disk, engine);
    let mut bytes = disk.contents("log-00000001");
    bytes[300] ^= 1;
    disk.put("log-00000001", bytes.clone());
    let (items, _) = recovered_items(&disk, Recover::Discard).expect("it starts");
    assert!(items.is_empty());
    assert_eq!(disk.contents("log-00000001.damaged"), bytes);
    let (items, report) = recovered_items(&disk, Recover::Strict).expect("it starts");
    assert_eq!((items.len(), report.damages.len()), (0, 0));
}

/// A directory with everything in it: a snapshot and its logs, a log of a later run, and a newer
/// snapshot that was not read back.
fn full_directory() -> (SimulatedDisk, Items) {
    let disk = SimulatedDisk::new(Fault::None);
    let engine = start(&disk, 2, Fsync::EverySecond);
    for number in 0..20 {
        set(&engine, number, &value(number % 4));
    }
    engine.snapshot(&[]).expect("a snapshot");
    for number in 10..30 {
        set(&engine, number, &value(number % 3));
    }
    engine.sync();
    let disk = kill(&disk, engine);
    let engine = start(&disk, 2, Fsync::EverySecond);
    for number in 25..40 {
        set(&engine, number, b"of the second run");
    }
    engine.act(&Act::Delete(3));
    engine.commit();
    engine.sync();
    // Given up while it is read back.
    let rests = AtomicU64::new(0);
    let counted = disk.copy();
    let twin = start(&counted, 2, Fsync::EverySecond);
    twin.snapshot_with(&|| rests.fetch_add(1, Ordering::Relaxed) < u64::MAX).expect("a snapshot");
    let last = rests.load(Ordering::Relaxed);
    let _ = last;
    engine.act(&Act::Set(50, b"last".to_vec()));
    engine.commit();
    engine.sync();
    let items = engine.items();
    (kill(&disk, engine), items)
}

/// D11: a flipped bit of a version is damage, and no newer version: everything that goes around
/// damage goes around this.
#[test]
fn a_version_with_a_flipped_bit_is_damage() {
    let (disk, items) = full_directory();
    let digit = "distcache identity ".len();
    let flipped = |names: &[&str], byte: usize, bit: usize| {
        let disk = disk.copy();
        for name in names {
            let mut bytes = disk.contents(name);
            bytes[byte] ^= 1 << bit;
            disk.put(name, bytes);
        }
        disk
    };
    let names = disk.names();
    let data = names.iter().filter(|name| name.contains('-')).map(String::as_str);
    let mut cases: Vec<(Vec<&str>, usize)> = vec![
        (vec!["IDENTITY"], digit),
        (vec!["IDENTITY.2"], digit),
        (vec!["IDENTITY", "IDENTITY.2"], digit),
    ];
    cases.extend(data.flat_map(|name| (8..12).map(move |byte| (vec![name], byte))));
    for (names, byte) in cases {
        for bit in 0..8 {
            let what = format!("{names:?}, byte {byte}, bit {bit}");
            let disk = flipped(&names, byte, bit);
            match recovered_items(&disk.copy(), Recover::Strict) {
                Ok((found, report)) => {
                    assert!(found == items && report.damages.len() == 1, "{what}");
                }
                Err(why) => assert_eq!(why.kind, ErrorKind::Damaged, "{what}: {why}"),
            }
            for mode in [Recover::Salvage, Recover::Discard] {
                let disk = disk.copy();
                recovered_items(&disk, mode).unwrap_or_else(|why| panic!("{what}: {why}"));
                let (_, report) = recovered_items(&disk, Recover::Strict).expect("whole again");
                assert!(report.damages.is_empty(), "{what}, {mode:?}: {report:?}");
            }
            let repaired = repair(Arc::new(disk.clone()), NOW, random(7));
            repaired.unwrap_or_else(|why| panic!("{what}: repair: {why}"));
            let (_, report) = recovered_items(&disk, Recover::Strict).expect("repaired");
            assert!(report.damages.is_empty(), "{what}: {report:?}");
        }
    }
}

/// Every file lost, cut short, stale, and swapped with every other one; every mode.
#[test]
fn files_swapped_lost_and_stale() {
    let (disk, items) = full_directory();
    let names: Vec<String> = disk.names().into_iter().filter(|name| name != "LOCK").collect();
    let mut damaged: Vec<(String, SimulatedDisk)> = Vec::new();
    for one in &names {
        let with = |bytes: Vec<u8>| {
            let disk = disk.copy();
            disk.put(one, bytes);
            disk
        };
        let whole = disk.contents(one);
        let lost = disk.copy();
        Disk::remove(&lost, one).expect("it is there");
        damaged.push((format!("{one} lost"), lost));
        damaged.push((format!("{one} emptied"), with(Vec::new())));
        damaged.push((format!("{one} cut"), with(whole[..whole.len() / 2].to_vec())));
        damaged.push((format!("{one} zeros"), with(vec![0; whole.len()])));
        for other in names.iter().filter(|other| *other != one) {
            damaged.push((format!("{one} stale"), with(disk.contents(other))));
            let swapped = with(disk.contents(other));
            swapped.put(other, whole.clone());
            damaged.push((format!("{one} for {other}"), swapped));
        }
    }
    for (what, disk) in damaged {
        match recovered_items(&disk.copy(), Recover::Strict) {
            Err(why) => assert_eq!(why.kind, ErrorKind::Damaged, "{what}: {why}"),
            // What was damaged could be made whole.
            // (An end of the newest log that is gone cannot be told from one never written.)
            Ok((found, _)) => {
                assert!(found == items || what == "log-00000003 cut", "{what}: not noticed");
            }
        }
        let checked = check(&disk).expect("names can be read");
        let starts = recovered_items(&disk.copy(), Recover::Strict).is_ok();
        assert_eq!(checked.starts(), starts, "{what}: the check says another thing\n{checked}");
        for mode in [Recover::Salvage, Recover::Discard] {
            let disk = disk.copy();
            let started = recovered_items(&disk, mode);
            let (found, _) = match started {
                Ok(started) => started,
                Err(why) => panic!("{what}, {mode:?}: {why}\n{checked}"),
            };
            let known = found.iter().all(|(key, (value, _))| {
                items.get(key).is_some_and(|(now, _)| now == value) || value.len() < 6_000
            });
            assert!(known, "{what}, {mode:?}");
            let (again, report) = recovered_items(&disk, Recover::Strict).expect("whole again");
            assert_eq!((again, report.damages.len()), (found, 0), "{what}, {mode:?}");
        }
    }
}

/// Bit rot in a snapshot that has just been written: the one before it and the log since are there
/// until it has been read back.
#[test]
fn bit_rot_in_the_newest_snapshot_is_survived() {
    let disk = SimulatedDisk::new(Fault::None);
    let engine = start(&disk, 2, Fsync::EverySecond);
    for number in 0..60 {
        set(&engine, number, &value(number % 4));
    }
    engine.snapshot(&[]).expect("a snapshot");
    for number in 30..90 {
        set(&engine, number, &value(number % 3));
    }
    disk.rot_on_sync("snapshot-00000003", 2_000);
    let why = engine.snapshot(&[]).expect_err("it is read back");
    assert!(why.is_damage(), "{why}");
    set(&engine, 100, b"after");
    let items = engine.items();
    let left = disk.after(Crash::ALL);
    assert!(left.names().contains(&"snapshot-00000002".to_owned()), "{:?}", left.names());
    let (found, report) = recovered_items(&left, Recover::Strict).expect("starts");
    assert_eq!(found, items);
    assert_eq!(report.damages.len(), 1, "{report:?}");
    // The next one is whole, and then the others go.
    engine.snapshot(&[]).expect("a snapshot");
    let left = kill(&disk, engine);
    let (found, report) = recovered_items(&left, Recover::Strict).expect("starts");
    assert_eq!((found, report.damages.len()), (items, 0));
    let data = left.names().into_iter().filter(|name| name.contains('-'));
    assert_eq!(data.collect::<Vec<_>>().len(), 3, "{:?}", left.names());
}

/// A log that was rolled to and never synced may be lost as a whole while a later one is there: the
/// log ends before it. It was taken for damage, and the start refused.
#[test]
fn a_log_lost_as_a_whole_is_an_end() {
    for synced in [false, true] {
        let disk = SimulatedDisk::new(Fault::None);
        let engine = start(&disk, 2, Fsync::No);
        let round = |first: u32| {
            (first..first + 20).for_each(|number| set(&engine, number, &value(number % 4)));
            fail_snapshot(&disk, &engine);
        };
        round(0);
        engine.sync();
        let items = engine.items();
        round(20);
        if synced {
            engine.sync();
        }
        set(&engine, 100, b"in the third");
        let left = disk.after_losing("log-00000002");
        if synced {
            // Nothing that was synced is lost by that.
            let whole = left.contents("log-00000002");
            left.put("log-00000002", whole[..96].to_vec());
            set(&engine, 101, b"whose mark says so");
            left.put("log-00000003", disk.contents("log-00000003"));
            refused(&left, "log-00000001", "a log that was on the device");
            assert!(!check(&left).expect("names can be read").starts());
            continue;
        }
        assert!(check(&left).expect("names can be read").starts());
        let (found, report) = recovered_items(&left, Recover::Strict).expect("an end");
        assert_eq!(found, items);
        assert!(report.cut_bytes > 0 && report.damages.is_empty(), "{report:?}");
        let (found, report) = recovered_items(&left, Recover::Strict).expect("and again");
        assert_eq!((found, report.cut_bytes), (items, 0));
    }
}

/// The log has failed, and the snapshot that is to make it good rots before it is read back: what
/// was told is in the files before. It was taken for good, and a start after that refused.
#[test]
fn a_snapshot_that_rots_after_a_log_has_failed_loses_nothing() {
    for (told, torn) in [(false, false), (false, true), (true, false), (true, true)] {
        let disk = SimulatedDisk::new(Fault::None);
        let engine = start(&disk, 2, Fsync::EverySecond);
        (0..60).for_each(|number| set(&engine, number, &value(number % 4)));
        engine.sync();
        let items = engine.items();
        if torn {
            // A part of the write is there.
            disk.set_fault(Fault::From(disk.calls(), io::ErrorKind::StorageFull));
            engine.act(&Act::Set(1, value(3)));
            engine.commit();
        } else {
            set(&engine, 1, &value(3));
            disk.set_fault(Fault::Once(disk.calls(), io::ErrorKind::Other));
            engine.sync();
        }
        assert!(engine.committer.has_failed());
        disk.set_fault(Fault::None);
        let name = format!("snapshot-0000000{}", 2 + u32::from(told));
        if told {
            // The one before is whole, and changes were taken.
            engine.snapshot(&[]).expect("a snapshot");
            set(&engine, 70, b"told");
        }
        let items = if told { engine.items() } else { items };
        disk.rot_on_sync(&name, 2_000);
        let why = engine.snapshot(&[]).expect_err("it is read back");
        assert!(why.is_damage(), "{why}");
        assert_eq!(engine.is_refusing(), !told);
        let left = disk.after(Crash::ALL);
        assert!(check(&left).expect("names can be read").starts());
        let (found, report) = recovered_items(&left, Recover::Strict).expect("starts");
        let differs = |key: &Vec<u8>| found.get(key) != items.get(key);
        let differ: Vec<_> = items.keys().chain(found.keys()).filter(|key| differs(key)).collect();
        // What was never told may be there or not.
        assert!(differ.iter().all(|key| !told && *key == b"key1"), "told {told}: {differ:?}");
        assert_eq!(report.damages.len(), 1, "{report:?}");
        engine.snapshot(&[]).expect("a snapshot");
        assert!(!engine.is_refusing());
        set(&engine, 71, b"taken");
        let items = engine.items();
        let disk = kill(&disk, engine);
        assert_eq!(recovered_items(&disk, Recover::Strict).expect("starts").0, items);
    }
}

/// A snapshot counts only when all that it shows is in the log: of items taken at different moments
/// the log makes one.
#[test]
fn a_snapshot_shows_nothing_that_the_log_does_not_hold() {
    const KEYS: u32 = 400;
    for stop in 0.. {
        let disk = SimulatedDisk::new(Fault::None);
        let engine = start(&disk, 1, Fsync::EverySecond);
        (0..KEYS).for_each(|number| engine.act(&Act::Set(number, b"old".to_vec())));
        engine.commit();
        let call = disk.calls() + stop;
        disk.set_fault(Fault::Stop(call));
        let rests = AtomicU64::new(0);
        // Once, when a part of the items is taken, and with nothing written of it.
        let taken = engine.snapshot_with(&|| {
            if rests.fetch_add(1, Ordering::Relaxed) == 0 {
                (0..KEYS).for_each(|number| engine.act(&Act::Set(number, b"new".to_vec())));
            }
            true
        });
        let left = disk.after(Crash::ALL);
        let (items, _) = recovered_items(&left, Recover::Strict).expect("starts");
        assert!(is_allowed(&engine.histories(), &items), "call {stop}: a mixture");
        if taken.is_ok() {
            assert!(stop > 10 && disk.calls() <= call, "{stop}");
            break;
        }
    }
}

/// Under always whoever reads what is not on the device yet waits for it, as who wrote it does.
#[test]
fn reads_of_what_is_not_safe_wait() {
    let disk = SimulatedDisk::new(Fault::None);
    let engine = start(&disk, 1, Fsync::Always);
    let (_, sequence, _) = engine.execute(b"key", store(StoreMode::Set, 0, b"value"));
    let read = |key: &[u8]| engine.execute(key, Verb::Get { with_cas: false }).1;
    assert_eq!((read(b"key"), read(b"other")), (sequence, 0));
    engine.commit();
    assert_eq!(engine.committer.progress().safety(0, sequence), Safety::Pending);
    engine.sync();
    assert_eq!(engine.committer.progress().safety(0, sequence), Safety::Safe);
    // Keys are forgotten a generation at a time.
    for number in 0..2 {
        set(&engine, number, b"other");
        engine.sync();
    }
    assert_eq!(read(b"key"), 0);
}

/// Under everysec a device that is behind makes replies wait for it, and only then.
#[test]
fn replies_wait_for_a_device_that_is_behind() {
    let disk = SimulatedDisk::new(Fault::None);
    let engine = start(&disk, 1, Fsync::EverySecond);
    let commit = |ticks: u64| {
        engine.clock.set(Ticks(NOW.0 + ticks));
        let (_, sequence, _) = engine.execute(b"key", store(StoreMode::Set, 0, b"value"));
        engine.commit();
        (engine.committer.progress().safety(0, sequence), sequence)
    };
    assert_eq!(commit(0).0, Safety::Safe);
    assert_eq!(commit(UNSYNCED_AGE_MAX.0).0, Safety::Safe);
    let (safety, sequence) = commit(UNSYNCED_AGE_MAX.0 + 1);
    assert_eq!(safety, Safety::Pending);
    engine.sync();
    assert_eq!(engine.committer.progress().safety(0, sequence), Safety::Safe);
}

/// No token of one run is handed out by another.
#[test]
fn every_run_has_tokens_of_its_own() {
    let disk = SimulatedDisk::new(Fault::None);
    let mut used_below = 0;
    for run in 0..4 {
        let engine = start(&disk, 1, Fsync::EverySecond);
        let sequence = || engine.cells.lock(0).store().sequence_now();
        assert!(sequence() >= used_below, "run {run}: {} is below {used_below}", sequence());
        for number in 0..200 {
            set(&engine, number, &[0; 9_000]);
        }
        if run % 2 == 1 {
            engine.snapshot(&[]).expect("a snapshot");
        }
        used_below = sequence() + 1;
    }
}

/// A sector of zeros is a write that never arrived, unless the file was synced beyond it.
#[test]
fn zeros_in_a_log_are_damage_where_it_was_synced() {
    for synced in [false, true] {
        let disk = SimulatedDisk::new(Fault::None);
        let engine = start(&disk, 1, Fsync::EverySecond);
        for number in 0..40 {
            set(&engine, number, &[b'v'; 100]);
            if synced && number == 30 {
                engine.sync();
            }
        }
        let name = "log-00000001";
        let mut bytes = disk.contents(name);
        bytes[1024..2048].fill(0);
        let disk = disk.after(Crash::ALL);
        disk.put(name, bytes);
        if synced {
            refused(&disk, name, "zeros in what was synced");
        } else {
            let (items, report) = recovered_items(&disk, Recover::Strict).expect("a torn end");
            assert!(report.cut_bytes > 1024 && items.len() < 20);
        }
    }
}

/// What was recovered once has to be there the next time: a shorter log is no torn end then.
#[test]
fn a_log_that_lost_its_end_after_a_start_is_noticed() {
    let disk = SimulatedDisk::new(Fault::None);
    let engine = start(&disk, 1, Fsync::Always);
    set(&engine, 1, b"one");
    set(&engine, 2, b"two");
    let disk = kill(&disk, engine);
    let engine = start(&disk, 1, Fsync::Always);
    set(&engine, 3, b"three");
    let name = "log-00000001";
    let mut bytes = disk.contents(name);
    bytes.truncate(bytes.len() - 8);
    let disk = kill(&disk, engine);
    disk.put(name, bytes);
    refused(&disk, name, "a lost end");
}

/// A log of another history of the same directory, as long as the one in whose place it is.
#[test]
fn a_log_of_another_history_is_noticed() {
    let disk = SimulatedDisk::new(Fault::None);
    let engine = start(&disk, 1, Fsync::EverySecond);
    set(&engine, 1, b"one");
    let disk = kill(&disk, engine);
    let branch = |value: &[u8]| {
        let disk = disk.copy();
        // Another number of calls gives other random numbers.
        (0..value[0]).for_each(|_| _ = disk.sync_directory());
        let engine = start(&disk, 1, Fsync::EverySecond);
        set(&engine, 2, value);
        let disk = kill(&disk, engine);
        let engine = start(&disk, 1, Fsync::EverySecond);
        set(&engine, 3, b"three");
        kill(&disk, engine)
    };
    let (one, other) = (branch(b"1"), branch(b"2"));
    assert_eq!(one.contents("log-00000002").len(), other.contents("log-00000002").len());
    one.put("log-00000002", other.contents("log-00000002"));
    refused(&one, "log-00000002", "another history");
}

/// A log that has failed and was begun afresh counts only with its snapshot; if that is lost later,
/// it is missed.
#[test]
fn a_log_begun_afresh_needs_its_snapshot() {
    let disk = SimulatedDisk::new(Fault::None);
    let engine = start(&disk, 1, Fsync::EverySecond);
    set(&engine, 1, b"one");
    disk.set_fault(Fault::Once(disk.calls(), io::ErrorKind::Other));
    engine.act(&Act::Set(2, b"lost".to_vec()));
    assert!(!engine.commit());
    assert!(engine.is_refusing());
    engine.snapshot(&[]).expect("a snapshot");
    set(&engine, 3, b"three");
    let disk = kill(&disk, engine);
    assert_eq!(recovered_items(&disk.copy(), Recover::Strict).expect("starts").0.len(), 3);
    let snapshot = disk.names().into_iter().find(|name| name.starts_with("snapshot")).unwrap();
    disk.remove(&snapshot).expect("it is there");
    refused(&disk, &snapshot, "the snapshot of a log begun afresh");
}

/// A salvage that is cut short leaves the directory as it was, or salvaged; never less.
#[test]
fn a_salvage_cut_short_loses_nothing() {
    let (disk, _) = full_directory();
    let name = "log-00000002";
    let mut bytes = disk.contents(name);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    disk.put(name, bytes.clone());
    let salvaged =
        |disk: &SimulatedDisk| recovered_items(disk, Recover::Salvage).expect("salvage starts").0;
    let expected = salvaged(&disk.copy());
    assert!(expected.len() > 30);
    let calls = {
        let disk = disk.copy();
        let before = disk.calls();
        salvaged(&disk);
        disk.calls() - before
    };
    for stop in 0..=calls {
        let stopped = disk.copy();
        stopped.set_fault(Fault::Stop(stopped.calls() + stop));
        let _ = recover(&stopped, 2, Recover::Salvage);
        for crash in stopped.crashes() {
            let left = stopped.after(crash);
            let when = format!("call {stop}, {crash:?}");
            if let Ok((items, _)) = recovered_items(&left.copy(), Recover::Strict) {
                assert_eq!(items, expected, "{when}: strict");
            }
            assert_eq!(salvaged(&left), expected, "{when}");
            // What was damaged is there, under its own or another name.
            let names = left.names().into_iter().filter(|other| other.starts_with(name));
            let kept = names.clone().any(|name| left.contents(&name) == bytes);
            assert!(kept, "{when}: gone, of {:?}", names.collect::<Vec<_>>());
        }
    }
}

/// Logs that take all the space they may make changes wait, and a snapshot is due early.
#[test]
fn logs_are_bounded() {
    let disk = SimulatedDisk::new(Fault::None);
    let engine = start(&disk, 2, Fsync::EverySecond);
    assert!(!engine.is_due());
    let value = vec![3; 100_000];
    let mut due_at = 0;
    for number in 0u32.. {
        set(&engine, number % 50, &value);
        if due_at == 0 && engine.is_due() {
            due_at = engine.committer.log_bytes();
        }
        if engine.committer.is_full() {
            break;
        }
        assert!(number < 2_000);
    }
    assert!((31 << 20..33 << 20).contains(&due_at), "{due_at}");
    engine.snapshot(&[]).expect("a snapshot");
    assert!(!engine.committer.is_full() && !engine.is_due());
    assert!(engine.committer.log_bytes() < 1 << 20, "{}", engine.committer.log_bytes());
}

/// Fills the logs of an engine, whose snapshots fail from then on.
fn fill_logs(disk: &SimulatedDisk, engine: &Engine) {
    let value = vec![3; 100_000];
    for number in 0u32.. {
        set(engine, number % 50, &value);
        if engine.committer.is_full() {
            break;
        }
        assert!(number < 2_000);
    }
    fail_snapshot(disk, engine);
}

/// Making the log takes three calls at most, the snapshot many: it is that which fails.
fn fail_snapshot(disk: &SimulatedDisk, engine: &Engine) {
    disk.set_fault(Fault::Once(disk.calls() + 6, io::ErrorKind::Other));
    engine.snapshot(&[]).expect_err("its file fails");
    disk.set_fault(Fault::None);
    assert!(!engine.committer.has_failed());
}

/// Changes waited for ever for space that no snapshot made.
#[test]
fn changes_that_wait_for_space_in_vain_are_refused() {
    for fsync in [Fsync::Always, Fsync::EverySecond] {
        let disk = SimulatedDisk::new(Fault::None);
        let engine = start(&disk, 2, fsync);
        fill_logs(&disk, &engine);
        let items = engine.items();
        engine.clock.set(Ticks(NOW.0 + FULL_SECONDS_MAX * Ticks::PER_SECOND - 1));
        engine.stop_waiting();
        assert!(!engine.is_refusing(), "{fsync:?}: not before its time");
        engine.clock.set(seconds(FULL_SECONDS_MAX));
        engine.stop_waiting();
        assert!(engine.is_refusing() && engine.committer.is_refusing(), "{fsync:?}");
        assert!(!engine.committer.has_failed(), "{fsync:?}: the log is good");
        let (_, _, reply) = engine.execute(b"key1", store(StoreMode::Set, 0, b"refused"));
        assert_eq!(reply, b"SERVER_ERROR log unavailable\r\n");
        let (_, _, reply) = engine.execute(b"key1", Verb::Get { with_cas: false });
        assert!(reply.starts_with(b"VALUE key1 1 100000\r\n"), "{fsync:?}: reads go on");
        engine.sync();
        let left = disk.after(Crash { mask: 0, ..Crash::ALL });
        assert!(recovered_items(&left, Recover::Strict).expect("starts").0 == items, "{fsync:?}");
        // Tried at once, and again and again.
        assert!(engine.is_due());
        fail_snapshot(&disk, &engine);
        assert!(engine.is_refusing() && !engine.is_due());
        engine.clock.set(seconds(FULL_SECONDS_MAX + 1));
        assert!(engine.is_due());
        engine.snapshot(&[]).expect("a snapshot");
        assert!(!engine.is_refusing() && !engine.committer.is_full(), "{fsync:?}");
        set(&engine, 1, b"taken");
        engine.sync();
        let items = engine.items();
        let disk = kill(&disk, engine);
        assert!(recovered_items(&disk, Recover::Strict).expect("starts").0 == items, "{fsync:?}");
    }
}

/// A snapshot that counts and cannot be read back makes no space: who takes changes then has them
/// wait again. One more is due, though nothing has changed since.
#[test]
fn changes_are_refused_until_there_is_space() {
    let disk = SimulatedDisk::new(Fault::None);
    let engine = start(&disk, 2, Fsync::EverySecond);
    fill_logs(&disk, &engine);
    engine.clock.set(seconds(FULL_SECONDS_MAX));
    engine.stop_waiting();
    // One counts before what is older is gone.
    engine.committer.accept(2, engine.committer.epoch(), &engine.cells);
    assert!(engine.is_refusing());
    disk.rot_on_sync("snapshot-00000002", 2_000);
    let why = engine.snapshot(&[]).expect_err("it is read back");
    assert!(why.is_damage(), "{why}");
    assert!(engine.is_refusing() && engine.committer.is_full());
    engine.clock.set(seconds(100));
    assert!(engine.is_due());
    engine.snapshot(&[]).expect("a snapshot");
    assert!(!engine.is_refusing() && !engine.committer.is_full());
}

/// The log fails while it is full: both have to be made good.
#[test]
fn a_full_log_that_fails_is_made_good_by_a_snapshot() {
    let disk = SimulatedDisk::new(Fault::None);
    let engine = start(&disk, 2, Fsync::EverySecond);
    fill_logs(&disk, &engine);
    engine.clock.set(seconds(FULL_SECONDS_MAX));
    engine.stop_waiting();
    // What expires is recorded all the same.
    disk.set_fault(Fault::Once(disk.calls(), io::ErrorKind::Other));
    engine.sync();
    assert!(engine.committer.has_failed());
    disk.set_fault(Fault::None);
    engine.snapshot(&[]).expect("a snapshot");
    assert!(!engine.is_refusing() && !engine.committer.is_refusing());
    set(&engine, 1, b"taken");
    let items = engine.items();
    let disk = kill(&disk, engine);
    assert!(recovered_items(&disk, Recover::Strict).expect("starts").0 == items);
}

/// Who wants to go on without a log does so when it is full as well.
#[test]
fn full_logs_are_done_without_where_that_is_wanted() {
    let disk = SimulatedDisk::new(Fault::None);
    let request = request(&disk, 2, Recover::Strict);
    let engine = Engine::start_as(&disk, &request, Fsync::EverySecond, OnLogError::Serve);
    let engine = engine.expect("starts");
    fill_logs(&disk, &engine);
    engine.clock.set(seconds(FULL_SECONDS_MAX));
    engine.stop_waiting();
    assert!(!engine.is_refusing() && engine.committer.is_refusing());
    engine.act(&Act::Set(1, b"not kept so far".to_vec()));
    engine.snapshot(&[]).expect("a snapshot");
    assert!(!engine.committer.is_refusing() && !engine.committer.is_full());
    set(&engine, 2, b"kept");
    let items = engine.items();
    let disk = kill(&disk, engine);
    assert!(recovered_items(&disk, Recover::Strict).expect("starts").0 == items);
}

/// A snapshot is due by time and growth, and not while nothing has changed.
#[test]
fn a_snapshot_is_due_by_time_and_growth() {
    let disk = SimulatedDisk::new(Fault::None);
    let engine = start(&disk, 2, Fsync::EverySecond);
    engine.clock.set(seconds(59));
    set(&engine, 1, b"one");
    assert!(!engine.is_due());
    engine.clock.set(seconds(60));
    assert!(engine.is_due());
    engine.snapshot(&[]).expect("a snapshot");
    engine.clock.set(seconds(200));
    assert!(!engine.is_due(), "nothing has changed");
    set(&engine, 2, b"two");
    assert!(engine.is_due());
}

/// A disk file keeps what it was given: used by tests that look at bytes.
#[test]
fn the_simulated_disk_keeps_what_is_written() {
    let disk = SimulatedDisk::new(Fault::None);
    let file = disk.create("one", Growth::AsWritten).expect("made");
    file.append(&[io::IoSlice::new(b"ab"), io::IoSlice::new(b"c")]).expect("written");
    assert_eq!((disk.contents("one"), file.len().unwrap()), (b"abc".to_vec(), 3));
    assert_eq!(
        items_at(&recover(&disk, 1, Recover::Strict).unwrap().shards[0].store, NOW).len(),
        0
    );
}
