//! Single gets by many callers at a time: tasks of the asynchronous clients, threads of the
//! blocking ones. Owns these turns and their table. All ask one server, since not every client
//! knows several.
//!
//! Each client is set up as its documentation does it: `async-memcached` has a client for each task
//! and for a thousand of them a pool of so many as `distcache` may have connections; `memcache` has
//! a pool of as many connections as threads.

use crate::Task;
use async_memcached::AsciiProtocol;
use bench::report::Table;
use bench::{Result, median};
use distcache::client::{Client, Config, asynchronous};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::Mutex;

/// Callers at a time; threads are asked for less.
const CALLERS: [usize; 3] = [1, 50, 1000];
const THREADS_MAX: usize = 50;

/// Connections of a pool that many tasks share.
const POOL_CONNECTIONS: usize = 64;

/// What one turn came to.
struct Turn {
    calls_per_second: f64,
    p50_micros: f64,
    cpu_ns_per_call: f64,
    sockets: f64,
}

type Runner = fn(&Task, usize) -> Result<Vec<u32>>;

/// The table of all clients and numbers of callers.
pub fn compare(task: &Task, rounds: usize) -> Result<Table> {
    let clients: [(&str, bool, Runner); 4] = [
        ("distcache, asynchronous", true, ours_asynchronous),
        ("async-memcached", true, async_memcached),
        ("distcache, blocking", false, ours_blocking),
        ("memcache (crate)", false, memcache_crate),
    ];
    let header = ["callers", "client", "calls/s", "p50 us", "CPU ns/call", "sockets opened"];
    let mut table = Table::new(&header);
    for callers in CALLERS {
        let fits = |client: &&(&str, bool, Runner)| client.1 || callers <= THREADS_MAX;
        let clients: Vec<_> = clients.iter().filter(fits).collect();
        let mut turns: Vec<Vec<Turn>> = clients.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds {
            for (turns, (_, _, run)) in turns.iter_mut().zip(&clients) {
                turns.push(turn(task, callers, *run)?);
            }
        }
        for ((name, ..), turns) in clients.iter().zip(&turns) {
            let middle = |part: fn(&Turn) -> f64| format!("{:.0}", median(turns.iter().map(part)));
            table.push(vec![
                callers.to_string(),
                (*name).to_owned(),
                middle(|turn| turn.calls_per_second),
                middle(|turn| turn.p50_micros),
                middle(|turn| turn.cpu_ns_per_call),
                middle(|turn| turn.sockets),
            ]);
        }
    }
    Ok(table)
}

fn turn(task: &Task, callers: usize, run: Runner) -> Result<Turn> {
    let observer = Client::connect([&task.addresses[0]])?;
    let connections = || -> Result<f64> {
        let stats = observer.stats("").remove(0).1?;
        Ok(stats["total_connections"].parse()?)
    };
    let (sockets, cpu, start) = (connections()?, process_cpu_ns()?, Instant::now());
    let mut micros = run(task, callers)?;
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

fn check(task: &Task, length: Option<usize>) {
    assert_eq!(length, Some(task.value_bytes), "a value that was stored");
}

/// Lets so many tasks call until the turn is over; microseconds of each call.
fn in_tasks<F: Future<Output = ()> + Send>(
    task: &Task,
    callers: usize,
    call: impl Fn(usize, String) -> F + Clone + Send + Sync + 'static,
) -> Result<Vec<u32>> {
    let (keys, seconds) = (task.keys, task.seconds);
    Runtime::new()?.block_on(async {
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        let run = |caller| {
            let call = call.clone();
            tokio::spawn(async move {
                let (mut micros, mut round) = (Vec::new(), 0);
                while Instant::now() < end {
                    let start = Instant::now();
                    call(caller, key(caller, round, keys)).await;
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
    task: &Task,
    callers: usize,
    call: impl Fn(String) -> Option<usize> + Sync,
) -> Result<Vec<u32>> {
    let end = Instant::now() + Duration::from_secs_f64(task.seconds);
    let run = |caller| {
        let (mut micros, mut round) = (Vec::new(), 0);
        while Instant::now() < end {
            let start = Instant::now();
            check(task, call(key(caller, round, task.keys)));
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

fn ours_asynchronous(task: &Task, callers: usize) -> Result<Vec<u32>> {
    let config = Config { check_every: None, ..Config::default() };
    let client = asynchronous::Client::with_config([&task.addresses[0]], config)?;
    let length = task.value_bytes;
    in_tasks(task, callers, move |_, key| {
        let client = client.clone();
        async move {
            let value = client.get::<String>(key).await.expect("an answer");
            assert_eq!(value.map(|value| value.len()), Some(length));
        }
    })
}

fn async_memcached(task: &Task, callers: usize) -> Result<Vec<u32>> {
    let (count, address) = (callers.min(POOL_CONNECTIONS), format!("tcp://{}", task.addresses[0]));
    let runtime = Runtime::new()?;
    let mut clients = Vec::new();
    for _ in 0..count {
        // Their sockets stay with this runtime.
        let client = runtime.block_on(async_memcached::Client::new(&address));
        clients.push(Arc::new(Mutex::new(client.map_err(|error| format!("{error:?}"))?)));
    }
    let length = task.value_bytes;
    in_tasks(task, callers, move |caller, key| {
        let client = Arc::clone(&clients[caller % clients.len()]);
        async move {
            let value = client.lock().await.get(key.as_bytes()).await.expect("an answer");
            let value = value.and_then(|value| value.data);
            assert_eq!(value.map(|value| value.len()), Some(length));
        }
    })
}

fn ours_blocking(task: &Task, callers: usize) -> Result<Vec<u32>> {
    let config = Config { check_every: None, ..Config::default() };
    let client = Client::with_config([&task.addresses[0]], config)?;
    let get = |key: String| client.get::<String>(key).expect("an answer");
    in_threads(task, callers, |key| get(key).map(|value| value.len()))
}

fn memcache_crate(task: &Task, callers: usize) -> Result<Vec<u32>> {
    let url =
        format!("memcache://{}?timeout=10&tcp_nodelay=true&protocol=ascii", task.addresses[0]);
    let pool = u32::try_from(callers)?;
    let client = memcache::Client::with_pool_size(url, pool)?;
    let get = |key: String| client.get::<String>(&key).expect("an answer");
    in_threads(task, callers, |key| get(key).map(|value| value.len()))
}
