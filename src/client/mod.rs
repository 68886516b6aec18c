//! The client library: servers that share keys, seen as one cache.
//!
//! Places keys where libmemcached, php-memcached, twemproxy or spymemcached place them
//! ([`RingKind`]), reads and writes their values ([`Family`]), and goes on when servers do not
//! ([`WhenDown`]).
//!
//! ```
//! use distcache::client::{Client, Error};
//!
//! fn run(address: &str) -> Result<(), Error> {
//!     let client = Client::connect([address])?; // such as "localhost:2050"
//!     client.set("brazil", "football")?;
//!     client.set(1, 2)?;
//!     client.set(3, 6)?;
//!     let x: Option<String> = client.get("hey")?;
//!     assert_eq!(x, None);
//!     assert_eq!(client.get::<u32>(1)?, Some(2));
//!     client.delete(3)?;
//!     Ok(())
//! }
//! # let server = distcache::server::Server::bind("127.0.0.1:0").unwrap();
//! # run(&server.addresses()[0].to_string()).unwrap();
//! ```
//!
//! For tests of programs that use it, [`FakeCache`] is a cache in memory, which programs written
//! for the trait [`Cache`] take; and [`server::Server`](crate::server::Server) starts a server
//! inside the process.
//!
//! **No reply can reach another call.** A connection of the blocking face carries one call at a
//! time and is closed unless every byte of its reply was read and understood. One of the
//! asynchronous face carries many: replies belong to calls in their order, those that name a key or
//! a number are compared with what was asked, those of calls that were given up are read and
//! dropped, and bytes that nobody asked for close it.
//!
//! **Watching.** [`Client::servers`] says how servers are, [`Client::latencies`] how long they
//! take, [`Client::counters`] what calls found, [`Listener`] is told what happens. With the feature
//! `tracing` each call to a server is a span `distcache.call` (level debug, target
//! `distcache::client`, OpenTelemetry's names: `db.operation.name`, `server.address`,
//! `error.type`). With `metrics` it is recorded in the histogram `distcache_client_call_seconds`
//! (labels `server`, `operation`, `outcome`); counters are `distcache_client_reads_total` (`found`)
//! and `distcache_client_events_total` (`event`). Keys and values are never shown.
//!
//! **Rust.** The client builds with 1.88 and later (the feature `uuid` with what that crate wants);
//! what the package says is the daemon's, so older versions than that want `--ignore-rust-version`.
//!
//! **Two faces, one core.** Both have the same operations with the same names and meaning; what
//! they do is decided in `operation`, without I/O, and the faces only wait.
//!
//! | folder | what it holds |
//! |---|---|
//! | `placement` | which server owns a key |
//! | `value` | what programs hand over, as bytes and flags |
//! | `wire` | the protocol: requests and replies, without sockets |
//! | `net` | how a connection begins, and bytes on it, encrypted or not |
//! | `cluster` | which servers are in use, probes, repairs, changing lists of servers |
//! | `operation` | every call as a value, and what leads from one step of it to the next |
//! | `blocking` | the blocking face: only waiting |
//! | `asynchronous` | the asynchronous face (feature `tokio`): only waiting |
//! | `near` | values kept in the process (feature `near`) |
//! | `cache`, `fake` | what services need of a cache, as a trait; one in memory, for their tests |
//! | `config`, `error`, `events` | settings, errors, what can be observed |
//! | `face`, `url` | what a client does without waiting; its servers and settings in one line |
//! | `latency`, `observe` | how long calls take; what traces and metrics are told |
//! | `clock` | the one place that reads time |

#[cfg(feature = "tokio")]
pub mod asynchronous;
mod blocking;
mod cache;
mod clock;
mod cluster;
mod config;
mod error;
mod events;
mod face;
mod fake;
mod latency;
#[cfg_attr(not(feature = "near"), path = "near_absent.rs")]
mod near;
mod net;
mod observe;
mod operation;
mod placement;
mod url;
mod value;
mod wire;

pub use blocking::client::Client;
pub use cache::Cache;
pub use cluster::discovery::Discovery;
pub use cluster::health::State;
pub use config::{Config, Expiry, Listener, StaleGuard, WhenDown};
pub use error::Error;
pub use events::{Counters, Event, ServerStatus};
pub use fake::FakeCache;
pub use latency::Latencies;
#[cfg(feature = "near")]
pub use near::{NearCache, NearStatus};
#[cfg(feature = "tls")]
pub use net::tls::{ClientCertificate, Tls};
pub use operation::batch::{Answer, Batch};
pub use operation::many::Pair;
pub use placement::hash::KeyHash;
pub use placement::ketama::Point;
pub use placement::key::{AsKey, KeyPolicy, PlacedBy};
pub use placement::node::Node;
pub use placement::ring::{Ring, RingKind};
pub use placement::router::{Router, RouterOf};
pub use value::{AnyCodec, Codec, Compression, Encoding, Family, Format, Source, Target};
pub use wire::login::Login;
pub use wire::outcome::{Cas, Inspection, Many, PerServer, Raw, Versioned};
