//! DistCache: a cache daemon that speaks memcached's text protocol and keeps its data; a client.

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
pub mod daemon;
#[cfg(feature = "server")]
pub mod durable;
pub mod limits;
pub mod protocol;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod shard;
#[cfg(feature = "server")]
pub mod store;
