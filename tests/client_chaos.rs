//! Bad networks and dying servers. Goal: no wrong value ever, no call beyond its time-out, and use
//! of a server again soon after it is back. Method: a proxy in front of each server spoils the
//! connections (`chaos`), or servers are stopped and started under load; every value names its key
//! and the write it came from, so that a value read is either one of those that may be there or
//! proves a fault.

#![cfg(all(feature = "server", feature = "client"))]

mod chaos;

use chaos::{BAD_WEATHER, Proxy, Stopwatch, Weather};
use distcache::client::{Client, Config, Error, Event, Listener, StaleGuard, State, WhenDown};
use distcache::server::Server;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Replies are waited for half as long, which is less than `Weather::Late` takes.
const CALL_TIMEOUT: Duration = Duration::from_millis(150);

/// Far more than anything takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn config() -> Config {
    Config {
        connect_timeout: CALL_TIMEOUT / 2,
        read_timeout: CALL_TIMEOUT / 2,
        write_timeout: CALL_TIMEOUT / 2,
        call_timeout: CALL_TIMEOUT,
        probe_after: Duration::from_millis(10),
        probe_after_max: Duration::from_millis(100),
        check_every: None,
        ..Config::default()
    }
}

/// A key of one thread, and what may be read from it.
struct Track {
    key: String,
    next: u64,
    /// Acknowledged last; `None` before the first.
    known: Option<u64>,
    /// Written since the start without an answer: each may have taken effect, at any time.
    unknown: Vec<u64>,
}

impl Track {
    fn value(&self, number: u64) -> String {
        format!("{} {number} {}", self.key, "x".repeat(number as usize % 50))
    }

    fn check(&self, found: Option<&str>) {
        let Some(found) = found else { return };
        let mut may_be = self.known.iter().chain(&self.unknown);
        assert!(
            may_be.any(|number| self.value(*number) == found),
            "{found:?} read from {}: known {:?}, unknown {:?}",
            self.key,
            self.known,
            self.unknown
        );
    }

    fn write(&mut self, client: &Client) -> Result<(), Error> {
        self.next += 1;
        let result = client.set(&self.key, self.value(self.next));
        self.note(result.is_ok());
        result
    }

    /// What became of the last write.
    fn note(&mut self, is_done: bool) {
        match is_done {
            true => self.known = Some(self.next),
            false => self.unknown.push(self.next),
        }
    }
}

/// Counts in a range that no other counter reaches: replies to `incr` name no key. Nor can they
/// show that a digit was lost on the way; where that happens (`lossy`) they are not looked at.
fn count(client: &Client, number: usize, lossy: bool) -> Result<(), Error> {
    let (key, base) = (format!("counter-{number}"), number as u64 * 1_000_000);
    match client.incr(&key, 1)? {
        Some(_) if lossy => {}
        Some(count) => assert_eq!(count / 1_000_000, number as u64, "{count} is not of {key}"),
        None => {
            client.add(&key, base)?;
        }
    }
    Ok(())
}

/// Calls of one thread until it is told to end: reads, writes, and reads of many keys.
fn load(
    client: &Client,
    thread: usize,
    until: &dyn Fn() -> bool,
    watch: &Stopwatch,
    lossy: bool,
) -> (u64, u64, Duration) {
    let track =
        |at| Track { key: format!("t{thread}-{at}"), next: 0, known: None, unknown: vec![] };
    let mut tracks: Vec<Track> = (0..8).map(track).collect();
    let (mut good, mut failed, mut longest) = (0, 0, Duration::ZERO);
    let mut round = 0;
    while !until() {
        round += 1;
        let start = Instant::now();
        let at = round % tracks.len();
        let result = match round % 6 {
            0 => tracks[at].write(client),
            3.. => count(client, thread * tracks.len() + round % tracks.len(), lossy),
            1 => client
                .get::<String>(&tracks[at].key)
                .map(|found| tracks[at].check(found.as_deref())),
            _ => {
                let keys: Vec<&String> = tracks.iter().map(|track| &track.key).collect();
                let many = client.get_many::<String>(&keys).into_results();
                for (track, found) in tracks.iter().zip(&many) {
                    track.check(found.as_ref().ok().and_then(|found| found.as_deref()));
                }
                many.into_iter().find(Result::is_err).map_or(Ok(()), |error| error.map(|_| ()))
            }
        };
        let took = start.elapsed();
        assert!(took <= CALL_TIMEOUT + CALL_TIMEOUT / 8 + watch.slack(), "{took:?}: {result:?}");
        longest = longest.max(took);
        *(if result.is_ok() { &mut good } else { &mut failed }) += 1;
        if result.is_err() {
            // An ejected server refuses at once.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    (good, failed, longest)
}

#[test]
fn bad_weather_never_makes_wrong_values_or_late_answers() {
    let servers: Vec<Server> = (0..3).map(|_| Server::bind("127.0.0.1:0").unwrap()).collect();
    let watch = Stopwatch::start();
    for weather in BAD_WEATHER {
        let proxies: Vec<Proxy> =
            servers.iter().map(|server| Proxy::to(server.addresses()[0])).collect();
        let addresses = proxies.iter().map(|proxy| proxy.address.to_string());
        let client = Client::with_config(addresses, config()).unwrap();
        client.flush_all(None);
        let start = Instant::now();
        let (bad, fair) = (Duration::from_millis(250), Duration::from_millis(400));
        let until = || start.elapsed() > fair;
        let results = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..3)
                .map(|thread| {
                    let (client, watch, until) = (&client, &watch, &until);
                    scope.spawn(move || {
                        load(client, thread, until, watch, weather == Weather::Garbage)
                    })
                })
                .collect();
            std::thread::sleep(Duration::from_millis(50));
            proxies[0].set(weather);
            proxies[1].set(weather);
            std::thread::sleep(bad - Duration::from_millis(50));
            proxies.iter().for_each(|proxy| proxy.set(Weather::Fair));
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        let sum = |part: fn(&(u64, u64, Duration)) -> u64| results.iter().map(part).sum::<u64>();
        let longest = results.iter().map(|result| result.2).max().unwrap();
        println!(
            "{weather:?}: {} good, {} failed, longest {longest:?}",
            sum(|r| r.0),
            sum(|r| r.1)
        );
        assert!(sum(|r| r.0) > 0);
        assert_recovers(&client, Instant::now());
    }
}

/// Waits until all servers answer again; returns how long that took.
fn assert_recovers(client: &Client, start: Instant) -> Duration {
    loop {
        let all_well = client.version().iter().all(|(_, version)| version.is_ok());
        if all_well && client.servers().iter().all(|server| server.state == State::Healthy) {
            return start.elapsed();
        }
        assert!(start.elapsed() < PATIENCE, "{:?}", client.servers());
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn bind_again(address: SocketAddr) -> Server {
    let start = Instant::now();
    loop {
        match Server::bind(address) {
            Ok(server) => return server,
            Err(error) => assert!(start.elapsed() < PATIENCE, "{address}: {error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn servers_killed_and_restarted_under_load() {
    let mut servers: Vec<Server> = (0..3).map(|_| Server::bind("127.0.0.1:0").unwrap()).collect();
    let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.addresses()[0]).collect();
    let client =
        Client::with_config(addresses.iter().map(SocketAddr::to_string), config()).unwrap();
    let watch = Stopwatch::start();
    let ended = std::sync::atomic::AtomicBool::new(false);
    let until = || ended.load(std::sync::atomic::Ordering::Relaxed);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|thread| {
                let (client, watch, until) = (&client, &watch, &until);
                scope.spawn(move || load(client, thread, until, watch, false))
            })
            .collect();
        let mut recoveries = Vec::new();
        for round in 0..6 {
            let killed = servers.remove(0);
            let address = killed.addresses()[0];
            killed.stop();
            std::thread::sleep(Duration::from_millis(60));
            servers.push(bind_again(address));
            recoveries.push(assert_recovers(&client, Instant::now()));
            println!("round {round}: {address} in use {:?} after its return", recoveries[round]);
        }
        ended.store(true, std::sync::atomic::Ordering::Relaxed);
        for thread in threads {
            let (good, failed, longest) = thread.join().unwrap();
            println!("{good} good, {failed} failed, longest {longest:?}");
            assert!(good > 0);
        }
        recoveries.sort_unstable();
        let limit = Duration::from_millis(100) + CALL_TIMEOUT + 10 * watch.slack();
        assert!(recoveries[3] < limit, "half of the recoveries within {limit:?}: {recoveries:?}");
    });
    assert!(client.counters().rejoins > 0);
}

/// Two servers, each behind a proxy, and a key that the first one owns.
fn pair(config: Config) -> (Vec<Server>, Vec<Proxy>, Client, String) {
    let servers: Vec<Server> = (0..2).map(|_| Server::bind("127.0.0.1:0").unwrap()).collect();
    let proxies: Vec<Proxy> =
        servers.iter().map(|server| Proxy::to(server.addresses()[0])).collect();
    let addresses = proxies.iter().map(|proxy| proxy.address.to_string());
    let client = Client::with_config(addresses, config).unwrap();
    let first = proxies[0].address.port();
    let mut names = (0..).map(|at| format!("key-{at}"));
    let key = names.find(|key| client.server_of(key).unwrap().port() == first).unwrap();
    (servers, proxies, client, key)
}

fn wait_for(client: &Client, server: usize, state: State, mut meanwhile: impl FnMut()) {
    let start = Instant::now();
    while client.servers()[server].state != state {
        meanwhile();
        assert!(start.elapsed() < PATIENCE, "{:?}", client.servers());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_server_that_flaps_never_serves_what_was_overwritten_elsewhere() {
    let next = WhenDown::NextServer { expiry_seconds_max: 60 };
    for (guard, guarded) in [
        (StaleGuard::Repair { keys_max: 100 }, true),
        (StaleGuard::Repair { keys_max: 0 }, true),
        (StaleGuard::Off, false),
    ] {
        let config = Config { when_down: next.clone(), stale_guard: guard, ..config() };
        let (_servers, proxies, client, key) = pair(config);
        client.set(&key, "first").unwrap();
        proxies[0].set(Weather::Cut);
        wait_for(&client, 0, State::Ejected, || drop(client.get::<String>(&key)));
        assert_eq!(client.get::<String>(&key).unwrap(), None, "the other server has none");
        client.set(&key, "second").unwrap();
        assert_eq!(client.get::<String>(&key).unwrap().as_deref(), Some("second"));
        proxies[0].set(Weather::Fair);
        wait_for(&client, 0, State::Healthy, || {
            let _ = client.version();
        });
        let found = client.get::<String>(&key).unwrap();
        let expected = if guarded { None } else { Some("first") };
        assert_eq!(found.as_deref(), expected, "{guard:?}: after its return");
        client.set(&key, "third").unwrap();
        proxies[0].set(Weather::Cut);
        wait_for(&client, 0, State::Ejected, || drop(client.get::<String>(&key)));
        // With too many keys to remember, the stand-in's copies wait for their expiry.
        if guard != (StaleGuard::Repair { keys_max: 0 }) {
            let found = client.get::<String>(&key).unwrap();
            let expected = if guarded { None } else { Some("second") };
            assert_eq!(found.as_deref(), expected, "{guard:?}: at its next absence");
        }
    }
}

#[test]
fn what_becomes_of_a_dead_servers_keys() {
    let spare = Server::bind("127.0.0.1:0").unwrap();
    let gutter = WhenDown::Gutter {
        nodes: vec![spare.addresses()[0].to_string().parse().unwrap()],
        expiry_seconds_max: 10,
    };
    let next = WhenDown::NextServer { expiry_seconds_max: 10 };
    for when_down in [WhenDown::Error, WhenDown::Miss, next, gutter] {
        let config = Config { when_down: when_down.clone(), ..config() };
        let (_servers, proxies, client, key) = pair(config);
        proxies[0].set(Weather::Cut);
        wait_for(&client, 0, State::Ejected, || drop(client.set(&key, 1)));
        let (set, got) = (client.set(&key, 7), client.get::<u8>(&key));
        let many = client.get_many::<u8>([&key]).into_results().remove(0);
        let down = |result: &Result<_, Error>| matches!(result, Err(Error::Down { .. }));
        match when_down {
            WhenDown::Error => assert!(down(&set.map(|()| None)) && down(&got) && down(&many)),
            WhenDown::Miss => assert_eq!((set, got, many), (Ok(()), Ok(None), Ok(None))),
            _ => {
                assert_eq!((set, got, many), (Ok(()), Ok(Some(7)), Ok(Some(7))));
                let ttl = client.inspect(&key).unwrap().unwrap().ttl_seconds;
                assert!(ttl.is_some_and(|seconds| seconds <= 10), "{ttl:?}");
            }
        }
        let unique = client.unique_id(&key).map(|_| None);
        assert!(down(&unique), "{when_down:?}: numbers never come from a stand-in");
        let computed: u8 = client.get_or_compute(format!("{key}x"), Duration::ZERO, || 9).unwrap();
        assert_eq!(computed, 9);
    }
}

#[test]
fn events_tell_the_story() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    let listener = Listener::new(move |event: &Event| seen.lock().unwrap().push(event.clone()));
    let (_servers, proxies, client, key) = pair(Config { listener: Some(listener), ..config() });
    client.set(&key, 1).unwrap();
    proxies[0].set(Weather::Cut);
    wait_for(&client, 0, State::Ejected, || drop(client.get::<u8>(&key)));
    let probes = || {
        events.lock().unwrap().iter().filter(|one| matches!(one, Event::ProbeFailed { .. })).count()
    };
    let start = Instant::now();
    while probes() < 2 {
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
    proxies[0].set(Weather::Fair);
    wait_for(&client, 0, State::OnTrial, || ());
    assert_eq!(client.get::<u8>(&key).unwrap(), Some(1));
    let names: Vec<&str> = events
        .lock()
        .unwrap()
        .iter()
        .map(|event| match event {
            Event::ServersChanged { .. } => "servers",
            Event::Ejected { .. } => "ejected",
            Event::ProbeFailed { .. } => "probe failed",
            Event::OnTrial { .. } => "on trial",
            Event::Rejoined { .. } => "rejoined",
            _ => "?",
        })
        .collect();
    let mut story = names.clone();
    story.dedup();
    assert_eq!(story, ["servers", "ejected", "probe failed", "on trial", "rejoined"], "{names:?}");
}

/// The same on connections that many calls share, half of which are given up.
#[cfg(feature = "tokio")]
mod pipelined {
    use super::*;
    use distcache::client::asynchronous::Client;

    async fn load(client: Client, task: usize, until: Instant, lossy: bool) -> [u64; 3] {
        let track =
            |at| Track { key: format!("p{task}-{at}"), next: 0, known: None, unknown: vec![] };
        let mut tracks: Vec<Track> = (0..8).map(track).collect();
        let (mut ends, mut round) = ([0; 3], 0);
        while Instant::now() < until {
            round += 1;
            let patience = match round % 2 {
                0 => Duration::from_micros((round * 37 % 1500) as u64),
                _ => CALL_TIMEOUT * 10,
            };
            let at = round % tracks.len();
            let ended =
                tokio::time::timeout(patience, call(&client, &mut tracks, at, round, lossy));
            let ended = ended.await;
            if round % 5 == 0 && ended.is_err() {
                tracks[at].note(false);
            }
            ends[match ended {
                Ok(Ok(())) => 0,
                Ok(Err(_)) => 1,
                Err(_) => 2,
            }] += 1;
            if matches!(ended, Ok(Err(_))) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        ends
    }

    async fn call(
        client: &Client,
        tracks: &mut [Track],
        at: usize,
        round: usize,
        lossy: bool,
    ) -> Result<(), Error> {
        let number = round % 5;
        match number {
            0 => {
                let track = &mut tracks[at];
                track.next += 1;
                let result = client.set(&track.key, track.value(track.next)).await;
                track.note(result.is_ok());
                result
            }
            1 => {
                let keys: Vec<&String> = tracks.iter().map(|track| &track.key).collect();
                let many = client.get_many::<String>(&keys).await;
                for (track, found) in tracks.iter().zip(many.iter()) {
                    track.check(found.as_ref().ok().and_then(|found| found.as_deref()));
                }
                many.all().map(|_| ())
            }
            2 => {
                let base = (tracks[0].key.len() * 100 + at) as u64 * 1_000_000;
                let key = format!("counter-{base}");
                match client.incr(&key, 1).await? {
                    Some(count) if !lossy => assert_eq!(count / 1_000_000, base / 1_000_000),
                    Some(_) => {}
                    None => drop(client.add(&key, base).await?),
                }
                Ok(())
            }
            _ => {
                let found = client.get::<String>(&tracks[at].key).await?;
                tracks[at].check(found.as_deref());
                Ok(())
            }
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn bad_weather_never_makes_wrong_values() {
        let servers: Vec<Server> = (0..3).map(|_| Server::bind("127.0.0.1:0").unwrap()).collect();
        for weather in BAD_WEATHER {
            let proxies: Vec<Proxy> =
                servers.iter().map(|server| Proxy::to(server.addresses()[0])).collect();
            let addresses = proxies.iter().map(|proxy| proxy.address.to_string());
            let client = Client::with_config(addresses, config()).unwrap();
            let _ = client.flush_all(None).await;
            let end = Instant::now() + Duration::from_millis(400);
            let lossy = weather == Weather::Garbage;
            let spawn = |task| tokio::spawn(load(client.clone(), task, end, lossy));
            let tasks: Vec<_> = (0..20).map(spawn).collect();
            tokio::time::sleep(Duration::from_millis(50)).await;
            proxies[0].set(weather);
            proxies[1].set(weather);
            tokio::time::sleep(Duration::from_millis(200)).await;
            proxies.iter().for_each(|proxy| proxy.set(Weather::Fair));
            let mut ends = [0; 3];
            for task in tasks {
                let task = task.await.unwrap();
                ends.iter_mut().zip(task).for_each(|(sum, count)| *sum += count);
            }
            println!("{weather:?}: {} good, {} failed, {} given up", ends[0], ends[1], ends[2]);
            assert!(ends[0] > 0 && ends[2] > 0);
            let start = Instant::now();
            let healthy = |client: &Client| {
                client.servers().iter().all(|server| server.state == State::Healthy)
            };
            while client.version().await.iter().any(|(_, version)| version.is_err())
                || !healthy(&client)
            {
                assert!(start.elapsed() < PATIENCE, "{:?}", client.servers());
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }
}
