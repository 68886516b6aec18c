//! One very large value in distcached, and what others notice of it. Owns the server, in this
//! process, and its clients: one sends the value in pieces, reads it back and compares every byte;
//! another asks for small keys all the while; a third thread watches the memory of the process.
//!
//! The server is full of other items before, so that the value has to push them out. The value is
//! computed, not kept: the memory watched is the server's.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use distcache::server::Server;
use distcache::server::config::Config;
use hdrhistogram::Histogram;

use crate::Result;
use crate::options::{Opt, Options, opt};
use crate::random::Random;
use crate::report::{Report, Table};

/// The options.
pub const OPTIONS: &[Opt] = &[
    opt("memory", "MIB", "4096", "memory of the server"),
    opt("value", "MIB", "1023", "size of the value; -I is one MiB more"),
    opt("workers", "N", "2", "workers of the server"),
    opt("latency-max", "MS", "250", "fail if a small request took longer"),
    opt("out", "DIR", "bench/results", "where the table goes"),
    opt("name", "NAME", "large-value", "file name of the table"),
];

const MIB: u64 = 1 << 20;
/// What the value is sent and read in.
const PIECE_BYTES: usize = 1 << 20;
const FILLER_BYTES: usize = 100_000;
const SMALL_KEYS: usize = 100;
/// Between two requests for a small key.
const PAUSE: Duration = Duration::from_millis(1);
const WATCH_PAUSE: Duration = Duration::from_millis(5);
const TIMEOUT: Duration = Duration::from_secs(120);
/// RSS that the project allows above the limit: a twentieth of it and so many bytes.
const RSS_ALLOWANCE_BYTES: u64 = 32 * MIB;

/// What happened while one thing was done to the large value.
struct Phase {
    name: &'static str,
    seconds: f64,
    latency_us: Histogram<u64>,
    resident_bytes_max: u64,
}

/// Runs it and writes the report.
pub fn run(options: &Options) -> Result<()> {
    let memory_bytes = options.get::<u64>("memory")? * MIB;
    let value_mib: u64 = options.get("value")?;
    let latency_max_us = options.get::<u64>("latency-max")? * 1000;
    let config = Config {
        workers: options.get("workers")?,
        memory_bytes_max: memory_bytes,
        item_bytes_max: u32::try_from((value_mib + 1) * MIB)?,
        ..Config::default()
    };
    let server = Server::start(config).map_err(|e| e.to_string())?;
    let phases = play(server.addresses()[0], memory_bytes, value_mib * MIB)?;
    let rss_max = memory_bytes + memory_bytes / 20 + RSS_ALLOWANCE_BYTES;
    let mut table = Table::new(&[
        "phase",
        "seconds",
        "small gets",
        "p50 us",
        "p99 us",
        "max us",
        "RSS MiB, highest",
    ]);
    for phase in &phases {
        let latency = &phase.latency_us;
        table.push(vec![
            phase.name.to_owned(),
            format!("{:.2}", phase.seconds),
            latency.len().to_string(),
            latency.value_at_quantile(0.5).to_string(),
            latency.value_at_quantile(0.99).to_string(),
            latency.max().to_string(),
            (phase.resident_bytes_max / MIB).to_string(),
        ]);
    }
    let title = format!("A value of {value_mib} MiB, -m {}", memory_bytes / MIB);
    let mut report = Report::new(&title, &[]);
    report.paragraph(&format!(
        "A second client asks for small keys every millisecond; RSS is that of server and clients \
         in one process. {} MiB are allowed.",
        rss_max / MIB
    ));
    report.table(&table);
    report.save(&options.get::<PathBuf>("out")?, options.text("name"))?;
    for phase in &phases {
        if phase.latency_us.max() > latency_max_us {
            return Err(format!("{}: a small get took too long", phase.name).into());
        }
        if phase.resident_bytes_max > rss_max {
            return Err(format!("{}: more memory than allowed", phase.name).into());
        }
    }
    Ok(())
}

fn play(address: SocketAddr, memory_bytes: u64, value_bytes: u64) -> Result<Vec<Phase>> {
    let watch = Watch::new()?;
    let done = AtomicBool::new(false);
    scope(|threads| {
        let small = threads.spawn(|| ask_for_small_keys(address, &watch, &done));
        let memory = threads.spawn(|| watch_memory(&watch, &done));
        let played = play_phases(address, memory_bytes, value_bytes, &watch);
        done.store(true, Ordering::Relaxed);
        for thread in [small, memory] {
            thread.join().map_err(|_| "a thread of the bench ended in a panic")??;
        }
        played
    })
}

fn play_phases(
    address: SocketAddr,
    memory_bytes: u64,
    value_bytes: u64,
    watch: &Watch,
) -> Result<Vec<Phase>> {
    let mut client = Client::connect(address)?;
    let mut phases = Vec::new();
    client.fill(memory_bytes)?;
    watch.take("")?;
    sleep(Duration::from_secs(1));
    phases.push(watch.take("before")?);
    client.store(value_bytes, 1)?;
    phases.push(watch.take("stored")?);
    client.check(value_bytes, 1)?;
    phases.push(watch.take("read back")?);
    client.store(value_bytes, 2)?;
    phases.push(watch.take("stored again")?);
    client.check(value_bytes, 2)?;
    phases.push(watch.take("read back again")?);
    client.say("delete large\r\n", "DELETED\r\n")?;
    client.fill(memory_bytes)?;
    phases.push(watch.take("deleted, filled with others")?);
    Ok(phases)
}

/// What the threads beside the large value's record.
struct Watch(Mutex<Watched>);

struct Watched {
    since: Instant,
    latency_us: Histogram<u64>,
    resident_bytes_max: u64,
}

impl Watched {
    fn new() -> Result<Self> {
        let latency_us = Histogram::new_with_max(TIMEOUT.as_micros() as u64, 3)?;
        Ok(Self { since: Instant::now(), latency_us, resident_bytes_max: 0 })
    }
}

impl Watch {
    fn new() -> Result<Self> {
        Ok(Self(Mutex::new(Watched::new()?)))
    }

    fn with(&self, change: impl FnOnce(&mut Watched)) {
        change(&mut self.0.lock().expect("no thread panics while it holds this"));
    }

    /// What was recorded since the last call.
    fn take(&self, name: &'static str) -> Result<Phase> {
        let mut watched = Watched::new()?;
        self.with(|current| std::mem::swap(current, &mut watched));
        let Watched { since, latency_us, resident_bytes_max } = watched;
        let seconds = since.elapsed().as_secs_f64();
        Ok(Phase { name, seconds, latency_us, resident_bytes_max })
    }
}

/// Small keys of every shard; stored again when they were evicted.
fn ask_for_small_keys(address: SocketAddr, watch: &Watch, done: &AtomicBool) -> Result<()> {
    let mut client = Client::connect(address)?;
    let mut number = 0;
    while !done.load(Ordering::Relaxed) {
        number = (number + 1) % SMALL_KEYS;
        let asked = Instant::now();
        let hit = client.get_small(number)?;
        let us = asked.elapsed().as_micros() as u64;
        watch.with(|watched| watched.latency_us.saturating_record(us));
        if !hit {
            client.say(&format!("set small-{number} 0 0 5\r\nsmall\r\n"), "STORED\r\n")?;
        }
        sleep(PAUSE);
    }
    Ok(())
}

fn watch_memory(watch: &Watch, done: &AtomicBool) -> Result<()> {
    while !done.load(Ordering::Relaxed) {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        let bytes = kib.ok_or("no VmRSS in /proc/self/status")? << 10;
        watch.with(|watched| watched.resident_bytes_max = watched.resident_bytes_max.max(bytes));
        sleep(WATCH_PAUSE);
    }
    Ok(())
}

struct Client {
    reader: BufReader<TcpStream>,
    /// Random bytes that values are made of.
    pattern: Arc<[u8]>,
}

impl Client {
    fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut random = Random::new(1);
        let pattern = (0..PIECE_BYTES).map(|_| random.bits() as u8).collect();
        Ok(Self { reader: BufReader::new(stream), pattern })
    }

    fn say(&mut self, text: &str, expected: &str) -> Result<()> {
        self.reader.get_mut().write_all(text.as_bytes())?;
        self.expect(expected)
    }

    fn expect(&mut self, expected: &str) -> Result<()> {
        let line = self.line()?;
        if line != expected {
            return Err(format!("answered {line:?} instead of {expected:?}").into());
        }
        Ok(())
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        Ok(line)
    }

    fn get_small(&mut self, number: usize) -> Result<bool> {
        self.reader.get_mut().write_all(format!("get small-{number}\r\n").as_bytes())?;
        if self.line()? == "END\r\n" {
            return Ok(false);
        }
        self.expect("small\r\n")?;
        self.expect("END\r\n")?;
        Ok(true)
    }

    /// Stores other items, worth the whole memory.
    fn fill(&mut self, memory_bytes: u64) -> Result<()> {
        let pattern = Arc::clone(&self.pattern);
        for number in 0..memory_bytes / FILLER_BYTES as u64 {
            let line = format!("set filler-{number} 0 0 {FILLER_BYTES} noreply\r\n");
            let stream = self.reader.get_mut();
            stream.write_all(line.as_bytes())?;
            stream.write_all(&pattern[..FILLER_BYTES])?;
            stream.write_all(b"\r\n")?;
        }
        self.say("mn\r\n", "MN\r\n")
    }

    fn store(&mut self, value_bytes: u64, version: u8) -> Result<()> {
        let stream = self.reader.get_mut();
        stream.write_all(format!("set large 0 0 {value_bytes}\r\n").as_bytes())?;
        let mut piece = vec![0; PIECE_BYTES];
        for number in 0..value_bytes / PIECE_BYTES as u64 {
            fill_piece(&self.pattern, number, version, &mut piece);
            self.reader.get_mut().write_all(&piece)?;
        }
        self.say("\r\n", "STORED\r\n")
    }

    fn check(&mut self, value_bytes: u64, version: u8) -> Result<()> {
        self.say("get large\r\n", &format!("VALUE large 0 {value_bytes}\r\n"))?;
        let (mut seen, mut piece) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
        for number in 0..value_bytes / PIECE_BYTES as u64 {
            self.reader.read_exact(&mut seen)?;
            fill_piece(&self.pattern, number, version, &mut piece);
            if seen != piece {
                return Err(format!("version {version}: MiB {number} is not what was sent").into());
            }
        }
        self.expect("\r\n")?;
        self.expect("END\r\n")
    }
}

/// The pattern with its number and the version in front: no two pieces are equal.
fn fill_piece(pattern: &[u8], number: u64, version: u8, piece: &mut [u8]) {
    piece.copy_from_slice(pattern);
    piece[..8].copy_from_slice(&number.to_le_bytes());
    piece[8] = version;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_two_megabytes() {
        let config = Config {
            workers: 2,
            memory_bytes_max: 16 * MIB,
            item_bytes_max: 3 << 20,
            ..Config::default()
        };
        let server = Server::start(config).unwrap();
        let mut client = Client::connect(server.addresses()[0]).unwrap();
        client.store(2 * MIB, 1).unwrap();
        client.check(2 * MIB, 1).unwrap();
        let wrong = client.check(2 * MIB, 2).unwrap_err().to_string();
        assert!(wrong.contains("is not what was sent"), "{wrong}");
    }
}
