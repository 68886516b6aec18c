//! The built daemon on a data directory, from outside: signals during a recovery, descriptors that
//! are used up, a disk that is full at the start, `--recover=discard` left in place. Goal: what an
//! operator runs into ends well. Method: processes that are started, killed and started anew; every
//! wait is bounded.

#![cfg(all(feature = "server", unix))]

mod support;

use distcache::durable::record::{
    FILE_HEADER_BYTES, FileHeader, Parsed, Place, RECORD_HEADER_BYTES, Seed, parse, push_record,
    record_bytes,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use support::{Client, Daemon, PATIENCE};
use tempfile::TempDir;

fn data_dir(path: &Path) -> String {
    format!("--data-dir={}", path.display())
}

fn signal(process: &Child, signal: Signal) {
    kill(Pid::from_raw(process.id().try_into().unwrap()), signal).unwrap();
}

/// The daemon, as a process that need not come to listen, with its log as text.
fn spawn(flags: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distcached"));
    support::stay_root(&mut command);
    command.args(["-l", "127.0.0.1", "-p", "-1", "-t", "1"]).args(flags).env_remove("RUST_LOG");
    command.stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for the end of a process; answers how it ended, after what time, and what it has said.
fn end(mut process: Child) -> (ExitStatus, Duration, String) {
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = process.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > 3 * PATIENCE {
            process.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let took = begun.elapsed();
    let mut said = String::new();
    process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (status, took, said)
}

/// Names, lengths and times of the files.
fn files(directory: &Path) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let of_data = entries.filter(|entry| entry.file_name() != "LOCK");
    let mut files: Vec<_> = of_data
        .map(|entry| {
            let found = entry.metadata().unwrap();
            (entry.path(), found.len(), found.modified().unwrap())
        })
        .collect();
    files.sort();
    files
}

/// Makes a log long: its last record of a shard again and again, each with the next number.
fn lengthen_log(directory: &Path, records: u64) {
    let path = directory.join("log-00000001");
    let bytes = fs::read(&path).unwrap();
    let header = FileHeader::unpack(&bytes).unwrap();
    let seed = Seed::of(header.directory_id);
    let (mut at, mut last) = (FILE_HEADER_BYTES, None);
    while let Parsed::Record(found) = parse(&bytes[at..], seed) {
        let body = at + RECORD_HEADER_BYTES..at + RECORD_HEADER_BYTES + found.body_bytes;
        if found.shard < header.shards as u16 {
            last = Some((found, &bytes[body]));
        }
        at += record_bytes(found.body_bytes);
    }
    let (found, body) = last.expect("a change");
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(at as u64).unwrap();
    std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).unwrap();
    let mut some = Vec::new();
    for number in 1..=records {
        let place = Place { shard: found.shard, sequence: u64::from(found.sequence) + number };
        push_record(&mut some, seed, place, found.kind, &[body]);
        if some.len() > 1 << 20 || number == records {
            file.write_all(&some).unwrap();
            some.clear();
        }
    }
}

/// Waits until a recovery has come so far that it has read something, and not all.
fn wait_until_recovering(metrics: &str) {
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < PATIENCE, "no recovery is seen");
        let Ok(mut stream) = TcpStream::connect(metrics) else { continue };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(b"GET /readyz HTTP/1.1\r\n\r\n");
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        let mut numbers = answer.split("not ready: ").nth(1).unwrap_or("").split(' ');
        let mut number = || numbers.find_map(|word| word.parse::<u64>().ok());
        if let (Some(done), Some(total)) = (number(), number())
            && 0 < done
            && done < total / 2
        {
            return;
        }
        assert!(!answer.contains("200 OK"), "it was over too soon");
    }
}

/// D7: it ended only after the recovery and a snapshot.
#[test]
fn a_signal_during_a_recovery_ends_it_at_once() {
    const RECORDS: u64 = 5_000_000;
    const TRIES: usize = 5;
    let directory = TempDir::new().unwrap();
    let data = data_dir(directory.path());
    let daemon = Daemon::start(&[&data, "--snapshot-interval=0"]);
    Client::at(daemon.address).run("set k 7 0 5\r\nhello\r\n");
    drop(daemon);
    lengthen_log(directory.path(), RECORDS);
    let before = files(directory.path());
    let metrics = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let flags = [&data[..], "--snapshot-interval=0", "--metrics-address", &metrics];
    for name in [Signal::SIGTERM, Signal::SIGINT] {
        // A machine with more to do than processors is given another try.
        let is_quick = (0..TRIES).any(|_| {
            let process = spawn(&flags);
            wait_until_recovering(&metrics);
            signal(&process, name);
            let (status, took, said) = end(process);
            assert_eq!(status.code(), Some(0), "{name}: {said}");
            assert!(said.contains("given up"), "{name}: {said}");
            assert_eq!(files(directory.path()), before, "{name}: something has changed");
            took < Duration::from_secs(1)
        });
        assert!(is_quick, "{name}: not within a second");
    }
    let daemon = Daemon::start(&[&data]);
    let mut client = Client::at(daemon.address);
    client.send("mg k v f\r\n");
    assert_eq!([client.line(), client.line()], ["VA 5 f7", "hello"]);
    let changes = format!("recovery_log_changes {}", RECORDS + 1);
    assert!(client.stats("persistence").contains(&changes));
}

/// D5: with all connections taken, a snapshot found no descriptor left.
#[test]
fn descriptors_of_data_files_are_counted() {
    const CONNECTIONS: usize = 40;
    for workers in ["1", "32"] {
        let directory = TempDir::new().unwrap();
        let data = data_dir(directory.path());
        let count = CONNECTIONS.to_string();
        let flags = ["-t", workers, "-c", &count, &data, "--snapshot-interval=0"];
        let daemon = Daemon::limited(32, &flags);
        let address = daemon.address;
        let mut clients: Vec<Client> = (0..CONNECTIONS).map(|_| Client::at(address)).collect();
        for round in 0..10 {
            for (number, client) in clients.iter_mut().enumerate() {
                client.run(&format!("set k{number} {round} 0 1000\r\n{}\r\n", "v".repeat(1000)));
            }
            // Of the logs of earlier rounds none is synced yet.
            clients[round].send("snapshot\r\n");
            assert_eq!(clients[round].line(), "OK", "{workers} workers, round {round}");
        }
        let open = fs::read_dir(format!("/proc/{}/fd", daemon.process.id())).unwrap().count();
        let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.process.id())).unwrap();
        let limit = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let limit: usize = limit.split_whitespace().nth(3).unwrap().parse().unwrap();
        assert!(open > CONNECTIONS && limit < 300, "{open} of {limit}: no test of it");
    }
}

/// A file system of so many KiB of its own, or why there is none.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(kibibytes: u32) -> Option<Self> {
        let directory = TempDir::new().unwrap();
        let size = format!("size={kibibytes}k");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory.path());
        let mounted = mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
        mounted.then(|| Self(directory))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the space there is.
    fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = fs::File::create(&path).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        while file.write_all(&[1]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// D8: it did not start. It serves what is there, refuses changes, and takes them once there is
/// space.
#[test]
fn a_start_on_a_full_disk_serves_what_there_is() {
    let Some(disk) = SmallDisk::mount(2048) else {
        println!("skipped: nothing can be mounted here");
        return;
    };
    let directory = disk.path().join("data");
    let data = data_dir(&directory);
    let daemon = Daemon::start(&[&data]);
    Client::at(daemon.address).run("set k 7 0 5\r\nhello\r\n");
    drop(daemon);
    let filler = disk.fill();
    for _ in 0..2 {
        let daemon = Daemon::start(&[&data]);
        let mut client = Client::at(daemon.address);
        client.send("get k\r\nset k 0 0 1\r\nx\r\ndelete k\r\n");
        let refused = "SERVER_ERROR log unavailable";
        let expected = ["VALUE k 7 5", "hello", "END", refused, refused];
        assert_eq!([(); 5].map(|()| client.line()), expected);
        let status = client.stats("persistence");
        assert!(status.contains(&"log_status failed".to_owned()), "{status:?}");
    }
    let mut daemon = Daemon::start(&[&data]);
    fs::remove_file(filler).unwrap();
    let mut client = Client::at(daemon.address);
    let begun = Instant::now();
    loop {
        client.send("set k2 0 0 1\r\nx\r\n");
        if client.line() == "STORED" {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "changes are refused for ever");
        std::thread::sleep(Duration::from_millis(20));
    }
    daemon.process.kill().unwrap();
    drop(daemon);
    let daemon = Daemon::start(&[&data]);
    let mut client = Client::at(daemon.address);
    client.send("get k k2\r\n");
    let expected = ["VALUE k 7 5", "hello", "VALUE k2 0 1", "x"];
    assert_eq!(client.lines_to("END"), expected);
}

/// D17: an intact directory was emptied at every start.
#[test]
fn discard_left_in_place_keeps_an_intact_directory() {
    let directory = TempDir::new().unwrap();
    let data = data_dir(directory.path());
    for round in 0..4 {
        let mut daemon = Daemon::start(&[&data, "--recover=discard"]);
        let mut client = Client::at(daemon.address);
        for number in 0..round {
            client.send(&format!("mg k{number} v\r\n"));
            assert_eq!([client.line(), client.line()], ["VA 1", "x"], "round {round}");
        }
        client.run(&format!("set k{round} 0 0 1\r\nx\r\n"));
        if round == 1 {
            client.send("snapshot\r\n");
            assert_eq!(client.line(), "OK");
        }
        daemon.process.kill().unwrap();
        let mut said = String::new();
        daemon.process.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(round == 0 || said.contains("has discarded nothing"), "{said}");
    }
    let names = files(directory.path()).into_iter().map(|(path, ..)| path);
    assert!(names.into_iter().all(|path| !path.display().to_string().contains(".damaged")));
}
