//! A server under test. Owns its process: starting it on a directory and a free port of 127.0.0.1,
//! waiting until it serves, and ending it, also when the rig fails. Knows the flags of distcached
//! and of Redis; never looks into their files.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Result;
use crate::client::Connection;
use crate::model::{Dialect, Reply};
use crate::options::Options;

const START_TIME_MAX: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(3);

/// When a reply promises that the mutation is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    Always,
    Everysec,
    No,
}

impl Policy {
    pub fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Everysec => "everysec",
            Self::No => "no",
        }
    }
}

impl FromStr for Policy {
    type Err = crate::Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [Self::Always, Self::Everysec, Self::No];
        let found = all.into_iter().find(|policy| policy.name() == text);
        found.ok_or_else(|| "one of always, everysec, no".into())
    }
}

/// How to start a server.
#[derive(Clone, Debug)]
pub struct Spec {
    pub program: PathBuf,
    pub dialect: Dialect,
    pub policy: Policy,
    threads: usize,
    memory_mb: u64,
    snapshot_s: u64,
    without_data_dir: bool,
    pub arguments: Vec<String>,
    /// A command that starts the server's and becomes it: `strace -D ...`.
    pub wrapper: Vec<String>,
    /// Where its output goes: not to the disk that is being broken.
    pub log: PathBuf,
    /// How long it may take until it serves.
    pub start_time_max: Duration,
}

impl Spec {
    /// The server that the options name, or the one beside it.
    pub fn new(options: &Options, program: &Path, policy: Policy, scratch: &Path) -> Self {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let dialect = if name.contains("redis") { Dialect::Resp } else { Dialect::Text };
        Self {
            program: program.to_owned(),
            dialect,
            policy,
            threads: options.threads,
            memory_mb: options.memory_mb,
            snapshot_s: options.snapshot_s,
            without_data_dir: options.without_data_dir,
            arguments: options.arguments.clone(),
            wrapper: Vec::new(),
            log: scratch.join("server.log"),
            start_time_max: START_TIME_MAX,
        }
    }

    /// The same with its output elsewhere, for servers that run side by side.
    pub fn logging_to(mut self, scratch: &Path) -> Self {
        self.log = scratch.join("server.log");
        self
    }

    /// What tables call it.
    pub fn name(&self) -> &'static str {
        match self.dialect {
            Dialect::Text => "distcached",
            Dialect::Resp => "redis",
        }
    }

    /// Whether all mutations of one connection have one order in the log.
    pub fn has_one_log(&self) -> bool {
        self.dialect == Dialect::Resp || self.threads == 1
    }

    fn flags(&self, directory: &Path, port: u16) -> Vec<String> {
        let directory = directory.display();
        let (threads, memory, policy) = (self.threads, self.memory_mb, self.policy.name());
        let line = match self.dialect {
            Dialect::Text if self.without_data_dir => {
                format!("-u root -l 127.0.0.1 -p {port} -t {threads} -m {memory}")
            }
            Dialect::Text => format!(
                "-u root -l 127.0.0.1 -p {port} -t {threads} -m {memory} --data-dir {directory} \
                 --fsync {policy} --snapshot-interval {}",
                self.snapshot_s
            ),
            Dialect::Resp => format!(
                "--bind 127.0.0.1 --port {port} --dir {directory} --appendonly yes \
                 --appendfsync {policy} --daemonize no --databases 1 \
                 --auto-aof-rewrite-percentage 0"
            ),
        };
        let mut flags: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        if self.dialect == Dialect::Resp {
            flags.extend(["--save".to_owned(), String::new()]);
        }
        flags.extend(self.arguments.iter().cloned());
        flags
    }
}

/// Why a server does not serve.
#[derive(Debug)]
pub(crate) enum StartError {
    /// It ended by itself; what it wrote last to standard error or its log.
    Ended(ExitStatus, String),
    /// It does not answer in time.
    Silent(String),
    Other(crate::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ended(status, log) => write!(out, "server ended at start, {status}: {log}"),
            Self::Silent(log) => write!(out, "server does not answer after its start: {log}"),
            Self::Other(error) => write!(out, "{error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// A running server; killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub address: SocketAddr,
    pub dialect: Dialect,
    pub log: PathBuf,
    /// From the start of the process to the first reply.
    pub start_time: Duration,
    child: Child,
}

impl Server {
    /// Starts a server on `directory` without waiting for it. Its output goes to a file beside.
    pub(crate) fn spawn(spec: &Spec, directory: &Path) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()?));
        let mut words = spec.wrapper.clone();
        words.push(spec.program.display().to_string());
        words.extend(spec.flags(directory, address.port()));
        let log = spec.log.clone();
        let output = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        let child = Command::new(&words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map_err(|e| format!("starting {}: {e}", words[0]))?;
        let start_time = Duration::ZERO;
        Ok(Self { address, dialect: spec.dialect, log, start_time, child })
    }

    /// Starts a server on `directory` and waits until it serves.
    pub(crate) fn start(spec: &Spec, directory: &Path) -> std::result::Result<Self, StartError> {
        let mut server = Self::spawn(spec, directory).map_err(StartError::Other)?;
        server.wait_until_serving(spec.start_time_max)?;
        Ok(server)
    }

    fn wait_until_serving(&mut self, limit: Duration) -> std::result::Result<(), StartError> {
        let begin = Instant::now();
        while begin.elapsed() < limit {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(StartError::Ended(status, self.log_tail()));
            }
            let patience = Duration::from_secs(5);
            let reply = Connection::open_patient(self.address, self.dialect, patience)
                .and_then(|mut connection| connection.ask(self.dialect.probe()));
            match reply {
                // Redis answers -LOADING, and to a read of nothing with a length of -1.
                Ok(Reply::Refused(_)) | Err(_) => sleep(POLL),
                Ok(_) => {
                    self.start_time = begin.elapsed();
                    return Ok(());
                }
            }
        }
        Err(StartError::Silent(self.log_tail()))
    }

    /// The end of what the server wrote.
    pub(crate) fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().rev().take(4).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }

    /// Process id of the server itself, as no wrapper stays its parent.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9, and waits for the end.
    pub(crate) fn kill(&mut self) {
        // An error means that it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The status, if it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for the end, at most so long.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let begin = Instant::now();
        while begin.elapsed() < limit {
            if let Some(status) = self.ended() {
                return Some(status);
            }
            sleep(POLL);
        }
        None
    }

    /// Memory in KiB and open files.
    pub(crate) fn usage(&self) -> Option<(u64, u64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let rss_kib = line.trim().trim_end_matches(" kB").parse().ok()?;
        let files = fs::read_dir(format!("/proc/{}/fd", self.pid())).ok()?.count();
        Some((rss_kib, files as u64))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// In words: "exit 74", "signal 6".
pub(crate) fn status_text(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        _ => status.to_string(),
    }
}
