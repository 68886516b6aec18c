//! Bytes to and from a server, encrypted or not, for both faces. Never waits: what cannot be done
//! now is `WouldBlock`, and the faces wait in their own ways.

use crate::client::net::tls::Session;
use std::io::{self, ErrorKind, Read, Write};

/// A socket that never waits.
pub(in crate::client) trait Socket {
    fn try_read(&self, room: &mut [u8]) -> io::Result<usize>;
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;
}

/// A socket as `std::io` wants one.
struct Io<'s, S>(&'s S);

impl<S: Socket> Read for Io<'_, S> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(room)
    }
}

impl<S: Socket> Write for Io<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket, and the encryption on it if there is any.
#[derive(Debug)]
pub(in crate::client) struct Stream<S> {
    pub socket: S,
    session: Option<Box<Session>>,
}

impl<S: Socket> Stream<S> {
    /// With a session, a handshake comes first.
    pub(crate) fn new(socket: S, session: Option<Session>) -> Self {
        Self { socket, session: session.map(Box::new) }
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        self.session.is_some()
    }

    /// Does what can be done of the handshake; `WouldBlock` until it is complete.
    pub(crate) fn try_handshake(&mut self) -> io::Result<()> {
        match &mut self.session {
            Some(session) => session.handshake(&mut Io(&self.socket)),
            None => Ok(()),
        }
    }

    /// Takes some of the bytes. Encrypted ones may be owed to the socket afterwards.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.session {
            Some(session) => session.send(&mut Io(&self.socket), bytes),
            None => self.socket.try_write(bytes),
        }
    }

    /// Whether bytes that were taken are not with the socket yet.
    pub(crate) fn owes(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.owes())
    }

    /// Hands over what is owed.
    pub(crate) fn try_flush(&mut self) -> io::Result<()> {
        match &mut self.session {
            Some(session) => session.flush(&mut Io(&self.socket)),
            None => Ok(()),
        }
    }

    /// Some bytes; none at the end of the connection.
    pub(crate) fn try_receive(&mut self, room: &mut [u8]) -> io::Result<usize> {
        match &mut self.session {
            Some(session) => session.receive(&mut Io(&self.socket), room),
            None => self.socket.try_read(room),
        }
    }

    /// Whether there are bytes to receive that left the socket already: it says nothing of them.
    pub(crate) fn holds(&mut self) -> bool {
        self.session.as_mut().is_some_and(|session| session.holds())
    }

    /// Whether it is open and nothing has arrived that nobody asked for. Tickets for later sessions
    /// are part of TLS, and are dealt with here.
    pub(crate) fn is_quiet(&mut self) -> bool {
        match &mut self.session {
            Some(session) => session.is_quiet(&mut Io(&self.socket)),
            None => {
                let read = self.socket.try_read(&mut [0]);
                read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
            }
        }
    }
}
