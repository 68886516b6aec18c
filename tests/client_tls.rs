//! Encrypted connections of the client. Goal: everything works as on plain ones, nobody but the
//! right server is spoken to, and each failure says why within its time. Method: certificates made
//! here, and a thread with rustls in front of servers of this process.

#![cfg(all(feature = "server", feature = "tls"))]

#[allow(dead_code, reason = "shared with tests that use more of it")]
mod chaos;
mod support;

use chaos::{BAD_WEATHER, Proxy, Weather};
use distcache::client::{Client, ClientCertificate, Config, Error, Login, State, Tls, WhenDown};
use distcache::server::Server;
use distcache::server::config::{
    ClientCertificates, Config as ServerSettings, Listener, TlsConfig,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use support::PATIENCE;

/// A folder that goes away with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("distcache-client-tls-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An authority.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).unwrap();
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Self { issuer: Issuer::new(params, key), pem, der }
    }

    /// A certificate for a name, and its key.
    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn server(&self, name: &str, clients: Option<&Authority>) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.der.clone()).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let (certificate, key) = self.sign(name);
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        Arc::new(builder.with_single_cert(vec![certificate.der().clone()], key).unwrap())
    }
}

/// Takes TLS off in front of a server.
struct Front {
    address: SocketAddr,
    ended: Arc<AtomicBool>,
    /// Said to the client on its next idle connection, without being asked.
    stray: Arc<Mutex<Vec<u8>>>,
    connections: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
}

impl Front {
    fn new(target: SocketAddr, config: Arc<ServerConfig>) -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), target, config)
    }

    fn at(address: SocketAddr, target: SocketAddr, config: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let stray = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicU32::new(0));
        let (stop, said, count) =
            (Arc::clone(&ended), Arc::clone(&stray), Arc::clone(&connections));
        let thread = std::thread::spawn(move || {
            std::thread::scope(|scope| {
                while !stop.load(Ordering::Relaxed) {
                    let Ok((client, _)) = listener.accept() else {
                        std::thread::sleep(Duration::from_millis(1));
                        continue;
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                    let (config, stop, said) = (Arc::clone(&config), &stop, &said);
                    scope.spawn(move || forward(client, target, config, stop, said));
                }
            });
        });
        Self { address, ended, stray, connections, thread: Some(thread) }
    }

    fn stop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Moves bytes both ways until somebody closes.
fn forward(
    client: TcpStream,
    target: SocketAddr,
    config: Arc<ServerConfig>,
    stop: &AtomicBool,
    stray: &Mutex<Vec<u8>>,
) {
    let server = TcpStream::connect(target).unwrap();
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
        stream.set_nonblocking(true).unwrap();
    }
    let session = ServerConnection::new(config).unwrap();
    let (to_server, piece) = (Vec::new(), vec![0; 64 << 10]);
    let mut pair = Pair { client, server, session, to_server, piece };
    while !stop.load(Ordering::Relaxed) {
        match pair.step(stray) {
            Ok(true) => {}
            Ok(false) => std::thread::sleep(Duration::from_micros(200)),
            Err(_) => break,
        }
    }
    let _ = pair.client.shutdown(Shutdown::Both);
}

/// A client on TLS and its server without.
struct Pair {
    client: TcpStream,
    server: TcpStream,
    session: ServerConnection,
    to_server: Vec<u8>,
    piece: Vec<u8>,
}

/// How many bytes moved; the end is an error.
fn moved(result: std::io::Result<usize>) -> std::io::Result<usize> {
    match result {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}

impl Pair {
    /// Whether anything moved.
    fn step(&mut self, stray: &Mutex<Vec<u8>>) -> std::io::Result<bool> {
        let mut count = 0;
        if self.session.wants_write() {
            count += moved(self.session.write_tls(&mut self.client))?;
        }
        // As much from either side as the other takes, so that nothing is ever flooded.
        if self.to_server.is_empty() {
            count += self.read_client()?;
        } else {
            let sent = moved(self.server.write(&self.to_server))?;
            self.to_server.drain(..sent);
            count += sent;
        }
        if !self.session.wants_write() && !self.session.is_handshaking() {
            let said = std::mem::take(&mut *stray.lock().unwrap());
            self.session.writer().write_all(&said)?;
            let read = moved(self.server.read(&mut self.piece))?;
            self.session.writer().write_all(&self.piece[..read])?;
            count += read + said.len();
        }
        Ok(count > 0)
    }

    fn read_client(&mut self) -> std::io::Result<usize> {
        if let Ok(count) = self.session.reader().read(&mut self.piece)
            && count > 0
        {
            self.to_server.extend_from_slice(&self.piece[..count]);
            return Ok(count);
        }
        let count = moved(self.session.read_tls(&mut self.client))?;
        if let Err(error) = self.session.process_new_packets() {
            let _ = self.session.write_tls(&mut self.client);
            return Err(std::io::Error::other(error));
        }
        Ok(count)
    }
}

/// Servers behind TLS, and what a client needs to know.
struct Setup {
    fronts: Vec<Front>,
    servers: Vec<Server>,
    folder: Folder,
    authority: Authority,
    roots: PathBuf,
}

impl Setup {
    fn new(count: usize) -> Self {
        Self::for_clients(count, None)
    }

    fn for_clients(count: usize, clients: Option<&Authority>) -> Self {
        let (folder, authority) = (Folder::new(), Authority::new("here"));
        let servers: Vec<Server> =
            (0..count).map(|_| Server::bind("127.0.0.1:0").unwrap()).collect();
        let front =
            |one: &Server| Front::new(one.addresses()[0], authority.server("127.0.0.1", clients));
        let fronts = servers.iter().map(front).collect();
        let roots = folder.file("ca.pem", &authority.pem);
        Self { fronts, servers, folder, authority, roots }
    }

    fn tls(&self) -> Tls {
        Tls { roots: Some(self.roots.clone()), ..Tls::default() }
    }

    fn config(&self) -> Config {
        Config { tls: Some(self.tls()), check_every: None, ..Config::default() }
    }

    fn client(&self, config: Config) -> Client {
        let addresses = self.fronts.iter().map(|front| front.address.to_string());
        Client::with_config(addresses, config).unwrap()
    }
}

#[test]
fn everything_works_as_on_plain_connections() {
    let setup = Setup::new(3);
    let client = setup.client(setup.config());
    client.set("a", "b").unwrap();
    assert_eq!(client.get::<String>("a").unwrap().as_deref(), Some("b"));
    assert_eq!(client.incr_or("n", 1, 5).unwrap(), 5);
    // Values near the server's limit, and of sizes around those of records.
    for size in [0, 1, 16_383, 16_384, 16_385, 65_536, 300_000, (1 << 20) - 1024] {
        let value = "x".repeat(size);
        client.set("large", &value).unwrap();
        assert!(client.get::<String>("large").unwrap() == Some(value), "{size}");
    }
    let items: Vec<(u32, String)> = (0..5000).map(|at| (at, format!("value {at}"))).collect();
    client.set_many(&items).all().unwrap();
    let keys: Vec<u32> = (0..5001).collect();
    let found = client.get_many::<String>(&keys).all().unwrap();
    assert!(items.iter().all(|(at, value)| found[*at as usize].as_ref() == Some(value)));
    assert_eq!(found[5000], None);
    // Both directions full at once.
    let large: Vec<(u32, String)> = (0..40).map(|at| (at, "y".repeat(500_000))).collect();
    client.set_many(&large).all().unwrap();
    let found = client.get_many::<String>(&keys[..40]).all().unwrap();
    assert!(found.iter().all(|value| value.as_ref().is_some_and(|value| value.len() == 500_000)));
    // Records larger than the room there is for them: the rest waits where no socket tells of it.
    for size in (8000..17_000).step_by(500) {
        let items: Vec<(u32, String)> = (0..24).map(|at| (at, "z".repeat(size))).collect();
        client.set_many(&items).all().unwrap();
        let found = client.get_many::<String>(&keys[..24]).all().unwrap();
        assert!(found.iter().all(|value| value.as_ref().is_some_and(|value| value.len() == size)));
    }
    let deleted = client.delete_many(&keys).all().unwrap();
    assert_eq!(deleted.iter().filter(|deleted| **deleted).count(), 5000);
    assert!(client.stats("").iter().all(|(_, stats)| stats.is_ok()));
    // Tickets for later sessions arrived in between: no connection was given up for them.
    assert_eq!(client.counters().connections, 3, "{:?}", client.counters());
    assert_eq!(client.counters().failures, 0);
    drop(setup.servers);
}

#[test]
fn who_is_not_the_right_server_gets_nothing() {
    let setup = Setup::new(1);
    let other = setup.folder.file("other.pem", &Authority::new("elsewhere").pem);
    let named = setup.authority.server("cache.example", None);
    let named = Front::new(setup.servers[0].addresses()[0], named);
    let plain = setup.servers[0].addresses()[0];
    let tls = |roots: &PathBuf, name: Option<&str>| Tls {
        roots: Some(roots.clone()),
        server_name: name.map(str::to_owned),
        certificate: None,
    };
    for (address, tls, cause) in [
        (setup.fronts[0].address, tls(&setup.roots, None), None),
        (setup.fronts[0].address, tls(&other, None), Some("UnknownIssuer")),
        (named.address, tls(&setup.roots, None), Some("not valid for name")),
        (named.address, tls(&setup.roots, Some("cache.example")), None),
        (named.address, tls(&setup.roots, Some("other.example")), Some("not valid for name")),
        (plain, tls(&setup.roots, None), Some("TLS")),
    ] {
        let config = Config { tls: Some(tls), ..setup.config() };
        let client = Client::with_config([address.to_string()], config).unwrap();
        match (client.set("a", 1), cause) {
            (Ok(()), None) => {}
            (Err(error @ Error::Tls { .. }), Some(cause)) => {
                assert!(error.to_string().contains(cause), "{error}");
                assert!(error.is_failure_of_server());
            }
            (result, cause) => panic!("{result:?} instead of {cause:?}"),
        }
    }
}

#[test]
fn our_own_certificate_is_shown() {
    let clients = Authority::new("clients");
    let setup = Setup::for_clients(1, Some(&clients));
    let certificate = |name: &str, authority: &Authority| {
        let (certificate, key) = authority.sign("client");
        ClientCertificate {
            chain: setup.folder.file(&format!("{name}.pem"), &certificate.pem()),
            key: setup.folder.file(&format!("{name}.key"), &key.serialize_pem()),
        }
    };
    let right = certificate("right", &clients);
    let wrong = certificate("wrong", &Authority::new("strangers"));
    for (certificate, fits) in [(Some(right), true), (None, false), (Some(wrong), false)] {
        let tls = Tls { certificate: certificate.clone(), ..setup.tls() };
        let client = setup.client(Config { tls: Some(tls), ..setup.config() });
        let result = client.set("a", 1);
        match fits {
            true => assert_eq!(result, Ok(())),
            // Refused with an alert, after the handshake from where we stand.
            false => assert!(
                matches!(&result, Err(Error::Tls { cause, .. }) if cause.contains("alert")),
                "{result:?}"
            ),
        }
    }
}

#[test]
fn files_that_are_no_certificates_are_refused_at_once() {
    let setup = Setup::new(1);
    let junk = setup.folder.file("junk.pem", "nothing\n");
    let key = setup.authority.sign("x").1.serialize_pem();
    let key = setup.folder.file("x.key", &key);
    let certificate = |chain: &PathBuf, key: &PathBuf| {
        Some(ClientCertificate { chain: chain.clone(), key: key.clone() })
    };
    for (tls, named) in [
        (Tls { roots: Some(junk.clone()), ..Tls::default() }, "junk.pem"),
        (Tls { roots: Some("/nonexistent".into()), ..Tls::default() }, "/nonexistent"),
        (Tls { server_name: Some("a b".into()), ..setup.tls() }, "a b"),
        (Tls { certificate: certificate(&setup.roots, &junk), ..setup.tls() }, "junk.pem"),
        (Tls { certificate: certificate(&junk, &key), ..setup.tls() }, "junk.pem"),
        // A key that belongs to another certificate.
        (Tls { certificate: certificate(&setup.roots, &key), ..setup.tls() }, "x.key"),
    ] {
        let config = Config { tls: Some(tls), ..Config::default() };
        let error = Client::with_config(["a"], config).unwrap_err();
        assert!(matches!(&error, Error::Config(text) if text.contains(named)), "{error}");
    }
}

#[test]
fn a_handshake_takes_no_longer_than_it_may() {
    let setup = Setup::new(1);
    // Accepts, and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = Config { connect_timeout: Duration::from_millis(100), ..setup.config() };
    let address = silent.local_addr().unwrap().to_string();
    let client = Client::with_config([address], config).unwrap();
    for round in 0..2 {
        let start = Instant::now();
        let error = match round {
            0 => client.get::<u8>("a").unwrap_err(),
            _ => client.get_many::<u8>(["a"]).all().unwrap_err(),
        };
        let waiting_for = "the TLS handshake";
        assert!(matches!(error, Error::Timeout { waiting_for: what, .. } if what == waiting_for));
        let took = start.elapsed();
        assert!((Duration::from_millis(90)..PATIENCE).contains(&took), "{took:?}");
    }
}

#[test]
fn stray_bytes_cost_the_connection_and_nothing_else() {
    let setup = Setup::new(1);
    let client = setup.client(setup.config());
    client.set("a", "right").unwrap();
    for said in [&b"VALUE a 0 5\r\nwrong\r\nEND\r\n"[..], b"\r\n", b"END\r\n"] {
        let before = setup.fronts[0].connections.load(Ordering::Relaxed);
        *setup.fronts[0].stray.lock().unwrap() = said.to_vec();
        let start = Instant::now();
        while !setup.fronts[0].stray.lock().unwrap().is_empty() {
            assert!(start.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(client.get::<String>("a").unwrap().as_deref(), Some("right"));
        assert_eq!(setup.fronts[0].connections.load(Ordering::Relaxed), before + 1);
    }
    assert_eq!(client.counters().failures, 0);
}

#[test]
fn a_server_that_died_comes_back() {
    let mut setup = Setup::new(1);
    let config = Config {
        failures_max: 1,
        probe_after: Duration::from_millis(10),
        when_down: WhenDown::Error,
        ..setup.config()
    };
    let client = setup.client(config);
    client.set("a", 1).unwrap();
    let address = setup.fronts[0].address;
    setup.fronts[0].stop();
    // A read finds the connection closed and no other to be had.
    while client.servers()[0].state != State::Ejected {
        assert!(client.get::<u8>("a").is_err());
    }
    let target = setup.servers[0].addresses()[0];
    let _front = Front::at(address, target, setup.authority.server("127.0.0.1", None));
    let start = Instant::now();
    while client.get::<u8>("a") != Ok(Some(1)) {
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(client.servers()[0].state, State::Healthy);
}

#[test]
fn bad_weather_costs_calls_and_time_but_no_value_is_wrong() {
    let setup = Setup::new(2);
    let proxies: Vec<Proxy> = setup.fronts.iter().map(|front| Proxy::to(front.address)).collect();
    let timeout = Duration::from_millis(100);
    let config = Config {
        call_timeout: timeout,
        connect_timeout: timeout,
        probe_after: Duration::from_millis(5),
        probe_after_max: Duration::from_millis(20),
        ..setup.config()
    };
    let addresses = proxies.iter().map(|proxy| proxy.address.to_string());
    let client = Client::with_config(addresses, config).unwrap();
    let keys: Vec<u32> = (0..20).collect();
    let value = |key: u32| format!("{key} {}", "v".repeat(key as usize * 50));
    let mut good = 0;
    for weather in BAD_WEATHER.into_iter().flat_map(|bad| [bad, Weather::Fair]) {
        proxies.iter().for_each(|proxy| proxy.set(weather));
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(150) {
            let begun = Instant::now();
            let key = keys[good % keys.len()];
            good += usize::from(client.set(key, value(key)).is_ok());
            for (key, found) in keys.iter().zip(client.get_many::<String>(&keys)) {
                if let Ok(Some(found)) = found {
                    assert_eq!(found, value(*key), "{weather:?}");
                    good += 1;
                }
            }
            assert!(begun.elapsed() < 2 * timeout + PATIENCE / 4, "{weather:?}");
        }
    }
    assert!(good > 100, "{good}");
    // And afterwards all is well again.
    let start = Instant::now();
    while client.get_many::<String>(&keys).all().is_err() {
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(feature = "cli")]
#[test]
fn the_tool_encrypts() {
    let setup = Setup::new(1);
    let run = |options: &[&str]| {
        let address = setup.fronts[0].address.to_string();
        let words = [&["-s", &address][..], options, &["set", "a", "b"]].concat();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_distcache"))
            .args(words)
            .env("DISTCACHE_SERVERS", "")
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let roots = setup.roots.to_string_lossy();
    for (options, expected) in [
        (&["--tls", "--tls-ca", &roots][..], None),
        (&["--tls-ca", &roots, "--tls-name", "127.0.0.1"], None),
        (&["--tls-ca", &roots, "--tls-name", "other.example"], Some("not valid for name")),
        (&["--tls-ca", "/nonexistent"], Some("/nonexistent")),
        (&["--tls-ca", &roots, "--tls-cert", &roots], Some("go together")),
        // Plain words to a server that wants others.
        (&["-T", "500"], Some("127.0.0.1")),
    ] {
        let (done, said) = run(options);
        assert_eq!(done, expected.is_none(), "{options:?}: {said}");
        assert!(expected.is_none_or(|expected| said.contains(expected)), "{options:?}: {said}");
    }
}

#[test]
fn many_threads_share_it() {
    let setup = Setup::new(2);
    let config = Config { check_every: Some(Duration::from_millis(5)), ..setup.config() };
    let client = setup.client(config);
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let client = &client;
            scope.spawn(move || {
                for at in 0..100 {
                    let key = thread * 1000 + at;
                    client.set(key, key).unwrap();
                    assert_eq!(client.get::<u32>(key).unwrap(), Some(key));
                }
            });
        }
    });
    assert_eq!(client.counters().failures, 0);
}

#[test]
fn a_login_goes_through_it() {
    let setup = Setup::new(0);
    let users = setup.folder.file("users", "bob:secret\n");
    let config = ServerSettings { auth_file: Some(users), ..ServerSettings::default() };
    let server = Server::start(config).unwrap();
    let front = Front::new(server.addresses()[0], setup.authority.server("127.0.0.1", None));
    for (password, fits) in [("secret", true), ("wrong", false)] {
        let login = Some(Login::new("bob", password));
        let config = Config { login, ..setup.config() };
        let client = Client::with_config([front.address.to_string()], config).unwrap();
        match client.set("a", 1) {
            Ok(()) => assert!(fits),
            Err(error) => assert!(!fits && matches!(error, Error::Login { .. }), "{error}"),
        }
    }
}

#[cfg(feature = "tokio")]
#[tokio::test(flavor = "multi_thread")]
async fn the_asynchronous_face_is_encrypted_too() {
    use distcache::client::asynchronous::Client;
    let setup = Setup::new(2);
    let addresses: Vec<String> =
        setup.fronts.iter().map(|front| front.address.to_string()).collect();
    let client = Client::with_config(&addresses, setup.config()).unwrap();
    client.set("a", "b").await.unwrap();
    assert_eq!(client.get::<String>("a").await.unwrap().as_deref(), Some("b"));
    let large: Vec<(u32, String)> = (0..20).map(|at| (at, "y".repeat(500_000))).collect();
    client.set_many(&large).await.all().unwrap();
    let keys: Vec<u32> = (0..20).collect();
    let found = client.get_many::<String>(&keys).await.all().unwrap();
    assert!(found.iter().all(|value| value.as_ref().is_some_and(|value| value.len() == 500_000)));
    let value = "x".repeat((1 << 20) - 1024);
    client.set("large", &value).await.unwrap();
    assert!(client.get::<String>("large").await.unwrap() == Some(value));
    // To each server one for all calls, and one for large ones.
    assert_eq!((client.counters().connections, client.counters().failures), (4, 0));
    for at in 0..200u64 {
        // Somewhere between not begun and done.
        let get = client.get::<String>(at % 20);
        if let Ok(found) = tokio::time::timeout(Duration::from_micros(at * 20), get).await {
            assert_eq!(found.unwrap().unwrap().len(), 500_000);
        }
    }
    let tls = Tls { server_name: Some("other.example".into()), ..setup.tls() };
    let other = Client::with_config(&addresses, Config { tls: Some(tls), ..setup.config() });
    let error = other.unwrap().set("a", 1).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error}");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = Config { connect_timeout: Duration::from_millis(50), ..setup.config() };
    let client = Client::with_config([silent.local_addr().unwrap().to_string()], config).unwrap();
    let error = client.get::<u8>("a").await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error}");
}

#[test]
fn the_daemon_itself_is_spoken_to() {
    let (folder, authority, clients) = (Folder::new(), Authority::new("a"), Authority::new("c"));
    let (certificate, key) = authority.sign("127.0.0.1");
    let (own, own_key) = clients.sign("app");
    let tls = TlsConfig {
        chain_cert: folder.file("chain.pem", &certificate.pem()),
        key: folder.file("key.pem", &key.serialize_pem()),
        ca_cert: Some(folder.file("clients.pem", &clients.pem)),
        ..TlsConfig::default()
    };
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::start(ServerSettings {
        listeners: vec![Listener::Tls(address, ClientCertificates::Required)],
        auth_file: Some(folder.file("users", "app:secret\n")),
        tls: Some(tls),
        workers: 2,
        ..ServerSettings::default()
    })
    .unwrap();
    let certificate = ClientCertificate {
        chain: folder.file("own.pem", &own.pem()),
        key: folder.file("own.key", &own_key.serialize_pem()),
    };
    let roots = Some(folder.file("roots.pem", &authority.pem));
    let config = |certificate, password| Config {
        tls: Some(Tls { roots: roots.clone(), certificate, ..Tls::default() }),
        login: Some(Login::new("app", password)),
        check_every: None,
        ..Config::default()
    };
    let connect = |config| Client::with_config([server.addresses()[0].to_string()], config);
    let client = connect(config(Some(certificate.clone()), "secret")).unwrap();
    let large = "x".repeat(700_000);
    client.set("large", &large).unwrap();
    assert!(client.get::<String>("large").unwrap() == Some(large));
    let items: Vec<(u32, u32)> = (0..500).map(|number| (number, number + 1)).collect();
    client.set_many(&items).all().unwrap();
    let keys: Vec<u32> = (0..500).collect();
    let found = client.get_many::<u32>(&keys).all().unwrap();
    assert!(found.iter().zip(&keys).all(|(value, key)| *value == Some(key + 1)));
    let wrong = connect(config(Some(certificate), "wrong")).unwrap();
    assert!(matches!(wrong.get::<String>("k1"), Err(Error::Login { .. })));
    let nameless = connect(config(None, "secret")).unwrap();
    assert!(nameless.get::<String>("k1").is_err());
}
