//! The asynchronous face. Goal: it means what the blocking one means, many calls share a
//! connection, and a call that is cancelled or late harms no other. Method: the same servers of
//! this process, with a proxy that can stall.

#![cfg(all(feature = "server", feature = "tokio"))]

#[allow(dead_code, reason = "shared with tests that use more of it")]
mod chaos;
mod scripted;

use chaos::{Proxy, Stopwatch, Weather};
use distcache::client::asynchronous::Client;
use distcache::client::{Cas, Config, Error, State};
use distcache::server::Server;
use scripted::Scripted;
use std::collections::HashMap;
use std::future::Future;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

fn client(count: usize, config: Config) -> (Vec<Server>, Client) {
    let servers: Vec<Server> = (0..count).map(|_| Server::bind("127.0.0.1:0").unwrap()).collect();
    let addresses = servers.iter().map(|server| server.addresses()[0].to_string());
    let client = Client::with_config(addresses, config).unwrap();
    (servers, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn operations() {
    let (_servers, client) = client(3, Config::default());
    client.set("a", 1).await.unwrap();
    assert_eq!(client.get::<u8>("a").await.unwrap(), Some(1));
    assert!(!client.add("a", 2).await.unwrap() && client.replace("a", "2").await.unwrap());
    assert!(client.append("a", b"0").await.unwrap() && client.prepend("a", b"1").await.unwrap());
    let read = client.get_versioned::<u32>("a").await.unwrap().unwrap();
    assert_eq!(read.value, 120);
    assert_eq!(client.cas("a", 5, read.token).await.unwrap(), Cas::Stored);
    assert_eq!(client.cas("a", 6, read.token).await.unwrap(), Cas::Changed);
    assert_eq!(client.incr("a", 2).await.unwrap(), Some(7));
    assert_eq!(client.decr("a", 9).await.unwrap(), Some(0));
    assert_eq!(client.incr_or("b", 1, 10).await.unwrap(), 10);
    assert_eq!(client.unique_ids("id", 5).await.unwrap(), 1..6);
    assert!(client.touch("a", Duration::from_secs(9)).await.unwrap());
    let touched: Option<u8> = client.get_and_touch("a", Duration::from_secs(90)).await.unwrap();
    assert_eq!(touched, Some(0));
    assert!(client.inspect("a").await.unwrap().unwrap().ttl_seconds.unwrap() > 9);
    assert_eq!(client.get_raw("a").await.unwrap().unwrap().bytes, b"0");
    let items: Vec<(u32, String)> = (0..3000).map(|at| (at, format!("v{at}"))).collect();
    client.set_many(&items).await.all().unwrap();
    let keys: Vec<u32> = (0..3001).collect();
    let found = client.get_many::<String>(&keys).await.all().unwrap();
    assert!((0..3000).all(|at| found[at].as_deref() == Some(items[at].1.as_str())));
    assert_eq!(found[3000], None);
    let deleted = client.delete_many(&keys).await.all().unwrap();
    assert_eq!(deleted.iter().filter(|deleted| **deleted).count(), 3000);
    client.update("sum", |sum: Option<u32>| Some(sum.unwrap_or(0) + 1)).await.unwrap();
    let minute = Duration::from_secs(60);
    assert_eq!(client.get_or_compute("c", minute, || async { 9 }).await, Ok(9));
    let compute = || async { Err(Error::NoServers) };
    assert_eq!(client.try_get_or_compute("c", minute, compute).await, Ok(9));
    let minute = Duration::from_secs(60);
    client.set_many_with([("x", 1), ("y", 2)], minute).await.all().unwrap();
    assert!(client.replace_with("x", 3, minute).await.unwrap());
    assert!(!client.add_with("y", 3, minute).await.unwrap());
    client.update_with("y", minute, |y: Option<u32>| y.map(|y| y + 1)).await.unwrap();
    for (key, value) in [("x", 3), ("y", 3)] {
        let read = client.get_versioned::<u32>(key).await.unwrap().unwrap();
        assert_eq!(read.value, value);
        assert!(client.inspect(key).await.unwrap().unwrap().ttl_seconds.unwrap() > 50);
        let stored = client.cas_with(key, 0, read.token, Duration::from_secs(9)).await;
        assert_eq!(stored, Ok(Cas::Stored));
        assert!(client.inspect(key).await.unwrap().unwrap().ttl_seconds.unwrap() < 10);
    }
    let read = client.get_many_versioned::<u32>(["x", "none"]).await.all().unwrap();
    assert_eq!(client.cas("x", 1, read[0].unwrap().token).await, Ok(Cas::Stored));
    assert_eq!(read[1], None);
    assert_eq!(client.take::<u32>("x").await, Ok(Some(1)));
    assert_eq!(client.take::<u32>("x").await, Ok(None));
    assert_eq!(client.touch_many(["x", "y"], minute).await.all(), Ok(vec![false, true]));
    client.set_raw_with("raw", b"7", 0, minute).await.unwrap();
    assert_eq!(client.incr_or_with("raw", 1, 5, minute).await, Ok(8));
    assert_eq!(client.decr_or_with("other", 1, 5, minute).await, Ok(5));
    assert!(client.ping().await.iter().all(|(_, time)| time.is_ok()));
    let stats = client.stats("").await;
    assert!(stats.iter().all(|(_, stats)| stats.as_ref().unwrap().contains_key("uptime")));
    // What a server does not have costs nothing.
    for (_, stats) in client.stats("nonsense").await {
        assert!(matches!(stats, Err(Error::Refused { .. })), "{stats:?}");
    }
    assert!(client.servers().iter().all(|server| server.failures == 0));
    client.add_server("10.0.0.9").unwrap();
    assert_eq!(client.servers().len(), 4);
    client.remove_server("10.0.0.9").unwrap();
    assert!(client.version().await.iter().all(|(_, version)| version.is_ok()));
    assert!(client.flush_all(None).await.iter().all(|(_, flushed)| flushed.is_ok()));
    assert_eq!(client.get::<u8>("sum").await.unwrap(), None);
}

/// What the future yields, unless it is still not done after being looked at so often.
async fn looked_at<F: Future>(times: u64, future: F) -> Option<F::Output> {
    let (mut future, mut looked) = (std::pin::pin!(future), 0);
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if looked == times => Poll::Ready(None),
        Poll::Pending => {
            looked += 1;
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

/// Every reply names its call: a value its key, a count the range of its counter. Half of the calls
/// are given up somewhere between not begun and done.
async fn calls_given_up(client: Client, task: u64, rounds: u64) -> u64 {
    let mut given_up = 0;
    for round in 0..rounds {
        let key = (round * 7 + task) % 64;
        let looks = if round % 2 == 0 { u64::MAX } else { round / 2 % 8 };
        let call = async {
            match round % 7 % 4 {
                0 => {
                    let count = client.incr(format!("count-{key}"), 1).await.unwrap().unwrap();
                    assert_eq!(count >> 32, key, "another counter's number");
                }
                1 => client
                    .set(key, format!("value {key} {}", "x".repeat(key as usize * 8)))
                    .await
                    .unwrap(),
                2 => {
                    let keys = [key, key + 1000, (key + 1) % 64];
                    let found = client.get_many::<String>(&keys).await.all().unwrap();
                    for (key, found) in keys.iter().zip(found) {
                        assert_eq!(found.is_some(), *key < 64);
                        let found = found.unwrap_or(format!("value {key} "));
                        assert!(found.starts_with(&format!("value {key} ")), "{found:?} of {key}");
                    }
                }
                _ => {
                    let found = client.get::<String>(key).await.unwrap().unwrap();
                    assert!(found.starts_with(&format!("value {key} ")), "{found:?} of {key}");
                }
            }
        };
        given_up += u64::from(looked_at(looks, call).await.is_none());
    }
    given_up
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn calls_given_up_by_the_ten_thousand_never_hand_their_replies_to_others() {
    const TASKS: u64 = 50;
    let (_servers, client) = client(1, Config::default());
    for key in 0..64u64 {
        client.set(key, format!("value {key} ")).await.unwrap();
        client.set(format!("count-{key}"), key << 32).await.unwrap();
    }
    let spawn = |task| tokio::spawn(calls_given_up(client.clone(), task, 1000));
    let tasks: Vec<_> = (0..TASKS).map(spawn).collect();
    let mut given_up = 0;
    for task in tasks {
        given_up += task.await.unwrap();
    }
    println!("{given_up} calls of {} were given up", TASKS * 1000);
    assert!(given_up > 10_000, "{given_up}");
    assert_eq!(client.counters().connections, 1, "nothing was connected anew");
    assert_eq!((client.counters().failures, client.servers()[0].connections), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_tasks_share_one_connection() {
    let (servers, client) = client(1, Config::default());
    client.set("a", 7).await.unwrap();
    let tasks: Vec<_> = (0..1000)
        .map(|task: u32| {
            let client = client.clone();
            tokio::spawn(async move {
                client.set(task, task).await.unwrap();
                for _ in 0..5 {
                    assert_eq!(client.get::<u32>("a").await.unwrap(), Some(7));
                    assert_eq!(client.get::<u32>(task).await.unwrap(), Some(task));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(client.counters().connections, 1);
    // A large value and many keys have a connection of their own, and it is kept.
    for _ in 0..3 {
        client.set("large", "x".repeat(500_000)).await.unwrap();
        let keys: Vec<u32> = (0..1000).collect();
        let found = client.get_many::<u32>(&keys).await.all().unwrap();
        assert!(keys.iter().zip(found).all(|(key, found)| found == Some(*key)));
    }
    assert_eq!((client.counters().connections, client.servers()[0].connections), (2, 2));
    drop((client, servers));
}

/// Sends large values in two halves, the second when a small one was asked for.
fn slow_with_large_values() -> Scripted {
    let asked = AtomicBool::new(true);
    Scripted::start(move |line, out| {
        let Some(keys) = line.strip_prefix("get ") else { return out.write_all(b"?\r\n").is_ok() };
        for key in keys.split(' ') {
            let value = if key == "small" { "1".into() } else { "x".repeat(50_000) };
            let head = format!("VALUE {key} 0 {}\r\n", value.len());
            let (first, second) = value.split_at(value.len() / 2);
            out.write_all((head + first).as_bytes()).unwrap();
            match key {
                "small" => asked.store(true, Ordering::SeqCst),
                _ => while !asked.swap(false, Ordering::SeqCst) {},
            }
            out.write_all(format!("{second}\r\n").as_bytes()).unwrap();
        }
        out.write_all(b"END\r\n").is_ok()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_value_is_in_the_way_of_others_once() {
    let server = slow_with_large_values();
    let config = Config { check_every: None, ..Config::default() };
    let client = Client::with_config([server.address.to_string()], config).unwrap();
    let large = || async {
        let value = client.get::<String>("large").await.unwrap().unwrap();
        assert_eq!(value.len(), 50_000);
    };
    let both = || async {
        let found = client.get_many::<String>(["large", "other"]).await.all().unwrap();
        assert!(found.iter().all(|value| value.as_ref().is_some_and(|one| one.len() == 50_000)));
    };
    let small = || async { assert_eq!(client.get::<u8>("small").await, Ok(Some(1))) };
    large().await;
    assert_eq!(server.accepted(), 1, "nothing was known of it");
    // Each of these would wait for the other, on one connection.
    for _ in 0..10 {
        tokio::join!(large(), small());
    }
    assert_eq!(server.accepted(), 2);
    tokio::join!(both(), async {
        small().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        small().await;
    });
    assert_eq!((server.accepted(), client.servers()[0].failures), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_go_beside_the_calls() {
    let server = Scripted::start(|line, out| match line {
        "version" => out.write_all(b"VERSION 1\r\n").is_ok(),
        _ => out.write_all(b"END\r\n").is_ok(),
    });
    let check_every = Some(Duration::from_millis(20));
    let config = Config { check_every, ..Config::default() };
    let client = Client::with_config([server.address.to_string()], config).unwrap();
    assert_eq!(client.get::<u8>("a").await, Ok(None));
    let start = Instant::now();
    while server.heard("version") < 20 {
        assert!(start.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let status = &client.servers()[0];
    assert_eq!((server.accepted(), status.connections, status.failures), (1, 1, 0));
}

#[test]
fn a_runtime_that_does_not_run_says_nothing_against_a_server() {
    let servers = [Server::bind("127.0.0.1:0").unwrap()];
    let config = Config {
        check_every: Some(Duration::from_millis(10)),
        read_timeout: Duration::from_millis(50),
        failures_max: 1,
        ..Config::default()
    };
    let address = servers[0].addresses()[0].to_string();
    let client = Client::with_config([address], config).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for _ in 0..3 {
        assert_eq!(runtime.block_on(client.get::<u8>("a")), Ok(None));
        std::thread::sleep(Duration::from_millis(200));
    }
    let status = &client.servers()[0];
    assert_eq!((status.state, status.failures, status.connections), (State::Healthy, 0, 2));
}

#[test]
fn a_client_outlives_the_runtimes_it_is_used_in() {
    let servers = [Server::bind("127.0.0.1:0").unwrap()];
    let client = Client::connect([servers[0].addresses()[0].to_string()]).unwrap();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let start = Instant::now();
    let first = runtime();
    first.block_on(async { client.set("a", 1).await.unwrap() });
    // The first one is there, but nothing runs in it.
    let second = runtime();
    assert_eq!(second.block_on(client.get::<u8>("a")), Ok(Some(1)));
    drop(first);
    assert_eq!(second.block_on(client.get::<u8>("a")), Ok(Some(1)));
    drop(second);
    for _ in 0..3 {
        assert_eq!(runtime().block_on(client.get::<u8>("a")), Ok(Some(1)));
    }
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!(client.counters().failures, 0);
    // Without any runtime there is an error, not a panic.
    let mut call = std::pin::pin!(client.get::<u8>("a"));
    let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
    let polled = call.as_mut().poll(context);
    assert!(matches!(polled, Poll::Ready(Err(Error::Config(_)))), "{polled:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_server_costs_nobody_more_than_his_time() {
    let servers: Vec<Server> = (0..2).map(|_| Server::bind("127.0.0.1:0").unwrap()).collect();
    let proxies: Vec<Proxy> = servers.iter().map(|one| Proxy::to(one.addresses()[0])).collect();
    let (timeout, watch) = (Duration::from_secs(1), Stopwatch::start());
    // Three connections are given up one after the other, and the fourth is not yet when time ends.
    let config = Config {
        call_timeout: timeout,
        read_timeout: timeout * 3 / 10,
        failures_max: u32::MAX,
        check_every: None,
        ..Config::default()
    };
    let addresses = proxies.iter().map(|proxy| proxy.address.to_string());
    let client = Client::with_config(addresses, config).unwrap();
    let port = |key: &u32| client.server_of(*key).unwrap().port();
    let (silent, other): (Vec<u32>, Vec<u32>) =
        (0..2000).partition(|key| port(key) == proxies[0].address.port());
    for key in [silent[0], other[0]] {
        client.set(key, key).await.unwrap();
    }
    proxies[0].set(Weather::Stall);
    // More than the queue holds.
    let value = "x".repeat(20_000);
    let late: Vec<_> = silent
        .iter()
        .map(|key| {
            let (client, key, value) = (client.clone(), *key, value.clone());
            tokio::spawn(async move {
                let start = Instant::now();
                let error = client.set(key, value).await.unwrap_err();
                (error, start.elapsed())
            })
        })
        .collect();
    let (mut slowest, start) = (Duration::ZERO, Instant::now());
    while start.elapsed() < timeout {
        let asked = Instant::now();
        assert_eq!(client.get::<u32>(other[0]).await, Ok(Some(other[0])));
        slowest = slowest.max(asked.elapsed());
    }
    let mut for_room = 0;
    for late in late {
        let (error, took) = late.await.unwrap();
        let Error::Timeout { waiting_for, .. } = error else { panic!("{error}") };
        for_room += u32::from(waiting_for == "room in the queue");
        assert!(took < timeout * 2 + 2 * watch.slack(), "{took:?}");
    }
    println!("calls to the other server took up to {slowest:?}; {for_room} waited for room");
    assert!(for_room > 0, "the queue has an end");
    let connections = client.counters().connections;
    println!("{connections} connections made");
    assert!(connections < 20, "{connections} connections: each who ran out of time made one");
    proxies[0].set(Weather::Fair);
    // On a fresh connection.
    while client.get::<String>(silent[0]).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stalled_server_costs_only_its_keys_and_time() {
    let servers: Vec<Server> = (0..2).map(|_| Server::bind("127.0.0.1:0").unwrap()).collect();
    let proxies: Vec<Proxy> = servers.iter().map(|one| Proxy::to(one.addresses()[0])).collect();
    let timeout = Duration::from_millis(100);
    let config = Config {
        call_timeout: timeout,
        failures_max: 2,
        probe_after: Duration::from_millis(10),
        check_every: None,
        ..Config::default()
    };
    let addresses = proxies.iter().map(|proxy| proxy.address.to_string());
    let client = Client::with_config(addresses, config).unwrap();
    let items: Vec<(u32, u32)> = (0..100).map(|at| (at, at)).collect();
    client.set_many(&items).await.all().unwrap();
    proxies[0].set(Weather::Stall);
    let keys: Vec<u32> = (0..100).collect();
    for round in 0..3 {
        let results = client.get_many::<u32>(&keys).await.into_results();
        for (key, result) in keys.iter().zip(results) {
            let stalled = client.server_of(key).unwrap().port() == proxies[0].address.port();
            match stalled {
                true => assert!(result.is_err_and(|error| error.is_unavailable()), "{round}"),
                false => assert_eq!(result, Ok(Some(*key)), "{round}"),
            }
        }
    }
    assert_eq!(client.servers()[0].state, State::Ejected);
    proxies[0].set(Weather::Fair);
    let start = Instant::now();
    while client.get_many::<u32>(&keys).await.all().is_err() {
        assert!(start.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_computation_outlives_who_asked_for_it() {
    static COMPUTED: AtomicU32 = AtomicU32::new(0);
    let (_servers, client) = client(1, Config::default());
    let minute = Duration::from_secs(60);
    let slow = || async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        COMPUTED.fetch_add(1, Ordering::SeqCst);
        7
    };
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.get_or_compute::<u8, _>("k", minute, slow).await }
    });
    while client.inspect("k").await.unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let others = (0..50).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { client.get_or_compute::<u8, _>("k", minute, slow).await })
    });
    for other in others.collect::<Vec<_>>() {
        assert_eq!(other.await.unwrap(), Ok(7));
    }
    assert_eq!(COMPUTED.load(Ordering::SeqCst), 1, "one computed, who was cancelled");
    assert_eq!(client.get::<u8>("k").await, Ok(Some(7)));
    // Unless nobody waited, they were told by the process.
    assert_eq!(client.servers()[0].failures, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_given_back_on_every_way_out() {
    let (_servers, client) =
        client(1, Config { lease: Duration::from_secs(3600), ..Config::default() });
    let (minute, start) = (Duration::from_secs(60), Instant::now());
    let panics = tokio::spawn({
        let client = client.clone();
        async move { client.get_or_compute("k", minute, || async { panic!("on purpose") }).await }
    });
    let panicked: Result<Result<u8, Error>, _> = panics.await;
    assert!(panicked.unwrap_err().is_panic(), "the caller hears of it");
    let fails = || async { Err(Error::Value("no luck".into())) };
    let failed: Result<u8, Error> = client.try_get_or_compute("k", minute, fails).await;
    assert_eq!(failed, Err(Error::Value("no luck".into())));
    for _ in 0..2 {
        let large = client.get_or_compute("k", minute, || async { "x".repeat(2 << 20) }).await;
        assert_eq!(large.unwrap().len(), 2 << 20, "refused by the server, and returned");
        let odd = std::collections::BTreeMap::from([(vec![1u32], 1)]);
        let computed = odd.clone();
        assert_eq!(client.get_or_compute("k", minute, || async { computed }).await, Ok(odd));
    }
    client.set("k", "no number").await.unwrap();
    assert_eq!(client.get_or_compute("k", minute, || async { 8 }).await, Ok(8));
    assert_eq!(client.get::<u8>("k").await, Ok(Some(8)), "what could not be read was replaced");
    assert!(start.elapsed() < Duration::from_secs(600), "nobody waited for a lease to expire");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_computed_is_not_there_yet() {
    let (_servers, client) = client(1, Config::default());
    client.set("empty", "").await.unwrap();
    let (inner, minute) = (client.clone(), Duration::from_secs(60));
    let look = || async move {
        assert_eq!(inner.get::<String>("k").await, Ok(None));
        let many = inner.get_many::<String>(["k", "empty"]).await.all();
        assert_eq!(many, Ok(vec![None, Some(String::new())]));
        assert_eq!(inner.incr("k", 1).await, Ok(None));
        assert_eq!(inner.incr_many(["k"], 1).await.all(), Ok(vec![None]));
        assert_eq!(
            (inner.append("k", b"x").await, inner.prepend("k", b"x").await),
            (Ok(false), Ok(false))
        );
        7
    };
    assert_eq!(client.get_or_compute("k", minute, look).await, Ok(7));
    assert_eq!(client.get::<u8>("k").await, Ok(Some(7)));
    assert_eq!(client.append("k", b"0").await, Ok(true));
    assert_eq!(client.get::<u8>("k").await, Ok(Some(70)));
    let inner = client.clone();
    let count = || async move { inner.incr_or("n", 1, 100).await.unwrap() };
    assert_eq!(client.get_or_compute("n", minute, count).await, Ok(100));
    assert_eq!(client.incr_or("n", 1, 100).await, Ok(101));
}

#[tokio::test(flavor = "multi_thread")]
async fn iterators_go_in_maps_come_out_and_batches_keep_their_order() {
    let (_servers, client) = client(3, Config::default());
    client.set_many((0..300u32).map(|key| (key, key * 2))).await.all().unwrap();
    let found: HashMap<u32, u32> = client.get_map(0..400).await.unwrap();
    assert_eq!((found.len(), found[&299]), (300, 598));
    assert_eq!(client.decr_many([1u32, 999], 1).await.all(), Ok(vec![Some(1), None]));
    // In a task of its own: the future of a batch can be sent.
    let task = tokio::spawn(async move {
        let batch = (0..200u32).fold(client.batch(), |batch, key| {
            batch.set(key, key).incr(key, 1).get(key).delete(key).get(key)
        });
        batch.run().await.all().unwrap()
    });
    for (key, answers) in task.await.unwrap().chunks(5).enumerate() {
        assert_eq!(answers[2].value::<usize>(), Ok(Some(key + 1)));
        assert!(answers[3].is_done() && !answers[4].is_done(), "{key}");
    }
}
