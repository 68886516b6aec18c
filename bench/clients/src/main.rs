//! Client libraries side by side in one run: this project's, libmemcached (C) and the crates
//! `memcache` and `async-memcached`. Owns the turns and the table of one thread's gets and sets;
//! those of many callers at a time are in `tasks`, the encrypted server is in `encrypted`.
//!
//!     cargo run --release --manifest-path bench/clients/Cargo.toml -- \
//!         --server memcached=memcached
//!
//! Needs a C compiler and the headers of libmemcached and OpenSSL.

mod encrypted;
mod tasks;

use bench::options::{Opt, Options, opt};
use bench::report::{Report, Table};
use bench::server::{Flags, Server, ServerSpec};
use bench::{Result, median};
use distcache::client::{Client, Config};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

const OPTIONS: &[Opt] = &[
    opt("server", "NAME=PROGRAM", "memcached=memcached", "the server to ask"),
    opt("servers", "COUNT", "2", "how many of it"),
    opt("server-cores", "LIST", "", "cores for the servers, as taskset takes them"),
    opt("keys", "COUNT", "10000", "keys"),
    opt("value-bytes", "BYTES", "100", "length of each value"),
    opt("rounds", "COUNT", "9", "rounds; in each, every client has its turn"),
    opt("seconds", "SECONDS", "0.5", "length of a turn"),
    opt("out", "DIRECTORY", "bench/results", "where the table goes"),
];

/// What is called, and keys for each call.
const CALLS: [(&str, u32); 4] = [("get", 1), ("get", 10), ("get", 100), ("set", 1)];

/// One turn of one client.
#[derive(Clone, Copy)]
struct Turn {
    keys_per_second: f64,
    cpu_ns_per_key: f64,
}

impl Turn {
    fn new(keys: u64, wall_ns: u64, cpu_ns: u64) -> Self {
        let keys = keys as f64;
        Self {
            keys_per_second: keys / (wall_ns as f64 / 1e9),
            cpu_ns_per_key: cpu_ns as f64 / keys,
        }
    }
}

/// What every client does alike.
struct Task {
    addresses: Vec<String>,
    keys: u32,
    value_bytes: usize,
    seconds: f64,
    c_program: PathBuf,
    /// Address and authority of a server that encrypts, if the program does.
    encrypted: Option<(String, PathBuf)>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("clients: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut parser = lexopt::Parser::from_env();
    let usage = "clients: client libraries side by side";
    let Some(options) = Options::parse(&mut parser, usage, &[OPTIONS])? else { return Ok(()) };
    let spec: ServerSpec = options.get("server")?;
    let flags = Flags {
        workers: 1,
        memory_mib: 256,
        connections_max: 2048,
        cores: options.get("server-cores")?,
    };
    let count: usize = options.get("servers")?;
    let servers: Vec<Server> =
        (0..count).map(|_| Server::start(&spec, &flags)).collect::<Result<_>>()?;
    let temporary = std::env::temp_dir().join(format!("clients-{}", std::process::id()));
    std::fs::create_dir_all(&temporary)?;
    let encrypted = encrypted::Encrypted::start(&spec, &flags, &temporary)?;
    let task = Task {
        addresses: servers.iter().map(|server| server.address.to_string()).collect(),
        keys: options.get("keys")?,
        value_bytes: options.get("value-bytes")?,
        seconds: options.get("seconds")?,
        c_program: compile(&temporary)?,
        encrypted: encrypted.as_ref().map(|one| (one.address(), one.roots.clone())),
    };
    fill(&task)?;
    if let Some(encrypted) = &encrypted {
        // One after the other: memcached may stop reading in the middle of many on one connection.
        store(&encrypted.client()?, &task, 1)?;
    }
    let rounds: usize = options.get("rounds")?;
    let table = compare(&task, rounds);
    let by_callers = tasks::compare(&task, rounds);
    let _ = std::fs::remove_dir_all(&temporary);
    let by_callers = by_callers?;
    let versions = [(spec.name.clone(), servers[0].version.clone())];
    let mut report = Report::new("Client libraries: gets and sets", &versions);
    report.paragraph(&format!(
        "{count} servers of one worker each, {} keys, values of {} bytes. The clients take turns \
         of {} s, {rounds} rounds; medians, and the range of single turns. CPU is that of the \
         client. Every value is checked for its length and copied for the caller. Ratios \
         are medians of the ratios within each round.",
        task.keys, task.value_bytes, task.seconds
    ));
    report.table(&table?);
    report.paragraph(
        "Single calls to one server by many callers at a time: tasks of the asynchronous clients, \
         threads of the blocking ones. CPU is that of the whole client process; sockets are those \
         that the server saw opened in a turn.",
    );
    if encrypted.is_none() {
        report.paragraph("Encrypted connections are left out: the server does not have them.");
    }
    report.table(&by_callers);
    let out: PathBuf = options.get("out")?;
    report.save(&out, "clients")
}

/// The C program, compiled now, so that it is measured against the library of this machine.
fn compile(folder: &Path) -> Result<PathBuf> {
    let to = folder.join("libmemcached");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("libmemcached.c");
    let mut command = Command::new("cc");
    command.arg("-O2").arg("-o").arg(&to).arg(source).arg("-lmemcached");
    let status = command.status().map_err(|error| format!("cc: {error}"))?;
    if status.success() { Ok(to) } else { Err("cc failed; install libmemcached-dev".into()) }
}

fn fill(task: &Task) -> Result<()> {
    // The crate places keys in its own way: every server gets all of them.
    task.addresses.iter().try_for_each(|address| store(&Client::connect([address])?, task, 1000))
}

fn store(client: &Client, task: &Task, batch: usize) -> Result<()> {
    let value = "x".repeat(task.value_bytes);
    let items: Vec<(String, &str)> =
        (0..task.keys).map(|at| (format!("key-{at}"), value.as_str())).collect();
    for items in items.chunks(batch) {
        client.set_many(items).all()?;
    }
    Ok(())
}

type Runner = fn(&Task, &str, u32) -> Result<Turn>;

fn compare(task: &Task, rounds: usize) -> Result<Table> {
    let clients: [(&str, Runner); 3] =
        [("libmemcached (C)", libmemcached), ("distcache", ours), ("memcache (crate)", theirs)];
    let mut table = Table::new(&[
        "call",
        "keys per call",
        "client",
        "keys/s",
        "range",
        "to libmemcached",
        "client CPU ns/key",
    ]);
    for (call, batch) in CALLS {
        let mut turns: Vec<Vec<Turn>> = vec![Vec::new(); clients.len()];
        for _ in 0..rounds {
            for (turns, (_, run)) in turns.iter_mut().zip(clients) {
                turns.push(run(task, call, batch)?);
            }
        }
        for (at, (name, _)) in clients.iter().enumerate() {
            let speeds: Vec<f64> = turns[at].iter().map(|turn| turn.keys_per_second).collect();
            let ratios = turns[at].iter().zip(&turns[0]);
            let ratios = ratios.map(|(own, c)| own.keys_per_second / c.keys_per_second);
            let lowest = speeds.iter().copied().fold(f64::MAX, f64::min);
            let highest = speeds.iter().copied().fold(0.0, f64::max);
            table.push(vec![
                call.to_owned(),
                batch.to_string(),
                (*name).to_owned(),
                format!("{:.0}", median(speeds.iter().copied())),
                format!("{lowest:.0}-{highest:.0}"),
                format!("{:.2}", median(ratios)),
                format!("{:.0}", median(turns[at].iter().map(|turn| turn.cpu_ns_per_key))),
            ]);
        }
    }
    Ok(table)
}

fn libmemcached(task: &Task, call: &str, batch: u32) -> Result<Turn> {
    let mut command = Command::new(&task.c_program);
    command.arg(task.addresses.join(","));
    command.args([task.keys.to_string(), task.value_bytes.to_string(), batch.to_string()]);
    let output = command.arg(task.seconds.to_string()).arg(call).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match numbers[..] {
        [keys, wall_ns, cpu_ns] => Ok(Turn::new(keys, wall_ns, cpu_ns)),
        _ => Err(String::from_utf8_lossy(&output.stderr).into_owned().into()),
    }
}

/// CPU time of the calling thread, by the kernel's account of it.
fn thread_cpu_ns() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let first = text.split_whitespace().next().and_then(|word| word.parse().ok());
    first.ok_or_else(|| "/proc/thread-self/schedstat: no number".into())
}

/// The names of the next keys, as the C program chooses them.
struct Names {
    next: u32,
    keys: u32,
}

impl Names {
    fn take(&mut self, batch: u32) -> Vec<String> {
        let take = |_| {
            let name = format!("key-{}", self.next);
            self.next = (self.next + 7) % self.keys;
            name
        };
        (0..batch).map(take).collect()
    }
}

/// Calls `read` with keys for as long as a turn lasts; it returns how many values it found or
/// stored.
fn turn(task: &Task, batch: u32, mut read: impl FnMut(&[String]) -> Result<u32>) -> Result<Turn> {
    let mut names = Names { next: 0, keys: task.keys };
    let (start, cpu, mut keys) = (Instant::now(), thread_cpu_ns()?, 0u64);
    let length = Duration::from_secs_f64(task.seconds);
    while start.elapsed() < length {
        let found = read(&names.take(batch))?;
        if found != batch {
            return Err(format!("{found} of {batch} values").into());
        }
        keys += u64::from(found);
    }
    let wall_ns = start.elapsed().as_nanos() as u64;
    Ok(Turn::new(keys, wall_ns, thread_cpu_ns()? - cpu))
}

fn ours(task: &Task, call: &str, batch: u32) -> Result<Turn> {
    let config = Config { check_every: None, ..Config::default() };
    let client = Client::with_config(&task.addresses, config)?;
    let good = |value: &Option<String>| {
        value.as_ref().is_some_and(|value| value.len() == task.value_bytes)
    };
    let value = "x".repeat(task.value_bytes);
    turn(task, batch, |keys| match keys {
        [key] if call == "set" => Ok(client.set(key, &value).map(|()| 1)?),
        [key] => Ok(u32::from(good(&client.get::<String>(key)?))),
        keys => {
            let values = client.get_many::<String>(keys).all()?;
            Ok(values.iter().filter(|value| good(value)).count() as u32)
        }
    })
}

fn theirs(task: &Task, call: &str, batch: u32) -> Result<Turn> {
    let urls: Vec<String> = task
        .addresses
        .iter()
        .map(|address| format!("memcache://{address}?timeout=10&tcp_nodelay=true"))
        .collect();
    let client = memcache::connect(urls)?;
    let good = |value: &String| value.len() == task.value_bytes;
    let value = "x".repeat(task.value_bytes);
    turn(task, batch, |keys| match keys {
        [key] if call == "set" => Ok(client.set(key, value.as_str(), 0).map(|()| 1)?),
        [key] => Ok(client.get::<String>(key)?.as_ref().map_or(0, |value| u32::from(good(value)))),
        keys => {
            let names: Vec<&str> = keys.iter().map(String::as_str).collect();
            let values = client.gets::<String>(&names)?;
            Ok(values.values().filter(|value| good(value)).count() as u32)
        }
    })
}
