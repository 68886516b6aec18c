//! The server under attack as the system shows it: memory, CPU, descriptors. Owns reading `/proc`
//! of one process; never talks to the server.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::Result;

const SETTLE_POLL: Duration = Duration::from_millis(50);

/// An address that is attacked, and the process behind it.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its process.
    pub pid: Pid,
}

impl Subject {
    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.status_bytes("VmRSS:")
    }

    /// Address space in bytes.
    pub fn address_space_bytes(&self) -> Result<u64> {
        self.status_bytes("VmSize:")
    }

    fn status_bytes(&self, name: &str) -> Result<u64> {
        let text = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next());
        let kib: u64 = number.ok_or_else(|| format!("no {name} of the server"))?.parse()?;
        Ok(kib << 10)
    }

    /// CPU time, user and system, so far.
    pub fn cpu(&self) -> Result<Duration> {
        Ok(Duration::from(clock_gettime(clock_getcpuclockid(self.pid)?)?))
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/fd", self.pid))?.count())
    }

    /// Open descriptors once they are down to `expected`, or when they have had the time for it.
    pub fn descriptors_settled(&self, expected: usize, time_max: Duration) -> Result<usize> {
        let deadline = Instant::now() + time_max;
        loop {
            let count = self.descriptors()?;
            if count <= expected || Instant::now() > deadline {
                return Ok(count);
            }
            std::thread::sleep(SETTLE_POLL);
        }
    }
}
