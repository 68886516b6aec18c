//! Wire tests for servers of memcached's protocols: readable transcripts and random streams.
//!
//! ```text
//!  transcripts/*.txt --parse--> Transcript --replay--+
//!                                                    +--> Connection --> Target
//!  seed --generator--> Slots --session---------------+    (distcached, memcached)
//! ```
//!
//! In the order of the picture: [`transcript`] reads and replays files, [`stream`] makes random
//! commands and compares two servers by the rules of [`differences`], [`frames`] does the same with
//! the binary protocol, where there are no differences to allow, [`wire`] and [`frame`] move
//! bytes and find the end of a stream of replies, [`target`] starts servers.
//!
//! **Invariant:** nothing here knows how a server works inside. Everything is observed through
//! sockets, so the same tests run against any server, and a server that agrees with memcached
//! passes whatever it does behind its socket.

pub mod differences;
pub mod flags;
pub mod frame;
pub mod frames;
pub mod identity;
pub mod process;
pub mod stream;
pub mod target;
pub mod transcript;
pub mod wire;
