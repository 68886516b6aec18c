//! The built daemon on a free port, for one test, and a client of it or of an embedded server. Owns
//! the process and the connection; what is said is the test's.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Far more than a start or an answer takes, so that a loaded machine does not fail a test.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A daemon with one worker that does not outlive its test. Its log is a pipe: it has to fit, or to
/// be read.
pub struct Daemon {
    pub process: Child,
    pub address: SocketAddr,
}

impl Daemon {
    /// Starts it and waits until it listens.
    pub fn start(flags: &[&str]) -> Self {
        Self::wait_for(Command::new(env!("CARGO_BIN_EXE_distcached")), flags)
    }

    /// The same with so few open files allowed, unless it asks for more.
    #[allow(dead_code)] // Each test takes what it needs.
    pub fn limited(files: u32, flags: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        let script = format!("ulimit -Sn {files}; exec \"$0\" \"$@\"");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_distcached")]);
        Self::wait_for(shell, flags)
    }

    fn wait_for(mut command: Command, flags: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ports = directory.path().join("ports");
        if nix::unistd::Uid::effective().is_root() {
            command.args(["-u", "root"]);
        }
        command.args(["-l", "127.0.0.1", "-p", "-1", "-t", "1"]).args(flags);
        command.env_remove("RUST_LOG").env("MEMCACHED_PORT_FILENAME", &ports);
        let process = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut daemon = Self { process, address: ([127, 0, 0, 1], 0).into() };
        let since = Instant::now();
        loop {
            let text = std::fs::read_to_string(&ports).unwrap_or_default();
            if let Some(port) = text.strip_prefix("TCP INET: ").and_then(|port| port.lines().next())
            {
                daemon.address.set_port(port.parse().unwrap());
                return daemon;
            }
            assert!(since.elapsed() < PATIENCE, "the daemon does not start");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A client that waits for its answers, and not for ever.
pub struct Client(pub BufReader<TcpStream>);

impl Client {
    pub fn at(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    pub fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert!(line.ends_with("\r\n"), "closed after {line:?}");
        line.trim_end().to_owned()
    }

    pub fn lines_to(&mut self, last: &str) -> Vec<String> {
        std::iter::from_fn(|| Some(self.line()).filter(|line| line != last)).collect()
    }

    /// Sends commands and drops what they answer.
    pub fn run(&mut self, commands: &str) {
        for some in commands.as_bytes().chunks(16 << 10) {
            self.send(str::from_utf8(some).unwrap());
        }
        self.send("mn\r\n");
        self.lines_to("MN");
    }

    /// The lines of a part of `stats`, without `STAT`.
    pub fn stats(&mut self, topic: &str) -> Vec<String> {
        self.send(&format!("stats {topic}\r\n"));
        let lines = self.lines_to("END");
        let stat = |line: &String| line.strip_prefix("STAT ").expect(line).to_owned();
        lines.iter().map(stat).collect()
    }
}
