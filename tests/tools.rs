//! The sub-commands of the binary: `check`, `dump`, `repair` and `load`. Goal: an operator finds
//! damage, gets everything that is intact, and moves it to another server, with values, client
//! flags, expiries and states as they were. Method: fill a real server with a data directory, end
//! it, run the tools on what it left, damage that in places that are known, and look at the
//! answers. Every wait is bounded.

#![cfg(feature = "server")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::{Bounded, connect, eventually};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_distcached");
/// Far in the future.
const EXPTIME: u32 = 2_000_000_000;

fn tool(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a tool on a path; answers standard output if the exit code is as expected.
#[track_caller]
fn check_tool(arguments: &[&str], path: &Path, code: i32) -> String {
    let output = tool(&[arguments, &[path.to_str().unwrap()]].concat());
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    said
}

struct Server {
    process: Bounded,
    port: u16,
}

impl Server {
    /// A server on a free port, which has its ports file beside `beside`.
    fn start(binary: &str, beside: &Path, flags: &[&str]) -> Self {
        let ports = beside.with_extension("ports");
        let mut command = Command::new(binary);
        command.args(["-l", "127.0.0.1", "-p", "-1"]).args(flags);
        // Files of root's test are not to be another's.
        if cfg!(unix) {
            command.args(["-u", "root"]);
        }
        command.env("MEMCACHED_PORT_FILENAME", &ports).stderr(Stdio::null());
        let process = command.spawn().unwrap();
        let mut server = Self { process: Bounded(process), port: 0 };
        server.port = eventually("the server's start", || {
            let text = fs::read_to_string(&ports).ok()?;
            text.lines().find_map(|line| line.strip_prefix("TCP INET: "))?.parse().ok()
        });
        fs::remove_file(ports).unwrap();
        server
    }

    fn with_data(directory: &Path, flags: &[&str]) -> Self {
        let data = format!("--data-dir={}", directory.display());
        Self::start(BINARY, directory, &[&[data.as_str()], flags].concat())
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Sends something, and answers what comes before `MN`.
    fn ask(&self, request: &[u8]) -> String {
        let mut stream = connect(self.address().parse().unwrap());
        stream.write_all(request).unwrap();
        stream.write_all(b"mn\r\n").unwrap();
        let mut reader = BufReader::new(stream);
        let mut answers = Vec::new();
        loop {
            let start = answers.len();
            assert!(reader.read_until(b'\n', &mut answers).unwrap() > 0, "hung up");
            if &answers[start..] == b"MN\r\n" {
                return text(&answers[..start]);
            }
        }
    }

    /// Ends it as a crash would: without a last snapshot.
    fn kill(self) {
        drop(self);
    }
}

/// Items of every kind.
fn fill(server: &Server) {
    let large = "x".repeat(600_000);
    let mut request = format!(
        "set plain 5 0 3\r\nabc\r\nset empty 0 {EXPTIME} 0\r\n\r\n\
         set crlf 4294967295 0 6\r\na\r\n\r\nb\r\n\
         ms YSAAYg== 2 b F7 T{EXPTIME}\r\n\0\n\r\n\
         set large 1 0 {}\r\n{large}\r\nset gone 0 0 1\r\nx\r\ndelete gone\r\n\
         set stale 3 {EXPTIME} 1\r\ns\r\nmd stale I\r\n\
         set won 3 0 1\r\nw\r\nmd won I\r\nmg won\r\n\
         set soon 3 {EXPTIME} 1\r\nr\r\nmg soon R2147483647\r\n",
        large.len()
    );
    for number in 0..200 {
        request.push_str(&format!("set many{number} {number} 0 4\r\n{number:04}\r\n"));
    }
    let answers = server.ask(request.as_bytes());
    assert!(!answers.contains("ERROR"), "{answers}");
}

/// Whether the items of `fill` are there, as they were.
#[track_caller]
fn check_filled(server: &Server) {
    let get = |request: &str| server.ask(format!("{request}\r\n").as_bytes());
    assert_eq!(get("mg plain v f t"), "VA 3 f5 t-1\r\nabc\r\n");
    assert_eq!(get("mg crlf v f"), "VA 6 f4294967295\r\na\r\n\r\nb\r\n");
    assert_eq!(get("mg YSAAYg== b k v f"), "VA 2 kYSAAYg== b f7\r\n\0\n\r\n");
    assert_eq!(get("mg gone v"), "EN\r\n");
    assert_eq!(get("mg large s"), "HD s600000\r\n");
    assert_eq!(get("mg stale f"), "HD f3 X W\r\n");
    assert_eq!(get("mg won f"), "HD f3 Z X\r\n");
    assert_eq!(get("mg soon f"), "HD f3 Z\r\n");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let left = u64::from(EXPTIME) - now.as_secs();
    let found = get("mg empty s t");
    let close = (left - 30..=left).any(|left| found == format!("HD s0 t{left}\r\n"));
    assert!(close, "{found}: not {left}");
    let many: String = (0..200).map(|number| format!("mg many{number} v f\r\n")).collect();
    let expected: String =
        (0..200).map(|number| format!("VA 4 f{number}\r\n{number:04}\r\n")).collect();
    assert_eq!(server.ask(many.as_bytes()), expected);
}

/// A directory with a snapshot and logs, as a crash leaves them.
fn filled_directory(temporary: &TempDir) -> PathBuf {
    let directory = temporary.path().join("data");
    let server = Server::with_data(&directory, &["-t", "2", "--snapshot-interval=0"]);
    fill(&server);
    assert_eq!(server.ask(b"snapshot\r\n"), "OK\r\n");
    let set = server.ask(b"set plain 5 0 3\r\nabc\r\nset after 0 0 1\r\ny\r\n");
    assert_eq!(set, "STORED\r\nSTORED\r\n");
    server.kill();
    directory
}

/// The names of files that begin with something.
fn names(directory: &Path, start: &str) -> Vec<String> {
    let listed = fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.starts_with(start));
    names.sort();
    names
}

#[test]
fn a_dump_loads_as_it_was() {
    let temporary = TempDir::new().unwrap();
    let directory = filled_directory(&temporary);
    let said = check_tool(&["check"], &directory, 0);
    assert!(said.ends_with("intact\n"), "{said}");
    assert!(said.contains("; 208 items in the snapshot, 2 changes behind it\n"), "{said}");

    let dump = tool(&["dump", directory.to_str().unwrap()]);
    assert_eq!(dump.status.code(), Some(0), "{}", text(&dump.stderr));
    assert!(dump.stdout.ends_with(b"mn\r\n"));
    let file = temporary.path().join("dump");
    fs::write(&file, &dump.stdout).unwrap();

    // By the tool from a file, by the tool from a pipe, and as bytes to a socket.
    let server = Server::start(BINARY, &temporary.path().join("a"), &[]);
    let said = check_tool(&["load", "--to", &server.address()], &file, 0);
    assert!(said.contains("items stored"), "{said}");
    check_filled(&server);

    let server = Server::start(BINARY, &temporary.path().join("b"), &[]);
    let mut command = Command::new(BINARY);
    command.args(["load", "--to", &server.address(), "-"]).stdin(Stdio::piped());
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&dump.stdout).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    check_filled(&server);

    let server = Server::start(BINARY, &temporary.path().join("c"), &[]);
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(&dump.stdout).unwrap();
    stream.write_all(b"quit\r\n").unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    assert!(answers.ends_with("MN\r\n") && !answers.contains("ERROR"), "{answers}");
    check_filled(&server);

    // The tools changed nothing.
    let server = Server::with_data(&directory, &["-t", "3"]);
    check_filled(&server);
    assert!(check_tool(&["check"], &directory, 75).contains("used by another process"));
    assert!(check_tool(&["repair"], &directory, 75).contains("used by another process"));
}

#[test]
fn a_load_says_what_was_refused_or_is_missing() {
    let temporary = TempDir::new().unwrap();
    let server = Server::start(BINARY, &temporary.path().join("a"), &["-I", "1k"]);
    let check = |content: &[u8], code: i32, part: &str| {
        let file = temporary.path().join("dump");
        fs::write(&file, content).unwrap();
        let said = check_tool(&["load", "--to", &server.address()], &file, code);
        assert!(said.contains(part), "{said}");
    };
    let large = ["set a 0 0 2000 noreply\r\n", &"x".repeat(2000), "\r\nmn\r\n"].concat();
    check(large.as_bytes(), 1, "1 items refused; the first answer was \"SERVER_ERROR object too");
    check(b"set a 0 0 1\r\nx\r\n", 65, "lost its end");
    check(b"flush_all\r\nmn\r\n", 65, "not a command of a dump");
    check(b"set a 0 0 1\r\nx\r\nmn\r\n", 0, "1 items stored");
    assert_eq!(server.ask(b"get a\r\n"), "VALUE a 0 1\r\nx\r\nEND\r\n");
    for arguments in [&["load"][..], &["load", "--to"], &["check"], &["check", "a", "b"]] {
        assert_eq!(tool(arguments).status.code(), Some(64), "{arguments:?}");
    }
    for name in ["check", "dump", "repair", "backup", "load"] {
        let output = tool(&[name, "-h"]);
        assert!(text(&output.stdout).starts_with(&format!("usage: distcached {name} ")), "{name}");
        assert_eq!(output.status.code(), Some(0), "{name}");
        assert_eq!(tool(&["help", name]).stdout, output.stdout, "{name}");
        assert!(text(&output.stdout).lines().all(|line| line.len() <= 80), "{name}");
    }
    assert_eq!(tool(&["help"]).stdout, tool(&["-h"]).stdout);
    let output = tool(&["help", "serve"]);
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).contains("none of check, dump"), "{}", text(&output.stderr));
    check_tool(&["check"], &temporary.path().join("nowhere"), 74);
    // A server without the data would start instead.
    let output = tool(&["chekc", "/var/lib/distcached"]);
    assert_eq!(output.status.code(), Some(64));
    let why = text(&output.stderr);
    assert!(why.contains("\"chekc\" is none of check, dump, repair, backup, load;"), "{why}");
}

#[test]
fn damage_is_found_gone_around_and_repaired() {
    let temporary = TempDir::new().unwrap();
    let directory = filled_directory(&temporary);
    let snapshot = names(&directory, "snapshot-").remove(0);
    let path = directory.join(&snapshot);
    let whole = fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    // In the first records: of what is damaged, the rest can be read.
    bytes[100] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let said = check_tool(&["check"], &directory, 65);
    assert!(said.contains(&format!("DAMAGE {snapshot} at offset ")), "{said}");
    assert!(check_tool(&["dump"], &directory, 65).contains(&snapshot));
    let salvaged = tool(&["dump", "--salvage", directory.to_str().unwrap()]);
    assert_eq!(salvaged.status.code(), Some(0));
    assert!(text(&salvaged.stdout).contains("set after 0 0 1 noreply\r\ny\r\n"));
    assert!(text(&salvaged.stderr).contains("gone around: "));

    let said = check_tool(&["repair"], &directory, 0);
    assert!(said.contains(&format!("kept as {snapshot}.damaged\n")), "{said}");
    assert_eq!(fs::read(directory.join(format!("{snapshot}.damaged"))).unwrap(), bytes);
    assert!(check_tool(&["check"], &directory, 0).ends_with("intact\n"));
    assert_eq!(check_tool(&["repair"], &directory, 0), "nothing to repair\n");
    let again = tool(&["dump", directory.to_str().unwrap()]);
    let sorted = |output: &[u8]| {
        let mut lines: Vec<String> = text(output).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&again.stdout), sorted(&salvaged.stdout));
    let server = Server::with_data(&directory, &["-t", "2"]);
    assert_eq!(server.ask(b"mg after v\r\n"), "VA 1\r\ny\r\n");
}

#[test]
fn torn_ends_newer_and_lost_identities_have_their_exit_codes() {
    let temporary = TempDir::new().unwrap();
    let directory = filled_directory(&temporary);
    let log = names(&directory, "log-").remove(0);
    let log = directory.join(log);
    let mut bytes = fs::read(&log).unwrap();
    bytes.extend_from_slice(&[0xA5; 21]);
    fs::write(&log, &bytes).unwrap();
    let said = check_tool(&["check"], &directory, 0);
    assert!(said.contains("intact, but for 21 bytes to be cut off"), "{said}");
    assert!(check_tool(&["repair"], &directory, 0).contains("the next start cuts off 21 bytes"));

    let identity = text(&fs::read(directory.join("IDENTITY")).unwrap());
    let told = identity.split("checksum").next().unwrap();
    let told = told.replacen("identity 2", "identity 3", 1);
    let newer = format!("{told}checksum {:08x}\n", crc32c::crc32c(told.as_bytes()));
    for name in ["IDENTITY", "IDENTITY.2"] {
        fs::write(directory.join(name), &newer).unwrap();
    }
    for name in ["check", "dump", "repair"] {
        check_tool(&[name], &directory, 78);
    }
    // One copy is enough.
    fs::write(directory.join("IDENTITY"), &identity).unwrap();
    fs::remove_file(directory.join("IDENTITY.2")).unwrap();
    let said = check_tool(&["check"], &directory, 0);
    assert!(said.contains("mended by a start: IDENTITY at offset 0: one of its two"), "{said}");
    fs::remove_file(directory.join("IDENTITY")).unwrap();
    let said = check_tool(&["check"], &directory, 65);
    assert!(said.contains("DAMAGE IDENTITY at offset 0: missing, but "), "{said}");
    check_tool(&["repair"], &directory, 0);
    assert!(check_tool(&["check"], &directory, 0).ends_with("intact\n"));
    // Each key has to be found in its shard again.
    let server = Server::with_data(&directory, &["-t", "2"]);
    check_filled(&server);
}

/// A copy of a directory whose server goes on: what was acknowledged before the copy began is in
/// it, and nothing else than what was sent.
#[test]
fn a_directory_in_use_is_copied() {
    let temporary = TempDir::new().unwrap();
    let directory = temporary.path().join("data");
    let server = Server::with_data(&directory, &["-t", "2", "--snapshot-interval=1"]);
    let set = |number: u32| {
        let answer = server.ask(format!("set k{number} 0 0 6\r\n{number:06}\r\n").as_bytes());
        assert_eq!(answer, "STORED\r\n");
    };
    let mut number = 0;
    for round in 0..4 {
        for _ in 0..200 {
            set(number);
            number += 1;
        }
        if round == 1 {
            assert_eq!(server.ask(b"snapshot\r\n"), "OK\r\n");
        }
        let copy = temporary.path().join(format!("copy{round}"));
        let (from, to) = (directory.to_str().unwrap(), copy.to_str().unwrap());
        let before = number;
        let output = std::thread::scope(|scope| {
            let copying = scope.spawn(|| tool(&["backup", "--from", from, "--to", to]));
            while !copying.is_finished() {
                set(number);
                number += 1;
            }
            copying.join().unwrap()
        });
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let copied = Server::with_data(&copy, &["-t", "1"]);
        for other in 0..number {
            let answer = copied.ask(format!("mg k{other} v\r\n").as_bytes());
            let is_there = answer == format!("VA 6\r\n{other:06}\r\n");
            assert!(is_there || (answer == "EN\r\n" && other >= before), "k{other}: {answer}");
        }
        // Another one does not go on top of it.
        assert_eq!(tool(&["backup", "--from", from, "--to", to]).status.code(), Some(74));
    }
}

/// A stop takes one sync, and everything is there afterwards.
#[cfg(unix)]
#[test]
fn a_stop_is_quick_and_keeps_everything() {
    let temporary = TempDir::new().unwrap();
    let directory = temporary.path().join("data");
    let mut server = Server::with_data(&directory, &["-t", "2"]);
    fill(&server);
    let begun = Instant::now();
    let signalled = Command::new("kill").arg(server.process.0.id().to_string()).status().unwrap();
    assert!(signalled.success());
    assert!(server.process.0.wait().unwrap().success());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(names(&directory, "snapshot-").is_empty(), "it was not asked for");
    check_filled(&Server::with_data(&directory, &["-t", "1"]));
}

#[test]
fn a_running_memcached_is_copied() {
    let memcached = std::env::var("MEMCACHED").unwrap_or_else(|_| "memcached".to_owned());
    if Command::new(&memcached).arg("-V").output().is_err() {
        println!("skipped: no {memcached}");
        return;
    }
    let temporary = TempDir::new().unwrap();
    let source = Server::start(&memcached, &temporary.path().join("source"), &[]);
    fill(&source);
    let target = Server::start(BINARY, &temporary.path().join("target"), &[]);
    let output = tool(&["load", "--to", &target.address(), "--from", &source.address()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let get = |request: &str| target.ask(format!("{request}\r\n").as_bytes());
    assert_eq!(get("mg crlf v f t"), "VA 6 f4294967295 t-1\r\na\r\n\r\nb\r\n");
    assert_eq!(get("mg YSAAYg== b k v f"), "VA 2 kYSAAYg== b f7\r\n\0\n\r\n");
    assert_eq!(get("mg large s"), "HD s600000\r\n");
    // Reading a stale item makes the reader the one who is to renew it.
    assert_eq!(get("mg won f"), "HD f3 Z X\r\n");
    assert_eq!(get("mg many199 v f"), "VA 4 f199\r\n0199\r\n");
}

/// The items of `fill` that one server has, in another one that was loaded from it.
#[track_caller]
fn check_copied(to: &str, from: &str, options: &[&str], environment: &[(&str, &str)]) {
    let mut command = Command::new(BINARY);
    command.args(["load", "--to", to, "--from", from]).args(options);
    let output = command.envs(environment.iter().copied()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("208 items stored"), "{}", text(&output.stderr));
}

/// Its list of keys begins with `OK`, which was taken for an error once.
#[test]
fn a_running_distcached_is_copied() {
    let temporary = TempDir::new().unwrap();
    let source = Server::start(BINARY, &temporary.path().join("source"), &[]);
    fill(&source);
    let target = Server::start(BINARY, &temporary.path().join("target"), &[]);
    check_copied(&target.address(), &source.address(), &[], &[]);
    let get = |request: &str| target.ask(format!("{request}\r\n").as_bytes());
    assert_eq!(get("mg plain v f t"), "VA 3 f5 t-1\r\nabc\r\n");
    assert_eq!(get("mg YSAAYg== b k v f"), "VA 2 kYSAAYg== b f7\r\n\0\n\r\n");
    assert_eq!(get("mg gone"), "EN\r\n");

    // One that lists nothing says so.
    let source = Server::start(BINARY, &temporary.path().join("silent"), &["-X"]);
    let load = ["load", "--to", &target.address(), "--from", &source.address()];
    let output = tool(&load);
    assert_eq!(output.status.code(), Some(74));
    assert!(text(&output.stderr).contains("it was started with -X"), "{}", text(&output.stderr));
}

#[test]
fn servers_with_logins_and_tls_are_copied() {
    let temporary = TempDir::new().unwrap();
    let users = temporary.path().join("users");
    fs::write(&users, "bob:secret\n").unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    fs::write(temporary.path().join("ca"), authority.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = rcgen::Issuer::new(authority, key);
    let key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    fs::write(temporary.path().join("cert"), own.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    fs::write(temporary.path().join("key"), key.serialize_pem()).unwrap();
    let path = |name: &str| temporary.path().join(name).display().to_string();
    let (ca, cert, key) = (path("ca"), path("cert"), path("key"));

    let data = temporary.path().join("data");
    let filled = Server::with_data(&data, &[]);
    fill(&filled);
    filled.kill();
    let tls = format!("ssl_chain_cert={cert},ssl_key={key},ssl_ca_cert={ca},ssl_verify_mode=2");
    let users = users.display().to_string();
    let secured = ["-Z", "-o", &tls, "-Y", &users];
    let source = Server::with_data(&data, &secured);
    let target = Server::start(BINARY, &temporary.path().join("target"), &secured);
    let options = [
        "--from-user=bob",
        "--from-tls-ca",
        &ca,
        "--from-tls-cert",
        &cert,
        "--from-tls-key",
        &key,
        "--to-user=bob",
        "--to-tls-ca",
        &ca,
        "--to-tls-cert",
        &cert,
        "--to-tls-key",
        &key,
    ];
    let passwords = [("DISTCACHED_FROM_PASSWORD", "secret"), ("DISTCACHED_TO_PASSWORD", "secret")];
    check_copied(&target.address(), &source.address(), &options, &passwords);

    // What is wrong is said, and by which side.
    let refused = |options: &[&str], password: Option<&str>, code: i32, part: &str| {
        let mut command = Command::new(BINARY);
        command.args(["load", "--to", &target.address()]).args(options);
        if let Some(password) = password {
            command.env("DISTCACHED_TO_PASSWORD", password);
        }
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(part), "{said}");
    };
    let to = &options[7..];

    refused(to, Some("wrong"), 74, "the login of bob is refused: \"CLIENT_ERROR authentication");
    refused(to, None, 64, "expected in DISTCACHED_TO_PASSWORD");
    refused(&to[..3], Some("secret"), 74, "CertificateRequired");
    refused(&["--to-tls-cert", &cert], None, 64, "--to-tls-key: give both");
    refused(&["--from-user=bob"], None, 64, "--from HOST:PORT is missing");
    refused(&["--to-what=1"], None, 64, "--to-what");
}

/// What memcached-tool prints is taken: `add` commands, and nothing behind the last.
#[test]
fn a_dump_of_memcached_tool_is_loaded() {
    let temporary = TempDir::new().unwrap();
    let target = Server::start(BINARY, &temporary.path().join("target"), &[]);
    assert_eq!(target.ask(b"set b 1 0 3\r\nold\r\n"), "STORED\r\n");
    let file = temporary.path().join("dump");
    fs::write(&file, format!("add a 5 {EXPTIME} 3\r\nx\ny\r\nadd b 0 0 3\r\nnew\r\n")).unwrap();
    let said = check_tool(&["load", "--to", &target.address()], &file, 0);
    assert!(said.contains("1 items stored") && said.contains("were there already"), "{said}");
    assert_eq!(target.ask(b"get a b\r\n"), "VALUE a 5 3\r\nx\ny\r\nVALUE b 1 3\r\nold\r\nEND\r\n");

    let script = Path::new("/usr/share/memcached/scripts/memcached-tool");
    if !script.exists() {
        println!("skipped: no {}", script.display());
        return;
    }
    let source = Server::start(BINARY, &temporary.path().join("source"), &[]);
    assert_eq!(source.ask(b"set c 7 0 2\r\n\r\n\r\n"), "STORED\r\n");
    let dump = Command::new(script).args([&source.address(), "dump"]).output().unwrap().stdout;
    fs::write(&file, dump).unwrap();
    check_tool(&["load", "--to", &target.address()], &file, 0);
    assert_eq!(target.ask(b"get c\r\n"), "VALUE c 7 2\r\n\r\n\r\nEND\r\n");
}
