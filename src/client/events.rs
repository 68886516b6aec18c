//! What a program can observe: events as they happen, and counters. Owns their names.

use crate::client::cluster::health::State;
use crate::client::placement::node::Node;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Something happened to a server or to the list of servers.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A server was ejected after failures.
    Ejected {
        /// Which server.
        server: String,
        /// The last failure.
        cause: String,
    },
    /// A probe of an ejected server failed.
    ProbeFailed {
        /// Which server.
        server: String,
        /// Why.
        cause: String,
    },
    /// A server answered a probe and is on trial.
    OnTrial {
        /// Which server.
        server: String,
        /// Keys that were deleted before, for having been written elsewhere meanwhile.
        keys_repaired: usize,
        /// There were too many to remember, and all its items were flushed.
        flushed: bool,
    },
    /// A server is in use again.
    Rejoined {
        /// Which server.
        server: String,
        /// Time since it was ejected.
        away: Duration,
    },
    /// A server refuses the login, or wants one. Told once until it lets us in.
    LoginRefused {
        /// Which server.
        server: String,
        /// Its answer, and what to do.
        cause: String,
    },
    /// The list of servers changed.
    ServersChanged {
        /// Those that came.
        added: Vec<String>,
        /// Those that went.
        removed: Vec<String>,
    },
    /// The list of servers could not be read; the one in use stays.
    DiscoveryFailed {
        /// Why.
        cause: String,
    },
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters of a client, from its start.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        #[non_exhaustive]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        #[derive(Debug, Default)]
        pub(super) struct LiveCounters {
            $(pub $name: AtomicU64,)*
        }

        impl LiveCounters {
            pub(super) fn read(&self) -> Counters {
                Counters { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Keys asked for and found.
    hits,
    /// Those among them that were read from the near cache.
    near_hits,
    /// Keys asked for and not found.
    misses,
    /// Requests that failed for want of a working server.
    failures,
    /// Those among them whose time ran out.
    timeouts,
    /// Requests to an ejected server that another one answered.
    diverted,
    /// Requests to an ejected server that were answered as a miss or dropped.
    dropped,
    /// Reads repeated on another connection because the first one was found closed.
    retries,
    /// Connections made.
    connections,
    /// Servers ejected.
    ejections,
    /// Servers in use again after that.
    rejoins,
    /// Keys deleted on servers that came back.
    repaired,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A server as the client sees it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ServerStatus {
    /// The server.
    pub node: Node,
    /// Whether it is in use.
    pub state: State,
    /// Connections open to it.
    pub connections: usize,
    /// Failures since the client started.
    pub failures: u64,
}
