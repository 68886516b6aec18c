//! Servers that keep their data, over TCP. Goal: whatever was acknowledged is there after the
//! server is gone and started anew, with the same or another number of workers. Method: embedded
//! servers on temporary directories; dropping one ends it without a snapshot, so that the next
//! start has the logs alone.

#![cfg(feature = "server")]

mod support;

use distcache::durable::{ErrorKind, Fsync, OnLogError, Recover};
use distcache::server::config::{Config, DurabilityConfig};
use distcache::server::{Server, StartError};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::time::{Duration, Instant};
use support::{Client, PATIENCE, connect};
use tempfile::TempDir;

fn config(directory: &Path, workers: usize) -> Config {
    let durability = DurabilityConfig {
        directory: directory.to_owned(),
        snapshot_interval_seconds: 0,
        ..DurabilityConfig::default()
    };
    Config {
        workers,
        memory_bytes_max: 256 << 20,
        item_bytes_max: 32 << 20,
        durability: Some(durability),
        ..Config::default()
    }
}

fn start(directory: &TempDir, workers: usize, fsync: Fsync) -> Server {
    let mut config = config(directory.path(), workers);
    if let Some(durability) = &mut config.durability {
        durability.fsync = fsync;
    }
    Server::start(config).expect("it starts")
}

/// Sends commands, and answers everything up to the end of their replies.
fn ask(server: &Server, commands: &str) -> String {
    let mut reader = BufReader::new(connect(server.addresses()[0]));
    reader.get_mut().write_all(format!("{commands}mn\r\n").as_bytes()).expect("is taken");
    let mut text = String::new();
    while !text.ends_with("MN\r\n") {
        let before = text.len();
        reader.read_line(&mut text).expect("an answer in time");
        assert!(text.len() > before, "closed after {text:?}");
    }
    text.truncate(text.len() - "MN\r\n".len());
    text
}

#[test]
fn everything_comes_back() {
    let changes = "set plain 7 0 5\r\nhello\r\n\
         set number 0 0 2\r\n41\r\nincr number 1\r\n\
         set gone 0 0 1\r\nx\r\ndelete gone\r\n\
         set joined 1 0 1\r\nb\r\nappend joined 0 0 1\r\nc\r\nprepend joined 0 0 1\r\na\r\n\
         set short 0 1000 1\r\ns\r\ntouch short 2000\r\n\
         set expired 0 1000 1\r\ne\r\ntouch expired -1\r\n\
         ms c3BhY2UgYmFy 3 b F9\r\nbin\r\n\
         set old 0 0 1\r\n1\r\nmd old I T300\r\n\
         set new 0 0 1\r\n2\r\nms new 1 ME\r\n3\r\n";
    let questions = "get plain number gone joined expired\r\nmg short t f v\r\n\
         mg c3BhY2UgYmFy b k v f\r\nmg old v t\r\nmg old v\r\nget new\r\n";
    let expected = "VALUE plain 7 5\r\nhello\r\nVALUE number 0 2\r\n42\r\n\
         VALUE joined 1 3\r\nabc\r\nEND\r\n\
         VA 1 t2000 f0\r\ns\r\nVA 3 kc3BhY2UgYmFy b f9\r\nbin\r\n\
         VA 1 t300 X W\r\n1\r\nVA 1 Z X\r\n1\r\nVALUE new 0 1\r\n2\r\nEND\r\n";
    for fsync in [Fsync::Always, Fsync::EverySecond, Fsync::No] {
        let directory = TempDir::new().expect("a directory");
        let server = start(&directory, 2, fsync);
        ask(&server, changes);
        drop(server);
        // Logs alone, another number of workers, then a snapshot, then both.
        for workers in [2, 3, 1, 4] {
            let server = start(&directory, workers, fsync);
            let answers = ask(&server, &questions.replace("mg old v t\r\n", ""));
            let answers = answers.replace("t1999", "t2000");
            // The first who asks for a stale value wins; that state is kept as well.
            let first = expected.replace("VA 1 t300 X W\r\n1\r\n", "");
            let stale = if workers == 2 { "VA 1 X W\r\n1\r\n" } else { "VA 1 X Z\r\n1\r\n" };
            let wanted = first.replace("VA 1 Z X\r\n1\r\n", stale);
            let same = |text: &str| text.replace(" X Z", " Z X");
            assert_eq!(same(&answers), same(&wanted), "{fsync:?}, {workers} workers");
            if workers == 3 {
                assert_eq!(ask(&server, "snapshot\r\n"), "OK\r\n");
            }
        }
    }
}

#[test]
fn large_values_come_back() {
    let directory = TempDir::new().expect("a directory");
    let value: String = (0..3_000_000u32).map(|at| char::from(b'a' + (at % 23) as u8)).collect();
    let server = start(&directory, 2, Fsync::EverySecond);
    let set = format!("set large 0 0 {}\r\n{value}\r\n", value.len());
    assert_eq!(ask(&server, &set), "STORED\r\n");
    drop(server);
    // From the log, then from a snapshot.
    for _ in 0..2 {
        let server = start(&directory, 2, Fsync::EverySecond);
        let expected = format!("VALUE large 0 {}\r\n{value}\r\nEND\r\n", value.len());
        assert!(ask(&server, "get large\r\n") == expected);
        assert_eq!(ask(&server, "snapshot\r\n"), "OK\r\n");
    }
}

#[test]
fn tokens_from_before_a_restart_never_match() {
    let directory = TempDir::new().expect("a directory");
    let mut seen = Vec::new();
    for round in 0..4 {
        let server = start(&directory, 1 + round % 2, Fsync::EverySecond);
        if round == 0 {
            ask(&server, "set k 0 0 1\r\nx\r\n");
        }
        for token in &seen {
            assert_eq!(ask(&server, &format!("cas k 0 0 1 {token}\r\ny\r\n")), "EXISTS\r\n");
        }
        let answer = ask(&server, "gets k\r\n");
        let token = answer.split_whitespace().nth(4).expect("a token").to_owned();
        seen.push(token.clone());
        // The present one does match, once.
        let cas = format!("cas k 0 0 1 {token}\r\nx\r\n");
        assert_eq!(ask(&server, &cas), "STORED\r\n");
        assert_eq!(ask(&server, &cas), "EXISTS\r\n");
        if round == 1 {
            assert_eq!(ask(&server, "snapshot\r\n"), "OK\r\n");
        }
    }
}

/// A touched item that had moved, or was in a sealed segment, keeps its token in its header. That
/// was recovered with the header, so that the token matched again.
#[test]
fn a_token_kept_by_a_touch_does_not_survive_a_restart() {
    let directory = TempDir::new().expect("a directory");
    let server = start(&directory, 1, Fsync::EverySecond);
    ask(&server, "set k 0 1000 1\r\n1\r\n");
    let token = ask(&server, "mg k c\r\n").trim_start_matches("HD c").trim_end().to_owned();
    // Seals the segment.
    let filler = "f".repeat(1000);
    let fill: String = (0..400).map(|at| format!("set f{at} 0 0 1000\r\n{filler}\r\n")).collect();
    ask(&server, &fill);
    assert_eq!(ask(&server, "touch k 2000\r\nmg k c\r\n"), format!("TOUCHED\r\nHD c{token}\r\n"));
    drop(server);
    let server = start(&directory, 1, Fsync::EverySecond);
    let cas = format!("cas k 0 0 1 {token}\r\n2\r\nget k\r\n");
    assert_eq!(ask(&server, &cas), "EXISTS\r\nVALUE k 0 1\r\n1\r\nEND\r\n");
}

#[test]
fn flushes_come_back_delayed_ones_too() {
    let directory = TempDir::new().expect("a directory");
    let server = start(&directory, 2, Fsync::EverySecond);
    ask(&server, "set a 0 0 1\r\nx\r\nset b 0 0 1\r\nx\r\nflush_all\r\nset c 0 0 1\r\nx\r\n");
    assert_eq!(ask(&server, "flush_all 2\r\n"), "OK\r\n");
    drop(server);
    let server = start(&directory, 3, Fsync::EverySecond);
    assert_eq!(ask(&server, "get a b c\r\n"), "VALUE c 0 1\r\nx\r\nEND\r\n");
    let begun = Instant::now();
    while ask(&server, "get c\r\n") != "END\r\n" {
        assert!(begun.elapsed() < PATIENCE, "the flush never comes");
        std::thread::sleep(Duration::from_millis(20));
    }
    ask(&server, "set d 0 0 1\r\nx\r\n");
    drop(server);
    let server = start(&directory, 1, Fsync::EverySecond);
    assert_eq!(ask(&server, "get a b c d\r\n"), "VALUE d 0 1\r\nx\r\nEND\r\n");
}

#[test]
fn snapshots_while_values_change() {
    let directory = TempDir::new().expect("a directory");
    let server = start(&directory, 2, Fsync::EverySecond);
    let mut fill = String::new();
    for number in 0..20_000 {
        fill += &format!("set key{number} 0 0 5 noreply\r\n{number:05}\r\n");
    }
    ask(&server, &fill);
    std::thread::scope(|scope| {
        let snapshots = scope.spawn(|| {
            for _ in 0..5 {
                assert_eq!(ask(&server, "snapshot\r\n"), "OK\r\n");
            }
        });
        let mut round = 0;
        while !snapshots.is_finished() || round == 0 {
            let changes: String = (0..500)
                .map(|at| format!("incr key{} 1 noreply\r\n", (at * 37 + round) % 20_000))
                .collect();
            ask(&server, &changes);
            round += 1;
        }
    });
    let all: String = (0..20_000).map(|number| format!("get key{number}\r\n")).collect();
    let before = ask(&server, &all);
    assert_eq!(before.matches("VALUE").count(), 20_000);
    drop(server);
    let server = start(&directory, 3, Fsync::EverySecond);
    assert!(ask(&server, &all) == before, "not what it was");
    let stats = ask(&server, "stats persistence\r\n");
    assert!(stats.contains("STAT recovery_snapshot_items 20000\r\n"), "{stats}");
}

#[test]
fn one_directory_one_server() {
    let directory = TempDir::new().expect("a directory");
    let _first = start(&directory, 1, Fsync::EverySecond);
    match Server::start(config(directory.path(), 1)) {
        Err(StartError::Data(why)) => assert_eq!(why.kind, ErrorKind::InUse, "{why}"),
        Err(why) => panic!("{why}"),
        Ok(_) => panic!("two servers on one directory"),
    }
}

/// The first file whose name begins so.
fn file(directory: &TempDir, start: &str) -> std::path::PathBuf {
    let entries = fs::read_dir(directory.path()).expect("is read");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let named = |path: &&std::path::PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(start))
    };
    paths.iter().find(named).expect("such a file").clone()
}

#[test]
fn damage_is_refused_salvaged_or_discarded() {
    let damaged = || {
        let directory = TempDir::new().expect("a directory");
        let server = start(&directory, 1, Fsync::EverySecond);
        for number in 0..100 {
            ask(&server, &format!("set key{number} 0 0 5\r\nvalue\r\n"));
        }
        drop(server);
        let path = file(&directory, "log-");
        let mut bytes = fs::read(&path).expect("is read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).expect("is written");
        directory
    };
    let start_as = |directory: &TempDir, recover: Recover| {
        let mut config = config(directory.path(), 1);
        if let Some(durability) = &mut config.durability {
            durability.recover = recover;
        }
        Server::start(config)
    };
    let directory = damaged();
    match start_as(&directory, Recover::Strict).map(drop) {
        Err(StartError::Data(why)) => {
            assert_eq!(why.kind, ErrorKind::Damaged);
            assert!(why.file.starts_with("log-") && why.offset.is_some(), "{why}");
        }
        other => panic!("{other:?}"),
    }
    let server = start_as(&directory, Recover::Salvage).expect("salvage starts");
    let both = "VALUE key0 0 5\r\nvalue\r\nVALUE key99 0 5\r\nvalue\r\nEND\r\n";
    assert_eq!(ask(&server, "get key0 key99\r\n"), both);
    drop(server);
    let server = start_as(&directory, Recover::Strict).expect("whole again");
    let stats = ask(&server, "stats\r\n");
    assert!(stats.contains("STAT curr_items 99\r\n"), "{stats}");
    drop(server);
    assert!(file(&directory, "log-00000001.damaged").exists());

    let directory = damaged();
    let server = start_as(&directory, Recover::Discard).expect("discard starts");
    assert_eq!(ask(&server, "get key0 key99\r\n"), "END\r\n");
}

#[test]
fn a_newer_version_is_left_alone() {
    let directory = TempDir::new().expect("a directory");
    drop(start(&directory, 1, Fsync::EverySecond));
    for name in ["IDENTITY", "IDENTITY.2"] {
        let path = directory.path().join(name);
        let text = fs::read_to_string(&path).expect("is read");
        let told = text.split("checksum").next().expect("is there");
        let told = told.replacen("identity 2", "identity 3", 1);
        let checksum = crc32c::crc32c(told.as_bytes());
        fs::write(&path, format!("{told}checksum {checksum:08x}\n")).expect("is written");
    }
    for recover in [Recover::Strict, Recover::Salvage, Recover::Discard] {
        let mut config = config(directory.path(), 1);
        if let Some(durability) = &mut config.durability {
            durability.recover = recover;
        }
        match Server::start(config).map(drop) {
            Err(StartError::Data(why)) => assert_eq!(why.kind, ErrorKind::OtherVersion, "{why}"),
            other => panic!("{recover:?}: {other:?}"),
        }
    }
}

#[test]
fn less_memory_keeps_what_fits() {
    let directory = TempDir::new().expect("a directory");
    let server = start(&directory, 2, Fsync::No);
    let value = "v".repeat(1000);
    let fill: String =
        (0..30_000).map(|n| format!("set key{n} 0 0 1000 noreply\r\n{value}\r\n")).collect();
    ask(&server, &fill);
    drop(server);
    let mut small = config(directory.path(), 1);
    small.memory_bytes_max = 8 << 20;
    small.item_bytes_max = 1 << 20;
    let server = Server::start(small).expect("it starts");
    let stats = ask(&server, "stats\r\n");
    let number = |name: &str| -> u64 {
        let line = stats.lines().find(|line| line.contains(name)).expect("such a line");
        line.split_whitespace().last().expect("a number").parse().expect("a number")
    };
    assert!((2_000..9_000).contains(&number("STAT curr_items")), "{stats}");
}

#[test]
fn snapshot_without_a_directory_says_so() {
    let server = Server::bind("127.0.0.1:0").expect("it starts");
    let answer = ask(&server, "snapshot\r\n");
    assert!(answer.starts_with("SERVER_ERROR no data directory"), "{answer}");
    assert!(ask(&server, "stats persistence\r\n").contains("persistence_enabled no"));
    let settings = DurabilityConfig::default();
    assert_eq!((settings.fsync, settings.on_log_error), (Fsync::EverySecond, OnLogError::Refuse));
}

/// Changes that come faster than snapshots are taken wait for them, and nothing is refused.
#[test]
fn logs_are_bounded_and_changes_wait() {
    let directory = TempDir::new().expect("a directory");
    let mut config = config(directory.path(), 2);
    if let Some(durability) = &mut config.durability {
        durability.log_bytes_max = 4 << 20;
    }
    let server = Server::start(config).expect("it starts");
    let value = "v".repeat(100_000);
    let mut most = 0;
    for round in 0..40 {
        let sets: String =
            (0..10).map(|at| format!("set k{at} {round} 0 100000\r\n{value}\r\n")).collect();
        assert_eq!(ask(&server, &sets), "STORED\r\n".repeat(10));
        let entries = fs::read_dir(directory.path()).expect("is read").flatten();
        let bytes: u64 = entries.filter_map(|entry| entry.metadata().ok()).map(|it| it.len()).sum();
        most = most.max(bytes);
    }
    // The logs, what was on its way when they were full, and two snapshots of a megabyte.
    assert!(most < 12 << 20, "{most} bytes");
    drop(server);
    let server = start(&directory, 1, Fsync::EverySecond);
    let flags = ask(&server, "mg k3 f s\r\n");
    assert_eq!(flags, "HD f39 s100000\r\n");
}

/// Changes waited for ever where logs were full and no snapshot could be taken: they are refused
/// after a while, and taken again once one succeeds. Reads go on all the time.
#[test]
fn changes_are_refused_where_logs_are_full_and_snapshots_fail() {
    let directory = TempDir::new().expect("a directory");
    let mut config = config(directory.path(), 2);
    if let Some(durability) = &mut config.durability {
        durability.log_bytes_max = 2 << 20;
    }
    let server = Server::start(config).expect("it starts");
    // Nothing can be made under these names.
    let obstacles = (2..200).map(|number| directory.path().join(format!("snapshot-{number:08}")));
    let obstacles: Vec<_> = obstacles.collect();
    obstacles.iter().for_each(|path| fs::create_dir(path).expect("is made"));
    let set = format!("set k 0 0 100000\r\n{}\r\n", "v".repeat(100_000));
    let begun = Instant::now();
    // They are taken, and then one waits until it is refused.
    let refused = "SERVER_ERROR log unavailable\r\n";
    let waited = std::thread::scope(|scope| {
        let changes = scope.spawn(|| {
            let mut asked = Instant::now();
            while ask(&server, &set) != refused {
                assert!(begun.elapsed() < 3 * PATIENCE, "changes wait for ever");
                asked = Instant::now();
            }
            asked.elapsed()
        });
        while !changes.is_finished() {
            ask(&server, "mg k s\r\n");
            std::thread::sleep(Duration::from_millis(20));
        }
        changes.join().expect("it ends well")
    });
    assert!(waited > Duration::from_secs(5), "not at once: {waited:?}");
    let stats = ask(&server, "stats persistence\r\n");
    for line in ["log_status failed", "log_full 1", "log_failures 1"] {
        assert!(stats.contains(&format!("STAT {line}\r\n")), "{line}: {stats}");
    }
    assert_eq!(ask(&server, "mg k s\r\n"), "HD s100000\r\n");
    obstacles.iter().for_each(|path| fs::remove_dir(path).expect("is removed"));
    while ask(&server, &set) != "STORED\r\n" {
        assert!(begun.elapsed() < 4 * PATIENCE, "changes are refused for ever");
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(server);
    let server = start(&directory, 1, Fsync::EverySecond);
    assert_eq!(ask(&server, "mg k s\r\n"), "HD s100000\r\n");
}

/// A stop writes the log and is over, also while much is to be written.
#[test]
fn a_stop_keeps_what_was_acknowledged_just_before() {
    let directory = TempDir::new().expect("a directory");
    for round in 0..5 {
        let server = start(&directory, 2, Fsync::No);
        let sets: String =
            (0..500).map(|at| format!("set k{at} 0 0 {}\r\n{round}\r\n", 1)).collect();
        assert_eq!(ask(&server, &sets), "STORED\r\n".repeat(500));
        drop(server);
        let server = start(&directory, 1, Fsync::EverySecond);
        let gets: String = (0..500).map(|at| format!("mg k{at} v\r\n")).collect();
        assert_eq!(ask(&server, &gets), format!("VA 1\r\n{round}\r\n").repeat(500));
    }
}

/// Indexes are built larger than they end up, and all stores share one limit: what others have not
/// yet given back is no reason to evict.
#[test]
fn regression_a_start_evicts_nothing_that_fits() {
    let small = |directory: &TempDir| {
        let mut config = config(directory.path(), 4);
        (config.memory_bytes_max, config.item_bytes_max) = (64 << 20, 1 << 20);
        Server::start(config).expect("it starts")
    };
    let client = |server: &Server| Client::at(server.addresses()[0]);
    let set = |number: u64| format!("set k{number:07} 0 0 9 noreply\r\n123456789\r\n");
    let fill = |client: &mut Client, from: u64, to: u64| {
        client.run(&(from..to).map(set).collect::<String>());
    };
    let mut most = 0;
    {
        let directory = TempDir::new().expect("a directory");
        let server = small(&directory);
        let mut client = client(&server);
        while client.stat("evictions") == 0 {
            most += 20_000;
            fill(&mut client, most - 20_000, most);
        }
    }
    for percent in [96, 99] {
        let directory = TempDir::new().expect("a directory");
        let server = small(&directory);
        let count = most * percent / 100 / 1000 * 1000;
        fill(&mut client(&server), 0, count);
        assert_eq!(client(&server).stat("curr_items"), count);
        drop(server);
        assert_eq!(client(&small(&directory)).stat("curr_items"), count, "{percent} %");
    }
}

/// Under `always` a change that the snapshot's thread had written while the log began another file
/// was synced only with the next change: who waited for its reply waited for ever.
#[test]
fn regression_what_somebody_else_has_written_is_synced() {
    let directory = TempDir::new().expect("a directory");
    let mut config = config(directory.path(), 2);
    if let Some(durability) = &mut config.durability {
        // A snapshot at each half a megabyte.
        (durability.fsync, durability.log_bytes_max) = (Fsync::Always, 1 << 20);
    }
    let server = Server::start(config).expect("it starts");
    let mut client = Client::at(server.addresses()[0]);
    let value = "x".repeat(1 << 10);
    for number in 0..20_000 {
        client.check(&format!("set k{} 0 0 1024\r\n{value}\r\n", number % 100), "STORED");
    }
    let stats = ask(&server, "stats persistence\r\n");
    assert!(!stats.contains("snapshots_taken 0\r\n"), "{stats}");
}
