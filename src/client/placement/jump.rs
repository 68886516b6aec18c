//! Jump consistent hash (Lamping and Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm",
//! 2014). Owns the arithmetic; servers are places in a list.
//!
//! A key's own random sequence says at which sizes of the list it jumps to the place that is new
//! then; its owner is the last such place that the list has. So a server more takes its share from
//! all others alike, and nothing else moves.

use crate::client::placement::hash::KeyHash;
use crate::client::placement::router::Router;

/// Makes the next number of a key's sequence, as the paper has it.
const MULTIPLIER: u64 = 2_862_933_555_777_941_757;

#[derive(Debug)]
pub(super) struct Jump {
    key_hash: KeyHash,
    servers: usize,
}

impl Jump {
    pub(super) fn new(key_hash: KeyHash, servers: usize) -> Self {
        Self { key_hash, servers }
    }
}

impl Router for Jump {
    fn owner(&self, key: &[u8]) -> Option<usize> {
        (self.servers > 0).then(|| jump(self.key_hash.hash(key).into(), self.servers))
    }

    /// What would follow is not in the paper: the same among the servers that are left, with a key
    /// made of the one before, so that the keys of one server spread over all others.
    fn owners(&self, key: &[u8]) -> Vec<usize> {
        let mut number = u64::from(self.key_hash.hash(key));
        let mut left: Vec<usize> = (0..self.servers).collect();
        let mut order = Vec::with_capacity(self.servers);
        while !left.is_empty() {
            order.push(left.remove(jump(number, left.len())));
            number = mixed(number);
        }
        order
    }
}

/// The place of a key in a list of `places`, at least 1.
fn jump(mut key: u64, places: usize) -> usize {
    let (mut place, mut next) = (0u64, 0u64);
    while next < places as u64 {
        place = next;
        key = key.wrapping_mul(MULTIPLIER).wrapping_add(1);
        let part = (1u64 << 31) as f64 / ((key >> 33) + 1) as f64;
        next = ((place + 1) as f64 * part) as u64;
    }
    place as usize
}

/// Another number that looks unrelated (the finalizer of SplitMix64).
fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From jump-consistent-hash for Python.
    #[test]
    fn places_are_those_of_the_paper() {
        for (key, places, expected) in [
            (0x1, 1, 0),
            (0x2a, 57, 43),
            (0xdead10cc, 1, 0),
            (0xdead10cc, 666, 361),
            (0x100, 1024, 520),
            (0x0, 2, 0),
            (0xffffffffffffffff, 10000, 5934),
            (0x123456789abcdef, 100000, 76547),
        ] {
            assert_eq!(jump(key, places), expected, "{key:#x} {places}");
        }
    }
}
