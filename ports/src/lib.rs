//! Free ports of 127.0.0.1 for servers that tests and rigs start and that cannot choose one
//! themselves. Owns the choice and never binds what it hands out.
//!
//! A process reserves blocks of ports for itself, so that two rigs side by side never meet: one
//! would find the other's server where it has just started its own. A block is reserved by a Unix
//! socket without a file, which the kernel takes back when the process ends.
//!
//! Two ways were rejected because they failed one start in some hundreds with "Address already in
//! use", where several servers start side by side:
//! - The port that the system gives to a socket bound to port 0: it comes from the range that
//!   outgoing connections take theirs from, so any client can get it before the server does.
//! - Binding the port to see whether it is free: a process that another thread starts meanwhile
//!   inherits the bound socket, and holds it until it becomes its program.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// What is handed out: above memcached's port, below where outgoing connections begin by Linux's
/// default, 32768.
const FIRST: u16 = 15_000;
const BLOCK_PORTS: u16 = 50;
const BLOCKS: u16 = 340;
const _: () = assert!(FIRST + BLOCKS * BLOCK_PORTS < 32_768);

/// Processes look for their first block this far from each other, as their ids go.
const STRIDE: u32 = 97;

/// Nobody is as slow as this to refuse or accept on this machine.
const PATIENCE: Duration = Duration::from_secs(1);

/// What this process has reserved.
static OURS: Mutex<Ours> = Mutex::new(Ours::none());

struct Ours {
    /// In the order of their reservation.
    blocks: Vec<u16>,
    /// Their sockets, held for as long as the process lives.
    reservations: Vec<UnixDatagram>,
    /// The next port, counted over all of `blocks`.
    at: usize,
    /// Blocks there are.
    block_count: u16,
}

/// A port that nobody listens on, that no other process is given while this one lives, and that
/// this process has not been given before, unless all blocks are reserved: then its own ports come
/// again in their order.
///
/// # Errors
/// `AddrInUse`: somebody listens on every port from 15,000 to 31,999, or has reserved it. Others as
/// the system has them: no more descriptors, for example.
pub fn free() -> io::Result<u16> {
    for _ in 0..BLOCKS * BLOCK_PORTS {
        let port = OURS.lock().unwrap_or_else(PoisonError::into_inner).next()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // Only a refusal says that nobody is there.
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => return Ok(port),
            _ => {}
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

impl Ours {
    const fn none() -> Self {
        Self { blocks: Vec::new(), reservations: Vec::new(), at: 0, block_count: BLOCKS }
    }

    /// The next port of a reserved block; once there are no more blocks, of the first again.
    fn next(&mut self) -> io::Result<u16> {
        let ports_count = self.blocks.len() * usize::from(BLOCK_PORTS);
        if self.at == ports_count && !self.reserve()? {
            self.at = 0;
        }
        let (block, port) =
            (self.at / usize::from(BLOCK_PORTS), self.at % usize::from(BLOCK_PORTS));
        self.at += 1;
        let block = self.blocks.get(block).ok_or(io::ErrorKind::AddrInUse)?;
        Ok(FIRST + block * BLOCK_PORTS + u16::try_from(port).unwrap_or_default())
    }

    /// Reserves another block. Answers false if there is none.
    fn reserve(&mut self) -> io::Result<bool> {
        let count = self.block_count;
        let first = (std::process::id().wrapping_mul(STRIDE) % u32::from(BLOCKS)) as u16;
        let order = (first.min(count)..count).chain(0..first.min(count));
        for block in order {
            let name = UnixAddress::from_abstract_name(format!("ports of 127.0.0.1/{block}"))?;
            match UnixDatagram::bind_addr(&name) {
                Ok(socket) => {
                    self.blocks.push(block);
                    self.reservations.push(socket);
                    return Ok(true);
                }
                Err(why) if why.kind() == io::ErrorKind::AddrInUse => {}
                Err(why) => return Err(why),
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::net::TcpListener;

    #[test]
    fn blocks_are_not_shared_and_come_again_when_all_are_taken() {
        let (mut one, mut other) = (Ours::none(), Ours::none());
        let block = usize::from(BLOCK_PORTS);
        let of_one: HashSet<u16> = (0..2 * block).map(|_| one.next().unwrap()).collect();
        let of_other: HashSet<u16> = (0..2 * block).map(|_| other.next().unwrap()).collect();
        assert_eq!((of_one.len(), of_other.len()), (2 * block, 2 * block));
        assert!(of_one.is_disjoint(&of_other));
        assert!(of_one.iter().chain(&of_other).all(|port| (15_000..32_000).contains(port)));
        one.block_count = 0;
        let again: HashSet<u16> = (0..2 * block).map(|_| one.next().unwrap()).collect();
        assert_eq!(again, of_one);
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
        let mut given = HashSet::new();
        let listeners: Vec<_> = (0..60)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, free().unwrap())).unwrap())
            .collect();
        let taken: HashSet<u16> =
            listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        for _ in 0..60 {
            let port = free().unwrap();
            assert!(!taken.contains(&port) && given.insert(port));
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
