//! The fake cache beside the real one. Goal: a test with the fake means what it would mean with a
//! server. Method: the same table of operations, written for the trait, on the fake and on a client
//! of a server of this process, in both faces; time passes by a clock of the test's there, by
//! sleeping here.

#![cfg(all(feature = "server", feature = "client"))]

use distcache::client::{Cache, Cas, Client, Config, Error, FakeCache, KeyPolicy, WhenDown};
use distcache::server::Server;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    logins: Vec<u32>,
}

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn config() -> Config {
    Config { key_prefix: "shop:".into(), key_policy: KeyPolicy::Hash, ..Config::default() }
}

/// A fake, and what makes time pass for it.
fn fake(config: Config) -> (FakeCache, impl Fn(Duration)) {
    let now = Arc::new(Mutex::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)));
    let clock = Arc::clone(&now);
    let cache = FakeCache::with_clock(config, move || *clock.lock().unwrap()).unwrap();
    (cache, move |time| *now.lock().unwrap() += time)
}

fn real(config: Config) -> (Server, Client) {
    let server = Server::bind("127.0.0.1:0").unwrap();
    let client = Client::with_config([server.addresses()[0].to_string()], config).unwrap();
    (server, client)
}

fn is_refused<R: std::fmt::Debug>(result: Result<R, Error>, with: &str) {
    match result {
        Err(Error::Refused { line, .. }) => assert!(line.contains(with), "{line}"),
        other => panic!("{other:?}"),
    }
}

fn values(cache: &impl Cache) {
    let user = User { name: "Pel\u{e9}".into(), logins: vec![1, 2] };
    cache.set("user", &user).unwrap();
    assert_eq!(cache.get("user"), Ok(Some(user)));
    cache.set("image", vec![0xffu8, 0xd8]).unwrap();
    assert_eq!(cache.get("image"), Ok(Some(vec![0xffu8, 0xd8])));
    assert!(matches!(cache.get::<u32>("user"), Err(Error::Value(_))), "of another type");
    assert!(matches!(cache.set("odd", f64::NAN), Err(Error::Value(_))));
    is_refused(cache.set("large", "x".repeat(2 << 20)), "too large");
    assert_eq!(cache.get::<String>("large"), Ok(None));
    let long = "k".repeat(300);
    cache.set(&long, 1).unwrap();
    let found = cache.get_many::<u8>(&[long.as_str(), "none"]).into_results();
    assert_eq!(found, [Ok(Some(1)), Ok(None)]);
    let flags = |key| cache.get_versioned::<BTreeMap<String, u8>>(key).unwrap().unwrap().flags;
    cache.set("map", BTreeMap::from([("a", 1)])).unwrap();
    assert_ne!(flags("map"), 0, "JSON is marked");
}

fn stores(cache: &impl Cache) {
    assert_eq!(cache.add_with("a", 1, MINUTE), Ok(true));
    assert_eq!(cache.add_with("a", 2, MINUTE), Ok(false));
    let read = cache.get_versioned::<u8>("a").unwrap().unwrap();
    assert_eq!((read.value, read.flags), (1, 0));
    assert_eq!(cache.cas_with("a", 2, read.token, MINUTE), Ok(Cas::Stored));
    assert_eq!(cache.cas_with("a", 3, read.token, MINUTE), Ok(Cas::Changed));
    assert_eq!(cache.cas_with("none", 3, read.token, MINUTE), Ok(Cas::Missing));
    assert_eq!(cache.touch("a", MINUTE), Ok(true));
    assert_eq!(cache.touch("none", MINUTE), Ok(false));
    assert_eq!(cache.delete("a"), Ok(true));
    assert_eq!(cache.delete("a"), Ok(false));
    for expected in [vec!["x".to_owned()], vec!["x".to_owned(), "x".to_owned()]] {
        let push = |names: Option<Vec<String>>| {
            let mut names = names.unwrap_or_default();
            names.push("x".into());
            Some(names)
        };
        assert_eq!(cache.update_with("names", MINUTE, push), Ok(Some(expected)));
    }
    assert_eq!(cache.update_with("names", MINUTE, |_: Option<Vec<String>>| None), Ok(None));
    assert_eq!(cache.take::<Vec<String>>("names").unwrap().unwrap().len(), 2);
    assert_eq!(cache.take::<Vec<String>>("names"), Ok(None));
}

fn numbers<C: Cache>(cache: &C) {
    assert_eq!(cache.incr("n", 1), Ok(None));
    assert_eq!(cache.incr_or_with("n", 1, 9, MINUTE), Ok(9));
    assert_eq!(cache.incr_or_with("n", 1, 9, MINUTE), Ok(10));
    assert_eq!(cache.decr("n", 1), Ok(Some(9)));
    assert_eq!(cache.get::<String>("n").unwrap().unwrap().trim_end(), "9");
    assert_eq!((cache.get::<u64>("n"), cache.decr("n", 20)), (Ok(Some(9)), Ok(Some(0))));
    cache.set("n", u64::MAX).unwrap();
    assert_eq!(cache.incr("n", 2), Ok(Some(1)));
    for count in [
        |cache: &C| cache.incr("n", 1),
        |cache: &C| cache.incr_or_with("n", 1, 9, MINUTE).map(Some),
    ] {
        let read = cache.get_versioned::<u64>("n").unwrap().unwrap();
        assert_eq!(count(cache), Ok(Some(read.value + 1)));
        assert_eq!(cache.cas_with("n", 7, read.token, MINUTE), Ok(Cas::Changed), "a new token");
    }
    cache.set("n", "none").unwrap();
    is_refused(cache.incr("n", 1), "non-numeric");
}

fn expiries(cache: &impl Cache, pass: &impl Fn(Duration)) {
    cache.set_with("never", 1, distcache::client::Expiry::Never).unwrap();
    cache.set_with("at once", 1, Duration::ZERO).unwrap();
    cache.set_with("at", 1, SystemTime::UNIX_EPOCH + MINUTE).unwrap();
    cache.set_with("soon", 1, Duration::from_millis(500)).unwrap();
    cache.set_with("touched", 1, SECOND).unwrap();
    cache.set_with("later", 1, MINUTE).unwrap();
    cache.set_with("counted", 1, MINUTE).unwrap();
    cache.incr("counted", 1).unwrap();
    assert!(cache.touch("touched", MINUTE).unwrap() && cache.touch("counted", SECOND).unwrap());
    let there = |keys: &[&str]| -> Vec<bool> {
        cache.get_many::<u8>(keys).all().unwrap().iter().map(Option::is_some).collect()
    };
    assert_eq!(there(&["never", "at once", "at", "soon"]), [true, false, false, true]);
    pass(SECOND + SECOND / 10);
    let left = there(&["never", "soon", "touched", "later", "counted"]);
    assert_eq!(left, [true, false, true, true, false]);
}

fn computations(cache: &(impl Cache + Sync)) {
    let computed = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let compute = || {
                    std::thread::sleep(Duration::from_millis(50));
                    computed.fetch_add(1, Ordering::SeqCst);
                    7
                };
                assert_eq!(cache.get_or_compute("once", MINUTE, compute), Ok(7));
            });
        }
    });
    assert_eq!(computed.load(Ordering::SeqCst), 1);
    let fails = || Err::<u8, _>(Error::Value("no luck".into()));
    assert_eq!(cache.try_get_or_compute("k", MINUTE, fails), fails());
    let look = || {
        assert_eq!((cache.get::<u8>("k"), cache.incr("k", 1)), (Ok(None), Ok(None)));
        1
    };
    assert_eq!(cache.get_or_compute("k", MINUTE, look), Ok(1));
    // What changes meanwhile is not overwritten.
    let overtaken = || cache.set("o", 5).map(|()| 6).unwrap();
    assert_eq!(
        (cache.get_or_compute("o", MINUTE, overtaken), cache.get("o")),
        (Ok(6), Ok(Some(5)))
    );
    let deleted = || cache.delete("d").map(|_| 6).unwrap();
    assert_eq!(cache.get_or_compute("d", MINUTE, deleted), Ok(6));
    assert_eq!(cache.get::<u8>("d"), Ok(None));
    cache.set("spoiled", "no number").unwrap();
    assert_eq!(cache.get_or_compute("spoiled", MINUTE, || 8), Ok(8));
    assert_eq!(cache.get("spoiled"), Ok(Some(8)));
}

fn all(cache: &(impl Cache + Sync), pass: impl Fn(Duration)) {
    values(cache);
    stores(cache);
    numbers(cache);
    expiries(cache, &pass);
    computations(cache);
}

#[test]
fn the_fake_does_what_a_server_does() {
    let (_server, client) = real(config());
    all(&client, std::thread::sleep);
    let (cache, pass) = fake(config());
    all(&cache, pass);
}

#[test]
fn a_cache_that_is_away() {
    for when_down in [WhenDown::Error, WhenDown::Miss] {
        let misses = when_down == WhenDown::Miss;
        let (cache, _) = fake(Config { when_down: when_down.clone(), ..Config::default() });
        let config = Config { when_down, failures_max: 1, ..Config::default() };
        let (server, client) = real(config);
        server.stop();
        let _ = client.set("n", 1);
        cache.set("n", 1).unwrap();
        cache.set_away(true);
        fn look(cache: &impl Cache, misses: bool) {
            let down = |error: &Error| matches!(error, Error::Down { .. });
            assert_eq!(cache.get::<u8>("n").is_ok_and(|found| found.is_none()), misses);
            assert_eq!(cache.set("n", 1).is_ok(), misses);
            assert_eq!(cache.add_with("n", 1, MINUTE) == Ok(false), misses);
            assert!(cache.incr_or_with("n", 1, 1, MINUTE).is_err_and(|error| down(&error)));
            assert_eq!(cache.get_or_compute("n", MINUTE, || 9), Ok(9), "it needs no cache");
        }
        look(&client, misses);
        look(&cache, misses);
        cache.set_away(false);
        assert_eq!(cache.get::<u8>("n"), Ok(Some(1)), "it was only away");
    }
    let wrong = Config { failures_max: 0, ..Config::default() };
    assert!(matches!(FakeCache::with_clock(wrong, SystemTime::now), Err(Error::Config(_))));
}

#[cfg(feature = "tokio")]
mod asynchronous {
    use super::*;
    use distcache::client::asynchronous::{self, Cache};

    async fn table(cache: impl Cache + Clone + Send + 'static) {
        cache.set("a", 1).await.unwrap();
        assert_eq!(cache.get("a").await, Ok(Some(1)));
        assert_eq!(cache.add_with("a", 2, MINUTE).await, Ok(false));
        let read = cache.get_versioned::<u8>("a").await.unwrap().unwrap();
        assert_eq!(cache.cas_with("a", 2, read.token, MINUTE).await, Ok(Cas::Stored));
        assert_eq!(cache.cas_with("a", 3, read.token, MINUTE).await, Ok(Cas::Changed));
        assert_eq!(cache.incr("a", 5).await, Ok(Some(7)));
        assert_eq!(cache.decr("a", 5).await, Ok(Some(2)));
        assert_eq!(cache.get_many::<u8>(&["a", "b"]).await.found(), [Some(2), None]);
        assert_eq!(cache.touch("a", MINUTE).await, Ok(true));
        let up = |value: Option<u8>| value.map(|value| value + 1);
        assert_eq!(cache.update_with("a", MINUTE, up).await, Ok(Some(3)));
        assert_eq!(cache.take::<u8>("a").await, Ok(Some(3)));
        assert_eq!(cache.delete("a").await, Ok(false));
        cache.set_with("a", 1, Duration::ZERO).await.unwrap();
        assert_eq!(cache.get::<u8>("a").await, Ok(None));
        assert_eq!(cache.incr_or_with("n", 1, 5, MINUTE).await, Ok(5));
        let fails = || async { Err::<u8, _>(Error::Value("no luck".into())) };
        assert!(cache.try_get_or_compute("k", MINUTE, fails).await.is_err());
        static COMPUTED: AtomicU32 = AtomicU32::new(0);
        let before = COMPUTED.load(Ordering::SeqCst);
        let tasks = (0..8).map(|_| {
            let cache = cache.clone();
            let slow = || async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                COMPUTED.fetch_add(1, Ordering::SeqCst);
                7
            };
            tokio::spawn(async move { cache.get_or_compute("k", MINUTE, slow).await })
        });
        for task in tasks.collect::<Vec<_>>() {
            assert_eq!(task.await.unwrap(), Ok(7));
        }
        assert_eq!(COMPUTED.load(Ordering::SeqCst) - before, 1);
    }

    #[tokio::test]
    async fn the_fake_does_what_a_server_does() {
        let server = Server::bind("127.0.0.1:0").unwrap();
        let address = server.addresses()[0].to_string();
        table(asynchronous::Client::connect([address]).unwrap()).await;
        table(FakeCache::new()).await;
    }

    #[tokio::test]
    async fn a_computation_that_is_given_up_lets_the_next_one_try() {
        let cache = FakeCache::new();
        let never = || std::future::pending::<u8>();
        let given_up = cache.get_or_compute("k", MINUTE, never);
        assert!(tokio::time::timeout(Duration::from_millis(10), given_up).await.is_err());
        assert_eq!(Cache::get_or_compute(&cache, "k", MINUTE, || async { 7 }).await, Ok(7));
    }
}
