//! The near cache. Goal: keys that are read often cost no call, and nothing is read from it that
//! this client has overwritten. Method: a server of this process, changed behind the client's back
//! to tell the two apart; and threads that read what they have written.

#![cfg(all(feature = "server", feature = "near"))]

use distcache::client::{Client, Config, Error, NearCache};
use distcache::server::Server;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A server, a client with a near cache, and one without.
fn rig(lifetime: Duration) -> (Server, Client, Client) {
    let server = Server::bind("127.0.0.1:0").unwrap();
    let near = Some(NearCache { bytes_max: 1 << 20, lifetime });
    let config = Config { near, ..Config::default() };
    let address = server.addresses()[0].to_string();
    let client = Client::with_config([&address], config).unwrap();
    let other = Client::connect([&address]).unwrap();
    (server, client, other)
}

const HOUR: Duration = Duration::from_secs(3600);

/// Reads a key until it is kept.
fn warm(client: &Client, key: &str) {
    for _ in 0..3 {
        client.get_raw(key).unwrap();
    }
}

#[test]
fn hot_keys_are_read_from_it_until_their_time_is_over() {
    let (_server, client, other) = rig(Duration::from_millis(200));
    for key in ["a", "b"] {
        other.set(key, "old").unwrap();
        warm(&client, key);
        other.set(key, "new").unwrap();
    }
    assert_eq!(client.get::<String>("a").unwrap().as_deref(), Some("old"));
    let found: HashMap<&str, String> = client.get_map(["a", "b", "none"]).unwrap();
    assert_eq!(found, HashMap::from([("a", "old".to_owned()), ("b", "old".to_owned())]));
    assert!(client.counters().near_hits >= 3 && client.near_cache().items == 2);
    assert!(client.near_cache().bytes > 0);
    std::thread::sleep(Duration::from_millis(250));
    assert_eq!(client.get::<String>("a").unwrap().as_deref(), Some("new"));
    let found = client.get_many::<String>(["b", "none"]).all().unwrap();
    assert_eq!(found, [Some("new".to_owned()), None]);
    // A key that is read once is not kept, and what needs the server asks it.
    other.set("once", 1).unwrap();
    client.get::<u8>("once").unwrap();
    let items = client.near_cache().items;
    assert_eq!(client.get_versioned::<u8>("once").unwrap().unwrap().value, 1);
    assert_eq!(client.near_cache().items, items);
}

#[test]
fn off_by_default() {
    let (_server, _, other) = rig(HOUR);
    other.set("a", 1).unwrap();
    warm(&other, "a");
    assert_eq!((other.counters().near_hits, other.near_cache().items), (0, 0));
}

#[test]
fn whatever_this_client_writes_is_read_from_the_server() {
    type Write = fn(&Client) -> Result<(), Error>;
    let writes: [(&str, Write, Option<&str>); 12] = [
        ("set", |client| client.set("k", "8"), Some("8")),
        ("set_many", |client| client.set_many([("k", "8")]).all().map(|_| ()), Some("8")),
        ("replace", |client| client.replace("k", "8").map(|_| ()), Some("8")),
        ("incr", |client| client.incr("k", 1).map(|_| ()), Some("8")),
        ("incr_or", |client| client.incr_or("k", 1, 0).map(|_| ()), Some("8")),
        ("append", |client| client.append("k", b"1").map(|_| ()), Some("71")),
        ("delete", |client| client.delete("k").map(|_| ()), None),
        ("delete_many", |client| client.delete_many(["k"]).all().map(|_| ()), None),
        ("batch", |client| client.batch().incr("k", 1).run().all().map(|_| ()), Some("8")),
        ("take", |client| client.take::<String>("k").map(|_| ()), None),
        ("touch", |client| client.touch("k", Duration::ZERO).map(|_| ()), None),
        ("flush", |client| client.flush_all(None).remove(0).1, None),
    ];
    for (name, write, expected) in writes {
        let (_server, client, other) = rig(HOUR);
        other.set("k", "7").unwrap();
        warm(&client, "k");
        assert_eq!(client.counters().near_hits, 1, "{name}");
        write(&client).unwrap();
        assert_eq!(client.get::<String>("k").unwrap().as_deref(), expected, "{name}");
    }
    let (_server, client, other) = rig(HOUR);
    other.set("k", 7).unwrap();
    warm(&client, "k");
    client.update("k", |old: Option<u32>| old.map(|old| old + 1)).unwrap();
    assert_eq!(client.get::<u32>("k"), Ok(Some(8)));
}

#[test]
fn nobody_reads_less_than_was_written_before_he_asked() {
    const KEYS: usize = 4;
    let (_server, client, _) = rig(HOUR);
    let written: [AtomicU64; KEYS] = Default::default();
    (0..KEYS).for_each(|key| client.set(key, 0).unwrap());
    std::thread::scope(|scope| {
        for (key, written) in written.iter().enumerate() {
            let client = &client;
            scope.spawn(move || {
                for value in 1..=400 {
                    client.set(key, value).unwrap();
                    written.store(value, Ordering::SeqCst);
                }
            });
            scope.spawn(move || {
                while written.load(Ordering::SeqCst) < 400 {
                    let least = written.load(Ordering::SeqCst);
                    let single: u64 = client.get(key).unwrap().unwrap();
                    assert!(single >= least, "{single} < {least}");
                    let least = written.load(Ordering::SeqCst);
                    let many: u64 = client.get_many([key]).all().unwrap()[0].unwrap();
                    assert!(many >= least, "{many} < {least}");
                }
            });
        }
    });
    assert!(client.counters().near_hits > 0);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for (bytes_max, lifetime, fits) in
        [(1 << 20, HOUR, true), (10, HOUR, false), (1 << 20, Duration::ZERO, false)]
    {
        let config = Config { near: Some(NearCache { bytes_max, lifetime }), ..Config::default() };
        assert_eq!(Client::with_config(["10.0.0.1"], config).is_ok(), fits);
    }
}

#[cfg(feature = "tokio")]
#[tokio::test(flavor = "multi_thread")]
async fn tasks_have_one_too() {
    use distcache::client::asynchronous;
    let (server, _, other) = rig(HOUR);
    let near = Some(NearCache { bytes_max: 1 << 20, lifetime: HOUR });
    let config = Config { near, ..Config::default() };
    let address = server.addresses()[0].to_string();
    let client = asynchronous::Client::with_config([address], config).unwrap();
    other.set("k", 1).unwrap();
    for _ in 0..3 {
        assert_eq!(client.get::<u8>("k").await, Ok(Some(1)));
    }
    other.set("k", 2).unwrap();
    assert_eq!(client.get::<u8>("k").await, Ok(Some(1)));
    assert_eq!(client.get_many::<u8>(["k"]).await.all(), Ok(vec![Some(1)]));
    assert_eq!(client.incr("k", 1).await, Ok(Some(3)));
    assert_eq!(client.get::<u8>("k").await, Ok(Some(3)));
}
