//! Free ports of 127.0.0.1 for servers that tests and rigs start and that cannot choose one
//! themselves. Owns the choice and never binds what it hands out.
//!
//! Two ways were rejected because they failed one start in some hundreds with "Address already in
//! use", where several servers start side by side:
//! - The port that the system gives to a socket bound to port 0: it comes from the range that
//!   outgoing connections take theirs from, so any client can get it before the server does.
//! - Binding the port to see whether it is free: a process that another thread starts meanwhile
//!   inherits the bound socket, and holds it until it becomes its program.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// What is handed out: above memcached's port, below where outgoing connections begin by Linux's
/// default, 32768.
const FIRST: u16 = 15_000;
const COUNT: u16 = 17_000;
const _: () = assert!(FIRST + COUNT < 32_768);

/// Processes start this far from each other, as their ids go.
const STRIDE: u32 = 97;

/// Nobody is as slow as this to refuse or accept on this machine.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many ports this process has been given or has skipped, modulo 65536.
static TRIED: AtomicU16 = AtomicU16::new(0);

/// A port that nobody listens on and that this process has not been given within the last
/// thousands of calls.
///
/// # Errors
/// `AddrInUse`: somebody listens on every port from 15,000 to 31,999.
pub fn free() -> io::Result<u16> {
    for _ in 0..COUNT {
        let port = candidate(std::process::id(), TRIED.fetch_add(1, Ordering::Relaxed));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // Only a refusal says that nobody is there.
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => return Ok(port),
            _ => {}
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// The port to try at the `tried`-th time.
fn candidate(process: u32, tried: u16) -> u16 {
    let start = process.wrapping_mul(STRIDE) % u32::from(COUNT);
    let index = (start + u32::from(tried)) % u32::from(COUNT);
    FIRST + u16::try_from(index).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::net::TcpListener;

    #[test]
    fn every_port_of_the_range_has_its_turn() {
        let ports: HashSet<u16> = (0..COUNT).map(|tried| candidate(4_242, tried)).collect();
        assert_eq!(ports.len(), usize::from(COUNT));
        assert_eq!((ports.iter().min(), ports.iter().max()), (Some(&15_000), Some(&31_999)));
    }

    #[test]
    fn no_port_comes_twice() {
        let ports: Vec<u16> = std::thread::scope(|scope| {
            let take = || (0..50).map(|_| free().unwrap()).collect::<Vec<_>>();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let different: HashSet<u16> = ports.iter().copied().collect();
        assert_eq!(different.len(), ports.len());
    }

    #[test]
    fn none_comes_that_is_listened_on() {
        // Far ahead of what the other tests are given meanwhile; they skip it.
        let port = candidate(std::process::id(), TRIED.load(Ordering::Relaxed).wrapping_add(2_000));
        let Ok(_listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) else {
            return; // Somebody listens there already, which is as good.
        };
        for _ in 0..2_001 {
            assert_ne!(free().unwrap(), port);
        }
    }

    /// The race that binding would have: what is handed out can be bound while children start.
    #[test]
    fn regression_starting_processes_do_not_hold_a_port() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let port = free().unwrap();
                        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("nobody has it");
                    }
                });
                scope.spawn(|| {
                    for _ in 0..50 {
                        assert!(std::process::Command::new("true").status().unwrap().success());
                    }
                });
            }
        });
    }
}
