//! Single cases: each is there because a break of `src/durable` passed all the exhaustive tests.
//! docs/DURABILITY.md has the table of breaks and what catches them.

use super::disk::{Crash, Fault, SimulatedDisk};
use super::engine::{Act, Engine, NOW, recover, recovered_items};
use super::{merged, short};
use distcache::durable::disk::Disk;
use distcache::durable::log::{Log, Safety, UNSYNCED_AGE_MAX};
use distcache::durable::{Error, ErrorKind, Fsync, Recover};
use distcache::store::Ticks;
use distcache::store::hash::shard_of;

fn start(disk: &SimulatedDisk, shards: usize, fsync: Fsync) -> Engine {
    Engine::start(disk, shards, fsync, Vec::new()).expect("starts")
}

fn set(engine: &mut Engine, number: u32, value: &[u8]) {
    engine.act(&Act::Set(number, value.to_vec()));
    assert!(engine.commit());
}

#[track_caller]
fn refused(disk: &SimulatedDisk, file: &str, what: &str) -> Error {
    let why = match recovered_items(disk, Recover::Strict) {
        Err(why) => why,
        Ok(_) => panic!("{what}: not noticed"),
    };
    assert_eq!((why.kind, why.file.as_str()), (ErrorKind::Damaged, file), "{what}: {why}");
    why
}

/// A value in many pieces that lost its last ones is cut off from the first, and reported.
#[test]
fn large_values_are_there_as_a_whole_or_not_at_all() {
    const NAME: &str = "log-00000001-000";
    let disk = SimulatedDisk::new(Fault::None);
    let mut engine = start(&disk, 1, Fsync::EverySecond);
    set(&mut engine, 1, b"small");
    let before = disk.contents(NAME).len();
    let large: Vec<u8> = (0..600_000u32).map(|at| (at / 7) as u8).collect();
    set(&mut engine, 2, &large);
    let whole = disk.contents(NAME);
    let piece = 12 + (256 << 10) + 4;
    let head = whole.len() - before - 2 * piece - (12 + 600_000usize - 2 * (256 << 10));
    let boundaries = [0, head, head + piece, head + 2 * piece].map(|at| (before + at) & !7);
    let lengths = boundaries.iter().flat_map(|at| [at - 1, *at, at + 1, at + 8, at + 9_000]);
    let mut lengths: Vec<usize> = lengths.filter(|at| (before..whole.len()).contains(at)).collect();
    lengths.push(whole.len());
    for length in lengths {
        let disk = disk.copy();
        disk.put(NAME, whole[..length].to_vec());
        let recover = || recovered_items(&disk, Recover::Strict).expect("a torn end");
        let (items, report) = recover();
        let items = merged(items);
        let found = items.get(&b"key2"[..]).map(|(value, _)| value == &large);
        assert_eq!(found, (length == whole.len()).then_some(true), "{length}");
        // Zeros at the end, of padding or value, are not counted: logs may grow ahead by zeros.
        let cut_bytes = if found.is_some() { 0 } else { length - before };
        let reported_bytes = report.cut_bytes as usize;
        assert!((cut_bytes.saturating_sub(16)..=cut_bytes).contains(&reported_bytes), "{length}");
        assert_eq!(merged(recover().0), items, "{length}: again");
    }
}

/// Two shards whose logs have as many records each: only their headers tell them apart.
#[test]
fn logs_of_two_shards_swapped_are_noticed() {
    let disk = SimulatedDisk::new(Fault::None);
    let mut engine = start(&disk, 2, Fsync::Always);
    let names = ["log-00000001-000", "log-00000001-001"];
    let mut number = 100;
    let lengths = |disk: &SimulatedDisk| names.map(|name| disk.contents(name).len());
    while number < 104 || lengths(&disk)[0] != lengths(&disk)[1] {
        set(&mut engine, number, b"value");
        number += 1;
        assert!(number < 300, "{:?}", lengths(&disk));
    }
    let disk = disk.after(Crash::ALL);
    let [one, two] = names.map(|name| disk.contents(name));
    disk.put(names[0], two);
    disk.put(names[1], one);
    let why = refused(&disk, names[0], "swapped logs");
    assert_eq!(why.offset, Some(0));
}

/// Under always whoever reads what is not on the device yet waits for it, as who wrote it does.
#[test]
fn reads_of_what_is_not_safe_wait() {
    let disk = SimulatedDisk::new(Fault::None);
    let mut recovered = recover(&disk, 1, Recover::Strict).expect("starts");
    let (mut log, mut journal) = Log::begin(recovered.logs.remove(0), Fsync::Always);
    journal.delete(1, b"key");
    let sequence = journal.sequence();
    log.commit(&mut journal, NOW).expect("written");
    assert_eq!((journal.unsafe_sequence(1), journal.unsafe_sequence(2)), (sequence, 0));
    assert_eq!(log.progress().safety(sequence), Safety::Pending);
    log.syncer().sync_now(|| NOW);
    assert_eq!(log.progress().safety(sequence), Safety::Safe);
    // Keys are forgotten a generation at a time.
    for _ in 0..2 {
        log.commit(&mut journal, NOW).expect("nothing to write");
    }
    assert_eq!(journal.unsafe_sequence(1), 0);
}

/// No token of one run is handed out by another.
#[test]
fn every_run_has_tokens_of_its_own() {
    let disk = SimulatedDisk::new(Fault::None);
    let mut used_below = 0;
    for run in 0..3 {
        let recovered = recover(&disk, 1, Recover::Strict).expect("starts");
        let first = recovered.shards[0].store.sequence_now();
        assert!(first >= used_below, "run {run}: {first} is below {used_below}");
        used_below = recovered.directory.manifest().token_ceiling;
        assert!(used_below > first + 1000, "run {run}: no tokens granted");
    }
}

/// A sector of zeros is a write that never arrived, unless the file was synced beyond it.
#[test]
fn zeros_in_a_log_are_damage_where_it_was_synced() {
    for synced in [false, true] {
        let disk = SimulatedDisk::new(Fault::None);
        let mut engine = start(&disk, 1, Fsync::EverySecond);
        for number in 0..40 {
            set(&mut engine, number, &[b'v'; 100]);
            if synced && number == 30 {
                engine.sync();
            }
        }
        let name = "log-00000001-000";
        let mut bytes = disk.contents(name);
        bytes[1024..2048].fill(0);
        let disk = disk.after(Crash::ALL);
        disk.put(name, bytes);
        if synced {
            refused(&disk, name, "zeros in what was synced");
        } else {
            let (items, report) = recovered_items(&disk, Recover::Strict).expect("a torn end");
            assert!(report.cut_bytes > 1024 && merged(items).len() < 20);
        }
    }
}

/// What was recovered once has to be there the next time: a shorter log is no torn end then.
#[test]
fn a_log_that_lost_its_end_after_a_start_is_noticed() {
    let disk = SimulatedDisk::new(Fault::None);
    let mut engine = start(&disk, 1, Fsync::Always);
    set(&mut engine, 1, b"one");
    set(&mut engine, 2, b"two");
    let disk = disk.after(Crash::ALL);
    let mut engine = start(&disk, 1, Fsync::Always);
    set(&mut engine, 3, b"three");
    let name = "log-00000001-000";
    let mut bytes = disk.contents(name);
    bytes.truncate(bytes.len() - 8);
    let disk = disk.after(Crash::ALL);
    disk.put(name, bytes);
    refused(&disk, name, "a lost end");
}

/// Under everysec a device that is behind makes replies wait for it, and only then.
#[test]
fn replies_wait_for_a_device_that_is_behind() {
    let disk = SimulatedDisk::new(Fault::None);
    let mut recovered = recover(&disk, 1, Recover::Strict).expect("starts");
    let file = recovered.logs.remove(0);
    let (mut log, mut journal) = Log::begin(file, Fsync::EverySecond);
    let mut commit = |seconds: u64, over: u64| {
        let now = Ticks(NOW.plus_seconds(seconds).0 + over);
        journal.delete(1, b"key");
        log.commit(&mut journal, now).expect("written");
        (log.progress().safety(journal.sequence()), now)
    };
    assert_eq!(commit(0, 0).0, Safety::Safe);
    assert_eq!(commit(0, UNSYNCED_AGE_MAX.0).0, Safety::Safe);
    let (safety, now) = commit(0, UNSYNCED_AGE_MAX.0 + 1);
    assert_eq!(safety, Safety::Pending);
    log.syncer().sync_now(|| now);
    assert_eq!(log.progress().safety(journal.sequence()), Safety::Safe);
}

/// A salvage that is cut short leaves the directory as it was, or salvaged; never less.
#[test]
fn a_salvage_cut_short_loses_nothing() {
    for lost_manifest in [false, true] {
        let disk = SimulatedDisk::new(Fault::None);
        let mut engine = start(&disk, 2, Fsync::Always);
        for number in 0..30 {
            set(&mut engine, number, b"value");
        }
        engine.sync();
        engine.snapshot(&[]).expect("a snapshot");
        set(&mut engine, 31, b"after");
        engine.sync();
        let disk = disk.after(Crash::ALL);
        if lost_manifest {
            disk.remove("MANIFEST").expect("it is there");
        } else {
            let name = "log-00000002-000";
            let bytes = [&disk.contents(name)[..52], &[0xA5; 40]].concat();
            let mut bytes = bytes;
            bytes[40] ^= 1;
            disk.put(name, bytes);
        }
        let disk = disk.after(Crash::ALL);
        let files = disk.names();
        let salvaged = |disk: &SimulatedDisk| {
            merged(recovered_items(disk, Recover::Salvage).expect("salvage starts").0)
        };
        let expected = salvaged(&disk.copy());
        assert!(expected.len() >= 30, "{}", short(&expected));
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
                    assert_eq!(merged(items), expected, "{when}: strict");
                }
                assert_eq!(salvaged(&left), expected, "{when}");
                // Every file is there, under its own or another name.
                let names = left.names();
                let gone = files
                    .iter()
                    .find(|file| !names.iter().any(|name| name.starts_with(file.as_str())));
                assert_eq!(gone, None, "{when}: of {names:?}");
            }
        }
    }
}

/// Without its manifest a directory has lost the secret of the key hash: items change shards.
#[test]
fn a_rebuilt_manifest_finds_every_key_in_its_shard() {
    let disk = SimulatedDisk::new(Fault::None);
    let mut engine = start(&disk, 3, Fsync::Always);
    for number in 0..60 {
        set(&mut engine, number, b"value");
    }
    let disk = disk.after(Crash::ALL);
    disk.remove("MANIFEST").expect("it is there");
    for _ in 0..2 {
        let mut recovered = recover(&disk, 3, Recover::Salvage).expect("salvage starts");
        for number in 0..60 {
            let key = format!("key{number}").into_bytes();
            let hash = recovered.hasher.hash(&key);
            let store = &mut recovered.shards[shard_of(hash, 3)].store;
            assert!(store.find(hash, &key, NOW).is_ok(), "key{number}");
        }
    }
}
