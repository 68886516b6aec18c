//! Random streams of commands, played to two servers at once.
//!
//! ```text
//!  seed --> generator --> Slot --> session --+--> left server  --+--> compare --> equal
//!                                            +--> right server --+            \-> differences.rs
//!                                                                              \-> shrink
//! ```
//!
//! A [`command::Slot`] is a few pipelined commands followed by the sentinel; slots are pipelined
//! too. Comparing slot by slot keeps the two streams aligned after a difference, and says which
//! commands caused it.
//!
//! **Invariant:** time must not matter. Expiries are far away or already past, and nothing waits.

pub mod command;
pub mod compare;
pub mod generator;
mod malformed;
pub(crate) mod meta;
pub mod request;
pub mod run;
pub mod session;
pub mod shrink;
pub mod tokens;
