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
//! For tests of programs that use it, [`server::Server`](crate::server::Server) starts a server
//! inside the process.
//!
//! **No reply can reach another call.** A connection carries one call at a time, and is closed
//! unless every byte of its reply was read and understood: after a time-out, a cancelled future, a
//! panic, or bytes that do not belong there.
//!
//! | file | what it holds |
//! |---|---|
//! | `ring`, `hash`, `node` | which server owns a key |
//! | `key`, `value`, `plain`, `sniff` | what programs hand over, as bytes |
//! | `command`, `reply`, `batch`, `outcome` | the protocol: requests and replies, without sockets |
//! | `login` | what is said to servers that ask who is there |
//! | `health`, `cluster` | which servers are in use, and what becomes of the others' keys |
//! | `dialer`, `stream`, `tls` | how a connection begins, and bytes on it, encrypted or not |
//! | `connection`, `pool`, `caller`, `client` | the blocking face |
//! | `asynchronous` | the asynchronous face (feature `tokio`) |
//! | `monitor`, `discovery` | probes, repairs, changing lists of servers |
//! | `config`, `error`, `events` | settings, errors, what can be observed |
//! | `clock` | the one place that reads time |

#[cfg(feature = "tokio")]
pub mod asynchronous;
mod batch;
mod caller;
mod clock;
mod cluster;
mod command;
mod config;
mod connection;
mod dialer;
mod discovery;
mod error;
mod events;
mod hash;
mod health;
mod key;
mod login;
mod monitor;
mod node;
mod outcome;
mod plain;
mod pool;
mod reply;
mod ring;
mod sniff;
mod stream;
#[cfg_attr(not(feature = "tls"), path = "tls_absent.rs")]
mod tls;
mod value;

#[allow(clippy::module_inception, reason = "the face named as the module")]
mod client;

pub use client::Client;
pub use config::{Config, Expiry, Listener, StaleGuard, WhenDown};
pub use discovery::Discovery;
pub use error::Error;
pub use events::{Counters, Event, ServerStatus};
pub use hash::KeyHash;
pub use health::State;
pub use key::{AsKey, KeyPolicy};
pub use login::Login;
pub use node::Node;
pub use outcome::{Cas, Inspection, Many, PerServer, Raw, Versioned};
pub use ring::{Point, Ring, RingKind};
#[cfg(feature = "tls")]
pub use tls::{ClientCertificate, Tls};
pub use value::{Codec, Compression, Family, Format};
