//! Limits that take more than a fixed list of requests to reach: memory and connections.
//!
//! Played to the server under test and to every memcached found.

use std::io;

use protocol_tests::flags::ServerFlags;
use protocol_tests::process::memcached_binaries;
use protocol_tests::target::Target;
use protocol_tests::wire::{Connection, End, REPLY_TIMEOUT};

/// Starts every server there is to test.
fn targets(flags: &str) -> Vec<Target> {
    let flags = ServerFlags::parse(flags).unwrap();
    let memcached = memcached_binaries();
    let oracles = memcached.iter().map(|binary| Target::start_memcached(binary, &flags));
    [Target::start_distcached(&flags)].into_iter().chain(oracles).collect::<Result<_, _>>().unwrap()
}

fn ask(connection: &mut Connection, request: &[u8]) -> io::Result<String> {
    let received = connection.exchange(&[request, b"mn\r\n"], 1, REPLY_TIMEOUT)?;
    Ok(String::from_utf8_lossy(&received.bytes).replace("MN\r\n", ""))
}

/// Stores `count` values of 100 kB under different keys and returns the replies.
fn fill(connection: &mut Connection, count: usize) -> Vec<String> {
    let value = "x".repeat(100_000);
    let set = |number| format!("set key{number} 0 0 {}\r\n{value}\r\n", value.len());
    (0..count).map(|number| ask(connection, set(number).as_bytes()).unwrap()).collect()
}

/// -M: when memory is full, sets fail and what is stored stays.
#[test]
fn without_eviction_a_full_cache_refuses() {
    for target in targets("-M -m 16") {
        let mut connection = target.connect().unwrap();
        let replies = fill(&mut connection, 300);
        let refused = "SERVER_ERROR out of memory storing object\r\n";
        assert_eq!(replies[0], "STORED\r\n", "{}", target.identity());
        assert_eq!(replies[299], refused, "{}", target.identity());
        assert!(replies.iter().all(|reply| reply == "STORED\r\n" || reply == refused));
        let first = ask(&mut connection, b"mg key0 s\r\n").unwrap();
        assert_eq!(first, "HD s100000\r\n", "{}", target.identity());
    }
}

/// Without -M: when memory is full, sets succeed and old items go.
#[test]
fn with_eviction_a_full_cache_makes_room() {
    for target in targets("-m 16") {
        let mut connection = target.connect().unwrap();
        let replies = fill(&mut connection, 600);
        assert!(replies.iter().all(|reply| reply == "STORED\r\n"), "{}", target.identity());
        let last = ask(&mut connection, b"mg key599 s\r\n").unwrap();
        assert_eq!(last, "HD s100000\r\n", "{}", target.identity());
        let hits = (0..600).filter(|number| {
            let request = format!("mg key{number}\r\n");
            ask(&mut connection, request.as_bytes()).unwrap() == "HD\r\n"
        });
        let hits = hits.count();
        assert!((30..200).contains(&hits), "{hits} items in 16 MB, {}", target.identity());
    }
}

/// -c: a connection too many gets one line and is closed; the others go on.
#[test]
fn connections_beyond_the_limit_are_refused() {
    for target in targets("-c 64") {
        let mut connections: Vec<Connection> = Vec::new();
        let refused = loop {
            let mut connection = target.connect().unwrap();
            let _ = connection.send(b"mn\r\n");
            let received = connection.receive(1, REPLY_TIMEOUT).unwrap();
            if received.end == End::Closed {
                break received.bytes;
            }
            connections.push(connection);
            assert!(connections.len() <= 64, "no limit, {}", target.identity());
        };
        let text = String::from_utf8_lossy(&refused);
        assert!(
            refused.is_empty() || text == "ERROR Too many open connections\r\n",
            "{text:?} {}",
            target.identity()
        );
        assert!(connections.len() > 10, "only {}, {}", connections.len(), target.identity());
        for connection in &mut connections {
            assert_eq!(ask(connection, b"get none\r\n").unwrap(), "END\r\n");
        }
        connections.pop();
        // The server may need a moment to notice.
        let mut accepted = (0..100).map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            let mut connection = target.connect().unwrap();
            ask(&mut connection, b"get none\r\n").is_ok_and(|reply| reply == "END\r\n")
        });
        assert!(accepted.any(|accepted| accepted), "{}", target.identity());
    }
}
