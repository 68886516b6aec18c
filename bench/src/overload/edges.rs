//! What a server does at the edges of what the system gives it: descriptors, address space, and a
//! wall clock that jumps. Owns starting it there and saying what was found.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, Rlimit, prlimit};

use super::attacks::{ask, dial, is_served, store};
use super::judge::STUCK_CPU_MAX;
use super::rounds::{Others, Pace};
use super::subject::Subject;
use crate::Result;
use crate::server::{Flags, Server, ServerSpec};

/// Descriptors left for connections once the limit is lowered.
const DESCRIPTORS_FREE: usize = 32;
/// Connections attempted then.
const CONNECTIONS: usize = 100;
/// How long a server is watched that cannot accept.
const STUCK: Duration = Duration::from_secs(2);
/// In which a waiting connection has to be served once there are descriptors.
const ACCEPT_MAX: Duration = Duration::from_secs(2);
/// Address space beyond what the server has after its start.
const ADDRESS_SPACE_SPARE: u64 = 128 << 20;
/// Stored into it.
const FILL_BYTES: usize = 512 << 20;
const FILL_VALUE_BYTES: usize = 100_000;
const SHORT: Duration = Duration::from_millis(300);
/// Where Debian and others install it.
const FAKETIME_PATHS: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
];

/// What was found, and what was broken.
#[derive(Clone, Debug, Default)]
pub struct Finding {
    /// For the table.
    pub text: String,
    /// Empty if nothing was.
    pub complaints: Vec<String>,
}

impl Finding {
    /// Notes what is broken unless `holds`.
    pub fn require(&mut self, holds: bool, complaint: &str) {
        if !holds {
            self.complaints.push(complaint.to_owned());
        }
    }
}

/// A limit of open files is reached by connections: the others are served, the server does not
/// spin, and it accepts again after some have closed.
pub fn descriptors(subject: &Subject, pace: &Pace) -> Result<Finding> {
    let mut others = Others::connect(subject, pace)?;
    let before = others.measure()?;
    let limit = (subject.descriptors()? + DESCRIPTORS_FREE) as u64;
    let rlimit = Rlimit { current: Some(limit), maximum: Some(limit) };
    prlimit(rustix::process::Pid::from_raw(subject.pid.as_raw()), Resource::Nofile, rlimit)?;
    let connect = |_| dial(subject.address);
    let mut streams = (0..CONNECTIONS).map(connect).collect::<Result<Vec<_>>>()?;
    thread::sleep(SHORT);
    let mut finding = Finding::default();
    let used = subject.descriptors()?;
    // The limit is on numbers: inherited descriptors may have larger ones.
    finding.require(used as u64 >= limit, "the limit was not reached");
    let (begin, cpu) = (Instant::now(), subject.cpu()?);
    thread::sleep(STUCK);
    let cpu = subject.cpu()?.saturating_sub(cpu).as_secs_f64() / begin.elapsed().as_secs_f64();
    finding.require(cpu < STUCK_CPU_MAX, "it spins");
    let during = others.measure()?;
    let half = streams.split_off(CONNECTIONS - DESCRIPTORS_FREE / 2);
    // The first were accepted, and make room.
    streams.drain(..DESCRIPTORS_FREE / 2);
    thread::sleep(SHORT);
    drop(half);
    streams.truncate(DESCRIPTORS_FREE / 2);
    let accepts = is_served(subject.address, ACCEPT_MAX);
    finding.require(accepts, "it does not accept again");
    finding.text = format!(
        "{used} of {limit} descriptors, {CONNECTIONS} connects; CPU {:.1} %; others' p99 {:.0} us, \
         was {:.0}; {}",
        100.0 * cpu,
        during[1],
        before[1],
        if accepts { "accepts again" } else { "does not accept again" },
    );
    Ok(finding)
}

/// Started with less address space than `-m` asks for, then filled.
pub fn memory(spec: &ServerSpec, flags: &Flags) -> Result<Finding> {
    let address_space = {
        let server = Server::start(spec, flags)?;
        Subject { address: server.address, pid: server.pid()? }.address_space_bytes()?
    };
    let limit = address_space + ADDRESS_SPACE_SPARE;
    let notes = std::env::temp_dir().join(format!("bench-overload-{}.err", std::process::id()));
    // The shell and prlimit both end in replacing themselves.
    let spec = spec.launched_by([
        "sh",
        "-c",
        "exec 2>\"$0\"; exec \"$@\"",
        &notes.to_string_lossy(),
        "prlimit",
        &format!("--as={limit}"),
    ]);
    let found = memory_limited(&spec, flags, limit, &notes);
    // Nothing is left if it was never made.
    let _ = fs::remove_file(&notes);
    found
}

fn memory_limited(spec: &ServerSpec, flags: &Flags, limit: u64, notes: &Path) -> Result<Finding> {
    let mut finding = Finding::default();
    let asked = format!("-m {} in {} MiB of address space", flags.memory_mib, limit >> 20);
    let said = || {
        let text = fs::read_to_string(notes).unwrap_or_default();
        text.lines().next().unwrap_or_default().chars().take(120).collect::<String>()
    };
    let mut server = match Server::start(spec, flags) {
        Ok(server) => server,
        Err(_) => {
            finding.require(!said().is_empty(), "it ends at its start without a word");
            finding.text = format!("{asked}: refused at the start: \"{}\"", said());
            return Ok(finding);
        }
    };
    let (mut stored, mut refused) = (0, 0);
    let filled = dial(server.address).and_then(|mut stream| {
        for number in 0..FILL_BYTES / FILL_VALUE_BYTES {
            match store(&mut stream, &format!("f{number}"), FILL_VALUE_BYTES)?.starts_with(b"ST") {
                true => stored += 1,
                false => refused += 1,
            }
        }
        Ok(())
    });
    thread::sleep(SHORT);
    let runs = server.check_running().is_ok();
    finding.require(runs, "it ended under load");
    finding.require(!runs || filled.is_ok(), "it closed the connection");
    let end = if runs { "it goes on".to_owned() } else { format!("it ended: \"{}\"", said()) };
    finding.text = format!("{asked}: {stored} sets stored, {refused} refused, {end}");
    Ok(finding)
}

/// 2038-01-19 03:14:07.
const SECONDS_END_2038: u64 = i32::MAX as u64;
/// How long before it a server is started.
const AHEAD_OF_2038_SECONDS: u64 = 4;

/// The library that changes what time a program sees, if there is one.
pub fn faketime(given: &str) -> Option<PathBuf> {
    let paths = if given.is_empty() { &FAKETIME_PATHS[..] } else { &[given] };
    paths.iter().map(PathBuf::from).find(|path| path.is_file())
}

/// The wall clock jumps a day ahead, and two days back; then a server is started just before the
/// second in 2038 in which 32 bits with a sign are used up. Nothing expires for that, and what has
/// to expire does. The monotonic clock goes on as it is.
pub fn clock(spec: &ServerSpec, flags: &Flags, library: &Path) -> Result<Finding> {
    let offset = std::env::temp_dir().join(format!("bench-overload-{}.time", std::process::id()));
    fs::write(&offset, "+0\n")?;
    let spec = spec.launched_by([
        "env".to_owned(),
        format!("LD_PRELOAD={}", library.display()),
        format!("FAKETIME_TIMESTAMP_FILE={}", offset.display()),
        "FAKETIME_NO_CACHE=1".to_owned(),
        "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
        "DONT_FAKE_MONOTONIC=1".to_owned(),
    ]);
    let found = Server::start(&spec, flags).and_then(|server| clock_jumps(&server, &offset));
    let found = found.and_then(|mut found| {
        let ahead = SECONDS_END_2038 - unix_seconds()? - AHEAD_OF_2038_SECONDS;
        fs::write(&offset, format!("+{ahead}\n"))?;
        clock_beyond_2038(&Server::start(&spec, flags)?, &mut found)?;
        Ok(found)
    });
    fs::remove_file(&offset)?;
    found
}

fn unix_seconds() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}

/// How many of so many numbered keys are there.
fn count_left(stream: &mut TcpStream, prefix: &str, keys: usize) -> Result<usize> {
    let mut left = 0;
    for key in 0..keys {
        let reply = ask(stream, format!("get {prefix}{key}\r\n").as_bytes(), b"END\r\n")?;
        left += usize::from(reply.starts_with(b"VALUE"));
    }
    Ok(left)
}

/// Keys stored before the last second that 32 bits with a sign can tell, and behind it.
fn clock_beyond_2038(server: &Server, finding: &mut Finding) -> Result<()> {
    let mut stream = dial(server.address)?;
    let mut keys = 0;
    for when in ["before", "behind"] {
        for lifetime in [0, 60, 3600, 2_000_000] {
            ask(&mut stream, format!("set y{keys} 0 {lifetime} 1\r\nx\r\n").as_bytes(), b"\r\n")?;
            keys += 1;
        }
        ask(&mut stream, b"set short 0 1 1\r\nx\r\n", b"\r\n")?;
        // The last expiry that memcached's protocol can tell as a time.
        ask(&mut stream, format!("set last 0 {} 1\r\nx\r\n", i32::MAX).as_bytes(), b"\r\n")?;
        thread::sleep(Duration::from_secs(AHEAD_OF_2038_SECONDS + 2));
        let left = count_left(&mut stream, "y", keys)?;
        let lost = keys - left;
        finding.require(left == keys, &format!("{lost} of {keys} stored {when} 2038 expired"));
        let reply = ask(&mut stream, b"get short last\r\n", b"END\r\n")?;
        finding.require(reply == b"END\r\n", &format!("nothing expires {when} 2038"));
    }
    finding.text.push_str(&format!("; {keys} over 2038-01-19 03:14:07"));
    Ok(())
}

fn clock_jumps(server: &Server, offset: &Path) -> Result<Finding> {
    let mut stream = dial(server.address)?;
    let now = unix_seconds()?;
    let lifetimes = [0, 3600, 86_000, 7 * 86_400, now + 3600, now + 86_000];
    let mut finding = Finding::default();
    let mut keys = 0;
    for (jump, at) in [("+1d", "a day ahead"), ("-1d", "a day back"), ("+0", "as it was")] {
        for lifetime in lifetimes {
            ask(&mut stream, format!("set c{keys} 0 {lifetime} 1\r\nx\r\n").as_bytes(), b"\r\n")?;
            keys += 1;
        }
        ask(&mut stream, b"set short 0 1 1\r\nx\r\n", b"\r\n")?;
        fs::write(offset, format!("{jump}\n"))?;
        // Servers may look at the clock once a second.
        thread::sleep(Duration::from_millis(2_500));
        let left = count_left(&mut stream, "c", keys)?;
        finding.require(left == keys, &format!("{} of {keys} expired, clock {at}", keys - left));
        let reply = ask(&mut stream, b"get short\r\n", b"END\r\n")?;
        finding.require(reply == b"END\r\n", &format!("nothing expires, clock {at}"));
    }
    finding.text = format!("{keys} keys that last an hour or more, wall clock +1 day and -1 day");
    Ok(finding)
}
