//! Calls about many keys. Goal: any iterator goes in, maps come out, and a batch of mixed commands
//! is one round trip to each server with the answers in the order of the program. Method: servers
//! of this process, one that answers only when it has everything, and a naive model of batches.

#![cfg(all(feature = "server", feature = "client"))]

use distcache::client::{AsKey, Batch, Client, Config, Error, WhenDown};
use distcache::server::Server;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

fn client(count: usize, config: Config) -> (Vec<Server>, Client) {
    let servers: Vec<Server> = (0..count).map(|_| Server::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<_> =
        servers.iter().map(|server| server.addresses()[0].to_string()).collect();
    (servers, Client::with_config(addresses, config).unwrap())
}

#[test]
fn iterators_go_in_and_maps_come_out() {
    let (_servers, client) = client(3, Config::default());
    // A map, an iterator, a slice, an array, owned and borrowed.
    let squares: BTreeMap<u64, u64> = (0..100).map(|number| (number, number * number)).collect();
    let pairs: Vec<(u64, u64)> = squares.clone().into_iter().collect();
    client.set_many(&pairs).all().unwrap();
    client.set_many(squares.iter()).all().unwrap();
    client.set_many(squares.clone()).all().unwrap();
    client.set_many([("a", "x"), ("b", "y")]).all().unwrap();
    let keys: Vec<&u64> = pairs.iter().map(|(key, _)| key).collect();
    assert!(client.get_many::<u64>(&keys).all().unwrap().iter().all(Option::is_some));
    assert_eq!(keys.len(), 100);
    let found: HashMap<u64, u64> = client.get_map(0..200).unwrap();
    assert_eq!(found.into_iter().collect::<BTreeMap<_, _>>(), squares);
    let evens = client.get_many::<u64>((0..200).step_by(2)).all().unwrap();
    assert_eq!(evens.iter().flatten().count(), 50);
    let none: HashMap<String, u8> = client.get_map(Vec::new()).unwrap();
    assert!(none.is_empty());
    let versioned = client.get_many_versioned::<String>(["a", "none"]).all().unwrap();
    assert!(versioned[0].as_ref().is_some_and(|read| read.value == "x") && versioned[1].is_none());
    let touched = client.touch_many(["a", "none"], Duration::from_secs(60)).by_key(["a", "none"]);
    assert_eq!((&touched["a"], &touched["none"]), (&Ok(true), &Ok(false)));
    let counted = client.incr_many(0..3u64, 10).by_key(0..3u64);
    assert_eq!((&counted[&2], &counted[&0]), (&Ok(Some(14)), &Ok(Some(10))));
    assert_eq!(client.decr_many(["2", "none"], 4).all(), Ok(vec![Some(10), None]));
    let deleted = client.delete_many(squares.into_keys()).all().unwrap();
    assert!(deleted.len() == 100 && deleted.into_iter().all(|deleted| deleted));
}

#[test]
fn keys_of_every_type_are_the_callers_own_in_a_map() {
    fn check<K: AsKey + Eq + std::hash::Hash + Clone>(client: &Client, key: K) {
        client.set(&key, 7).unwrap();
        let found: HashMap<K, u8> = client.get_map([key.clone()]).unwrap();
        assert_eq!(found.get(&key), Some(&7));
    }
    let (_servers, client) = client(2, Config::default());
    check(&client, "str");
    check(&client, "string".to_owned());
    check(&client, 7i32);
    check(&client, Arc::<str>::from("arc"));
    check(&client, Cow::Borrowed("cow"));
    check(&client, *b"bytes");
    #[cfg(feature = "bytes")]
    check(&client, bytes::Bytes::from_static(b"more-bytes"));
    #[cfg(feature = "uuid")]
    check(&client, uuid::Uuid::from_u128(7));
}

#[test]
fn a_map_says_what_failed_unless_misses_are_wanted() {
    for (when_down, fails) in [(WhenDown::Error, true), (WhenDown::Miss, false)] {
        let (mut servers, client) = client(2, Config { when_down, ..Config::default() });
        client.set_many((0..100).map(|key| (key, key))).all().unwrap();
        drop(servers.pop());
        let found: Result<HashMap<u32, u32>, Error> = client.get_map(0..100);
        assert_eq!(found.is_err(), fails, "{found:?}");
        let left = client.get_many::<u32>(0..100).found().into_iter().flatten().count();
        assert!((1..100).contains(&left), "the other server's keys are there: {left}");
    }
}

#[test]
fn a_batch_answers_in_the_order_of_the_program() {
    let (_servers, client) = client(3, Config::default());
    client.set("gone", "x").unwrap();
    let minute = Duration::from_secs(60);
    let odd = BTreeMap::from([(vec![1u32], 1)]);
    let answers = client
        .batch()
        .get("n")
        .set("n", 1)
        .incr("n", 5)
        .get("n")
        .decr("n", 10)
        .add_with("n", 9, minute)
        .replace_with("n", 9, minute)
        .get_and_touch("n", minute)
        .touch("none", minute)
        .delete("gone")
        .get("gone")
        .set("odd", &odd)
        .get("a key with blanks")
        .incr("none", 1)
        .run();
    let results = answers.into_results();
    let answer = |at: usize| results[at].as_ref().unwrap();
    assert_eq!(answer(0).value::<u8>(), Ok(None));
    assert!(!answer(0).is_done() && answer(1).is_done());
    assert_eq!((answer(2).number(), answer(4).number()), (Some(6), Some(0)));
    assert_eq!((answer(3).value::<u8>(), answer(7).value::<u8>()), (Ok(Some(6)), Ok(Some(9))));
    let done: Vec<bool> = [5, 6, 8, 9, 10].map(|at| answer(at).is_done()).to_vec();
    assert_eq!(done, [false, true, false, true, false]);
    assert!(matches!(results[11], Err(Error::Value(_))) && client.inspect("odd") == Ok(None));
    assert!(matches!(results[12], Err(Error::Key { .. })));
    assert_eq!(answer(13).number(), None);
    assert!(answer(1).value::<u8>().is_err(), "nothing was asked for");
    assert!(client.inspect("n").unwrap().unwrap().ttl_seconds.is_some());
    let counters = client.counters();
    assert_eq!((counters.hits, counters.misses), (2, 2));
    assert!(client.batch().run().all().unwrap().is_empty());
}

/// A command of the model: which, of which key, with which number.
type Step = (u8, u8, u8);

fn add(batch: Batch<&Client>, (kind, key, number): Step) -> Batch<&Client> {
    match kind {
        0 => batch.get(key),
        1 => batch.set(key, number),
        2 => batch.delete(key),
        _ => batch.incr(key, number.into()),
    }
}

/// What a map of numbers says to it.
fn expected(model: &mut HashMap<u8, u64>, (kind, key, number): Step) -> Option<u64> {
    match kind {
        0 => model.get(&key).copied(),
        1 => {
            model.insert(key, number.into());
            Some(1)
        }
        2 => model.remove(&key).map(|_| 1),
        _ => model.get_mut(&key).map(|old| {
            *old += u64::from(number);
            *old
        }),
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(20))]
    #[test]
    fn batches_are_as_a_map(steps in proptest::collection::vec((0u8..4, 0u8..6, 0u8..100), 0..80)) {
        let (_servers, client) = client(3, Config::default());
        let mut model = HashMap::new();
        for steps in steps.chunks(20) {
            let batch = steps.iter().fold(client.batch(), |batch, step| add(batch, *step));
            let answers = batch.run().all().unwrap();
            for (step, answer) in steps.iter().zip(answers) {
                let answered = match step.0 {
                    0 => answer.value::<u64>().unwrap(),
                    3 => answer.number(),
                    _ => answer.is_done().then_some(1),
                };
                proptest::prop_assert_eq!(answered, expected(&mut model, *step));
            }
        }
    }
}

#[test]
fn a_batch_is_one_round_trip() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // Answers nothing before it has seen the last request.
    let server = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
        while !seen.ends_with(b"delete last\r\n") {
            let count = socket.read(&mut buffer).unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&buffer[..count]);
        }
        socket.write_all(b"STORED\r\nVALUE a 0 1\r\n1\r\nEND\r\n2\r\nNOT_FOUND\r\n").unwrap();
        String::from_utf8(seen).unwrap()
    });
    let client = Client::connect([address]).unwrap();
    let answers = client.batch().set("a", 1).get("a").incr("a", 1).delete("last").run();
    let answers = answers.all().unwrap();
    assert_eq!((answers[1].value::<u8>(), answers[2].number()), (Ok(Some(1)), Some(2)));
    assert_eq!(server.join().unwrap(), "set a 0 0 1\r\n1\r\nget a\r\nincr a 1\r\ndelete last\r\n");
}

#[test]
fn a_batch_while_a_server_is_away() {
    let (mut servers, client) = client(2, Config::default());
    let keys: Vec<String> = (0..50).map(|at| format!("key-{at}")).collect();
    let gone = servers.pop().unwrap();
    let port = gone.addresses()[0].port();
    drop(gone);
    let batch = keys.iter().fold(client.batch(), |batch, key| batch.set(key, 1).get(key));
    let results = batch.run().into_results();
    for (at, result) in results.iter().enumerate() {
        let is_away = client.server_of(&keys[at / 2]).unwrap().port() == port;
        assert_eq!(result.is_err(), is_away, "{at} {result:?}");
    }
}

#[test]
fn nothing_extends_or_counts_what_is_being_computed() {
    let (_servers, client) = client(1, Config::default());
    let minute = Duration::from_secs(60);
    let look = || {
        assert_eq!((client.append("k", b"x"), client.prepend("k", b"x")), (Ok(false), Ok(false)));
        assert_eq!(client.incr_many(["k"], 1).all(), Ok(vec![None]));
        let answers = client.batch().get("k").incr("k", 1).run().all().unwrap();
        assert!(!answers[0].is_done() && !answers[1].is_done());
        "computed".to_owned()
    };
    assert_eq!(client.get_or_compute("k", minute, look).as_deref(), Ok("computed"));
    assert_eq!(client.get::<String>("k").unwrap().as_deref(), Some("computed"), "whole");
    assert_eq!((client.append("k", b"!"), client.prepend("k", b"?")), (Ok(true), Ok(true)));
    assert_eq!(client.get::<String>("k").unwrap().as_deref(), Some("?computed!"));
    assert_eq!(client.append("none", b"x"), Ok(false));
    // An empty value is one.
    client.set("empty", "").unwrap();
    assert_eq!(client.append("empty", b"x"), Ok(true));
    assert_eq!(client.get::<String>("empty").unwrap().as_deref(), Some("x"));
    // A number that begins there is not overwritten by who computes.
    let count = || {
        assert_eq!(client.incr_or_with("n", 1, 100, minute), Ok(100));
        assert_eq!(client.decr_or("n", 1, 7), Ok(99));
        5
    };
    assert_eq!(client.get_or_compute("n", minute, count), Ok(5));
    assert_eq!(client.get::<u32>("n"), Ok(Some(99)));
    assert_eq!(client.get_or_compute("id", minute, || client.unique_id("id").unwrap()), Ok(1));
    assert_eq!(client.unique_id("id"), Ok(2));
}

#[test]
fn appends_of_many_threads_are_all_there() {
    let (_servers, client) = client(1, Config::default());
    client.set("log", "").unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..50).for_each(|_| assert_eq!(client.append("log", b"x"), Ok(true))));
        }
    });
    assert_eq!(client.get::<String>("log").unwrap().unwrap().len(), 200);
}
