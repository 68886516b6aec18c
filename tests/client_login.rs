//! The client at servers that want a login. Goal: nothing is asked before it, a wrong one is an
//! error that says what to do and is not tried again and again, and no password shows up anywhere.
//! Method: servers of this process with a file of users, both faces.

#![cfg(all(feature = "server", feature = "client"))]

mod support;

use distcache::client::{Client, Config, Error, Event, Listener, Login, State, WhenDown};
use distcache::server::Server;
use distcache::server::config::{Config as ServerConfig, Listener as ServerListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use support::{PATIENCE, Users};

/// A server, and the file of its users.
struct Guarded {
    users: Users,
    server: Server,
}

impl Guarded {
    fn new(text: &str) -> Self {
        let users = Users::new(text);
        let auth_file = Some(users.path());
        let config = ServerConfig { workers: 2, auth_file, ..ServerConfig::default() };
        Self { server: Server::start(config).unwrap(), users }
    }

    fn address(&self) -> String {
        self.server.addresses()[0].to_string()
    }

    fn stat(&self, login: Login, name: &str) -> u64 {
        let config = Config { login: Some(login), check_every: None, ..Config::default() };
        let client = Client::with_config([self.address()], config).unwrap();
        client.stats("")[0].1.as_ref().unwrap()[name].parse().unwrap()
    }
}

fn bob(password: &str) -> Option<Login> {
    Some(Login::new("bob", password))
}

#[test]
fn every_connection_logs_in_before_it_is_used() {
    // openssl passwd -6 -salt saltsalt secret
    let hashed = concat!(
        "bob:$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDe",
        "hy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1\n"
    );
    for text in ["bob:secret\n", hashed] {
        let servers = [Guarded::new(text), Guarded::new(text)];
        let config = Config {
            login: bob("secret"),
            check_every: Some(Duration::from_millis(5)),
            ..Config::default()
        };
        let client = Client::with_config(servers.iter().map(Guarded::address), config).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4u32 {
                let client = &client;
                scope.spawn(move || {
                    let keys: Vec<(u32, u32)> = (0..50).map(|at| (thread * 100 + at, at)).collect();
                    client.set_many(&keys).all().unwrap();
                    for (key, value) in keys {
                        assert_eq!(client.get::<u32>(key).unwrap(), Some(value));
                    }
                });
            }
        });
        std::thread::sleep(Duration::from_millis(50));
        assert!(
            client.servers().iter().all(|one| one.failures == 0 && one.state == State::Healthy)
        );
        assert_eq!(servers[0].stat(Login::new("bob", "secret"), "auth_errors"), 0);
    }
}

#[test]
fn a_client_in_a_log_shows_no_password() {
    let users = Guarded::new("bob:secret\n");
    let config = Config { login: bob("secret"), check_every: None, ..Config::default() };
    let client = Client::with_config([users.address()], config).unwrap();
    assert_eq!(client.get_many::<u8>(["a", "b"]).all(), Ok(vec![None, None]));
    let shown = format!("{client:?}");
    let bytes = format!("{:?}", b"secret");
    let bytes = bytes.trim_matches(['[', ']']);
    assert!(!shown.contains("secret") && !shown.contains(bytes), "{shown}");
}

#[test]
fn a_refused_login_is_an_error_of_its_own_and_is_not_repeated() {
    let users = Guarded::new("bob:secret\n");
    let told = Arc::new(Mutex::new(Vec::new()));
    for (login, answer) in [
        (bob("wrong"), "CLIENT_ERROR authentication failure"),
        (None, "CLIENT_ERROR unauthenticated"),
    ] {
        let before = users.stat(Login::new("bob", "secret"), "auth_errors");
        let listened = Arc::clone(&told);
        let config = Config {
            login,
            when_down: WhenDown::Miss,
            failures_max: 1,
            check_every: Some(Duration::from_millis(1)),
            listener: Some(Listener::new(move |event: &Event| {
                listened.lock().unwrap().push(event.clone());
            })),
            ..Config::default()
        };
        let shown = format!("{config:?}");
        assert!(!shown.contains("wrong"), "{shown}");
        let client = Client::with_config([users.address()], config).unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(300) {
            // Reads are misses, as this client wants them of a cache that is away.
            assert_eq!(client.get::<u8>("a"), Ok(None));
            let many = client.get_many::<u8>(["a", "b"]).into_results();
            assert_eq!(many, [Ok(None), Ok(None)]);
            let error = client.set("a", 1).unwrap_err();
            assert!(
                matches!(&error, Error::Login { answer: said, .. } if said == answer),
                "{error:?}"
            );
            assert!(error.to_string().contains("Config::login") && !error.is_unavailable());
            let computed = client.get_or_compute("a", Duration::from_secs(60), || 7);
            assert_eq!(computed, Ok(7), "a cache that lets nobody in is one that is away");
        }
        // It stays in use: there is nothing wrong with the server.
        assert_eq!(client.servers()[0].state, State::Healthy);
        let tried = users.stat(Login::new("bob", "secret"), "auth_errors") - before;
        assert!(tried <= 1, "{tried} attempts");
        assert!(client.counters().connections <= 2, "{:?}", client.counters());
        let events = std::mem::take(&mut *told.lock().unwrap());
        let refused = |event: &&Event| matches!(event, Event::LoginRefused { .. });
        assert_eq!(events.iter().filter(refused).count(), 1, "{events:?}");
        assert!(!format!("{events:?}").contains("wrong"));
    }
}

#[test]
fn what_a_set_without_a_login_is_answered_counts_as_well() {
    let users = Guarded::new("bob:secret\n");
    for value in ["x", "bob wrong"] {
        let client = Client::connect([users.address()]).unwrap();
        let error = client.set("a", value).unwrap_err();
        assert!(matches!(error, Error::Login { .. }), "{error:?}");
    }
}

#[test]
fn a_login_that_becomes_right_is_found_out() {
    let users = Guarded::new("bob:other\n");
    let config = Config {
        login: bob("secret"),
        probe_after_max: Duration::from_millis(50),
        ..Config::default()
    };
    let client = Client::with_config([users.address()], config).unwrap();
    assert!(matches!(client.set("a", 1), Err(Error::Login { .. })));
    users.users.write("bob:secret\n");
    assert!(users.server.reload());
    let start = Instant::now();
    while client.set("a", 1).is_err() {
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(client.get::<u8>("a").unwrap(), Some(1));
}

#[test]
fn a_server_that_died_is_probed_with_the_login() {
    let mut users = Guarded::new("bob:secret\n");
    let config = Config {
        login: bob("secret"),
        failures_max: 1,
        probe_after: Duration::from_millis(10),
        check_every: None,
        ..Config::default()
    };
    let address = users.server.addresses()[0];
    let client = Client::with_config([address.to_string()], config).unwrap();
    client.set("a", 1).unwrap();
    let other = Server::bind("127.0.0.1:0").unwrap();
    std::mem::replace(&mut users.server, other).stop();
    while !matches!(client.set("a", 1), Err(Error::Down { .. })) {}
    let config = ServerConfig {
        listeners: vec![ServerListener::Tcp(address)],
        auth_file: Some(users.users.path()),
        ..ServerConfig::default()
    };
    users.server = Server::start(config).unwrap();
    let start = Instant::now();
    while client.set("a", 2).is_err() {
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_server_without_logins_keeps_no_password() {
    let server = Server::bind("127.0.0.1:0").unwrap();
    let config = Config { login: bob("secret"), ..Config::default() };
    let client = Client::with_config([server.addresses()[0].to_string()], config).unwrap();
    client.set("a", 1).unwrap();
    assert_eq!(client.get_raw("auth").unwrap(), None);
}

#[test]
fn a_login_that_cannot_be_said_is_refused_at_once() {
    let config = Config { login: Some(Login::new("a b", "x")), ..Config::default() };
    assert!(matches!(Client::with_config(["a"], config), Err(Error::Config(_))));
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn the_asynchronous_face_logs_in() {
    use distcache::client::asynchronous::Client;
    let users = Guarded::new("bob:secret\n");
    let with = |login| {
        let config = Config { login, check_every: None, ..Config::default() };
        Client::with_config([users.address()], config).unwrap()
    };
    let client = with(bob("secret"));
    client.set("a", 1).await.unwrap();
    assert_eq!(client.get_many::<u8>(["a", "b"]).await.found(), [Some(1), None]);
    for login in [bob("wrong"), None] {
        let client = with(login);
        for _ in 0..20 {
            assert!(matches!(client.get::<u8>("a").await, Err(Error::Login { .. })));
        }
        assert_eq!(client.servers()[0].state, State::Healthy);
    }
    assert_eq!(users.stat(Login::new("bob", "secret"), "auth_errors"), 1, "it was tried once");
}
