//! What the daemon costs when nobody asks for anything: memory at the start, processor time, and
//! how soon it gives up what has expired. Goal: a large `-m` and an idle night cost next to
//! nothing. Method: the built daemon, and what the kernel counts for it.

#![cfg(all(feature = "server", target_os = "linux"))]

mod support;

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};
use support::{Client, Daemon};

/// Resident memory after a start: the program, its threads and buffers, and none of `-m`.
const START_BYTES_MAX: u64 = 32 << 20;

/// An idle daemon takes less of a core than this.
const IDLE_SHARE_MAX: f64 = 0.01;

/// Long enough for the sweep, the syncer and the keeper to come by several times.
const IDLE_TIME: Duration = Duration::from_secs(3);

/// What has expired is given up within this time.
const SWEEP_TIME_MAX: Duration = Duration::from_secs(10);

fn resident_bytes(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is alive");
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

/// Processor time of all its threads so far.
fn processor_time(daemon: &Daemon) -> Duration {
    let threads = fs::read_dir(format!("/proc/{}/task", daemon.process.id())).unwrap();
    let nanoseconds = threads.filter_map(|thread| {
        // A thread may have ended, or the kernel may not count: then it took none.
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

fn statistics(client: &mut Client) -> HashMap<String, u64> {
    let numbers = client.stats("").into_iter().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.parse().ok()?))
    });
    numbers.collect()
}

#[test]
fn a_start_touches_no_memory_for_items_and_idleness_costs_no_processor() {
    let directory = tempfile::tempdir().unwrap();
    let kept = format!("--data-dir={}", directory.path().join("data").display());
    let cases: [&[&str]; 4] =
        [&["-m", "64"], &["-m", "65536"], &["-m", "65536", &kept], &["-m", "1024", "-t", "4"]];
    let daemons: Vec<Daemon> = cases.iter().map(|flags| Daemon::start(flags)).collect();
    // What a start leaves to be done is done meanwhile.
    std::thread::sleep(Duration::from_secs(1));
    let before: Vec<Duration> = daemons.iter().map(processor_time).collect();
    let since = Instant::now();
    std::thread::sleep(IDLE_TIME);
    for ((flags, daemon), before) in cases.iter().zip(&daemons).zip(before) {
        let took = processor_time(daemon).saturating_sub(before);
        let share = took.as_secs_f64() / since.elapsed().as_secs_f64();
        assert!(share < IDLE_SHARE_MAX, "{flags:?}: {took:?}, {share:.4} of a core");
        let bytes = resident_bytes(daemon);
        assert!(bytes < START_BYTES_MAX, "{flags:?}: {bytes} bytes");
    }
}

#[test]
fn what_has_expired_is_given_up_though_nobody_asks_for_it() {
    const ITEMS: u64 = 20_000;
    let daemon = Daemon::start(&["-m", "256"]);
    let mut client = Client::at(daemon.address);
    let sets =
        (0..ITEMS).map(|at| format!("set k{at} 0 3 1000 noreply\r\n{}\r\n", "v".repeat(1000)));
    client.run(&sets.collect::<String>());
    let full = statistics(&mut client);
    assert!(full["bytes"] > ITEMS * 1000 / 2, "{full:?}");
    let since = Instant::now();
    let empty = loop {
        std::thread::sleep(Duration::from_millis(100));
        let now = statistics(&mut client);
        // They expire three to four seconds after they were stored.
        if now["bytes"] == 0 || since.elapsed() > SWEEP_TIME_MAX + Duration::from_secs(4) {
            break now;
        }
    };
    assert_eq!((empty["curr_items"], empty["bytes"]), (0, 0), "after {:?}", since.elapsed());
}
