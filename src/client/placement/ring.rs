//! Which server owns a key: the kinds of placement, and one list of servers placed by one of them.
//! Owns names and choice; the arithmetic is in the files beside.

use crate::client::error::Error;
use crate::client::placement::hash::KeyHash;
use crate::client::placement::jump::Jump;
use crate::client::placement::ketama::{Ketama, Point, distinct};
use crate::client::placement::maglev::Maglev;
use crate::client::placement::node::Node;
use crate::client::placement::rendezvous::Rendezvous;
use crate::client::placement::router::{Router, RouterOf};
use std::str::FromStr;
use std::sync::Arc;

/// memcached's port, which most clients leave out of a server's name.
pub(crate) const PORT_DEFAULT: u16 = 11211;

/// Keys that are looked up to find out who owns how many, where that cannot be computed.
const SAMPLE: u32 = 100_000;

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
/// | `Rendezvous` | pymemcache's `HashClient` |
/// | `Jump`, `Maglev` | nobody by default: for programs that agree on it |
/// | `Own` | yours: a [`Router`] |
///
/// Written as text, as the tool `distcache` takes it: `weighted`, `consistent[:HASH]`,
/// `libmemcached-spy`, `spymemcached`, `spymemcached-libmemcached`, `twemproxy[:HASH]`,
/// `modula[:HASH]`, `jump[:HASH]`, `rendezvous`, `maglev[:HASH]`, with the names of
/// [`KeyHash::ALL`].
///
/// ```
/// use distcache::client::{KeyHash, Node, Ring, RingKind};
///
/// let nodes: Vec<Node> =
///     ["10.0.1.1", "10.0.1.2", "10.0.1.3"].map(|name| name.parse().unwrap()).to_vec();
/// let ring = Ring::new(&RingKind::Weighted, &nodes);
/// assert!(ring.owner(b"brazil").is_some_and(|server| server < 3));
/// assert_eq!("twemproxy".parse(), Ok(RingKind::Twemproxy(KeyHash::Fnv1a64)));
/// # Ok::<(), distcache::client::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
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
    /// Jump consistent hash (Lamping and Veach, 2014) of the key's hash: as even as chance, without
    /// a table. Servers are their places in the list: only the last one can go without moving the
    /// keys of others. Without weights.
    Jump(KeyHash),
    /// Each server is rated for each key, the highest owns it (Thaler and Ravishankar, 1996), with
    /// the 32-bit MurmurHash3 of `NAME-KEY` as pymemcache does it, keys given to that as `str`. The
    /// order of the list does not matter. Weights count, which pymemcache does not know. Each key
    /// is hashed once for each server: right for up to some tens of them.
    Rendezvous,
    /// A table of 65,537 places which the servers fill in turns, each in an order of its own
    /// (Eisenbud et al., NSDI 2016): as even as chance, one look-up. A server that comes or goes
    /// moves a few keys of the others too. A server takes as many places a turn as it weighs.
    Maglev(KeyHash),
    /// A placement of your own: [`RingKind::own`].
    Own(RouterOf),
}

impl RingKind {
    /// A placement of your own. The function is called with each new list of two servers or more,
    /// the spare ones of `WhenDown::Gutter` included. Programs that share a cache agree on owners
    /// only with the same list in the same order.
    ///
    /// ```
    /// use distcache::client::{Config, Node, Ring, RingKind, Router};
    ///
    /// /// Sessions on the first server, all else spread over the others.
    /// #[derive(Debug)]
    /// struct SessionsFirst {
    ///     others: Ring,
    /// }
    ///
    /// impl Router for SessionsFirst {
    ///     fn owners(&self, key: &[u8]) -> Vec<usize> {
    ///         let mut owners: Vec<usize> =
    ///             self.others.owners(key).into_iter().map(|server| server + 1).collect();
    ///         let place = if key.starts_with(b"session:") { 0 } else { owners.len() };
    ///         owners.insert(place, 0);
    ///         owners
    ///     }
    /// }
    ///
    /// let ring = RingKind::own(|nodes: &[Node]| {
    ///     let others = Ring::new(&RingKind::Weighted, nodes.get(1..).unwrap_or_default());
    ///     Box::new(SessionsFirst { others })
    /// });
    /// let nodes = ["10.0.1.1", "10.0.1.2", "10.0.1.3"].map(|name| name.parse().unwrap());
    /// assert_eq!(Ring::new(&ring, &nodes).owner(b"session:7"), Some(0));
    /// assert_ne!(Ring::new(&ring, &nodes).owner(b"brazil"), Some(0));
    /// let config = Config { ring, ..Config::default() };
    /// ```
    pub fn own(router_of: impl Fn(&[Node]) -> Box<dyn Router> + Send + Sync + 'static) -> Self {
        Self::Own(RouterOf(Arc::new(router_of)))
    }
}

impl FromStr for RingKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (name, hash) = text.split_once(':').map_or((text, None), |(a, b)| (a, Some(b)));
        let hashed = |kind: fn(KeyHash) -> Self, default| match hash {
            None => Ok(kind(default)),
            Some(hash) => hash.parse().map(kind).map_err(Error::Config),
        };
        let plain = |kind| match hash {
            None => Ok(kind),
            Some(_) => Err(Error::Config(format!("{text:?}: {name} takes no hash"))),
        };
        match name {
            "weighted" => plain(Self::Weighted),
            "consistent" => hashed(Self::Consistent, KeyHash::OneAtATime),
            "libmemcached-spy" => plain(Self::LibmemcachedSpy),
            "spymemcached" => plain(Self::Spymemcached),
            "spymemcached-libmemcached" => plain(Self::SpymemcachedLibmemcached),
            "twemproxy" => hashed(Self::Twemproxy, KeyHash::Fnv1a64),
            "modula" => hashed(Self::Modula, KeyHash::OneAtATime),
            "jump" => hashed(Self::Jump, KeyHash::Md5),
            "rendezvous" => plain(Self::Rendezvous),
            "maglev" => hashed(Self::Maglev, KeyHash::Md5),
            _ => Err(Error::Config(format!(
                "{name:?} is no ring: one of weighted, consistent, libmemcached-spy, spymemcached, \
                 spymemcached-libmemcached, twemproxy, modula, jump, rendezvous, maglev"
            ))),
        }
    }
}

/// A list of servers, and which of them owns a key.
#[derive(Debug, Clone)]
pub struct Ring {
    servers: usize,
    /// From two servers on.
    placement: Option<Arc<Placement>>,
}

/// How keys are placed.
#[derive(Debug)]
enum Placement {
    Ketama(Ketama),
    Modula(Modula),
    Jump(Jump),
    Rendezvous(Rendezvous),
    Maglev(Maglev),
    Own(Box<dyn Router>),
}

impl Placement {
    fn new(kind: &RingKind, nodes: &[Node]) -> Self {
        let servers = nodes.len();
        let key_hash = match kind {
            RingKind::Jump(key_hash) => return Self::Jump(Jump::new(*key_hash, servers)),
            RingKind::Rendezvous => return Self::Rendezvous(Rendezvous::new(nodes)),
            RingKind::Maglev(key_hash) => return Self::Maglev(Maglev::new(*key_hash, nodes)),
            RingKind::Modula(key_hash) => {
                return Self::Modula(Modula { key_hash: *key_hash, servers });
            }
            RingKind::Own(router_of) => return Self::Own(router_of.0(nodes)),
            RingKind::Consistent(key_hash) | RingKind::Twemproxy(key_hash) => *key_hash,
            RingKind::Weighted
            | RingKind::LibmemcachedSpy
            | RingKind::Spymemcached
            | RingKind::SpymemcachedLibmemcached => KeyHash::Md5,
        };
        Self::Ketama(Ketama::new(kind, key_hash, nodes))
    }

    fn router(&self) -> &dyn Router {
        match self {
            Self::Ketama(router) => router,
            Self::Modula(router) => router,
            Self::Jump(router) => router,
            Self::Rendezvous(router) => router,
            Self::Maglev(router) => router,
            Self::Own(router) => &**router,
        }
    }
}

/// The hash modulo the number of servers.
#[derive(Debug)]
struct Modula {
    key_hash: KeyHash,
    servers: usize,
}

impl Router for Modula {
    fn owner(&self, key: &[u8]) -> Option<usize> {
        (self.key_hash.hash(key) as usize).checked_rem(self.servers)
    }

    fn owners(&self, key: &[u8]) -> Vec<usize> {
        let first = self.owner(key).unwrap_or(0);
        (0..self.servers).map(|at| (first + at) % self.servers).collect()
    }
}

impl Ring {
    /// These servers, in this order.
    pub fn new(kind: &RingKind, nodes: &[Node]) -> Self {
        let placement = (nodes.len() > 1).then(|| Arc::new(Placement::new(kind, nodes)));
        Self { servers: nodes.len(), placement }
    }

    /// Index of the server that owns a key; `None` without servers.
    pub fn owner(&self, key: &[u8]) -> Option<usize> {
        let owner = match &self.placement {
            Some(placement) => placement.router().owner(key)?,
            None => 0,
        };
        // Somebody's own router may say what it likes.
        (owner < self.servers).then_some(owner)
    }

    /// The servers in the order in which they would own the key if those before them were gone.
    pub fn owners(&self, key: &[u8]) -> Vec<usize> {
        let owners = match &self.placement {
            Some(placement) => placement.router().owners(key),
            None => vec![0],
        };
        distinct(owners.into_iter().filter(|owner| *owner < self.servers), self.servers)
    }

    /// All points in order, for the kinds that have points and from two servers on.
    pub fn points(&self) -> &[Point] {
        match self.placement.as_deref() {
            Some(Placement::Ketama(ketama)) => ketama.points(),
            _ => &[],
        }
    }

    /// The part of all possible keys that each server owns; the parts add up to 1. Computed for
    /// kinds with points, `Modula` and `Jump`; else counted on 100,000 keys.
    pub fn shares(&self) -> Vec<f64> {
        match self.placement.as_deref() {
            Some(Placement::Ketama(ketama)) => ketama.shares(),
            None | Some(Placement::Modula(_) | Placement::Jump(_)) => {
                vec![1.0 / self.servers.max(1) as f64; self.servers]
            }
            Some(_) => {
                let mut shares = vec![0.0; self.servers];
                let owners =
                    (0..SAMPLE).map(|number| self.owner(format!("key-{number}").as_bytes()));
                owners.flatten().for_each(|owner| shares[owner] += 1.0 / f64::from(SAMPLE));
                shares
            }
        }
    }
}

impl Router for Ring {
    fn owner(&self, key: &[u8]) -> Option<usize> {
        Self::owner(self, key)
    }

    fn owners(&self, key: &[u8]) -> Vec<usize> {
        Self::owners(self, key)
    }
}
