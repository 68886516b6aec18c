//! What those who watch are told of a call to a server: the latencies of the client, with the
//! feature `tracing` a span, with `metrics` a measurement. Owns names and labels; without the two
//! features nothing of them is left.
//!
//! The names are in `client/mod.rs`, for users. Keys and values are never shown.

use crate::client::clock;
use crate::client::cluster::Server;
use crate::client::error::Error;
use crate::client::events::Event;
use crate::client::wire::command::{Command, Mode, ServerCommand};
use std::time::Instant;

/// A call about many keys.
pub(in crate::client) const MANY: &str = "many";

/// A call to a server, from its beginning.
#[must_use]
pub(in crate::client) struct Watch<'s> {
    server: &'s Server,
    operation: &'static str,
    begun: Instant,
    #[cfg(feature = "tracing")]
    span: tracing::Span,
}

impl<'s> Watch<'s> {
    pub(super) fn begin(server: &'s Server, operation: &'static str) -> Self {
        Self {
            server,
            operation,
            begun: clock::now(),
            #[cfg(feature = "tracing")]
            span: tracing::debug_span!(
                target: "distcache::client",
                "distcache.call",
                db.system.name = "memcached",
                db.operation.name = operation,
                server.address = server.name.as_str(),
                error.type = tracing::field::Empty,
            ),
        }
    }

    /// Does the call, in its span.
    pub(super) fn during<R>(&self, call: impl FnOnce() -> R) -> R {
        #[cfg(feature = "tracing")]
        let _entered = self.span.enter();
        call()
    }

    /// The same for a future: in its span whenever it goes on.
    #[cfg(feature = "tokio")]
    pub(super) async fn around<F: Future>(&self, call: F) -> F::Output {
        #[cfg(feature = "tracing")]
        let call = tracing::Instrument::instrument(call, self.span.clone());
        call.await
    }

    /// The call has ended, with an error or without.
    pub(super) fn end(self, error: Option<&Error>) {
        self.end_at(clock::now(), error);
    }

    pub(super) fn end_at(self, at: Instant, error: Option<&Error>) {
        let took = at.saturating_duration_since(self.begun);
        let answered = error.is_none_or(|error| !error.is_failure_of_server());
        if answered && !matches!(error, Some(Error::Login { .. })) {
            self.server.latencies.add(took);
        }
        #[cfg(feature = "tracing")]
        if let Some(error) = error {
            self.span.record("error.type", kind(error));
        }
        #[cfg(feature = "metrics")]
        metrics::histogram!(
            "distcache_client_call_seconds",
            "server" => self.server.name.clone(),
            "operation" => self.operation,
            "outcome" => error.map_or("ok", kind),
        )
        .record(took);
        let _ = self.operation;
    }
}

/// So many keys were asked for, and found or not.
pub(in crate::client) fn read(found: bool, count: u64) {
    #[cfg(feature = "metrics")]
    if count > 0 {
        let found = if found { "true" } else { "false" };
        metrics::counter!("distcache_client_reads_total", "found" => found).increment(count);
    }
    let _ = (found, count);
}

/// Something happened to a server or the list of them.
pub(in crate::client) fn event(event: &Event) {
    #[cfg(feature = "metrics")]
    metrics::counter!("distcache_client_events_total", "event" => name_of(event)).increment(1);
    let _ = event;
}

#[cfg(feature = "metrics")]
fn name_of(event: &Event) -> &'static str {
    match event {
        Event::Ejected { .. } => "ejected",
        Event::ProbeFailed { .. } => "probe_failed",
        Event::OnTrial { .. } => "on_trial",
        Event::Rejoined { .. } => "rejoined",
        Event::LoginRefused { .. } => "login_refused",
        Event::ServersChanged { .. } => "servers_changed",
        Event::DiscoveryFailed { .. } => "discovery_failed",
    }
}

/// An error in a word.
#[cfg(any(feature = "tracing", feature = "metrics"))]
fn kind(error: &Error) -> &'static str {
    match error {
        Error::Config(_) => "config",
        Error::Key { .. } => "key",
        Error::Value(_) => "value",
        Error::Connect { .. } => "connect",
        Error::Io { .. } => "io",
        Error::Timeout { .. } => "timeout",
        Error::Tls { .. } => "tls",
        Error::Protocol { .. } => "protocol",
        Error::Refused { .. } => "refused",
        Error::Down { .. } => "down",
        Error::Partial { .. } => "partial",
        Error::Login { .. } => "login",
        Error::NoServers => "no_servers",
        Error::Contended { .. } => "contended",
    }
}

impl Command<'_> {
    /// The operation, as a client's methods are called.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Get { .. } => "get",
            Self::GetAndTouch { .. } => "get_and_touch",
            Self::Store { mode, .. } => match mode {
                Mode::Set => "set",
                Mode::Add => "add",
                Mode::Replace => "replace",
                Mode::Cas(_) => "cas",
            },
            Self::Extend { front: false, .. } => "append",
            Self::Extend { front: true, .. } => "prepend",
            Self::Delete | Self::DeleteVersion { .. } => "delete",
            Self::Touch { .. } => "touch",
            Self::Count { up: true, .. } => "incr",
            Self::Count { up: false, .. } => "decr",
            Self::CountFrom { up: true, .. } => "incr_or",
            Self::CountFrom { up: false, .. } => "decr_or",
            Self::Lease { .. } => "get_or_compute",
            Self::Inspect => "inspect",
            Self::Invalidate { .. } => "invalidate",
        }
    }
}

impl ServerCommand<'_> {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Stats(_) => "stats",
            Self::FlushAll { .. } => "flush_all",
            Self::ConfigCluster => "config",
            Self::ListKeys => "list_keys",
        }
    }
}
