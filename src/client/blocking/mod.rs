//! The blocking face: only waiting. What is sent, what a reply means and which server is asked is
//! decided in `wire`, `placement` and `cluster`.

mod bulk;
pub(in crate::client) mod caller;
pub(in crate::client) mod client;
pub(in crate::client) mod connection;
mod list;
pub(in crate::client) mod pool;
pub(in crate::client) mod waiting;
