//! Which server owns a key: what programs hand over as a key, its hash, servers' names, the ring.
//! Knows no protocol, no socket and no health.

pub(in crate::client) mod hash;
pub(in crate::client) mod key;
pub(in crate::client) mod node;
pub(in crate::client) mod ring;
