//! Copies of a key on several servers. Goal: a server that dies costs neither values nor writes,
//! and nothing old is read from one that comes back. Method: three servers of this process in two
//! zones, looked into one by one by clients of their own.

#![cfg(all(feature = "server", feature = "client"))]

#[allow(dead_code, reason = "shared with tests that use more of it")]
mod chaos;

use chaos::{Proxy, Weather};
use distcache::client::{Cas, Client, Config, Error, Node, State, WhenDown};
use distcache::server::Server;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// Servers, a client of each, and one of all through proxies.
struct Rig {
    _servers: Vec<Server>,
    proxies: Vec<Proxy>,
    alone: Vec<Client>,
    all: Client,
}

/// The servers' zones, in their order.
const ZONES: [&str; 3] = ["a", "b", "a"];

impl Rig {
    fn new(config: Config) -> Self {
        let bind = |_| Server::bind("127.0.0.1:0").unwrap();
        let servers: Vec<Server> = ZONES.iter().map(bind).collect();
        let address = |server: &Server| server.addresses()[0];
        let proxies: Vec<Proxy> = servers.iter().map(|server| Proxy::to(address(server))).collect();
        let single = |server: &Server| Client::connect([address(server).to_string()]).unwrap();
        let alone = servers.iter().map(single).collect();
        let node = |(proxy, zone): (&Proxy, &str)| {
            Node::tcp("127.0.0.1", proxy.address.port()).with_zone(zone)
        };
        let nodes: Vec<Node> = proxies.iter().zip(ZONES).map(node).collect();
        let config = Config {
            replicas: 2,
            failures_max: 1,
            probe_after: Duration::from_millis(20),
            check_every: None,
            ..config
        };
        let all = Client::with_nodes(nodes, config).unwrap();
        Self { _servers: servers, proxies, alone, all }
    }

    /// Servers that hold a key.
    fn holders(&self, key: &str) -> Vec<usize> {
        let holds = |at: &usize| self.alone[*at].get_raw(key).is_ok_and(|found| found.is_some());
        (0..self.alone.len()).filter(holds).collect()
    }

    /// The place of a key's owner.
    fn owner(&self, key: &str) -> usize {
        let port = self.all.server_of(key).unwrap().port();
        self.proxies.iter().position(|proxy| proxy.address.port() == port).unwrap()
    }

    /// Cuts a server off; returns once the client knows.
    fn cut(&self, at: usize) {
        self.proxies[at].set(Weather::Cut);
        let start = Instant::now();
        while self.all.servers()[at].state != State::Ejected {
            let _ = self.all.version();
            assert!(start.elapsed() < Duration::from_secs(10));
        }
    }

    /// Lets it be reached again; returns once it is in use.
    fn join(&self, at: usize) {
        self.proxies[at].set(Weather::Fair);
        let start = Instant::now();
        while self.all.servers()[at].state == State::Ejected {
            assert!(start.elapsed() < Duration::from_secs(10));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn keys() -> Vec<String> {
    (0..60).map(|at| format!("key-{at}")).collect()
}

#[test]
fn a_write_goes_to_two_zones_and_a_read_to_ours() {
    let rig = Rig::new(Config { zone: Some("b".into()), ..Config::default() });
    let minute = Duration::from_secs(60);
    for key in keys() {
        rig.all.set(&key, "x").unwrap();
        let holders = rig.holders(&key);
        assert!(holders.contains(&1) && holders.len() == 2, "{key}: {holders:?}");
        assert!(rig.all.touch(&key, minute).unwrap());
        for holder in holders {
            assert!(rig.alone[holder].inspect(&key).unwrap().unwrap().ttl_seconds.is_some());
        }
        // Only that one knows.
        rig.alone[1].set(&key, "ours").unwrap();
        assert_eq!(rig.all.get::<String>(&key).unwrap().as_deref(), Some("ours"));
    }
    let found: HashMap<String, String> = rig.all.get_map(keys()).unwrap();
    assert!(found.len() == 60 && found.values().all(|value| value == "ours"));
    // What our zone has lost the other one has.
    assert!(rig.alone[1].delete_many(keys()).all().unwrap().iter().all(|deleted| *deleted));
    let found = rig.all.get_many::<String>(keys()).all().unwrap();
    assert!(found.iter().all(|value| value.as_deref() == Some("x")));
    assert_eq!(rig.all.get::<String>("key-0").unwrap().as_deref(), Some("x"));
    assert!(rig.all.delete_many(keys()).all().is_ok());
    assert!(keys().iter().all(|key| rig.holders(key).is_empty()));
    assert_eq!(rig.all.get::<String>("key-0"), Ok(None));
    let counters = rig.all.counters();
    assert_eq!((counters.hits, counters.misses), (60 + 60 + 60 + 1, 1), "a key counts once");
}

#[test]
fn a_dead_server_costs_nothing_and_a_returned_one_has_nothing_old() {
    for when_down in [WhenDown::Error, WhenDown::Miss] {
        let rig = Rig::new(Config { when_down, ..Config::default() });
        rig.all.set_many(keys().iter().map(|key| (key, "old"))).all().unwrap();
        rig.cut(0);
        let found: HashMap<String, String> = rig.all.get_map(keys()).unwrap();
        assert_eq!(found.len(), 60);
        for key in &keys()[..30] {
            assert_eq!(rig.all.get::<String>(key).unwrap().as_deref(), Some("old"));
            rig.all.set(key, "new").unwrap();
        }
        rig.all.set_many(keys()[30..].iter().map(|key| (key, "new"))).all().unwrap();
        rig.join(0);
        let held = rig.alone[0].get_many::<String>(keys()).found();
        assert!(held.iter().all(Option::is_none), "deleted before it is used: {held:?}");
        for key in keys() {
            assert_eq!(rig.all.get::<String>(&key).unwrap().as_deref(), Some("new"), "{key}");
        }
    }
}

#[test]
fn a_read_goes_to_the_next_copy_before_the_first_failure_is_known() {
    let rig = Rig::new(Config::default());
    rig.all.set_many(keys().iter().map(|key| (key, 1))).all().unwrap();
    rig.proxies[1].set(Weather::Cut);
    let found: Vec<_> = rig.all.get_many::<u8>(keys()).into_results();
    assert!(found.iter().all(|found| *found == Ok(Some(1))), "{found:?}");
    let rig = Rig::new(Config::default());
    rig.all.set("k", 1).unwrap();
    let owner = rig.owner("k");
    rig.proxies[owner].set(Weather::Cut);
    assert_eq!(rig.all.get::<u8>("k"), Ok(Some(1)));
    assert_eq!(rig.all.get::<u8>("none at all".replace(' ', "-")), Ok(None));
}

#[test]
fn what_depends_on_what_is_there_is_the_owners() {
    let rig = Rig::new(Config { zone: Some("b".into()), ..Config::default() });
    let minute = Duration::from_secs(60);
    for key in keys() {
        let owner = rig.owner(&key);
        rig.all.set(&key, 1).unwrap();
        assert_eq!(rig.all.incr(&key, 1), Ok(Some(2)));
        assert_eq!(rig.holders(&key), [owner], "the other copy would be out of date");
        assert_eq!(rig.all.get::<u8>(&key), Ok(Some(2)));
        rig.all.set(&key, 5).unwrap();
        let read = rig.all.get_versioned::<u8>(&key).unwrap().unwrap();
        assert_eq!(rig.all.cas(&key, 6, read.token), Ok(Cas::Stored));
        assert_eq!(rig.all.get::<u8>(&key), Ok(Some(6)));
        rig.all.set(&key, 7).unwrap();
        assert_eq!(rig.all.incr_many([&key], 1).all(), Ok(vec![Some(8)]));
        let batch = rig.all.batch().set(&key, 1).incr(&key, 1).get(&key).decr(&key, 2).get(&key);
        let answers = batch.run().all().unwrap();
        assert_eq!(
            (answers[2].value::<u8>(), answers[4].value::<u8>()),
            (Ok(Some(2)), Ok(Some(0)))
        );
        assert_eq!(rig.all.get::<u8>(&key), Ok(Some(0)));
        rig.all.delete(&key).unwrap();
        assert_eq!(rig.all.get_or_compute(&key, minute, || 9), Ok(9));
        assert_eq!(rig.all.get::<u8>(&key), Ok(Some(9)));
        assert_eq!(rig.all.get_or_compute(&key, minute, || 10), Ok(9));
    }
}

#[test]
fn a_session_that_is_touched_lives_on_when_its_server_has_lost_it() {
    let rig = Rig::new(Config::default());
    let minute = Duration::from_secs(60);
    rig.all.set("session", "x").unwrap();
    rig.alone[rig.owner("session")].delete("session").unwrap();
    let session: Option<String> = rig.all.get_and_touch("session", minute).unwrap();
    assert_eq!(session.as_deref(), Some("x"));
    let [holder] = rig.holders("session")[..] else { panic!() };
    assert!(rig.alone[holder].inspect("session").unwrap().unwrap().ttl_seconds.is_some());
}

#[test]
fn the_place_of_a_value_is_no_value_on_any_copy() {
    let rig = Rig::new(Config::default());
    let minute = Duration::from_secs(60);
    rig.all.set("k", 1).unwrap();
    for at in rig.holders("k") {
        rig.all.delete("k").unwrap();
        let look = || {
            assert_eq!(rig.all.get_raw("k"), Ok(None), "{at}");
            assert_eq!(rig.all.get_many::<String>(["k"]).all(), Ok(vec![None]), "{at}");
            let answers = rig.all.batch().get("k").run().all().unwrap();
            assert_eq!(answers[0].value::<String>(), Ok(None), "{at}");
            "made"
        };
        let made: String = rig.alone[at].get_or_compute("k", minute, || look().to_owned()).unwrap();
        assert_eq!(rig.all.get::<String>("k"), Ok(Some(made)));
    }
}

#[test]
fn what_is_decided_by_an_owner_that_is_away_is_deleted_from_the_copies() {
    type Write = fn(&Client) -> bool;
    let invalidate: Write = |all| all.invalidate("k", Duration::from_secs(60)).is_ok();
    let incr: Write = |all| all.incr("k", 1) == Ok(None);
    let incr_many: Write = |all| all.incr_many(["k"], 1).all() == Ok(vec![None]);
    for (at, write) in [invalidate, incr, incr_many].into_iter().enumerate() {
        let rig = Rig::new(Config { when_down: WhenDown::Miss, ..Config::default() });
        rig.all.set("k", 1).unwrap();
        let owner = rig.owner("k");
        rig.cut(owner);
        assert_eq!(rig.all.get::<u8>("k"), Ok(Some(1)));
        assert!(write(&rig.all), "{at}");
        assert_eq!(rig.holders("k"), [owner], "{at}");
        assert_eq!(rig.all.get::<u8>("k"), Ok(None), "{at}");
    }
}

/// A server that keeps whoever asks waiting, then says that it has nothing.
fn slow_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while socket.read(&mut buffer).is_ok_and(|count| count > 0) {
                    std::thread::sleep(Duration::from_millis(300));
                    let _ = socket.write_all(b"VALUE hot 0 4\r\nslow\r\nEND\r\n");
                }
            });
        }
    });
    address
}

#[test]
fn a_busy_copy_is_passed_over_by_reads() {
    const READERS: usize = 12;
    let quick = Server::bind("127.0.0.1:0").unwrap();
    let address = quick.addresses()[0].to_string();
    Client::connect([&address]).unwrap().set("hot", "quick").unwrap();
    let slow = slow_server();
    for (load_percent_max, spreads) in [(None, false), (Some(25), true)] {
        let config = Config {
            replicas: 2,
            zone: Some("near".into()),
            load_percent_max,
            check_every: None,
            ..Config::default()
        };
        let servers = [format!("{slow} zone=near"), format!("{address} zone=far")];
        let client = Client::with_config(servers, config).unwrap();
        let read = || client.get::<String>("hot").unwrap().unwrap();
        let values = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        let quick = values.iter().filter(|value| *value == "quick").count();
        assert_eq!(quick > 0, spreads, "{values:?}");
        assert!(quick < READERS, "the nearer one is read from too");
    }
    let config = Config { load_percent_max: Some(25), ..Config::default() };
    assert!(Client::with_config(["10.0.0.1"], config).is_err(), "a bound without copies");
}

#[test]
fn how_many_copies_there_can_be() {
    for (replicas, fits) in [(0, false), (1, true), (4, true), (5, false)] {
        let config = Config { replicas, ..Config::default() };
        let made = Client::with_config(["10.0.0.1"], config);
        assert_eq!(made.is_ok(), fits, "{replicas}");
        assert!(fits || matches!(made, Err(Error::Config(_))));
    }
}

#[cfg(feature = "tokio")]
#[tokio::test(flavor = "multi_thread")]
async fn tasks_have_copies_too() {
    use distcache::client::asynchronous;
    let rig = Rig::new(Config::default());
    let nodes = rig.all.servers().into_iter().map(|server| server.node).collect();
    let config = Config { replicas: 2, check_every: None, ..Config::default() };
    let client = asynchronous::Client::with_nodes(nodes, config).unwrap();
    client.set_many(keys().into_iter().map(|key| (key, 1))).await.all().unwrap();
    assert!(keys().iter().all(|key| rig.holders(key).len() == 2));
    client.set("k", 1).await.unwrap();
    assert_eq!(client.incr("k", 1).await, Ok(Some(2)));
    assert_eq!(rig.holders("k"), [rig.owner("k")]);
    rig.proxies[1].set(Weather::Cut);
    for key in keys() {
        assert_eq!(client.get::<u8>(&key).await, Ok(Some(1)));
    }
    let found: HashMap<String, u8> = client.get_map(keys()).await.unwrap();
    assert_eq!(found.len(), 60);
}
