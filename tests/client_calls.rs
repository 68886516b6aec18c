//! What a program can call. Goal: every operation does what its documentation says, on servers of
//! this process. Method: small tables against one server or three; what other clients would see is
//! read back as it is stored.

#![cfg(all(feature = "server", feature = "client"))]

mod scripted;

use distcache::client::{
    Cas, Client, Compression, Config, Discovery, Encoding, Error, Expiry, Family, KeyPolicy, Node,
    PlacedBy, Ring, State,
};
use distcache::server::Server;
use scripted::Scripted;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

fn servers(count: usize) -> (Vec<Server>, Vec<String>) {
    let servers: Vec<Server> = (0..count).map(|_| Server::bind("127.0.0.1:0").unwrap()).collect();
    let addresses = servers.iter().map(|server| server.addresses()[0].to_string()).collect();
    (servers, addresses)
}

fn client(count: usize, config: Config) -> (Vec<Server>, Client) {
    let (servers, addresses) = servers(count);
    (servers, Client::with_config(addresses, config).unwrap())
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    tags: BTreeMap<String, Vec<u16>>,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Kind {
    Guest,
    Member { since: u32 },
}

fn user() -> User {
    let tags = BTreeMap::from([("a".to_owned(), vec![1, 2]), ("b".to_owned(), vec![])]);
    User { name: "Pel\u{e9}".into(), tags, kind: Kind::Member { since: 1956 } }
}

/// Stores and reads a value back.
macro_rules! round_trips {
    ($client:expr, $($value:expr => $kind:ty),* $(,)?) => {$(
        let value: $kind = $value;
        $client.set("k", &value).unwrap();
        assert_eq!($client.get::<$kind>("k").unwrap(), Some(value));
    )*};
}

#[test]
fn values_of_all_types_come_back() {
    for family in [Family::Plain, Family::Python, Family::Php, Family::Spymemcached] {
        for compression in [Compression::Off, Compression::Zlib { bytes_min: 10 }] {
            let codec = Encoding { family, compression, ..Encoding::default() }.into();
            let (_servers, client) = client(1, Config { codec, ..Config::default() });
            round_trips!(client,
                "football".to_owned() => String,
                String::new() => String,
                "x".repeat(100_000) => String,
                42 => u8,
                -42 => i64,
                u32::MAX => u32,
                i64::MIN => i64,
                true => bool,
                false => bool,
                1.5 => f64,
                'x' => char,
                vec![0, 13, 10, 255] => Vec<u8>,
                vec![] => Vec<u8>,
                [7; 4] => [u8; 4],
                vec![1, 2, 300] => Vec<u32>,
                vec!["a".to_owned()] => Vec<String>,
                (1, "a".to_owned(), None) => (i32, String, Option<bool>),
                Some(5) => Option<u32>,
                None => Option<u32>,
                user() => User,
                Kind::Guest => Kind,
                vec![user(), user()] => Vec<User>,
            );
        }
    }
}

#[test]
fn others_see_strings_integers_and_bytes_as_they_are() {
    let (_servers, client) = client(1, Config::default());
    client.set("text", "football").unwrap();
    client.set("number", 41).unwrap();
    client.set("bytes", vec![0u8, 255]).unwrap();
    client.set("pair", (1, "x")).unwrap();
    for (key, bytes, flags) in [
        ("text", &b"football"[..], 0),
        ("number", b"41", 0),
        ("bytes", &[0, 255], 0),
        ("pair", b"[1,\"x\"]", 64),
    ] {
        let raw = client.get_raw(key).unwrap().unwrap();
        assert_eq!((raw.bytes.as_slice(), raw.flags), (bytes, flags), "{key}");
    }
    assert_eq!(client.incr("number", 1).unwrap(), Some(42));
    assert_eq!(client.get::<u8>("number").unwrap(), Some(42));
    assert!(matches!(client.get::<u8>("text"), Err(Error::Value(_))));
    assert!(matches!(client.get::<User>("pair"), Err(Error::Value(_))));
    // The connection is as good as before.
    assert_eq!(client.counters().connections, 1);
}

#[test]
fn keys_of_all_kinds() {
    for policy in [KeyPolicy::Error, KeyPolicy::Base64, KeyPolicy::Hash] {
        let config = Config { key_policy: policy, key_prefix: "p:".into(), ..Config::default() };
        let (_servers, client) = client(2, config);
        client.set("text", 1).unwrap();
        client.set(7u64, 2).unwrap();
        client.set(b"bytes", 3).unwrap();
        client.set(PlacedBy("placed by this", "pair"), 4).unwrap();
        assert_eq!(client.get(7).unwrap(), Some(2));
        assert_eq!(client.get("7").unwrap(), Some(2));
        assert_eq!(client.get(b"bytes").unwrap(), Some(3));
        assert_eq!(client.get(PlacedBy("placed by this", "pair")).unwrap(), Some(4));
        let odd = "with blanks \r\n and \u{1}";
        if policy == KeyPolicy::Error {
            assert!(matches!(client.set(odd, 5), Err(Error::Key { .. })));
            continue;
        }
        // All operations, since such keys take the meta commands.
        client.set(odd, "5").unwrap();
        assert_eq!(client.get(odd).unwrap(), Some(5));
        assert!(!client.add(odd, 6).unwrap());
        assert!(client.replace(odd, 6).unwrap());
        assert_eq!(client.incr(odd, 2).unwrap(), Some(8));
        assert_eq!(client.decr(odd, 1).unwrap(), Some(7));
        assert!(client.append(odd, b"0").unwrap() && client.prepend(odd, b"1").unwrap());
        let read = client.get_versioned::<u32>(odd).unwrap().unwrap();
        assert_eq!(read.value, 170);
        assert_eq!(client.cas(odd, 8, read.token).unwrap(), Cas::Stored);
        assert_eq!(client.cas(odd, 9, read.token).unwrap(), Cas::Changed);
        let found = client.get_many::<u32>([odd, "text", "none at all"]).all().unwrap();
        assert_eq!(found, [Some(8), Some(1), None]);
        assert!(client.touch(odd, Duration::from_secs(60)).unwrap());
        let touched: Option<u8> = client.get_and_touch(odd, Duration::from_secs(70)).unwrap();
        assert_eq!(touched, Some(8));
        assert!(client.inspect(odd).unwrap().unwrap().ttl_seconds.unwrap() > 60);
        assert!(client.delete(odd).unwrap() && !client.delete(odd).unwrap());
        assert_eq!(client.cas(odd, 9, read.token).unwrap(), Cas::Missing);
        assert_eq!(client.incr(odd, 1).unwrap(), None);
        assert!(!client.touch(odd, Duration::from_secs(60)).unwrap());
    }
}

#[test]
fn many_keys_on_many_servers() {
    let (servers, client) = client(5, Config::default());
    let items: Vec<(String, u32)> = (0..5_000).map(|at| (format!("key-{at}"), at)).collect();
    client.set_many(&items).all().unwrap();
    let keys: Vec<String> = (0..6_000).rev().map(|at| format!("key-{at}")).collect();
    let found = client.get_many::<u32>(&keys).all().unwrap();
    let expected: Vec<Option<u32>> =
        (0..6_000).rev().map(|at| (at < 5_000).then_some(at)).collect();
    assert_eq!(found, expected);
    let twice = client.get_many::<u32>(["key-1", "key-2", "key-1"]).all().unwrap();
    assert_eq!(twice, [Some(1), Some(2), Some(1)]);
    // Each server holds the keys that the ring says.
    for (at, (_, stats)) in client.stats("").into_iter().enumerate() {
        let address = servers[at].addresses()[0].port();
        let owned =
            items.iter().filter(|(key, _)| client.server_of(key).unwrap().port() == address);
        assert_eq!(stats.unwrap()["curr_items"], owned.count().to_string());
    }
    let deleted = client.delete_many(&keys).all().unwrap();
    assert_eq!(deleted.iter().filter(|deleted| **deleted).count(), 5_000);
    let counters = client.counters();
    assert_eq!((counters.hits, counters.misses), (5_003, 1_000));
    assert!(client.get_many::<u8>([""; 0]).all().unwrap().is_empty());
}

#[test]
fn one_of_many_that_cannot_be_sent_costs_only_itself() {
    let (_servers, client) = client(2, Config::default());
    let results = client.get_many::<u8>(["a", "b c", "d"]).into_results();
    assert!(results[0].is_ok() && results[2].is_ok());
    assert!(matches!(results[1], Err(Error::Key { .. })));
    // A map whose keys are no strings is no JSON.
    let good = BTreeMap::from([(vec![1u32], 1)]);
    let results = client.set_many([("a", &good), ("b", &good)]).into_results();
    assert!(results.iter().all(|result| matches!(result, Err(Error::Value(_)))));
    let large = "x".repeat(2 << 20);
    let results = client.set_many([("a", "x"), ("b", &large), ("c", "x")]).into_results();
    assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
    assert!(matches!(results[1], Err(Error::Refused { .. })), "{results:?}");
    assert!(matches!(client.set("b", &large), Err(Error::Refused { .. })));
    client.set("b", "x").unwrap();
    assert!(client.servers().iter().all(|server| server.failures == 0), "a refusal is no failure");
}

#[test]
fn updates_and_unique_numbers_from_many_threads() {
    const THREADS: u64 = 4;
    const EACH: u64 = 50;
    let (_servers, client) = client(2, Config::default());
    let ids = std::thread::scope(|scope| {
        let work = || {
            let mut ids = Vec::new();
            for _ in 0..EACH {
                client.update("sum", |sum: Option<u64>| Some(sum.unwrap_or(0) + 1)).unwrap();
                ids.push(client.unique_id("id").unwrap());
                ids.extend(client.unique_ids("id", 3).unwrap());
            }
            ids
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<u64>>()
    });
    assert_eq!(client.get::<u64>("sum").unwrap(), Some(THREADS * EACH));
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (1..=THREADS * EACH * 4).collect::<Vec<u64>>(), "each once, none missing");
    assert_eq!(client.update("sum", |_: Option<u64>| None).unwrap(), None);
    assert_eq!(client.incr_or("n", 5, 10).unwrap(), 10);
    assert_eq!(client.decr_or("n", 50, 10).unwrap(), 0);
}

#[test]
fn one_computes_while_others_wait() {
    let (_servers, client) = client(1, Config::default());
    let computed = AtomicU32::new(0);
    let compute = || {
        std::thread::sleep(Duration::from_millis(100));
        format!("value {}", computed.fetch_add(1, Ordering::SeqCst))
    };
    let minute = Duration::from_secs(60);
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..8).map(|_| scope.spawn(|| client.get_or_compute("k", minute, compute))).collect();
        for thread in threads {
            assert_eq!(thread.join().unwrap().unwrap(), "value 0");
        }
    });
    assert_eq!(computed.load(Ordering::SeqCst), 1);
    // Marked stale: one computes, the others read the old value meanwhile.
    client.invalidate("k", minute).unwrap();
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| client.get_or_compute("k", minute, compute));
        while client.inspect("k").unwrap().is_some_and(|item| !item.stale) {}
        let start = Instant::now();
        let mut stale = 0;
        while !slow.is_finished() {
            let value: String = client.get_or_compute("k", minute, || "mine".into()).unwrap();
            assert!(["value 0", "value 1", "mine"].contains(&value.as_str()));
            stale += u32::from(value == "value 0");
            assert!(start.elapsed() < Duration::from_secs(10));
        }
        assert!(stale > 0 || computed.load(Ordering::SeqCst) == 1);
        slow.join().unwrap().unwrap();
    });
}

#[test]
fn a_failed_computation_lets_the_next_caller_try() {
    let (_servers, client) = client(1, Config::default());
    let minute = Duration::from_secs(60);
    let failed: Result<u8, Error> =
        client.try_get_or_compute("k", minute, || Err(Error::Value("no luck".into())));
    assert_eq!(failed, Err(Error::Value("no luck".into())));
    let start = Instant::now();
    assert_eq!(client.get_or_compute("k", minute, || 7).unwrap(), 7);
    assert!(start.elapsed() < Duration::from_secs(5), "nobody waits for the one that failed");
    assert_eq!(client.get::<u8>("k").unwrap(), Some(7));
    let panicked = std::thread::scope(|scope| {
        scope.spawn(|| client.get_or_compute("p", minute, || -> u8 { panic!("on purpose") })).join()
    });
    assert!(panicked.is_err());
    assert_eq!(client.get_or_compute("p", minute, || 8).unwrap(), 8);
}

#[test]
fn a_computed_value_is_returned_though_it_cannot_be_stored() {
    let (_servers, client) =
        client(1, Config { lease: Duration::from_secs(3600), ..Config::default() });
    let minute = Duration::from_secs(60);
    let start = Instant::now();
    for _ in 0..3 {
        // Refused by the server, and no JSON: maps need strings as keys there.
        let large = client.get_or_compute("large", minute, || "x".repeat(2 << 20)).unwrap();
        assert_eq!(large.len(), 2 << 20);
        let odd = BTreeMap::from([(vec![1u32], 1)]);
        assert_eq!(client.get_or_compute("odd", minute, || odd.clone()), Ok(odd));
    }
    assert!(start.elapsed() < Duration::from_secs(600), "nobody waits for a lease that is over");
    assert_eq!((client.inspect("large"), client.inspect("odd")), (Ok(None), Ok(None)));
}

#[test]
fn what_cannot_be_read_is_computed_anew() {
    let (_servers, client) =
        client(1, Config { lease: Duration::from_secs(3600), ..Config::default() });
    client.set("user", "no user at all").unwrap();
    assert!(matches!(client.get::<User>("user"), Err(Error::Value(_))));
    let minute = Duration::from_secs(60);
    let start = Instant::now();
    assert_eq!(client.get_or_compute("user", minute, user), Ok(user()));
    assert_eq!(client.get::<User>("user"), Ok(Some(user())));
    // A computation that fails leaves it to whoever can read it.
    client.set("user", "no user at all").unwrap();
    let failed: Result<User, Error> =
        client.try_get_or_compute("user", minute, || Err(Error::NoServers));
    assert_eq!(failed, Err(Error::NoServers));
    assert!(client.get::<String>("user").unwrap().is_some());
    assert!(start.elapsed() < Duration::from_secs(600));
}

#[test]
fn what_is_being_computed_is_not_there_yet() {
    let (_servers, client) = client(1, Config::default());
    let minute = Duration::from_secs(60);
    client.set("empty", "").unwrap();
    let look = || {
        assert_eq!(client.get::<String>("k"), Ok(None));
        assert_eq!(client.get_raw("k"), Ok(None));
        assert_eq!(client.get_versioned::<u32>("k"), Ok(None));
        assert_eq!(client.get_and_touch::<String>("k", minute), Ok(None));
        let many = client.get_many::<String>(["k", "empty"]).all();
        assert_eq!(many, Ok(vec![None, Some(String::new())]));
        assert_eq!((client.incr("k", 1), client.decr("k", 1)), (Ok(None), Ok(None)));
        "computed".to_owned()
    };
    assert_eq!(client.get_or_compute("k", minute, look).as_deref(), Ok("computed"));
    assert_eq!(client.get::<String>("k").unwrap().as_deref(), Some("computed"));
    assert_eq!(client.get::<String>("empty").unwrap().as_deref(), Some(""), "a value all the same");
    // An update does not wait for who computes, and is not overwritten by it.
    let update = || {
        client.update("u", |old: Option<u32>| Some(old.map_or(7, |old| old + 1))).unwrap();
        1
    };
    assert_eq!(client.get_or_compute("u", minute, update), Ok(1));
    assert_eq!(client.get::<u32>("u"), Ok(Some(7)));
}

#[test]
fn who_waits_in_the_process_is_woken_and_does_not_ask_again_and_again() {
    const THREADS: u64 = 8;
    let (_servers, client) = client(1, Config::default());
    let asked = || client.stats("").remove(0).1.unwrap()["cmd_meta"].parse::<u64>().unwrap();
    let (minute, before) = (Duration::from_secs(60), asked());
    let compute = || {
        std::thread::sleep(Duration::from_millis(500));
        7
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| assert_eq!(client.get_or_compute("k", minute, compute), Ok(7)));
        }
    });
    // Each asks once, or twice if it came before the first one knew that it was the first.
    assert!(asked() - before <= 2 * THREADS, "{}", asked() - before);
}

#[test]
fn pauses_cost_no_connections() {
    const THREADS: usize = 50;
    let (_servers, client) = client(1, Config { check_every: None, ..Config::default() });
    let all_there = std::sync::Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..20 {
                    all_there.wait();
                    client.set("a", 1).unwrap();
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
        }
    });
    let seen = client.stats("").remove(0).1.unwrap();
    let seen: usize = seen["total_connections"].parse().unwrap();
    assert!(seen <= THREADS, "{seen} sockets opened");
    assert_eq!(client.counters().connections, seen as u64);
}

#[test]
fn checks_are_left_out_while_calls_succeed() {
    let check_every = Some(Duration::from_millis(50));
    let (servers, client) = client(1, Config { check_every, ..Config::default() });
    let made = || {
        let stats = client.stats("").remove(0).1.unwrap();
        stats["total_connections"].parse::<u32>().unwrap()
    };
    let before = made();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        client.set("a", 1).unwrap();
    }
    // One or another, where this process did not run for a while.
    assert!(made() - before < 6, "{} connections for twenty checks", made() - before);
    drop(servers);
    while client.servers()[0].state != State::Ejected {
        assert!(start.elapsed() < Duration::from_secs(10), "and without calls it is noticed");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn checks_use_a_connection_that_is_there() {
    let server = Scripted::start(|line, out| match line {
        "version" => out.write_all(b"VERSION 1\r\n").is_ok(),
        _ => out.write_all(b"END\r\n").is_ok(),
    });
    let check_every = Some(Duration::from_millis(5));
    let config = Config { check_every, ..Config::default() };
    let client = Client::with_config([server.address.to_string()], config).unwrap();
    let start = Instant::now();
    while server.heard("version") < 20 {
        assert!(start.elapsed() < Duration::from_secs(30), "a client without calls checks too");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(client.get::<u8>("a"), Ok(None));
    let checks = server.heard("version");
    assert_eq!(server.accepted(), 1, "{checks} checks and a call");
    assert_eq!(client.servers()[0].connections, 1);
}

#[test]
fn calls_go_on_while_a_list_of_servers_is_put_in_place() {
    let (_servers, client) = client(1, Config::default());
    let ours = client.servers()[0].node.clone();
    let others = (0..3000).map(|at| Node::tcp(format!("10.0.{}.{}", at / 250, at % 250), 11211));
    let nodes: Vec<Node> = std::iter::once(ours).chain(others).collect();
    let start = Instant::now();
    let ring = Ring::new(&Config::default().ring, &nodes);
    let building = start.elapsed();
    let done = AtomicBool::new(false);
    let mut slowest = Duration::ZERO;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            client.set_servers(nodes.clone()).unwrap();
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            let asked = Instant::now();
            assert!(client.server_of("a").is_some());
            slowest = slowest.max(asked.elapsed());
        }
    });
    assert_eq!(client.server_of("a").as_ref(), ring.owner(b"a").map(|owner| &nodes[owner]));
    println!("a ring took {building:?} to build, placing a key up to {slowest:?}");
    assert!(slowest < building / 2, "{slowest:?}, and {building:?} to build the ring");
}

#[cfg(unix)]
#[test]
fn a_unix_socket_that_nobody_accepts_from_costs_the_time_out() {
    let path = std::env::temp_dir().join(format!("distcache-full-{}", std::process::id()));
    let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let timeout = Duration::from_millis(100);
    let config = Config { connect_timeout: timeout, call_timeout: timeout, ..Config::default() };
    // As many as the system lets wait.
    let mut waiting = Vec::new();
    for _ in 0..5000 {
        let flags = rustix::net::SocketFlags::NONBLOCK;
        let kind = rustix::net::SocketType::STREAM;
        let family = rustix::net::AddressFamily::UNIX;
        let socket = rustix::net::socket_with(family, kind, flags, None).unwrap();
        let address = rustix::net::SocketAddrUnix::new(&path).unwrap();
        if rustix::net::connect(&socket, &address).is_err() {
            break;
        }
        waiting.push(socket);
    }
    let client = Client::with_nodes(vec![Node::unix(&path)], config).unwrap();
    let start = Instant::now();
    let error = client.set("a", 1).unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    std::fs::remove_file(path).unwrap();
}

#[test]
fn what_expires_soon_is_computed_anew_by_one() {
    let config = Config { recompute_before: Some(Duration::from_secs(60)), ..Config::default() };
    let (_servers, client) = client(1, config);
    client.set_with("k", "old", Duration::from_secs(10)).unwrap();
    let hour = Duration::from_secs(3600);
    let compute = || {
        // Everybody else reads what there is.
        let other: String = client.get_or_compute("k", hour, || "other".into()).unwrap();
        assert_eq!(other, "old");
        "new".to_owned()
    };
    assert_eq!(client.get_or_compute("k", hour, compute).unwrap(), "new");
    let again: String = client.get_or_compute("k", hour, || "again".into()).unwrap();
    assert_eq!(again, "new");
}

#[test]
fn tokens_of_many() {
    let (_servers, client) = client(3, Config::default());
    let items: Vec<(u32, u32)> = (0..20).map(|at| (at, at)).collect();
    client.set_many(&items).all().unwrap();
    let keys: Vec<u32> = (0..21).collect();
    let read = client.get_many_versioned::<u32>(&keys).all().unwrap();
    assert_eq!(read[20], None);
    for (key, read) in keys.iter().zip(read.into_iter().flatten()) {
        assert_eq!(read.value, *key);
        assert_eq!(client.cas(*key, 0, read.token), Ok(Cas::Stored));
        assert_eq!(client.cas(*key, 0, read.token), Ok(Cas::Changed));
    }
}

#[test]
fn expiries() {
    let config = Config { expiry: Expiry::In(Duration::from_secs(100)), ..Config::default() };
    let (_servers, client) = client(1, config);
    let ttl = |key: &str| client.inspect(key).unwrap().and_then(|item| item.ttl_seconds);
    client.set("default", 1).unwrap();
    assert!((98..=100).contains(&ttl("default").unwrap()));
    client.set_with("never", 1, Expiry::Never).unwrap();
    assert_eq!(ttl("never"), None);
    client.set_with("now", 1, Duration::ZERO).unwrap();
    assert_eq!(client.get::<u8>("now").unwrap(), None);
    client.set_with("long", 1, Duration::from_secs(100 * 86_400)).unwrap();
    assert!(ttl("long").unwrap() > 99 * 86_400, "longer than 30 days is not the year 1970");
    let minute = Duration::from_secs(60);
    client.set_many_with([("many", 1)], minute).all().unwrap();
    client.update_with("updated", minute, |_: Option<u8>| Some(1)).unwrap();
    assert!(client.replace_with("default", 2, minute).unwrap());
    let token = client.get_versioned::<u8>("never").unwrap().unwrap().token;
    assert_eq!(client.cas_with("never", 2, token, minute), Ok(Cas::Stored));
    for key in ["many", "updated", "default", "never"] {
        assert!((58..=60).contains(&ttl(key).unwrap()), "{key}");
    }
    client.set_raw_with("raw", b"x", 0, minute).unwrap();
    assert_eq!(client.incr_or_with("counted", 1, 5, minute), Ok(5));
    assert_eq!(client.decr_or_with("counted", 1, 5, minute), Ok(4));
    client.set("touched", 1).unwrap();
    assert_eq!(client.touch_many(["touched", "none"], minute).all(), Ok(vec![true, false]));
    for key in ["raw", "counted", "touched"] {
        assert!((58..=60).contains(&ttl(key).unwrap()), "{key}");
    }
    client.touch("never", Duration::from_millis(1500)).unwrap();
    assert!(ttl("never").unwrap() <= 2);
}

#[test]
fn what_is_taken_is_taken_once() {
    const ITEMS: u32 = 50;
    let (_servers, client) = client(2, Config::default());
    client.set_many((0..ITEMS).map(|at| (at, at))).all().unwrap();
    let taken = std::thread::scope(|scope| {
        let take = || (0..ITEMS).filter_map(|at| client.take::<u32>(at).unwrap()).count();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
    });
    assert_eq!(taken, ITEMS as usize);
}

#[test]
fn servers_come_and_go_and_take_only_their_keys() {
    let (servers, client) = client(3, Config::default());
    let keys: Vec<u32> = (0..300).collect();
    client.set_many(keys.iter().map(|key| (*key, *key))).all().unwrap();
    let fourth = Server::bind("127.0.0.1:0").unwrap();
    client.add_server(&fourth.addresses()[0].to_string()).unwrap();
    let found = client.get_many::<u32>(&keys).all().unwrap();
    let lost = found.iter().filter(|value| value.is_none()).count();
    assert!((1..200).contains(&lost), "{lost} of 300 belong to the new server");
    client.remove_server(&fourth.addresses()[0].to_string()).unwrap();
    assert!(client.get_many::<u32>(&keys).all().unwrap().iter().all(Option::is_some));
    assert!(client.remove_server("10.9.9.9").is_err());
    let again = servers[0].addresses()[0].to_string();
    assert!(matches!(client.add_server(&again), Err(Error::Config(_))));
}

#[test]
fn the_list_of_servers_is_followed() {
    let (_servers, addresses) = servers(2);
    let path = std::env::temp_dir().join(format!("distcache-servers-{}", std::process::id()));
    std::fs::write(&path, format!("{}\n", addresses[0])).unwrap();
    let config = Config {
        discovery: Some(Discovery::File(path.clone())),
        discovery_every: Duration::from_millis(20),
        ..Config::default()
    };
    let client = Client::with_config([""; 0], config).unwrap();
    assert_eq!(client.servers().len(), 1);
    // A list that cannot be read changes nothing.
    std::fs::write(&path, "nonsense:99999999\n").unwrap();
    client.set("a", 1).unwrap();
    std::fs::write(&path, addresses.join("\n")).unwrap();
    let start = Instant::now();
    while client.servers().len() != 2 {
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(5));
    }
    std::fs::remove_file(path).unwrap();
    assert!(client.servers().iter().all(|server| server.state == State::Healthy));
}

#[test]
fn a_unix_socket_serves_as_well() {
    use distcache::server::config::{Config as ServerConfig, Listener};
    let path = std::env::temp_dir().join(format!("distcache-client-{}", std::process::id()));
    let listeners = vec![Listener::Unix(path.clone(), 0o700)];
    let _server = Server::start(ServerConfig { listeners, ..ServerConfig::default() }).unwrap();
    let client = Client::with_nodes(vec![Node::unix(&path)], Config::default()).unwrap();
    client.set("a", "b").unwrap();
    assert_eq!(client.get_many::<String>(["a"]).found(), [Some("b".into())]);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let zero = Config { call_timeout: Duration::ZERO, ..Config::default() };
    let none = Config { connections_max: 0, ..Config::default() };
    for config in [zero, none] {
        assert!(matches!(Client::with_config(["a"], config), Err(Error::Config(_))));
    }
    assert!(matches!(Client::connect([""; 0]), Err(Error::NoServers)));
    assert_eq!(Client::connect(["a, b:1,,c:2:3"]).unwrap().servers().len(), 3);
    assert!(matches!(Client::connect(["a:b"]), Err(Error::Config(_))));
    assert!(matches!(Client::connect(["a", "a:11211"]), Err(Error::Config(_))));
}
