//! Which server owns a key: what programs hand over as a key, its hash, servers' names, the kinds
//! of placement. Knows no protocol, no socket and no health.

pub(in crate::client) mod hash;
mod jump;
pub(in crate::client) mod ketama;
pub(in crate::client) mod key;
mod maglev;
pub(in crate::client) mod node;
mod rendezvous;
pub(in crate::client) mod ring;
pub(in crate::client) mod router;
