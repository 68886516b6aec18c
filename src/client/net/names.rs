//! The addresses that a server's name stands for. Owns what was found last, and the one thread that
//! looks a name up: a name server that does not answer holds up nobody beyond their own time.

use crate::client::placement::node::Node;
use std::future::Future;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// What a name stands for, or why that is not known.
type Found = Result<Vec<SocketAddr>, String>;

/// The addresses of one server.
#[derive(Debug)]
pub(in crate::client) struct Names {
    host: String,
    port: u16,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Found last; kept while nothing better is known.
    found: Vec<SocketAddr>,
    /// Why the last attempt failed.
    failed: Option<String>,
    is_looking: bool,
    waiting: Vec<Waker>,
}

impl Names {
    pub(crate) fn new(node: &Node) -> Arc<Self> {
        let (host, port) = (node.host().to_owned(), node.port());
        // An address needs no looking up, a Unix socket has none.
        let found = host.parse::<IpAddr>().map(|ip| vec![SocketAddr::new(ip, port)]);
        let state = State { found: found.unwrap_or_default(), ..State::default() };
        Arc::new(Self { host, port, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known, or what a look finds.
    pub(crate) fn addresses(self: &Arc<Self>) -> Addresses {
        let mut state = self.lock();
        if state.found.is_empty() && !state.is_looking {
            state.failed = None;
            self.look(&mut state);
        }
        Addresses(Arc::clone(self))
    }

    /// Looks again, in the background: the server may have moved.
    pub(crate) fn look_again(self: &Arc<Self>) {
        let mut state = self.lock();
        if self.host.parse::<IpAddr>().is_err() && !state.is_looking {
            self.look(&mut state);
        }
    }

    fn look(self: &Arc<Self>, state: &mut State) {
        let names = Arc::clone(self);
        let thread = std::thread::Builder::new().name("distcache-names".into());
        let started = thread.spawn(move || {
            let found = (names.host.as_str(), names.port).to_socket_addrs();
            names.finish(found.map(Iterator::collect).map_err(|error| error.to_string()));
        });
        match started {
            Ok(_) => state.is_looking = true,
            Err(error) => state.failed = Some(format!("no thread: {error}")),
        }
    }

    fn finish(&self, found: Found) {
        let mut state = self.lock();
        state.is_looking = false;
        match found {
            Ok(found) if !found.is_empty() => (state.found, state.failed) = (found, None),
            Ok(_) => state.failed = Some("no address".into()),
            Err(error) => state.failed = Some(error),
        }
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// The addresses to come.
#[derive(Debug)]
pub(in crate::client) struct Addresses(Arc<Names>);

impl Future for Addresses {
    type Output = Found;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Found> {
        let mut state = self.0.lock();
        if !state.found.is_empty() {
            return Poll::Ready(Ok(state.found.clone()));
        }
        if let (false, Some(failed)) = (state.is_looking, &state.failed) {
            return Poll::Ready(Err(format!("{} does not resolve: {failed}", self.0.host)));
        }
        if !state.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            state.waiting.push(context.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(addresses: &mut Addresses) -> Poll<Found> {
        Pin::new(addresses).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn addresses_need_no_look() {
        let names = Names::new(&Node::tcp("::1", 7));
        let found = vec!["[::1]:7".parse().unwrap()];
        assert_eq!(poll(&mut names.addresses()), Poll::Ready(Ok(found)));
        names.look_again();
        assert!(!names.lock().is_looking);
    }

    #[test]
    fn what_was_found_stays_when_a_look_fails() {
        let names = Names::new(&Node::tcp("name", 7));
        names.lock().is_looking = true;
        let mut waiting = names.addresses();
        assert!(poll(&mut waiting).is_pending());
        names.finish(Err("refused".into()));
        assert!(matches!(poll(&mut waiting), Poll::Ready(Err(cause)) if cause.contains("refused")));
        let found: Vec<SocketAddr> = vec!["10.0.0.1:7".parse().unwrap()];
        names.finish(Ok(found.clone()));
        names.finish(Err("refused".into()));
        assert_eq!(poll(&mut waiting), Poll::Ready(Ok(found)));
    }
}
