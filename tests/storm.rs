//! Clients that come and go as fast as they can, as a client does that gives up its calls one after
//! the other. Goal: none of them is refused while few are there at a time. Method: threads that
//! connect, ask and close without reading, against a server with room for twice as many.

#![cfg(feature = "server")]

use distcache::server::Server;
use distcache::server::config::Config;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const THREADS: usize = 50;
const EACH: usize = 180;

fn stat(address: SocketAddr, name: &str) -> u64 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(b"stats\r\nquit\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("STAT {name} ")));
    line.unwrap_or_else(|| panic!("no {name} in {text:?}")).parse().unwrap()
}

/// Connects, asks, and goes: at once, or after a moment in which the answer may have come.
fn come_and_go(address: SocketAddr, round: usize) {
    let mut stream = TcpStream::connect(address).unwrap();
    // The server may have answered a connection that it refuses, and closed it.
    let _ = stream.write_all(b"get key\r\n");
    if round.is_multiple_of(3) {
        std::thread::sleep(Duration::from_micros(round as u64 % 100));
    }
}

#[test]
fn who_comes_and_goes_is_not_refused() {
    let config = Config { connections_max: 2 * THREADS, workers: 2, ..Config::default() };
    let server = Server::start(Config {
        listeners: vec![
            "127.0.0.1:0".parse().map(distcache::server::config::Listener::Tcp).unwrap(),
        ],
        ..config
    })
    .unwrap();
    let address = server.addresses()[0];
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..EACH).for_each(|round| come_and_go(address, round)));
        }
    });
    assert_eq!(stat(address, "rejected_connections"), 0, "of {}", THREADS * EACH);
    assert!(stat(address, "total_connections") >= (THREADS * EACH) as u64);
}
