//! Points on a circle. Owns the rings of the clients in use, bit for bit; no I/O, no state.
//!
//! Ketama (Richard Jones, last.fm, 2007) puts each server at many points of a circle of 32-bit
//! numbers, by hashing its name with a counter; a key belongs to the server at the first point at
//! or behind the key's own hash. Adding a server takes keys only for itself, removing one gives
//! away only its own.
//!
//! Programs that share a cache must agree on every owner, so what matters are details: what the
//! name looks like, how many points a server gets, and which hash the key takes. The arithmetic of
//! the number of points is 32-bit floating point as in C: computed more exactly, 25 equal servers
//! would have 160 points each, and they have 156.

use crate::client::placement::hash::{KeyHash, md5_points};
use crate::client::placement::node::Node;
use crate::client::placement::ring::{PORT_DEFAULT, RingKind};
use crate::client::placement::router::Router;

/// Points of a server of average weight, where points are MD5 digests of four points each.
const POINTS_WEIGHTED: usize = 160;

/// Points of a server in libmemcached's older mode: one hash each.
const POINTS_PLAIN: usize = 100;

/// Places on the circle, as a number: one more than the largest.
const CIRCLE: f64 = u32::MAX as f64 + 1.0;

/// A place on the circle and the server at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// The place.
    pub value: u32,
    /// Index of the server in the list the ring was made of.
    pub server: u32,
}

/// The points of all servers.
#[derive(Debug)]
pub(super) struct Ketama {
    key_hash: KeyHash,
    servers: usize,
    /// Sorted. The heaviest server has at least 160 of them.
    points: Vec<Point>,
}

impl Ketama {
    /// The points of these servers, at least two.
    pub(super) fn new(kind: &RingKind, key_hash: KeyHash, nodes: &[Node]) -> Self {
        Self { key_hash, servers: nodes.len(), points: points(kind, nodes) }
    }

    /// Index of the first point at or behind the key's hash, around the circle.
    fn place(&self, key: &[u8]) -> usize {
        let hash = self.key_hash.hash(key);
        let at = self.points.partition_point(|point| point.value < hash);
        if at == self.points.len() { 0 } else { at }
    }

    /// All points in order.
    pub(super) fn points(&self) -> &[Point] {
        &self.points
    }

    /// The part of the circle that each server owns; the parts add up to 1.
    pub(super) fn shares(&self) -> Vec<f64> {
        let mut shares = vec![0.0; self.servers];
        // The first point owns what lies behind the last one as well.
        let mut before = self.points.last().map_or(0, |point| point.value);
        for (at, point) in self.points.iter().enumerate() {
            let arc = point.value.wrapping_sub(before);
            let whole = at == 0 && self.points.len() == 1;
            let arc = if whole { CIRCLE } else { f64::from(arc) };
            shares[point.server as usize] += arc / CIRCLE;
            before = point.value;
        }
        shares
    }
}

impl Router for Ketama {
    fn owner(&self, key: &[u8]) -> Option<usize> {
        Some(self.points[self.place(key)].server as usize)
    }

    fn owners(&self, key: &[u8]) -> Vec<usize> {
        let (behind, from) = self.points.split_at(self.place(key));
        let points = from.iter().chain(behind);
        distinct(points.map(|point| point.server as usize), self.servers)
    }
}

/// Each server once, in the order in which it first comes.
pub(super) fn distinct(servers: impl Iterator<Item = usize>, count: usize) -> Vec<usize> {
    let mut order = Vec::with_capacity(count);
    let mut seen = vec![false; count];
    for server in servers {
        if !std::mem::replace(&mut seen[server], true) {
            order.push(server);
            if order.len() == count {
                break;
            }
        }
    }
    order
}

fn points(kind: &RingKind, nodes: &[Node]) -> Vec<Point> {
    let mut points = Vec::with_capacity(nodes.len() * POINTS_WEIGHTED);
    let has_weights = nodes.iter().any(|node| node.weight() != 1);
    match kind {
        RingKind::Consistent(hash) if !has_weights => {
            for (server, node) in (0..).zip(nodes) {
                points.extend((0..POINTS_PLAIN).map(|at| {
                    let name = format!("{}-{at}", point_name(kind, node));
                    Point { value: hash.hash(name.as_bytes()), server }
                }));
            }
        }
        _ => {
            // spymemcached computes with weights only where it was given some.
            let even = spymemcached(kind) && !has_weights;
            let digests = |node| if even { POINTS_WEIGHTED / 4 } else { digests(node, nodes) };
            for (server, node) in (0..).zip(nodes) {
                for at in 0..digests(node) {
                    let name = format!("{}-{at}", point_name(kind, node));
                    let values = md5_points(name.as_bytes());
                    points.extend(values.map(|value| Point { value, server }));
                }
            }
        }
    }
    points.sort_unstable();
    if spymemcached(kind) {
        keep_last_of_equals(&mut points);
    }
    points
}

fn spymemcached(kind: &RingKind) -> bool {
    matches!(kind, RingKind::Spymemcached | RingKind::SpymemcachedLibmemcached)
}

/// Java's map keeps the server that came last where two have the same point.
fn keep_last_of_equals(points: &mut Vec<Point>) {
    points.reverse();
    points.dedup_by_key(|point| point.value);
    points.reverse();
}

/// How many digests of four points a server of weighted ketama gets. Each step rounds to 32 bits,
/// in the order of the C code.
fn digests(node: &Node, nodes: &[Node]) -> usize {
    let total: u64 = nodes.iter().map(|node| u64::from(node.weight())).sum();
    let part = node.weight() as f32 / total as f32;
    let digests = part * POINTS_WEIGHTED as f32 / 4.0 * nodes.len() as f32 + 1e-10;
    digests.floor() as usize
}

/// What is hashed for a server, before the counter.
fn point_name(kind: &RingKind, node: &Node) -> String {
    let (host, port) = (node.host(), node.port());
    let short = || if port == PORT_DEFAULT { host.to_owned() } else { format!("{host}:{port}") };
    match (kind, node.given_name()) {
        (RingKind::Twemproxy(_) | RingKind::Spymemcached, Some(name)) => name.to_owned(),
        (RingKind::LibmemcachedSpy, _) => format!("/{host}:{port}"),
        (RingKind::Spymemcached, None) => format!("{host}:{port}"),
        _ => short(),
    }
}
