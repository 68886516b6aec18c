//! A cache that takes memcached's place and keeps its data: the daemon `distcached`, the same
//! server for a program of one's own, and a client for any number of them or of memcached's.
//!
//! As a client:
//!
#![cfg_attr(all(feature = "client", feature = "server"), doc = "```")]
#![cfg_attr(not(all(feature = "client", feature = "server")), doc = "```ignore")]
//! use distcache::client::Client;
//! # let server = distcache::server::Server::bind("127.0.0.1:0")?;
//! # let address = server.addresses()[0].to_string();
//!
//! # let servers = [address.as_str()];
//! # let _ = r#"
//! let servers = ["10.0.0.1:11211", "10.0.0.2:11211"];
//! # "#;
//! let client = Client::connect(servers)?;
//! client.set("brazil", "football")?;
//! assert_eq!(client.get::<String>("brazil")?.as_deref(), Some("football"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! As a server inside a program, or in its tests: [`Server::bind`](server::Server::bind).
//!
//! | module | for whom |
//! |---|---|
//! | `client` | programs that use caches (feature `client`) |
//! | `server` | programs that contain one (feature `server`) |
//! | `limits` | whoever wants to know what is the most |
//! | `daemon` | the process `distcached`: nothing for other programs |
//!
//! Everything else is the inside of these, and is public only for the benches, fuzz targets and
//! rigs in the repository: it changes without notice and is left out here. `ARCHITECTURE.md` has
//! the map.

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod daemon;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod durable;
pub mod limits;
#[doc(hidden)]
pub mod protocol;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod shard;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod store;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod system;
