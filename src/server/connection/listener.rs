//! Accepting connections: the listening sockets, the connection limit, and handing out.
//!
//! One thread accepts for all listeners and gives each connection to the next worker in turn. It
//! never reads from a connection.

use crate::limits::ACCEPTS_MAX;
use crate::protocol::reply;
use crate::server::config::{ClientCertificates, Config, Listener, Protocol};
use crate::server::connection::session::Spoken;
use crate::server::connection::socket::{Arrival, Stream};
use crate::server::shared::Shared;
use crate::server::worker::inbox::Bell;
use crate::system::{self, UnixAcceptor, UnixListener};
use crossbeam::channel::Sender;
use mio::event::Source;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, SockRef, Socket, Type};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long accepting pauses when there are no file descriptors or no free places.
const PAUSE: Duration = Duration::from_millis(20);

/// How often and how long the thread waits for a free place before the first connection is refused.
/// Clients that come and go fast leave connections that their workers have not looked at yet: those
/// count, and are gone in a moment.
const FULL_WAITS: u32 = 50;
const FULL_WAIT: Duration = Duration::from_millis(2);

/// Longest wait: a stop that does not wake the thread is noticed then.
const TICK: Duration = Duration::from_millis(250);

/// The waker's place among the listeners' tokens.
const WAKER: Token = Token(usize::MAX);

/// A listening socket.
#[derive(Debug)]
pub enum Bound {
    /// TCP, and what is spoken there if that is not what `-B` says.
    Tcp(std::net::TcpListener, Option<Protocol>),
    /// TCP for TLS, and what is asked of clients.
    Tls(std::net::TcpListener, ClientCertificates, Option<Protocol>),
    /// Unix, with its path.
    Unix(UnixListener, String),
}

/// Binds everything the configuration names.
///
/// # Errors
/// Those of bind and listen: address in use, not ours, or not permitted. The text names the
/// address.
pub fn bind(config: &Config) -> io::Result<Vec<Bound>> {
    let protocol_at = |address: &SocketAddr| {
        let own = config.protocols.iter().find(|(at, _)| at == address);
        own.map(|(_, protocol)| *protocol)
    };
    let bind_one = |listener: &Listener| match listener {
        Listener::Tcp(address) => {
            bind_tcp(*address).map(|listener| Bound::Tcp(listener, protocol_at(address)))
        }
        Listener::Tls(address, clients) => {
            bind_tcp(*address).map(|listener| Bound::Tls(listener, *clients, protocol_at(address)))
        }
        Listener::Unix(path, mode) => {
            let listener = system::listen_unix(path, *mode)?;
            Ok(Bound::Unix(listener, path.display().to_string()))
        }
    };
    config.listeners.iter().map(bind_one).collect()
}

fn bind_tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let named = |why: io::Error| io::Error::new(why.kind(), format!("{why} at {address}"));
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    system::allow_early_reuse(&socket)?;
    if address.is_ipv6() {
        // 0.0.0.0 has a socket of its own.
        socket.set_only_v6(true)?;
    }
    // Accepted sockets inherit both on Linux, which saves two calls for each.
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.bind(&address.into()).map_err(named)?;
    Ok(socket.into())
}

impl Bound {
    /// Takes connections from here on. Before, whoever tries to connect is refused, and goes to
    /// another server; a socket file and those of a service manager take them from the beginning.
    fn listen(&self, backlog: u32) -> io::Result<()> {
        match self {
            Self::Tcp(listener, _) | Self::Tls(listener, ..) => {
                let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
                SockRef::from(listener).listen(backlog)
            }
            Self::Unix(..) => Ok(()),
        }
    }

    /// The TCP address it got; `None` for a Unix socket.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener, _) | Self::Tls(listener, ..) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    /// What is spoken there if that is not what `-B` says.
    fn protocol(&self) -> Option<Protocol> {
        match self {
            Self::Tcp(_, protocol) | Self::Tls(_, _, protocol) => *protocol,
            Self::Unix(..) => None,
        }
    }

    /// File descriptor and address, for `stats conns`.
    pub fn describe(&self) -> (i32, String) {
        match self {
            Self::Tcp(listener, _) | Self::Tls(listener, ..) => {
                let address = listener.local_addr().map_or_else(
                    |_| "unknown".to_owned(),
                    |address| super::socket::describe_tcp(&address),
                );
                (system::descriptor(listener), address)
            }
            Self::Unix(listener, path) => (system::descriptor(listener), format!("unix:{path}")),
        }
    }
}

/// A listening socket as mio sees it.
enum Listening {
    Tcp(mio::net::TcpListener),
    Tls(mio::net::TcpListener, ClientCertificates),
    Unix(UnixAcceptor),
}

impl Listening {
    fn new(bound: Bound) -> io::Result<Self> {
        let tcp = |listener: std::net::TcpListener| {
            listener.set_nonblocking(true)?;
            Ok(mio::net::TcpListener::from_std(listener))
        };
        match bound {
            Bound::Tcp(listener, _) => tcp(listener).map(Self::Tcp),
            Bound::Tls(listener, clients, _) => {
                tcp(listener).map(|listener| Self::Tls(listener, clients))
            }
            Bound::Unix(listener, _) => system::unix_acceptor(listener).map(Self::Unix),
        }
    }

    fn source(&mut self) -> &mut dyn Source {
        match self {
            Self::Tcp(listener) | Self::Tls(listener, _) => listener,
            Self::Unix(listener) => listener,
        }
    }

    /// A connection as it comes, not encrypted yet.
    fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) | Self::Tls(listener, _) => {
                listener.accept().map(|(tcp, _)| Stream::Tcp(tcp))
            }
            Self::Unix(listener) => listener.accept().map(|(unix, _)| Stream::Unix(unix)),
        }
    }
}

/// A listening socket and what connections need to know of it.
struct Place {
    listening: Listening,
    name: Arc<str>,
    spoken: Spoken,
}

/// Where accepted connections go.
pub struct WorkerQueue {
    /// A worker's queue of arrivals.
    pub arrivals: Sender<Arrival>,
    /// Wakes that worker.
    pub bell: Arc<Bell>,
}

/// The accepting thread's state.
pub struct Acceptor {
    poll: Poll,
    listeners: Vec<Place>,
    /// Listeners that may have connections waiting.
    ready: Vec<usize>,
    queues: Vec<WorkerQueue>,
    next_queue: usize,
    shared: Arc<Shared>,
    limits: Limits,
    out_of_descriptors: bool,
    /// All places are taken, and were for as long as it waited.
    is_full: bool,
}

/// What accepting from a listener ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accepted {
    /// Nobody waits.
    All,
    /// Others may wait: it goes on when the other listeners had their turn.
    Some,
    /// There is no room, or no descriptor: they wait.
    Stuck,
}

/// What the configuration says about connections.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// At a time.
    pub connections_max: usize,
    /// Refuse those above with an error line, or let them wait.
    pub refuse_fast: bool,
}

impl Acceptor {
    /// Gets ready to accept. Also returns what wakes the thread, to stop it.
    ///
    /// # Errors
    /// Those of the poll.
    pub fn new(
        bound: Vec<Bound>,
        queues: Vec<WorkerQueue>,
        shared: Arc<Shared>,
        limits: Limits,
    ) -> io::Result<(Self, mio::Waker)> {
        let poll = Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), WAKER)?;
        let mut listeners = Vec::new();
        for (at, bound) in bound.into_iter().enumerate() {
            let name: Arc<str> = bound.describe().1.into();
            let spoken = shared.config.spoken(bound.protocol());
            bound.listen(shared.config.backlog)?;
            let mut listening = Listening::new(bound)?;
            poll.registry().register(listening.source(), Token(at), Interest::READABLE)?;
            listeners.push(Place { listening, name, spoken });
        }
        let acceptor = Self {
            poll,
            listeners,
            ready: Vec::new(),
            queues,
            next_queue: 0,
            shared,
            limits,
            out_of_descriptors: false,
            is_full: false,
        };
        Ok((acceptor, waker))
    }

    /// Accepts until the server stops.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(64);
        let mut timeout = TICK;
        while !self.shared.stopping() {
            if let Err(error) = self.poll.poll(&mut events, Some(timeout))
                && error.kind() != io::ErrorKind::Interrupted
            {
                log::error!("cannot wait for connections: {error}; no more are accepted");
                return;
            }
            for event in events.iter().filter(|event| event.token() != WAKER) {
                if !self.ready.contains(&event.token().0) {
                    self.ready.push(event.token().0);
                }
            }
            timeout = self.accept_ready();
        }
    }

    /// Accepts from every listener that has connections waiting. Returns how long to wait for more.
    fn accept_ready(&mut self) -> Duration {
        let mut timeout = TICK;
        let mut stuck = false;
        for at in std::mem::take(&mut self.ready) {
            match self.accept_some(at) {
                Accepted::All => continue,
                Accepted::Some => timeout = Duration::ZERO,
                Accepted::Stuck => (stuck, timeout) = (true, timeout.min(PAUSE)),
            }
            self.ready.push(at);
        }
        self.shared.note_accepting(!stuck);
        timeout
    }

    /// A number of connections from one listener.
    fn accept_some(&mut self, at: usize) -> Accepted {
        for _ in 0..ACCEPTS_MAX {
            let full = self.has_no_place();
            if full && !self.limits.refuse_fast {
                return Accepted::Stuck;
            }
            match self.listeners[at].listening.accept() {
                Ok(stream) if full => self.refuse(stream),
                Ok(stream) => self.hand_out(stream, at),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => {
                        self.out_of_descriptors = false;
                        return Accepted::All;
                    }
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => {
                        self.note_failure(&error);
                        return Accepted::Stuck;
                    }
                },
            }
        }
        Accepted::Some
    }

    /// Whether there is no place for another connection, also after a while.
    fn has_no_place(&mut self) -> bool {
        let max = self.limits.connections_max;
        let full = || self.shared.connections.load(Ordering::Relaxed) >= max;
        let waits = if self.limits.refuse_fast && !self.is_full { FULL_WAITS } else { 0 };
        let mut is_full = full();
        for _ in 0..waits {
            if !is_full || self.shared.stopping() {
                break;
            }
            std::thread::sleep(FULL_WAIT);
            is_full = full();
        }
        self.is_full = is_full;
        is_full
    }

    /// Out of descriptors or of kernel memory: connections wait in the queue; existing ones go on.
    fn note_failure(&mut self, error: &io::Error) {
        if !self.out_of_descriptors {
            log::warn!(
                "cannot accept connections: {error}; they wait until others close \
                 (raise the limit of open files or lower -c)"
            );
            self.out_of_descriptors = true;
        }
    }

    fn refuse(&self, mut stream: Stream) {
        self.shared.rejected_connections.fetch_add(1, Ordering::Relaxed);
        log::info!("refused a connection: all {} are in use (-c)", self.limits.connections_max);
        // The client may be gone already; it is not served either way.
        let _ = stream.write(reply::TOO_MANY_CONNECTIONS);
    }

    /// Makes a connection one of TLS if its listener is one. With the certificates of now: those
    /// that are read later are for connections that come later.
    fn secure(&self, stream: Stream, at: usize) -> io::Result<Stream> {
        match (&self.listeners[at].listening, stream) {
            (Listening::Tls(_, clients), Stream::Tcp(socket)) => {
                let tls = self.shared.tls.as_ref();
                let tls = tls.ok_or_else(|| io::Error::other("there are no certificates"))?;
                tls.accept(socket, *clients).map(|stream| Stream::Tls(Box::new(stream)))
            }
            (_, stream) => Ok(stream),
        }
    }

    fn hand_out(&mut self, stream: Stream, at: usize) {
        let stream = match self.secure(stream, at) {
            Ok(stream) => stream,
            Err(why) => {
                log::warn!("cannot begin TLS on a new connection: {why}; it is closed");
                return;
            }
        };
        self.shared.connections.fetch_add(1, Ordering::Relaxed);
        self.shared.total_connections.fetch_add(1, Ordering::Relaxed);
        let Place { name, spoken, .. } = &self.listeners[at];
        let (listener, spoken) = (Arc::clone(name), *spoken);
        let queue = &self.queues[self.next_queue];
        self.next_queue = (self.next_queue + 1) % self.queues.len();
        if queue.arrivals.send(Arrival { stream, listener, spoken }).is_err() {
            // Only when the server stops; the connection closes as it is dropped.
            self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        }
        queue.bell.ring();
    }
}
