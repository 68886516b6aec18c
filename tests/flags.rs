//! The built daemon from outside: flags, exit codes, messages, files and signals. Goal: whoever
//! swaps the `memcached` binary and keeps scripts and units finds the same manners. Method: start
//! the binary, look at what it leaves behind, end it by its process number; every wait is bounded.
//! What each flag means is tested in `server::options`, without a process.

#![cfg(feature = "server")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};
use socket2::{Domain, SockAddr, Socket, Type};
use support::{Bounded, PATIENCE, eventually};

const BINARY: &str = env!("CARGO_BIN_EXE_distcached");

/// A path that no other test uses. Open to all, for the daemon may run as another user.
fn temporary(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("distcached-{}-{count}", std::process::id()));
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    path.join(name)
}

fn remove_with_directory(path: &Path) {
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
}

/// The binary with these flags, and with `-u root` if the tests run as root.
fn distcached(flags: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    if Uid::effective().is_root() && !flags.contains(&"-u") {
        command.args(["-u", "root"]);
    }
    command.args(flags).env_remove("RUST_LOG").env_remove("MEMCACHED_PORT_FILENAME");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs to the end, which has to come soon: a server that starts against expectation is ended.
fn output(command: &mut Command) -> Output {
    let mut child = command.spawn().unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if PATIENCE < start.elapsed() {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().unwrap()
}

/// Does not start: this exit code, and this on standard error.
fn check_refused(command: &mut Command, code: i32, part: &str) {
    let output = output(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(part), "{command:?} said {said:?}");
    assert_eq!(output.status.code(), Some(code), "{command:?} said {said:?}");
}

fn check_prints(flag: &str, part: &str) {
    let output = output(&mut distcached(&[flag]));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("distcached 1.6."), "{text}");
    assert!(text.contains(part), "{text}");
    assert_eq!(output.status.code(), Some(0));
}

/// A server in the foreground on a free port of 127.0.0.1.
struct Running {
    process: Bounded,
    port: u16,
    ports_file: PathBuf,
}

impl Running {
    fn start(flags: &[&str]) -> Self {
        let mut command = distcached(&["-l", "127.0.0.1", "-p", "-1"]);
        command.args(flags);
        Self::spawn(&mut command)
    }

    fn spawn(command: &mut Command) -> Self {
        let ports_file = temporary("ports");
        let mut process = Bounded::start(command.env("MEMCACHED_PORT_FILENAME", &ports_file));
        let port = eventually("the ports file", || {
            assert_eq!(process.0.try_wait().unwrap(), None, "ended instead of starting");
            let text = fs::read_to_string(&ports_file).ok()?;
            Some(text.strip_prefix("TCP INET: ")?.lines().next()?.parse().unwrap())
        });
        Self { process, port, ports_file }
    }

    fn signal(&self, signal: Signal) {
        signal_to(self.process.0.id(), signal);
    }

    fn answers(&self) -> bool {
        TcpStream::connect(("127.0.0.1", self.port)).is_ok_and(|peer| knows_version(&peer, &peer))
    }

    /// Ends it and returns everything it wrote to standard error.
    fn end(mut self, signal: Signal) -> String {
        self.process.end(signal);
        let mut said = String::new();
        self.process.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        remove_with_directory(&self.ports_file);
    }
}

fn signal_to(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
}

fn knows_version(input: impl Read, mut output: impl Write) -> bool {
    let mut line = String::new();
    output.write_all(b"version\r\n").is_ok()
        && BufReader::new(input).read_line(&mut line).is_ok()
        && line.starts_with("VERSION 1.6.")
}

#[test]
fn texts() {
    check_prints("-h", "--unix-socket");
    check_prints("--help", "--unix-socket");
    check_prints("-V", concat!("\ndistcache ", env!("CARGO_PKG_VERSION"), "\n"));
    check_prints("-i", "license");
}

#[test]
fn flags_that_cannot_be_followed() {
    for (flags, code, part) in [
        (&["-Q"][..], 1, "invalid option -- 'Q'\nIllegal argument \"?\"\n"),
        (&["--port"], 1, "option '--port' requires an argument\nIllegal argument \"?\"\n"),
        (&["-o", "what"], 1, "Illegal suboption \"what\""),
        (&["-c", "0"], 1, "-c: 0 is out of range"),
        (&["-c", "-1"], 1, "-c: -1 is out of range"),
        (&["-t", "0"], 1, "-t: 0 is out of range"),
        (&["-R", "0"], 1, "-R: 0 is out of range"),
        (&["-p", "65536"], 64, "-p: 65536 is out of range"),
        (&["-I", "1000"], 64, "-I cannot be less than 1024 bytes"),
        (&["-I", "256m"], 64, "raise -m"),
        (&["-B", "http"], 64, "Invalid value for binding protocol: http"),
        (&["-S"], 64, "MEMCACHED_SASL_PWDB names"),
        (&["-Y", "/dev/null", "-B", "binary"], 64, "without -S"),
        (&["-Z"], 64, "-Z needs -o ssl_chain_cert=FILE"),
        (&["-p", "-1", "-l", "127.0.0.1", "-Y", "/dev/null"], 1, "names no user"),
        // Nobody makes files there, root neither.
        (&["-p", "-1", "-l", "127.0.0.1", "--data-dir=/sys"], 74, "rights of its directory"),
        (&["-l", "no-such-host.invalid"], 71, "failed to listen on one of interface(s) no-such"),
    ] {
        check_refused(&mut distcached(flags), code, part);
    }
}

/// Whom the process serves as.
fn user_of(server: &Running) -> u32 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.process.0.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:\t")).unwrap();
    let all: Vec<u32> = line.split('\t').map(|number| number.parse().unwrap()).collect();
    assert!(all.iter().all(|user| *user == all[0]), "{line}");
    all[0]
}

/// In a container everybody is root, and the first command of the README is to work there.
#[test]
fn root_that_does_not_say_whom_to_become_becomes_nobody() {
    if !Uid::effective().is_root() {
        return check_refused(&mut distcached(&["-u", "whoever", "-c", "0"]), 1, "-c: 0");
    }
    let nobody = User::from_name("nobody").unwrap().unwrap();
    let data = temporary("data");
    let kept = format!("--data-dir={}", data.display());
    for flags in [&[][..], &["-u", ""], &[&kept], &[&kept]] {
        let server = Running::spawn(
            Command::new(BINARY)
                .args(["-l", "127.0.0.1", "-p", "-1"])
                .args(flags)
                .stderr(Stdio::piped()),
        );
        assert!(server.answers());
        assert_eq!(user_of(&server), nobody.uid.as_raw(), "{flags:?}");
        let said = server.end(Signal::SIGTERM);
        assert!(said.ends_with(", as user nobody\n"), "{said}");
    }
    // The directory was made for it. One that root has made is not used, and not given away.
    assert_eq!(fs::metadata(&data).unwrap().uid(), nobody.uid.as_raw());
    let other = temporary("data");
    fs::create_dir(&other).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o700)).unwrap();
    let flags = ["-l", "127.0.0.1", "-p", "-1", &format!("--data-dir={}", other.display())];
    let hint = format!("chown -R {} {}\" makes it right", nobody.uid, other.display());
    check_refused(Command::new(BINARY).args(flags).stderr(Stdio::piped()), 74, &hint);
    let missing = other.join("a/b");
    let flags = ["-l", "127.0.0.1", "-p", "-1", &format!("--data-dir={}", missing.display())];
    let hint = format!("\"install -d -o nobody -m 700 {}\"", missing.display());
    check_refused(Command::new(BINARY).args(flags).stderr(Stdio::piped()), 74, &hint);
    for path in [data, other] {
        remove_with_directory(&path);
    }
    let unknown = "can't find the user no-such-user to switch to";
    check_refused(&mut distcached(&["-u", "no-such-user"]), 67, unknown);
}

#[test]
fn a_port_in_use() {
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let message = format!("failed to listen on TCP port {port}: Address already in use");
    check_refused(&mut distcached(&["-p", &port]), 71, &message);
    let message = "failed to listen on one of interface(s) 127.0.0.1: Address already in use";
    check_refused(&mut distcached(&["-p", &port, "-l", "127.0.0.1"]), 71, message);
    // Also for a daemon: whoever started it hears about it.
    check_refused(&mut distcached(&["-d", "-p", &port, "-l", "127.0.0.1"]), 71, message);
    let hint = format!(" at 127.0.0.1:{port}\nanother program listens there");
    check_refused(&mut distcached(&["-p", &port, "-l", "127.0.0.1"]), 71, &hint);
    let at = format!("--metrics-address=127.0.0.1:{port}");
    let hint =
        format!("--metrics-address: Address already in use (os error 98) at 127.0.0.1:{port}");
    check_refused(&mut distcached(&["-p", "-1", "-l", "127.0.0.1", &at]), 71, &hint);
    let nowhere = ["-s", "/no/such/directory/socket"];
    let message = "failed to listen on UNIX socket: /no/such/directory/socket: No such file";
    check_refused(&mut distcached(&nowhere), 71, message);
}

#[test]
fn signals() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let said = Running::start(&[]).end(signal);
        assert_eq!(said.lines().count(), 1, "one line unless asked for more: {said}");
    }
    let server = Running::start(&["-v"]);
    server.signal(Signal::SIGHUP);
    server.signal(Signal::SIGPIPE);
    assert!(server.answers());
    let said = server.end(Signal::SIGUSR1);
    assert!(said.contains("SIGHUP: "), "{said}");
    assert!(said.contains("gracefully stopping"), "{said}");
}

#[test]
fn ports_file() {
    // Without an address: all interfaces, one line for each family the machine has.
    let server = Running::spawn(&mut distcached(&["-p", "-1"]));
    assert!(server.answers());
    let text = fs::read_to_string(&server.ports_file).unwrap();
    let has_ipv6 = TcpListener::bind("[::1]:0").is_ok();
    assert_eq!(text.lines().count(), 1 + usize::from(has_ipv6), "{text}");
    assert_eq!(text.contains("\nTCP INET6: "), has_ipv6, "{text}");
    let left = fs::read_dir(server.ports_file.parent().unwrap()).unwrap().count();
    assert_eq!(left, 1, "no temporary file is left");
    server.end(Signal::SIGTERM);
}

#[test]
fn all_interfaces_share_one_port() {
    let port = ports::free().unwrap();
    let server = Running::spawn(&mut distcached(&["-p", &port.to_string()]));
    assert_eq!(server.port, port);
    assert!(server.answers());
    let text = fs::read_to_string(&server.ports_file).unwrap();
    assert!(text.lines().all(|line| line.ends_with(&format!(": {port}"))), "{text}");
    server.end(Signal::SIGTERM);
}

#[test]
fn unix_socket_with_mask() {
    let path = temporary("socket");
    let text = path.to_str().unwrap();
    // Whom root becomes owns the file.
    let user = if Uid::effective().is_root() { "nobody" } else { "" };
    let mut server = Bounded::start(&mut distcached(&["-s", text, "-a", "0770", "-u", user]));
    let peer = eventually("the socket", || UnixStream::connect(&path).ok());
    assert!(knows_version(&peer, &peer));

    let file = fs::metadata(&path).unwrap();
    assert!(file.file_type().is_socket());
    assert_eq!(file.mode() & 0o777, 0o770);
    let owner = User::from_name(user).unwrap().map_or(Uid::effective(), |user| user.uid);
    assert_eq!(file.uid(), owner.as_raw());

    drop(peer);
    server.end(Signal::SIGTERM);
    remove_with_directory(&path);
}

/// Whatever a client's end of a Unix socket is called, the server can say so: memcached once read
/// beyond such a name.
#[test]
fn unix_clients_with_any_kind_of_name() {
    let path = temporary("named");
    let text = path.to_str().unwrap();
    let mut server = Bounded::start(&mut distcached(&["-s", text, "-vvv"]));
    eventually("the socket", || UnixStream::connect(&path).ok());
    let own = path.with_extension("client");
    let abstract_name = format!("\0distcached-{}-{}", std::process::id(), "n".repeat(80));
    for name in ["", own.to_str().unwrap(), "\0", &abstract_name] {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        if !name.is_empty() {
            socket.bind(&SockAddr::unix(name).unwrap()).unwrap();
        }
        socket.connect(&SockAddr::unix(&path).unwrap()).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        (&socket).write_all(b"stats conns\r\nmn\r\n").unwrap();
        let lines = BufReader::new(&socket).lines().map_while(Result::ok);
        let lines: Vec<String> = lines.take_while(|line| line != "MN").collect();
        assert!(lines.iter().any(|line| line.ends_with(":addr unix")), "{name:?}: {lines:?}");
    }
    server.end(Signal::SIGTERM);
    fs::remove_file(&own).unwrap();
    remove_with_directory(&path);
}

#[test]
fn a_stale_socket_file_is_replaced_and_another_file_is_not() {
    let path = temporary("socket");
    let text = path.to_str().unwrap();
    drop(UnixListener::bind(&path).unwrap());
    let mut server = Bounded::start(&mut distcached(&["-s", text]));
    eventually("the socket", || UnixStream::connect(&path).ok());
    let in_use = format!("failed to listen on UNIX socket: {text}: ");
    check_refused(&mut distcached(&["-s", text]), 71, &in_use);
    server.end(Signal::SIGTERM);

    let _ = fs::remove_file(&path);
    fs::write(&path, "precious").unwrap();
    check_refused(&mut distcached(&["-s", text]), 71, &in_use);
    let said = output(&mut distcached(&["-s", text])).stderr;
    assert!(!String::from_utf8_lossy(&said).contains("port"), "nothing about ports");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    remove_with_directory(&path);
}

#[test]
fn a_daemon_leaves_its_number_and_takes_it_away() {
    let pid_path = temporary("pid");
    let directory = pid_path.parent().unwrap();
    // Names are meant from where it was started, although a daemon moves to the root directory.
    let flags = ["-d", "-P", "pid", "-s", "socket"];
    let foreground = output(distcached(&flags).current_dir(directory));
    assert_eq!(foreground.status.code(), Some(0));
    let said = String::from_utf8_lossy(&foreground.stderr);
    assert!(said.contains(" ready: unix:"), "{said}");

    // It is there when the foreground returns.
    let pid = fs::read_to_string(&pid_path).unwrap();
    let pid: u32 = pid.strip_suffix('\n').unwrap().parse().unwrap();
    let answers =
        UnixStream::connect(directory.join("socket")).is_ok_and(|peer| knows_version(&peer, &peer));
    // Nobody else ends it: no assertion before this.
    signal_to(pid, Signal::SIGTERM);
    assert!(answers);
    eventually("the pid file to go", || (!pid_path.exists()).then_some(()));
    let this = Pid::from_raw(pid.try_into().unwrap());
    eventually("the daemon to end", || kill(this, None).is_err().then_some(()));
    remove_with_directory(&pid_path);
}

/// Whoever starts a daemon learns what came of it, as from a start in the foreground.
#[test]
fn a_daemon_that_does_not_start_says_so() {
    let path = temporary("data");
    let kept = format!("--data-dir={}", path.display());
    let served = ["-l", "127.0.0.1", "-p", "-1"];
    let user = if Uid::effective().is_root() { &["-u", "root"][..] } else { &[] };
    // In use by another one.
    let server = Running::start(&[&kept]);
    for mode in [&[][..], &["-d"], &["-d", "-v"]] {
        let flags = [&served[..], user, mode, &[&kept]].concat();
        check_refused(&mut distcached(&flags), 75, "end the other process");
    }
    server.end(Signal::SIGTERM);
    // Damaged.
    for name in ["IDENTITY", "IDENTITY.2"] {
        fs::write(path.join(name), "?").unwrap();
    }
    let missing = ["-Y", "/no/such/file"];
    for mode in [&[][..], &["-d"]] {
        let flags = [&served[..], user, mode, &[&kept]].concat();
        check_refused(&mut distcached(&flags), 65, "distcached check");
        let flags = [&served[..], user, mode, &missing].concat();
        check_refused(&mut distcached(&flags), 1, "-Y /no/such/file: No such file");
    }
    // With a log file as well, where its descriptors are its own.
    let log = format!("--log-file={}", path.with_extension("log").display());
    let flags = [&served[..], user, &["-d", &kept, &log]].concat();
    check_refused(&mut distcached(&flags), 65, "distcached check");
    remove_with_directory(&path);
}

/// `x=$(distcached -d --log-file=F 2>&1)` returns: standard output and error are let go of.
#[test]
fn a_daemon_lets_go_of_its_output() {
    let pid_path = temporary("pid");
    let log = format!("--log-file={}", pid_path.with_extension("log").display());
    for verbose in [&[][..], &["-vv"]] {
        let flags = ["-d", "-P", pid_path.to_str().unwrap(), "-l", "127.0.0.1", "-p", "-1", &log];
        let flags = [&flags[..], verbose].concat();
        // Returns when nobody has the pipes open any more.
        let output = distcached(&flags).output().unwrap();
        let pid = fs::read_to_string(&pid_path).unwrap().trim().parse().unwrap();
        let held = ["0", "1", "2"].map(|descriptor| {
            fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).unwrap_or_default()
        });
        let directory = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        signal_to(pid, Signal::SIGTERM);
        assert_eq!(output.status.code(), Some(0));
        assert!(held.iter().all(|path| path == Path::new("/dev/null")), "{held:?}");
        assert_eq!(directory, Path::new("/"));
        eventually("the pid file to go", || (!pid_path.exists()).then_some(()));
    }
    remove_with_directory(&pid_path);
}

/// A file of flags that can be read once is read once.
#[test]
fn a_daemon_follows_a_configuration_from_a_pipe() {
    let pid_path = temporary("pid");
    let mut command = distcached(&["-d", "--config", "/dev/stdin"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let flags = format!("-P {}\n-l 127.0.0.1\n-p -1\n-m 77", pid_path.display());
    child.stdin.take().unwrap().write_all(flags.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let pid = fs::read_to_string(&pid_path).unwrap().trim().parse().unwrap();
    signal_to(pid, Signal::SIGTERM);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("; 77 MB of memory"), "{said}");
    eventually("the pid file to go", || (!pid_path.exists()).then_some(()));
    remove_with_directory(&pid_path);
}

/// Certificates as people make them by hand, with OpenSSL.
#[test]
fn certificates_of_older_habits() {
    if Command::new("openssl").arg("version").output().is_err() {
        println!("skipped: no openssl");
        return;
    }
    let path = temporary("x");
    let directory = path.parent().unwrap();
    let openssl = |words: &str| {
        let mut command = Command::new("openssl");
        let output = command.args(words.split(' ')).current_dir(directory).output().unwrap();
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let request = |name: &str, kind: &str| {
        openssl(&format!(
            "req -new -newkey {kind} -nodes -keyout {name}.key -out {name}.csr -subj /CN=127.0.0.1"
        ));
        // Without extensions it is of version 1.
        openssl(&format!("x509 -req -in {name}.csr -signkey {name}.key -out {name}.cert -days 9"));
    };
    request("one", "rsa:2048");
    request("other", "rsa:2048");
    request("wide", "ec -pkeyopt ec_paramgen_curve:secp521r1");
    let flags = |cert: &str, key: &str| {
        let file =
            |name: &str, end: &str| directory.join(format!("{name}.{end}")).display().to_string();
        format!("ssl_chain_cert={},ssl_key={}", file(cert, "cert"), file(key, "key"))
    };
    let started = ["-l", "127.0.0.1", "-p", "-1", "-Z", "-o"];
    let server = Running::start(&["-Z", "-o", &flags("one", "one")]);
    let address = format!("127.0.0.1:{}", server.port);
    let mut client = Command::new("openssl");
    client.args(["s_client", "-quiet", "-no_ign_eof", "-connect", &address]);
    let client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut client = client.spawn().unwrap();
    client.stdin.as_mut().unwrap().write_all(b"version\r\nquit\r\n").unwrap();
    let mut answer = String::new();
    client.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
    client.wait().unwrap();
    assert!(answer.starts_with("VERSION 1.6."), "{answer}");
    let said = server.end(Signal::SIGTERM);
    assert!(said.contains("version 3 is made with -extfile"), "{said}");

    let mixed = flags("one", "other");
    check_refused(&mut distcached(&[&started[..], &[&mixed]].concat()), 64, "validating");
    let wide = flags("wide", "wide");
    let hint = "openssl ecparam -name prime256v1";
    check_refused(&mut distcached(&[&started[..], &[&wide]].concat()), 64, hint);
    remove_with_directory(&path);
}

#[test]
fn the_name_memcached_answers_as_memcached() {
    for (flag, expected) in [("-V", "memcached 1.6.45\n"), ("-h", "memcached 1.6.45\n")] {
        let output = Command::new(BINARY).arg0("memcached").arg(flag).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).starts_with(expected), "{flag}");
        assert_eq!(output.status.code(), Some(0));
    }
}

#[test]
fn a_pid_file_without_d_stays() {
    let pid_path = temporary("pid");
    let server = Running::start(&["-P", pid_path.to_str().unwrap()]);
    let pid = eventually("the pid file", || fs::read_to_string(&pid_path).ok());
    assert_eq!(pid, format!("{}\n", server.process.0.id()));
    server.end(Signal::SIGTERM);
    assert!(pid_path.exists());
    remove_with_directory(&pid_path);
}

#[test]
fn a_pid_file_that_cannot_be_written_is_no_reason_to_stop() {
    let server = Running::start(&["-P", "/no/such/directory/pid"]);
    assert!(server.answers());
    let said = server.end(Signal::SIGTERM);
    assert!(said.contains("could not write the pid file /no/such/directory/pid"), "{said}");
}

#[test]
fn flags_without_effect_are_named_in_one_line() {
    let server = Running::start(&["-f", "1.1", "-n", "80", "-o", "hashpower=20,no_lru_crawler"]);
    let said = server.end(Signal::SIGTERM);
    assert_eq!(said.lines().count(), 2, "{said}");
    let all = "without effect here: -f, -n, -o hashpower, -o no_lru_crawler";
    assert!(said.lines().next().unwrap().ends_with(all), "{said}");
}

/// The binary, run as someone who may not raise limits, below so many open files. `None` where
/// the account may not reach the binary.
fn below_file_limit(files: u32, flags: &[&str]) -> Option<Command> {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("ulimit -n {files} && exec \"$0\" \"$@\"")).arg(BINARY);
    command.args(flags).env_remove("RUST_LOG").stdin(Stdio::null()).stderr(Stdio::piped());
    if let Some(nobody) = User::from_name("nobody").unwrap().filter(|_| Uid::effective().is_root())
    {
        command.uid(nobody.uid.as_raw()).gid(nobody.gid.as_raw());
        let reach = Command::new(BINARY).arg("-V").uid(nobody.uid.as_raw()).output();
        reach.ok().filter(|output| output.status.success())?;
    }
    Some(command)
}

#[test]
fn more_connections_than_files() {
    let Some(mut command) = below_file_limit(200, &["-c", "201"]) else { return };
    check_refused(&mut command, 71, "failed to set rlimit for open files");

    // memcached starts with as many files as connections.
    let flags = ["-c", "1024", "-l", "127.0.0.1", "-p", "-1"];
    let Some(mut command) = below_file_limit(1024, &flags) else { return };
    let server = Running::spawn(&mut command);
    assert!(server.answers());
    let said = server.end(Signal::SIGTERM);
    assert!(said.contains("connections that -c allows"), "{said}");
}

/// Once it started, and the allocator ended it when the cache had grown to the limit.
#[test]
fn more_memory_than_address_space() {
    for (limit, flag) in [("-v", "ulimit -v"), ("-d", "ulimit -d")] {
        let below = |mebibytes: u32| {
            let mut command = Command::new("sh");
            let script = format!("ulimit {limit} {} && exec \"$0\" \"$@\"", mebibytes << 10);
            command.arg("-c").arg(script).arg(BINARY).args(["-u", "root", "-m", "1024"]);
            command.args(["-l", "127.0.0.1", "-p", "-1", "-t", "2"]).env_remove("RUST_LOG");
            command.stdin(Stdio::null()).stderr(Stdio::piped());
            command
        };
        check_refused(&mut below(1000), 71, flag);
        check_refused(&mut below(1000), 71, "-m 1024: raise it to 1792 MiB, or lower -m");
        let server = Running::spawn(&mut below(1792));
        assert!(server.answers(), "{flag}");
        server.end(Signal::SIGTERM);
    }
}

#[test]
fn environment_decides_what_is_logged() {
    let mut command = distcached(&["-l", "127.0.0.1", "-p", "-1", "-vvv"]);
    let server = Running::spawn(command.env("RUST_LOG", "off"));
    let said = server.end(Signal::SIGTERM);
    assert!(said.starts_with("distcached ") && said.lines().count() == 1, "{said}");
}

#[test]
fn a_start_says_in_one_line_what_was_started() {
    let server = Running::start(&["-m", "96", "-t", "3"]);
    let port = server.port;
    let said = server.end(Signal::SIGTERM);
    let own = env!("CARGO_PKG_VERSION");
    let expected = format!(
        "distcached {own} (as memcached 1.6.45) ready: tcp:127.0.0.1:{port}; 96 MB of memory, \
         3 threads; data is not kept (--data-dir keeps it)"
    );
    assert!(said.starts_with(&expected), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");

    // With a log file it is said in both places.
    let path = temporary("log");
    let data = path.with_file_name("data");
    let (log, kept) =
        (format!("--log-file={}", path.display()), format!("--data-dir={}", data.display()));
    let said = Running::start(&[&log, &kept]).end(Signal::SIGTERM);
    let expected = format!("; data in {}", data.display());
    assert!(said.contains(&expected), "{said}");
    let logged = fs::read_to_string(&path).unwrap();
    assert!(logged.contains("INFO") && logged.contains(said.trim_end()), "{logged}");
    remove_with_directory(&path);
}

/// `-e FILE` of memcached, and SIGUSR1: what was there is there again.
#[test]
fn a_memory_file_keeps_the_data() {
    let file = temporary("memory");
    let flags = ["-m", "64", "-e", file.to_str().unwrap()];
    let ask = |server: &Running, said: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.write_all(said.as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        answer
    };
    let server = Running::start(&flags);
    assert_eq!(ask(&server, "set k 0 0 1\r\nv\r\n"), "STORED\r\n");
    let said = server.end(Signal::SIGUSR1);
    let directory = format!("in the directory {}.data", file.display());
    assert_eq!(said.matches(&directory).count(), 1, "{said}");
    let server = Running::start(&flags);
    assert_eq!(ask(&server, "get k\r\n"), "VALUE k 0 1\r\n");
    server.end(Signal::SIGTERM);
    assert!(!file.exists());
    remove_with_directory(&file);
}

#[test]
fn core_dumps_and_small_memory() {
    let server = Running::start(&["-r", "-m", "8", "-t", "1", "-c", "10"]);
    assert!(server.answers());
    server.end(Signal::SIGTERM);
}
