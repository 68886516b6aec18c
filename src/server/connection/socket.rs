//! A socket and the conversation on it.

use crate::server::clock::Moment;
use crate::server::connection::session::{Session, Spoken};
use crate::server::connection::tls::TlsStream;
use crate::server::stats::latency::Probe;
use crate::server::stats::report::ConnectionReport;
use crate::server::worker::queues::Places;
use crate::system::{self, UnixStream};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

/// An accepted socket.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
    /// TCP, encrypted. Boxed: it is large, and others need not be.
    Tls(Box<TlsStream>),
}

/// A connection on its way from the accepting thread to a worker.
#[derive(Debug)]
pub struct Arrival {
    /// The socket.
    pub stream: Stream,
    /// The address it came in at.
    pub listener: Arc<str>,
    /// What is spoken there.
    pub spoken: Spoken,
}

/// Names a connection of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnectionId {
    /// Its place.
    pub token: usize,
    /// Tells it from others that had its place.
    pub serial: u64,
}

/// A connection of a worker.
#[derive(Debug)]
pub struct Connection {
    /// The socket.
    pub stream: Stream,
    /// The conversation.
    pub session: Session,
    /// Tells this connection from others that had its place.
    pub serial: u64,
    /// Second of the last command, on the server's clock.
    pub last_command_seconds: u64,
    /// The socket may have bytes to read.
    pub readable: bool,
    /// The other end has said that it will send no more: read until the end shows.
    pub read_closed: bool,
    /// The end was read.
    pub ended: bool,
    /// In which of its worker's lines it stands.
    pub places: Places,
    /// When the bytes that wait to be served were read. `None`: in the turn that serves them, or
    /// they wait for the client to take its replies, and count as read when it has.
    pub read_at: Option<Moment>,
    /// Commands whose replies have not left, of those that are timed.
    pub probes: Vec<Probe>,
    /// Its share of the memory that connections hold, as last counted.
    pub held_bytes: usize,
    listener: Arc<str>,
}

impl Stream {
    /// Has the poll report both directions, edge-triggered, under `token`.
    ///
    /// # Errors
    /// Those of the poll.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        match self {
            Self::Tcp(stream) => registry.register(stream, token, interest),
            Self::Unix(stream) => registry.register(stream, token, interest),
            Self::Tls(stream) => registry.register(stream.socket_mut(), token, interest),
        }
    }

    /// The descriptor.
    pub fn descriptor(&self) -> i32 {
        match self {
            Self::Tcp(stream) => system::descriptor(stream),
            Self::Unix(stream) => system::descriptor(stream),
            Self::Tls(stream) => system::descriptor(stream.socket()),
        }
    }

    /// The TCP socket below, if it is one.
    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(stream) => Some(stream),
            Self::Tls(stream) => Some(stream.socket()),
            Self::Unix(_) => None,
        }
    }

    /// There may be more to read, although the last read was a short one.
    fn has_more(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.has_more())
    }

    /// What was written has not left yet: the socket has to take more.
    pub fn has_unsent(&self) -> bool {
        matches!(self, Self::Tls(stream) if stream.has_unsent())
    }

    /// Address, port and transport of the other end, as watchers are told.
    pub fn peer_parts(&self) -> (String, u16, &'static str) {
        match self.tcp() {
            Some(stream) => match stream.peer_addr() {
                Ok(address) => (address.ip().to_string(), address.port(), "tcp"),
                // Gone already.
                Err(_) => ("unknown".to_owned(), 0, "tcp"),
            },
            None => ("unix".to_owned(), 0, "local"),
        }
    }

    /// The other end, as `stats conns` shows it.
    pub fn peer(&self) -> String {
        match self.tcp() {
            Some(stream) => stream.peer_addr().map_or_else(
                // Gone already.
                |_| "unknown".to_owned(),
                |address| describe_tcp(&address),
            ),
            // Clients of Unix sockets have no name of use.
            None => "unix".to_owned(),
        }
    }
}

/// An address as `stats conns` shows it.
pub fn describe_tcp(address: &SocketAddr) -> String {
    match address {
        SocketAddr::V4(address) => format!("tcp:{address}"),
        SocketAddr::V6(address) => format!("tcp6:{address}"),
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
            Self::Tls(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(slices),
            Self::Unix(stream) => stream.write_vectored(slices),
            Self::Tls(stream) => stream.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            // The kernel sees to it.
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

impl Connection {
    /// A new conversation on an accepted socket.
    pub fn new(arrival: Arrival, serial: u64, now_seconds: u64) -> Self {
        Self {
            stream: arrival.stream,
            session: Session::new(arrival.spoken),
            serial,
            last_command_seconds: now_seconds,
            readable: false,
            read_closed: false,
            ended: false,
            places: Places::default(),
            read_at: None,
            probes: Vec::new(),
            held_bytes: 0,
            listener: arrival.listener,
        }
    }

    /// Reads what has arrived into `scratch` and returns how much that is. `Ok(None)`: nothing has,
    /// or the end was reached (then `ended` is set).
    ///
    /// # Errors
    /// Those of the socket but `WouldBlock` and `Interrupted`.
    pub fn receive(&mut self, scratch: &mut [u8]) -> io::Result<Option<usize>> {
        match self.stream.read(scratch) {
            Ok(0) => {
                (self.readable, self.ended) = (false, true);
                Ok(None)
            }
            Ok(bytes) => {
                // A short read has emptied the socket: asking again would only be told so.
                let is_short = system::SHORT_READ_EMPTIES && bytes < scratch.len();
                let emptied = is_short && !self.stream.has_more();
                self.readable = !emptied || self.read_closed;
                Ok(Some(bytes))
            }
            Err(error) => self.no_bytes(error).map(|()| None),
        }
    }

    fn no_bytes(&mut self, error: io::Error) -> io::Result<()> {
        match error.kind() {
            io::ErrorKind::WouldBlock => {
                self.readable = false;
                Ok(())
            }
            io::ErrorKind::Interrupted => Ok(()),
            _ => Err(error),
        }
    }

    /// Nothing more will come of this connection: its replies have left and no command is open.
    pub fn is_done(&self) -> bool {
        let input_over =
            self.session.is_closing() || (self.ended && !self.places.is_to_be_served());
        input_over && self.all_has_left()
    }

    /// The socket has taken all there is to send.
    pub fn all_has_left(&self) -> bool {
        self.session.output.is_empty() && !self.stream.has_unsent()
    }

    /// Its line in `stats conns`.
    pub fn report(&self, now_seconds: u64) -> ConnectionReport {
        ConnectionReport {
            descriptor: self.stream.descriptor(),
            address: self.stream.peer(),
            listen_address: self.listener.to_string(),
            state: self.session.state_name(),
            replies_waiting: self.session.output.gates().len(),
            idle_seconds: now_seconds.saturating_sub(self.last_command_seconds),
        }
    }
}
