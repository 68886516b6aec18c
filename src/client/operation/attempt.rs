//! From a call to its server: where it goes, whether it is sent again after a failure, and what the
//! outcome means for the server. No I/O.

use crate::client::clock;
use crate::client::cluster::{Cluster, Route, Server, for_stand_in};
use crate::client::error::Error;
use crate::client::events::count;
use crate::client::near;
use crate::client::observe;
use crate::client::operation::{Convert, Encoded, Operation};
use crate::client::placement::key::{AsKey, WireKey};
use crate::client::wire::command::{Command, Copying, Effect};
use crate::client::wire::outcome::nowhere;
use crate::client::wire::reply::Reply;
use std::sync::Arc;

/// A call that knows its key as it is sent, and its server.
pub(in crate::client) struct Begun<'k> {
    pub key: WireKey<'k>,
    /// With how long items may live there, if the server stands in for another. `None`: nobody is
    /// to be asked.
    to: Option<(Arc<Server>, Option<u32>)>,
    /// Servers with further copies of the key.
    pub copies: Vec<Arc<Server>>,
    /// The value, if it is kept in this process.
    kept: Option<Arc<Encoded>>,
    /// The right to keep what is read.
    ticket: Option<near::Ticket>,
    /// Forgets what is kept when the call has ended.
    _writing: Option<near::Writing>,
}

impl Begun<'_> {
    /// Whom to ask for what.
    pub(crate) fn target<'a>(&self, command: Command<'a>) -> Option<(Arc<Server>, Command<'a>)> {
        let (server, seconds_max) = self.to.as_ref()?;
        let command = seconds_max.map_or(command, |seconds| for_stand_in(command, seconds));
        Some((Arc::clone(server), command))
    }

    /// The result of a call whose first server is not asked.
    pub(crate) fn unasked<R, F: Convert<R>>(
        &self,
        operation: &mut Operation<'_, R, F>,
    ) -> Result<R, Error> {
        let kept = self.kept.as_deref();
        let reply = kept.map_or_else(|| nowhere(&operation.command), Encoded::as_reply);
        operation.read(reply)
    }
}

/// One request, sent once or twice.
#[derive(Debug)]
pub(in crate::client) struct Attempt {
    effect: Effect,
    repeated: bool,
}

impl Attempt {
    pub(crate) fn new(effect: Effect) -> Self {
        Self { effect, repeated: false }
    }

    /// Whether to try again after a connection broke. A server that was restarted has closed its
    /// connections without being at fault: what was sent on one that had been `used` before is sent
    /// again, once, if it only reads.
    pub(crate) fn again(&mut self, cluster: &Cluster, error: &Error, used: bool) -> bool {
        let stale = used && matches!(error, Error::Io { .. });
        let again = stale && self.effect == Effect::Read && !self.repeated;
        if again {
            self.repeated = true;
            count(&cluster.counters.retries);
        }
        again
    }
}

impl Cluster {
    /// Finds the servers of a key, unless its value is kept here.
    pub(crate) fn begin<'k, R, F: Convert<R>>(
        &self,
        key: &'k (impl AsKey + ?Sized),
        operation: &mut Operation<'_, R, F>,
    ) -> Result<Begun<'k>, Error> {
        let (key, placing) = self.wire(key)?;
        let command = operation.command;
        command.check(&key)?;
        let mut begun =
            Begun { key, to: None, copies: Vec::new(), kept: None, ticket: None, _writing: None };
        if command.copying() == Copying::ReadAny && self.near.is_on() {
            begun.kept = self.recall(&begun.key);
            if begun.kept.is_some() {
                return Ok(begun);
            }
            begun.ticket = self.near.ask(&begun.key);
            operation.keeps = begun.ticket.is_some();
        }
        if command.spoils_copies() {
            begun._writing = self.near.writing(&begun.key);
        }
        let topology = self.topology();
        let targets = self.targets(&topology, &placing, &begun.key, &command, false)?;
        begun.copies = targets.others;
        begun.to = match targets.first {
            Route::Owner(server) => Some((server, None)),
            Route::StandIn(server, seconds_max) => Some((server, Some(seconds_max))),
            Route::Nowhere => None,
        };
        Ok(begun)
    }

    /// What is kept of a key.
    pub(crate) fn recall(&self, key: &WireKey<'_>) -> Option<Arc<Encoded>> {
        let kept = self.near.get(key, clock::now());
        kept.is_some().then(|| count(&self.counters.near_hits));
        kept
    }

    /// What the outcome of a call is to the caller, and to the counters.
    pub(crate) fn settle<R, F: Convert<R>>(
        &self,
        begun: Begun<'_>,
        mut operation: Operation<'_, R, F>,
        result: Result<R, Error>,
    ) -> Result<R, Error> {
        if let (Ok(_), Some(ticket), Some(brought)) =
            (&result, begun.ticket, operation.brought.take())
        {
            self.near.keep(ticket, brought, clock::now());
        }
        let result = match result {
            Err(error) if operation.effect == Effect::Read && self.forgives(&error) => {
                operation.read(Reply::NotFound)
            }
            Err(error) if operation.effect == Effect::Read => Err(error.without_doubt()),
            result => result,
        };
        if let (Some(found), Ok(result)) = (operation.found, &result) {
            self.count_found(found(result));
        }
        result
    }

    /// Whether a read that failed for this counts as a miss.
    pub(crate) fn forgives(&self, error: &Error) -> bool {
        let refused = matches!(error, Error::Login { .. });
        self.forgives_reads() && (error.is_failure_of_server() || refused)
    }

    /// Counts what a read found.
    pub(crate) fn count_found(&self, found: bool) {
        observe::read(found, 1);
        count(if found { &self.counters.hits } else { &self.counters.misses });
    }
}
