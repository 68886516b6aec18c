//! Rendezvous hashing (Thaler and Ravishankar, 1996) as pymemcache does it, bit for bit: a key
//! belongs to the server whose name hashes highest together with it. Owns the arithmetic.

use crate::client::placement::node::Node;
use crate::client::placement::router::Router;
use std::cmp::Ordering;

/// Numbers that the hash makes.
const HASHES: f64 = u32::MAX as f64 + 1.0;

#[derive(Debug)]
pub(super) struct Rendezvous {
    servers: Vec<Server>,
    /// Not all weigh the same.
    is_weighted: bool,
}

#[derive(Debug)]
struct Server {
    name: String,
    /// The name as it is hashed, with the hyphen behind it.
    prefix: Vec<u8>,
    weight: u32,
}

impl Rendezvous {
    pub(super) fn new(nodes: &[Node]) -> Self {
        let server = |node: &Node| {
            let name = name(node);
            let prefix = [&characters(name.as_bytes())[..], b"-"].concat();
            Server { name, prefix, weight: node.weight() }
        };
        let is_weighted = nodes.windows(2).any(|two| two[0].weight() != two[1].weight());
        Self { servers: nodes.iter().map(server).collect(), is_weighted }
    }

    /// Each server's rating, the higher the better, in the order of the list.
    fn ratings(&self, key: &[u8]) -> impl Iterator<Item = f64> {
        let key = characters(key);
        let mut text = Vec::new();
        self.servers.iter().map(move |server| {
            text.clear();
            text.extend_from_slice(&server.prefix);
            text.extend_from_slice(&key);
            let hash = f64::from(murmur3(&text));
            match self.is_weighted {
                false => hash,
                // A hash is a random part of 1; its logarithm divides as the weights do.
                true => f64::from(server.weight) / -((hash + 0.5) / HASHES).ln(),
            }
        })
    }

    /// The better of two; of equals the one whose name comes last.
    fn compare(&self, this: (usize, f64), other: (usize, f64)) -> Ordering {
        let name = |at: usize| self.servers[at].name.as_str();
        this.1.total_cmp(&other.1).then_with(|| name(this.0).cmp(name(other.0)))
    }
}

impl Router for Rendezvous {
    fn owner(&self, key: &[u8]) -> Option<usize> {
        let rated = self.ratings(key).enumerate();
        rated.max_by(|this, other| self.compare(*this, *other)).map(|(server, _)| server)
    }

    fn owners(&self, key: &[u8]) -> Vec<usize> {
        let mut rated: Vec<(usize, f64)> = self.ratings(key).enumerate().collect();
        rated.sort_by(|this, other| self.compare(*other, *this));
        rated.into_iter().map(|(server, _)| server).collect()
    }
}

/// What pymemcache calls a server: host and port, or the path of a socket. A name that was given is
/// taken in its place.
fn name(node: &Node) -> String {
    match (node.given_name(), node.unix_path()) {
        (Some(name), _) => name.to_owned(),
        (None, Some(_)) => node.host().to_owned(),
        (None, None) => format!("{}:{}", node.host(), node.port()),
    }
}

/// A byte for each character, as pymemcache hashes a `str`: of those beyond 255 the lowest eight
/// bits. Bytes that are no text stay what they are.
fn characters(bytes: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.chars().map(|character| u32::from(character) as u8).collect(),
        Err(_) => bytes.to_vec(),
    }
}

/// MurmurHash3 of 32 bits, with the seed 0.
fn murmur3(bytes: &[u8]) -> u32 {
    let mixed =
        |block: u32| block.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    let mut hash = 0u32;
    let mut blocks = bytes.chunks_exact(4);
    for block in blocks.by_ref() {
        let block = u32::from_le_bytes([block[0], block[1], block[2], block[3]]);
        hash = (hash ^ mixed(block)).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    let rest = blocks.remainder().iter().rev();
    hash ^= mixed(rest.fold(0, |block, byte| (block << 8) | u32::from(*byte)));
    hash ^= bytes.len() as u32;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}
