//! The asynchronous face. Goal: it means what the blocking one means, and a cancelled call harms no
//! other. Method: the same servers of this process, with a proxy that can stall.

#![cfg(all(feature = "server", feature = "tokio"))]

#[allow(dead_code, reason = "shared with tests that use more of it")]
mod chaos;

use chaos::{Proxy, Weather};
use distcache::client::asynchronous::Client;
use distcache::client::{Cas, Config, Error, State};
use distcache::server::Server;
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
    let compute = async { Ok::<_, Error>(9) };
    assert_eq!(client.get_or_compute("c", minute, compute).await, Ok(9));
    let again = client.get_or_compute("c", minute, async { Err(Error::NoServers) }).await;
    assert_eq!(again, Ok(9));
    let minute = Duration::from_secs(60);
    client.set_many_with(&[("x", 1), ("y", 2)], minute).await.all().unwrap();
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
    let read = client.get_many_versioned::<u32>(&["x", "none"]).await.all().unwrap();
    assert_eq!(client.cas("x", 1, read[0].unwrap().token).await, Ok(Cas::Stored));
    assert_eq!(read[1], None);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_never_hands_its_reply_to_another() {
    let (_servers, client) = client(1, Config { connections_max: 4, ..Config::default() });
    for at in 0..64 {
        client.set(at, format!("value {at}")).await.unwrap();
    }
    let tasks: Vec<_> = (0..8u64)
        .map(|task| {
            let client = client.clone();
            tokio::spawn(async move {
                for round in 0..400u64 {
                    let key = (round * 7 + task) % 64;
                    // Somewhere between not begun and done.
                    let patience = Duration::from_micros(round % 200);
                    let get = client.get::<String>(key);
                    if let Ok(found) = tokio::time::timeout(patience, get).await {
                        assert_eq!(found.unwrap(), Some(format!("value {key}")));
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    for at in 0..64 {
        assert_eq!(client.get::<String>(at).await.unwrap(), Some(format!("value {at}")));
    }
    assert!(client.servers().iter().all(|server| server.failures == 0));
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
