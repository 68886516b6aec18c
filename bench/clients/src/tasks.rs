//! Single gets and sets by many callers at a time: tasks of the asynchronous clients, threads of
//! the blocking ones; on plain connections, and gets on encrypted ones. Owns these turns and their
//! table. All ask one server, since not every client knows several.
//!
//! Each client is set up as its documentation does it: `memcache` with the URL of its README (so it
//! speaks the binary protocol) and a pool of as many connections as threads, its `exp` part by
//! `connect` alone; `async-memcached` has a client for each task, and for a thousand of them a pool
//! of so many as `distcache` may have connections.

use crate::Task;
use async_memcached::AsciiProtocol;
use bench::report::Table;
use bench::{Result, median};
use distcache::client::{Client, Config, Tls, asynchronous};
use memcache::exp::{AsyncMemcache, Ttl};
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

/// Callers at a time; threads are asked for less.
const CALLERS: [usize; 3] = [1, 50, 1000];
const THREADS_MAX: usize = 50;

/// Connections of a pool that many tasks share.
const POOL_CONNECTIONS: usize = 64;

/// What is called.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Get,
    Set,
}

/// The server that all ask, and how.
struct Target<'t> {
    task: &'t Task,
    address: String,
    /// The authority of an encrypted one.
    roots: Option<PathBuf>,
    call: Call,
}

impl Target<'_> {
    fn config(&self) -> Config {
        let tls = self.roots.clone().map(|roots| Tls { roots: Some(roots), ..Tls::default() });
        Config { check_every: None, tls, ..Config::default() }
    }

    fn value(&self) -> String {
        "x".repeat(self.task.value_bytes)
    }
}

/// What one turn came to.
struct Turn {
    calls_per_second: f64,
    p50_micros: f64,
    cpu_ns_per_call: f64,
    sockets: f64,
}

/// Microseconds of each call of a turn.
type Runner = fn(&Target<'_>, usize) -> Result<Vec<u32>>;

/// A client under test.
struct Contender {
    name: &'static str,
    is_asynchronous: bool,
    has_tls: bool,
    run: Runner,
}

const CONTENDERS: [Contender; 5] = [
    Contender {
        name: "distcache, asynchronous",
        is_asynchronous: true,
        has_tls: true,
        run: ours_asynchronous,
    },
    Contender {
        name: "async-memcached",
        is_asynchronous: true,
        has_tls: false,
        run: async_memcached,
    },
    Contender {
        name: "memcache (crate), exp",
        is_asynchronous: true,
        has_tls: false,
        run: memcache_exp,
    },
    Contender {
        name: "distcache, blocking",
        is_asynchronous: false,
        has_tls: true,
        run: ours_blocking,
    },
    Contender {
        name: "memcache (crate)",
        is_asynchronous: false,
        has_tls: true,
        run: memcache_crate,
    },
];

/// The table of all clients, calls and numbers of callers.
pub fn compare(task: &Task, rounds: usize) -> Result<Table> {
    let header =
        ["call", "callers", "client", "calls/s", "p50 us", "CPU ns/call", "sockets opened"];
    let mut table = Table::new(&header);
    let plain = |call| Target { task, address: task.addresses[0].clone(), roots: None, call };
    let mut targets = vec![("get", plain(Call::Get)), ("set", plain(Call::Set))];
    if let Some((address, roots)) = task.encrypted.clone() {
        let (roots, call) = (Some(roots), Call::Get);
        targets.push(("get, TLS", Target { task, address, roots, call }));
    }
    for (name, target) in &targets {
        for callers in CALLERS {
            compare_at(name, target, callers, rounds, &mut table)?;
        }
    }
    Ok(table)
}

fn compare_at(
    call: &str,
    target: &Target<'_>,
    callers: usize,
    rounds: usize,
    table: &mut Table,
) -> Result<()> {
    let fits = |one: &&Contender| {
        (one.is_asynchronous || callers <= THREADS_MAX) && (one.has_tls || target.roots.is_none())
    };
    let contenders: Vec<_> = CONTENDERS.iter().filter(fits).collect();
    let mut turns: Vec<Vec<Turn>> = contenders.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (turns, contender) in turns.iter_mut().zip(&contenders) {
            let turn = turn(target, callers, contender.run);
            turns.push(turn.map_err(|error| format!("{}: {error}", contender.name))?);
        }
    }
    for (contender, turns) in contenders.iter().zip(&turns) {
        let middle = |part: fn(&Turn) -> f64| format!("{:.0}", median(turns.iter().map(part)));
        table.push(vec![
            call.to_owned(),
            callers.to_string(),
            contender.name.to_owned(),
            middle(|turn| turn.calls_per_second),
            middle(|turn| turn.p50_micros),
            middle(|turn| turn.cpu_ns_per_call),
            middle(|turn| turn.sockets),
        ]);
    }
    Ok(())
}

fn turn(target: &Target<'_>, callers: usize, run: Runner) -> Result<Turn> {
    let observer = Client::with_config([&target.address], target.config())?;
    let connections = || -> Result<f64> {
        let stats = observer.stats("").remove(0).1?;
        Ok(stats["total_connections"].parse()?)
    };
    let (sockets, cpu, start) = (connections()?, process_cpu_ns()?, Instant::now());
    let mut micros = run(target, callers)?;
    let (wall, cpu) = (start.elapsed().as_secs_f64(), process_cpu_ns()? - cpu);
    let calls = micros.len().max(1) as f64;
    micros.sort_unstable();
    Ok(Turn {
        calls_per_second: calls / wall,
        p50_micros: f64::from(micros.get(micros.len() / 2).copied().unwrap_or(0)),
        cpu_ns_per_call: cpu as f64 / calls,
        sockets: connections()? - sockets,
    })
}

/// CPU time of this process, threads that have ended included.
fn process_cpu_ns() -> Result<u64> {
    const NS_PER_TICK: u64 = 10_000_000;
    let text = std::fs::read_to_string("/proc/self/stat")?;
    // The name before may hold blanks.
    let fields = text.rsplit(") ").next().unwrap_or_default();
    let ticks: Vec<u64> =
        fields.split(' ').skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    Ok(ticks.iter().sum::<u64>() * NS_PER_TICK)
}

fn key(caller: usize, round: usize, keys: u32) -> String {
    format!("key-{}", (caller * 7919 + round * 7) % keys as usize)
}

/// Lets so many tasks call until the turn is over; each call says how long the value is that it got
/// or stored.
fn in_tasks<F: Future<Output = Option<usize>> + Send>(
    target: &Target<'_>,
    runtime: &Runtime,
    callers: usize,
    call: impl Fn(usize, String) -> F + Clone + Send + Sync + 'static,
) -> Result<Vec<u32>> {
    let (keys, length) = (target.task.keys, target.task.value_bytes);
    let end = Instant::now() + Duration::from_secs_f64(target.task.seconds);
    runtime.block_on(async {
        let run = |caller| {
            let call = call.clone();
            tokio::spawn(async move {
                let (mut micros, mut round) = (Vec::new(), 0);
                while Instant::now() < end {
                    let start = Instant::now();
                    let found = call(caller, key(caller, round, keys)).await;
                    assert_eq!(found, Some(length), "a value that was stored");
                    micros.push(start.elapsed().as_micros() as u32);
                    round += 1;
                }
                micros
            })
        };
        let tasks: Vec<_> = (0..callers).map(run).collect();
        let mut all = Vec::new();
        for task in tasks {
            all.append(&mut task.await?);
        }
        Ok(all)
    })
}

/// The same with threads.
fn in_threads(
    target: &Target<'_>,
    callers: usize,
    call: impl Fn(String) -> Option<usize> + Sync,
) -> Result<Vec<u32>> {
    let (keys, length) = (target.task.keys, target.task.value_bytes);
    let end = Instant::now() + Duration::from_secs_f64(target.task.seconds);
    let run = |caller| {
        let (mut micros, mut round) = (Vec::new(), 0);
        while Instant::now() < end {
            let start = Instant::now();
            let found = call(key(caller, round, keys));
            assert_eq!(found, Some(length), "a value that was stored");
            micros.push(start.elapsed().as_micros() as u32);
            round += 1;
        }
        micros
    };
    Ok(std::thread::scope(|scope| {
        let threads: Vec<_> = (0..callers).map(|caller| scope.spawn(move || run(caller))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    }))
}

fn ours_asynchronous(target: &Target<'_>, callers: usize) -> Result<Vec<u32>> {
    let client = asynchronous::Client::with_config([&target.address], target.config())?;
    let (call, value) = (target.call, target.value());
    in_tasks(target, &Runtime::new()?, callers, move |_, key| {
        let (client, value) = (client.clone(), value.clone());
        async move {
            if call == Call::Set {
                client.set(key, &value).await.expect("stored");
                return Some(value.len());
            }
            client.get::<String>(key).await.expect("an answer").map(|value| value.len())
        }
    })
}

fn async_memcached(target: &Target<'_>, callers: usize) -> Result<Vec<u32>> {
    let (count, address) = (callers.min(POOL_CONNECTIONS), format!("tcp://{}", target.address));
    let runtime = Runtime::new()?;
    let mut clients = Vec::new();
    for _ in 0..count {
        let client = runtime.block_on(async_memcached::Client::new(&address));
        clients.push(Arc::new(Mutex::new(client.map_err(|error| format!("{error:?}"))?)));
    }
    let (call, value) = (target.call, target.value());
    in_tasks(target, &runtime, callers, move |caller, key| {
        let (client, value) = (Arc::clone(&clients[caller % clients.len()]), value.clone());
        async move {
            let mut client = client.lock().await;
            if call == Call::Set {
                client.set(key.as_bytes(), value.as_str(), None, None).await.expect("stored");
                return Some(value.len());
            }
            let found = client.get(key.as_bytes()).await.expect("an answer");
            found.and_then(|value| value.data).map(|data| data.len())
        }
    })
}

fn memcache_exp(target: &Target<'_>, callers: usize) -> Result<Vec<u32>> {
    let runtime = Runtime::new()?;
    let client = runtime.block_on(AsyncMemcache::connect([target.address.as_str()]))?;
    let (call, value) = (target.call, target.value());
    in_tasks(target, &runtime, callers, move |_, key| {
        let (client, value) = (client.clone(), value.clone());
        async move {
            if call == Call::Set {
                client.set(&key, value.as_str(), Ttl::NEVER).await.expect("stored");
                return Some(value.len());
            }
            client.get::<String>(&key).await.expect("an answer").map(|value| value.len())
        }
    })
}

fn ours_blocking(target: &Target<'_>, callers: usize) -> Result<Vec<u32>> {
    let client = Client::with_config([&target.address], target.config())?;
    let value = target.value();
    in_threads(target, callers, |key| {
        if target.call == Call::Set {
            client.set(key, &value).expect("stored");
            return Some(value.len());
        }
        client.get::<String>(key).expect("an answer").map(|value| value.len())
    })
}

fn memcache_crate(target: &Target<'_>, callers: usize) -> Result<Vec<u32>> {
    let scheme = match &target.roots {
        Some(roots) => format!("memcache+tls://{}?ca_path={}&", target.address, roots.display()),
        None => format!("memcache://{}?", target.address),
    };
    let url = format!("{scheme}timeout=10&tcp_nodelay=true");
    let client = memcache::Client::with_pool_size(url, u32::try_from(callers)?)?;
    let value = target.value();
    in_threads(target, callers, |key| {
        if target.call == Call::Set {
            client.set(&key, value.as_str(), 0).expect("stored");
            return Some(value.len());
        }
        client.get::<String>(&key).expect("an answer").map(|value| value.len())
    })
}
