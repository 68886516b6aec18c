//! What survives: every state in which a crash can leave the disk, every way of damaging the files,
//! every call that can fail. All on a simulated disk, so that each case takes microseconds.

#![cfg(feature = "server")]

mod cases;
mod disk;
mod engine;
mod histories;

use disk::{Crash, Fault, SimulatedDisk};
use distcache::durable::{ErrorKind, Fsync, Recover};
use engine::{Act, Engine, History, Items, recovered_items};
use std::io;

/// A workload with everything in it: changes of all kinds, turns, syncs, snapshots.
#[derive(Debug, Clone)]
enum Step {
    Act(Act),
    Commit,
    Sync,
    Snapshot(Vec<Act>),
}

fn value(number: u32) -> Vec<u8> {
    let length = [3, 40, 300, 700, 5_000][number as usize % 5];
    (0..length).map(|at| b'a' + ((number as usize + at) % 26) as u8).collect()
}

fn workload() -> Vec<Step> {
    use Act::*;
    let mut steps = Vec::new();
    let turn = |steps: &mut Vec<Step>, acts: Vec<Act>| {
        steps.extend(acts.into_iter().map(Step::Act));
        steps.push(Step::Commit);
    };
    turn(&mut steps, vec![Set(1, value(1)), Set(2, b"41".to_vec()), Set(3, value(3))]);
    turn(&mut steps, vec![Increment(2), Append(1)]);
    steps.push(Step::Sync);
    turn(&mut steps, vec![Delete(3), Touch(1)]);
    turn(&mut steps, vec![Set(4, value(4))]);
    turn(&mut steps, vec![Set(5, value(7)), Increment(2)]);
    steps.push(Step::Snapshot(vec![Set(6, value(5)), Delete(1), Increment(2), Append(5)]));
    turn(&mut steps, vec![Set(1, value(2)), Delete(5)]);
    steps.push(Step::Sync);
    turn(&mut steps, vec![Flush, Set(7, value(8))]);
    turn(&mut steps, vec![Set(8, value(3)), Set(7, value(4))]);
    steps.push(Step::Snapshot(vec![Append(7), Set(9, value(9))]));
    turn(&mut steps, vec![Delete(8), Increment(9), Set(2, b"7".to_vec())]);
    turn(&mut steps, vec![Increment(2)]);
    steps
}

/// Plays steps until the disk fails for good. Answers the histories, and those as of before the
/// last step.
fn play(engine: &Engine, steps: &[Step]) {
    for step in steps {
        match step {
            Step::Act(act) => engine.act(act),
            Step::Commit => _ = engine.commit(),
            Step::Sync => engine.sync(),
            // A snapshot may fail; the data must not suffer.
            Step::Snapshot(acts) => _ = engine.snapshot(acts),
        }
    }
}

/// Keys, lengths and flags, for messages.
fn short(items: &Items) -> String {
    let one = |(key, (value, flags)): (&Vec<u8>, &(Vec<u8>, u32))| {
        let start = String::from_utf8_lossy(&value[..value.len().min(6)]);
        format!("{} {}:{start} {flags}", String::from_utf8_lossy(key), value.len())
    };
    items.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Whether a recovered state is a combination of allowed states, one for each shard.
fn is_allowed(histories: &[History], items: &Items) -> bool {
    // Keys of one shard never appear in another's states.
    let keys_of = |history: &History| -> Vec<Vec<u8>> {
        let states = history.states.iter();
        let mut keys: Vec<_> = states.flat_map(|(_, items)| items.keys().cloned()).collect();
        keys.sort();
        keys.dedup();
        keys
    };
    let mut left = items.clone();
    histories.iter().all(|history| {
        let part: Items =
            keys_of(history).into_iter().filter_map(|key| left.remove_entry(&key)).collect();
        history.allows(&part)
    }) && left.is_empty()
}

fn calls_of_workload(shards: usize) -> usize {
    let disk = SimulatedDisk::new(Fault::None);
    let engine = Engine::start(&disk, shards, Fsync::EverySecond).expect("starts");
    play(&engine, &workload());
    disk.calls()
}

/// Every call, every state a loss of power can leave: what was told under `always` is there, and
/// what is there is a state between the last told and the last done.
#[test]
fn power_cut_after_every_call() {
    let mut states = 0;
    for shards in [1, 2] {
        for stop in 0..=calls_of_workload(shards) {
            // As the daemon's logs do under `always`; every other time without, for both paths.
            let mut disk = SimulatedDisk::new(Fault::Stop(stop));
            if stop % 2 == 0 {
                disk = disk.growing_ahead();
            }
            let histories = match Engine::start(&disk, shards, Fsync::Always) {
                Ok(engine) => {
                    play(&engine, &workload());
                    engine.histories()
                }
                Err(_) => vec![History::default()],
            };
            for crash in disk.crashes() {
                let left = disk.after(crash);
                let (items, report) = recovered_items(&left, Recover::Strict)
                    .unwrap_or_else(|why| panic!("call {stop}, {crash:?}: {why}"));
                // Of a snapshot that was cut short nothing says that it is whole.
                let is_damaged = report.damages.iter().any(|damage| damage.contains("snapshot"));
                assert!(!is_damaged, "call {stop}, {crash:?}: {:?}", report.damages);
                assert!(
                    is_allowed(&histories, &items),
                    "call {stop}, {crash:?}: {}",
                    short(&items)
                );
                states += 1;
            }
        }
    }
    println!("{states} states");
    assert!(states > 4_500, "{states}");
}

/// The end of a process loses nothing that was told, in any mode: the kernel has all writes.
#[test]
fn process_killed_after_every_call() {
    for fsync in [Fsync::Always, Fsync::EverySecond, Fsync::No] {
        for stop in 0..=calls_of_workload(2) {
            let disk = SimulatedDisk::new(Fault::Stop(stop));
            let Ok(engine) = Engine::start(&disk, 2, fsync) else { continue };
            play(&engine, &workload());
            let left = disk.after(Crash::ALL);
            let (items, _) = recovered_items(&left, Recover::Strict)
                .unwrap_or_else(|why| panic!("{fsync:?}, call {stop}: {why}"));
            let allowed = is_allowed(&engine.histories(), &items);
            assert!(allowed, "{fsync:?}, call {stop}: {}", short(&items));
        }
    }
}

/// A crash, a start with another number of shards, more changes, and another crash.
#[test]
fn crash_after_crash() {
    let last = calls_of_workload(2);
    for stop in (0..=last).step_by(3) {
        let disk = SimulatedDisk::new(Fault::Stop(stop));
        if let Ok(engine) = Engine::start(&disk, 2, Fsync::Always) {
            play(&engine, &workload());
        }
        for mask in [0, 5, !0] {
            let disk = disk.after(Crash { mask, ..Crash::ALL });
            let again = stop * 7 % (last + 1);
            disk.set_fault(Fault::Stop(again));
            let Ok(engine) = Engine::start(&disk, 3, Fsync::Always) else {
                continue;
            };
            play(&engine, &workload());
            let histories = engine.histories();
            let crashes = disk.crashes();
            for crash in crashes.into_iter().step_by(5) {
                let left = disk.after(crash);
                let (items, _) = recovered_items(&left, Recover::Strict)
                    .unwrap_or_else(|why| panic!("{stop}, {mask}, {again}, {crash:?}: {why}"));
                assert!(is_allowed(&histories, &items), "{stop} {mask} {again} {crash:?}");
            }
        }
    }
}

/// A kill leaves what was written in the kernel's memory, where the next start reads it. The
/// manifest of that start said how far each log counts, and a power cut then left less of them: the
/// start after it took that for damage.
#[test]
fn a_power_cut_after_a_kill_is_no_damage() {
    let steps = workload();
    for fsync in [Fsync::EverySecond, Fsync::No] {
        for played in 1..=steps.len() {
            let disk = SimulatedDisk::new(Fault::None);
            let engine = Engine::start(&disk, 2, fsync).expect("a new directory");
            play(&engine, &steps[..played]);
            drop(engine);
            drop(Engine::start(&disk, 2, fsync).expect("after a kill"));
            for crash in disk.crashes().into_iter().step_by(3) {
                recovered_items(&disk.after(crash), Recover::Strict)
                    .unwrap_or_else(|why| panic!("{fsync:?}, {played} steps, {crash:?}: {why}"));
            }
        }
    }
}

/// Every call fails once, or from then on until the disk is well again; then the power fails.
#[test]
fn every_call_fails() {
    let kinds = [io::ErrorKind::Other, io::ErrorKind::StorageFull, io::ErrorKind::Interrupted];
    for fsync in [Fsync::Always, Fsync::EverySecond] {
        for call in 0..calls_of_workload(2) {
            for kind in kinds {
                for fault in [Fault::Once(call, kind), Fault::From(call, kind)] {
                    if kind == io::ErrorKind::Interrupted && fault == Fault::From(call, kind) {
                        // A call that is interrupted for ever is not one that returns.
                        continue;
                    }
                    fail_and_heal(fsync, fault);
                }
            }
        }
    }
}

fn fail_and_heal(fsync: Fsync, fault: Fault) {
    let disk = SimulatedDisk::new(fault);
    let Ok(engine) = Engine::start(&disk, 2, fsync) else { return };
    play(&engine, &workload());
    let check = |engine: &Engine, masks: &[u64], when: &str| {
        for mask in masks {
            let left = disk.after(Crash { mask: *mask, ..Crash::ALL });
            let (items, _) = recovered_items(&left, Recover::Strict)
                .unwrap_or_else(|why| panic!("{fsync:?}, {fault:?}, {when}: {why}"));
            let allowed = is_allowed(&engine.histories(), &items);
            assert!(allowed, "{fsync:?}, {fault:?}, {when}: {}", short(&items));
        }
    };
    // Under everysec only what was synced survives a loss of power: kill the process instead.
    let masks: &[u64] = if fsync == Fsync::Always { &[0, !0] } else { &[!0] };
    if fsync == Fsync::Always {
        // The daemon would have ended.
        return check(&engine, masks, "at once");
    }
    disk.set_fault(Fault::None);
    let healed = engine.snapshot(&[]);
    assert!(healed.is_ok(), "{fault:?}: {healed:?}");
    engine.act(&Act::Set(99, b"after".to_vec()));
    assert!(engine.commit(), "{fault:?}: changes are taken again");
    check(&engine, masks, "after healing");
    engine.sync();
    check(&engine, &[0, !0], "after healing and a sync");
}

/// A disk with a log of many records, and the state after each of them.
fn disk_with_log(bytes_wanted: usize) -> (SimulatedDisk, String, Vec<Items>) {
    let disk = SimulatedDisk::new(Fault::None);
    let engine = Engine::start(&disk, 1, Fsync::EverySecond).expect("starts");
    let name = "log-00000001".to_owned();
    let mut number = 0;
    while disk.contents(&name).len() < bytes_wanted {
        let act = match number % 7 {
            5 => Act::Delete(number % 13),
            6 => Act::Append(number % 13),
            _ => Act::Set(number % 13, value(number % 4)),
        };
        engine.act(&act);
        engine.commit();
        number += 1;
    }
    let histories = engine.histories();
    let states = histories[0].states.iter().map(|(_, items)| items.clone()).collect();
    (disk.after(Crash::ALL), name, states)
}

/// How large the damaged files are: every byte and bit of them is tried. 65536 for the full run.
fn damage_bytes() -> usize {
    std::env::var("DAMAGE_BYTES").ok().and_then(|text| text.parse().ok()).unwrap_or(3_000)
}

#[test]
fn log_truncated_at_every_byte() {
    let (disk, name, states) = disk_with_log(damage_bytes() * 4);
    let whole = disk.contents(&name);
    // A start syncs what its log begins with.
    let begin = records(&whole)[..2].concat().len();
    let mut last = 0;
    for length in 0..whole.len() {
        let disk = disk.copy();
        disk.put(&name, whole[..length].to_vec());
        match recovered_items(&disk, Recover::Strict) {
            Ok((items, _)) => {
                // Truncation can only take from the end.
                let found = states.iter().rposition(|state| *state == items).expect("a state");
                assert!(found >= last || states[last] == states[found], "{length}");
                last = last.max(found);
            }
            Err(why) => {
                assert!(length < begin && why.kind == ErrorKind::Damaged, "{length}: {why}")
            }
        }
    }
    assert!(last >= states.len() - 2, "{last} of {}", states.len());
}

/// Flips every bit of a file. `last_record` is where its last record begins.
fn flip_every_bit(disk: &SimulatedDisk, name: &str, last_record: usize, states: &[Items]) {
    let whole = disk.contents(name);
    let (mut refused, mut cut) = (0, 0);
    for bit in 0..whole.len() * 8 {
        let disk = disk.copy();
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        disk.put(name, bytes);
        match recovered_items(&disk, Recover::Strict) {
            Err(why) => {
                assert_eq!(why.kind, ErrorKind::Damaged, "{why}");
                assert_eq!((why.file.as_str(), why.offset.is_some()), (name, true), "{why}");
                refused += 1;
            }
            Ok((items, report)) => {
                assert!(bit / 8 >= last_record, "{name}, bit {bit}: not noticed");
                assert!(report.cut_bytes > 0, "{name}, bit {bit}: not reported");
                assert!(states.contains(&items), "{name}, bit {bit}: a wrong value");
                cut += 1;
            }
        }
    }
    println!("{name}: {refused} refused, {cut} cut off, of {}", whole.len() * 8);
}

#[test]
fn every_bit_of_a_log_flipped() {
    let (disk, name, states) = disk_with_log(damage_bytes());
    let whole = disk.contents(&name);
    let last_record = whole.len() - records(&whole).last().map_or(0, Vec::len);
    flip_every_bit(&disk, &name, last_record, &states);
}

#[test]
fn every_bit_of_a_snapshot_flipped() {
    let disk = SimulatedDisk::new(Fault::None);
    let engine = Engine::start(&disk, 1, Fsync::Always).expect("starts");
    for number in 0..damage_bytes() as u32 / 100 {
        engine.act(&Act::Set(number, value(number % 4)));
    }
    engine.commit();
    engine.snapshot(&[]).expect("a snapshot");
    let disk = disk.after(Crash::ALL);
    flip_every_bit(&disk, "snapshot-00000002", usize::MAX, &[]);
}

/// One copy of the identity is enough, whatever became of the other; a start mends it.
#[test]
fn every_bit_of_an_identity_flipped() {
    let (disk, _, states) = disk_with_log(2_000);
    for name in ["IDENTITY", "IDENTITY.2"] {
        let whole = disk.contents(name);
        for bit in (0..whole.len() * 8).step_by(3) {
            let disk = disk.copy();
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            disk.put(name, bytes);
            let (items, report) = recovered_items(&disk, Recover::Strict).expect("a copy is left");
            assert_eq!(Some(&items), states.last(), "{name}, bit {bit}");
            assert_eq!(report.damages.len(), 1, "{name}, bit {bit}: not reported");
            let (_, report) = recovered_items(&disk, Recover::Strict).expect("mended");
            assert!(report.damages.is_empty(), "{name}, bit {bit}: not mended");
        }
    }
}

/// A log as its records: header first, then each record with its padding.
fn records(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut records = vec![bytes[..96].to_vec()];
    let mut at = 96;
    while at < bytes.len() {
        let body = u32::from_le_bytes([bytes[at + 4], bytes[at + 5], bytes[at + 6], 0]) as usize;
        let end = at + (14 + body).next_multiple_of(8);
        records.push(bytes[at..end].to_vec());
        at = end;
    }
    records
}

#[test]
fn records_swapped_dropped_and_repeated() {
    let (disk, name, _) = disk_with_log(2_000);
    let whole = records(&disk.contents(&name));
    let refused = |changed: Vec<Vec<u8>>, what: &str| {
        let disk = disk.copy();
        disk.put(&name, changed.concat());
        match recovered_items(&disk, Recover::Strict) {
            Err(why) => assert_eq!(why.kind, ErrorKind::Damaged, "{what}: {why}"),
            Ok(_) => panic!("{what}: not noticed"),
        }
    };
    for at in 1..whole.len() - 1 {
        let mut changed = whole.clone();
        changed.swap(at, at + 1);
        refused(changed, &format!("{at} swapped"));
        let mut changed = whole.clone();
        changed.remove(at);
        refused(changed, &format!("{at} dropped"));
        let mut changed = whole.clone();
        changed.insert(at, whole[at].clone());
        refused(changed, &format!("{at} repeated"));
    }
}

#[test]
fn tails_of_zeros_and_garbage() {
    let (disk, name, states) = disk_with_log(2_000);
    let whole = disk.contents(&name);
    for (tail, cut) in [(vec![0; 4096], false), (vec![0xA5; 100], true), (vec![1; 3], true)] {
        let disk = disk.copy();
        disk.put(&name, [whole.clone(), tail].concat());
        let (items, report) = recovered_items(&disk, Recover::Strict).expect("it starts");
        assert_eq!(Some(&items), states.last());
        assert_eq!(report.cut_bytes > 0, cut);
    }
}
