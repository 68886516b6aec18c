//! The server, to be embedded: sockets, workers, and what operators ask of them while it runs.
//!
//! | room | what it holds |
//! |---|---|
//! | `server`, `config`, `shared` | starting and stopping, settings, what all threads see |
//! | `clock` | the one place that reads time |
//! | `connection` | sockets, conversations, replies in order, logging in, TLS |
//! | `worker` | the turn: poll, receive, execute, commit, reply |
//! | `operator` | commands of operators: settings, all items, what happens |
//! | `stats` | what `stats` and the metrics say, and what is counted for it |
//! | `persistence` | data on disk: opening it, committing, snapshots |
//!
//! A program that contains a server needs [`Server`] and [`config`]; the other rooms are public for
//! benches and fuzz targets only. Knows no flags and handles no signals: that is `crate::daemon`.

#[doc(hidden)]
pub mod clock;
pub mod config;
#[doc(hidden)]
pub mod connection;
#[doc(hidden)]
pub mod operator;
#[doc(hidden)]
pub mod persistence;
#[allow(clippy::module_inception)] // What the module is for.
mod server;
#[doc(hidden)]
pub mod shared;
#[doc(hidden)]
pub mod stats;
#[doc(hidden)]
pub mod worker;

pub use server::{FatalHook, Hooks, Pulse, Server, StartError, StopHook};
