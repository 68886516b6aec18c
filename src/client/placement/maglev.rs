//! Maglev hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer",
//! NSDI 2016, section 3.4). Owns the arithmetic.
//!
//! Each server has an order of its own in which it would like the places of a table, made of two
//! hashes of its name: where it begins and how far it steps. In turns, each takes the next place of
//! its order that is free, until none is. A key belongs to who has the place of its hash.

use crate::client::placement::hash::{KeyHash, md5_points};
use crate::client::placement::ketama::distinct;
use crate::client::placement::node::Node;
use crate::client::placement::router::Router;

/// Places of the table: a prime, so that every step comes to all of them, and a hundred times as
/// many as there should be servers.
const PLACES: u32 = 65_537;

#[derive(Debug)]
pub(super) struct Maglev {
    key_hash: KeyHash,
    servers: usize,
    /// Who has which place; empty without servers.
    table: Vec<u32>,
}

/// The places in the order in which one server would like them.
#[derive(Debug, Clone, Copy)]
struct Wishes {
    /// The next one.
    place: u32,
    /// From 1 to one less than there are places.
    step: u32,
    /// Places that it takes in a turn, at least 1.
    weight: u32,
}

impl Maglev {
    pub(super) fn new(key_hash: KeyHash, nodes: &[Node]) -> Self {
        let wishes = |node: &Node| {
            let [offset, skip, ..] = md5_points(node.name().as_bytes());
            Wishes { place: offset % PLACES, step: skip % (PLACES - 1) + 1, weight: node.weight() }
        };
        let table = table(nodes.iter().map(wishes).collect(), PLACES);
        Self { key_hash, servers: nodes.len(), table }
    }

    fn place(&self, key: &[u8]) -> usize {
        (self.key_hash.hash(key) % PLACES) as usize
    }
}

impl Router for Maglev {
    fn owner(&self, key: &[u8]) -> Option<usize> {
        self.table.get(self.place(key)).map(|server| *server as usize)
    }

    /// What would follow is not in the paper: who has the places behind.
    fn owners(&self, key: &[u8]) -> Vec<usize> {
        let (behind, from) = self.table.split_at(self.place(key).min(self.table.len()));
        let servers = from.iter().chain(behind);
        distinct(servers.map(|server| *server as usize), self.servers)
    }
}

/// Who gets which of `places` places, a prime.
fn table(mut wishes: Vec<Wishes>, places: u32) -> Vec<u32> {
    if wishes.is_empty() {
        return Vec::new();
    }
    let mut table: Vec<Option<u32>> = vec![None; places as usize];
    let mut free = places;
    'all: loop {
        for (server, wishes) in (0..).zip(&mut wishes) {
            for _ in 0..wishes.weight {
                if free == 0 {
                    break 'all;
                }
                while table[wishes.place as usize].is_some() {
                    wishes.place = (wishes.place + wishes.step) % places;
                }
                table[wishes.place as usize] = Some(server);
                free -= 1;
            }
        }
    }
    table.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Table 1 of the paper: three servers, seven places, before and after B1 is gone.
    #[test]
    fn the_table_is_that_of_the_paper() {
        let wishes = |(place, step)| Wishes { place, step, weight: 1 };
        let three = [(3, 4), (0, 2), (3, 1)].map(wishes).to_vec();
        let two = [(3, 4), (3, 1)].map(wishes).to_vec();
        assert_eq!(table(three, 7), [1, 0, 1, 0, 2, 2, 0]);
        assert_eq!(table(two, 7), [0, 0, 0, 0, 1, 1, 1]);
    }

    #[test]
    fn a_server_of_weight_two_has_twice_the_places() {
        let wishes = |(place, step, weight)| Wishes { place, step, weight };
        let table = table([(3, 4, 1), (0, 2, 2)].map(wishes).to_vec(), 10_007);
        let heavy = table.iter().filter(|server| **server == 1).count();
        assert!((6671..=6672).contains(&heavy), "{heavy}");
    }
}
