//! TLS from outside. Goal: what works without TLS works with it, for every size, pace and version;
//! who may not in does not come in, and is counted; certificates change under running connections.
//! Method: servers in the process with certificates made here, and rustls clients whose sockets
//! are driven by hand where the pace matters.

#![cfg(feature = "server")]

mod support;

use distcache::server::config::{
    ClientCertificates, Config, KeyFormat, Listener, Protocol, TlsConfig, TlsVersion,
};
use distcache::server::{Server, StartError};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{Bounded, PATIENCE, until};
use tempfile::TempDir;

const NAME: &str = "cache.example";

/// An authority.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

/// A certificate with its key.
struct Identity {
    certificate: CertificateDer<'static>,
    pem: String,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        Self {
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(parameters, key),
        }
    }

    fn issue(&self) -> Identity {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        Identity { certificate: certificate.der().clone(), pem: certificate.pem(), key }
    }
}

impl Identity {
    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }
}

/// Files of a server, and the authority that its clients trust.
struct Files {
    directory: TempDir,
    authority: Authority,
}

impl Files {
    fn new() -> Self {
        let files = Self { directory: TempDir::new().unwrap(), authority: Authority::new() };
        files.write(&files.authority.issue());
        fs::write(files.path("ca"), &files.authority.pem).unwrap();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, identity: &Identity) {
        fs::write(self.path("cert"), &identity.pem).unwrap();
        fs::write(self.path("key"), identity.key.serialize_pem()).unwrap();
    }

    fn tls(&self) -> TlsConfig {
        TlsConfig {
            chain_cert: self.path("cert"),
            key: self.path("key"),
            ca_cert: Some(self.path("ca")),
            ..TlsConfig::default()
        }
    }

    fn config(&self, clients: ClientCertificates, workers: usize) -> Config {
        let listeners = vec![Listener::Tls(SocketAddr::from(([127, 0, 0, 1], 0)), clients)];
        Config { listeners, workers, tls: Some(self.tls()), ..Config::default() }
    }

    fn server(&self, workers: usize) -> Server {
        Server::start(self.config(ClientCertificates::Ignored, workers)).unwrap()
    }

    /// What a client goes by: the versions it speaks, and its certificate if it has one.
    fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        identity: Option<&Identity>,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        match identity {
            Some(identity) => {
                let chain = vec![identity.certificate.clone()];
                builder.with_client_auth_cert(chain, identity.private_key()).unwrap()
            }
            None => builder.with_no_client_auth(),
        }
    }

    fn connect(&self, server: &Server) -> Client {
        connect(server.addresses()[0], &Arc::new(self.client(BOTH, None)))
    }
}

const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

type Client = StreamOwned<ClientConnection, TcpStream>;

fn socket(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn connection(config: &Arc<ClientConfig>) -> ClientConnection {
    ClientConnection::new(Arc::clone(config), ServerName::try_from(NAME).unwrap()).unwrap()
}

fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> Client {
    StreamOwned::new(connection(config), socket(address))
}

/// Says something and reads as much as is expected to come.
fn check(client: &mut Client, said: &str, expected: &str) {
    client.write_all(said.as_bytes()).unwrap();
    let mut answer = vec![0; expected.len()];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), expected, "{said}");
}

/// Says something, then reads to the end, which has to be a proper one.
fn last_words(mut client: Client, said: &str) -> String {
    client.write_all(said.as_bytes()).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

/// The value of one line of `stats`.
fn stat(client: &mut Client, topic: &str, name: &str) -> Option<String> {
    client.write_all(format!("stats{topic}\r\n").as_bytes()).unwrap();
    let mut text = Vec::new();
    while !text.ends_with(b"END\r\n") {
        let mut piece = [0; 4096];
        let count = client.read(&mut piece).unwrap();
        assert!(count > 0, "the server closed");
        text.extend_from_slice(&piece[..count]);
    }
    let text = String::from_utf8(text).unwrap();
    let start = format!("STAT {name} ");
    text.lines().find_map(|line| line.strip_prefix(&start).map(str::to_owned))
}

/// Bytes that do not compress or repeat, and differ for each number.
fn noise(number: u64, count: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..count).map(|_| step()).collect()
}

#[test]
fn conversations_in_both_versions() {
    let files = Files::new();
    for workers in [1, 2] {
        let server = files.server(workers);
        for version in [&TLS12, &TLS13] {
            let config = Arc::new(files.client(&[version], None));
            let mut client = connect(server.addresses()[0], &config);
            check(&mut client, "set a 5 0 3\r\nabc\r\n", "STORED\r\n");
            check(&mut client, "get a b\r\n", "VALUE a 5 3\r\nabc\r\nEND\r\n");
            check(&mut client, "mg a v\r\nmn\r\n", "VA 3\r\nabc\r\nMN\r\n");
            assert_eq!(client.conn.protocol_version(), Some(version.version));
            assert_eq!(stat(&mut client, "", "ssl_handshake_errors").as_deref(), Some("0"));
            assert_eq!(stat(&mut client, "", "ssl_new_sessions"), None, "there is no cache");
            assert_eq!(stat(&mut client, " settings", "ssl_enabled").as_deref(), Some("yes"));
            let address = client.sock.local_addr().unwrap();
            check(&mut client, "delete a\r\n", "DELETED\r\n");
            client.write_all(b"stats conns\r\n").unwrap();
            let text = last_words(client, "quit\r\n");
            assert!(text.contains(&format!("addr tcp:{address}\r\n")), "{text}");
        }
    }
}

#[test]
fn large_values_in_both_directions_and_slow_readers() {
    const BYTES: usize = 4 << 20;
    let files = Files::new();
    for workers in [1, 2] {
        let config = files.config(ClientCertificates::Ignored, workers);
        let config = Config { item_bytes_max: 8 << 20, memory_bytes_max: 128 << 20, ..config };
        let server = Server::start(config).unwrap();
        let mut client = files.connect(&server);
        for number in 0..4 {
            client.write_all(format!("set k{number} 0 0 {BYTES}\r\n").as_bytes()).unwrap();
            client.write_all(&noise(number, BYTES)).unwrap();
            check(&mut client, "\r\n", "STORED\r\n");
        }
        for slow in [false, true] {
            client.write_all(b"get k0 k1 k2 k3 k0\r\n").unwrap();
            // Sockets fill up meanwhile, and records wait in the server.
            std::thread::sleep(Duration::from_millis(100));
            for number in [0, 1, 2, 3, 0] {
                check(&mut client, "", &format!("VALUE k{number} 0 {BYTES}\r\n"));
                let mut value = vec![0; BYTES];
                for piece in value.chunks_mut(BYTES / 16) {
                    client.read_exact(piece).unwrap();
                    if slow {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
                assert!(value == noise(number, BYTES), "k{number}, slow {slow}");
                check(&mut client, "", "\r\n");
            }
            check(&mut client, "", "END\r\n");
        }
    }
}

/// A client with a small socket, of which the server fills what there is.
fn connect_narrow(address: SocketAddr, config: &Arc<ClientConfig>) -> Client {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(connection(config), socket.into())
}

/// The last records of an answer wait inside the server's TLS when the socket is full just then.
/// They have to leave all the same, and before the connection ends.
#[test]
fn the_last_records_leave_although_nothing_else_is_to_be_said() {
    const STEP_BYTES: usize = 16 << 10;
    let files = Files::new();
    let config = files.config(ClientCertificates::Ignored, 1);
    let config = Config { item_bytes_max: 32 << 20, memory_bytes_max: 256 << 20, ..config };
    let server = Server::start(config).unwrap();
    let config = Arc::new(files.client(BOTH, None));
    let store = |bytes: usize| {
        let mut client = connect(server.addresses()[0], &config);
        client.write_all(format!("set k{bytes} 0 0 {bytes}\r\n").as_bytes()).unwrap();
        client.write_all(&vec![b'v'; bytes]).unwrap();
        check(&mut client, "\r\n", "STORED\r\n");
    };
    // How much the server can say to somebody who does not listen.
    store(16 << 20);
    let mut control = files.connect(&server);
    let mut written = || stat(&mut control, "", "bytes_written").unwrap().parse::<usize>().unwrap();
    let before = written();
    let mut deaf = connect_narrow(server.addresses()[0], &config);
    deaf.write_all(b"get k16777216\r\n").unwrap();
    deaf.read_exact(&mut [0]).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let taken = written() - before;
    assert!(taken < 16 << 20, "the socket takes all of it: {taken}");
    // Up to 64 KiB of it waited inside.
    let from = taken.saturating_sub(5 * STEP_BYTES);
    for bytes in (from..taken + 2 * STEP_BYTES).step_by(STEP_BYTES) {
        store(bytes);
        for goodbye in ["quit\r\n", ""] {
            let mut client = connect_narrow(server.addresses()[0], &config);
            client.write_all(format!("get k{bytes}\r\n{goodbye}").as_bytes()).unwrap();
            let mut first = [0];
            client.read_exact(&mut first).unwrap();
            std::thread::sleep(Duration::from_millis(20));
            let around = format!("ALUE k{bytes} 0 {bytes}\r\n\r\nEND\r\n").len();
            let mut rest = vec![0; around + bytes];
            client.read_exact(&mut rest).unwrap();
            assert!(rest.ends_with(b"vv\r\nEND\r\n"));
            if !goodbye.is_empty() {
                assert_eq!(client.read(&mut [0]).unwrap(), 0, "a proper end");
            }
        }
    }
}

/// Commands of many sizes sent without waiting, and everything they are answered by.
fn stream(count: u64) -> (Vec<u8>, Vec<u8>) {
    let (mut said, mut expected) = (Vec::new(), Vec::new());
    for number in 0..count {
        let bytes = (number * number * 37 % 20_000) as usize;
        let value = noise(number, bytes);
        let line = format!("set key{number} {number} 0 {bytes}\r\n");
        said.extend_from_slice(line.as_bytes());
        said.extend_from_slice(&value);
        said.extend_from_slice(format!("\r\nget key{number} none\r\n").as_bytes());
        let line = format!("STORED\r\nVALUE key{number} {number} {bytes}\r\n");
        expected.extend_from_slice(line.as_bytes());
        expected.extend_from_slice(&value);
        expected.extend_from_slice(b"\r\nEND\r\n");
    }
    (said, expected)
}

/// Says all of it while reading the answers, on one socket that does not block.
fn exchange(client: &mut ClientConnection, socket: &mut TcpStream, mut said: &[u8]) -> Vec<u8> {
    socket.set_nonblocking(true).unwrap();
    let (mut heard, mut goodbye, start) = (Vec::new(), false, Instant::now());
    loop {
        assert!(start.elapsed() < PATIENCE, "{} to say, {} heard", said.len(), heard.len());
        let taken = client.writer().write(said).unwrap();
        said = &said[taken..];
        if said.is_empty() && !goodbye {
            client.writer().write_all(b"quit\r\n").unwrap();
            goodbye = true;
        }
        let written = match client.wants_write() {
            true => client.write_tls(socket),
            false => Err(ErrorKind::WouldBlock.into()),
        };
        let read = client.read_tls(socket);
        let state = client.process_new_packets().unwrap();
        let from = heard.len();
        heard.resize(from + state.plaintext_bytes_to_read(), 0);
        client.reader().read_exact(&mut heard[from..]).unwrap();
        if state.peer_has_closed() || matches!(read, Ok(0)) {
            return heard;
        }
        if written.is_err() && read.is_err() {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

#[test]
fn pipelines_are_answered_in_order() {
    let files = Files::new();
    let (said, expected) = stream(700);
    for workers in [1, 2] {
        let server = files.server(workers);
        for version in [&TLS12, &TLS13] {
            let mut client = connection(&Arc::new(files.client(&[version], None)));
            let mut socket = socket(server.addresses()[0]);
            let heard = exchange(&mut client, &mut socket, &said);
            assert!(heard == expected, "{workers} workers: {} of {}", heard.len(), expected.len());
        }
    }
}

/// Sends records a byte at a time, and gives what comes to the client a byte at a time.
fn trickle(client: &mut ClientConnection, socket: &mut TcpStream, said: &[u8], answer: &mut [u8]) {
    client.writer().write_all(said).unwrap();
    let mut heard = 0;
    while heard < answer.len() {
        let mut records = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut records).unwrap();
        }
        for byte in records {
            socket.write_all(&[byte]).unwrap();
        }
        let mut byte = [0];
        assert_eq!(socket.read(&mut byte).unwrap(), 1, "the server closed");
        client.read_tls(&mut &byte[..]).unwrap();
        client.process_new_packets().unwrap();
        heard += match client.reader().read(&mut answer[heard..]) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => panic!("{error}"),
        };
    }
}

#[test]
fn handshakes_and_commands_byte_by_byte() {
    let files = Files::new();
    for version in [&TLS12, &TLS13] {
        let server = files.server(2);
        let mut client = connection(&Arc::new(files.client(&[version], None)));
        let mut socket = socket(server.addresses()[0]);
        let said = b"set a 0 0 3\r\nabc\r\nget a\r\n";
        let expected = b"STORED\r\nVALUE a 0 3\r\nabc\r\nEND\r\n";
        let mut answer = vec![0; expected.len()];
        trickle(&mut client, &mut socket, said, &mut answer);
        assert_eq!(String::from_utf8_lossy(&answer), String::from_utf8_lossy(expected));
    }
}

#[test]
fn clients_that_speak_something_else_are_closed_and_counted() {
    let files = Files::new();
    let server = files.server(2);
    let plain = |said: &[u8]| {
        let mut socket = socket(server.addresses()[0]);
        socket.write_all(said).unwrap();
        let mut answer = Vec::new();
        // Bytes that nobody reads reset a connection.
        let _ = socket.read_to_end(&mut answer);
        answer
    };
    for said in ["get a\r\nget a\r\n", "GET / HTTP/1.1\r\n\r\n", "\u{80}\u{1}\0\u{2}\u{1}\0\0"] {
        let answer = plain(said.as_bytes());
        assert!(answer.is_empty() || answer[0] == 21, "only an alert: {answer:?}");
    }
    let mut client = files.connect(&server);
    assert_eq!(stat(&mut client, "", "ssl_handshake_errors").as_deref(), Some("3"));
    assert_eq!(stat(&mut client, "", "ssl_proto_errors").as_deref(), Some("0"));

    // Rubbish behind a handshake.
    let mut broken = files.connect(&server);
    check(&mut broken, "mn\r\n", "MN\r\n");
    broken.sock.write_all(b"\x17\x03\x03\x00\x20 this was never encrypted, so it is").unwrap();
    assert!(broken.read_to_end(&mut Vec::new()).is_err(), "an alert");
    assert_eq!(stat(&mut client, "", "ssl_proto_errors").as_deref(), Some("1"));
    assert_eq!(stat(&mut client, "", "ssl_handshake_errors").as_deref(), Some("3"));
    until("both to be closed", || {
        stat(&mut client, "", "curr_connections").as_deref() == Some("1")
    });
    client.write_all(b"stats reset\r\n").unwrap();
    check(&mut client, "", "RESET\r\n");
    assert_eq!(stat(&mut client, "", "ssl_handshake_errors").as_deref(), Some("0"));

    // TLS to a port without: the client hears no TLS, and nothing is executed.
    let without = Server::bind("127.0.0.1:0").unwrap();
    let mut client = files.connect(&without);
    client.sock.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(client.write_all(b"mn\r\n").and_then(|()| client.read_exact(&mut [0; 4])).is_err());
}

/// Whether a client is served.
#[test]
fn both_protocols_are_spoken_and_one_is_closed_at_its_first_byte() {
    let files = Files::new();
    let frame = |magic| [&[magic, 0x0a], &[0; 22][..]].concat();
    for (protocol, answered) in [(Protocol::Either, true), (Protocol::Text, false)] {
        let config = files.config(ClientCertificates::Ignored, 2);
        let server = Server::start(Config { protocol, ..config }).unwrap();
        let mut client = files.connect(&server);
        client.write_all(&frame(0x80)).unwrap();
        let mut answer = vec![0; if answered { 24 } else { 1 }];
        if answered {
            client.read_exact(&mut answer).unwrap();
            assert_eq!(answer, frame(0x81));
        } else {
            assert_eq!(client.read(&mut answer).unwrap(), 0, "closed, and properly");
        }
        check(&mut files.connect(&server), "mn\r\n", "MN\r\n");
    }
}

fn is_served(address: SocketAddr, config: ClientConfig) -> bool {
    let mut client = connect(address, &Arc::new(config));
    let mut answer = [0; 4];
    let served = client.write_all(b"mn\r\n").and_then(|()| client.read_exact(&mut answer));
    served.is_ok() && answer == *b"MN\r\n"
}

#[test]
fn client_certificates() {
    use ClientCertificates::{Ignored, Optional, Required};
    let files = Files::new();
    let ours = files.authority.issue();
    let foreign = Authority::new().issue();
    for (clients, none, good, bad) in
        [(Ignored, true, true, true), (Optional, true, true, false), (Required, false, true, false)]
    {
        let server = Server::start(files.config(clients, 2)).unwrap();
        let mut refused = 0;
        for version in [&TLS12, &TLS13] {
            for (identity, expected) in [(None, none), (Some(&ours), good), (Some(&foreign), bad)] {
                let config = files.client(&[version], identity);
                let served = is_served(server.addresses()[0], config);
                assert_eq!(served, expected, "{clients:?}, {}", identity.is_some());
                refused += usize::from(!expected);
            }
        }
        let config = Arc::new(files.client(BOTH, Some(&ours)));
        let mut client = connect(server.addresses()[0], &config);
        let counted = stat(&mut client, "", "ssl_handshake_errors").unwrap();
        assert_eq!(counted, refused.to_string(), "{clients:?}");
    }
}

#[test]
fn versions_and_ciphers_are_what_was_asked_for() {
    let files = Files::new();
    let start = |change: fn(&mut TlsConfig)| {
        let mut config = files.config(ClientCertificates::Ignored, 1);
        change(config.tls.as_mut().unwrap());
        Server::start(config).unwrap()
    };
    let server = start(|tls| tls.min_version = TlsVersion::V1_3);
    assert!(!is_served(server.addresses()[0], files.client(&[&TLS12], None)));
    assert!(is_served(server.addresses()[0], files.client(&[&TLS13], None)));

    let one = "ECDHE-ECDSA-AES128-GCM-SHA256";
    let server = start(|tls| tls.ciphers = Some("ECDHE-ECDSA-AES128-GCM-SHA256".to_owned()));
    let mut client = connect(server.addresses()[0], &Arc::new(files.client(&[&TLS12], None)));
    assert_eq!(stat(&mut client, " settings", "ssl_ciphers").as_deref(), Some(one));
    let suite = client.conn.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256);
}

/// The certificate a client is shown.
fn shown(client: &Client) -> CertificateDer<'static> {
    client.conn.peer_certificates().unwrap()[0].clone().into_owned()
}

#[test]
fn certificates_are_read_again_for_new_connections() {
    let files = Files::new();
    let first = files.authority.issue();
    files.write(&first);
    let server = files.server(2);
    let mut old = files.connect(&server);
    check(&mut old, "mn\r\n", "MN\r\n");

    let second = files.authority.issue();
    files.write(&second);
    assert_eq!(shown_now(&files, &server), first.certificate, "not before it is asked for");
    check(&mut old, "refresh_certs\r\n", "OK\r\n");
    assert_eq!(shown_now(&files, &server), second.certificate);
    check(&mut old, "refresh_certs noreply\r\nmn\r\n", "MN\r\n");

    // Broken files change nothing.
    let (cert, key) = (files.path("cert"), files.path("key"));
    for (file, text, start) in [
        (&cert, String::new(), format!("Error loading the certificate chain: {}", cert.display())),
        (&key, "rubbish".to_owned(), format!("Error loading the key: {} : ", key.display())),
        (&key, first.key.serialize_pem(), "Error validating the certificate: ".to_owned()),
    ] {
        files.write(&second);
        fs::write(file, text).unwrap();
        old.write_all(b"refresh_certs\r\n").unwrap();
        check(&mut old, "", &start);
        let mut byte = [0];
        while byte != *b"\n" {
            old.read_exact(&mut byte).unwrap();
        }
        assert!(server.reload());
        assert_eq!(shown_now(&files, &server), second.certificate);
    }
    files.write(&first);
    assert!(server.reload());
    assert_eq!(shown_now(&files, &server), first.certificate);
    check(&mut old, "mn\r\n", "MN\r\n");
    assert_eq!(shown(&old), first.certificate);

    let age = |client: &mut Client| {
        let line = stat(client, "", "time_since_server_cert_refresh");
        line.unwrap().parse::<u64>().unwrap()
    };
    until("certificates to age", || age(&mut old) > 0);
    until("them to be new", || {
        check(&mut old, "refresh_certs\r\n", "OK\r\n");
        age(&mut old) == 0
    });
}

fn shown_now(files: &Files, server: &Server) -> CertificateDer<'static> {
    let mut client = files.connect(server);
    check(&mut client, "mn\r\n", "MN\r\n");
    shown(&client)
}

#[test]
fn files_that_cannot_be_used_stop_the_start() {
    let files = Files::new();
    let refused = |change: &dyn Fn(&mut TlsConfig)| {
        let mut config = files.config(ClientCertificates::Ignored, 1);
        change(config.tls.as_mut().unwrap());
        match Server::start(config).map(drop) {
            Err(StartError::Tls(why)) => why.to_string(),
            other => panic!("{other:?}"),
        }
    };
    let gone = files.path("gone");
    for (said, start) in [
        (refused(&|tls| tls.chain_cert = gone.clone()), "Error loading the certificate chain: "),
        (refused(&|tls| tls.key = gone.clone()), "Error loading the key: "),
        (refused(&|tls| tls.key = files.path("ca")), "Error loading the key: "),
        (refused(&|tls| tls.key_format = KeyFormat::Der), "Error loading the key: "),
        (refused(&|tls| tls.ca_cert = Some(gone.clone())), "Error loading the CA certificate: "),
        (refused(&|tls| tls.ca_cert = Some(files.path("key"))), "Error loading the CA certifi"),
        (refused(&|tls| tls.ciphers = Some("RC4-MD5".into())), "Error setting the provided ciph"),
    ] {
        assert!(said.starts_with(start), "{said}");
    }
    // A key that is written down as bytes, and one file for both.
    let identity = files.authority.issue();
    files.write(&identity);
    fs::write(files.path("der"), identity.key.serialize_der()).unwrap();
    fs::write(files.path("both"), identity.key.serialize_pem() + &identity.pem).unwrap();
    for (chain_cert, key, key_format) in
        [("cert", "der", KeyFormat::Der), ("both", "both", KeyFormat::Pem)]
    {
        let mut config = files.config(ClientCertificates::Ignored, 1);
        let (chain_cert, key) = (files.path(chain_cert), files.path(key));
        config.tls = Some(TlsConfig { chain_cert, key, key_format, ..files.tls() });
        let server = Server::start(config).unwrap();
        assert_eq!(shown_now(&files, &server), identity.certificate);
    }
}

#[test]
fn sessions_are_resumed_only_if_allowed_and_only_where_they_began() {
    use ClientCertificates::{Ignored, Required};
    let files = Files::new();
    let ours = files.authority.issue();
    for (session_cache, version) in
        [(false, &TLS12), (false, &TLS13), (true, &TLS12), (true, &TLS13)]
    {
        let mut config = files.config(Ignored, 1);
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        config.listeners.push(Listener::Tls(any, Required));
        config.tls.as_mut().unwrap().session_cache = session_cache;
        let server = Server::start(config).unwrap();
        let mut config = files.client(&[version], None);
        config.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(8)));
        let config = Arc::new(config);
        let kind = |at: usize| {
            let mut client = connect(server.addresses()[at], &config);
            check(&mut client, "mn\r\n", "MN\r\n");
            client.conn.handshake_kind().unwrap()
        };
        assert_eq!(kind(0), HandshakeKind::Full);
        let expected = if session_cache { HandshakeKind::Resumed } else { HandshakeKind::Full };
        assert_eq!(kind(0), expected, "{version:?}, cache {session_cache}");
        // A session without a certificate opens no door where one is required.
        let mut client = connect(server.addresses()[1], &config);
        let answer = client.write_all(b"mn\r\n").and_then(|()| client.read_exact(&mut [0; 4]));
        assert!(answer.is_err(), "{version:?}, cache {session_cache}");

        let config = Arc::new(files.client(&[version], Some(&ours)));
        let mut client = connect(server.addresses()[1], &config);
        let sessions = stat(&mut client, "", "ssl_new_sessions");
        assert_eq!(sessions.as_deref(), session_cache.then_some("2"), "{version:?}");
    }
}

#[test]
fn many_connections_at_a_time() {
    let files = Files::new();
    for workers in [1, 2] {
        let server = files.server(workers);
        let config = Arc::new(files.client(BOTH, None));
        let mut clients: Vec<Client> =
            (0..150).map(|_| connect(server.addresses()[0], &config)).collect();
        for round in 0..3 {
            for (at, client) in clients.iter_mut().enumerate() {
                let said = format!("set k{at} 0 0 1\r\n{round}\r\nget k{at}\r\n");
                client.write_all(said.as_bytes()).unwrap();
            }
            for (at, client) in clients.iter_mut().enumerate() {
                let expected = format!("STORED\r\nVALUE k{at} 0 1\r\n{round}\r\nEND\r\n");
                check(client, "", &expected);
            }
        }
        let first = &mut clients[0];
        assert_eq!(stat(first, "", "curr_connections").as_deref(), Some("150"));
        clients.truncate(1);
        let first = &mut clients[0];
        until("the others to be gone", || {
            stat(first, "", "curr_connections").as_deref() == Some("1")
        });
    }
}

#[test]
fn whatever_is_begun_and_not_gone_on_with_is_closed_for_being_idle() {
    let files = Files::new();
    let config = files.config(ClientCertificates::Ignored, 2);
    let server = Server::start(Config { idle_timeout_seconds: 1, ..config }).unwrap();
    // Nothing, the beginning of a record, a whole hello, and a handshake without a command.
    let config = Arc::new(files.client(BOTH, None));
    let mut hello = Vec::new();
    connection(&config).write_tls(&mut hello).unwrap();
    let begun = [&[][..], &hello[..20], &hello[..]].map(|said| {
        let mut socket = socket(server.addresses()[0]);
        socket.write_all(said).unwrap();
        socket
    });
    let mut client = files.connect(&server);
    while client.conn.is_handshaking() {
        client.conn.complete_io(&mut client.sock).unwrap();
    }
    for mut socket in begun {
        let start = Instant::now();
        let _ = socket.read_to_end(&mut Vec::new());
        assert!(start.elapsed() < PATIENCE, "not closed");
    }
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "a goodbye");
    let mut client = files.connect(&server);
    assert_eq!(stat(&mut client, "", "idle_kicks").as_deref(), Some("4"));
}

#[test]
fn ends_without_a_goodbye_leave_nothing_half_done() {
    let files = Files::new();
    let server = files.server(2);
    for (goodbye, hangs_up, apart) in [
        (false, true, false),
        (false, true, true),
        (true, false, false),
        (true, false, true),
        (true, true, false),
    ] {
        let mut client = files.connect(&server);
        check(&mut client, "mn\r\n", "MN\r\n");
        // Whole commands are executed and answered after the end; an open one is not.
        let said = b"set whole 0 0 1\r\n1\r\nset half 0 0 10\r\n12345";
        let mut records = Vec::new();
        client.conn.writer().write_all(said).unwrap();
        client.conn.write_tls(&mut records).unwrap();
        if apart {
            client.sock.write_all(&std::mem::take(&mut records)).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
        if goodbye {
            client.conn.send_close_notify();
            client.conn.write_tls(&mut records).unwrap();
        }
        client.sock.write_all(&records).unwrap();
        if hangs_up {
            client.sock.shutdown(Shutdown::Write).unwrap();
        }
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "STORED\r\n");
        let mut client = files.connect(&server);
        check(&mut client, "get whole half\r\n", "VALUE whole 0 1\r\n1\r\nEND\r\n");
        check(&mut client, "delete whole\r\n", "DELETED\r\n");
    }
    // Connections that the server ends hear a goodbye, too.
    let mut client = files.connect(&server);
    check(&mut client, "mn\r\n", "MN\r\n");
    server.stop_gracefully();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}

#[test]
fn a_unix_socket_and_other_ports_are_served_beside() {
    use std::os::unix::net::UnixStream;
    let files = Files::new();
    let path = files.path("socket");
    let mut config = files.config(ClientCertificates::Ignored, 2);
    config.listeners.push(Listener::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))));
    config.listeners.push(Listener::Unix(path.clone(), 0o700));
    let server = Server::start(config).unwrap();
    check(&mut files.connect(&server), "set a 0 0 1\r\n1\r\n", "STORED\r\n");
    let expected = b"VALUE a 0 1\r\n1\r\nEND\r\n";
    let mut answer = [0; 21];
    let mut plain = socket(server.addresses()[1]);
    plain.write_all(b"get a\r\n").unwrap();
    plain.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, expected);
    let mut unix = UnixStream::connect(&path).unwrap();
    unix.write_all(b"get a\r\n").unwrap();
    unix.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, expected);
}

#[test]
fn the_daemon_reads_a_key_that_only_root_can_read() {
    use nix::sys::signal::{Signal, kill};
    use std::os::unix::fs::PermissionsExt;
    let files = Files::new();
    let first = files.authority.issue();
    files.write(&first);
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(files.path("key"), private).unwrap();
    fs::set_permissions(files.directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let is_root = nix::unistd::Uid::effective().is_root();
    let path = |name: &str| files.path(name).display().to_string();
    let list = format!(
        "ssl_chain_cert={},ssl_key={},ssl_ca_cert={}",
        path("cert"),
        path("key"),
        path("ca")
    );
    let mut command = Command::new(env!("CARGO_BIN_EXE_distcached"));
    command.args(["-Z", "-o", &list, "-p", "-1", "-l"]);
    command.arg("127.0.0.1,notls:127.0.0.1:-1,mtls:127.0.0.1:-1");
    if is_root {
        command.args(["-u", "nobody"]);
    }
    command.env("MEMCACHED_PORT_FILENAME", files.path("ports")).stdin(Stdio::null());
    let daemon = Bounded(command.stderr(Stdio::null()).spawn().unwrap());
    until("the ports", || files.path("ports").exists());
    let ports = fs::read_to_string(files.path("ports")).unwrap();
    let address = |line: &str| {
        let port = line.strip_prefix("TCP INET: ").unwrap().parse().unwrap();
        SocketAddr::from(([127, 0, 0, 1], port))
    };
    let addresses: Vec<SocketAddr> = ports.lines().map(address).collect();
    let ours = files.authority.issue();
    assert!(is_served(addresses[0], files.client(BOTH, None)));
    assert!(is_served(addresses[2], files.client(BOTH, Some(&ours))));
    assert!(!is_served(addresses[2], files.client(BOTH, None)));
    let mut plain = socket(addresses[1]);
    plain.write_all(b"mn\r\n").unwrap();
    let mut answer = [0; 4];
    plain.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"MN\r\n");

    // SIGHUP, by the user it has become: first it may not read the key, then it may.
    let config = Arc::new(files.client(BOTH, None));
    let now = || {
        let mut client = connect(addresses[0], &config);
        check(&mut client, "mn\r\n", "MN\r\n");
        shown(&client)
    };
    let second = files.authority.issue();
    files.write(&second);
    let hang_up = || kill(nix::unistd::Pid::from_raw(daemon.0.id() as i32), Signal::SIGHUP);
    if is_root {
        hang_up().unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(now(), first.certificate);
    }
    fs::set_permissions(files.path("key"), fs::Permissions::from_mode(0o644)).unwrap();
    hang_up().unwrap();
    until("the second certificate", || now() == second.certificate);
}

#[test]
fn sockets_of_a_service_manager_are_for_tls_too() {
    let files = Files::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (cert, key) = (files.path("cert"), files.path("key"));
    let list = format!("ssl_chain_cert={},ssl_key={}", cert.display(), key.display());
    let script = "exec 3<&0; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_distcached"), "-Z", "-o", &list]);
    if nix::unistd::Uid::effective().is_root() {
        command.args(["-u", "root"]);
    }
    let handed_over = Stdio::from(std::os::fd::OwnedFd::from(listener));
    let _daemon = Bounded(command.stdin(handed_over).stderr(Stdio::null()).spawn().unwrap());
    // Whoever comes before the server is there waits in the queue.
    assert!(is_served(address, files.client(BOTH, None)));
    let mut plain = socket(address);
    plain.write_all(b"version\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"VERSION"), "{answer:?}");
}

/// What fails is told to who watches, as memcached tells it.
#[test]
fn a_watcher_is_told_of_what_is_no_tls() {
    let files = Files::new();
    let mut config = files.config(ClientCertificates::Ignored, 1);
    config.listeners.push(Listener::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))));
    let server = Server::start(config).unwrap();
    let mut watcher = TcpStream::connect(server.addresses()[1]).unwrap();
    watcher.set_read_timeout(Some(PATIENCE)).unwrap();
    watcher.write_all(b"watch connevents\r\n").unwrap();
    let mut said = String::new();
    let mut read_to = |what: &str| {
        while !said.contains(what) {
            let mut bytes = [0; 4096];
            let count = watcher.read(&mut bytes).unwrap();
            assert!(count > 0, "closed after {said}");
            said.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
        said.clone()
    };
    read_to("OK\r\n");
    let mut client = TcpStream::connect(server.addresses()[0]).unwrap();
    client.write_all(b"version\r\n").unwrap();
    let said = read_to("reason=error");
    let line = said.lines().find(|line| line.contains("type=conntlserr fd=")).expect(&said);
    assert!(line.contains(" msg="), "{line}");
}
