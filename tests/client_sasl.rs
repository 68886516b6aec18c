//! The client where servers want a login by SASL. Goal: every operation of the client means there
//! what it means over text, with what the binary protocol has no words for said so; nobody gets in
//! with another password, and no password shows up anywhere. Method: the same calls with both
//! logins, in both faces, to servers of this process; and with a memcached of the system, if it has
//! SASL.

#![cfg(all(feature = "server", feature = "client"))]

mod support;

use distcache::client::{
    Client, Config, Discovery, Error, Expiry, KeyPolicy, Login, State, WhenDown,
};
use distcache::server::Server;
use distcache::server::config::{Config as ServerConfig, Listener};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use support::{Users, until};
use tempfile::TempDir;

const MINUTE: Duration = Duration::from_secs(60);

/// openssl passwd -6 -salt saltsalt secret
const HASHED: &str = concat!(
    "bob:$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDe",
    "hy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1\n"
);

fn settings(users: &Users) -> ServerConfig {
    let auth_file = Some(users.path());
    ServerConfig { workers: 2, sasl: true, auth_file, ..ServerConfig::default() }
}

fn serve(users: &Users) -> Server {
    Server::start(settings(users)).unwrap()
}

fn address(server: &Server) -> String {
    server.addresses()[0].to_string()
}

fn with(login: Login) -> Config {
    Config { login: Some(login), check_every: None, ..Config::default() }
}

/// What both protocols have, as a list of what came of it.
fn calls(client: &Client) -> Vec<String> {
    let mut seen = Vec::new();
    macro_rules! call {
        ($($call:expr),* $(,)?) => {$( seen.push(format!("{:?}", $call)); )*};
    }
    call!(client.flush_all(None).iter().all(|(_, flushed)| flushed.is_ok()));
    call!(client.get::<String>("k"), client.set("k", "one"), client.get::<String>("k"));
    call!(client.add("k", "x"), client.add("new", "x"), client.replace("none", "x"));
    call!(client.replace("k", "two"), client.append("none", b"x"), client.append("k", b"!"));
    call!(client.prepend("k", b"!"), client.get_raw("k"));
    let found = client.get_versioned::<String>("k").unwrap().unwrap();
    call!(found.value, client.cas("k", "three", found.token), client.cas("k", "x", found.token));
    call!(client.cas("none", "x", found.token), client.cas("k", "x", 0));
    call!(client.get_raw_versioned("k").unwrap().map(|found| (found.value, found.flags)));
    call!(client.incr("none", 1), client.incr("k", 1).is_err());
    call!(client.incr_or_with("n", 3, 7, MINUTE), client.incr_or_with("n", 3, 7, MINUTE));
    call!(client.decr("n", 4), client.decr("n", 40), client.incr("n", u64::MAX));
    call!(client.touch("k", MINUTE), client.touch("none", MINUTE));
    call!(client.get_and_touch::<String>("k", MINUTE), client.get::<String>("k"));
    call!(client.set_with("gone", 1, Expiry::In(Duration::ZERO)), client.get::<u8>("gone"));
    call!(client.touch("new", Expiry::In(Duration::ZERO)), client.get::<String>("new"));
    let items: Vec<(u32, u32)> = (0..300).map(|at| (at, at * 2)).collect();
    let keys: Vec<u32> = (0..310).collect();
    call!(client.set_many(&items).all(), client.get_many::<u32>(&keys).all());
    call!(client.touch_many(&keys, MINUTE).all(), client.unique_ids("ids", 5));
    call!(client.delete_many(&keys).all(), client.delete("k"), client.delete("k"));
    call!(client.take::<u32>("none"), client.set("t", 5), client.take::<u32>("t"));
    call!(client.update("u", |n: Option<u32>| Some(n.unwrap_or(0) + 1)));
    call!(client.update("u", |n: Option<u32>| Some(n.unwrap_or(0) + 1)));
    let large = vec![7u8; 900_000];
    call!(client.set_raw("large", &large, 3), client.get_raw("large").unwrap().unwrap().flags);
    call!(matches!(client.set_raw("huge", &vec![0; 2 << 20], 0), Err(Error::Refused { .. })));
    call!(client.get_or_compute("made", MINUTE, || 5), client.get_or_compute("made", MINUTE, || 6));
    call!(
        client.version().iter().all(|(_, version)| version.as_ref().unwrap().starts_with("1.6."))
    );
    call!(client.stats("")[0].1.as_ref().unwrap().contains_key("cmd_touch"));
    call!(client.stats("settings")[0].1.as_ref().unwrap().contains_key("maxbytes"));
    call!(client.stats("nonsense")[0].1.is_err(), client.get::<u32>("made"));
    seen
}

#[test]
fn every_call_means_what_it_means_over_text() {
    for text in ["bob:secret\n", HASHED] {
        let users = Users::new(text);
        let server = serve(&users);
        let over = |login| Client::with_config([address(&server)], with(login)).unwrap();
        let over_text = calls(&over(Login::new("bob", "secret")));
        let over_binary = calls(&over(Login::sasl("bob", "secret")));
        assert_eq!(over_binary, over_text);
    }
}

#[test]
fn a_wrong_login_is_an_error_of_its_own_and_is_not_repeated() {
    for text in ["bob:secret\n", HASHED] {
        let users = Users::new(text);
        let server = serve(&users);
        let errors = || {
            let client =
                Client::with_config([address(&server)], with(Login::sasl("bob", "secret")));
            let stats = client.unwrap().stats("").remove(0).1.unwrap();
            stats["auth_errors"].parse::<u64>().unwrap()
        };
        for login in [Login::sasl("bob", "wrong"), Login::sasl("eve", "secret")] {
            let (before, config) = (errors(), with(login));
            assert!(!format!("{config:?}").contains("wrong"));
            let client = Client::with_config([address(&server)], config).unwrap();
            for _ in 0..20 {
                let error = client.set("a", 1).unwrap_err();
                assert!(matches!(error, Error::Login { .. }), "{error:?}");
                assert!(error.to_string().contains("SASL: Auth failure."), "{error}");
            }
            assert_eq!(client.servers()[0].state, State::Healthy);
            assert_eq!(errors() - before, 1, "it was tried once");
        }
    }
}

#[test]
fn what_the_binary_protocol_cannot_say_is_refused_before_anything_is_sent() {
    let users = Users::new("bob:secret\n");
    let server = serve(&users);
    let config = with(Login::sasl("bob", "secret"));
    let client = Client::with_config([address(&server)], config.clone()).unwrap();
    client.set("k", 1).unwrap();
    let refused = [
        client.inspect("k").map(|_| ()),
        client.invalidate("k", MINUTE).map(|_| ()),
        client.list_keys(|_, _| {}).remove(0).1,
        Client::with_config(
            [""; 0],
            Config {
                discovery: Some(Discovery::ConfigCluster(address(&server).parse().unwrap())),
                ..config
            },
        )
        .map(|_| ()),
    ];
    for refusal in refused {
        let Err(Error::Config(what)) = &refusal else { panic!("{refusal:?}") };
        assert!(what.contains("binary protocol"), "{what}");
    }
    assert_eq!(client.get::<u8>("k"), Ok(Some(1)), "the connection is still good");
    assert_eq!(client.counters().connections, 1);
}

#[test]
fn of_one_process_one_caller_computes_and_the_first_value_stays() {
    let users = Users::new("bob:secret\n");
    let server = serve(&users);
    let client = || Client::with_config([address(&server)], with(Login::sasl("bob", "secret")));
    let (here, there) = (client().unwrap(), client().unwrap());
    let computed = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let slow = || {
                    computed.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(100));
                    7
                };
                assert_eq!(here.get_or_compute("k", MINUTE, slow), Ok(7));
            });
        }
    });
    assert_eq!(computed.into_inner(), 1);
    let overtaken = || {
        there.set("l", "theirs").unwrap();
        "ours".to_owned()
    };
    assert_eq!(here.get_or_compute("l", MINUTE, overtaken), Ok("ours".into()));
    assert_eq!(here.get::<String>("l"), Ok(Some("theirs".into())));
    // What cannot be read is replaced.
    there.set("m", "text").unwrap();
    assert_eq!(here.get_or_compute("m", MINUTE, || 5u32), Ok(5));
    assert_eq!(here.get::<u32>("m"), Ok(Some(5)));
}

#[test]
fn keys_are_the_same_as_over_text() {
    let users = Users::new("bob:secret\n");
    let server = serve(&users);
    for key_policy in [KeyPolicy::Base64, KeyPolicy::Hash] {
        let over = |login| {
            let config = Config { key_policy, key_prefix: "p:".into(), ..with(login) };
            Client::with_config([address(&server)], config).unwrap()
        };
        let (text, binary) =
            (over(Login::new("bob", "secret")), over(Login::sasl("bob", "secret")));
        for (at, key) in ["plain", "a b\r\n", "\0"].into_iter().enumerate() {
            binary.set(key, at).unwrap();
            assert_eq!(text.get(key), Ok(Some(at)), "{key_policy:?} {key:?}");
            assert_eq!(text.delete(key), Ok(true));
            assert_eq!(binary.get::<usize>(key), Ok(None));
        }
    }
    let client = Client::with_config([address(&server)], with(Login::sasl("bob", "secret")));
    assert!(matches!(client.unwrap().set("a b", 1), Err(Error::Key { .. })));
}

#[test]
fn a_server_that_comes_back_is_logged_in_to_and_repaired() {
    let users = Users::new("bob:secret\n");
    let (first, second) = (serve(&users), serve(&users));
    let at: SocketAddr = first.addresses()[0];
    let config = Config {
        when_down: WhenDown::NextServer { expiry_seconds_max: 60 },
        failures_max: 1,
        probe_after: Duration::from_millis(10),
        ..with(Login::sasl("bob", "secret"))
    };
    let client = Client::with_config([at.to_string(), address(&second)], config).unwrap();
    let keys: Vec<u32> = (0..100).collect();
    let items: Vec<(u32, u32)> = keys.iter().map(|key| (*key, 1)).collect();
    client.set_many(&items).all().unwrap();
    first.stop();
    until("writes to the other", || keys.iter().all(|key| client.set(key, 2).is_ok()));
    assert_eq!(client.servers()[0].state, State::Ejected);
    let listeners = vec![Listener::Tcp(at)];
    let _again = Server::start(ServerConfig { listeners, ..settings(&users) }).unwrap();
    until("its return", || {
        let _ = client.get_many::<u32>(&keys);
        client.servers()[0].state == State::Healthy
    });
    assert!(client.counters().repaired > 0, "{:?}", client.counters());
    until("writes to it", || keys.iter().all(|key| client.set(key, 3).is_ok()));
    assert_eq!(client.get_many::<u32>(&keys).all().unwrap(), vec![Some(3); 100]);
    // Which needs the meta commands where they are spoken.
    assert!(keys.iter().all(|key| client.append(key, b"0") == Ok(true)));
    assert_eq!(client.get_many::<u32>(&keys).all().unwrap(), vec![Some(30); 100]);
}

#[test]
fn a_connection_that_was_closed_is_made_again_with_the_login() {
    let users = Users::new("bob:secret\n");
    let server = serve(&users);
    let client = Client::with_config([address(&server)], with(Login::sasl("bob", "secret")));
    let client = client.unwrap();
    client.set("k", 1).unwrap();
    let at = server.addresses()[0];
    server.stop();
    let listeners = vec![Listener::Tcp(at)];
    let _again = Server::start(ServerConfig { listeners, ..settings(&users) }).unwrap();
    assert_eq!(client.get::<u8>("k"), Ok(None), "a read is asked again on a new connection");
    assert_eq!(client.set("k", 2), Ok(()));
}

#[test]
fn a_server_without_logins_lets_everybody_in() {
    let server = Server::bind("127.0.0.1:0").unwrap();
    let client = Client::from_url(&format!("memcache+sasl://bob:secret@{}", address(&server)));
    let client = client.unwrap();
    assert_eq!(client.set("k", 1), Ok(()));
    assert_eq!(client.get::<u8>("k"), Ok(Some(1)));
}

#[test]
fn a_login_that_cannot_be_said_is_refused_at_once() {
    for (user, password, fits) in [
        ("bob smith", "pa:ss\r\nword", true),
        ("", "secret", false),
        ("bo\0b", "secret", false),
        ("bob", "sec\0ret", false),
        ("bob", &*"x".repeat(2000), false),
    ] {
        let made = Client::with_config(["a"], with(Login::sasl(user, password)));
        assert_eq!(made.is_ok(), fits, "{user:?}");
    }
}

#[cfg(feature = "tokio")]
#[tokio::test]
async fn the_asynchronous_face_logs_in_and_carries_many_calls_at_a_time() {
    use distcache::client::asynchronous::Client;
    for text in ["bob:secret\n", HASHED] {
        let users = Users::new(text);
        let server = serve(&users);
        let over = |login| Client::with_config([address(&server)], with(login)).unwrap();
        let client = over(Login::sasl("bob", "secret"));
        let tasks: Vec<_> = (0..100u32)
            .map(|task| {
                let client = client.clone();
                tokio::spawn(async move {
                    let keys: Vec<u32> = (0..10).map(|at| task * 10 + at).collect();
                    for key in &keys {
                        client.set(key, key + 1).await.unwrap();
                        assert_eq!(client.get::<u32>(key).await, Ok(Some(key + 1)));
                    }
                    let expected: Vec<_> = keys.iter().map(|key| Some(key + 1)).collect();
                    assert_eq!(client.get_many::<u32>(&keys).await.all(), Ok(expected));
                    client.incr_or("sum", 1, 1).await.unwrap();
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(client.incr("sum", 0).await, Ok(Some(100)));
        let keys: Vec<u32> = (0..1000).collect();
        assert_eq!(client.get_many::<u32>(&keys).await.found().len(), 1000);
        client.set_raw("large", &vec![1; 500_000], 9).await.unwrap();
        let large = client.get_raw_versioned("large").await.unwrap().unwrap();
        assert_eq!((large.value.len(), large.flags), (500_000, 9));
        assert_eq!(client.cas("large", 1, large.token).await, Ok(distcache::client::Cas::Stored));
        let stats = client.stats("").await.remove(0).1.unwrap();
        assert!(stats["cmd_set"].parse::<u64>().unwrap() >= 1001);
        assert_eq!(client.get_or_compute("made", MINUTE, || async { 5 }).await, Ok(5));
        assert_eq!(client.get::<u32>("made").await, Ok(Some(5)));
        assert!(matches!(client.inspect("made").await, Err(Error::Config(_))));
        assert_eq!(client.counters().connections, 2, "one of many calls, one of a large one");
        let wrong = over(Login::sasl("bob", "wrong"));
        for _ in 0..20 {
            assert!(matches!(wrong.get::<u8>("a").await, Err(Error::Login { .. })));
        }
        assert_eq!(wrong.servers()[0].state, State::Healthy);
    }
}

/// A memcached of the system with SASL, where there is one, on a port of its own. It asks Cyrus's
/// library, which reads a `sasldb`.
struct Memcached {
    child: Child,
    address: SocketAddr,
    /// Its settings and users.
    _folder: TempDir,
}

impl Memcached {
    fn start(user: &str, password: &str) -> Option<Self> {
        let help = Command::new("memcached").arg("-h").output().ok()?;
        if !String::from_utf8_lossy(&help.stdout).contains("--enable-sasl") {
            return None;
        }
        let folder = TempDir::new().unwrap();
        let users = folder.path().join("sasldb2");
        let settings = format!("mech_list: plain\nsasldb_path: {}\n", users.display());
        std::fs::write(folder.path().join("memcached.conf"), settings).unwrap();
        let host = Command::new("hostname").output().ok()?;
        let mut enter = Command::new("saslpasswd2")
            .args(["-p", "-c", "-u", String::from_utf8_lossy(&host.stdout).trim(), "-f"])
            .args([users.as_os_str(), user.as_ref()])
            .stdin(Stdio::piped())
            .spawn()
            .ok()?;
        enter.stdin.take().unwrap().write_all(password.as_bytes()).unwrap();
        assert!(enter.wait().unwrap().success());
        let port = ports::free().unwrap();
        let child = Command::new("memcached")
            .args(["-S", "-u", "root", "-U", "0", "-l", "127.0.0.1", "-p", &port.to_string()])
            .env("SASL_CONF_PATH", folder.path())
            .spawn()
            .ok()?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let memcached = Self { child, address, _folder: folder };
        until("memcached", || TcpStream::connect(address).is_ok());
        Some(memcached)
    }
}

impl Drop for Memcached {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn memcached_with_sasl_answers_the_same() {
    let Some(memcached) = Memcached::start("bob", "secret") else {
        eprintln!("skipped: no memcached with SASL in the PATH, or no saslpasswd2");
        return;
    };
    let over = |address: String, password| {
        Client::with_config([address], with(Login::sasl("bob", password))).unwrap()
    };
    let users = Users::new("bob:secret\n");
    let ours = serve(&users);
    let theirs = calls(&over(memcached.address.to_string(), "secret"));
    assert_eq!(theirs, calls(&over(address(&ours), "secret")));
    let refused = over(memcached.address.to_string(), "wrong").set("k", 1);
    assert!(matches!(refused, Err(Error::Login { .. })), "{refused:?}");
}
