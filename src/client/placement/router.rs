//! Placements of one's own: the trait, and how a client makes them. Owns no placement.

use crate::client::placement::node::Node;
use std::fmt;
use std::sync::Arc;

/// Which server owns a key, for one list of servers. See [`RingKind::own`] for an example.
///
/// Programs that share a cache have to agree on every owner, so a router computes from the key and
/// the list alone. It is asked for each key of each call, from many threads.
///
/// [`RingKind::own`]: crate::client::RingKind::own
pub trait Router: fmt::Debug + Send + Sync {
    /// Indexes of the servers in the order in which they would own the key if those before them
    /// were gone. Servers that are left out never stand in for others; what is no index of the list
    /// is passed over.
    fn owners(&self, key: &[u8]) -> Vec<usize>;

    /// Index of the server that owns the key: the first of [`Router::owners`]. Worth computing by
    /// itself where that is quicker.
    fn owner(&self, key: &[u8]) -> Option<usize> {
        self.owners(key).first().copied()
    }
}

/// Makes a router for a list of servers.
type MakeRouter = dyn Fn(&[Node]) -> Box<dyn Router> + Send + Sync;

/// A function that makes routers, one for each list of servers. Equal to its clones only.
#[derive(Clone)]
pub struct RouterOf(pub(super) Arc<MakeRouter>);

impl fmt::Debug for RouterOf {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("RouterOf")
    }
}

impl PartialEq for RouterOf {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for RouterOf {}
