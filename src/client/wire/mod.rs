//! The protocol without sockets: requests as bytes, replies as values, and which reply belongs to
//! which request. Reads no time and waits for nothing.

pub(in crate::client) mod batch;
pub(in crate::client) mod command;
mod frame;
pub(in crate::client) mod listing;
pub(in crate::client) mod login;
pub(in crate::client) mod outcome;
#[cfg(feature = "tokio")]
pub(in crate::client) mod pipeline;
pub(in crate::client) mod reply;
