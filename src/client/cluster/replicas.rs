//! Which servers hold the copies of a key, and which of them is asked what. Owns the choice; the
//! ring has the order of servers, and what is sent to a copy is in `wire::command`. No I/O.
//!
//! | command | goes to | the other copies get |
//! |---|---|---|
//! | read without a token | a copy, of our zone, not too busy; the next on a miss | nothing |
//! | set, delete, touch | the first copy in use | the same |
//! | get and touch | the first copy in use; the next on a miss | a touch |
//! | add, replace, append, cas, count | the key's owner | a delete |
//! | read with a token, lease | the key's owner | nothing |
//!
//! What depends on what is there is decided by one server, always the same one: tokens and numbers
//! of two servers have nothing to do with each other. A copy that is away is remembered, and
//! deleted before its server is used again, as with stand-ins.

use crate::client::cluster::health::Remembered;
use crate::client::cluster::{Cluster, Route, Server, Topology};
use crate::client::config::StaleGuard;
use crate::client::error::Error;
use crate::client::placement::key::WireKey;
use crate::client::wire::command::{Command, Copying};
use std::sync::Arc;

/// Where a call goes.
pub(in crate::client) struct Targets {
    pub first: Route,
    /// Servers with further copies, in the order in which they are asked.
    pub others: Vec<Arc<Server>>,
}

/// Places in a list of servers that hold the copies of a key: its owner, then those that would own
/// it next, as many zones as there are first.
fn copies(owners: &[usize], zones: &[Option<&str>], count: usize) -> Vec<usize> {
    let mut copies: Vec<usize> = Vec::with_capacity(count);
    while copies.len() < count.min(owners.len()) {
        let is_left = |owner: &&usize| !copies.contains(owner);
        let is_new = |owner: &&usize| copies.iter().all(|copy| zones[*copy] != zones[**owner]);
        let mut left = owners.iter().filter(is_left);
        let next = left.clone().find(is_new).or_else(|| left.next());
        copies.extend(next.copied());
    }
    copies
}

/// What each of so many servers may have under way when one more call comes.
fn load_bound(calls: usize, servers: usize, percent: u32) -> usize {
    let parts = (calls as u64 + 1).saturating_mul(100 + u64::from(percent));
    let bound = parts.div_ceil(100 * servers.max(1) as u64);
    usize::try_from(bound).unwrap_or(usize::MAX)
}

impl Topology {
    /// The servers that hold the copies of a key, its owner first.
    fn copies(&self, placing: &[u8], count: usize) -> Vec<Arc<Server>> {
        let zones: Vec<_> = self.servers.iter().map(|server| server.node.zone()).collect();
        let copies = copies(&self.ring.owners(placing), &zones, count);
        copies.into_iter().map(|at| Arc::clone(&self.servers[at])).collect()
    }
}

impl Cluster {
    /// Where a call goes. Copies that are away and miss a write are remembered.
    pub(crate) fn targets(
        &self,
        topology: &Topology,
        placing: &[u8],
        key: &WireKey<'_>,
        command: &Command<'_>,
        in_order: bool,
    ) -> Result<Targets, Error> {
        let effect = command.effect();
        if !self.config.has_replicas() {
            return Ok(Targets {
                first: self.route(topology, placing, key, effect)?,
                others: vec![],
            });
        }
        let copies = topology.copies(placing, self.config.replicas);
        let copying = command.copying();
        if copying == Copying::OwnerAlone {
            let first = self.route(topology, placing, key, effect)?;
            let is_asked = |server: &Server| match &first {
                Route::Owner(asked) | Route::StandIn(asked, _) => asked.id == server.id,
                Route::Nowhere => false,
            };
            let others: Vec<_> =
                copies.into_iter().skip(1).filter(|copy| !is_asked(copy)).collect();
            let others = match command.spoils_copies() {
                true => self.reachable(others, key)?,
                false => Vec::new(),
            };
            return Ok(Targets { first, others });
        }
        let mut others: Vec<_> = match copying {
            Copying::ReadAny => copies.into_iter().filter(|copy| copy.is_in_use()).collect(),
            _ => self.reachable(copies, key)?,
        };
        if copying == Copying::ReadAny && !in_order {
            let zone = self.config.zone.as_deref();
            let bound = self.load_bound(topology);
            others.sort_by_cached_key(|copy| {
                let is_far = zone.is_some() && copy.node.zone() != zone;
                (bound.is_some_and(|bound| copy.load() >= bound), is_far)
            });
        }
        let first = match others.is_empty() {
            true => self.route(topology, placing, key, effect)?,
            false => Route::Owner(others.remove(0)),
        };
        Ok(Targets { first, others })
    }

    /// From how many calls under way on a server takes no more reads.
    fn load_bound(&self, topology: &Topology) -> Option<usize> {
        let percent = self.config.load_percent_max?;
        let in_use = topology.servers.iter().filter(|server| server.is_in_use());
        let (servers, calls) =
            in_use.fold((0, 0), |(servers, calls), server| (servers + 1, calls + server.load()));
        Some(load_bound(calls, servers, percent))
    }

    /// Those that take a write now. The others will have it deleted when they are back.
    fn reachable(
        &self,
        copies: Vec<Arc<Server>>,
        key: &WireKey<'_>,
    ) -> Result<Vec<Arc<Server>>, Error> {
        let guarded = self.config.stale_guard != StaleGuard::Off;
        let mut reachable = Vec::with_capacity(copies.len());
        for copy in copies {
            if copy.is_in_use() {
                reachable.push(copy);
                continue;
            }
            if !guarded {
                continue;
            }
            let remembered = copy.health().remember(key, None);
            match remembered {
                Remembered::Kept => {}
                // It came back between the two looks.
                Remembered::InUse => reachable.push(copy),
                Remembered::TooLate => return Err(Error::Down { server: copy.name.clone() }),
            }
        }
        Ok(reachable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_of_a_load() {
        // With every call placed by it, no server has more than its bound.
        for (calls, servers, percent, bound) in [
            (0, 4, 25, 1),
            (3, 4, 25, 2),
            (99, 10, 25, 13),
            (99, 10, 0, 10),
            (99, 10, 100, 20),
            (0, 0, 25, 2),
        ] {
            assert_eq!(load_bound(calls, servers, percent), bound, "{calls} {servers} {percent}");
        }
    }

    #[test]
    fn copies_are_in_as_many_zones_as_there_are() {
        let (a, b, c) = (Some("a"), Some("b"), Some("c"));
        for (owners, zones, count, expected) in [
            (vec![2, 0, 1], vec![None, None, None], 2, vec![2, 0]),
            (vec![2, 0, 1], vec![None, None, None], 9, vec![2, 0, 1]),
            (vec![2, 0, 1], vec![a, b, a], 2, vec![2, 1]),
            (vec![2, 0, 1], vec![a, a, b], 2, vec![2, 0]),
            (vec![0, 1, 2, 3], vec![a, a, b, c], 2, vec![0, 2]),
            (vec![0, 1, 2, 3], vec![a, a, b, c], 3, vec![0, 2, 3]),
            (vec![0, 1, 2, 3], vec![a, a, b, b], 3, vec![0, 2, 1]),
            (vec![1], vec![a, a], 2, vec![1]),
            (vec![], vec![], 2, vec![]),
        ] {
            assert_eq!(copies(&owners, &zones, count), expected, "{owners:?} {zones:?} {count}");
        }
    }
}
