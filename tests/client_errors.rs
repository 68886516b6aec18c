//! What errors say. Goal: a write that failed says whether it may have been done, and only such a
//! write does; a cache that refuses our login is one that is away; `servers` tells the truth.
//! Method: servers that misbehave on purpose, the same table for both faces.

#![cfg(all(feature = "server", feature = "client"))]

#[allow(dead_code, reason = "shared with tests that use more of it")]
mod scripted;

use distcache::client::{Client, Config, Error, Many, State, WhenDown};
use distcache::server::Server;
use scripted::Scripted;
use std::io::Write;
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// What a call comes to: its error in a word, and whether it is in doubt.
type Failure = (&'static str, bool);

/// Of a set, a get, an incr, a get of many and a set of many.
type Row = [Failure; 5];

fn config() -> Config {
    let timeout = Duration::from_millis(150);
    Config {
        call_timeout: timeout,
        read_timeout: timeout,
        failures_max: u32::MAX,
        check_every: None,
        ..Config::default()
    }
}

fn failure(error: &Error) -> Failure {
    let word = match error {
        Error::Connect { .. } => "connect",
        Error::Io { .. } => "io",
        Error::Timeout { .. } => "timeout",
        Error::Protocol { .. } => "protocol",
        Error::Refused { .. } => "refused",
        Error::Key { .. } => "key",
        Error::Value(_) => "value",
        Error::Down { .. } => "down",
        Error::Login { .. } => "login",
        Error::Tls { .. } => "tls",
        Error::Partial { .. } => "partial",
        _ => "other",
    };
    let says_so = error.to_string().contains("may or may not be done");
    assert_eq!(says_so, error.is_in_doubt(), "{error}");
    (word, error.is_in_doubt())
}

fn of<R>(result: Result<R, Error>) -> Failure {
    result.map_or_else(|error| failure(&error), |_| ("none", false))
}

fn first<R>(many: Many<R>) -> Failure {
    of(many.into_results().remove(0))
}

fn blocking(client: &Client) -> Row {
    [
        of(client.set("k", 1)),
        of(client.get::<u8>("k")),
        of(client.incr("k", 1)),
        first(client.get_many::<u8>(["k"])),
        first(client.set_many([("k", 1)])),
    ]
}

#[cfg(feature = "tokio")]
fn asynchronous(address: &str, config: Config) -> Option<Row> {
    use distcache::client::asynchronous::Client;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let client = Client::with_config([address], config).unwrap();
    Some(runtime.block_on(async {
        [
            of(client.set("k", 1).await),
            of(client.get::<u8>("k").await),
            of(client.incr("k", 1).await),
            first(client.get_many::<u8>(["k"]).await),
            first(client.set_many([("k", 1)]).await),
        ]
    }))
}

#[cfg(not(feature = "tokio"))]
fn asynchronous(_: &str, _: Config) -> Option<Row> {
    None
}

fn both(address: &str, config: &Config, expected: Row, why: &str) {
    let client = Client::with_config([address], config.clone()).unwrap();
    assert_eq!(blocking(&client), expected, "{why}");
    if let Some(row) = asynchronous(address, config.clone()) {
        assert_eq!(row, expected, "{why}, asynchronous");
    }
}

/// A write of each kind fails like this and is in doubt, a read fails like this.
fn doubted(word: &'static str) -> Row {
    [(word, true), (word, false), (word, true), (word, false), (word, true)]
}

#[test]
fn a_write_says_whether_it_may_have_been_done_and_nothing_else_does() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    both(&nobody, &config(), [("connect", false); 5], "nobody listens");
    let closes = Scripted::start(|_, _| false);
    both(&closes.address.to_string(), &config(), doubted("io"), "closed without an answer");
    let silent = Scripted::start(|_, _| true);
    both(&silent.address.to_string(), &config(), doubted("timeout"), "no answer");
    let client = Client::with_config([silent.address.to_string()], config()).unwrap();
    assert_eq!(of(client.append("k", b"x")), ("timeout", false), "it was only looked at");
    let odd = Scripted::start(|_, out| out.write_all(b"SERVER_ERROR who knows\r\n").is_ok());
    both(&odd.address.to_string(), &config(), doubted("protocol"), "an answer nobody knows");
    let full = Scripted::start(|line, out| match line {
        // The block of a set.
        "1" => true,
        line if line.starts_with("get") => out.write_all(b"END\r\n").is_ok(),
        _ => out.write_all(b"SERVER_ERROR out of memory storing object\r\n").is_ok(),
    });
    let (refused, none) = (("refused", false), ("none", false));
    let row = [refused, none, refused, none, refused];
    both(&full.address.to_string(), &config(), row, "a refusal");
}

/// One server that does everything, and one that nobody can reach.
fn half() -> (Scripted, [String; 2]) {
    let does = Scripted::start(|line, out| {
        let answer = match line.split(' ').next().unwrap_or_default() {
            "incr" => "2\r\n",
            "get" => "END\r\n",
            "delete" => "DELETED\r\n",
            "set" => "STORED\r\n",
            _ => return true,
        };
        out.write_all(answer.as_bytes()).is_ok()
    });
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let addresses = [does.address.to_string(), nobody];
    (does, addresses)
}

#[test]
fn a_write_of_one_copy_of_two_is_in_doubt() {
    let (does, addresses) = half();
    let config = Config { replicas: 2, ..config() };
    let client = Client::with_config(&addresses, config.clone()).unwrap();
    let is_owned = |key: &String| client.server_of(key).unwrap().port() == does.address.port();
    let key = |owned| (0..).map(|at| format!("k{at}")).find(|key| is_owned(key) == owned).unwrap();
    let (partial, connect, none) = (("partial", true), ("connect", false), ("none", false));
    // Of a set, a set of many, a delete, a delete of many, an incr, an incr of many, and reads.
    let blocking = |key: &str| {
        [
            of(client.set(key, 1)),
            first(client.set_many([(key, 1)])),
            of(client.delete(key)),
            first(client.delete_many([key])),
            of(client.incr(key, 1)),
            first(client.incr_many([key], 1)),
            of(client.get::<u8>(key)),
            first(client.get_many::<u8>([key])),
        ]
    };
    let half = [partial; 4];
    for (owned, counts, reads) in [(true, partial, none), (false, connect, connect)] {
        let mut expected = half.to_vec();
        expected.extend([counts, counts, reads, reads]);
        let key = key(owned);
        assert_eq!(blocking(&key)[..], expected, "{owned}");
        #[cfg(feature = "tokio")]
        {
            use distcache::client::asynchronous::Client;
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            let client = Client::with_config(&addresses, config.clone()).unwrap();
            let key = key.as_str();
            let row = runtime.block_on(async {
                [
                    of(client.set(key, 1).await),
                    first(client.set_many([(key, 1)]).await),
                    of(client.delete(key).await),
                    first(client.delete_many([key]).await),
                    of(client.incr(key, 1).await),
                    first(client.incr_many([key], 1).await),
                    of(client.get::<u8>(key).await),
                    first(client.get_many::<u8>([key]).await),
                ]
            });
            assert_eq!(row[..], expected, "{owned}, asynchronous");
        }
    }
}

#[test]
fn a_stand_in_gets_its_own_keys_and_others_on_one_connection() {
    let server = Server::bind("127.0.0.1:0").unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let config = Config {
        connections_max: 1,
        failures_max: 1,
        probe_after: Duration::from_secs(60),
        when_down: WhenDown::NextServer { expiry_seconds_max: 60 },
        call_timeout: Duration::from_secs(2),
        read_timeout: Duration::from_secs(2),
        ..config()
    };
    let addresses = [server.addresses()[0].to_string(), nobody];
    let client = Client::with_config(addresses, config).unwrap();
    let _ = client.version();
    assert_eq!(client.servers()[1].state, State::Ejected);
    let start = Instant::now();
    client.set_many((0..50).map(|key| (key, key))).all().unwrap();
    assert!(start.elapsed() < Duration::from_millis(900), "{:?}", start.elapsed());
    let expires = |key: &u8| client.inspect(*key).unwrap().unwrap().ttl_seconds.is_some();
    let expiring = (0..50u8).filter(expires).count();
    assert!((1..50).contains(&expiring), "those that do not belong there: {expiring}");
}

#[test]
fn one_look_that_was_lost_is_no_verdict_and_two_are() {
    for (lost, heard) in [(1, 4), (2, 2)] {
        let left = std::sync::atomic::AtomicUsize::new(lost);
        let server = Scripted::start(move |line, out| {
            use std::sync::atomic::Ordering::Relaxed;
            match line {
                line if line.starts_with("mg ") => {
                    let loses = left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1));
                    loses.is_err() && out.write_all(b"EN\r\n").is_ok()
                }
                line if line.starts_with("append ") => true,
                _ => out.write_all(b"NOT_STORED\r\n").is_ok(),
            }
        });
        let client = Client::with_config([server.address.to_string()], config()).unwrap();
        for _ in 0..4 {
            assert_eq!(client.append("k", b"x"), Ok(false));
        }
        assert_eq!(server.heard("mg "), heard, "{lost} lost");
    }
}

#[test]
fn what_was_never_sent_is_not_in_doubt() {
    let silent = Scripted::start(|_, _| true);
    let address = silent.address.to_string();
    let client = Client::with_config([&address], config()).unwrap();
    assert_eq!(of(client.set("a key", 1)), ("key", false));
    assert_eq!(of(client.set("k", f64::NAN)), ("value", false));
    // One connection, and somebody is on it.
    let config = Config { connections_max: 1, ..config() };
    let long = Duration::from_secs(5);
    let patient = Config { call_timeout: long, read_timeout: long, ..config.clone() };
    let client = Client::with_config([&address], patient).unwrap();
    let _waits = std::thread::spawn(move || client.set("k", 1));
    let client = Client::with_config([&address], config.clone()).unwrap();
    std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| client.set("k", 1)));
        let both = both.map(|one| one.join().unwrap().unwrap_err());
        let texts = both.each_ref().map(ToString::to_string);
        assert!(texts.iter().any(|text| text.contains("a free connection; nothing")), "{texts:?}");
        assert_eq!(both.iter().filter(|error| error.is_in_doubt()).count(), 1, "{texts:?}");
    });
    // Ejected, with no word to anybody.
    let config = Config { failures_max: 1, probe_after: long, ..config };
    let client = Client::with_config([&address], config).unwrap();
    assert_eq!(of(client.get::<u8>("k")), ("timeout", false));
    assert_eq!(blocking(&client), [("down", false); 5]);
    assert!(client.flush_all(None).remove(0).1.unwrap_err().is_in_doubt(), "it may be flushed");
    assert!(!client.version().remove(0).1.unwrap_err().is_in_doubt());
}

#[test]
fn a_refused_login_is_a_cache_that_is_away() {
    let refuses = Scripted::start(|line, out| match line {
        "1" => true,
        _ => out.write_all(b"CLIENT_ERROR unauthenticated\r\n").is_ok(),
    });
    let address = refuses.address.to_string();
    let login = ("login", false);
    both(&address, &config(), [login; 5], "errors are wanted");
    let misses = Config { when_down: WhenDown::Miss, ..config() };
    let none = ("none", false);
    both(&address, &misses, [login, none, login, none, login], "misses are wanted");
    #[cfg(feature = "tokio")]
    {
        use distcache::client::asynchronous;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = asynchronous::Client::with_config([&address], misses).unwrap();
        let computed = client.get_or_compute("k", Duration::from_secs(60), || async { 7 });
        assert_eq!(runtime.block_on(computed), Ok(7));
        assert_eq!(client.servers()[0].state, State::Healthy);
    }
}

/// Looks at the only server until it is as expected.
fn wait_for(look: impl Fn() -> (State, usize), expected: (State, usize)) {
    let start = Instant::now();
    while look() != expected {
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}, not {expected:?}", look());
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn servers_are_as_they_are_shown() {
    let mut server = Server::bind("127.0.0.1:0").unwrap();
    let address = server.addresses()[0].to_string();
    let config = Config { failures_max: 2, ..config() };
    let client = Client::with_config([&address], config).unwrap();
    let look = || (client.servers()[0].state, client.servers()[0].connections);
    assert_eq!(look(), (State::Healthy, 0), "nothing is made ahead");
    client.set("k", 1).unwrap();
    assert_eq!((look(), client.servers()[0].failures), ((State::Healthy, 1), 0));
    assert!(matches!(client.set("k", "x".repeat(2 << 20)), Err(Error::Refused { .. })));
    assert_eq!(client.servers()[0].failures, 0, "a refusal is no failure");
    std::mem::replace(&mut server, Server::bind("127.0.0.1:0").unwrap()).stop();
    for failures in 1..=2 {
        client.set("k", 1).unwrap_err();
        assert_eq!(client.servers()[0].failures, failures);
    }
    wait_for(look, (State::Ejected, 0));
}

#[cfg(feature = "tokio")]
#[tokio::test(flavor = "multi_thread")]
async fn servers_are_as_they_are_shown_to_tasks() {
    use distcache::client::asynchronous::Client;
    let mut server = Server::bind("127.0.0.1:0").unwrap();
    let address = server.addresses()[0].to_string();
    let config = Config { failures_max: 2, ..config() };
    let client = Client::with_config([&address], config).unwrap();
    let look = || (client.servers()[0].state, client.servers()[0].connections);
    assert_eq!(look(), (State::Healthy, 0), "nothing is made ahead");
    client.set("k", 1).await.unwrap();
    assert_eq!((look(), client.servers()[0].failures), ((State::Healthy, 1), 0));
    client.set("k", "x".repeat(100_000)).await.unwrap();
    assert_eq!(look(), (State::Healthy, 2), "one beside it for large values");
    std::mem::replace(&mut server, Server::bind("127.0.0.1:0").unwrap()).stop();
    wait_for(look, (State::Healthy, 0));
    for failures in 1..=2 {
        client.set("k", 1).await.unwrap_err();
        assert_eq!(client.servers()[0].failures, failures);
    }
    wait_for(look, (State::Ejected, 0));
}
