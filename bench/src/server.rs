//! A server under test. Owns the process: starting it on a free port of 127.0.0.1, asking the
//! system for its CPU time and memory, and ending it, also when the bench fails. Never talks to it
//! beyond asking whether it is up.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::client::Client;
use crate::wire::Protocol;
use crate::{Result, cleanup};

const START_TIME_MAX: Duration = Duration::from_secs(10);
const START_POLL: Duration = Duration::from_millis(10);
const STOP_POLL: Duration = Duration::from_millis(1);
/// `/proc/PID/stat` counts hundredths of a second on every Linux that matters.
const TICK_NS: u64 = 10_000_000;

/// An executable that takes memcached's flags, or Redis's, and what tables call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSpec {
    /// The name in tables.
    pub name: String,
    /// What it speaks, which also decides what its flags are called.
    pub protocol: Protocol,
    program: String,
    arguments: Vec<String>,
    /// What starts the program: words before it, that end in replacing themselves by it.
    launcher: Vec<String>,
}

impl ServerSpec {
    /// Redis, without snapshots at intervals.
    pub fn redis(program: &str) -> Self {
        Self {
            name: "redis".to_owned(),
            protocol: Protocol::Resp,
            program: program.to_owned(),
            arguments: Vec::new(),
            launcher: Vec::new(),
        }
    }

    /// The same started by a program that replaces itself by the one behind its own arguments, such
    /// as `env` or `prlimit`, so that the process keeps its number.
    pub fn launched_by<S: Into<String>>(&self, words: impl IntoIterator<Item = S>) -> Self {
        let mut spec = self.clone();
        spec.launcher.extend(words.into_iter().map(Into::into));
        spec
    }

    /// The same with more arguments.
    pub fn with<S: Into<String>>(&self, arguments: impl IntoIterator<Item = S>) -> Self {
        let mut spec = self.clone();
        spec.arguments.extend(arguments.into_iter().map(Into::into));
        spec
    }
}

impl FromStr for ServerSpec {
    type Err = String;

    /// `name=program` or `name=program --its own --flags`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (name, command) =
            text.split_once('=').ok_or_else(|| format!("server \"{text}\": say name=program"))?;
        let mut words = command.split_whitespace().map(str::to_owned);
        match words.next() {
            Some(program) if !name.is_empty() => {
                let (name, arguments) = (name.to_owned(), words.collect());
                let launcher = Vec::new();
                Ok(Self { name, protocol: Protocol::Text, program, arguments, launcher })
            }
            _ => Err(format!("server \"{text}\": say name=program")),
        }
    }
}

/// The flags that every server is given alike.
#[derive(Clone, Debug)]
pub struct Flags {
    /// `-t`.
    pub workers: usize,
    /// `-m`.
    pub memory_mib: u64,
    /// `-c`.
    pub connections_max: usize,
    /// Cores to pin the process to, as `taskset -c` takes them; not pinned if empty.
    pub cores: String,
}

/// A running server; ended when dropped.
#[derive(Debug)]
pub struct Server {
    /// Its name in tables.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// What it answers to `version`.
    pub version: String,
    /// What it speaks.
    pub protocol: Protocol,
    child: Child,
}

impl Server {
    /// Starts the server and waits until it answers.
    pub fn start(spec: &ServerSpec, flags: &Flags) -> Result<Self> {
        let mut server = Self::spawn(spec, flags)?;
        server.version = server.await_version()?;
        Ok(server)
    }

    /// Starts the server without waiting for it; its version is not known.
    pub fn spawn(spec: &ServerSpec, flags: &Flags) -> Result<Self> {
        let address = free_address()?;
        let child = command(spec, flags, address)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|e| format!("starting {}: {e}", spec.program))?;
        // From here on a failure drops the server and so ends the child.
        let (name, protocol) = (spec.name.clone(), spec.protocol);
        let server = Self { name, address, version: String::new(), protocol, child };
        cleanup::add_server(server.pid()?);
        Ok(server)
    }

    /// An error if the process has ended.
    pub fn check_running(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => Err(format!("{} ended at once: {status}", self.name).into()),
            None => Ok(()),
        }
    }

    fn await_version(&mut self) -> Result<String> {
        let deadline = Instant::now() + START_TIME_MAX;
        loop {
            self.check_running()?;
            match self.ask_version() {
                Ok(version) => return Ok(version),
                Err(error) if Instant::now() > deadline => {
                    return Err(format!("{} does not answer: {error}", self.name).into());
                }
                Err(_) => sleep(START_POLL),
            }
        }
    }

    fn ask_version(&self) -> Result<String> {
        let mut client = Client::connect(self.address)?;
        match self.protocol {
            Protocol::Text => client.version(),
            Protocol::Resp => {
                let info = client.info("server")?;
                Ok(info.get("redis_version").cloned().ok_or("no redis_version in INFO")?)
            }
        }
    }

    /// Asks the server to end (SIGTERM) and waits for it: how long that took.
    pub fn terminate(mut self, time_max: Duration) -> Result<Duration> {
        let begin = Instant::now();
        kill(self.pid()?, Signal::SIGTERM)?;
        while self.child.try_wait()?.is_none() {
            if begin.elapsed() > time_max {
                return Err(format!("{} does not end on SIGTERM", self.name).into());
            }
            sleep(STOP_POLL);
        }
        Ok(begin.elapsed())
    }

    /// Stops the process where it stands (SIGSTOP), so that it takes no processor time from
    /// another server that is being measured: an idle Redis of 5 million keys takes 2 milliseconds
    /// ten times a second.
    pub fn hold(&self) -> Result<()> {
        Ok(kill(self.pid()?, Signal::SIGSTOP)?)
    }

    /// Lets it go on after [`Server::hold`].
    pub fn release(&self) -> Result<()> {
        Ok(kill(self.pid()?, Signal::SIGCONT)?)
    }

    /// The process.
    pub fn pid(&self) -> Result<Pid> {
        Ok(Pid::from_raw(i32::try_from(self.child.id())?))
    }

    /// CPU time, user and system, of the process: unlike `cpu_ns` with that of threads that have
    /// ended.
    pub fn process_cpu_ns(&self) -> Result<u64> {
        let time = clock_gettime(clock_getcpuclockid(self.pid()?)?)?;
        Ok(u64::try_from(Duration::from(time).as_nanos())?)
    }

    /// CPU time, user and system, that all threads of the process have used so far.
    ///
    /// The first field of a thread's `schedstat` counts nanoseconds; a kernel without it leaves
    /// the ticks of `stat`.
    pub fn cpu_ns(&self) -> Result<u64> {
        let pid = self.child.id();
        let mut sum = 0;
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
                return self.cpu_ticks_ns();
            };
            sum += field::<u64>(&text, 0)?;
        }
        if sum == 0 { self.cpu_ticks_ns() } else { Ok(sum) }
    }

    fn cpu_ticks_ns(&self) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The second field is the program's name in parentheses and may hold blanks; of the
        // fields behind it, user and system time are the 12th and 13th.
        let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        Ok((field::<u64>(rest, 11)? + field::<u64>(rest, 12)?) * TICK_NS)
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.status_bytes("VmRSS:")
    }

    /// The most resident memory it ever had, in bytes.
    pub fn resident_bytes_peak(&self) -> Result<u64> {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, field_name: &str) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(field_name));
        Ok(field::<u64>(line.unwrap_or_default(), 0)? * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(pid) = self.pid() {
            cleanup::forget_server(pid);
        }
        // Nothing of a test server is worth a clean stop. Errors mean that it has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts each of the servers.
pub fn start_all(specs: &[ServerSpec], flags: &Flags) -> Result<Vec<Server>> {
    specs.iter().map(|spec| Server::start(spec, flags)).collect()
}

/// `taskset` and launchers replace themselves by the server, so the child's process id is the
/// server's either way.
fn command(spec: &ServerSpec, flags: &Flags, address: SocketAddr) -> Command {
    let mut words = Vec::new();
    if !flags.cores.is_empty() {
        words.extend(["taskset", "-c", &flags.cores]);
    }
    words.extend(spec.launcher.iter().chain([&spec.program]).map(String::as_str));
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let connections_max = flags.connections_max.to_string();
    match spec.protocol {
        Protocol::Text => {
            if nix::unistd::geteuid().is_root() {
                // memcached refuses to run as root unless told so.
                command.args(["-u", "root"]);
            }
            command.args(["-l", &ip, "-p", &port, "-U", "0", "-c", &connections_max]).args([
                "-t",
                &flags.workers.to_string(),
                "-m",
                &flags.memory_mib.to_string(),
            ])
        }
        // As many threads and as much memory as it takes; no snapshots by the clock.
        Protocol::Resp => command
            .args(["--bind", &ip, "--port", &port, "--maxclients", &connections_max])
            .args(["--daemonize", "no", "--save", ""]),
    };
    command.args(&spec.arguments);
    command
}

/// If another process takes the port first, the server ends at once and the bench says so.
fn free_address() -> Result<SocketAddr> {
    Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()?)))
}

fn field<T: FromStr>(text: &str, index: usize) -> Result<T> {
    let word = text.split_whitespace().nth(index);
    word.and_then(|word| word.parse().ok())
        .ok_or_else(|| format!("no number at field {index} of \"{}\"", text.trim()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_parse_or_say_why_not() {
        let spec: ServerSpec = "a=prog --flag 1".parse().unwrap();
        assert_eq!((spec.name.as_str(), spec.program.as_str()), ("a", "prog"));
        assert_eq!(spec.arguments, ["--flag", "1"]);
        for wrong in ["", "prog", "=prog", "a=", "a= "] {
            assert!(wrong.parse::<ServerSpec>().is_err(), "{wrong}");
        }
    }

    fn sleeping() -> Server {
        Server {
            name: String::new(),
            address: free_address().unwrap(),
            version: String::new(),
            protocol: Protocol::Text,
            child: Command::new("sleep").arg("60").spawn().unwrap(),
        }
    }

    #[test]
    fn a_held_server_stands_still() {
        let server = sleeping();
        let state = || {
            let text = fs::read_to_string(format!("/proc/{}/stat", server.child.id())).unwrap();
            text.rsplit_once(") ").unwrap().1.chars().next().unwrap()
        };
        let becomes = |wanted: fn(char) -> bool| {
            (0..1000).any(|_| {
                wanted(state()) || {
                    sleep(START_POLL);
                    false
                }
            })
        };
        server.hold().unwrap();
        assert!(becomes(|state| state == 'T'));
        server.release().unwrap();
        assert!(becomes(|state| state != 'T'));
    }

    #[test]
    fn a_server_told_to_end_is_waited_for() {
        assert!(sleeping().terminate(Duration::from_secs(30)).is_ok());
    }

    /// Any program does for reading `/proc`: this one sleeps, so it costs next to no CPU.
    #[test]
    fn a_process_is_watched_and_ended() {
        let server = sleeping();
        let pid = server.child.id();
        assert!(server.cpu_ns().unwrap() < 1_000_000_000);
        assert!(server.process_cpu_ns().unwrap() < 1_000_000_000);
        // In this order: it may grow in between.
        let resident_bytes = server.resident_bytes().unwrap();
        assert!(server.resident_bytes_peak().unwrap() >= resident_bytes);
        assert!(server.cpu_ticks_ns().unwrap() < 1_000_000_000);
        assert!(server.resident_bytes().unwrap() > 0);
        drop(server);
        assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
    }

    #[test]
    fn a_program_that_ends_at_once_is_an_error() {
        let flags = Flags { workers: 1, memory_mib: 64, connections_max: 10, cores: String::new() };
        let spec = "x=false".parse().unwrap();
        let error = Server::start(&spec, &flags).unwrap_err().to_string();
        assert!(error.contains("ended at once"), "{error}");
    }
}
