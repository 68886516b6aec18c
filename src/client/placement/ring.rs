//! Which server owns a key. Owns the rings of the clients in use, bit for bit; no I/O, no state.
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

/// Points of a server of average weight, where points are MD5 digests of four points each.
const POINTS_WEIGHTED: usize = 160;

/// Points of a server in libmemcached's older mode: one hash each.
const POINTS_PLAIN: usize = 100;

/// memcached's port, which most clients leave out of a server's name.
pub const PORT_DEFAULT: u16 = 11211;

/// The family of clients whose placement of keys is followed.
///
/// | variant | who places keys like this |
/// |---|---|
/// | `Weighted` | libmemcached `KETAMA_WEIGHTED`, php `LIBKETAMA_COMPATIBLE`, pylibmc |
/// | `Consistent` | libmemcached `KETAMA` and `DISTRIBUTION_CONSISTENT`, php the same |
/// | `LibmemcachedSpy` | libmemcached `KETAMA_WEIGHTED`, then `DISTRIBUTION=KETAMA_SPY` |
/// | `Spymemcached` | spymemcached `KETAMA_HASH` with its own format of names |
/// | `SpymemcachedLibmemcached` | the same with `KetamaNodeKeyFormatter.Format.LIBMEMCACHED` |
/// | `Twemproxy` | twemproxy `distribution: ketama` with its `hash` |
/// | `Modula` | libmemcached's and twemproxy's `modula`, without weights |
///
/// ```
/// use distcache::client::{Node, Ring, RingKind};
///
/// let nodes: Vec<Node> =
///     ["10.0.1.1", "10.0.1.2", "10.0.1.3"].iter().map(|name| name.parse()).collect::<Result<_,
///   _>>()?;
/// let ring = Ring::new(RingKind::Weighted, &nodes);
/// assert!(ring.owner(b"brazil").is_some_and(|server| server < 3));
/// # Ok::<(), distcache::client::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RingKind {
    /// Weighted ketama with MD5 for everything: the placement most clients share.
    #[default]
    Weighted,
    /// 100 points for each server, made and looked up with one hash; a weight above 1 turns this
    /// into 160 weighted MD5 points, still looked up with that hash.
    Consistent(KeyHash),
    /// As `Weighted`, with names like `/host:port-0`.
    LibmemcachedSpy,
    /// 160 MD5 points, with names like `host:port-0`. Where the Java side shows servers as
    /// `host/ip:port`, give them that [`Node::name`].
    Spymemcached,
    /// 160 MD5 points, with names like `Weighted`.
    SpymemcachedLibmemcached,
    /// As `Weighted`, with a choice of the hash of keys (twemproxy's default is `fnv1a_64`) and
    /// with a server's [`Node::name`] in place of its address.
    Twemproxy(KeyHash),
    /// No ring: the hash modulo the number of servers. Almost all keys move when that changes.
    Modula(KeyHash),
}

/// The points of all servers.
#[derive(Debug, Clone)]
pub struct Ring {
    key_hash: KeyHash,
    servers: usize,
    /// Sorted. Empty for `Modula` and for fewer than two servers.
    points: Vec<Point>,
}

/// A place on the circle and the server at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// The place.
    pub value: u32,
    /// Index of the server in the list the ring was made of.
    pub server: u32,
}

impl Ring {
    /// The ring of these servers, in this order.
    pub fn new(kind: RingKind, nodes: &[Node]) -> Self {
        let points = if nodes.len() < 2 { Vec::new() } else { points(kind, nodes) };
        Self { key_hash: key_hash(kind), servers: nodes.len(), points }
    }

    /// Index of the server that owns a key; `None` without servers.
    pub fn owner(&self, key: &[u8]) -> Option<usize> {
        match self.servers {
            0 => None,
            1 => Some(0),
            _ if self.points.is_empty() => Some(self.key_hash.hash(key) as usize % self.servers),
            _ => Some(self.points[self.place(key)].server as usize),
        }
    }

    /// The servers in the order in which they would own the key if those before them were gone.
    pub fn owners(&self, key: &[u8]) -> Vec<usize> {
        let mut order = Vec::with_capacity(self.servers);
        if self.points.is_empty() {
            let first = self.owner(key).unwrap_or(0);
            order.extend((0..self.servers).map(|at| (first + at) % self.servers));
            return order;
        }
        let (behind, from) = self.points.split_at(self.place(key));
        let mut seen = vec![false; self.servers];
        for point in from.iter().chain(behind) {
            let server = point.server as usize;
            if !std::mem::replace(&mut seen[server], true) {
                order.push(server);
                if order.len() == self.servers {
                    break;
                }
            }
        }
        order
    }

    /// Index of the first point at or behind the key's hash, around the circle.
    fn place(&self, key: &[u8]) -> usize {
        let hash = self.key_hash.hash(key);
        let at = self.points.partition_point(|point| point.value < hash);
        if at == self.points.len() { 0 } else { at }
    }

    /// All points in order.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// The part of the circle that each server owns; the parts add up to 1.
    pub fn shares(&self) -> Vec<f64> {
        if self.points.is_empty() {
            return vec![1.0 / self.servers.max(1) as f64; self.servers];
        }
        let mut shares = vec![0.0; self.servers];
        // The first point owns what lies behind the last one as well.
        let mut before = self.points.last().map_or(0, |point| point.value);
        for (at, point) in self.points.iter().enumerate() {
            let arc = point.value.wrapping_sub(before);
            let whole = at == 0 && self.points.len() == 1;
            let arc = if whole { f64::from(u32::MAX) + 1.0 } else { f64::from(arc) };
            shares[point.server as usize] += arc / (f64::from(u32::MAX) + 1.0);
            before = point.value;
        }
        shares
    }
}

fn key_hash(kind: RingKind) -> KeyHash {
    match kind {
        RingKind::Consistent(hash) | RingKind::Twemproxy(hash) | RingKind::Modula(hash) => hash,
        _ => KeyHash::Md5,
    }
}

fn points(kind: RingKind, nodes: &[Node]) -> Vec<Point> {
    let mut points = Vec::with_capacity(nodes.len() * POINTS_WEIGHTED);
    let has_weights = nodes.iter().any(|node| node.weight() != 1);
    match kind {
        RingKind::Modula(_) => {}
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

fn spymemcached(kind: RingKind) -> bool {
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
fn point_name(kind: RingKind, node: &Node) -> String {
    let (host, port) = (node.host(), node.port());
    let short = || if port == PORT_DEFAULT { host.to_owned() } else { format!("{host}:{port}") };
    match (kind, node.given_name()) {
        (RingKind::Twemproxy(_) | RingKind::Spymemcached, Some(name)) => name.to_owned(),
        (RingKind::LibmemcachedSpy, _) => format!("/{host}:{port}"),
        (RingKind::Spymemcached, None) => format!("{host}:{port}"),
        _ => short(),
    }
}
