//! Random streams of the binary protocol, played to two servers at once.
//!
//! ```text
//!  seed --> generator --> Requests --> run --+--> left server  --+--> reply --> equal, or not
//!                                            +--> right server --+
//! ```
//!
//! Every request has an opaque of its own, which its replies repeat; a batch ends with a noop, or
//! with a request that closes the connection. So replies need no sentinel to be told apart, and
//! whole batches of loud and quiet commands are pipelined, cut anywhere.
//!
//! **Invariant:** time must not matter. Expiries are far away or already past, and nothing waits.

mod generator;
pub mod reply;
pub mod request;
pub mod run;
