//! The built daemon as a service: what it tells a service manager, sockets it is handed, the
//! configuration file of Debian's memcached, and the files in `etc/` that describe it. Method: this
//! test plays the service manager; every wait has a limit.

#![cfg(feature = "server")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Uid;
use support::{Bounded, PATIENCE};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_distcached");

/// The flags that root needs.
fn as_user() -> &'static [&'static str] {
    if Uid::effective().is_root() { &["-u", "root"] } else { &[] }
}

/// A socket that is told how the server is doing.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    _directory: TempDir,
}

impl Manager {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, path, _directory: directory }
    }

    fn told(&self) -> String {
        let mut bytes = [0; 1024];
        let count = self.socket.recv(&mut bytes).expect("the server says something");
        String::from_utf8_lossy(&bytes[..count]).trim_end().to_owned()
    }

    fn wait_for(&self, what: &str) {
        while !self.told().lines().any(|line| line == what) {}
    }
}

fn command(manager: &Manager, flags: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.args(as_user()).args(flags).env("NOTIFY_SOCKET", &manager.path);
    command.stdin(Stdio::null()).stderr(Stdio::null());
    command
}

fn ask(mut stream: impl Read + Write, said: &str) -> String {
    stream.write_all(said.as_bytes()).unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line
}

fn free_port() -> u16 {
    ports::free().unwrap()
}

#[test]
fn a_service_manager_is_told_ready_alive_and_stopping() {
    let manager = Manager::new();
    let port = free_port().to_string();
    let mut command = command(&manager, &["-l", "127.0.0.1", "-p", &port]);
    let mut server = Bounded(command.env("WATCHDOG_USEC", "900000").spawn().unwrap());
    let told = manager.told();
    assert_eq!(told, format!("READY=1\nMAINPID={}", server.0.id()));
    // Ready means that clients are answered.
    let client = TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
    assert!(ask(client, "version\r\n").starts_with("VERSION 1.6."));
    manager.wait_for("WATCHDOG=1");
    manager.wait_for("WATCHDOG=1");
    server.signal(Signal::SIGTERM);
    manager.wait_for("STOPPING=1");
    assert_eq!(server.0.wait().unwrap().code(), Some(0));
}

/// The lines of a file, once one of them has this in it.
fn lines_with(path: &Path, what: &str) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        let text = fs::read_to_string(path).unwrap_or_default();
        if text.contains(what) {
            return text;
        }
        assert!(Instant::now() < until, "no \"{what}\" in {text}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_log_file_is_opened_again_after_a_rotation() {
    let (manager, directory) = (Manager::new(), TempDir::new().unwrap());
    let (path, rotated) = (directory.path().join("log"), directory.path().join("log.1"));
    let named = format!("--log-file={}", path.display());
    let port = free_port().to_string();
    let flags = ["-v", "-l", "127.0.0.1", "-p", &port, &named];
    let mut server = Bounded(command(&manager, &flags).spawn().unwrap());
    manager.wait_for(&format!("MAINPID={}", server.0.id()));
    fs::write(&path, "a line of before\n").unwrap();
    fs::rename(&path, &rotated).unwrap();
    server.signal(Signal::SIGHUP);
    assert!(!lines_with(&path, "the log goes on here").contains("a line of before"));
    // It cannot be opened: the log goes on where it was.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    server.signal(Signal::SIGHUP);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.0.wait().unwrap().code(), Some(0));
    let before = fs::read_to_string(&rotated).unwrap();
    assert!(before.contains("a line of before") && !before.contains("goes on here"), "{before}");
}

#[test]
fn a_log_file_that_cannot_be_opened_is_refused() {
    let manager = Manager::new();
    let mut command = command(&manager, &["--log-file=/nowhere/at/all"]);
    let output = command.stderr(Stdio::piped()).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--log-file: /nowhere/at/all: No such file"), "{said}");
}

/// Starts the server with a listening socket as descriptor 3, as a service manager does.
fn activated(manager: &Manager, socket: OwnedFd) -> Bounded {
    let script = "exec 3<&0; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    // The flags would listen elsewhere, and be refused.
    command.args(["-c", script, BINARY, "-l", "192.0.2.1", "-p", "1"]).args(as_user());
    command.env("NOTIFY_SOCKET", &manager.path).stdin(Stdio::from(socket)).stderr(Stdio::null());
    Bounded(command.spawn().unwrap())
}

#[test]
fn sockets_that_are_handed_over_are_served() {
    let manager = Manager::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Whoever comes before the server is there waits in the queue.
    let early = TcpStream::connect(address).unwrap();
    let _server = activated(&manager, listener.into());
    manager.wait_for("READY=1");
    assert!(ask(early, "version\r\n").starts_with("VERSION 1.6."));

    let directory = TempDir::new().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let early = UnixStream::connect(&path).unwrap();
    let _server = activated(&manager, listener.into());
    assert!(ask(early, "version\r\n").starts_with("VERSION 1.6."));
}

#[test]
fn debians_configuration_file_is_followed() {
    let manager = Manager::new();
    let directory = TempDir::new().unwrap();
    let (file, port) = (directory.path().join("memcached.conf"), free_port());
    let text = format!(
        "# memcached default config file\n\n-d\n\nlogfile /var/log/memcached.log\n\n# -v\n\
         # -vv\n\n-m 96\n\n-p {port}\n\n-u root\n\n-l 127.0.0.1\n# -c 1024\n-c 77 # few\n\
         -P {}/memcached.pid\n",
        directory.path().display()
    );
    fs::write(&file, text).unwrap();
    let mut command = Command::new(BINARY);
    command.arg("--config").arg(&file).env("NOTIFY_SOCKET", &manager.path).stderr(Stdio::null());
    let server = Bounded(command.spawn().unwrap());
    manager.wait_for("READY=1");
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    (&client).write_all(b"stats settings\r\nquit\r\n").unwrap();
    let mut settings = String::new();
    (&client).read_to_string(&mut settings).unwrap();
    for line in ["STAT maxbytes 100663296", "STAT maxconns 77", "STAT inter 127.0.0.1"] {
        assert!(settings.contains(&format!("{line}\r\n")), "{line} in {settings}");
    }
    let pid = fs::read_to_string(directory.path().join("memcached.pid")).unwrap();
    assert_eq!(pid.trim(), server.0.id().to_string(), "-d in the file is skipped");
}

fn packaged(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("etc").join(name)).expect(name)
}

#[test]
fn manual_and_completions_know_every_option() {
    let help = Command::new(BINARY).arg("-h").output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    let bash = packaged("completions/distcached.bash");
    let zsh = packaged("completions/_distcached");
    let fish = packaged("completions/distcached.fish");
    let manual = packaged("distcached.1");
    let mut count = 0;
    let options = help.lines().filter(|line| line.starts_with('-'));
    let names = options.flat_map(|line| line.split_whitespace().take_while(|w| w.starts_with('-')));
    for name in names {
        let name = name.trim_end_matches(',').split('=').next().unwrap();
        count += 1;
        let in_manual = format!("\\fB{}\\fR", name.replace('-', "\\-"));
        assert!(manual.contains(&in_manual), "{name} in the manual");
        let is_word = |word: &str| word == name;
        assert!(bash.split_whitespace().any(is_word), "{name} for bash");
        let starts = |end: &str| zsh.contains(&format!("'{name}{end}"));
        assert!(["[", "=[", "+["].iter().any(|end| starts(end)), "{name} for zsh");
        let in_fish = match name.strip_prefix("--") {
            Some(long) => format!(" -l {long} "),
            None => format!(" -s {} ", &name[1..]),
        };
        assert!(fish.contains(&in_fish), "{name} for fish");
    }
    assert!(count > 50, "only {count} names in {help}");
}

#[test]
fn the_packaged_configuration_can_be_followed() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("distcached.conf");
    let port = free_port();
    let text = packaged("distcached.conf").replace("-p 11211", &format!("-p {port}"));
    fs::write(&file, text).unwrap();
    let manager = Manager::new();
    let mut command = command(&manager, &["--config", file.to_str().unwrap()]);
    let _server = Bounded(command.spawn().unwrap());
    manager.wait_for("READY=1");
    let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert!(ask(client, "version\r\n").starts_with("VERSION 1.6."));
    assert!(packaged("distcached.service").contains("--config /etc/distcached.conf\n"));
}
